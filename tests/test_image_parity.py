"""Pixels against transformers' own PIL processor for CLIP, bit for bit."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import FILES, encoded, noise, picture
from PIL import Image, ImageOps

from vlrt.files import Settings
from vlrt.image import decode, load_image
from vlrt.processor import ImageProcessor

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.torch

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
NEW_STYLE = {
    "do_resize": True, "size": {"shortest_edge": 32}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": 32, "width": 32},
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": MEAN, "image_std": STD,
    "do_convert_rgb": True, "image_processor_type": "CLIPImageProcessor",
}  # fmt: skip
OLD_STYLE = {
    "do_resize": True, "size": 32, "resample": 3, "do_center_crop": True, "crop_size": 32,
    "do_normalize": True, "image_mean": MEAN, "image_std": STD,
    "feature_extractor_type": "CLIPFeatureExtractor",
}  # fmt: skip
SETTINGS = {
    "new style": NEW_STYLE,
    "old style": OLD_STYLE,
    "no resize": NEW_STYLE | {"do_resize": False},
    "no crop": NEW_STYLE | {"do_center_crop": False, "size": {"height": 30, "width": 41}},
    "no rescale": NEW_STYLE | {"do_rescale": False},
    "no normalising": NEW_STYLE | {"do_normalize": False},
    "pixels as they are": NEW_STYLE | {"do_normalize": False, "do_rescale": False},
    "another rescale": NEW_STYLE | {"rescale_factor": 1 / 127.5},
    "crop larger than the picture": NEW_STYLE | {"crop_size": {"height": 51, "width": 70}},
    "odd crop": NEW_STYLE | {"crop_size": {"height": 31, "width": 17}},
    "odd resize": NEW_STYLE | {"size": {"shortest_edge": 33}},
    "height and width": NEW_STYLE | {"size": {"height": 40, "width": 50}},
    "bilinear": NEW_STYLE | {"resample": 2},
    "nearest": NEW_STYLE | {"resample": 0},
    "lanczos": NEW_STYLE | {"resample": 1},
    "one mean": NEW_STYLE | {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
}


def theirs(settings, image):
    # `from_dict` is what `from_pretrained` does with the content of the file.
    processor = transformers.CLIPImageProcessorPil.from_dict(settings)
    return processor(images=[image], return_tensors="np")["pixel_values"]


def ours(settings, image):
    return ImageProcessor.from_settings(Settings("preprocessor_config.json", settings))([image])


def assert_identical(found, expected):
    # Where nothing is computed theirs stay uint8; graphs take float32.
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.array_equal(found, expected), f"differ by {np.abs(found - expected).max()}"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("style", ["new style", "old style", "no resize"])
def test_every_kind_of_file(name, style):
    file = FILES[name]()
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    assert_identical(ours(SETTINGS[style], load_image(file)), theirs(SETTINGS[style], upright))


@pytest.mark.parametrize("name", ["rgb portrait", "L landscape", "CMYK", "exif 6", "exif 7"])
def test_decoding_is_that_of_their_load_image(tmp_path, name):
    """Of pictures without alpha; theirs drops alpha here, and its processor blends it."""
    path = tmp_path / "picture"
    path.write_bytes(FILES[name]())
    loaded = transformers.image_utils.load_image(str(path))
    assert np.array_equal(np.asarray(load_image(path)), np.asarray(loaded))


@pytest.mark.parametrize("style", SETTINGS)
@pytest.mark.parametrize("size_wh", [(61, 37), (37, 61), (48, 48), (1, 1), (32, 32), (3, 200)])
def test_every_setting_of_the_family(style, size_wh):
    image = picture("RGB", size_wh)
    assert_identical(ours(SETTINGS[style], image), theirs(SETTINGS[style], image))


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    edge=st.integers(1, 60),
    crop_h=st.integers(1, 60),
    crop_w=st.integers(1, 60),
    resample=st.sampled_from([0, 1, 2, 3]),
    seed=st.integers(0, 9),
)
def test_odd_sizes(width, height, edge, crop_h, crop_w, resample, seed):
    settings = NEW_STYLE | {
        "size": {"shortest_edge": edge},
        "crop_size": {"height": crop_h, "width": crop_w},
        "resample": resample,
    }
    image = picture("RGB", (width, height), seed)
    assert_identical(ours(settings, image), theirs(settings, image))


@pytest.mark.parametrize("channels", [3, 4])
@given(height=st.integers(5, 60), width=st.integers(5, 60), seed=st.integers(0, 9))
def test_arrays(channels, height, width, seed):
    array = noise(height, width, channels, seed=seed)
    assert_identical(ours(NEW_STYLE, load_image(array)), theirs(NEW_STYLE, array))


@pytest.mark.parametrize("levels", [range(256)])
def test_every_level_of_every_channel_for_any_mean_and_deviation(levels):
    array = np.repeat(np.array(levels, np.uint8).reshape(16, 16, 1), 3, axis=2)
    rng = np.random.default_rng(0)
    for _ in range(50):
        settings = NEW_STYLE | {
            "do_resize": False,
            "crop_size": {"height": 16, "width": 16},
            "rescale_factor": float(rng.choice([1 / 255, 1 / 127.5, 1 / 256, rng.random()])),
            "image_mean": rng.random(3).tolist(),
            "image_std": (rng.random(3) + 0.1).tolist(),
        }
        image = Image.fromarray(array)
        assert_identical(ours(settings, image), theirs(settings, image))


@pytest.mark.parametrize("edge", [224, 336])
def test_the_photographs_at_full_size(data, edge):
    settings = OLD_STYLE | {"size": edge, "crop_size": edge}
    for path in sorted((data / "photos").iterdir()):
        image = Image.open(path)
        assert_identical(ours(settings, load_image(path)), theirs(settings, image))


def test_fast_decoding_changes_pixels_a_little_and_no_shape():
    """What `decode="fast"` gives up: it is documented as no longer bit-exact."""
    file = encoded(picture("RGB", (800, 600)), "JPEG", quality=95)
    exact, fast = (ours(NEW_STYLE, decode(file, shorter_side=side).image) for side in (None, 32))
    assert exact.shape == fast.shape
    assert 0 < np.abs(exact - fast).mean() < 0.1
