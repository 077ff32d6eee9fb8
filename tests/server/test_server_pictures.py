"""Pictures of requests: refused by header and by name, and never with anything but our errors."""

import base64
import contextlib
import io
import struct
import warnings
import zlib
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, features

from vlrt import demo
from vlrt.errors import ImageError, LimitError
from vlrt.image import decode
from vlrt.server.pictures import FORMATS, checked, from_text, picture

# Pillow skips what is broken in metadata, and warns of it.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")

LIMITS = SimpleNamespace(max_megapixels=50)
SMALL = SimpleNamespace(max_megapixels=0.01)
AVIF = bool(features.get_supported_modules().count("avif"))


def saved(name, image=None, **options):
    image = Image.linear_gradient("L").resize((40, 30)).convert("RGB") if image is None else image
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def png(width, height, *chunks):
    """A PNG of any size that its header claims, with chunks before its end and no pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(*one) for one in chunks)]
    return (
        b"\x89PNG\r\n\x1a\n"
        + b"".join(parts)
        + chunk(b"IDAT", zlib.compress(b""))
        + (chunk(b"IEND", b""))
    )


def tiff(width, height):
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1)]
    entries += [(262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height)]
    entries += [(279, 4, 1, width * height)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)


def gif(width, height):
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + frame + b"\x02\x02\x44\x01\x00;"


def bmp(width, height):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def webp(width, height):
    bits = (width - 1) | (height - 1) << 14
    stream = b"\x2f" + struct.pack("<I", bits) + bytes(20)
    body = b"WEBPVP8L" + struct.pack("<I", len(stream)) + stream + bytes(len(stream) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


REAL = {path.name: path.read_bytes() for path in sorted((demo.ROOT / "pictures").glob("*.jpg"))}
TRANSPARENT = Image.new("RGBA", (24, 20), (200, 30, 60, 120))
TURNED = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)  # to the right
DRAWN = {
    "png": saved("PNG"),
    "png, palette": saved("PNG", Image.new("P", (20, 20)), transparency=0),
    "png, 16 bits": saved("PNG", Image.new("I;16", (20, 20), 40_000)),
    "gif": saved("GIF"),
    "gif, moving": saved(
        "GIF", Image.new("P", (20, 20)), save_all=True, append_images=[Image.new("P", (20, 20), 3)]
    ),
    "webp": saved("WEBP"),
    "webp, transparent": saved("WEBP", TRANSPARENT, lossless=True),
    "bmp": saved("BMP"),
    "tiff": saved("TIFF"),
    "tiff, compressed": saved("TIFF", compression="tiff_deflate"),
    "tiff, transparent": saved("TIFF", TRANSPARENT),
    "jpeg, grey": saved("JPEG", Image.new("L", (33, 17), 80)),
    "jpeg, four inks": saved("JPEG", Image.new("CMYK", (33, 17))),
    "jpeg, turned": saved("JPEG", exif=TURNED),
    "mpo": saved("MPO", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
    **({"avif": saved("AVIF")} if AVIF else {}),
}  # fmt: skip
GOOD = {**REAL, **DRAWN}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_picture_of_each_format_passes_as_it_is(name):
    data = GOOD[name]
    assert picture(data, LIMITS) is data
    assert picture(base64.b64encode(data).decode(), LIMITS) == data
    url = "data:image/any;charset=x;base64," + base64.b64encode(data).decode()
    assert picture(url, LIMITS) == data
    assert decode(data).image.mode in ("RGB", "RGBX")


def test_the_turned_picture_is_one():
    image, size_hw = decode(checked(DRAWN["jpeg, turned"], LIMITS))
    assert (image.size, size_hw) == ((30, 40), (40, 30))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("data:image/png;base64,", "empty"),
        ("data:,abc", "data: URL"),
        ("data:image/png,abc", "data: URL"),
        ("data:image/png;base64", "data: URL"),
        ("DATA:image/png;base64,%2B", "'%' at 0"),
        ("abc\ndef=", "'\\n' at 3"),
        ("ab-_", "'-' at 2"),
        ("ab c", "' ' at 2"),
        ("ab\u00e9c", "'\\xe9' at 2"),
        ("\ud800", "'\\ud800' at 0"),
        ("abc", "is not base64"),
        ("abcde", "is not base64"),
        ("ab==cd==", "is not base64"),
        ("=abc", "is not base64"),
        ("a===", "is not base64"),
        ("abcd====", "is not base64"),
        ("https://example.org/a.png", "is not base64"),
    ],
)
def test_what_is_no_base64_is_refused(text, told):
    with pytest.raises(ImageError) as caught:
        from_text(text)
    assert told in str(caught.value)


@given(st.binary(min_size=1))
def test_base64_comes_back_as_it_was(data):
    assert from_text(base64.b64encode(data).decode()) == data


@given(st.text(st.characters(codec=None, categories=None)))
def test_any_text_is_base64_or_refused(text):
    with contextlib.suppress(ImageError):
        assert from_text(text)


@pytest.mark.parametrize("name", ["data:image/png;base64,", ""])
def test_a_long_text_is_not_told_at_length(name):
    with pytest.raises(ImageError) as caught:
        picture(name + "A" * 3_000_000 + "*", LIMITS)
    assert len(str(caught.value)) < 400
    assert "'*' at 3000000" in str(caught.value)


OTHERS = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "PDF": b"%PDF-1.7\n",
    "SVG": b'\n <svg xmlns="http://www.w3.org/2000/svg"/>',
    "XML": b"\xef\xbb\xbf<?xml version='1.0'?><svg/>",
    "HTML": b"<!DOCTYPE html><html></html>",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "video": b"\0\0\0\x18ftypmp42\0\0\0\0isom",
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(40),
    "EMF": b"\x01\0\0\0" + bytes(36) + b" EMF",
    "ICNS": b"icns" + bytes(40),
    "FITS": b"SIMPLE  =                    T",
    "PSD": b"8BPS\0\x01" + bytes(40),
    "JPEG XL": b"\xff\x0a" + bytes(40),
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "ZIP": b"PK\x03\x04" + bytes(40),
    "gzip": b"\x1f\x8b\x08" + bytes(40),
    "CUR": b"\0\0\x02\0\x01\0" + bytes(40),
    "SUN": b"\x59\xa6\x6a\x95" + bytes(40),
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_other_formats_are_refused_by_name(name):
    with pytest.raises(ImageError) as caught:
        checked(OTHERS[name], LIMITS)
    assert name in str(caught.value)
    assert ", ".join(FORMATS) in str(caught.value)


def test_what_pillow_writes_beyond_the_list_is_refused_whatever_it_is():
    Image.init()
    told = {}
    for name in sorted(Image.SAVE):
        if name in (*FORMATS, "MPO", "PDF", "EPS"):  # the last two: by their programs' names above
            continue
        for mode in ("RGB", "L", "1", "P", "RGBA", "F"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of formats that are to go
                    data = saved(name, Image.new(mode, (16, 16)))
            except (OSError, ValueError, KeyError):
                continue
            with pytest.raises(ImageError) as caught:
                checked(data, LIMITS)
            told[name] = str(caught.value)
            break
    assert {"ICO", "PCX", "PPM", "SGI", "TGA", "DDS", "JPEG2000"} <= set(told)
    for name in ("ICO", "PCX", "PPM", "SGI", "DDS", "ICNS", "QOI", "XBM"):
        if name in told:
            assert name in told[name]


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"GIF", b"hello, here I am", b"\xff\xd8", bytes(10_000), b" " * 100_000]
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ImageError):
        checked(data, LIMITS)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_beginning_alone_is_refused_and_told_as_what_it_begins_like(name):
    with pytest.raises(ImageError) as caught:
        checked(GOOD[name][:14], LIMITS)
    assert "begins like" in str(caught.value)


BOMBS = {"png": png, "tiff": tiff, "gif": gif, "bmp": bmp, "webp": webp}


@pytest.mark.parametrize("kind", sorted(BOMBS))
@pytest.mark.parametrize("side", [8_000, 10_000, 16_000, 50_000])
def test_a_bomb_is_refused_by_its_header(kind, side, monkeypatch):
    side = min(side, 16_383) if kind == "webp" else side
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(LimitError) as caught:
        checked(BOMBS[kind](side, side), LIMITS)
    assert "max_megapixels" in str(caught.value)


@pytest.mark.parametrize("kind", sorted(BOMBS))
def test_the_limit_is_the_last_number_of_pixels_that_passes(kind):
    checked(BOMBS[kind](100, 100), SMALL)
    with pytest.raises(LimitError) as caught:
        checked(BOMBS[kind](100, 101), SMALL)
    assert "100x101" in str(caught.value)


def test_warnings_of_pillow_are_no_way_around_the_limit(monkeypatch):
    """Pillow warns of a size before it refuses one; a program may have turned that off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(LimitError):
            checked(png(10_000, 10_000), LIMITS)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        with pytest.raises(LimitError):
            checked(png(50_000, 50_000), LIMITS)


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_a_picture_without_pixels_is_refused(size):
    with pytest.raises(ImageError):
        checked(png(*size), LIMITS)


