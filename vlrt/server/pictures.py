"""Pictures as requests bring them, checked before anything decodes them."""

import base64
import io
import re
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from vlrt.errors import ImageError, LimitError
from vlrt.image import check_size

# What is taken, by what its files begin with; so no other parser of Pillow's is ever asked first.
_TAKEN = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM")),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("AVIF", re.compile(rb"....ftyp(avif|avis|mif1|msf1)", re.DOTALL)),
)
FORMATS = tuple(name for name, _ in _TAKEN)
# What people send as well, to be told apart in the error. Some of it is made of programs (EPS, PDF,
# SVG), and none of it is what pictures to look at are kept in.
_REFUSED = (
    ("EPS", re.compile(rb"%!PS|\xc5\xd0\xd3\xc6")),
    ("PDF", re.compile(rb"%PDF")),
    ("SVG, or another kind of XML", re.compile(rb"(\xef\xbb\xbf)?\s*<(\?xml|svg|!DOCTYPE svg)")),
    ("HTML", re.compile(rb"\s*<(!doctype )?html", re.IGNORECASE)),
    ("HEIC", re.compile(rb"....ftyp(hei|hev)", re.DOTALL)),
    ("a video", re.compile(rb"....ftyp|\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|RIFF....AVI ", re.DOTALL)),
    ("JPEG 2000", re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ")),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("WMF or EMF", re.compile(rb"\xd7\xcd\xc6\x9a|\x01\0(\x09|\0)\0")),
    ("ICO", re.compile(rb"\0\0\x01\0")),
    ("CUR", re.compile(rb"\0\0\x02\0")),
    ("ICNS", re.compile(rb"icns")),
    ("FITS", re.compile(rb"SIMPLE")),
    ("PSD", re.compile(rb"8BPS")),
    ("PPM", re.compile(rb"P[1-7fFy][\s0-9]")),
    ("DDS", re.compile(rb"DDS ")),
    ("QOI", re.compile(rb"qoif")),
    ("HDF5", re.compile(rb"\x89HDF")),
    ("XPM", re.compile(rb"/\* XPM \*/")),
    ("XBM", re.compile(rb"\s*#define")),
    ("PCX", re.compile(rb"\x0a[\0\x02\x03\x05]\x01")),
    ("SGI", re.compile(rb"\x01\xda")),
    ("SUN", re.compile(rb"\x59\xa6\x6a\x95")),
    ("a ZIP archive", re.compile(rb"PK\x03\x04")),
    ("compressed by gzip", re.compile(rb"\x1f\x8b")),
)
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_PIECE = 2**20


class Limits(Protocol):
    """What is needed of the server's settings."""

    @property
    def max_megapixels(self) -> float:
        """The most pixels of a picture, in millions."""
        ...


def picture(value: str | bytes, settings: Limits) -> bytes:
    """A picture out of a request, as bytes that `vlrt.image.decode` may be given.

    Args:
        value: a file's bytes; or text: these in base64, or a `data:` URL with them.
        settings: for the limit.

    Raises:
        ImageError: it is no base64, or no picture of a format that is taken.
        LimitError: it has more pixels than this server takes.
    """
    return checked(from_text(value) if isinstance(value, str) else value, settings)


def from_text(text: str) -> bytes:
    """The bytes that base64, or a `data:` URL of it, stands for.

    The media type of such a URL has no say in what its bytes are.

    Raises:
        ImageError: it is neither, or stands for no bytes at all.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ImageError(
                f"{head!r:.60} begins no data: URL of a picture; "
                "valid: data:image/png;base64,... and the like"
            )
    try:
        data = _decoded(text)
    except ValueError as error:
        wrong = _wrong(text)
        why = str(error) if wrong is None else f"{text[wrong]!a} at {wrong}"
        raise ImageError(
            f"{text[:24]!a}... of {len(text)} characters is not base64: {why}; "
            "valid: A-Z, a-z, 0-9, '+', '/' and '=' at the end, without line breaks; "
            "or a data: URL of that"
        ) from error
    if not data:
        raise ImageError("the picture's base64 is empty")
    return data


def _wrong(text: str) -> int | None:
    """Where the first character is that base64 does not have."""
    for start in range(0, len(text), _PIECE):  # in between, other threads get their turn
        found = _NO_BASE64.search(text, start, start + _PIECE)
        if found is not None:
            return found.start()
    return None


def _decoded(text: str) -> bytes:
    if len(text) % 4 or text.endswith("==="):  # which Python lets pass
        raise ValueError("with '=' or '==' at the end, the length must be divisible by 4")
    return base64.b64decode(text, validate=True)


def checked(data: bytes, settings: Limits) -> bytes:
    """A picture's bytes as they are, if its header says that it may be decoded.

    Pillow reads the header as `vlrt.image.decode` has it do; nothing is decoded.

    Raises:
        ImageError: it is empty, of another format, or its header is broken.
        LimitError: it has more pixels than this server takes.
    """
    name = f"the picture in {len(data)} bytes"
    if not data:
        raise ImageError("the picture is empty")
    expected = _format(data, name)
    limit = f"this server takes {settings.max_megapixels:g} (max_megapixels)"
    try:
        with Image.open(io.BytesIO(data)) as image:
            found, width, height = image.format, image.width, image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = f"{Image.MAX_IMAGE_PIXELS or 0:,}"
        raise LimitError(f"{name} has more than {most} pixels; in millions, {limit}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} begins like {expected}, but cannot be read as that") from error
    except Exception as error:  # a parser of Pillow's raises whatever it stumbles over
        why = str(error) or type(error).__name__
        raise ImageError(f"{name} begins like {expected}, but cannot be read: {why}") from error
    # Several JPEGs in a row, as telephones write them, are one to begin with.
    if found != expected and (found, expected) != ("MPO", "JPEG"):
        raise ImageError(f"{name} begins like {expected}, but reads as {found}")
    if width * height > settings.max_megapixels * 1e6:
        raise LimitError(
            f"{name} has {width}x{height} pixels, {width * height / 1e6:.1f} million; {limit}"
        )
    check_size((height, width), name)
    return data


def _format(data: bytes, name: str) -> str:
    for known, begins in _TAKEN:
        if begins.match(data):
            return known
    valid = f"valid: {', '.join(FORMATS)}"
    head = data[:64]  # white space may come first; not a file of it
    for other, begins in _REFUSED:
        if begins.match(head):
            raise ImageError(f"{name} is {other}, which this server does not take; {valid}")
    raise ImageError(f"{name} is of no format that this server takes; {valid}")
