"""Pictures from files, bytes, PIL images and arrays to RGB, safely."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vlrt import jpeg
from vlrt.errors import ImageError, OptionError

ImageInput: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | Image.Image
    | NDArray[np.uint8]
)

HIGH_BIT_DEPTH = ("clip", "scale")
DECODE = ("exact", "fast")
# With decode="fast", a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, never below this many times
# the model's shorter side, so that the last step down is still the model's own resize.
FAST_DECODE_MARGIN = 2
ORIENTATION = 0x0112  # the EXIF tag


class Decoded(NamedTuple):
    """A picture ready for an image processor, and the (height, width) that its file states.

    Attributes:
        image: mode RGB, or RGBX, of which X means nothing. It may be the caller's own, or share
            memory with something else: it is for reading.
        original_size_hw: (height, width) of the whole picture, upright.
    """

    image: Image.Image
    original_size_hw: tuple[int, int]


def load_image(source: ImageInput, *, high_bit_depth: str = "clip") -> Image.Image:
    """Read a picture as RGB, upright.

    Rules, the same as those of transformers:

    - The EXIF orientation is applied, as its `load_image` does.
    - Alpha, in any mode or as a palette's transparency, is blended onto white, as the image
      processors of 5.23 do (those of 5.0, and `load_image`, drop it).
    - Every other mode goes through Pillow's `convert("RGB")`; of animations the first frame counts.
    - 16-bit greyscale: Pillow, and so transformers, clips values above 255 to white. That is a
      known mistake, matched by `high_bit_depth="clip"`; `"scale"` maps 0..65535 to 0..255.
    - Arrays are uint8 and channels last: [H, W, 3] is RGB, [H, W] and [H, W, 1] are grey,
      [H, W, 4] is RGBA, blended onto white. Floats, 16-bit arrays and other shapes are refused.

    The number of pixels is checked before anything is decoded, against Pillow's own
    `PIL.Image.MAX_IMAGE_PIXELS` (89 million unless you change it).

    Args:
        source: a path, the bytes of a file, an open binary file, a PIL image or an array as above.
        high_bit_depth: "clip" or "scale", see above.

    Returns:
        A PIL image of mode RGB.

    Raises:
        ImageError: the source is missing, empty, truncated, not a picture, too large, has no
            pixels, or is an array that no rule above accepts.
        OptionError: `high_bit_depth` is neither of its two values.
    """
    return decode(source, high_bit_depth=high_bit_depth).image.convert("RGB")  # or a copy


def decode(
    source: ImageInput, *, high_bit_depth: str = "clip", shorter_side: int | None = None
) -> Decoded:
    """Do what `load_image` does without its last copy, keeping the original size.

    Args:
        source: as `load_image` takes it.
        high_bit_depth: as `load_image` takes it.
        shorter_side: when given, a JPEG may be decoded smaller (Pillow's `draft`), to at least
            `FAST_DECODE_MARGIN` times this many pixels along its shorter side.
    """
    if high_bit_depth not in HIGH_BIT_DEPTH:
        raise OptionError(
            f"high_bit_depth is {high_bit_depth!r}; valid: {', '.join(HIGH_BIT_DEPTH)}"
        )
    if isinstance(source, np.ndarray):
        image = _from_array(source)
        return Decoded(image, (image.height, image.width))
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the PIL image", high_bit_depth)
    name, file = _open_source(source)
    with file:
        # Pillow's format plugins raise whatever their parser stumbles over, so everything is caught
        # here, and nothing is hidden: it is raised again under one type, with its cause.
        try:
            image = Image.open(file)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError(f"{name} is too large: {error}") from error
        except UnidentifiedImageError as error:
            raise ImageError(f"{name} is not a picture that Pillow can read") from error
        except Exception as error:
            why = _why(error)
            raise ImageError(f"{name} is not a picture that Pillow can read: {why}") from error
        size_hw = (image.height, image.width)
        check_size(size_hw, name)
        with _decoding(name):
            if shorter_side is not None:
                target = shorter_side * FAST_DECODE_MARGIN
                image.draft(None, (target, target))
            if (image.height, image.width) == size_hw:
                image = jpeg.decoded(image, file)
        rgb = _to_rgb(image, name, high_bit_depth).image
        turned = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)  # those that swap the sides
        return Decoded(rgb, size_hw[::-1] if turned else size_hw)


def _open_source(source: Any) -> tuple[str, BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        if len(source) == 0:
            raise ImageError("the picture's bytes are empty")
        return f"the picture in {len(source)} bytes", io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        if isinstance(source, str) and source.startswith(("http://", "https://", "data:")):
            raise ImageError(
                f"{source[:80]!r} is a URL; vlrt reads files, bytes, PIL images and arrays, "
                "so fetch it first and pass the bytes"
            )
        return _open_path(Path(source))
    if hasattr(source, "read"):
        try:
            data = source.read()
        except (OSError, ValueError) as error:
            raise ImageError(f"the file object cannot be read: {error}") from error
        if not isinstance(data, bytes):
            raise ImageError("the file object yields text; open it in binary mode")
        return _open_source(data)
    raise ImageError(
        f"a picture cannot be read from {type(source).__name__}; "
        "valid: path, bytes, binary file, PIL image, uint8 array [H, W, 3]"
    )


def _open_path(path: Path) -> tuple[str, BinaryIO]:
    name = f"{str(path)!r:.200}"
    try:
        status = path.stat()
        file = None if stat.S_ISDIR(status.st_mode) else path.open("rb")
    except OSError as error:
        raise ImageError(f"cannot read {name}: {error.strerror}") from error
    except ValueError as error:  # a name with a NUL or a lone surrogate
        raise ImageError(f"cannot read {name}: {error}") from error
    if file is None:
        raise ImageError(f"{name} is a directory, not a picture")
    if status.st_size == 0:
        file.close()
        raise ImageError(f"{name} is an empty file")
    return name, file


def check_size(size_hw: tuple[int, int], name: str) -> None:
    """Refuse a picture of no pixels, or of more than `PIL.Image.MAX_IMAGE_PIXELS`."""
    pixels = size_hw[0] * size_hw[1]
    if pixels == 0:
        raise ImageError(f"{name} has no pixels: {size_hw[1]}x{size_hw[0]}")
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{name} is too large: {size_hw[1]}x{size_hw[0]} is {pixels} pixels; the limit, "
            f"PIL.Image.MAX_IMAGE_PIXELS, is {Image.MAX_IMAGE_PIXELS}"
        )


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Raise what comes up while a picture is decoded, whatever it is, as an error that names it."""
    try:
        yield
    except Exception as error:
        raise ImageError(f"{name} cannot be decoded: {_why(error)}") from error


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__  # a MemoryError says nothing


def _to_rgb(image: Image.Image, name: str, high_bit_depth: str) -> Decoded:
    check_size((image.height, image.width), name)
    with _decoding(name):
        image.load()
        if image.getexif().get(ORIENTATION) in range(2, 9):  # of others it would make a copy
            image = ImageOps.exif_transpose(image)
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            rgb = Image.alpha_composite(white, image).convert("RGB")
        elif high_bit_depth == "scale" and image.mode.startswith("I"):
            levels = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
            rgb = Image.fromarray(np.rint(levels / 257).astype(np.uint8)).convert("RGB")
        else:
            rgb = image if image.mode in ("RGB", "RGBX") else image.convert("RGB")
    return Decoded(rgb, (rgb.height, rgb.width))


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(
            f"an array of {array.dtype} is not a picture; valid: uint8, 0..255, [H, W, 3]"
            + (
                " (multiply floats in 0..1 by 255, round and cast)"
                if array.dtype.kind == "f"
                else ""
            )
        )
    shape = array.shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"an array of shape {shape} is not a picture; valid: [H, W], [H, W, 1], [H, W, 3], "
            "[H, W, 4], channels last"
        )
    check_size(shape[:2], "the array")
    if len(shape) == 2 or shape[2] == 1:
        return Image.fromarray(array.reshape(shape[:2])).convert("RGB")
    if shape[2] == 4:
        # transformers blends arrays in float64, which Pillow's integer blend misses by 1 at times.
        alpha = array[..., 3:] / 255
        array = np.round(alpha * array[..., :3] + (1 - alpha) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))
