"""RGB pictures to `pixel_values`, bit for bit as transformers 5.x makes them.

The reference is its PIL image processors (`transformers/image_processing_backends.py`,
`PilBackend`); its torchvision backend differs from both by about 1/255.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt.errors import BundleError
from vlrt.files import Settings
from vlrt.image import check_size
from vlrt.levels import Bytes, Layout, Levels, Pixels
from vlrt.resize import resize


class Processor(Protocol):
    """What the families and `vlrt.stream` ask of an image processor. Safe to share by threads."""

    @property
    def output_hw(self) -> tuple[int, int]:
        """(height, width) of every result."""

    @property
    def shorter_side(self) -> int:
        """Pixels along the shorter side that a fast decode must not undercut."""

    def as_bytes(self) -> "Processor":
        """The same for graphs that rescale and normalise themselves.

        Raises:
            BundleError: no graph of such a processor's does.
        """

    def empty(self, number: int) -> Pixels:
        """Room for so many results."""

    def into(self, image: Image.Image, out: Pixels, threads: int = 1) -> None:
        """Process one RGB or RGBX picture into `out`, one of a room's, in so many threads."""

    def __call__(self, images: Sequence[Image.Image]) -> Pixels:
        """Process RGB pictures to `pixel_values`, float32 [N, 3, H, W] or uint8 [N, H, W, 3]."""

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, NDArray[Any]]:
        """Process RGB pictures to all that a graph takes of them, by input name."""

    def to_pixels(
        self, boxes: NDArray[np.float32], size_hw: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Boxes of the model's input to pixels of the picture.

        Args:
            boxes: float32 [..., 4], (x0, y0, x1, y1), 0..1 across what the model saw.
            size_hw: (height, width) of the picture that was processed, in pixels.

        Returns:
            float32 [..., 4], (x0, y0, x1, y1) in pixels, not clipped.
        """


@dataclass(frozen=True, eq=False)
class ImageProcessor:
    """Resize, centre-crop, rescale and normalise, as a `preprocessor_config.json` says.

    Agrees bit for bit with `transformers.CLIPImageProcessorPil` and `OwlViTImageProcessorPil`.

    Attributes:
        size: {"shortest_edge": n}, {"height": h, "width": w}, or None for no resize.
        resample: Pillow's filter number.
        crop_hw: (height, width) of the centre crop, or None.
        levels: the value that each uint8 level of each channel becomes; or `Bytes`, for a graph
            that takes the levels themselves.
    """

    size: dict[str, int] | None
    resample: int
    crop_hw: tuple[int, int] | None
    levels: Layout

    @classmethod
    def from_settings(
        cls, settings: Settings, *, default_to_square: bool = False
    ) -> "ImageProcessor":
        """Read the settings, old style (integer `size`) or new.

        Older files leave `do_rescale` and `rescale_factor` unsaid; by their definition
        (transformers before 4.21) that means 1/255. Nothing else has a default.

        Args:
            settings: the content of `preprocessor_config.json`.
            default_to_square: an integer `size` means a square, as in OWL-ViT, and not the shorter
                side, as in CLIP. The files do not say; it belongs to the family.

        Raises:
            BundleError: a value that is needed is missing or of an unknown form.
        """
        size = (
            read_size(settings, "size", default_to_square) if settings.need("do_resize") else None
        )
        crop = read_size(settings, "crop_size", True) if settings.need("do_center_crop") else None
        if crop is not None and set(crop) == {"shortest_edge"}:
            crop = dict.fromkeys(("height", "width"), crop["shortest_edge"])
        return cls(
            size=size,
            resample=read_resample(settings) if size else 0,
            crop_hw=(crop["height"], crop["width"]) if crop else None,
            levels=read_levels(settings),
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

    def as_bytes(self) -> "ImageProcessor":
        """The same for graphs that rescale and normalise: it makes uint8 [N, H, W, 3]."""
        return replace(self, levels=Bytes())

    def empty(self, number: int) -> Pixels:
        """Room for so many results, float32 [N, 3, H, W] or uint8 [N, H, W, 3]."""
        return self.levels.empty(self.output_hw, number)

    def into(self, image: Image.Image, out: Pixels, threads: int = 1) -> None:
        """Process one picture into a slot of a batch.

        Args:
            image: mode RGB or RGBX, any size.
            out: float32 [3, H, W] or uint8 [H, W, 3], contiguous, with (H, W) equal to `output_hw`;
                overwritten.
            threads: in how many to resize a picture that is not small.

        Raises:
            ImageError: the picture is so elongated that resizing it would pass the pixel limit.
        """
        height, width = self.resized_hw(image.height, image.width)
        check_size((height, width), f"the {image.width}x{image.height} picture, once resized,")

        def use(strip: Image.Image, left: int) -> None:
            self.levels.into(strip, out, left)

        # Black where the crop is larger than the picture, as transformers pads.
        resize(image, (height, width), self.resample, use, crop_hw=self.crop_hw, threads=threads)

    def __call__(self, images: Sequence[Image.Image]) -> Pixels:
        """Process RGB pictures to `pixel_values`, float32 [N, 3, H, W] or uint8 [N, H, W, 3]."""
        return batch_of(self, images)

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, NDArray[Any]]:
        """Process RGB pictures to {"pixel_values": float32 [N, 3, H, W] or uint8 [N, H, W, 3]}."""
        return {"pixel_values": self(images)}

    def to_pixels(
        self, boxes: NDArray[np.float32], size_hw: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Boxes of the model's input to pixels of the picture (see `Processor.to_pixels`).

        Without a centre crop, or with one that takes all there is, this is `boxes * [w, h, w, h]`,
        as in transformers. A crop that does cut or pad is undone; transformers forgets it.
        """
        height, width = size_hw
        resized_hw = self.resized_hw(height, width)
        if self.crop_hw is None or self.crop_hw == resized_hw:
            return boxes * np.array([width, height] * 2, np.float32)
        (crop_h, crop_w), (resized_h, resized_w) = self.crop_hw, resized_hw
        top, left = (resized_h - crop_h) // 2, (resized_w - crop_w) // 2
        stretch = np.array([width / resized_w, height / resized_h] * 2)
        resized = boxes.astype(np.float64) * ([crop_w, crop_h] * 2) + [left, top, left, top]
        pixels: NDArray[np.float32] = (resized * stretch).astype(np.float32)
        return pixels


def batch_of(processor: Processor, images: Sequence[Image.Image]) -> Pixels:
    """Process RGB pictures one by one into one room; no pictures make N = 0."""
    batch = processor.empty(len(images))
    for image, slot in zip(images, batch, strict=True):
        processor.into(image, slot)
    return batch


def read_levels(settings: Settings) -> Levels:
    """The value that each uint8 level of each channel becomes, rescaled and normalised."""
    factor = read_rescale(settings)
    if settings.need("do_normalize"):
        return Levels.of(factor, *read_mean_std(settings))
    return Levels.of(factor, np.zeros((3, 1), np.float32), np.ones((3, 1), np.float32))


def read_size(settings: Settings, key: str, default_to_square: bool) -> dict[str, int]:
    """The size under `key`: {"shortest_edge": n} or {"height": h, "width": w}, all positive."""
    value = settings.need(key)
    if isinstance(value, int):
        keys = ("height", "width") if default_to_square else ("shortest_edge",)
        size = dict.fromkeys(keys, value)
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


def read_resample(settings: Settings) -> int:
    """Pillow's filter number."""
    value = settings.need("resample")
    try:
        return int(Image.Resampling(value))
    except ValueError:
        valid = ", ".join(f"{filter_.value} ({filter_.name})" for filter_ in Image.Resampling)
        raise BundleError(f"{settings.file}: resample is {value!r}; valid: {valid}") from None


def read_rescale(settings: Settings) -> float | None:
    """What levels are multiplied by, or None for levels as they are.

    The first OWL-ViT files on the hub say `rescale` where later ones say `do_rescale`.
    """
    key = "do_rescale" if settings.get("rescale") is None else "rescale"
    wanted = settings.get(key)
    if wanted is not None and not isinstance(wanted, bool):  # 0 and 1 equal bools, but are none
        raise BundleError(f"{settings.file}: {key} is {wanted!r}; valid: true, false")
    factor = settings.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or isinstance(factor, bool):
        raise BundleError(f"{settings.file}: rescale_factor is {factor!r}, not a number")
    return None if wanted is False else factor


def read_mean_std(settings: Settings) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of the channels, float32 [3, 1] each, the latter not 0."""
    mean, std = (_per_channel(settings, key) for key in ("image_mean", "image_std"))
    if not std.all():
        raise BundleError(f"{settings.file}: image_std is {settings['image_std']!r}, with a 0")
    return mean, std


def _per_channel(settings: Settings, key: str) -> NDArray[np.float32]:
    value = settings.need(key)
    try:
        numbers = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        numbers = np.empty(0, np.float32)
    if numbers.shape not in ((), (3,)):
        raise BundleError(f"{settings.file}: {key} is {value!r}; valid: 3 numbers, or one")
    return np.broadcast_to(numbers, (3,))[:, None]
