"""The levels 0..255 of RGB pictures to what a graph takes of them.

That is float32 values, bit for bit those of transformers, or the levels themselves, for graphs that
make the values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt import pinned

Values = NDArray[np.float32]
# Pictures as a graph takes them: float32 [3, H, W], or uint8 [H, W, 3].
Pixels: TypeAlias = NDArray[Any]


def takes_bytes(info: Mapping[str, Any]) -> bool:
    """Whether a model's graphs take pictures as bytes, by what `vlrt.load` found."""
    return info.get("pixels") == "uint8"


class Layout(Protocol):
    """How pictures that are resized are written for a graph."""

    def empty(self, size_hw: tuple[int, int], number: int | None = None) -> Pixels:
        """Room for a picture of (height, width), or for so many of them along a first axis."""

    def into(self, image: Image.Image, out: Pixels, left: int = 0) -> None:
        """Write an RGB or RGBX picture into a picture's room, from a column on, at full height."""


@dataclass(frozen=True, eq=False)
class Levels:
    """The value that each level of each channel becomes.

    The table says it. Arithmetic in float32 is twice as fast as looking up, and is used where it
    gives that very table, as it does for every checkpoint we know.

    Attributes:
        table: float32 [3, 256].
        divisor, mean, std: float32 scalar, [3, 1] and [3, 1] such that the table is
            `(level / divisor - mean) / std`, rounded to float32 at every step; or `divisor` is
            None, as there is no such way.
    """

    table: Values
    divisor: np.float32 | None
    mean: Values
    std: Values

    @classmethod
    def of(cls, factor: float | None, mean: Values, std: Values) -> "Levels":
        """Rescaling and normalising, in the very arithmetic of transformers.

        That is float64 for the rescale, rounded to float32, then float32 for mean and deviation.

        Args:
            factor: what levels are multiplied by, or None for levels as they are.
            mean, std: float32 [3, 1], taken off and divided by.
        """
        levels = np.arange(256, dtype=np.float64)
        rescaled = (levels if factor is None else levels * factor).astype(np.float32)
        # A factor is one over a whole number as a rule; 0 and the smallest have no inverse.
        divisor = np.float32(1 if factor is None else 1 / factor if abs(factor) > 1e-30 else 0)
        same = divisor != 0 and np.array_equal(levels.astype(np.float32) / divisor, rescaled)
        return cls((rescaled - mean) / std, divisor if same else None, mean, std)

    def empty(self, size_hw: tuple[int, int], number: int | None = None) -> Pixels:
        """Room for a picture, float32 [3, H, W], or for so many, [N, 3, H, W]."""
        return np.empty((*(() if number is None else (number,)), 3, *size_hw), np.float32)

    def into(self, image: Image.Image, out: Pixels, left: int = 0) -> None:
        """Rescale and normalise an RGB or RGBX picture into `out`, float32 [3, H, W]."""
        for channel, values in enumerate(out[..., left : left + image.width]):
            # A plane at a time: Pillow takes pixels apart faster than NumPy strides through them.
            levels = np.asarray(image.getchannel(channel))
            if self.divisor is None:
                np.take(self.table[channel], levels, out=values, mode="clip")
                continue
            # `out` may be a few columns of a picture, and only the last step has to stride there.
            scaled = np.divide(levels, self.divisor, dtype=np.float32)
            scaled -= self.mean[channel]
            np.divide(scaled, self.std[channel], out=values)


@dataclass(frozen=True)
class Bytes:
    """The levels themselves, for graphs that rescale and normalise: a quarter of the memory.

    Where they go to a GPU, they are written to memory that it can fetch them from (see
    `vlrt.pinned`).
    """

    def empty(self, size_hw: tuple[int, int], number: int | None = None) -> Pixels:
        """Room for a picture, uint8 [H, W, 3], or for so many, [N, H, W, 3]."""
        return pinned.empty((*(() if number is None else (number,)), *size_hw, 3), np.uint8)

    def into(self, image: Image.Image, out: Pixels, left: int = 0) -> None:
        """Write an RGB or RGBX picture into `out`, uint8 [H, W, 3]."""
        out[:, left : left + image.width] = np.asarray(image)[..., :3]
