"""An ONNX graph under construction: values, operators, constants.

Weights keep their names, so that a graph can be read beside the checkpoint.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .checkpoint import Checkpoint
from .precision import Recipe

OPSET = 23  # the first with Attention
IR_VERSION = 11
CONTRIB = "com.microsoft"
FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
INT32, UINT8, BOOL = TensorProto.INT32, TensorProto.UINT8, TensorProto.BOOL
# Operators whose output does not have the type of their first input.
_OUTPUT_TYPES = {
    "Shape": INT64,
    "ArgMax": INT64,
    "Equal": BOOL,
    "QuantizeLinear": UINT8,
    "MatMulIntegerToFloat": FLOAT,
}


class Builder:
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
        self._casts: dict[tuple[str, int], str] = {}
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
        like = inputs[1] if kind == "Where" else inputs[0]
        for name in names:
            self._types[name] = _OUTPUT_TYPES.get(kind, self._types[like])
        return names if outputs > 1 else names[0]

    def cast(self, value: str, kind: int) -> str:
        """The value in another type, or itself if it has that type."""
        if self._types[value] == kind:
            return value
        if (value, kind) not in self._casts:
            cast = self._casts[value, kind] = str(self.op("Cast", value, to=kind))
            self._types[cast] = kind
        return self._casts[value, kind]

    def first_highest(self, rows: str) -> str:
        """Where the highest number of each row [N, L] is, int64 [N, 1]; of equals the first.

        CUDA has `ArgMax` for floats alone, and leaves to cuDNN which of equals it finds.
        """
        if not self.recipe.for_cuda:
            return str(self.op("ArgMax", rows, axis=1, keepdims=1))
        _, at = self.op("TopK", rows, self.ints(1), outputs=2, axis=1)
        self._types[at] = INT64
        return str(at)

    def add(self, a: str, b: str) -> str:
        """Sum, in the wider type of the two."""
        return str(self.op("Add", *self.widened(a, b)))

    def widened(self, *values: str) -> list[str]:
        """The values in the wider type of them all: fp32 if any of them is."""
        kinds = {self._types[value] for value in values}
        return [self.cast(value, FLOAT) for value in values] if FLOAT in kinds else list(values)

    # --- the finished model -----------------------------------------------------------------------

    def model(self, producer: str, *, taps: bool = False) -> onnx.ModelProto:
        """The finished model.

        Args:
            producer: who made it, for the file.
            taps: also output the lowest and the highest number, [K], in each channel that a linear
                layer takes and gives: `in:low:`, `in:high:`, `out:low:`, `out:high:` and its name.
                The values themselves are gigabytes.
        """
        nodes, outputs = list(self._nodes), list(self._outputs)
        for layer, values in self.layers.items() if taps else ():
            for end, value in zip(("in", "out"), values, strict=True):
                rows = f"{end}:{layer}:rows"
                nodes.append(helper.make_node("Flatten", [value], [rows], axis=-1))
                for kind, operator in (("low", "ReduceMin"), ("high", "ReduceMax")):
                    tap = f"{end}:{kind}:{layer}"
                    inputs = [rows, self.ints(0)]
                    nodes.append(helper.make_node(operator, inputs, [tap], keepdims=0))
                    outputs.append(helper.make_tensor_value_info(tap, FLOAT, ["channels"]))
        _leave_out_unread(nodes)
        graph = helper.make_graph(
            nodes, "vlrt", self._inputs, outputs, list(self._constants.values())
        )
        return helper.make_model(
            graph,
            producer_name=producer,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
        )


def _leave_out_unread(nodes: Sequence[onnx.NodeProto]) -> None:
    """Take the names from optional outputs that no node reads, so that they are not computed.

    Those of ONNX Runtime's own operators are optional behind the first, and never outputs of a
    graph.
    """
    read = {name for node in nodes for name in node.input}
    for node in nodes:
        if node.domain == CONTRIB and len(node.output) > 1:
            named = [node.output[0], *(name if name in read else "" for name in node.output[1:])]
            while not named[-1]:
                named.pop()
            node.output[:] = named
