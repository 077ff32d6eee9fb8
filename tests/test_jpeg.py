"""JPEGs through simplejpeg against Pillow: the same pixels, the same errors, and the same without.

All but the last few need simplejpeg, from the extra `fast-decode`.
"""

import functools
import io
import sys
import warnings
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pictures import encoded, picture, rotated_jpeg
from PIL import Image, ImageCms, features
from without import run_without

from vlrt import jpeg
from vlrt.errors import ImageError
from vlrt.image import decode, load_image

WH = (61, 37)


def missing():
    """In place of `vlrt.jpeg.simplejpeg`, as if it were not installed."""
    return


@pytest.fixture
def simplejpeg():
    return pytest.importorskip("simplejpeg")


def outcome(file, **options):
    """The pixels and sizes of a picture, or its error, and whether simplejpeg decoded it."""
    used = []

    def spy(image, opened):
        found = original(image, opened)
        used.append(found is not image)
        return found

    original = jpeg.decoded
    with (
        patch.object(jpeg, "decoded", spy),
        patch.object(jpeg, "_LEAST_PIXELS", 1),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # Pillow's, of broken EXIF; errors count
        try:
            image, size_hw = decode(file, **options)
        except ImageError as error:
            return str(error), any(used)
    return (size_hw, image.size, np.asarray(image)[..., :3].tobytes()), any(used)


def both(file, **options):
    """Decode with simplejpeg and without; they must agree. Returns whether simplejpeg was used."""
    found, used = outcome(file, **options)
    with patch.object(jpeg, "simplejpeg", missing):
        expected, unused = outcome(file, **options)
    assert not unused
    assert found == expected
    return used


def saved(mode="RGB", size_wh=WH, **options):
    return encoded(picture(mode, size_wh), "JPEG", **options)


def sampled(sampling, size_wh=WH):
    """Pillow writes three kinds of chroma sampling, and simplejpeg more."""
    module = pytest.importorskip("simplejpeg")
    return module.encode_jpeg(np.array(picture("RGB", size_wh)), colorsubsampling=sampling)


def with_segment(file, marker, content):
    """Put a segment at the front of a JPEG."""
    size = (len(content) + 2).to_bytes(2, "big")
    return file[:2] + bytes((0xFF, marker)) + size + content + file[2:]


def first_scans(number):
    """A progressive JPEG that ends, as it should, before all of its scans are there."""
    file = saved(progressive=True)
    at = -1
    for _ in range(number + 1):
        at = file.index(b"\xff\xda", at + 1)
    return file[:at] + b"\xff\xd9"


def with_sampling(h, v):
    """A JPEG whose header names any factors for the luma, whatever its data hold."""
    file = bytearray(saved(subsampling=0))
    file[file.index(b"\xff\xc0") + 11] = h << 4 | v
    return bytes(file)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ADOBE = b"Adobe\0\x64\0\0\0\0"
ALIKE = {
    **{
        f"{name} {sampling} {kind}": functools.partial(saved, subsampling=sampling, **options)
        for sampling in ("4:4:4", "4:2:2", "4:2:0")
        for kind, options in (("baseline", {}), ("progressive", {"progressive": True}))
        for name, options in (
            ("plain", options),
            ("with restarts", options | {"restart_marker_blocks": 2}),
            ("optimised", options | {"optimize": True}),
        )
    },
    "4:4:0": lambda: sampled("440"),
    "grey": lambda: saved("L"),
    "grey progressive": lambda: saved("L", progressive=True),
    "RGB": lambda: saved(keep_rgb=True),
    "RGB by Adobe's marker": lambda: with_segment(
        saved(subsampling=0).replace(b"JFIF", b"JFOF"), 0xEE, ADOBE + b"\0"
    ),
    "YCbCr by Adobe's marker": lambda: with_segment(saved(), 0xEE, ADOBE + b"\1"),
    "a profile": lambda: saved(icc_profile=PROFILE),
    "a long profile": lambda: saved(icc_profile=PROFILE * 300),
    "a comment": lambda: saved(comment=b"\xff\xd8\xff\xd9"),
    "something after the end": lambda: saved() + b"\xff\xd8\xff" + bytes(5000),
    "several pictures": lambda: encoded(
        picture(), "MPO", save_all=True, append_images=[picture("RGB", (9, 9))]
    ),
    "one scan of several": lambda: first_scans(1),
    "two scans of several": lambda: first_scans(2),
    **{f"orientation {n}": functools.partial(rotated_jpeg, n) for n in range(1, 9)},
    **{
        f"{w}x{h} {sampling}": functools.partial(saved, size_wh=(w, h), subsampling=sampling)
        for w, h in ((1, 1), (1, 40), (40, 1), (2, 3), (7, 9), (8, 8), (15, 17), (16, 16), (33, 31))
        for sampling in ("4:4:4", "4:2:2", "4:2:0")
    },
}
PILLOWS = {
    "CMYK": lambda: saved("CMYK"),
    "4:1:1": lambda: sampled("411"),
    "no JPEG": lambda: encoded(picture()),
    "truncated": lambda: saved()[:-300],
    "without an end": lambda: saved()[:-2],
    "header alone": lambda: saved()[: saved().index(b"\xff\xda")],
    "junk in front of a marker": lambda: saved().replace(b"\xff\xdb", b"\0\0\xff\xdb", 1),
    "a second frame": lambda: with_segment(saved(), 0xC0, b"\x08\0\x09\0\x09\x01\x01\x11\0"),
    "broken data": lambda: saved(quality=90, restart_marker_blocks=1).replace(
        b"\xff\xd3", b"\xff\xd5", 1
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_simplejpeg_decodes_what_pillow_does(simplejpeg, name):
    assert both(ALIKE[name]())


@pytest.mark.parametrize("name", PILLOWS)
def test_anything_unusual_is_left_to_pillow(simplejpeg, name):
    assert not both(PILLOWS[name]())


@pytest.mark.parametrize("quality", range(1, 101))
def test_every_quality(simplejpeg, quality):
    for sampling in ("4:4:4", "4:2:0"):
        assert both(saved(quality=quality, subsampling=sampling))


@pytest.mark.parametrize("h", [1, 2, 3, 4])
@pytest.mark.parametrize("v", [1, 2, 3, 4])
def test_every_sampling_that_a_header_can_name(simplejpeg, h, v):
    """Also of those that simplejpeg has no name for, such as 1 by 4."""
    both(with_sampling(h, v))


@given(
    size_wh=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    quality=st.integers(1, 100),
    sampling=st.sampled_from(["444", "422", "420", "440", "Gray"]),
    seed=st.integers(0, 9),
)
def test_any_picture(size_wh, quality, sampling, seed):
    module = pytest.importorskip("simplejpeg")
    pixels = np.array(picture("RGB", size_wh, seed))
    assert both(module.encode_jpeg(pixels, quality, colorsubsampling=sampling))


@given(
    name=st.sampled_from(["plain 4:2:0 baseline", "with restarts 4:2:2 progressive", "grey"]),
    junk=st.binary(max_size=12),
    at=st.integers(2, 1500),
    kept=st.integers(0, 12),
)
@example("grey", b"", 2, 0)
def test_damaged_files_end_as_they_do_in_pillow(name, junk, at, kept):
    pytest.importorskip("simplejpeg")
    file = ALIKE[name]()
    both(file[:at] + junk + file[at + kept :])


def test_the_photographs(simplejpeg, data):
    paths = sorted((data / "photos").glob("*.jpg"))
    assert len(paths) == 4
    for path in paths:
        assert both(path)
        assert both(path.read_bytes())


def test_a_fast_decode_that_reduces_nothing_is_exact(simplejpeg):
    assert both(saved(size_wh=(200, 100)), shorter_side=60)
    assert not both(saved(size_wh=(200, 100)), shorter_side=10)


@pytest.mark.parametrize("source", [bytes, bytearray, memoryview, io.BytesIO])
def test_every_kind_of_source(simplejpeg, source):
    _, used = outcome(source(saved()))
    assert used


@pytest.mark.parametrize(("least", "large"), [(61 * 37, True), (61 * 37 + 1, False)])
def test_small_pictures_are_left_to_pillow(simplejpeg, least, large):
    file = io.BytesIO(saved())
    image = Image.open(file)
    with patch.object(jpeg, "_LEAST_PIXELS", least):
        assert (jpeg.decoded(image, file) is not image) == large


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_picture_as_it_comes(simplejpeg, orientation):
    file = rotated_jpeg(orientation, (2500, 1700))
    found, _ = decode(file)
    with patch.object(jpeg, "simplejpeg", missing):
        expected, _ = decode(file)
    assert (found.mode, expected.mode) == ("RGBX", "RGB")
    assert np.array_equal(np.asarray(found)[..., :3], np.asarray(expected))


def test_a_picture_is_rgb_and_the_callers_own(simplejpeg, monkeypatch):
    monkeypatch.setattr(jpeg, "_LEAST_PIXELS", 1)
    image = load_image(saved(icc_profile=PROFILE))
    assert image.mode == "RGB"
    assert image.info["icc_profile"] == PROFILE
    image.putpixel((0, 0), (1, 2, 3))
    assert image.getpixel((0, 0)) == (1, 2, 3)


def test_a_picture_that_was_turned_is_not_turned_again(simplejpeg, monkeypatch):
    monkeypatch.setattr(jpeg, "_LEAST_PIXELS", 1)
    image = load_image(rotated_jpeg(6))
    assert image.size == (37, 61)
    assert image.getexif().get(0x0112) is None


def test_the_limit_on_pixels_comes_first(simplejpeg, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 61 * 37 * 2)
    monkeypatch.setattr(jpeg, "decoded", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="too large"):
        decode(saved(size_wh=(61, 75)))


def test_a_size_that_simplejpeg_reads_otherwise_is_left_to_pillow(simplejpeg):
    with patch.object(simplejpeg, "decode_jpeg_header", return_value=(38, 61, "YCbCr", "420")):
        assert not both(saved())


def test_a_long_file_is_left_to_pillow(simplejpeg, monkeypatch):
    monkeypatch.setattr(jpeg, "_MOST_BYTES", len(saved()))
    assert both(saved())
    assert not both(saved() + b"\0")


# --- which decoder it is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        (None, False),  # of another kind
        ("1.5.3", False),
        ("2.1.5", False),
        ("3.0.4", False),
        ("3.1.0", True),
        ("3.1.4.1", True),
        ("3.2.0", True),
        ("4.1.5", False),  # as mozjpeg counts
    ],
)
def test_another_jpeg_library_in_pillow_is_followed(monkeypatch, simplejpeg, version, asked):
    """Others round in another way, and simplejpeg's must not change what Pillow gives here."""
    monkeypatch.setattr(features, "version_feature", {"libjpeg_turbo": version}.get)
    assert (jpeg.simplejpeg.__wrapped__() is simplejpeg) == asked


def test_simplejpeg_is_imported_for_a_large_jpeg_alone(simplejpeg, tmp_path):
    (tmp_path / "small.jpg").write_bytes(saved())
    (tmp_path / "large.jpg").write_bytes(saved(size_wh=(2500, 1700)))
    (tmp_path / "large.png").write_bytes(encoded(picture("RGB", (2500, 1700))))
    script = (
        "import sys; import vlrt; from vlrt import demo\n"
        "vlrt.load(demo.bundle('clip'), device='cpu')\n"
        "for path in sys.argv[1:]:\n"
        "    vlrt.load_image(path)\n"
        "    print('simplejpeg' in sys.modules)"
    )
    names = ("small.jpg", "large.png", "large.jpg")
    found = run_without((), script, *(tmp_path / name for name in names))
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.split() == ["False", "False", "True"]


def test_the_decoder_is_named(simplejpeg):
    assert jpeg.decoder() == f"simplejpeg {simplejpeg.__version__}"


def test_without_the_extra_it_is_pillow(tmp_path):
    (tmp_path / "picture.jpg").write_bytes(saved())
    script = (
        "import sys; from vlrt import jpeg; from vlrt.image import load_image\n"
        "print(jpeg.decoder(), load_image(sys.argv[1]).size)"
    )
    found = run_without(("simplejpeg",), script, tmp_path / "picture.jpg")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == f"Pillow {Image.__version__} (61, 37)\n"


def test_a_broken_simplejpeg_is_no_missing_one(tmp_path, monkeypatch):
    """What it lacks itself is its own error, and not taken for an extra that is not installed."""
    (tmp_path / "simplejpeg.py").write_text("import something_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "simplejpeg", raising=False)
    with pytest.raises(ModuleNotFoundError, match="something_that_is_not_there"):
        jpeg.simplejpeg.__wrapped__()
    sys.modules.pop("simplejpeg", None)
