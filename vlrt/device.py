"""Values that stay on a GPU, and a graph's runs there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

UNRECORDED = -1  # ONNX Runtime's id for a run that no CUDA graph is made of


@dataclass(frozen=True, eq=False)
class OnDevice:
    """An array on a GPU, to be given to another graph there.

    Attributes:
        value: ONNX Runtime's `OrtValue`.
        rows: how many along its first axis are meant; those behind them are padding.
    """

    value: Any
    rows: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all that is there, padding too."""
        return tuple(self.value.shape())

    def numpy(self) -> NDArray[Any]:
        """The rows that are meant, in the host's memory."""
        found: NDArray[Any] = self.value.numpy()[: self.rows]
        return found


Feed: TypeAlias = Mapping[str, NDArray[Any] | OnDevice]


def run_options(ort: Any, graph_id: int) -> Any:
    """Options of one run.

    Args:
        ort: the `onnxruntime` module.
        graph_id: of the recording to make or to replay, or `UNRECORDED`.
    """
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


def run_bound(
    session: Any,
    device_id: int,
    feed: Feed,
    outputs: Sequence[str],
    fetch: Collection[str],
    options: Any,
) -> dict[str, Any]:
    """One run that is not recorded, of whose outputs some are fetched and the others stay.

    Args:
        session: ONNX Runtime's own, on that device.
        device_id: by its number.
        feed: arrays, which are uploaded, and values that are there.
        outputs: the names of all that the graph gives.
        fetch: those that are fetched.
        options: of the run.

    Returns:
        By name, arrays of what is fetched, and `OrtValue`s of the rest.
    """
    binding = session.io_binding()
    for name, given in feed.items():
        if isinstance(given, OnDevice):
            binding.bind_ortvalue_input(name, given.value)
        else:
            binding.bind_cpu_input(name, given)
    for name in outputs:
        place = ("cpu", 0) if name in fetch else ("cuda", device_id)
        binding.bind_output(name, *place)
    session.run_with_iobinding(binding, options)
    values = dict(zip(outputs, binding.get_outputs(), strict=True))
    return {name: v.numpy() if name in fetch else v for name, v in values.items()}


def copied(ort: Any, value: Any, device_id: int) -> Any:
    """A copy on a device of an `OrtValue` there, of fp32 or fp16."""
    kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16}[value.data_type()]
    made = ort.OrtValue.ortvalue_from_shape_and_type(value.shape(), kind, "cuda", device_id)
    made.update_inplace(value)
    return made
