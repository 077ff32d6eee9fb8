"""Linear layers, and the LayerNorms in front of them, in the precision of a recipe."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .builder import CONTRIB, FLOAT, HALF, Builder
from .checkpoint import Checkpoint
from .precision import (
    WEIGHT_ONLY,
    Recipe,
    affine,
    quantize_blocks,
    quantize_columns,
    smoothing,
)

# Of MatMulNBits: activations become int8 too, block by block, while it computes. With fp32 ones it
# takes two to four times as long at 8 bits.
_INT8_ACCURACY = 4


class Products(Builder):
    """What a recipe decides upon: how products with weights are stored and computed."""

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe) -> None:
        super().__init__(checkpoint, recipe)
        self.tables: list[str] = []
        # What the channels of a value were divided by, so that int8 suits them better; whoever
        # takes the value has to multiply its weights by it.
        self._divisors: dict[str, NDArray[np.float32]] = {}

    def layer_norm(self, value: str, name: str, epsilon: float, *feeds: tuple[str, ...]) -> str:
        """LayerNorm with the weights under `name`; statistics are fp32 in every precision.

        Args:
            value: [..., D].
            name: of the LayerNorm.
            epsilon: added to the variance.
            feeds: the linear layers that take the result, each as `linear` takes its names, if
                nothing else does. Before int8, gains move from here to their weights, so that no
                channel stands out; the products stay the same.
        """
        kind = self._types[value]
        scale, bias = (self.weight(f"{name}.{part}") for part in ("weight", "bias"))
        divisor = self.balance(*feeds, magnitudes=np.hypot(scale, bias))
        if divisor is not None:
            scale, bias = scale / divisor, bias / divisor
        parts = (
            self.floats(array, f"{name}.{part}", kind)
            for array, part in ((scale, "weight"), (bias, "bias"))
        )
        normed = str(self.op("LayerNormalization", value, *parts, axis=-1, epsilon=epsilon))
        if divisor is not None:
            self._divisors[normed] = divisor
        return normed

    def balance(
        self, *feeds: tuple[str, ...], magnitudes: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32] | None:
        """What to divide the channels of a value by, float32 [K].

        Args:
            feeds: the linear layers that take it, as `layer_norm` takes them.
            magnitudes: float32 [K], what its channels are like, for want of calibration.

        Returns:
            None for nothing: no layer is int8, or it is not known what they take.
        """
        layers = ["+".join(names) for names in feeds]
        if not any(self.recipe.of(layer) == "int8" for layer in layers):
            return None
        seen = [found.peaks for found in map(self.recipe.channels, layers) if found is not None]
        peaks = np.max(seen, axis=0) if seen else magnitudes
        if peaks is None:
            return None
        weights = [self.packed_weight(names) for names in feeds]
        return smoothing(peaks, np.concatenate(weights, axis=1))

    def first_tokens(self, tokens: str, number: str) -> str:
        """The first so many (int64 [1]) of tokens [B, L, D]."""
        few = str(self.op("Slice", tokens, self.ints(0), number, self.ints(1)))
        if tokens in self._divisors:
            self._divisors[few] = self._divisors[tokens]
        return few

    def packed_weight(self, names: Sequence[str]) -> NDArray[np.float32]:
        """The weights of layers side by side, float32 [K, N]."""
        return np.concatenate([self.weight(f"{name}.weight") for name in names]).T

    def packed_bias(self, names: Sequence[str]) -> NDArray[np.float32] | None:
        """The biases of layers side by side, float32 [N], or None if they have none."""
        if not self.has(f"{names[0]}.bias"):
            return None
        return np.concatenate([self.weight(f"{name}.bias") for name in names])

    def kind_of(self, layer: str) -> int:
        """The element type that a linear layer of floats computes in."""
        return HALF if self.recipe.of(layer) == "fp16" else FLOAT

    def linear(
        self,
        value: str,
        *names: str,
        last_divided: NDArray[np.float32] | None = None,
        biased: bool = True,
    ) -> str:
        """`x @ W.T + b` for the layers `names` side by side, in the recipe's precision.

        Args:
            value: [..., K].
            names: layers with weights [N, K] and optional biases [N]; several are packed into one
                product (queries, keys and values), whose output is their concatenation.
            last_divided: float32 [N], what the outputs of the last of them are divided by, if so.
            biased: add the biases; what takes the result does it otherwise.
        """
        weight = self.packed_weight(names)
        bias = self.packed_bias(names) if biased else None
        if last_divided is not None:
            divisor = np.ones(weight.shape[1], np.float32)
            divisor[-len(last_divided) :] = last_divided
            weight, bias = weight / divisor, None if bias is None else bias / divisor
        return self.product(value, weight, bias, "+".join(names))

    def product(
        self,
        value: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        name: str,
    ) -> str:
        """`x @ weight + bias` with weight [K, N], in the recipe's precision for layer `name`."""
        precision = self.recipe.of(name)
        divisor = self._divisors.get(value)
        taken = self.recipe.channels(name)
        smooth = precision == "int8" and name in self.recipe.smoothed
        if divisor is None and taken is not None and smooth:
            divisor = smoothing(taken.peaks, weight)
            value = self.op(
                "Mul", value, self.floats(np.reciprocal(divisor), f"{name}.smoothing", FLOAT)
            )
            self._divisors[value] = divisor
        if divisor is not None:
            weight = weight * divisor[:, None]
        if precision == "int8":
            result = self._int8_product(self.cast(value, FLOAT), weight, bias, name)
        elif precision in WEIGHT_ONLY:
            result = self._weight_only_product(value, weight, bias, name)
        else:
            kind = self.kind_of(name)
            result = self.op(
                "MatMul", self.cast(value, kind), self.floats(weight, f"{name}.weight", kind)
            )
            result = self._biased(result, bias, name)
        self.layers[name] = (value, result)
        return str(result)

    def _biased(self, value: str, bias: NDArray[np.float32] | None, name: str) -> str:
        """Plus a bias, in the value's own type."""
        if bias is None:
            return value
        return str(self.op("Add", value, self.floats(bias, f"{name}.bias", self._types[value])))

    def _int8_product(
        self,
        value: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        name: str,
    ) -> str:
        """S8 weights per column against U8 activations: the one pair with fast kernels anywhere."""
        quantized, scales = quantize_columns(weight, self.recipe.weight_bits)
        weights = self.constant(quantized, f"{name}.weight_s8")
        weight_scales = self.constant(scales, f"{name}.weight_scale")
        last = ["", self.floats(bias, f"{name}.bias", FLOAT)] if bias is not None else []
        taken = self.recipe.channels(name)
        if taken is None:
            inputs = [value, weights, weight_scales, *last]
            return str(self.op("DynamicQuantizeMatMul", *inputs, domain=CONTRIB))
        if value in self._divisors:
            taken = taken.divided(self._divisors[value])
        scale, zero = affine(float(taken.low.min()), float(taken.high.max()))
        step = self.constant(scale, f"{name}.input_scale")
        origin = self.constant(zero, f"{name}.input_zero")
        small = self.op("QuantizeLinear", value, step, origin)
        inputs = [small, weights, step, weight_scales, origin, *last]
        return str(self.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB))

    def _weight_only_product(
        self,
        value: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        name: str,
    ) -> str:
        """Weights of a few bits, for memory rather than for time."""
        bits, block = WEIGHT_ONLY[self.recipe.precision]
        quantized, scales, zeros = quantize_blocks(weight, bits, block)
        product = self.op(
            "MatMulNBits",
            value,
            self.constant(quantized, f"{name}.weight_u{bits}"),
            self.constant(scales, f"{name}.weight_scale"),
            self.constant(zeros, f"{name}.weight_zero"),
            domain=CONTRIB,
            K=weight.shape[0],
            N=weight.shape[1],
            bits=bits,
            block_size=block,
            accuracy_level=_INT8_ACCURACY,
        )
        return self._biased(str(product), bias, name)

    def embedding(self, ids: str, name: str) -> str:
        """Rows of the table `name` by id: [..., D].

        Wherever weights are quantised, the table, the largest tensor of a text tower, is int8 with
        a scale a row.
        """
        table = self.weight(f"{name}.weight")
        self.tables.append(name)
        precision = self.recipe.of(name)
        if precision in ("fp32", "fp16"):
            kind = HALF if precision == "fp16" else FLOAT
            rows = self.op("Gather", self.floats(table, f"{name}.weight", kind), ids)
            return str(rows)
        quantized, scales = quantize_columns(table.T)
        rows = self.op("Gather", self.constant(quantized.T, f"{name}.weight_s8"), ids)
        scale = self.op("Gather", self.constant(scales[:, None], f"{name}.weight_scale"), ids)
        return str(self.op("Mul", self.cast(rows, FLOAT), scale))

    @property
    def weights(self) -> list[str]:
        """The linear layers and tables, by the names that a recipe knows them by."""
        return [*self.layers, *self.tables]

    @property
    def unsmoothed(self) -> frozenset[str]:
        """The int8 layers that take their input as it is."""
        return frozenset(
            layer
            for layer, (value, _) in self.layers.items()
            if self.recipe.of(layer) == "int8" and value not in self._divisors
        )
