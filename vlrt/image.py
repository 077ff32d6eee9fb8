"""Pictures: decoding them safely, and turning them into a model's `pixel_values`.

The pixels agree bit for bit with transformers 5.x and its PIL image processors
(`transformers/image_processing_backends.py`, `PilBackend`); its torchvision backend differs from
both by about 1/255.
"""

import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vlrt.bundle import Settings
from vlrt.errors import BundleError, ImageError, OptionError

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
# the model's shorter side. At 1 the embedding error doubles; above 2 little is gained.
FAST_DECODE_MARGIN = 2
ORIENTATION = 0x0112  # the EXIF tag


class Decoded(NamedTuple):
    """A picture ready for an image processor, and the (height, width) that its file states."""

    image: Image.Image
    original_size_hw: tuple[int, int]


def load_image(source: ImageInput, *, high_bit_depth: str = "clip") -> Image.Image:
    """Read a picture as RGB, upright.

    Rules, the same as those of transformers' `load_image` and `convert_to_rgb`:

    - The EXIF orientation is applied.
    - Alpha, in any mode or as a palette's transparency, is blended onto white.
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
    return decode(source, high_bit_depth=high_bit_depth).image


def decode(
    source: ImageInput, *, high_bit_depth: str = "clip", shorter_side: int | None = None
) -> Decoded:
    """Do what `load_image` does, keeping the original size.

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
        except Exception as error:
            raise ImageError(f"{name} is not a picture that Pillow can read: {error}") from error
        size_hw = (image.height, image.width)
        _check_size(size_hw, name)
        if shorter_side is not None:
            target = shorter_side * FAST_DECODE_MARGIN
            image.draft(None, (target, target))
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


def _check_size(size_hw: tuple[int, int], name: str) -> None:
    pixels = size_hw[0] * size_hw[1]
    if pixels == 0:
        raise ImageError(f"{name} has no pixels: {size_hw[1]}x{size_hw[0]}")
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{name} is too large: {size_hw[1]}x{size_hw[0]} is {pixels} pixels; the limit, "
            f"PIL.Image.MAX_IMAGE_PIXELS, is {Image.MAX_IMAGE_PIXELS}"
        )


