"""The only file that imports ONNX Runtime: providers, precision, threads, memory, running."""

import importlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vlrt import hardware
from vlrt.arena import Arena
from vlrt.checks import checked_providers
from vlrt.errors import (
    BundleError,
    EngineMissingError,
    InferenceError,
    OptionError,
    ProviderError,
)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
Arrays = Mapping[str, NDArray[Any]]
Provider = str | tuple[str, Mapping[str, Any]]
_TYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    **{f"tensor(int{bits})": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"tensor(uint{bits})": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
}
# Graphs of one operator; that they are what they are said to be, `tests/test_session.py` shows.
# MatMulInteger: uint8 `a` [1, 4] by int8 [4, 1] of 127.
_FOUR_PRODUCTS = bytes.fromhex(
    "08083a580a180a01610a0162120179220d4d61744d756c496e74656765721201672a0f0804080110"
    "034201624a047f7f7f7f5a130a0161120e0a0c080212080a0208010a02080462130a0179120e0a0c"
    "080612080a0208010a02080142040a00100d"
)
# Add: float32 `x` [1] to itself. There is no provider that does not know it.
_ONE_SUM = bytes.fromhex(
    "08083a350a0e0a01780a01781201792203416464120167"
    "5a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)


class Runner(Protocol):
    """What a family needs of a graph; `Session` is one, and tests hand in fakes."""

    input_shapes: Mapping[str, tuple[int | None, ...]]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph on named arrays, to named arrays."""
        ...


@dataclass(frozen=True)
class Placement:
    """Where graphs run.

    Attributes:
        providers: ONNX Runtime's provider names with their options, the wanted one first.
        reason: why this place, in words.
        asked_for: whether the caller named it; if not, a tuned bundle may go elsewhere.
    """

    providers: tuple[tuple[str, Mapping[str, Any]], ...]
    reason: str
    asked_for: bool = True

    @property
    def provider(self) -> str:
        """The provider that must be active."""
        return self.providers[0][0]

    @property
    def kind(self) -> str:
        """The kind of device, as manifests name it: "cpu", "cuda", or the provider's own name."""
        return {CPU: "cpu", CUDA: "cuda"}.get(self.provider, self.provider)

    def __str__(self) -> str:
        """The provider, and its options if there are any."""
        name, options = self.providers[0]
        return f"{name} with {dict(options)}" if options else name


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


def place(device: str = "auto", providers: Sequence[Provider] | None = None) -> Placement:
    """Decide where graphs run.

    Args:
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA where this ONNX Runtime is built for it,
            otherwise the CPU.
        providers: ONNX Runtime's own provider names, for anything else, each alone or with its
            options: `[("OpenVINOExecutionProvider", {"device_type": "CPU"})]`. The first must
            become active, the others serve the nodes that it lacks. Leaves `device` without
            effect, so giving both is an error.

    Raises:
        ProviderError: this ONNX Runtime was not built with it.
        OptionError: `device` or `providers` is none of the above.
    """
    available = engine().get_available_providers()
    if providers is not None:
        if device != "auto":
            raise OptionError(f"give device={device!r} or providers={providers!r}, not both")
        pairs = checked_providers(providers, available)
        _need_providers([name for name, _ in pairs], available)
        return Placement(pairs, "providers were given")
    if device == "auto":
        if CUDA in available:
            return Placement(
                ((CUDA, {"device_id": 0}), (CPU, {})),
                "auto: this ONNX Runtime is built for CUDA",
                asked_for=False,
            )
        return Placement(
            ((CPU, {}),), "auto: this ONNX Runtime is built without CUDA", asked_for=False
        )
    if device == "cpu":
        return Placement(((CPU, {}),), "device='cpu' was given")
    kind, colon, index = device.partition(":")
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise OptionError(f"device is {device!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, ...")
    _need_providers([CUDA], available)
    options = {"device_id": int(index or 0)}
    return Placement(((CUDA, options), (CPU, {})), f"device={device!r} was given")


def place_on(provider: str) -> Placement:
    """What runs on a provider, with the options and the helpers that `vlrt.load` gives it.

    Raises:
        ProviderError: this ONNX Runtime was not built with it.
    """
    device = {CPU: "cpu", CUDA: "cuda"}.get(provider)
    return place(device) if device else place(providers=[provider])


def _need_providers(names: Sequence[str], available: Sequence[str]) -> None:
    for name in names:
        if name not in available:
            hint = '; for NVIDIA GPUs: pip install "vlrt[gpu]"' if name == CUDA else ""
            raise ProviderError(
                f"this ONNX Runtime has no {name!r}; it has: {', '.join(available)}{hint}"
            )


def products_saturate() -> bool:
    """Whether ONNX Runtime's int8 products go wrong on this processor, by trying two of them.

    On x86 without VNNI it adds two products of uint8 activations by int8 weights in 16 bits
    (`vpmaddubsw`), which end at 32,767. `hardware.int8_kernels` knows such processors where the
    system names their features; this asks the engine itself, in a millisecond.
    """
    ort = engine()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(_FOUR_PRODUCTS, sess_options=options, providers=[CPU])
    (total,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8)})[0].ravel()
    return int(total) != 4 * 255 * 127


