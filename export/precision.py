"""How a precision stores weights and computes with them, and what it leaves alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from vlrt.bundle import FOR_CUDA
from vlrt.errors import OptionError

PRECISIONS = ("fp32", "fp16", "int8", "int8w", "int4w")
DEFAULT_PRECISIONS = ("fp32", "fp16", "int8")
# fp16 ends at 65,504. A layer that comes within a factor of 8 of that on the sample data is left in
# fp32: other data may go further, and products inside the next layer do.
FP16_LIMIT = 65504 / 8
# Those that run on other providers than ONNX Runtime's own for the CPU, which have none of its int8
# operators, and so are made in the forms for them (`vlrt.bundle.FORMS`).
IN_FORMS = ("fp32", "fp16")
# Of weights alone: how many bits, and how many numbers of a column share a scale. Smaller blocks
# cost 4 bytes each; four bits need them.
WEIGHT_ONLY = {"int8w": (8, 128), "int4w": (4, 32)}
# How much of the difference between the channels of an activation goes into the weights, from 0
# (none) to 1 (all): half of it, on a logarithmic scale, as in SmoothQuant (arXiv 2211.10438).
SMOOTHING = 0.5
# Channels that are quieter than this share of the median count as if they were not: on other data
# they may well speak up, and what they were divided by would carry them out of range.
QUIET = 0.01


@dataclass(frozen=True, eq=False)
class Channels:
    """What the channels of an activation were on sample data.

    Attributes:
        low, high: float32 [K], the lowest and the highest number in each.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @property
    def peaks(self) -> NDArray[np.float32]:
        """The largest magnitude in each channel, float32 [K]."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def divided(self, divisor: NDArray[np.float32] | float) -> "Channels":
        """The same, divided by positive numbers, [K]."""
        return Channels(self.low / divisor, self.high / divisor)

    def joined(self, other: "Channels") -> "Channels":
        """What they were on the data of both."""
        return Channels(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


@dataclass(frozen=True, eq=False)
class Recipe:
    """One precision, as a graph is built in it.

    Attributes:
        precision: one of PRECISIONS.
        keep_fp32: the linear layers that stay fp32: their weights' names without `.weight`, with a
            `+` between those that are one product, or patterns of them such as `box_head.*`.
        calibration: layer -> what it takes; int8 has its scales from there. None for scales of
            each batch's own.
        smoothed: the layers whose input is divided, channel by channel, by a product of its own,
            because no LayerNorm stands in front that could do it for nothing. Needs `calibration`.
        weight_bits: of int8 weights, 8, or 7, whose products cannot overflow on x86 CPUs without
            VNNI.
        form: "", or one of `vlrt.bundle.FORMS`: "portable", with plain operators alone, for engines
            behind ONNX Runtime that do not know the fused ones, or know them apart; "cuda", with
            those that are fast on CUDA, where no node is left to the CPU and pictures are bytes.
    """

    precision: str
    keep_fp32: frozenset[str] = frozenset()
    calibration: Mapping[str, Channels] | None = None
    smoothed: frozenset[str] = frozenset()
    weight_bits: int = 8
    form: str = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionError(f"precision is {self.precision!r}; valid: {', '.join(PRECISIONS)}")

    @property
    def for_cuda(self) -> bool:
        """Whether it is of the form for CUDA."""
        return self.form == FOR_CUDA

    def keeping(self, layers: frozenset[str]) -> "Recipe":
        """The same recipe with more layers left in fp32."""
        return replace(self, keep_fp32=self.keep_fp32 | layers, smoothed=self.smoothed - layers)

    def of(self, layer: str) -> str:
        """The precision of one linear layer."""
        kept = any(fnmatchcase(layer, pattern) for pattern in self.keep_fp32)
        return "fp32" if kept else self.precision

    def channels(self, layer: str) -> Channels | None:
        """What a layer takes, or None if that is not known."""
        return None if self.calibration is None else self.calibration[layer]

    def more_than(self, other: "Recipe") -> str:
        """What it does for exactness that another recipe does not, in words."""
        parts = [
            f"{words} {', '.join(sorted(layers))}"
            for words, layers in (
                ("in fp32", self.keep_fp32 - other.keep_fp32),
                ("smoothed", self.smoothed - other.smoothed),
            )
            if layers
        ]
        return "; ".join(parts) or "the same"

    def describe(self, weights: Sequence[str]) -> dict[str, object]:
        """For the manifest.

        Args:
            weights: the layers and tables of the graph, as `Products.weights` names them.
        """
        kept = [name for name in weights if self.of(name) != self.precision]
        bits = {"fp32": 32, "fp16": 16, "int8": self.weight_bits}
        known = self.calibration is not None
        scales = ("static" if known else "dynamic") if self.precision == "int8" else None
        return {
            "method": self._method(),
            "weight_bits": bits.get(self.precision) or WEIGHT_ONLY[self.precision][0],
            "scales": scales,
            "layers_kept_fp32": sorted(kept),
            "layers_smoothed": sorted(self.smoothed),
        }

    def _method(self) -> str:
        if self.precision == "int8":
            scaled = "dynamically per tensor" if self.calibration is None else "by calibration"
            return (
                f"MatMul with S{self.weight_bits} weights per output channel, U8 activations "
                f"scaled {scaled}, smoothed through LayerNorm; token table S8 per row; the rest "
                "fp32"
            )
        if self.precision in WEIGHT_ONLY:
            bits, block = WEIGHT_ONLY[self.precision]
            return (
                f"MatMulNBits with weights of {bits} bits in blocks of {block}, activations S8 by "
                "blocks within it; token table S8 per row; the rest fp32"
            )
        return {
            "fp32": "fp32 throughout",
            "fp16": "fp16 weights and activations, fp32 inputs and outputs",
        }[self.precision]


def smoothing(
    peaks: NDArray[np.float32], weight: NDArray[np.float32], strength: float = SMOOTHING
) -> NDArray[np.float32]:
    """What to divide each channel of an activation by, and multiply its row of weights by.

    The product stays what it is, and channels that stand out, which would take the range of an int8
    activation for themselves, do so less (SmoothQuant, arXiv 2211.10438, equation 4).

    Args:
        peaks: float32 [K], the largest magnitude of each channel.
        weight: float32 [K, N].
        strength: see SMOOTHING.

    Returns:
        float32 [K], positive, with a geometric mean of 1. Ones where half of the channels are 0
        throughout, or half of their weights are.
    """
    rows = np.abs(weight).max(axis=1, initial=0.0)
    least = QUIET * np.median(peaks), QUIET * np.median(rows)
    if not (min(least) >= np.finfo(np.float32).tiny and np.isfinite(least).all()):
        return np.ones_like(peaks)
    logs = strength * np.log(np.maximum(peaks, least[0]))
    logs -= (1 - strength) * np.log(np.maximum(rows, least[1]))
    divisors: NDArray[np.float32] = np.exp(logs - logs.mean()).astype(np.float32)
    return divisors


def quantize_columns(
    weight: NDArray[np.float32], bits: int = 8
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale a column.

    Args:
        weight: float32 [K, N].
        bits: 8 for -127..127, 7 for -63..63.

    Returns:
        int8 [K, N] and float32 [N], with `weight` close to their product. A column of zeros gets
        scale 1.
    """
    scales = _steps(np.abs(weight).max(axis=0, initial=0.0), 2 ** (bits - 1) - 1)
    return np.rint(weight / scales).astype(np.int8), scales