def test_texts_that_unfold_in_a_png_are_refused():
    text = (b"zTXt", b"a\0\0" + zlib.compress(bytes(200 * 2**20)))
    data = png(10, 10, text)
    assert len(data) < 300_000
    with pytest.raises(ImageError) as caught:
        checked(data, LIMITS)
    assert "too large" in str(caught.value)


def test_a_profile_that_unfolds_in_a_png_takes_no_memory():
    data = png(10, 10, (b"iCCP", b"a\0\0" + zlib.compress(bytes(200 * 2**20))))
    with pytest.raises(ImageError):
        decode(checked(data, LIMITS))


def test_many_texts_are_bounded_too():
    texts = [(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 1)))] * 80
    with pytest.raises(ImageError) as caught:
        checked(png(10, 10, *texts), LIMITS)
    assert str(PngImagePlugin.MAX_TEXT_MEMORY) in str(caught.value) or "text" in str(caught.value)


def test_a_huge_exif_block_is_harmless():
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000)
    block += b"".join(struct.pack("<HHII", 271, 2, 0x7FFFFFFF, 8) for _ in range(5000))
    data = saved("JPEG", exif=block[:65_000])
    decode(checked(data, LIMITS))
    data = png(1, 1, (b"eXIf", block[6:] + bytes(5_000_000)))
    with pytest.raises(ImageError):  # its pixels are missing
        decode(checked(data, LIMITS))


