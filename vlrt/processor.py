"""RGB pictures to `pixel_values`, bit for bit as transformers 5.x makes them.

The reference is its PIL image processors (`transformers/image_processing_backends.py`,
`PilBackend`); its torchvision backend differs from both by about 1/255.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt.errors import BundleError
from vlrt.files import Settings
from vlrt.image import check_size


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
        check_size((height, width), f"the {image.width}x{image.height} picture, once resized,")
        if self.size is not None:
            image = image.resize((width, height), resample=Image.Resampling(self.resample))
        if self.crop_hw is not None:
            crop_h, crop_w = self.crop_hw
            top, left = (height - crop_h) // 2, (width - crop_w) // 2
            # Black where the crop is larger than the picture, as transformers pads.
            image = image.crop((left, top, left + crop_w, top + crop_h))
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
