"""OWL-ViT's processing: its old and new settings, and boxes back to pixels."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import ELONGATED_WH, FILES, picture
from PIL import Image, ImageOps

from vlrt.errors import BundleError
from vlrt.files import Settings
from vlrt.image import load_image
from vlrt.processor import ImageProcessor

COMMON = {
    "do_resize": True, "resample": 3, "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
SETTINGS = {
    "as on the hub": COMMON | {"size": [40, 40], "crop_size": 40, "do_center_crop": False},
    "old": COMMON | {"size": 40, "crop_size": 40, "do_center_crop": True},
    "first": COMMON | {"size": 40, "crop_size": 40, "do_center_crop": True, "rescale": True},
    "first, unscaled": COMMON | {"size": [40, 40], "do_center_crop": False, "rescale": False},
    "new": COMMON
    | {
        "size": {"height": 40, "width": 40},
        "crop_size": {"height": 40, "width": 40},
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
    },
    "a crop that cuts": COMMON | {"size": 40, "crop_size": 31, "do_center_crop": True},
}
SIDES = st.integers(1, 3000)


def ours(settings, *, default_to_square=True):
    settings = Settings("preprocessor_config.json", settings)
    return ImageProcessor.from_settings(settings, default_to_square=default_to_square)


def boxed(size, crop=None, *, default_to_square=True):
    changes = {"size": size, "do_center_crop": crop is not None, "crop_size": crop}
    return ours(COMMON | changes, default_to_square=default_to_square)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("square", "size"), [(True, {"height": 40, "width": 40}), (False, {"shortest_edge": 40})]
)
def test_the_family_says_what_an_integer_size_means(square, size):
    assert boxed(40, default_to_square=square).size == size


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("size", [[30, 40], {"height": 30, "width": 40}, {"shortest_edge": 40}])
def test_other_sizes_mean_what_they_say(square, size):
    expected = size if isinstance(size, dict) else {"height": 30, "width": 40}
    assert boxed(size, default_to_square=square).size == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_every_style_of_settings_fixes_a_square(name):
    side = 31 if name == "a crop that cuts" else 40
    assert ours(SETTINGS[name]).output_hw == (side, side)


@pytest.mark.parametrize(
    ("flags", "highest"),
    [
        ({}, 1),
        ({"rescale": None}, 1),
        ({"rescale": True}, 1),
        ({"rescale": False}, 255),
        ({"rescale": False, "do_rescale": True}, 255),
        ({"do_rescale": None}, 1),
        ({"do_rescale": False}, 255),
    ],
    ids=str,
)
def test_the_old_flag_for_rescaling_is_honoured(flags, highest):
    assert ours(SETTINGS["old"] | {"do_normalize": False} | flags).levels.table.max() == highest


@pytest.mark.parametrize("key", ["rescale", "do_rescale"])
@pytest.mark.parametrize("value", ["", "yes", 0, 1, 1 / 255, [], 2], ids=str)
def test_a_flag_that_is_none_is_named_with_its_file(key, value):
    with pytest.raises(BundleError, match=rf"preprocessor_config\.json: {key} is .*true, false"):
        ours(SETTINGS["old"] | {key: value})


# --- boxes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "boxes", "size_hw", "expected"),
    [
        (boxed(40), np.zeros((0, 4)), (3, 5), np.zeros((0, 4))),
        (boxed(40), [[0, 0, 1, 1]], (3, 5), [[0, 0, 5, 3]]),
        (boxed(40, 40), [[0.5, 0.25, 1.5, -1]], (4, 2), [[1, 1, 3, -4]]),
        (boxed([20, 40]), [[[0.1, 0.5, 1, 1]]], (50, 20000), [[[2000, 25, 20000, 50]]]),
        # 80x40 resized to 40x20, of which the middle 20x20 is seen
        (
            boxed(20, 20, default_to_square=False),
            [[0, 0, 1, 1], [0.5, 0.5, 0.75, 1]],
            (40, 80),
            [[20, 0, 60, 40], [40, 20, 50, 40]],
        ),
        # 20x10 resized to 40x20, in the middle of a black 40x40
        (
            boxed(20, 40, default_to_square=False),
            [[0, 0.25, 1, 0.75], [0, 0, 1, 1]],
            (10, 20),
            [[0, 0, 20, 10], [0, -5, 20, 15]],
        ),
        # resized to 40x40, of which the middle 30x20 is seen
        (boxed(40, [20, 30]), [[0, 0, 1, 1]], (80, 120), [[15, 20, 105, 60]]),
    ],
    ids=["none", "whole", "crop takes all", "not square", "cut", "padded", "cut square"],
)
def test_boxes_return_to_the_picture(made, boxes, size_hw, expected):
    found = made.to_pixels(np.array(boxes, np.float32), size_hw)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array(expected, np.float32))


@given(SIDES, SIDES, st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_boxes_go_the_way_of_the_pixels_and_back(height, width, size, crop_h, crop_w, square):
    made = boxed(size, [crop_h, crop_w], default_to_square=square)
    resized_h, resized_w = made.resized_hw(height, width)
    top, left = (resized_h - crop_h) // 2, (resized_w - crop_w) // 2
    picture_box = np.array([0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height])
    resized = picture_box / [width, height, width, height] * ([resized_w, resized_h] * 2)
    seen = (resized - [left, top, left, top]) / ([crop_w, crop_h] * 2)
    found = made.to_pixels(seen.astype(np.float32), (height, width))
    # float32 rounds the relative box, of which 1 is a crop's width in the picture, and the result.
    crop_in_picture = np.array([crop_w * width / resized_w, crop_h * height / resized_h] * 2)
    bound = np.finfo(np.float32).eps * (np.abs(seen) * crop_in_picture + picture_box)
    assert (np.abs(found - picture_box) <= bound).all()


def test_the_pixels_of_a_mark_are_where_its_box_says():
    image = Image.new("RGB", (400, 200))
    image.paste((255, 255, 255), (180, 80, 260, 140))
    made = ours(SETTINGS["a crop that cuts"] | {"do_normalize": False, "resample": 0})
    white = np.argwhere(made([image])[0, 0] > 0.5)
    (y0, x0), (y1, x1) = white.min(axis=0), white.max(axis=0) + 1
    seen = np.array([x0, y0, x1, y1], np.float32) / 31
    assert np.abs(made.to_pixels(seen, (200, 400)) - [180, 80, 260, 140]).max() <= 5  # half a pixel


# --- transformers ---------------------------------------------------------------------------------


def assert_identical(settings, image, theirs_of=None):
    transformers = pytest.importorskip("transformers")
    reference = transformers.OwlViTImageProcessorPil.from_dict(settings)
    expected = reference(images=[theirs_of or image], return_tensors="np")["pixel_values"]
    found = ours(settings)([image])
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.array_equal(found, expected), f"differ by {np.abs(found - expected).max()}"


@pytest.mark.torch
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("style", ["as on the hub", "old"])
def test_every_kind_of_file_as_theirs(name, style):
    file = FILES[name]()
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    assert_identical(SETTINGS[style], load_image(file), upright)


@pytest.mark.torch
@pytest.mark.parametrize("style", SETTINGS)
@pytest.mark.parametrize("size_wh", [*ELONGATED_WH, (61, 37), (40, 40), (3, 200)], ids=str)
def test_every_style_as_theirs(style, size_wh):
    assert_identical(SETTINGS[style], picture("RGB", size_wh))


@pytest.mark.torch
def test_the_hubs_own_settings_as_theirs(data):
    settings = json.loads((data / "owlvit-base-patch32" / "preprocessor_config.json").read_text())
    for path in sorted((data / "photos").iterdir()):
        assert_identical(settings, load_image(path), Image.open(path))


@pytest.mark.torch
@pytest.mark.parametrize("style", ["as on the hub", "old"])
def test_boxes_as_theirs(style):
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("transformers.models.owlvit.image_processing_pil_owlvit")
    boxes = np.random.default_rng(0).normal(0.5, 0.5, (1, 500, 4)).astype(np.float32)
    for size_hw in ((1, 1), (37, 61), (20000, 50), (50, 20000), (1160, 1740)):
        expected = module._scale_boxes(torch.tensor(boxes), [size_hw]).numpy()
        assert np.array_equal(ours(SETTINGS[style]).to_pixels(boxes, size_hw), expected)
