"""RGB pictures to `pixel_values` that keep their shape, as ViLT wants them.

The reference is transformers' `models/vilt/image_processing_pil_vilt.py`, with which all here
agrees bit for bit. Pictures of one batch are padded to the largest of them, and a mask tells the
picture from the padding. Padding costs as much as pictures do, so batches are made of like shapes.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt.errors import BundleError, ImageError
from vlrt.files import Settings
from vlrt.image import check_size
from vlrt.levels import Bytes, Layout, Pixels
from vlrt.processor import read_levels, read_resample, read_size
from vlrt.resize import resize

Shape: TypeAlias = tuple[int, int]

# The longer side is at most 1333/800 of the shorter one: what is usual in COCO, says transformers.
_LONGER_TO_SHORTER = 1333 / 800
# The type of the mask beside pictures of a type, as transformers has it and as it is small.
_MASKS = {np.dtype(np.float32): np.int64, np.dtype(np.uint8): np.uint8}
# The share of a batch that may be padding: shapes that differ in one step of 32 pixels share a run.
MOST_PADDING = 0.1


@dataclass(frozen=True, eq=False)
class RaggedProcessor:
    """Resize near to the picture's own shape, rescale, normalise and, in a batch, pad.

    Agrees bit for bit with `transformers.ViltImageProcessorPil`.

    Attributes:
        shorter_side: pixels along the shorter side, where the longer one does not pass its limit.
        size_divisor: both sides are cut to a multiple of this many pixels.
        resample: Pillow's filter number.
        levels: the value that each uint8 level of each channel becomes; or `Bytes`, for a graph
            that takes the levels themselves.
    """

    shorter_side: int
    size_divisor: int
    resample: int
    levels: Layout

    @classmethod
    def from_settings(cls, settings: Settings) -> "RaggedProcessor":
        """Read the settings; an integer `size` means the shorter side.

        Older files leave `do_pad`, `do_rescale` and `rescale_factor` unsaid; by their definition
        that means to pad, and 1/255. Nothing else has a default.

        Raises:
            BundleError: a value that is needed is missing or of an unknown form, or the settings
                turn a step off that defines this processing.
        """
        settings.need("do_resize")
        for key in ("do_resize", "do_pad"):
            if settings.get(key) not in (None, True):
                raise BundleError(
                    f"{settings.file}: {key} is {settings[key]!r}; only true is supported"
                )
        size = read_size(settings, "size", default_to_square=False)
        if "shortest_edge" not in size:
            raise BundleError(
                f"{settings.file}: size is {settings['size']!r}; valid: a positive integer or "
                '{"shortest_edge": n}'
            )
        divisor = settings.need("size_divisor")
        whole = isinstance(divisor, int) and not isinstance(divisor, bool)
        if not whole or not 1 <= divisor <= size["shortest_edge"]:
            raise BundleError(
                f"{settings.file}: size_divisor is {divisor!r}; valid: a whole number from 1 to "
                f"the shorter side, {size['shortest_edge']}"
            )
        return cls(
            shorter_side=size["shortest_edge"],
            size_divisor=divisor,
            resample=read_resample(settings),
            levels=read_levels(settings),
        )

    def resized_hw(self, height: int, width: int) -> Shape:
        """The (height, width) that a picture is resized to, both multiples of `size_divisor`.

        Raises:
            ImageError: the picture is so elongated that nothing would be left of a side.
        """
        # The very steps of transformers, since each of them rounds.
        longest = int(_LONGER_TO_SHORTER * self.shorter_side)
        scale = self.shorter_side / min(height, width)
        sides: tuple[float, float] = (self.shorter_side, scale * width)
        if height >= width:
            sides = (scale * height, self.shorter_side)
        if max(sides) > longest:
            scale = longest / max(sides)
            sides = (scale * sides[0], scale * sides[1])
        resized_h, resized_w = (
            int(side + 0.5) // self.size_divisor * self.size_divisor for side in sides
        )
        if not resized_h or not resized_w:
            raise ImageError(
                f"the {width}x{height} picture is too elongated: with a longer side of {longest} "
                f"pixels, its shorter side would have less than {self.size_divisor}; valid: up to "
                f"about {longest / (self.size_divisor - 0.5):.0f} to 1"
            )
        check_size((resized_h, resized_w), f"the {width}x{height} picture, once resized,")
        return resized_h, resized_w

    def as_bytes(self) -> "RaggedProcessor":
        """The same for graphs that rescale and normalise: pictures are uint8 [H, W, 3]."""
        return replace(self, levels=Bytes())

    def pixels(
        self, image: Image.Image, original_size_hw: Shape | None = None, threads: int = 1
    ) -> Pixels:
        """Process one picture.

        Args:
            image: mode RGB or RGBX, any size.
            original_size_hw: its (height, width) before a fast decode made it smaller, which
                decides its shape; its own by default.
            threads: in how many to resize a picture that is not small.

        Returns:
            float32 [3, H, W] or uint8 [H, W, 3], not padded.

        Raises:
            ImageError: the picture is too elongated.
        """
        shape = self.resized_hw(*(original_size_hw or (image.height, image.width)))
        out = self.levels.empty(shape)

        def use(strip: Image.Image, left: int) -> None:
            self.levels.into(strip, out, left)

        resize(image, shape, self.resample, use, threads=threads)
        return out

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, NDArray[Any]]:
        """Process RGB pictures to all that a graph takes of them (see `padded`)."""
        return self.batch([self.pixels(image) for image in images])

    def batch(self, pictures: Sequence[Pixels]) -> dict[str, NDArray[Any]]:
        """Pad pictures to the largest of them, at the bottom and on the right.

        Args:
            pictures: what `pixels` made, each. One alone is not copied.

        Returns:
            `pixel_values`, float32 [N, 3, H, W] or uint8 [N, H, W, 3], 0 where there is no picture,
            and `pixel_mask`, int64 or uint8 [N, H, W], 1 where there is one; H and W are 0 for no
            pictures.
        """
        shapes = [size_hw(pixels) for pixels in pictures]
        height, width = (max((shape[axis] for shape in shapes), default=0) for axis in (0, 1))
        if len(pictures) == 1:
            values = pictures[0][np.newaxis]
        else:
            values = self.levels.empty((height, width), len(pictures))
            values[:] = 0
        mask = np.zeros((len(pictures), height, width), _MASKS[values.dtype])
        for pixels, (h, w), slot, seen in zip(pictures, shapes, values, mask, strict=True):
            if len(pictures) > 1:
                room = slot[:h, :w] if pixels.dtype == np.uint8 else slot[:, :h, :w]
                room[:] = pixels
            seen[:h, :w] = 1
        return {"pixel_values": values, "pixel_mask": mask}


def size_hw(pixels: Pixels) -> Shape:
    """The (height, width) of what `RaggedProcessor.pixels` made."""
    height, width = pixels.shape[:2] if pixels.dtype == np.uint8 else pixels.shape[1:]
    return height, width


def batches_by_shape(
    shapes: Iterable[Shape], batch_size: int, most_padding: float = MOST_PADDING
) -> list[list[int]]:
    """Put pictures into batches such that little is padded.

    Pictures of one shape go together as far as they fill batches. What remains of each shape is
    put together with others while padding stays below its limit.

    Args:
        shapes: (height, width) of each picture.
        batch_size: pictures in a batch, at the most.
        most_padding: the share of a batch, 0..1, that may be padding.

    Returns:
        Positions of pictures, each in one batch.
    """
    alike: dict[Shape, list[int]] = defaultdict(list)
    for position, shape in enumerate(shapes):
        alike[shape].append(position)
    full: list[list[int]] = []
    rest: list[tuple[Shape, list[int]]] = []
    for shape, positions in sorted(alike.items()):
        whole = len(positions) // batch_size * batch_size
        full += [positions[at : at + batch_size] for at in range(0, whole, batch_size)]
        if positions[whole:]:
            rest.append((shape, positions[whole:]))
    mixed: list[list[tuple[Shape, list[int]]]] = []
    for group in rest:
        joined = [*mixed[-1], group] if mixed else [group]
        fits = sum(len(positions) for _, positions in joined) <= batch_size
        if mixed and fits and _padding(joined) <= most_padding:
            mixed[-1] = joined
        else:
            mixed.append([group])
    return full + [[position for _, group in batch for position in group] for batch in mixed]


def _padding(groups: Sequence[tuple[Shape, Sequence[int]]]) -> float:
    """The share of a batch that would be padding."""
    number = sum(len(positions) for _, positions in groups)
    height, width = (max(shape[axis] for shape, _ in groups) for axis in (0, 1))
    seen = sum(h * w * len(positions) for (h, w), positions in groups)
    return 1 - seen / (number * height * width)
