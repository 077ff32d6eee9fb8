"""Levels to values: the arithmetic against the table, and the table against transformers' steps."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pictures import picture
from PIL import Image

from vlrt.levels import Bytes, Levels

ONE_BYTE = 1 / 255


def per_channel(*numbers):
    return np.array(numbers, np.float32)[:, None]


MEAN, STD = per_channel(0.48, 0.46, 0.41), per_channel(0.27, 0.26, 0.28)


def every_level(mode="RGB"):
    """A picture of 16 x 16 in which each level of each channel is there once."""
    level = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return Image.fromarray(np.stack([level, level.T, 255 - level], axis=-1)).convert(mode)


def theirs(image, factor, mean, std):
    """The steps of transformers' `PilBackend`, one after the other: float32 [3, H, W]."""
    pixels = np.asarray(image)[..., :3].transpose(2, 0, 1)
    if factor is not None:
        pixels = (pixels.astype(np.float64) * factor).astype(np.float32)
    return (pixels.astype(np.float32) - mean[..., None]) / std[..., None]


def ours(levels, image):
    out = np.full((3, image.height, image.width), np.nan, np.float32)
    levels.into(image, out)
    return out


@pytest.mark.parametrize("factor", [None, 1.0, ONE_BYTE, 1 / 256, 1 / 127.5, 1 / 65535])
def test_usual_factors_are_computed(factor):
    assert Levels.of(factor, MEAN, STD).divisor is not None


@pytest.mark.parametrize("factor", [0, 0.0, -0.0, 1e-45, -1e-40, 0.0039, 0.7])
def test_others_are_looked_up(factor):
    levels = Levels.of(factor, MEAN, STD)
    assert levels.divisor is None
    assert np.array_equal(ours(levels, every_level()), theirs(every_level(), factor, MEAN, STD))


numbers = st.floats(-3, 3, width=32)
deviations = st.floats(0.0078125, 8, width=32) | st.floats(-8, -0.0078125, width=32)


@pytest.mark.parametrize("mode", ["RGB", "RGBX"])
@given(
    factor=st.none() | st.integers(1, 70000).map(lambda whole: 1 / whole) | st.floats(-300, 300),
    mean=st.tuples(numbers, numbers, numbers),
    std=st.tuples(deviations, deviations, deviations),
)
@example(ONE_BYTE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
@example(None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
def test_every_level_for_any_settings(mode, factor, mean, std):
    """Both ways give the bits of transformers."""
    mean, std, image = per_channel(*mean), per_channel(*std), every_level(mode)
    levels = Levels.of(factor, mean, std)
    expected = theirs(image, factor, mean, std)
    assert np.array_equal(ours(levels, image), expected)
    looked_up = Levels(levels.table, None, mean, std)
    assert np.array_equal(ours(looked_up, image), expected)


@pytest.mark.parametrize("factor", [ONE_BYTE, 0.0039])
@given(width=st.integers(1, 40), height=st.integers(1, 40), cut=st.integers(0, 40))
def test_strips_fill_their_columns_alone(factor, width, height, cut):
    image, levels = picture("RGB", (width, height)), Levels.of(factor, MEAN, STD)
    cut = min(cut, width - 1)
    out = np.full((3, height, width), np.nan, np.float32)
    levels.into(image.crop((cut, 0, width, height)), out, cut)
    assert np.isnan(out[..., :cut]).all()
    assert np.array_equal(out[..., cut:], theirs(image, factor, MEAN, STD)[..., cut:])


@given(width=st.integers(1, 40), height=st.integers(1, 40), cut=st.integers(0, 40))
def test_strips_of_bytes_fill_their_columns_alone(width, height, cut):
    cut, out = min(cut, width - 1), Bytes().empty((height, width))
    assert (out.shape, out.dtype) == ((height, width, 3), np.uint8)
    for mode in ("RGB", "RGBX"):
        image = picture("RGB", (width, height)).convert(mode)
        out[:] = 7
        Bytes().into(image.crop((cut, 0, width, height)), out, cut)
        assert (out[:, :cut] == 7).all()
        assert np.array_equal(out[:, cut:], np.asarray(image)[:, cut:, :3])


@pytest.mark.parametrize("number", [None, 0, 2])
def test_room_has_an_axis_for_several_pictures_alone(number):
    first = () if number is None else (number,)
    values = Levels.of(ONE_BYTE, MEAN, STD).empty((4, 5), number)
    assert (values.shape, values.dtype) == ((*first, 3, 4, 5), np.float32)
    assert Bytes().empty((4, 5), number).shape == (*first, 4, 5, 3)