def affine(low: float, high: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The scale and zero point, [], with which uint8 stands for `low` to `high`, and for 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = _steps(np.array(high - low), 255)
    return scale, np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)


def quantize_blocks(
    weight: NDArray[np.float32], bits: int, block: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Weights of a few bits, as ONNX Runtime's MatMulNBits takes them.

    Args:
        weight: float32 [K, N].
        bits: 4 or 8.
        block: how many numbers of a column share a scale and a zero point.

    Returns:
        uint8 [N, K / block, block * bits / 8], K rounded up to whole blocks; float32 scales
        [N, K / block]; and uint8 zero points [N, (K / block) * bits / 8 rounded up]. Of four bits,
        two share a byte, the first in its lower half.
    """
    levels = 2**bits - 1
    blocks = -(-len(weight) // block)
    columns = np.pad(weight.T, ((0, 0), (0, blocks * block - len(weight))))
    columns = columns.reshape(len(columns), blocks, block)
    low = np.minimum(columns.min(axis=-1), 0)
    high = np.maximum(columns.max(axis=-1), 0)
    scales = _steps(high - low, levels)
    zeros = np.rint(-low / scales)
    numbers = np.clip(np.rint(columns / scales[..., None]) + zeros[..., None], 0, levels)
    return _packed(numbers, bits), scales, _packed(zeros, bits)


def _steps(spans: NDArray[np.floating], levels: int) -> NDArray[np.float32]:
    """Spans cut into so many steps; 1 for those too small for float32 to divide by."""
    steps = (spans / levels).astype(np.float32)
    return np.where(steps >= np.finfo(np.float32).tiny, steps, np.float32(1))


def _packed(numbers: NDArray[np.floating], bits: int) -> NDArray[np.uint8]:
    """Whole numbers as bytes; of four bits two in each, along the last axis."""
    small = numbers.astype(np.uint8)
    if bits == 8:
        return small
    if small.shape[-1] % 2:
        small = np.concatenate([small, np.zeros_like(small[..., :1])], axis=-1)
    return small[..., 0::2] | (small[..., 1::2] << np.uint8(4))