def _to_rgb(image: Image.Image, name: str, high_bit_depth: str) -> Decoded:
    _check_size((image.height, image.width), name)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            rgb = Image.alpha_composite(white, image).convert("RGB")
        elif high_bit_depth == "scale" and image.mode.startswith("I"):
            levels = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
            rgb = Image.fromarray(np.rint(levels / 257).astype(np.uint8)).convert("RGB")
        else:
            rgb = image.convert("RGB")
    except Exception as error:
        raise ImageError(f"{name} cannot be decoded: {error}") from error
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
    _check_size(shape[:2], "the array")
    if len(shape) == 2 or shape[2] == 1:
        return Image.fromarray(array.reshape(shape[:2])).convert("RGB")
    if shape[2] == 4:
        # transformers blends arrays in float64, which Pillow's integer blend misses by 1 at times.
        alpha = array[..., 3:] / 255
        array = np.round(alpha * array[..., :3] + (1 - alpha) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


@dataclass(frozen=True, eq=False)
class ImageProcessor:
    """Resize, centre-crop, rescale and normalise, as a `preprocessor_config.json` says.

    Agrees bit for bit with `transformers.CLIPImageProcessorPil`.

    Attributes:
        size: {"shortest_edge": n}, {"height": h, "width": w}, or None for no resize.
        resample: Pillow's filter number.
        crop_hw: (height, width) of the centre crop, or None.
        table: float32 [3, 256], the value that each uint8 level of each channel becomes. Rescaling
            and normalising are one look-up, in the very arithmetic of transformers: float64 for the
            rescale, rounded to float32, then float32 for mean and deviation.
    """

    size: dict[str, int] | None
    resample: int
    crop_hw: tuple[int, int] | None
    table: NDArray[np.float32]

    @classmethod
    def from_settings(cls, settings: Settings) -> "ImageProcessor":
        """Read the settings, old style (integer `size`) or new.

        Older files leave `do_rescale` and `rescale_factor` unsaid; by their definition
        (transformers before 4.21) that means 1/255. Nothing else has a default.

        Raises:
            BundleError: a value that is needed is missing or of an unknown form.
        """
        size = _size(settings, "size") if settings.need("do_resize") else None
        crop = _size(settings, "crop_size") if settings.need("do_center_crop") else None
        if crop is not None and set(crop) == {"shortest_edge"}:
            crop = dict.fromkeys(("height", "width"), crop["shortest_edge"])
        levels = np.tile(np.arange(256, dtype=np.float64), (3, 1))
        if settings.get("do_rescale", True):
            levels *= _number(settings, "rescale_factor", 1 / 255)
        table = levels.astype(np.float32)
        if settings.need("do_normalize"):
            mean, std = (_per_channel(settings, key) for key in ("image_mean", "image_std"))
            if not std.all():
                raise BundleError(
                    f"{settings.file}: image_std is {settings['image_std']!r}, with a 0"
                )
            table = (table - mean) / std
        return cls(
            size=size,
            resample=_resample(settings) if size else 0,
            crop_hw=(crop["height"], crop["width"]) if crop else None,
            table=table,
        )

    @property
    def output_hw(self) -> tuple[int, int]:
        """(height, width) of every result.

        Raises:
            BundleError: the settings let the size vary with the picture.
        """
        if self.crop_hw is not None:
            return self.crop_hw
        if self.size is not None and "height" in self.size:
            return self.size["height"], self.size["width"]
        raise BundleError(
            "preprocessor_config.json fixes no output size: no crop, no height, width"
        )

    @property
    def shorter_side(self) -> int:
        """Pixels along the shorter side after resizing, which a fast decode must not undercut."""
        return min(self.size.values()) if self.size else min(self.output_hw)

    def resized_hw(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a picture is resized to before the crop."""
        if self.size is None:
            return height, width
        if "height" in self.size:
            return self.size["height"], self.size["width"]
        edge = self.size["shortest_edge"]
        longer = int(edge * max(height, width) / min(height, width))
        return (longer, edge) if width <= height else (edge, longer)

    def into(self, image: Image.Image, out: NDArray[np.float32]) -> None:
        """Process one RGB picture into a slot of a batch.

        Args:
            image: mode RGB, any size.
            out: float32 [3, H, W], contiguous, with (H, W) equal to `output_hw`; overwritten.

        Raises:
            ImageError: the picture is so elongated that resizing it would pass the pixel limit.
        """
        height, width = self.resized_hw(image.height, image.width)
        _check_size((height, width), f"the {image.width}x{image.height} picture, once resized,")
        if self.size is not None:
            image = image.resize((width, height), resample=Image.Resampling(self.resample))
        if self.crop_hw is not None:
            crop_h, crop_w = self.crop_hw
            top, left = (height - crop_h) // 2, (width - crop_w) // 2
            image = image.crop(
                (left, top, left + crop_w, top + crop_h)
            )  # black outside, as HF pads
        pixels = np.asarray(image)
        for channel in range(3):
            np.take(self.table[channel], pixels[..., channel], out=out[channel], mode="clip")

    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Process RGB pictures to `pixel_values`, float32 [N, 3, H, W]."""
        batch = np.empty((len(images), 3, *self.output_hw), np.float32)
        for image, slot in zip(images, batch, strict=True):
            self.into(image, slot)
        return batch


def _size(settings: Settings, key: str) -> dict[str, int]:
    value = settings.need(key)
    if isinstance(value, int):
        size = {"shortest_edge": value}
    elif isinstance(value, list) and len(value) == 2:
        size = dict(zip(("height", "width"), value, strict=True))
    else:
        size = value if isinstance(value, dict) else {}
    if set(size) in ({"shortest_edge"}, {"height", "width"}) and all(
        isinstance(pixels, int) and pixels > 0 for pixels in size.values()
    ):
        return size
    raise BundleError(
        f"{settings.file}: {key} is {value!r}; valid: a positive integer, [height, width], "
        '{"shortest_edge": n} or {"height": h, "width": w}'
    )


def _resample(settings: Settings) -> int:
    value = settings.need("resample")
    try:
        return int(Image.Resampling(value))
    except ValueError:
        valid = ", ".join(f"{filter_.value} ({filter_.name})" for filter_ in Image.Resampling)
        raise BundleError(f"{settings.file}: resample is {value!r}; valid: {valid}") from None


def _number(settings: Settings, key: str, default: float) -> float:
    value = settings.get(key, default)
    if not isinstance(value, int | float):
        raise BundleError(f"{settings.file}: {key} is {value!r}, not a number")
    return value


def _per_channel(settings: Settings, key: str) -> NDArray[np.float32]:
    value = settings.need(key)
    try:
        numbers = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        numbers = np.empty(0, np.float32)
    if numbers.shape not in ((), (3,)):
        raise BundleError(f"{settings.file}: {key} is {value!r}; valid: 3 numbers, or one")
    return np.broadcast_to(numbers, (3,))[:, None]