def int8_kernels() -> str:
    """The machine's int8 kernels, a key of `hardware.MEANINGS`; how exact they are was tried."""
    if products_saturate():
        return hardware.SATURATING
    named = hardware.int8_kernels()
    if named == hardware.SATURATING:
        return "none"
    # Windows does not tell, but ONNX Runtime's build for it saturates on all x86 without VNNI.
    if named == "unknown" and (platform.system(), platform.machine()) == ("Windows", "AMD64"):
        return "vnni"
    return named


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
            f"{placement} did not start; active: {', '.join(active)}. "
            "`vlrt doctor` says what is missing"
        )
    return session


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
        raise ProviderError(f"{placement} does not start: {error}") from error


class Tensor(NamedTuple):
    """What a graph says of an input or an output.

    Attributes:
        dtype: of its numbers; of an output in fp16 float32, as which it comes back.
        shape: its axes, None where a graph leaves the size open.
    """

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


class Session:
    """One graph, loaded. Safe to run from several threads at once.

    Attributes:
        inputs, outputs: what the graph takes and gives, by name.
        input_shapes: those of the inputs alone.

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
        ProviderError: the provider was asked for, but does not start, or refuses its options.
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
        except ProviderError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
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
        self.inputs: Mapping[str, Tensor] = _tensors(self._session.get_inputs())
        self.outputs: Mapping[str, Tensor] = {
            name: tensor._replace(dtype=np.dtype(np.float32))
            if tensor.dtype == np.float16
            else tensor
            for name, tensor in _tensors(self._session.get_outputs()).items()
        }
        self.input_shapes: Mapping[str, tuple[int | None, ...]] = {
            name: tensor.shape for name, tensor in self.inputs.items()
        }

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
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise InferenceError(f"the graph needs {missing}; given: {sorted(inputs)}")
        feed = {
            name: np.ascontiguousarray(inputs[name], dtype=tensor.dtype)
            for name, tensor in self.inputs.items()
        }
        size = sum(array.nbytes for array in feed.values())
        with self._arena.run(size) as gives_back:
            options = _giving_back() if gives_back and self._keeps_memory else None
            try:
                outputs = self._session.run(list(self.outputs), feed, options)
            except Exception as error:
                shapes = {name: array.shape for name, array in feed.items()}
                raise InferenceError(f"ONNX Runtime refused inputs of {shapes}: {error}") from error
        return {
            name: value.astype(np.float32) if value.dtype == np.float16 else value
            for name, value in zip(self.outputs, outputs, strict=True)
        }


def _tensors(nodes: Sequence[Any]) -> dict[str, Tensor]:
    """What ONNX Runtime says of a graph's inputs or outputs, by name."""
    return {
        node.name: Tensor(
            np.dtype(_TYPES.get(node.type, np.object_)),  # texts are objects, as in ONNX Runtime
            tuple(size if isinstance(size, int) else None for size in node.shape),
        )
        for node in nodes
    }


def _giving_back() -> Any:
    """Options of a run after which the arena's unused memory goes back to the system."""
    options = engine().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