def test_a_file_that_is_two_formats_is_not_what_it_seems():
    """SPIDER is told by numbers only, and may begin like TIFF: the header that is read counts."""
    cells = [0.0] * 27
    cells[0], cells[1], cells[4], cells[11] = 1.0, 60.0, 1.0, 60.0
    cells[12], cells[21], cells[22] = 5.0, 1200.0, 240.0
    spider = struct.pack(">27f", *cells)
    data = b"II*\0" + spider[4:] + bytes(20_000)
    with pytest.raises(ImageError):
        checked(data, LIMITS)


def survives(data):
    """Either an error of ours, at the check or afterwards, or a picture."""
    with contextlib.suppress(ImageError, LimitError):
        assert decode(checked(data, LIMITS)).image.mode in ("RGB", "RGBX")


@given(st.data())
def test_mutated_pictures_give_our_errors_or_pictures(data):
    name = data.draw(st.sampled_from(sorted(GOOD)))
    bent = bytearray(GOOD[name])
    head = st.integers(0, min(len(bent), 200) - 1)
    anywhere = st.integers(0, len(bent) - 1)
    for _ in range(data.draw(st.integers(1, 8))):
        bent[data.draw(st.one_of(head, anywhere))] = data.draw(
            st.one_of(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]), st.integers(0, 255))
        )
    if data.draw(st.booleans()):
        del bent[data.draw(anywhere) :]
    if data.draw(st.booleans()):
        at = data.draw(anywhere)
        bent[at:at] = data.draw(st.binary(max_size=40))
    survives(bytes(bent))


@given(st.sampled_from(sorted(GOOD)), st.binary(max_size=300))
@example("png", b"\x89PNG\r\n\x1a\n")
def test_anything_after_a_known_beginning_gives_our_errors(name, rest):
    survives(GOOD[name][:16] + rest)


@given(st.binary(max_size=200))
def test_any_bytes_give_our_errors(data):
    survives(data)
