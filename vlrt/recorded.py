"""Runs of a graph on a GPU that are recorded and replayed.

A CUDA graph is all of a run's work, recorded once for the addresses that it read and wrote, and
launched at once from then on: a run of many small kernels then costs no more than they do. So every
shape has buffers of its own, which stay.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from vlrt.device import UNRECORDED, Feed, OnDevice, copied, run_bound, run_options
from vlrt.recording_lock import NOTHING_IS_RECORDED

if TYPE_CHECKING:
    # Imported when there is a second thread.
    from concurrent.futures import ThreadPoolExecutor

# Of one graph. Each keeps its buffers for good; runs of further shapes are not recorded.
MOST_SHAPES = 64


class Recorder:
    """Runs of a graph, recorded once a shape. Safe to share between threads, which take turns.

    ONNX Runtime keeps what it recorded for each thread apart. So as soon as a second thread comes,
    all runs are those of a thread that is there for nothing else; to the first alone, its own runs
    cost no such detour.

    Args:
        ort: the `onnxruntime` module.
        session: ONNX Runtime's own, with CUDA graphs enabled.
        device_id: by its number.
        outputs: the names of all that the graph gives.
    """

    number = 0  # of those that were made in this process

    def __init__(self, ort: Any, session: Any, device_id: int, outputs: Sequence[str]) -> None:
        Recorder.number += 1
        self._ort, self._session, self._device_id = ort, session, device_id
        self._outputs = tuple(outputs)
        self._first: int | None = None  # the first thread that came
        self._worker: ThreadPoolExecutor | None = None
        self._recordings: dict[tuple[tuple[int, ...], ...], _Recording] = {}

    def run(self, feed: Feed, fetch: Collection[str], keep: Collection[str]) -> dict[str, Any]:
        """Run the graph (see `run_bound`).

        Args:
            feed: as `run_bound` takes it.
            fetch: the outputs to fetch.
            keep: those that are to stay; what is neither, the next run writes over.
        """
        with NOTHING_IS_RECORDED:
            this = threading.get_ident()
            self._first = this if self._first is None else self._first
            if self._worker is None and this == self._first:
                return self._run(feed, fetch, keep)
            if self._worker is None:
                from concurrent.futures import ThreadPoolExecutor

                self._worker = ThreadPoolExecutor(1, thread_name_prefix="vlrt-cuda-graph")
            return self._worker.submit(self._run, feed, fetch, keep).result()

    def _run(self, feed: Feed, fetch: Collection[str], keep: Collection[str]) -> dict[str, Any]:
        key = tuple(tuple(given.shape) for given in feed.values())
        recording = self._recordings.get(key)
        if recording is not None or len(self._recordings) < MOST_SHAPES:
            if recording is None:
                recording = self._recordings[key] = self._record(feed)
            recording.replay(self._session, feed)
            values = recording.outputs
            fetched = {name: values[name].numpy() for name in fetch}
        else:
            values = self._unrecorded(feed, fetch)
            fetched = {name: values[name] for name in fetch}
        # A copy, for a replay may write to whatever memory its recording had.
        kept = {name: copied(self._ort, values[name], self._device_id) for name in keep}
        return fetched | kept

    def _unrecorded(self, feed: Feed, fetch: Collection[str]) -> dict[str, Any]:
        options = run_options(self._ort, UNRECORDED)
        return run_bound(self._session, self._device_id, feed, self._outputs, fetch, options)

    def _record(self, feed: Feed) -> "_Recording":
        inputs = {name: self._own(given) for name, given in feed.items()}
        given = {name: OnDevice(value, 0) for name, value in inputs.items()}
        # What a run gives has the shapes, and becomes the room, of what all later ones give.
        outputs = self._unrecorded(given, ())
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        options = run_options(self._ort, len(self._recordings) + 1)
        return _Recording(inputs, outputs, binding, options)

    def _own(self, given: NDArray[Any] | OnDevice) -> Any:
        """A buffer of its own for an input, filled."""
        if isinstance(given, OnDevice):
            return copied(self._ort, given.value, self._device_id)
        return self._ort.OrtValue.ortvalue_from_numpy(given, "cuda", self._device_id)


@dataclass(frozen=True, eq=False)
class _Recording:
    """The buffers of one shape, and the run that reads and writes them."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    binding: Any
    options: Any

    def replay(self, session: Any, feed: Feed) -> None:
        """Fill the inputs and run; the first time, ONNX Runtime records it."""
        for name, value in self.inputs.items():
            given = feed[name]
            value.update_inplace(given.value if isinstance(given, OnDevice) else given)
        session.run_with_iobinding(self.binding, self.options)
