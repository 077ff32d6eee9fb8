"""The blocks that all families share, as ONNX operators straight from a checkpoint's weights.

No tracing and no torch: a graph of operators that ONNX Runtime has kernels for, in the precision of
a `Recipe`. Weights keep their names, so that a graph can be read beside the checkpoint.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vlrt.errors import ExportError

from .checkpoint import Checkpoint
from .precision import Recipe, quantize_columns

OPSET = 23  # the first with Attention
IR_VERSION = 11
CONTRIB = "com.microsoft"
FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
# Operators whose output does not have the type of their first input.
_OUTPUT_TYPES = {"Shape": INT64, "ArgMax": INT64, "Equal": TensorProto.BOOL}
# From this many tokens on, the flash kernel of MultiHeadAttention beats Attention on the CPU.
LONG_SEQUENCE = 400


class Graph:
    """An ONNX graph under construction.

    Values are named strings, as in ONNX. Where fp16 and fp32 meet, `add` widens to fp32, so that a
    layer left in fp32 keeps what follows it on the residual stream safe from overflow too.

    Args:
        checkpoint: where the weights come from.
        recipe: the precision to build in.
    """

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe) -> None:
        self.checkpoint = checkpoint
        self.recipe = recipe
        self.float_type = HALF if recipe.precision == "fp16" else FLOAT
        self.layers: dict[str, tuple[str, str]] = {}  # linear layer -> its input and its output
        self._types: dict[str, int] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    # --- inputs, outputs, constants ---------------------------------------------------------------

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Declare an input; names in its shape are dynamic axes."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        self._types[name] = kind
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str]) -> None:
        """Declare a value as an fp32 output, whatever the precision inside."""
        self._nodes.append(
            helper.make_node("Cast", [value], [name], name=f"Cast_{name}", to=FLOAT)
            if self._types[value] != FLOAT
            else helper.make_node("Identity", [value], [name], name=f"Identity_{name}")
        )
        self._outputs.append(helper.make_tensor_value_info(name, FLOAT, shape))

    def constant(self, array: NDArray[Any], name: str) -> str:
        """An initialiser, stored once a name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.array(array, order="C"), name)
            self._types[name] = self._constants[name].data_type
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector, for shapes and axes."""
        return self.constant(np.array(values, np.int64), "ints_" + "_".join(map(str, values)))

    def scalar(self, value: int) -> str:
        """An int64 scalar."""
        return self.constant(np.array(value, np.int64), f"int_{value}")

    def type_of(self, value: str) -> int:
        """The element type of a value."""
        return self._types[value]

    def weight(self, name: str) -> NDArray[np.float32]:
        """A tensor of the checkpoint, as `Checkpoint.tensor` gives it."""
        return self.checkpoint.tensor(name)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor; biases are optional."""
        return name in self.checkpoint.tensors

    def floats(self, array: NDArray[np.float32], name: str, kind: int | None = None) -> str:
        """A float initialiser of the graph's type, or of `kind`."""
        kind = kind or self.float_type
        dtype = np.float16 if kind == HALF else np.float32
        return self.constant(
            array.astype(dtype), name if kind == self.float_type else f"{name}.fp32"
        )

    # --- operators --------------------------------------------------------------------------------

    def op(
        self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """Add a node; returns its output's name, or a tuple of them."""
        number = len(self._nodes)
        names = tuple(f"{kind}_{number}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs))
        self._nodes.append(
            helper.make_node(
                kind, inputs, names, name=f"{kind}_{number}", domain=domain, **attributes
            )
        )
        for name in names:
            self._types[name] = _OUTPUT_TYPES.get(kind, self._types[inputs[0]])
        return names if outputs > 1 else names[0]

    def cast(self, value: str, kind: int) -> str:
        """The value in another type, or itself if it has that type."""
        if self._types[value] == kind:
            return value
        cast = self.op("Cast", value, to=kind)
        self._types[cast] = kind
        return str(cast)

    def add(self, a: str, b: str) -> str:
        """Sum, in the wider type of the two."""
        return str(self.op("Add", *self.widened(a, b)))

    def widened(self, *values: str) -> list[str]:
        """The values in the wider type of them all: fp32 if any of them is."""
        kinds = {self._types[value] for value in values}
        return [self.cast(value, FLOAT) for value in values] if FLOAT in kinds else list(values)

    def layer_norm(self, value: str, name: str, epsilon: float) -> str:
        """LayerNorm with the weights under `name`; statistics are fp32 in every precision."""
        kind = self._types[value]
        scale, bias = (
            self.floats(self.weight(f"{name}.{part}"), f"{name}.{part}", kind)
            for part in ("weight", "bias")
        )
        return str(self.op("LayerNormalization", value, scale, bias, axis=-1, epsilon=epsilon))

    def linear(self, value: str, *names: str) -> str:
        """`x @ W.T + b` for the layers `names` side by side, in the recipe's precision.

        Args:
            value: [..., K].
            names: layers with weights [N, K] and optional biases [N]; several are packed into one
                product (queries, keys and values), whose output is their concatenation.
        """
        weight = np.concatenate([self.weight(f"{name}.weight") for name in names]).T
        has_bias = self.has(f"{names[0]}.bias")
        bias = np.concatenate([self.weight(f"{n}.bias") for n in names]) if has_bias else None
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
        if precision == "int8":
            quantized, scales = quantize_columns(weight)
            inputs = [
                self.cast(value, FLOAT),
                self.constant(quantized, f"{name}.weight_s8"),
                self.constant(scales, f"{name}.weight_scale"),
            ]
            if bias is not None:
                inputs += ["", self.floats(bias, f"{name}.bias", FLOAT)]
            result = self.op("DynamicQuantizeMatMul", *inputs, domain=CONTRIB)
        else:
            kind = HALF if precision == "fp16" else FLOAT
            result = self.op(
                "MatMul", self.cast(value, kind), self.floats(weight, f"{name}.weight", kind)
            )
            if bias is not None:
                result = self.op("Add", result, self.floats(bias, f"{name}.bias", kind))
        self.layers[name] = (value, result)
        return str(result)

    def embedding(self, ids: str, name: str) -> str:
        """Rows of the table `name` by id: [..., D].

        In int8 the table, the largest tensor of a text tower, is int8 with a scale a row.
        """
        table = self.weight(f"{name}.weight")
        if self.recipe.of(name) != "int8":
            rows = self.op("Gather", self.floats(table, f"{name}.weight"), ids)
            return str(rows)
        quantized, scales = quantize_columns(table.T)
        rows = self.op("Gather", self.constant(quantized.T, f"{name}.weight_s8"), ids)
        scale = self.op("Gather", self.constant(scales[:, None], f"{name}.weight_scale"), ids)
        return str(self.op("Mul", self.cast(rows, FLOAT), scale))

    def activation(self, value: str, kind: str) -> str:
        """`quick_gelu` or `gelu`, each one operator.

        Raises:
            ExportError: another activation.
        """
        if kind == "quick_gelu":
            return str(self.op("QuickGelu", value, domain=CONTRIB, alpha=1.702))
        if kind == "gelu":
            return str(self.op("Gelu", value))
        raise ExportError(f"hidden_act is {kind!r}; valid: quick_gelu, gelu")

    def attention(
        self,
        query: str,
        key: str,
        value: str,
        heads: int,
        *,
        length: int,
        causal: bool = False,
        mask: str | None = None,
    ) -> str:
        """Multi-head attention over [B, L, D] queries, keys and values.

        Args:
            query, key, value: projected, not yet split into heads.
            heads: how many.
            length: about how many tokens there will be; decides the kernel.
            causal: a token sees only those before it.
            mask: what is added to the scores, [B, 1, queries, keys]; ONNX Runtime takes none that
                is the same for all queries and is stated once. The flash kernel takes none at all.
        """
        parts = self.widened(query, key, value)
        if length >= LONG_SEQUENCE and mask is None:
            return str(
                self.op(
                    "MultiHeadAttention",
                    *parts,
                    domain=CONTRIB,
                    num_heads=heads,
                    unidirectional=int(causal),
                )
            )
        return str(
            self.op(
                "Attention",
                *parts,
                *([] if mask is None else [self.cast(mask, self._types[parts[0]])]),
                q_num_heads=heads,
                kv_num_heads=heads,
                is_causal=int(causal),
            )
        )

    def patches(self, pixels: str, name: str, patch: int) -> str:
        """Patch embedding [B, 3, H, W] -> [B, H/patch * W/patch, D].

        A convolution whose stride is its kernel is a product over cut-out patches; as a product it
        is faster, and quantises.
        """
        weight = self.weight(f"{name}.weight")
        batch, channels = self.op("Shape", pixels, start=0, end=1), weight.shape[1]
        rows, columns = (self._grid(pixels, axis, patch) for axis in (2, 3))
        cut = self.op(
            "Concat", batch, self.ints(channels), rows, self.ints(patch), columns,
            self.ints(patch), axis=0,
        )  # fmt: skip
        value = self.op("Reshape", self.cast(pixels, self.float_type), cut)
        value = self.op("Transpose", value, perm=[0, 2, 4, 1, 3, 5])
        flat = self.op("Concat", batch, self.ints(-1, channels * patch * patch), axis=0)
        value = self.op("Reshape", value, flat)
        bias = self.weight(f"{name}.bias") if self.has(f"{name}.bias") else None
        return self.product(value, weight.reshape(len(weight), -1).T, bias, name)

    def _grid(self, pixels: str, axis: int, patch: int) -> str:
        """How many patches fit along an axis, as a graph value."""
        size = self.op("Shape", pixels, start=axis, end=axis + 1)
        return str(self.op("Div", size, self.ints(patch)))

    def expand_to_batch(self, row: str, like: str, width: int) -> str:
        """A [1, 1, D] constant repeated to [B, 1, D], B being the first axis of `like`."""
        batch = self.op("Shape", like, start=0, end=1)
        return str(self.op("Expand", row, self.op("Concat", batch, self.ints(1, width), axis=0)))

    # --- the finished model -----------------------------------------------------------------------

    def model(self, producer: str, *, taps: bool = False) -> onnx.ModelProto:
        """The finished model.

        Args:
            producer: who made it, for the file.
            taps: also output the largest magnitude that every linear layer takes and gives, as
                `in:` and `out:` and the layer's name. Scalars: the values themselves are gigabytes.
        """
        outputs = list(self._outputs)
        nodes = list(self._nodes)
        if taps:
            for layer, values in self.layers.items():
                for end, value in zip(("in", "out"), values, strict=True):
                    tap = f"{end}:{layer}"
                    nodes.append(helper.make_node("Abs", [value], [f"{tap}:abs"]))
                    nodes.append(helper.make_node("ReduceMax", [f"{tap}:abs"], [tap], keepdims=0))
                    outputs.append(helper.make_tensor_value_info(tap, FLOAT, []))
        graph = helper.make_graph(
            nodes, "vlrt", self._inputs, outputs, list(self._constants.values())
        )
        return helper.make_model(
            graph,
            producer_name=producer,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
        )
