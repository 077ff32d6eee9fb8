"""A graph on an NVIDIA GPU: which nodes run there, and how its runs do."""

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlrt import pinned
from vlrt.buckets import batch_bucket, padded_rows
from vlrt.device import Feed, OnDevice, run_bound
from vlrt.errors import ProviderError
from vlrt.placement import CPU, Placement
from vlrt.recorded import Recorder
from vlrt.recording_lock import NOTHING_IS_RECORDED

# Arithmetic on shapes, which ONNX Runtime leaves to the CPU even where a GPU could do it: a few
# whole numbers, of which the CPU has to know the result.
_OF_SHAPES = frozenset((
    "Shape", "Size", "Gather", "Concat", "Slice", "Squeeze", "Unsqueeze", "Cast", "Add", "Sub",
    "Mul", "Div", "Min", "Max", "Mod", "Range", "Equal", "Where", "ReduceProd", "Reshape", "Expand",
    "ConstantOfShape", "Identity", "Constant",
))  # fmt: skip


class Gpu:
    """Runs on a GPU: in batches of few sizes, recorded if that was asked for.

    Args:
        ort: the `onnxruntime` module.
        session: ONNX Runtime's own.
        placement: where it is.
    """

    def __init__(self, ort: Any, session: Any, placement: Placement) -> None:
        self._ort, self._session, self._device_id = ort, session, placement.device_id
        self._outputs = [node.name for node in session.get_outputs()]
        # Rows that are padding must not show in what comes out: then all have one first axis.
        nodes = [*session.get_inputs(), *session.get_outputs()]
        axes = {node.shape[0] if node.shape else None for node in nodes}
        self._has_rows = len(axes) == 1 and isinstance(axes.pop(), str)
        self._recorder = (
            Recorder(ort, session, self._device_id, self._outputs) if placement.cuda_graph else None
        )
        major, _, _ = str(getattr(ort, "cuda_version", "")).partition(".")
        if major.isdecimal():
            pinned.use(int(major), self._device_id)

    def run(
        self, feed: Feed, fetch: Collection[str] | None = None, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run the graph.

        Args:
            feed: arrays, which are uploaded, and values that are there, by input name.
            fetch: the names of the outputs to give as arrays; None for all.
            keep: those to give as they are on the device, as `OnDevice`s.

        Returns:
            What is fetched or kept, by name.
        """
        fetch = self._outputs if fetch is None else fetch
        arrays = {name: one for name, one in feed.items() if not isinstance(one, OnDevice)}
        rows = None
        if self._has_rows and len(arrays) == len(feed):
            rows = max(len(array) for array in arrays.values())
            feed = arrays = padded_rows(arrays, batch_bucket(rows))
        if self._recorder is not None:
            found = self._recorder.run(feed, fetch, keep)
        elif keep or len(arrays) < len(feed):
            with self._undisturbed():
                found = run_bound(self._session, self._device_id, feed, self._outputs, fetch, None)
        else:
            names = list(fetch)
            with self._undisturbed():
                found = dict(zip(names, self._session.run(names, arrays), strict=True))
        return {name: found[name] if rows is None else found[name][:rows] for name in fetch} | {
            name: OnDevice(found[name], found[name].shape()[0] if rows is None else rows)
            for name in keep
        }

    def upload(self, array: NDArray[np.float32]) -> OnDevice:
        """An array in the GPU's memory."""
        with NOTHING_IS_RECORDED:
            value = self._ort.OrtValue.ortvalue_from_numpy(array, "cuda", self._device_id)
        return OnDevice(value, len(array))

    @staticmethod
    def _undisturbed() -> AbstractContextManager[Any]:
        """Wait for recordings of other graphs, if there may be any in this process."""
        return NOTHING_IS_RECORDED if Recorder.number else nullcontext()


class Nodes(NamedTuple):
    """Where the nodes of a graph run.

    Attributes:
        on: how many each provider runs, by its name; empty where no GPU is.
        beside: the operators among them that are work and that the CPU does, with how many.
    """

    on: Mapping[str, int]
    beside: Mapping[str, int]

    def told(self) -> str:
        """What the CPU does beside the GPU, in words; empty if nothing."""
        return ", ".join(f"{number} {name}" for name, number in sorted(self.beside.items()))


def where_nodes_run(ort: Any, session: Any, path: Path, placement: Placement) -> Nodes:
    """Where the nodes of a graph run.

    Args:
        ort: the `onnxruntime` module.
        session: ONNX Runtime's own, of the graph.
        path: the graph's, for errors.
        placement: where it is.

    Raises:
        ProviderError: the graph is to run on the GPU as a whole, but some of its work does not; or
            this ONNX Runtime, older than 1.24, does not tell.
    """
    if not placement.uses_cuda:
        return Nodes({}, {})
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        raise ProviderError(
            f"onnxruntime {ort.__version__} does not tell which nodes run on the GPU; install 1.26 "
            "or newer, for Python 3.11 or newer"
        )
    operators: dict[str, Counter[str]] = {}
    for part in tell():
        own = operators.setdefault(part.ep_name, Counter())
        own.update(node.op_type for node in part.get_nodes())
    beside = {op: n for op, n in operators.get(CPU, Counter()).items() if op not in _OF_SHAPES}
    nodes = Nodes({provider: sum(own.values()) for provider, own in operators.items()}, beside)
    if placement.whole and beside:
        raise ProviderError(
            f"{path}: {sum(beside.values())} of its nodes would run on the CPU, since "
            f"{placement.provider} has no kernels for them: {nodes.told()}. Load another "
            "precision, or export the bundle again; or allow it: "
            f"providers={[name for name, _ in placement.providers]}"
        )
    return nodes
