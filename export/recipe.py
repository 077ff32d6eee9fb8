"""How a precision stores weights and computes with them; which layers it leaves alone."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import OptionError

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Recipe:
    """One precision, as a graph is built in it.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        keep_fp32: names of linear layers that stay fp32, by their weight's name without `.weight`.
    """

    precision: str
    keep_fp32: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionError(f"precision is {self.precision!r}; valid: {', '.join(PRECISIONS)}")

    def keeping(self, layers: frozenset[str]) -> "Recipe":
        """The same recipe with more layers left in fp32."""
        return replace(self, keep_fp32=self.keep_fp32 | layers)

    def of(self, layer: str) -> str:
        """The precision of one linear layer."""
        return "fp32" if layer in self.keep_fp32 else self.precision

    def describe(self) -> dict[str, object]:
        """For the manifest."""
        words = {
            "fp32": "fp32 throughout",
            "fp16": "fp16 weights and activations, fp32 inputs and outputs",
            "int8": "MatMul with S8 weights per output channel, U8 activations scaled dynamically "
            "per tensor; token table S8 per row; the rest fp32",
        }
        return {"method": words[self.precision], "layers_kept_fp32": sorted(self.keep_fp32)}


def quantize_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale a column.

    Args:
        weight: float32 [K, N].

    Returns:
        int8 [K, N] in -127..127 and float32 [N], with `weight` close to their product. A column of
        zeros gets scale 1.
    """
    scales = np.abs(weight).max(axis=0, initial=0.0) / 127
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales
