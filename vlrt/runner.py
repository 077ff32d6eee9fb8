"""What a graph is to those who run it: named arrays in, named arrays out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
_TYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    **{f"tensor(int{bits})": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"tensor(uint{bits})": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
}


class Runner(Protocol):
    """What a family needs of a graph; `Session` is one, and tests hand in fakes."""

    input_shapes: Mapping[str, tuple[int | None, ...]]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph on named arrays, to named arrays."""
        ...


class Tensor(NamedTuple):
    """What a graph says of an input or an output.

    Attributes:
        dtype: of its numbers; of an output in fp16 float32, as which it comes back.
        shape: its axes, None where a graph leaves the size open.
    """

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


def tensors(nodes: Sequence[Any]) -> dict[str, Tensor]:
    """What ONNX Runtime says of a graph's inputs or outputs, by name."""
    return {
        node.name: Tensor(
            np.dtype(_TYPES.get(node.type, np.object_)),  # texts are objects, as in ONNX Runtime
            tuple(size if isinstance(size, int) else None for size in node.shape),
        )
        for node in nodes
    }
