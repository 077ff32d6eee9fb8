"""Pictures and texts to verify and calibrate on: drawn scenes, or the user's own."""

from pathlib import Path

import numpy as np
from PIL import Image

from vlrt.errors import ExportError, ImageError
from vlrt.files import text_lines
from vlrt.image import load_image

from .demo.scenes import ALL_PAIRS, draw_scene

_SIZES_WH = [(320, 320), (480, 270), (240, 400), (640, 128)]
_SENTENCES = [
    "a photo of a cat",
    "two dogs playing in the snow",
    "an aerial view of a harbour at night",
    "a handwritten letter, dated 1912",
    "a diagram of a neural network with three layers",
    "the cover of a paperback novel",
    "a bowl of ripe strawberries on a wooden kitchen table beside an open window",
    "nothing",
]


def drawn_pictures(number: int, seed: int = 0) -> list[Image.Image]:
    """Drawn scenes of one to five objects, square, wide, tall and very wide."""
    return [
        draw_scene(
            np.random.default_rng((seed, i)),
            size_wh=_SIZES_WH[i % len(_SIZES_WH)],
            n_objects=(1, 5),
        ).image
        for i in range(number)
    ]


def texts(number: int | None = None) -> list[str]:
    """Labels of every colour and shape, and sentences of one to fifteen words.

    Args:
        number: so many of them, from the first to the last; None for all.
    """
    found = [f"a {colour} {shape}" for colour, shape in ALL_PAIRS] + _SENTENCES
    at = np.arange(len(found)) if number is None else np.linspace(0, len(found) - 1, number)
    return [found[round(position)] for position in at]


def pictures_in(directory: str) -> list[Image.Image]:
    """The pictures of a directory, at most 256, in order of name.

    Raises:
        ExportError: it is no directory, or holds nothing that is a picture.
    """
    root = Path(directory)
    if not root.is_dir():
        raise ExportError(f"{directory!r} is not a directory of pictures")
    paths = [path for path in sorted(root.iterdir()) if path.is_file()][:256]
    try:
        images = [load_image(path) for path in paths]
    except ImageError as error:
        raise ExportError(f"{directory!r} must hold pictures alone: {error}") from error
    if not images:
        raise ExportError(f"{directory!r} holds no pictures")
    return images


def texts_in(file: str) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        ExportError: it cannot be read as UTF-8, or is empty.
    """
    try:
        found = text_lines(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{file!r} cannot be read as text: {error}") from error
    if not found:
        raise ExportError(f"{file!r} holds no texts")
    return found
