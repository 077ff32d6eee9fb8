"""How a precision stores weights and computes with them, what it leaves alone, and its gate."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import OptionError

PRECISIONS = ("fp32", "fp16", "int8")
# fp16 ends at 65,504. A layer that comes within a factor of 8 of that on the sample data is left in
# fp32: other data may go further, and products inside the next layer do.
FP16_LIMIT = 65504 / 8


@dataclass(frozen=True)
class Gate:
    """What a variant must reach, against the reference, to be written.

    Attributes:
        max_abs_error: of embeddings scaled to length 1, and of other outputs, scaled where their
            largest is over 1; or None for no limit.
        min_cosine: the lowest over all embeddings; None for a task that has none.
        min_agreement: the share of results that are the same, as the family counts them.
    """

    max_abs_error: float | None
    min_cosine: float | None
    min_agreement: float


# Logits are all that a joint model gives. Where answers are nearly even, as with seeded weights,
# agreement says little, so that errors have limits in every precision, as shares of the largest
# logit. Seeded B/32 of 3,129 answers: 6e-4 in fp16 and 0.022 in int8; checkpoints of two layers:
# up to 2e-3 and 0.04. Trained weights are less even, and int8 hits them harder.
_JOINT = {
    "fp32": Gate(max_abs_error=1e-4, min_cosine=None, min_agreement=1.0),
    "fp16": Gate(max_abs_error=1e-2, min_cosine=None, min_agreement=0.99),
    "int8": Gate(max_abs_error=0.2, min_cosine=None, min_agreement=0.95),
}
# By task, for a result of one kind does not forgive what a result of another does.
GATES = {
    "zero-shot-image-classification": {
        "fp32": Gate(max_abs_error=1e-4, min_cosine=0.999999, min_agreement=1.0),
        "fp16": Gate(max_abs_error=None, min_cosine=0.9999, min_agreement=0.99),
        "int8": Gate(max_abs_error=None, min_cosine=0.995, min_agreement=0.99),
    },
    "zero-shot-object-detection": {
        "fp32": Gate(max_abs_error=1e-4, min_cosine=0.999999, min_agreement=1.0),
        "fp16": Gate(max_abs_error=None, min_cosine=0.999, min_agreement=0.99),
        "int8": Gate(max_abs_error=None, min_cosine=0.95, min_agreement=0.95),
    },
    **dict.fromkeys(
        (
            "visual-question-answering",
            "image-text-retrieval",
            "images-and-text-classification",
            "fill-mask",
        ),
        _JOINT,
    ),
}


@dataclass(frozen=True)
class Recipe:
    """One precision, as a graph is built in it.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        keep_fp32: the linear layers that stay fp32: their weights' names without `.weight`, or
            patterns of them such as `box_head.*`.
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
        kept = any(fnmatchcase(layer, pattern) for pattern in self.keep_fp32)
        return "fp32" if kept else self.precision

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
