"""Text that can be drawn: which font, and what stands for a character that no font has.

Pillow's own font, which is always there, is made for ASCII. Text beyond that is drawn in the first
of some widespread system fonts that has most of it. What the chosen font still lacks loses its
accents (é becomes e) or becomes a question mark, so the picture never shows empty frames.
"""

import unicodedata
from functools import lru_cache

from PIL import ImageFont

from vlrt.errors import OptionError

# By the names that Pillow finds in the font directories of Linux, macOS and Windows.
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "arial.ttf",
    "msyh.ttc",
)
_PROBE_SIZE = 16
_NO_CHARACTER = "\uffff"  # by its definition; every font shows its sign for "missing"


def drawable(
    text: str, size: int, *, file: str | None = None
) -> tuple[str, ImageFont.FreeTypeFont]:
    """One line of text as it can be drawn, and the font for it.

    Args:
        text: any; line ends and runs of blanks become one blank.
        size: height of the font in pixels.
        file: a TrueType or OpenType font to use instead of the choice above.

    Returns:
        The text, with what cannot be drawn replaced, and the font.

    Raises:
        OptionError: the font file cannot be read.
    """
    text = " ".join(text.split())
    fonts = [checked_file(file)] if file else _candidates(text)
    best = min(fonts, key=lambda name: sum(not _has(name, mark) for mark in text))
    return _replaced(text, best), _font(best, size)


def _candidates(text: str) -> list[str]:
    # Looking for system fonts takes time, and most labels need none.
    return [""] + ([] if text.isascii() else [name for name in SYSTEM_FONTS if _installed(name)])


def _replaced(text: str, name: str) -> str:
    shown: list[str] = []
    for mark in text:
        if _has(name, mark):
            shown.append(mark)
            continue
        bare = "".join(m for m in unicodedata.normalize("NFKD", mark) if _has(name, m))
        if bare.strip() or shown[-1:] != ["?"]:
            shown.append(bare.strip() or "?")
    return "".join(shown)


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font by its name or file; "" is Pillow's own."""
    if name:
        return ImageFont.truetype(name, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # the other kind has no size
    return font


def checked_file(file: str) -> str:
    """The name of a TrueType or OpenType font file, if it is one.

    Raises:
        OptionError: it cannot be read.
    """
    try:
        _font(file, _PROBE_SIZE)
    except OSError as error:
        raise OptionError(f"font {file!r} cannot be read: {error}") from error
    return file


@lru_cache(maxsize=64)
def _installed(name: str) -> bool:
    try:
        _font(name, _PROBE_SIZE)
    except OSError:  # the one way to ask
        return False
    return True


@lru_cache(maxsize=4096)
def _has(name: str, mark: str) -> bool:
    if mark == " ":
        return True
    if not mark.isprintable():  # lone surrogates, controls
        return False
    font = _font(name, _PROBE_SIZE)
    return bytes(font.getmask(mark)) != bytes(font.getmask(_NO_CHARACTER))
