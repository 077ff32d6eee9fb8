"""OWLv2's processing by its definition, by its properties and against transformers' own."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import ELONGATED_WH, FILES, noise, picture
from PIL import Image, ImageOps
from tolerances import PADDED_PIXELS_ABS

from vlrt import padded
from vlrt.errors import BundleError, ImageError
from vlrt.files import Settings
from vlrt.image import FAST_DECODE_MARGIN, decode, load_image
from vlrt.padded import PaddedProcessor

SETTINGS = {
    "do_pad": True, "do_resize": True, "size": {"height": 48, "width": 48}, "resample": 2,
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True, "image_processor_type": "Owlv2ImageProcessor",
}  # fmt: skip
SIDES = st.integers(1, 150)


def processor(**changes):
    merged = SETTINGS | changes
    return PaddedProcessor.from_settings(Settings("preprocessor_config.json", merged))


def size_of(height, width):
    return {"size": {"height": height, "width": width}}


# --- properties -----------------------------------------------------------------------------------


def test_no_pictures_make_an_empty_batch():
    assert processor()([]).shape == (0, 3, 48, 48)


@given(SIDES, SIDES, st.integers(1, 60), st.integers(1, 60))
def test_the_output_has_the_settings_size_whatever_the_picture(width, height, out_h, out_w):
    pixels = processor(**size_of(out_h, out_w))([picture("RGB", (width, height))])
    assert pixels.shape == (1, 3, out_h, out_w)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert np.isfinite(pixels).all()


@given(st.integers(1, 150), st.integers(0, 255), st.integers(1, 60), st.booleans())
def test_a_square_of_one_colour_keeps_it(side, level, size, blur):
    made = processor(**size_of(size, size), resample=2 if blur else 0, do_normalize=False)
    pixels = made([Image.new("RGB", (side, side), (level, 255 - level, 7))])[0]
    expected = np.array([level, 255 - level, 7])[:, None, None] / 255
    assert np.abs(pixels - expected).max() < PADDED_PIXELS_ABS


@given(st.integers(1, 40), st.integers(1, 5))
def test_what_a_picture_does_not_reach_is_exactly_black_normalised(thin, seed):
    made = processor()
    wide, tall = (
        made([picture("RGB", size_wh, seed)])[0] for size_wh in ((500, thin), (thin, 500))
    )
    reach = (thin + 4 * 5) * 48 // 500 + 2  # the Gaussian's deviation is 4.7, it ends at 4 of them
    black = -made.mean / made.std
    assert np.array_equal(wide[:, reach:].max(axis=(1, 2)), black[:, 0])
    assert np.array_equal(wide[:, reach:].min(axis=(1, 2)), black[:, 0])
    assert np.array_equal(tall[:, :, reach:].max(axis=(1, 2)), black[:, 0])
    assert (wide[:, 0] != black).mean() > 0.9


@given(SIDES, SIDES)
def test_turning_the_picture_over_its_diagonal_turns_the_result(width, height):
    made, image = processor(), picture("RGB", (width, height))
    turned = made([image.transpose(Image.Transpose.TRANSPOSE)])[0]
    assert np.abs(made([image])[0] - turned.swapaxes(1, 2)).max() < PADDED_PIXELS_ABS


@given(SIDES, SIDES, st.integers(1, 60))
def test_the_result_stays_in_the_range_of_the_picture_and_black(width, height, size):
    pixels = processor(**size_of(size, size), do_normalize=False)([picture("RGB", (width, height))])
    assert pixels.min() >= 0
    assert pixels.max() <= 1 + PADDED_PIXELS_ABS


@given(width=SIDES, height=SIDES, size=st.integers(1, 60), blur=st.booleans())
def test_the_result_is_the_definition_step_by_step(width, height, size, blur):
    """Pad, blur and sample in float64, one column and one row at a time."""
    side = max(width, height)
    sigma = max(0.0, (side / size - 1) / 2) if blur else 0.0
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2 or 1))

    def along(samples):
        mirrored = np.pad(samples, radius, mode="reflect") if side > 1 else samples
        blurred = np.convolve(mirrored, kernel / kernel.sum(), "valid") if side > 1 else samples
        ends = np.pad(blurred, 1, mode="reflect") if side > 1 else np.repeat(blurred, 3)
        at = (np.arange(size) + 0.5) * side / size - 0.5
        return np.interp(at, np.arange(-1, side + 1), ends)

    image = picture("RGB", (width, height))
    square = np.zeros((side, side, 3))
    square[:height, :width] = np.asarray(image) / 255
    expected = np.apply_along_axis(along, 1, np.apply_along_axis(along, 0, square))
    made = processor(**size_of(size, size), resample=2 if blur else 0, do_normalize=False)
    assert np.abs(made([image])[0].transpose(1, 2, 0) - expected).max() < PADDED_PIXELS_ABS


@pytest.mark.parametrize("size_wh", ELONGATED_WH, ids=str)
def test_elongated_pictures_are_processed_and_never_padded_in_memory(monkeypatch, size_wh):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20000 * 50)  # the square would have 400 million
    pixels = processor()([picture("RGB", size_wh)])
    assert np.isfinite(pixels).all()
    assert pixels[0, :, 0, 0].tolist() != pixels[0, :, -1, -1].tolist() or size_wh == (1, 1)


def test_a_slot_of_a_larger_batch_is_filled_and_its_neighbours_are_not():
    made, batch = processor(), np.full((3, 3, 48, 48), np.nan, np.float32)
    made.into(picture(), batch[1])
    assert np.isnan(batch[[0, 2]]).all()
    assert np.array_equal(batch[1], made([picture()])[0])


# --- boxes and fast decoding ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boxes", "size_hw", "expected"),
    [
        (np.zeros((0, 4)), (3, 5), np.zeros((0, 4))),
        ([[0, 0, 1, 1]], (3, 5), [[0, 0, 5, 5]]),
        ([[0.25, 0.5, 0.75, 1]], (8, 4), [[2, 4, 6, 8]]),
        ([[[0.1, 0.2, 1.5, -0.5]]], (1, 10), [[[1, 2, 15, -5]]]),
    ],
    ids=str,
)
def test_boxes_scale_by_the_longer_side(boxes, size_hw, expected):
    found = processor().to_pixels(np.array(boxes, np.float32), size_hw)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array(expected, np.float32))


def test_a_fast_decode_keeps_the_margin_along_the_longer_side():
    made = processor(**size_of(40, 48))
    file = io.BytesIO()
    picture("RGB", (800, 400)).save(file, "JPEG")
    image, _ = decode(file.getvalue(), shorter_side=made.shorter_side)
    assert image.size == (200, 100)
    assert max(image.size) >= FAST_DECODE_MARGIN * 48


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [40, [40, 40], {"height": 40, "width": 40}], ids=str)
def test_every_way_to_state_a_square(size):
    assert processor(size=size).output_hw == (40, 40)


def test_the_resample_number_0_turns_the_blur_off():
    small, large = picture("RGB", (30, 20)), picture("RGB", (300, 200))
    blurred, bare, other = (processor(resample=number) for number in (2, 0, 3))
    assert np.array_equal(blurred([small]), bare([small]))
    assert np.abs(blurred([large]) - bare([large])).max() > 0.1
    assert np.array_equal(blurred([large]), other([large]))


@pytest.mark.parametrize(
    "key",
    ["do_pad", "do_resize", "size", "resample", "do_normalize", "image_mean", "image_std"],
)
def test_a_missing_setting_is_named_with_its_file(key):
    kept = {name: value for name, value in SETTINGS.items() if name != key}
    with pytest.raises(BundleError, match=rf"some/file\.json has no '{key}'"):
        PaddedProcessor.from_settings(Settings("some/file.json", kept))


@pytest.mark.parametrize(
    "changes",
    [
        {"do_pad": False},
        {"do_resize": False},
        {"do_rescale": False},
        {"rescale": False},
        {"do_rescale": 0},
        {"rescale_factor": True},
        {"do_center_crop": True},
        {"size": {"shortest_edge": 40}},
        {"size": {}},
        {"size": 0},
        {"resample": 99},
        {"rescale_factor": "1/255"},
        {"do_rescale": "yes"},
        {"image_mean": [0.5, 0.5]},
        {"image_std": [0.5, 0.0, 0.5]},
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_followed_is_named_with_its_file(changes):
    key = next(iter(changes))
    with pytest.raises(BundleError, match=rf"preprocessor_config\.json: {key} is "):
        processor(**changes)


@pytest.mark.parametrize("size_wh", [(5001, 1), (2, 5001)], ids=str)
def test_a_picture_too_long_for_its_matrix_is_refused(monkeypatch, size_wh):
    monkeypatch.setattr(padded, "_LONGEST_SIDE", 5000)
    assert processor()([Image.new("RGB", (5000, 1))]).shape[0] == 1
    with pytest.raises(ImageError, match=rf"the {size_wh[0]}x{size_wh[1]} picture is too long"):
        processor()([Image.new("RGB", size_wh)])


# --- transformers ---------------------------------------------------------------------------------


def assert_like_theirs(image, theirs_of=None, **changes):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("scipy", reason="transformers' processor needs it")
    reference = transformers.Owlv2ImageProcessorPil.from_dict(SETTINGS | changes)
    expected = reference(images=[theirs_of or image], return_tensors="np")["pixel_values"]
    found = processor(**changes)([image])
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float32
    assert np.abs(found - expected).max() <= PADDED_PIXELS_ABS


@pytest.mark.torch
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_as_theirs(name):
    file = FILES[name]()
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    assert_like_theirs(load_image(file), upright)


@pytest.mark.torch
@settings(max_examples=25)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    out_h=st.integers(5, 70),
    out_w=st.integers(5, 70),
    resample=st.sampled_from([0, 2, 3]),
)
def test_random_sizes_as_theirs(width, height, out_h, out_w, resample):
    changes = size_of(out_h, out_w) | {"resample": resample}
    assert_like_theirs(picture("RGB", (width, height)), **changes)


@pytest.mark.torch
@pytest.mark.parametrize("size_wh", [(1, 1), (2000, 5), (5, 2000), (48, 48), (49, 48)], ids=str)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"rescale": True, "image_mean": [0.5, 0.5, 0.5]},
        {"resample": 0},
        {"size": 33},
    ],
    ids=str,
)
def test_every_setting_as_theirs(size_wh, changes):
    assert_like_theirs(picture("RGB", size_wh), **changes)


@pytest.mark.torch
@pytest.mark.parametrize("size_wh", [(1, 1), (640, 480), (1300, 1000)], ids=str)
def test_full_size_as_theirs(size_wh):
    assert_like_theirs(Image.fromarray(noise(*size_wh[::-1], 3)), **size_of(960, 960))


@pytest.mark.torch
def test_boxes_as_theirs():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("transformers.models.owlv2.image_processing_pil_owlv2")
    boxes = np.random.default_rng(0).normal(0.5, 0.5, (1, 500, 4)).astype(np.float32)
    for size_hw in ((1, 1), (37, 61), (20000, 50), (1160, 1740)):
        expected = module._scale_boxes(torch.tensor(boxes), [size_hw]).numpy()
        assert np.array_equal(processor().to_pixels(boxes, size_hw), expected)
