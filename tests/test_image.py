"""Decoding by the documented rules, refusing what they refuse, and the processor's shapes."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import FILES, ORIENTATION, encoded, noise, picture, rotated_jpeg
from PIL import Image

import vlrt
from vlrt import jpeg
from vlrt.errors import BundleError, ImageError, OptionError
from vlrt.files import Settings
from vlrt.image import FAST_DECODE_MARGIN, decode, load_image
from vlrt.processor import ImageProcessor

PNG = encoded(picture())
JPEG = encoded(picture("RGB", (200, 100)), "JPEG")
NEW_STYLE = {
    "do_resize": True,
    "size": {"shortest_edge": 32},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


def processor(**changes: object) -> ImageProcessor:
    return ImageProcessor.from_settings(Settings("preprocessor_config.json", NEW_STYLE | changes))


# --- decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_becomes_rgb(name):
    image = load_image(FILES[name]())
    assert image.mode == "RGB"
    turned = name in {f"exif {n}" for n in (5, 6, 7, 8)}
    stated = Image.open(io.BytesIO(FILES[name]())).size
    assert image.size == (stated[::-1] if turned else stated)


@pytest.mark.parametrize(
    "make",
    [
        str,
        Path,
        Path.read_bytes,
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        Image.open,
        lambda path: np.asarray(Image.open(path)),
    ],
    ids=["str", "Path", "bytes", "bytearray", "memoryview", "file", "PIL", "array"],
)
def test_every_kind_of_source_gives_the_same_pixels(picture_files, make):
    path = picture_files["rgb landscape"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Image.open leaves the file to Pillow
        image = load_image(make(path))
    assert np.array_equal(np.asarray(image), np.asarray(picture("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    quarters = np.zeros((32, 64, 3), np.uint8)  # upright: red, green over blue, white
    quarters[:16, :32, 0] = quarters[:16, 32:, 1] = quarters[16:, :32, 2] = 255
    quarters[16:, 32:] = 255
    stored = Image.fromarray(quarters)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the tag undoes
    if orientation in undo:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found, size_hw = decode(encoded(stored, "JPEG", exif=exif, quality=100, subsampling=0))
    assert size_hw == (32, 64)
    assert np.abs(np.asarray(found)[..., :3].astype(int) - quarters).max() < 40


@pytest.mark.parametrize("tag", [0, 9, 300], ids=str)
def test_an_orientation_that_does_not_exist_is_ignored(tag):
    image, size_hw = decode(rotated_jpeg(tag))
    assert (image.size, size_hw) == ((61, 37), (37, 61))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_blended_onto_white(mode):
    image = Image.new("RGBA", (4, 4), (200, 200, 200, 0)).convert(mode)
    assert np.asarray(load_image(encoded(image))).min() == 255


def test_of_an_animation_the_first_frame_counts():
    first = picture("P", seed=0).convert("RGB")
    assert np.array_equal(np.asarray(load_image(FILES["animated gif"]())), np.asarray(first))


def test_16_bit_grey_is_clipped_unless_scaling_is_asked_for():
    levels = np.array([[0, 255, 256, 257, 65535]], np.uint16)
    file = encoded(Image.fromarray(levels))
    assert np.asarray(load_image(file))[0, :, 0].tolist() == [0, 255, 255, 255, 255]
    scaled = load_image(file, high_bit_depth="scale")
    assert np.asarray(scaled)[0, :, 0].tolist() == [0, 1, 1, 1, 255]


@pytest.mark.parametrize(
    ("shape", "mode"), [((5, 7), "L"), ((5, 7, 1), "L"), ((5, 7, 3), "RGB"), ((5, 7, 4), "RGBA")]
)
def test_arrays_of_documented_shapes_are_pictures(shape, mode):
    array = noise(*shape)
    if mode == "RGBA":
        array[..., 3] = 255
    expected = Image.frombytes(mode, (7, 5), array.tobytes()).convert("RGB")
    assert np.array_equal(np.asarray(load_image(array)), np.asarray(expected))


def test_views_and_strides_do_not_matter():
    array = noise(12, 14, 3)
    assert np.array_equal(np.asarray(load_image(array[::-2, ::2, ::-1])), array[::-2, ::2, ::-1])


def test_the_callers_picture_is_left_as_it_was():
    image = picture("RGBA")
    before = image.tobytes()
    load_image(image)
    assert (image.mode, image.tobytes()) == ("RGBA", before)


# --- what is refused ------------------------------------------------------------------------------


BAD_SOURCES = {
    "empty bytes": (b"", "empty"),
    "empty file object": (io.BytesIO(), "empty"),
    "missing": ("no/such/file.png", "no/such/file.png"),
    "url": ("https://example.org/cat.jpg", "URL"),
    "data url": ("data:image/png;base64,AAAA", "URL"),
    "not a picture": (b"GIF is not what this is", "not a picture"),
    "a NUL in the name": ("a\0b", "cannot read"),
    "endless name": ("x" * 5000, "cannot read"),
    "truncated png": (PNG[: len(PNG) // 2], "cannot be decoded"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "cannot be decoded"),
    "header alone": (PNG[:20], "picture"),
    "broken checksum": (PNG[:60] + b"\xff\xff\xff" + PNG[63:], "picture"),
    "text file object": (io.StringIO("hello"), "binary"),
    "none": (None, "NoneType"),
    "number": (7, "int"),
    "list": ([1, 2], "list"),
    "float array": (np.zeros((4, 4, 3)), "float64.*multiply"),
    "float32 array": (np.zeros((4, 4, 3), np.float32), "float32"),
    "16-bit array": (np.zeros((4, 4), np.uint16), "uint16"),
    "bool array": (np.zeros((4, 4), bool), "bool"),
    "object array": (np.array([[None]]), "object"),
    "channels first": (np.zeros((3, 4, 5), np.uint8), r"\(3, 4, 5\)"),
    "a batch": (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\)"),
    "one axis": (np.zeros(4, np.uint8), r"\(4,\)"),
    "no axis": (np.uint8(4) + np.zeros((), np.uint8), r"uint8|\(\)"),
    "two channels": (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
    "array without pixels": (np.zeros((0, 4, 3), np.uint8), "no pixels"),
    "picture without pixels": (Image.new("RGB", (0, 5)), "no pixels"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_bad_source_is_refused_by_name(name):
    source, says = BAD_SOURCES[name]
    with pytest.raises(ImageError, match=says):
        load_image(source)


@pytest.mark.parametrize("kind", ["directory", "empty", "text", "truncated"])
def test_a_bad_file_is_refused_by_its_path(tmp_path, kind):
    path = tmp_path / "culprit.png"
    if kind == "directory":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "truncated": PNG[:100]}[kind])
    with pytest.raises(ImageError, match=r"culprit\.png"):
        load_image(path)


class Failing(io.BytesIO):
    """A file that can be read so many times, and then no more; `reads` counts."""

    def __init__(self, content, allowed, error):
        super().__init__(content)
        self.allowed, self.error, self.reads = allowed, error, 0

    def read(self, *size):
        self.reads += 1
        if self.reads > self.allowed:
            raise self.error
        return super().read(*size)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()], ids=repr)
@pytest.mark.parametrize("options", [{}, {"shorter_side": 10}], ids=str)
@pytest.mark.parametrize("large", [1, 10**9], ids=["simplejpeg's", "Pillow's"])
def test_a_file_whose_reading_fails_at_any_point_is_named(monkeypatch, error, options, large):
    def attempt(allowed):
        file = Failing(JPEG, allowed, error)
        monkeypatch.setattr(vlrt.image, "_open_path", lambda path: ("culprit.jpg", file))
        return file, lambda: decode("culprit.jpg", **options)

    monkeypatch.setattr(jpeg, "_LEAST_PIXELS", large)
    whole, run = attempt(10**9)
    run()
    assert whole.reads > 2
    for allowed in range(whole.reads):
        _, run = attempt(allowed)
        with pytest.raises(ImageError, match=r"^culprit\.jpg .*(Input/output error|MemoryError)$"):
            run()


def test_a_picture_that_memory_does_not_suffice_for_is_named(monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(jpeg, "decoded", refuse)
    with pytest.raises(ImageError, match=r"bytes cannot be decoded: MemoryError$"):
        load_image(JPEG)


def test_a_closed_file_object_is_refused():
    file = io.BytesIO(PNG)
    file.close()
    with pytest.raises(ImageError, match="closed"):
        load_image(file)


@pytest.mark.parametrize("limit", [61 * 37 - 1, 61 * 37 // 4], ids=["warned of", "an error"])
@pytest.mark.parametrize("kind", ["file", "PIL", "array"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # Pillow's own
def test_a_decompression_bomb_is_refused(monkeypatch, kind, limit):
    source = {"file": PNG, "PIL": picture(), "array": noise(37, 61, 3)}[kind]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match="too large"):
        load_image(source)


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    """A PNG of 60 000 x 60 000 pixels in 200 bytes: decoding would take 10 GB."""
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", zlib.crc32(chunk[4:]))
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="too large"):
        load_image(bomb + PNG[33:])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # Pillow's own
def test_the_limit_is_on_the_size_that_a_file_states_however_small_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200 * 100 - 1)
    with pytest.raises(ImageError, match="200x100 is 20000 pixels"):
        decode(JPEG, shorter_side=5)


@pytest.mark.parametrize("value", ["", "round", None])
def test_an_unknown_high_bit_depth_names_the_valid_ones(value):
    with pytest.raises(OptionError, match="clip, scale"):
        load_image(PNG, high_bit_depth=value)


@given(st.binary(max_size=200), st.integers(0, 200), st.sampled_from(sorted(FILES)))
def test_damaged_files_raise_image_errors_and_nothing_else(junk, at, name):
    file = FILES[name]()
    damaged = file[:at] + junk + file[at + len(junk) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of broken EXIF; errors count
        try:
            image = vlrt.load_image(damaged)
        except ImageError:
            return
    assert image.mode == "RGB"


# --- decode="fast" --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "expected_wh"),
    [
        (None, (1200, 800)),
        (210, (1200, 800)),
        (200, (600, 400)),
        (100, (300, 200)),
        (9, (150, 100)),
    ],
)
def test_fast_decoding_shrinks_a_jpeg_as_far_as_the_margin_allows(side, expected_wh):
    file = encoded(picture("RGB", (1200, 800)), "JPEG")
    image, size_hw = decode(file, shorter_side=side)
    assert image.size == expected_wh
    assert size_hw == (800, 1200)
    assert side is None or image.size == (1200, 800) or min(image.size) >= side * FAST_DECODE_MARGIN


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_fast_decoding_knows_the_original_size_of_a_turned_jpeg(orientation):
    image, size_hw = decode(rotated_jpeg(orientation, (1200, 800)), shorter_side=50)
    turned = orientation in (6, 8)
    assert size_hw == ((1200, 800) if turned else (800, 1200))
    assert image.size == ((100, 150) if turned else (150, 100))


def test_fast_decoding_leaves_other_formats_alone():
    assert decode(encoded(picture("RGB", (1200, 800))), shorter_side=10).image.size == (1200, 800)


# --- the processor --------------------------------------------------------------------------------


def test_no_pictures_make_an_empty_batch():
    assert processor()([]).shape == (0, 3, 32, 32)


@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.sampled_from([{"shortest_edge": 20}, {"height": 18, "width": 25}, 20, [18, 25]]),
    st.sampled_from([16, {"height": 12, "width": 40}, {"shortest_edge": 9}]),
)
def test_the_output_shape_is_the_crop_whatever_the_picture(width, height, size, crop):
    made = processor(size=size, crop_size=crop)
    pixels = made([picture("RGB", (width, height))])
    assert pixels.shape == (1, 3, *made.output_hw)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert np.isfinite(pixels).all()


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 400))
def test_resizing_to_the_shortest_edge_keeps_the_shape_of_the_picture(height, width, edge):
    resized = processor(size={"shortest_edge": edge}).resized_hw(height, width)
    assert min(resized) == edge
    assert (resized[0] >= resized[1]) == (height >= width) or resized[0] == resized[1]
    assert max(resized) == int(edge * max(height, width) / min(height, width))


def test_a_slot_of_a_larger_batch_is_filled_and_its_neighbours_are_not():
    made, batch = processor(), np.full((3, 3, 32, 32), np.nan, np.float32)
    made.into(picture(), batch[1])
    assert np.isnan(batch[[0, 2]]).all()
    assert np.array_equal(batch[1], made([picture()])[0])


def test_a_picture_too_elongated_to_be_resized_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32 * 10)
    with pytest.raises(ImageError, match=r"1x11 .*once resized.*too large"):
        processor()([picture("RGB", (1, 11))])
    assert processor()([picture("RGB", (1, 10))]).shape == (1, 3, 32, 32)


def test_older_settings_leave_the_rescaling_unsaid():
    old = {k: v for k, v in NEW_STYLE.items() if k not in ("do_rescale", "rescale_factor")}
    old |= {"size": 32, "crop_size": 32}
    made = ImageProcessor.from_settings(Settings("preprocessor_config.json", old))
    assert np.array_equal(made.levels.table, processor().levels.table)
    assert made.output_hw == processor().output_hw


@pytest.mark.parametrize("key", sorted(set(NEW_STYLE) - {"do_rescale", "rescale_factor"}))
def test_a_missing_setting_is_named_with_its_file(key):
    settings = {name: value for name, value in NEW_STYLE.items() if name != key}
    with pytest.raises(BundleError, match=rf"some/file\.json has no '{key}'"):
        ImageProcessor.from_settings(Settings("some/file.json", settings))


@pytest.mark.parametrize(
    "changes",
    [
        {"size": "224"},
        {"size": {}},
        {"size": {"longest_edge": 224}},
        {"size": {"shortest_edge": "big"}},
        {"size": {"shortest_edge": 0}},
        {"size": -1},
        {"size": [1, 2, 3]},
        {"crop_size": {"height": 32}},
        {"crop_size": {"height": 32, "width": 0}},
        {"resample": 99},
        {"resample": "bicubic"},
        {"rescale_factor": "1/255"},
        {"rescale_factor": None},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": "grey"},
        {"image_std": [[0.5, 0.5, 0.5]]},
        {"image_std": [0.5, 0.0, 0.5]},
    ],
    ids=str,
)
def test_a_bad_setting_is_named_with_its_file(changes):
    key = next(iter(changes))
    with pytest.raises(BundleError, match=rf"preprocessor_config\.json.*{key}"):
        processor(**changes)


def test_settings_that_fix_no_output_size_are_refused_when_one_is_needed():
    with pytest.raises(BundleError, match="fixes no output size"):
        processor(do_center_crop=False)([picture()])
