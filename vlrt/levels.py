"""The levels 0..255 of RGB pictures to the float32 values that a model takes, bit for bit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Values = NDArray[np.float32]


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

    def into(self, image: Image.Image, out: Values) -> None:
        """Rescale and normalise an RGB or RGBX picture of H x W into `out`, float32 [3, H, W]."""
        for channel, values in enumerate(out):
            # A plane at a time: Pillow takes pixels apart faster than NumPy strides through them.
            levels = np.asarray(image.getchannel(channel))
            if self.divisor is None:
                np.take(self.table[channel], levels, out=values, mode="clip")
                continue
            # `out` may be a few columns of a picture, and only the last step has to stride there.
            scaled = np.divide(levels, self.divisor, dtype=np.float32)
            scaled -= self.mean[channel]
            np.divide(scaled, self.std[channel], out=values)
