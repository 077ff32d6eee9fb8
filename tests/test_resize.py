"""The resize in bands against Pillow's own resize and crop, bit for bit."""

import threading
from unittest.mock import patch

import numpy as np
import PIL
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pictures import picture
from PIL import Image

from vlrt import resize
from vlrt.resize import resized

FILTERS = sorted(filter_.value for filter_ in Image.Resampling)


def pillows(image, size_hw, resample, crop_hw):
    """What transformers does: the whole resize, then the centre."""
    height, width = size_hw
    crop_h, crop_w = crop_hw or size_hw
    whole = image.resize((width, height), Image.Resampling(resample))
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    return whole.crop((left, top, left + crop_w, top + crop_h))


def same(found, expected):
    return found.size == expected.size and np.array_equal(
        np.asarray(found)[..., :3], np.asarray(expected)
    )


def test_this_pillow_is_known():
    """A newer one is served, without bands, until someone has looked at its order of passes."""
    assert tuple(map(int, PIL.__version__.split(".")[:2])) <= resize.KNOWN_PILLOW


@pytest.mark.parametrize(
    ("version", "known"),
    [("10.3.0", True), ("13.0.0", True), ("13.0.9", True), ("13.1.0", False), ("14.0.0", False)],
)
def test_a_pillow_that_nobody_looked_at_resizes_on_its_own(monkeypatch, version, known):
    monkeypatch.setattr(PIL, "__version__", version)
    assert resize._rows_first((60, 45), (23, 17)) == known


sides = st.integers(1, 60)


@given(
    size_wh=st.tuples(sides, sides),
    size_hw=st.tuples(sides, sides),
    crop_hw=st.none() | st.tuples(sides, sides),
    resample=st.sampled_from(FILTERS),
    band=st.integers(0, 400),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 9),
)
@example((60, 45), (17, 23), (17, 17), 3, 0, 1, 0)  # what CLIP does of a landscape
@example((45, 60), (23, 17), (17, 17), 3, 0, 1, 0)  # and of a portrait
@example((60, 20), (32, 32), None, 3, 0, 3, 0)  # what OWL-ViT does
@example((60, 20), (9, 30), (40, 40), 3, 0, 3, 0)  # a crop that pads
@example((1, 60), (50, 1), (1, 1), 1, 0, 1, 0)
def test_any_resize_and_crop_is_pillows(size_wh, size_hw, crop_hw, resample, band, threads, seed):
    image = picture("RGB", size_wh, seed)
    with patch.object(resize, "_BAND", band):
        found = resized(image, size_hw, resample, crop_hw=crop_hw, threads=threads)
    assert same(found, pillows(image, size_hw, resample, crop_hw))


@given(
    st.integers(1, 3),
    st.integers(1, 400),
    st.integers(1, 5),
    st.integers(1, 400),
    st.sampled_from(FILTERS),
)
@example(1, 101, 1, 100, 3)  # Pillow's order of passes changes about here, by its version
@example(2, 300, 1, 298, 3)
@example(2, 300, 1, 297, 3)
def test_elongated_pictures_are_resized_in_pillows_order(width, height, to_w, to_h, resample):
    image = picture("RGB", (width, height))
    with patch.object(resize, "_BAND", 0):
        found = resized(image, (to_h, to_w), resample)
    assert same(found, pillows(image, (to_h, to_w), resample, None))


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(
    ("size_wh", "size_hw", "crop_hw"),
    [((1200, 900), (224, 298), (224, 224)), ((900, 1200), (298, 224), (224, 224)),
     ((1280, 720), (768, 768), None), ((1280, 720), (352, 608), None)],
)  # fmt: skip
def test_the_models_sizes(resample, size_wh, size_hw, crop_hw):
    image = picture("RGB", size_wh)
    expected = pillows(image, size_hw, resample, crop_hw)
    for threads in (1, 2):
        assert same(resized(image, size_hw, resample, crop_hw=crop_hw, threads=threads), expected)


def test_a_fourth_byte_changes_nothing():
    image = picture("RGB", (60, 40))
    padded = image.convert("RGBX")
    with patch.object(resize, "_BAND", 0):
        found = resized(padded, (20, 30), 3, crop_hw=(40, 20))
    assert found.mode == "RGBX"
    assert same(found, pillows(image, (20, 30), 3, (40, 20)))


def test_rows_that_the_crop_throws_away_are_left_out():
    read = []
    crop = Image.Image.crop

    def spy(image, box=None):
        read.append(box)
        return crop(image, box)

    image = picture("RGB", (60, 400))
    with patch.object(resize, "_BAND", 0), patch.object(Image.Image, "crop", spy):
        resized(image, (380, 50), 3, crop_hw=(40, 40))
    *bands, _ = read
    assert {right - left for left, _, right, _ in bands} == {60}
    assert 42 <= sum(bottom - top for _, top, _, bottom in bands) < 60


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_started_where_they_are_allowed(threads):
    names = set()
    resize_ = Image.Image.resize

    def spy(image, *arguments, **options):
        names.add(threading.current_thread().name.partition("_")[0])
        return resize_(image, *arguments, **options)

    with patch.object(resize, "_BAND", 0), patch.object(Image.Image, "resize", spy):
        resized(picture("RGB", (60, 40)), (20, 30), 3, threads=threads)
    assert names == {"MainThread"} | ({"vlrt-resize"} if threads > 1 else set())


def test_a_small_picture_is_no_work_for_threads():
    before = threading.active_count()
    with patch.object(resize, "_for_each") as bands:
        resized(picture("RGB", (640, 480)), (224, 298), 3, threads=2)
    assert not bands.called
    assert threading.active_count() == before


def test_the_error_of_a_thread_is_raised():
    image = picture("RGB", (60, 40))
    with (
        patch.object(resize, "_BAND", 0),
        patch.object(Image.Image, "paste", side_effect=MemoryError("no room")),
        pytest.raises(MemoryError, match="no room"),
    ):
        resized(image, (20, 30), 3, threads=2)
