"""Reading pictures of any shape ahead: order, errors, laziness, threads."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ragged import processor

from vlrt import ahead
from vlrt.ahead import read_each
from vlrt.errors import ImageError
from vlrt.image import decode
from vlrt.ragged import RaggedProcessor

PROCESSOR = processor(size=8, do_normalize=False, do_rescale=False)
BAD = b"this is no picture"


def plain(level):
    """A picture of one grey, each of another shape."""
    return np.full((8 + 3 * (level % 3), 9, 3), level, np.uint8)


def read(sources, *, held=3, workers=2):
    return read_each(sources, PROCESSOR, held, {"threads": workers, "decode": "exact"})


def level(pixels):
    assert (pixels == pixels[0, 0, 0]).all()
    return int(pixels[0, 0, 0])


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 20])
@pytest.mark.parametrize("held", [1, 3, 100])
@pytest.mark.parametrize("workers", [1, 4])
def test_order_is_kept(number, held, workers):
    found = read((plain(n) for n in range(number)), held=held, workers=workers)
    assert [level(pixels) for _, pixels in found] == list(range(number))


@given(st.lists(st.booleans(), max_size=12))
def test_an_error_takes_the_place_of_its_picture_and_of_no_other(good):
    sources = [plain(n) if ok else BAD for n, ok in enumerate(good)]
    found = list(read(sources))
    assert [source for source, _ in found] == sources
    for n, ((_, value), ok) in enumerate(zip(found, good, strict=True)):
        assert level(value) == n if ok else isinstance(value, ImageError)


def test_a_picture_that_is_too_elongated_is_an_error_of_its_own():
    (_, first), (_, second) = read([np.zeros((1, 999, 3), np.uint8), plain(7)])
    assert isinstance(first, ImageError)
    assert level(second) == 7


def test_sources_are_taken_ahead_and_no_further():
    taken = []
    found = read((taken.append(n) or plain(n) for n in range(30)), held=4)
    assert taken == []
    for number, (_, pixels) in enumerate(found):
        assert level(pixels) == number
        assert len(taken) <= number + 5
    assert len(taken) == 30


def test_a_reader_that_stops_early_leaves_the_rest_and_its_threads_end():
    taken = []
    found = read(taken.append(n) or plain(n) for n in range(30))
    next(found)
    found.close()
    assert len(taken) <= 4
    assert not [t for t in threading.enumerate() if t.name.startswith("vlrt-decode")]


@pytest.mark.parametrize(("number", "threaded"), [(1, False), (2, True), (9, True)])
def test_one_picture_is_read_without_any_thread(monkeypatch, number, threaded):
    names = set()

    def spy(source, **options):
        names.add(threading.current_thread().name)
        return decode(source, **options)

    monkeypatch.setattr(ahead, "decode", spy)
    assert len(list(read([plain(n) for n in range(number)]))) == number
    assert (threading.main_thread().name in names) != threaded


def test_the_next_pictures_and_no_others_are_read_while_the_caller_has_one(monkeypatch):
    done = [threading.Event() for _ in range(9)]

    def spy(source, **options):
        decoded = decode(source, **options)
        done[source[0, 0, 0]].set()
        return decoded

    monkeypatch.setattr(ahead, "decode", spy)
    for number, _ in enumerate(read([plain(n) for n in range(9)], held=2), start=1):
        # Nothing is asked of the reader here: this is where a model would run.
        assert all(event.wait(60) for event in done[number : number + 2])
        assert not any(event.is_set() for event in done[number + 2 :])


@pytest.mark.parametrize(("number", "threads"), [(1, 5), (2, 1), (9, 1)])
def test_only_a_single_picture_is_resized_in_threads(monkeypatch, number, threads):
    """Several are resized side by side as it is."""
    asked = []
    original = RaggedProcessor.pixels

    def pixels(processor, image, size_hw, threads):
        asked.append(threads)
        return original(processor, image, size_hw, threads)

    monkeypatch.setattr(RaggedProcessor, "pixels", pixels)
    list(read([plain(n) for n in range(number)], workers=5))
    assert asked == [threads] * number


@pytest.mark.parametrize(("mode", "side"), [("exact", None), ("fast", 8)])
def test_a_fast_decode_is_asked_for_where_wanted(monkeypatch, mode, side):
    asked = []
    monkeypatch.setattr(ahead, "decode", lambda s, **o: asked.append(o) or decode(s, **o))
    list(read_each([plain(1)], PROCESSOR, 1, {"threads": 1, "decode": mode}))
    assert asked == [{"shorter_side": side}]
