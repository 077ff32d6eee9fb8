"""Reading ahead: order, errors, laziness, and bounded memory."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ids import told
from pictures import encoded, picture, rotated_jpeg

from vlrt import stream
from vlrt.errors import ImageError, OptionError
from vlrt.files import Settings
from vlrt.image import decode
from vlrt.processor import ImageProcessor
from vlrt.stream import check_several, is_list, read_batches

PROCESSOR = ImageProcessor.from_settings(
    Settings(
        "preprocessor_config.json",
        {
            "do_resize": False,
            "do_center_crop": True,
            "crop_size": 4,
            "do_rescale": False,
            "do_normalize": False,
        },
    )
)
BAD = b"this is no picture"


def plain(level):
    return np.full((4, 4, 3), level, np.uint8)


def read(sources, *, batch_size=3, workers=2, fast=False):
    info = {"threads": workers, "decode": "fast" if fast else "exact"}
    return read_batches(sources, PROCESSOR, batch_size, info)


def levels(batches):
    return [int(pixels[0, 0, 0]) for batch in batches for pixels in batch.pixel_values]


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 6, 7, 20])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("workers", [1, 4])
def test_order_is_kept_in_full_batches(number, batch_size, workers):
    sources = [plain(n) for n in range(number)]
    batches = list(read(iter(sources), batch_size=batch_size, workers=workers))
    assert levels(batches) == list(range(number))
    assert [len(batch.sources) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == -(-number // batch_size)
    assert all(batch.pixel_values.shape[1:] == (3, 4, 4) for batch in batches)


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 5))
def test_an_error_takes_the_place_of_its_picture_and_of_no_other(good, batch_size):
    sources = [plain(n) if ok else BAD for n, ok in enumerate(good)]
    batches = list(read(sources, batch_size=batch_size))
    errors = [error for batch in batches for error in batch.errors]
    assert [error is None for error in errors] == good
    assert all(isinstance(error, ImageError) for error in errors if error is not None)
    assert levels(batches) == [n for n, ok in enumerate(good) if ok]
    assert [len(batch.sizes_hw) for batch in batches] == [len(b.pixel_values) for b in batches]
    assert [source for batch in batches for source in batch.sources] == sources
    each = [pair for batch in batches for pair in batch.each(batch.pixel_values)]
    assert [source for source, _ in each] == sources
    for (_, value), error, level in zip(each, errors, range(len(good)), strict=True):
        assert value is error if error else (value == level).all()


def test_sources_are_taken_two_batches_ahead_and_no_further():
    taken = []

    def sources():
        for n in range(30):
            taken.append(n)
            yield plain(n)

    batches = read(sources(), batch_size=3)
    assert taken == []
    for number, batch in enumerate(batches, start=1):
        assert levels([batch]) == [3 * number - 3, 3 * number - 2, 3 * number - 1]
        assert len(taken) <= 3 * (number + 1)
    assert len(taken) == 30


def test_a_reader_that_stops_early_leaves_the_rest_and_its_threads_end():
    taken = []
    batches = read((taken.append(n) or plain(n) for n in range(30)), batch_size=3)
    next(batches)
    batches.close()
    assert len(taken) <= 6
    assert not [t for t in threading.enumerate() if t.name.startswith("vlrt-decode")]


@pytest.mark.parametrize(("number", "threaded"), [(1, False), (2, True), (9, True)])
def test_one_picture_is_read_without_any_thread(monkeypatch, number, threaded):
    names = set()

    def spy(source, **options):
        names.add(threading.current_thread().name)
        return decode(source, **options)

    monkeypatch.setattr(stream, "decode", spy)
    assert levels(read([plain(n) for n in range(number)])) == list(range(number))
    assert (threading.main_thread().name in names) != threaded


def test_the_next_batch_and_no_other_is_read_while_the_caller_has_one(monkeypatch):
    done = [threading.Event() for _ in range(9)]

    def spy(source, **options):
        decoded = decode(source, **options)
        done[source[0, 0, 0]].set()
        return decoded

    monkeypatch.setattr(stream, "decode", spy)
    for number, _ in enumerate(read([plain(n) for n in range(9)]), start=1):
        # Nothing is asked of the reader here: this is where a model would run.
        assert all(event.wait(60) for event in done[3 * number : 3 * number + 3])
        assert not any(event.is_set() for event in done[3 * number + 3 :])


def test_a_picture_is_decoded_while_another_is_resized(monkeypatch):
    decoding, resized = threading.Event(), threading.Event()

    def spy(source, **options):
        if source[0, 0, 0] == 1:
            decoding.set()
            assert resized.wait(60)
        return decode(source, **options)

    def into(*arguments):
        if not resized.is_set():
            assert decoding.wait(60)
            resized.set()
        original(*arguments)

    original = ImageProcessor.into
    monkeypatch.setattr(stream, "decode", spy)
    monkeypatch.setattr(ImageProcessor, "into", into)
    assert levels(read([plain(0), plain(1)])) == [0, 1]


@pytest.mark.parametrize(("number", "threads"), [(1, 5), (2, 1), (9, 1)])
def test_only_a_single_picture_is_resized_in_threads(monkeypatch, number, threads):
    """Several are resized side by side as it is."""
    asked = []
    original = ImageProcessor.into

    def into(processor, image, out, threads):
        asked.append(threads)
        original(processor, image, out, threads)

    monkeypatch.setattr(ImageProcessor, "into", into)
    list(read([plain(n) for n in range(number)], workers=5))
    assert asked == [threads] * number


@pytest.mark.parametrize("fast", [False, True])
def test_sizes_are_the_original_ones_upright(fast):
    sizes_wh = [(64, 48), (1, 1), (7, 300)]
    sources = [picture("RGB", wh) for wh in sizes_wh]
    sources += [rotated_jpeg(n, (200, 120)) for n in (1, 3, 6, 8)]
    (batch,) = read([*sources[:1], BAD, *sources[1:]], batch_size=9, fast=fast)
    upright_hw = [(height, width) for width, height in sizes_wh]
    assert batch.sizes_hw == [*upright_hw, (120, 200), (120, 200), (200, 120), (200, 120)]


def test_one_bad_picture_is_reported():
    (batch,) = read([BAD])
    assert isinstance(batch.errors[0], ImageError)
    assert batch.pixel_values.shape == (0, 3, 4, 4)
    assert batch.sizes_hw == []


@pytest.mark.parametrize("number", [1, 2, 5])
def test_an_error_that_is_not_the_pictures_is_raised(monkeypatch, number):
    def fail(*_, **__):
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(stream, "decode", fail)
    with pytest.raises(MemoryError, match="no room"):
        list(read([plain(n) for n in range(number)]))


@pytest.mark.parametrize("at", [0, 1, 4])
def test_an_error_of_the_source_itself_is_raised(at):
    def sources():
        yield from (plain(n) for n in range(at))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(read(sources()))


def test_fast_decoding_reaches_the_decoder(monkeypatch):
    sizes = []

    def spy(source, **options):
        decoded = decode(source, **options)
        sizes.append(decoded.image.size)
        return decoded

    monkeypatch.setattr(stream, "decode", spy)
    file = encoded(picture("RGB", (64, 64)), "JPEG")
    for fast in (False, True):
        list(read([file, file], fast=fast))
    assert sizes == [(64, 64), (64, 64), (8, 8), (8, 8)]


@pytest.mark.parametrize(
    ("images", "several"),
    [([], True), ((), True), (["a.jpg"], True), ("a.jpg", False), (b"a", False), (None, False),
     (plain(1), False), (picture(), False), (iter([]), False)],
)  # fmt: skip
def test_a_list_or_a_tuple_is_several_pictures(images, several):
    assert is_list(images) == several


@pytest.mark.parametrize(
    "one", ["a.jpg", Path("a.jpg"), b"a", bytearray(b"a"), memoryview(b"a"), plain(1), picture(),
            io.BytesIO(b"a"), None, 7], ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_one_picture_is_no_stream(one):
    with pytest.raises(OptionError, match=r"^iter_detect takes several pictures; wrap one as \["):
        check_several(one, "iter_detect")


@pytest.mark.parametrize("several", [[], (), iter([]), {"a.jpg"}, (n for n in "ab")], ids=told)
def test_anything_that_gives_pictures_is_a_stream(several):
    check_several(several, "iter_detect")
