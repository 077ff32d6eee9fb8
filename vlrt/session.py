"""The only file that imports ONNX Runtime: providers, threads, memory, running."""

import contextlib
import importlib
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.arena import Arena
from vlrt.device import Feed, OnDevice
from vlrt.errors import BundleError, EngineMissingError, InferenceError, ProviderError
from vlrt.gpu import Gpu, Nodes, where_nodes_run
from vlrt.placement import (
    CPU,
    CUDA,
    OPENVINO,
    TENSORRT,
    Placement,
    Provider,
    Wishes,
    placed,
)
from vlrt.recording_lock import NOTHING_IS_RECORDED
from vlrt.runner import Arrays, Runner, Tensor, tensors

__all__ = [
    "CPU", "CUDA", "OPENVINO", "TENSORRT", "Arrays", "OnDevice", "Placement", "Provider", "Runner",
    "Session", "Tensor", "Wishes", "engine", "place", "place_on", "preload", "session_options",
    "start",
]  # fmt: skip

# Add: float32 `x` [1] to itself. There is no provider that does not know it. That it is what it is
# said to be, `tests/test_session.py` shows.
_ONE_SUM = bytes.fromhex(
    "08083a350a0e0a01780a01781201792203416464120167"
    "5a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)

# What ONNX Runtime says where a GPU's memory is too small, or the limit of its arena.
_OUT_OF_MEMORY = ("allocate memory", "out of memory", "BFCArena")


def engine() -> Any:
    """The `onnxruntime` module.

    Raises:
        EngineMissingError: it is not installed.
    """
    try:
        module = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise EngineMissingError from None
    # Two builds that were uninstalled over each other leave a husk that still imports.
    if not hasattr(module, "InferenceSession"):
        raise EngineMissingError
    return module


def preload() -> str:
    """Load the NVIDIA libraries that pip installed, for ONNX Runtime to find them.

    Returns:
        What ONNX Runtime says of those that it did not find; empty if there is nothing to say. The
        system may have them all the same.
    """
    load = getattr(engine(), "preload_dlls", None)
    if load is None:  # builds before 1.21
        return ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        load(msvc=False)
    return " ".join(said.getvalue().split())


def place(
    device: str = "auto",
    providers: Sequence[Provider] | None = None,
    wishes: Wishes | None = None,
) -> Placement:
    """Decide where graphs run, by what this ONNX Runtime was built with (see `placed`).

    Raises:
        ProviderError: it was not built with it.
        OptionError: `device`, `providers` or a wish is none.
    """
    return placed(engine().get_available_providers(), device, providers, wishes)


def place_on(provider: str) -> Placement:
    """What runs on a provider, with the options and the helpers that `vlrt.load` gives it.

    Raises:
        ProviderError: this ONNX Runtime was not built with it.
    """
    device = {CPU: "cpu", CUDA: "cuda"}.get(provider)
    return place(device) if device else place(providers=[provider])


def session_options(
    threads: int, *, spinning: bool, exact_products: bool, arena: bool = True
) -> Any:
    """ONNX Runtime's `SessionOptions`, as measured best; arguments as `Session` takes them.

    `arena` says whether memory on the CPU is kept from run to run.
    """
    options = engine().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    # When a run ends, its threads stop: they would take a core from what comes next, such as
    # another graph of the same model, or the decoding of the next picture.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if exact_products:
        # Weights beyond 7 bits become uint8, whose kernels add in 32 bits; in MatMulInteger,
        # MatMulIntegerToFloat and DynamicQuantizeMatMul alike.
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 4  # errors are raised, with their text, and not printed too
    # Memory is kept, because asking the system for it every time slows runs down. Plans of it for
    # every shape are not: they take more of it.
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = False
    return options


def _with_threads(name: str, options: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """A provider's options, and how many threads it may have if it brings its own and is not told.

    OpenVINO's documentation, "num_of_threads": onnxruntime.ai, OpenVINO execution provider.
    """
    own = {"num_of_threads": str(threads)} if name == OPENVINO else {}
    return {**own, **options}


def _opened(graph: str | bytes, placement: Placement, options: Any, threads: int) -> Any:
    """ONNX Runtime's own session of a graph or its path, on the provider that was asked for.

    Raises:
        ProviderError: ONNX Runtime left the provider out, with a warning that nobody sees.
    """
    if placement.uses_cuda:
        preload()
        # Where every node runs is asked of the session.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with NOTHING_IS_RECORDED if placement.uses_cuda else contextlib.nullcontext():
        session = engine().InferenceSession(
            graph,
            sess_options=options,
            providers=[name for name, _ in placement.providers],
            provider_options=[_with_threads(*pair, threads) for pair in placement.providers],
            enable_fallback=0,  # to the CPU, which it would print and not raise
        )
    active = session.get_providers()
    if active[0] != placement.provider:
        raise ProviderError(
            f"{placement} did not start; active: {', '.join(active)}. {_why_not(placement)}"
        )
    return session


def _why_not(placement: Placement) -> str:
    """Why a provider is likely not to have started, in words."""
    why = ""
    if placement.uses_cuda:
        from vlrt import nvidia

        why = nvidia.why_not()
    return f"{why}\n`vlrt doctor` says more" if why else "`vlrt doctor` says what is missing"


def start(placement: Placement) -> None:
    """Start a provider on a graph that any provider takes, one addition.

    Those of bundles do not serve to try one: they hold operators that are ONNX Runtime's own, at
    which OpenVINO's ends the process.

    Raises:
        ProviderError: it does not start, or refuses its options.
    """
    options = session_options(1, spinning=False, exact_products=False, arena=False)
    try:
        _opened(_ONE_SUM, placement, options, 1).run(None, {"x": np.ones(1, np.float32)})
    except ProviderError:
        raise
    except Exception as error:  # as above, of any class
        raise ProviderError(
            f"{placement} does not start: {error}. {_why_not(placement)}"
        ) from error


class Session:
    """One graph, loaded. Safe to run from several threads at once.

    Attributes:
        inputs, outputs: what the graph takes and gives, by name.
        input_shapes: those of the inputs alone.
        nodes: where they run, if it is on a GPU.

    Args:
        path: the graph.
        placement: where to run it.
        threads: threads inside one operator.
        spinning: whether threads that wait for each other within a run spin for a moment. On, they
            take more of a neighbour's time; off, a single small request takes longer.
        exact_products: whether int8 products that would saturate are made from wider numbers. It
            is for processors where they would (`products_saturate`): on others ONNX Runtime obeys
            too, and takes longer for the same results.
        advice: what to do if the file cannot be loaded, for the error.

    Raises:
        BundleError: ONNX Runtime cannot load the file, or not on this provider.
        ProviderError: the provider was asked for, but does not start, or refuses its options, does
            not run all that is work in the graph, or has too little memory for it.
    """

    def __init__(
        self,
        path: Path,
        placement: Placement,
        *,
        threads: int,
        spinning: bool = True,
        exact_products: bool = False,
        advice: str = "",
    ) -> None:
        self._keeps_memory = placement.kind == "cpu"  # elsewhere little of it is the CPU's
        self._arena = Arena()
        options = session_options(
            threads,
            spinning=spinning,
            exact_products=exact_products,
            arena=self._keeps_memory,
        )
        try:
            self._session = _opened(str(path), placement, options, threads)
            self.nodes: Nodes = where_nodes_run(engine(), self._session, path, placement)
        except ProviderError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            if placement.uses_cuda and any(words in str(error) for words in _OUT_OF_MEMORY):
                raise ProviderError(
                    f"{path} does not fit into the memory that {placement} may take: {error}. Give "
                    "a larger memory_limit, or take a smaller precision or another GPU"
                ) from error
            said = [
                f"ONNX Runtime {engine().__version__} cannot load {path} on {placement}: {error}"
            ]
            if placement.providers != ((CPU, {}),):
                start(placement)  # or it is the provider that does not, whatever the file
                said.append(
                    f"{placement.provider} itself starts: it may not take what is in this graph, "
                    "which device='cpu' may"
                )
            raise BundleError("\n".join(filter(None, (*said, advice)))) from error
        self.inputs: Mapping[str, Tensor] = tensors(self._session.get_inputs())
        self.outputs: Mapping[str, Tensor] = {
            name: tensor._replace(dtype=np.dtype(np.float32))
            if tensor.dtype == np.float16
            else tensor
            for name, tensor in tensors(self._session.get_outputs()).items()
        }
        self.input_shapes: Mapping[str, tuple[int | None, ...]] = {
            name: tensor.shape for name, tensor in self.inputs.items()
        }

        self._gpu = Gpu(engine(), self._session, placement) if placement.uses_cuda else None

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph.

        Args:
            inputs: arrays by input name; all that the graph declares, and possibly more, which are
                left out. Each is cast to the declared type.

        Returns:
            Every output by name; fp16 outputs come back as float32.

        Raises:
            InferenceError: an input is missing, or ONNX Runtime refuses the arrays.
        """
        outputs = self._run(self._feed(inputs))
        return {
            name: value.astype(np.float32) if value.dtype == np.float16 else value
            for name, value in outputs.items()
        }

    def run_on_device(
        self,
        inputs: Mapping[str, NDArray[Any] | OnDevice],
        *,
        fetch: Collection[str],
        keep: Collection[str] = (),
    ) -> dict[str, Any]:
        """Run the graph on a GPU, where some of its outputs stay.

        Args:
            inputs: as `run` takes them, or values that are there already.
            fetch: the names of the outputs to give as arrays.
            keep: those to give as they are there, as `OnDevice`s.

        Returns:
            What is fetched or kept, by name.

        Raises:
            InferenceError: as `run` does.
        """
        assert self._gpu is not None
        return self._run(self._feed(inputs), fetch, keep)

    def upload(self, array: NDArray[Any]) -> OnDevice:
        """An array in a GPU's memory, for `run_on_device`."""
        assert self._gpu is not None
        return self._gpu.upload(array)

    def _feed(self, inputs: Mapping[str, NDArray[Any] | OnDevice]) -> Feed:
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise InferenceError(f"the graph needs {missing}; given: {sorted(inputs)}")
        feed: dict[str, NDArray[Any] | OnDevice] = {}
        for name, tensor in self.inputs.items():
            given = inputs[name]
            if not isinstance(given, OnDevice):
                if tensor.dtype == np.uint8 and np.asarray(given).dtype.kind == "f":
                    raise InferenceError(
                        f"{name} of the graph is bytes, uint8 {list(tensor.shape)}; given: "
                        f"{given.dtype} {list(given.shape)}"
                    )
                given = np.ascontiguousarray(given, dtype=tensor.dtype)
            feed[name] = given
        return feed

    def _run(
        self, feed: Any, fetch: Collection[str] | None = None, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        try:
            if self._gpu is not None:
                return self._gpu.run(feed, fetch, keep)
            with self._arena.run(sum(array.nbytes for array in feed.values())) as gives_back:
                options = _giving_back() if gives_back and self._keeps_memory else None
                values = self._session.run(list(self.outputs), feed, options)
                return dict(zip(self.outputs, values, strict=True))
        except Exception as error:
            shapes = {name: array.shape for name, array in feed.items()}
            raise InferenceError(f"ONNX Runtime refused inputs of {shapes}: {error}") from error


def _giving_back() -> Any:
    """Options of a run after which the arena's unused memory goes back to the system."""
    options = engine().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
