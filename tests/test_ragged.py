"""Pixels that keep their shape: sizes, padding, batches, and parity with transformers."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import FILES, encoded, noise, picture
from PIL import Image, ImageOps

from vlrt.errors import BundleError, ImageError
from vlrt.files import Settings, read_settings
from vlrt.image import decode, load_image
from vlrt.ragged import RaggedProcessor, batches_by_shape, size_hw

OLD_STYLE = {
    "do_normalize": True, "do_resize": True, "feature_extractor_type": "ViltFeatureExtractor",
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3, "size": 64, "size_divisor": 16,
}  # fmt: skip
NEW_STYLE = {
    "do_resize": True, "size": {"shortest_edge": 48}, "size_divisor": 8, "resample": 3,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_pad": True, "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "ViltImageProcessor",
}  # fmt: skip
SETTINGS = {
    "old style": OLD_STYLE,
    "new style": NEW_STYLE,
    "no rescale": NEW_STYLE | {"do_rescale": False},
    "no normalising": NEW_STYLE | {"do_normalize": False},
    "another rescale": NEW_STYLE | {"rescale_factor": 1 / 127.5},
    "no divisor": NEW_STYLE | {"size_divisor": 1, "size": 33},
    "bilinear": NEW_STYLE | {"resample": 2},
}
# What a photograph, a screen, a phone and stranger things are resized to: the checkpoints' own way.
REAL = OLD_STYLE | {"size": 384, "size_divisor": 32}
SIZES_WH = {
    (1, 1): (384, 384),
    (5, 5): (384, 384),
    (640, 480): (512, 384),
    (480, 640): (384, 512),
    (1920, 1080): (608, 352),
    (1080, 2400): (288, 608),
    (384, 384): (384, 384),
    (385, 384): (384, 384),
    (2000, 100): (608, 32),
    (100, 2000): (32, 608),
    (20, 1): (608, 32),
}


def processor(settings=NEW_STYLE, **changes):
    return RaggedProcessor.from_settings(
        Settings("preprocessor_config.json", {**settings, **changes})
    )


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size_wh", "resized_wh"), SIZES_WH.items(), ids=str)
def test_both_sides_are_cut_to_multiples(size_wh, resized_wh):
    (width, height), made = size_wh, processor(REAL)
    assert made.resized_hw(height, width) == resized_wh[::-1]
    assert made.pixels(Image.new("RGB", size_wh)).shape == (3, *resized_wh[::-1])


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_any_picture_fits_the_limits_or_is_too_elongated(height, width):
    try:
        sides = processor(REAL).resized_hw(height, width)
    except ImageError:
        assert max(height, width) / min(height, width) > 20
        return
    assert all(side % 32 == 0 and 32 <= side <= 608 for side in sides)
    assert min(sides) <= 384
    assert (sides[0] > sides[1]) <= (height > width)


@pytest.mark.parametrize("size_wh", [(2100, 100), (1, 21), (60000, 1)], ids=str)
def test_a_picture_of_which_nothing_would_be_left_is_refused(size_wh):
    with pytest.raises(
        ImageError, match=rf"the {size_wh[0]}x{size_wh[1]} picture is too elong.*20"
    ):
        processor(REAL).inputs([Image.new("RGB", size_wh)])


def test_a_picture_past_the_pixel_limit_once_resized_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="once resized, is too large"):
        processor(REAL).pixels(Image.new("RGB", (8, 8)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": None}, "no 'size'"),
        ({"size": 0}, "size is 0"),
        ({"size": [384, 384]}, r"size is \[384, 384\]; valid: a positive integer or"),
        ({"size": {"height": 48, "width": 48}}, "size is .*shortest_edge"),
        ({"size_divisor": None}, "no 'size_divisor'"),
        ({"size_divisor": 0}, "size_divisor is 0"),
        ({"size_divisor": -8}, "size_divisor is -8"),
        ({"size_divisor": 8.0}, "size_divisor is 8.0"),
        ({"size_divisor": True}, "size_divisor is True"),
        ({"size_divisor": 49}, "size_divisor is 49; valid: a whole number from 1 to .*48"),
        ({"do_resize": None}, "no 'do_resize'"),
        ({"do_resize": False}, "do_resize is False"),
        ({"do_pad": False}, "do_pad is False"),
        ({"do_normalize": None}, "no 'do_normalize'"),
        ({"resample": 9}, "resample is 9"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_followed_are_named(changes, says):
    with pytest.raises(BundleError, match=rf"preprocessor_config\.json.*{says}"):
        processor(**changes)


# --- padding --------------------------------------------------------------------------------------


def test_no_pictures_make_empty_arrays():
    found = processor().inputs([])
    assert found["pixel_values"].shape == (0, 3, 0, 0)
    assert found["pixel_mask"].shape == (0, 0, 0)


def test_pictures_of_one_shape_are_not_padded():
    found = processor().inputs([picture(), picture(seed=1)])
    assert found["pixel_mask"].all()
    assert (found["pixel_values"].dtype, found["pixel_mask"].dtype) == (np.float32, np.int64)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5))
def test_padding_is_zero_at_the_bottom_and_right_and_masked(shapes_hw):
    pictures = [np.full((3, *hw), n + 1, np.float32) for n, hw in enumerate(shapes_hw)]
    found = processor().batch(pictures)
    values, mask = found["pixel_values"], found["pixel_mask"]
    assert mask.shape[1:] == values.shape[2:] == tuple(np.max(shapes_hw, axis=0))
    for n, (h, w) in enumerate(shapes_hw):
        assert np.array_equal(values[n, :, :h, :w], pictures[n])
        assert mask[n, :h, :w].all()
        assert mask[n].sum() == h * w
        assert np.count_nonzero(values[n]) == 3 * h * w


# --- as bytes -------------------------------------------------------------------------------------


def test_no_pictures_make_empty_arrays_of_bytes_too():
    found = processor().as_bytes().inputs([])
    assert (found["pixel_values"].shape, found["pixel_values"].dtype) == ((0, 0, 0, 3), np.uint8)
    assert (found["pixel_mask"].shape, found["pixel_mask"].dtype) == ((0, 0, 0), np.uint8)


@pytest.mark.parametrize("sizes_wh", [[(640, 480)], [(640, 480), (480, 640), (33, 32)]])
@pytest.mark.parametrize("mode", ["RGB", "RGBX"])
def test_bytes_are_the_levels_that_values_are_made_of(mode, sizes_wh):
    pictures = [picture("RGB", size, seed=n).convert(mode) for n, size in enumerate(sizes_wh)]
    values, levels = processor().inputs(pictures), processor().as_bytes().inputs(pictures)
    table = processor().levels.table
    assert levels["pixel_values"].dtype == levels["pixel_mask"].dtype == np.uint8
    assert np.array_equal(levels["pixel_mask"], values["pixel_mask"])
    looked_up = np.stack(
        [table[channel][levels["pixel_values"][..., channel]] for channel in range(3)], axis=1
    )
    seen = values["pixel_mask"][:, None].astype(bool)
    assert np.array_equal(np.where(seen, looked_up, 0), values["pixel_values"])
    for one in pictures:
        shapes = {size_hw(each.pixels(one)) for each in (processor(), processor().as_bytes())}
        assert len(shapes) == 1


# --- batches --------------------------------------------------------------------------------------

SHAPES = st.lists(
    st.tuples(*[st.sampled_from([32, 64, 352, 384, 608])] * 2), max_size=40
)  # (height, width)


@given(shapes=SHAPES, batch_size=st.integers(1, 9), most=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_every_picture_is_in_one_batch_and_little_is_padded(shapes, batch_size, most):
    batches = batches_by_shape(shapes, batch_size, most)
    assert sorted(position for batch in batches for position in batch) == list(range(len(shapes)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        sides = np.array([shapes[position] for position in batch])
        waste = 1 - sides.prod(axis=1).sum() / (len(batch) * sides.max(axis=0).prod())
        assert waste <= most + 1e-9


@given(shapes=SHAPES, batch_size=st.integers(1, 9))
def test_mixing_shapes_never_takes_more_batches(shapes, batch_size):
    alone = sum(-(-shapes.count(shape) // batch_size) for shape in set(shapes))
    assert len(batches_by_shape(shapes, batch_size, 0)) == alone
    assert len(batches_by_shape(shapes, batch_size)) <= alone


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([], []),
        ([(32, 32)] * 5, [[0, 1, 2], [3, 4]]),
        ([(32, 64), (64, 32), (32, 64)], [[0, 2], [1]]),  # together, half would be padding
        ([(352, 608), (384, 608)], [[0, 1]]),  # together, a 24th
        ([(384, 608), (32, 32), (384, 608), (384, 608)], [[0, 2, 3], [1]]),
    ],
    ids=str,
)
def test_like_shapes_share_a_batch(shapes, expected):
    assert batches_by_shape(shapes, 3) == expected


# --- fast decoding --------------------------------------------------------------------------------


@pytest.mark.parametrize("size_wh", [(1601, 1203), (1203, 1601), (2001, 901)])
def test_fast_decoding_changes_pixels_a_little_and_no_shape(size_wh):
    made = processor(REAL | {"size": 64})
    file = encoded(picture("RGB", size_wh), "JPEG", quality=95)
    exact, fast = (decode(file, shorter_side=side) for side in (None, made.shorter_side))
    assert fast.image.size != exact.image.size
    pixels = made.pixels(*fast)
    assert pixels.shape == made.pixels(exact.image).shape
    assert 0 < np.abs(pixels - made.pixels(*exact)).mean() < 0.1


# --- parity with transformers ---------------------------------------------------------------------


def theirs(settings, images):
    # Nothing in a ViLT checkpoint asks for RGB, without which their processor fails on the rest.
    transformers = pytest.importorskip("transformers")
    made = transformers.ViltImageProcessorPil.from_dict(settings | {"do_convert_rgb": True})
    return made(images=images, return_tensors="np")


def assert_identical(found, expected):
    assert set(found) == {"pixel_values", "pixel_mask"} == set(expected)
    for name, array in found.items():
        assert array.shape == expected[name].shape
        assert np.array_equal(array, expected[name]), name
    assert found["pixel_mask"].dtype == expected["pixel_mask"].dtype


@pytest.mark.torch
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("style", ["old style", "new style"])
def test_every_kind_of_file(name, style):
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(FILES[name]())))
    image = load_image(FILES[name]())
    if name in ("one pixel wide", "one pixel high"):  # 300 to 1
        with pytest.raises(ValueError, match="Size must contain"):
            theirs(SETTINGS[style], [upright])
        with pytest.raises(ImageError, match="too elongated"):
            processor(SETTINGS[style]).inputs([image])
        return
    expected = theirs(SETTINGS[style], [upright])
    assert_identical(processor(SETTINGS[style]).inputs([image]), expected)


@pytest.mark.torch
@pytest.mark.parametrize("style", SETTINGS)
@pytest.mark.parametrize("size_wh", [(61, 37), (37, 61), (48, 48), (1, 1), (5, 3), (60, 12)])
def test_every_setting_of_the_family(style, size_wh):
    image, settings = picture("RGB", size_wh), SETTINGS[style]
    assert_identical(processor(settings).inputs([image]), theirs(settings, [image]))


@pytest.mark.torch
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    edge=st.integers(1, 500),
    divisor=st.integers(1, 40),
)
def test_any_size(width, height, edge, divisor):
    vilt = pytest.importorskip("transformers.models.vilt.image_processing_pil_vilt")
    if divisor > edge:
        return  # refused, see above
    longer = int(vilt.MAX_LONGER_EDGE / vilt.MAX_SHORTER_EDGE * edge)
    empty = np.empty((3, height, width), np.uint8)
    expected = vilt.get_resize_output_image_size(empty, edge, longer, divisor, "channels_first")
    made = processor(size=edge, size_divisor=divisor)
    if min(expected) == 0:
        with pytest.raises(ImageError, match="too elongated"):
            made.resized_hw(height, width)
    else:
        assert made.resized_hw(height, width) == expected


@pytest.mark.torch
@given(
    st.lists(
        st.tuples(st.integers(1, 80), st.integers(1, 80)).filter(lambda hw: max(hw) < 6 * min(hw)),
        min_size=1,
        max_size=4,
    )
)
def test_batches_of_any_shapes(shapes_hw):
    images = [Image.fromarray(noise(h, w, 3, seed=n)) for n, (h, w) in enumerate(shapes_hw)]
    assert_identical(processor().inputs(images), theirs(NEW_STYLE, images))


@pytest.mark.torch
def test_the_photographs_at_full_size_by_a_real_checkpoints_settings(data):
    settings = read_settings(data / "vilt-b32-finetuned-vqa", "preprocessor_config.json")
    paths = sorted((data / "photos").iterdir())
    expected = theirs(dict(settings), [Image.open(path) for path in paths])
    made = RaggedProcessor.from_settings(settings)
    assert_identical(made.inputs([load_image(path) for path in paths]), expected)
