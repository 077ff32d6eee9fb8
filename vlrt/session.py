"""The only file that imports ONNX Runtime: providers, precision, threads, memory, running."""

import importlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlrt.bundle import Bundle
from vlrt.errors import (
    BundleError,
    EngineMissingError,
    InferenceError,
    OptionError,
    PrecisionError,
    ProviderError,
)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
Arrays = Mapping[str, NDArray[Any]]
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


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
    """

    providers: tuple[tuple[str, Mapping[str, Any]], ...]
    reason: str

    @property
    def provider(self) -> str:
        """The provider that must be active."""
        return self.providers[0][0]

    @property
    def kind(self) -> str:
        """The kind of device, as manifests name it: "cpu", "cuda", or the provider's own name."""
        return {CPU: "cpu", CUDA: "cuda"}.get(self.provider, self.provider)


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


def place(device: str = "auto", providers: Sequence[str] | None = None) -> Placement:
    """Decide where graphs run.

    Args:
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA where this ONNX Runtime is built for it,
            otherwise the CPU.
        providers: ONNX Runtime's own provider names, for anything else; the first must become
            active, the others serve the nodes that it lacks. Leaves `device` without effect, so
            giving both is an error.

    Raises:
        ProviderError: this ONNX Runtime was not built with it.
        OptionError: `device` is none of the above.
    """
    available = engine().get_available_providers()
    if providers is not None:
        if device != "auto":
            raise OptionError(f"give device={device!r} or providers={providers!r}, not both")
        if not providers:
            raise OptionError("providers is empty; valid: " + ", ".join(available))
        _need_providers(providers, available)
        return Placement(tuple((name, {}) for name in providers), "providers were given")
    if device == "auto":
        if CUDA in available:
            return Placement(
                ((CUDA, {"device_id": 0}), (CPU, {})), "auto: this ONNX Runtime is built for CUDA"
            )
        return Placement(((CPU, {}),), "auto: this ONNX Runtime is built without CUDA")
    if device == "cpu":
        return Placement(((CPU, {}),), "device='cpu' was given")
    kind, colon, index = device.partition(":")
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise OptionError(f"device is {device!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, ...")
    _need_providers([CUDA], available)
    options = {"device_id": int(index or 0)}
    return Placement(((CUDA, options), (CPU, {})), f"device={device!r} was given")


def _need_providers(names: Sequence[str], available: Sequence[str]) -> None:
    for name in names:
        if name not in available:
            hint = '; for NVIDIA GPUs: pip install "vlrt[gpu]"' if name == CUDA else ""
            raise ProviderError(
                f"this ONNX Runtime has no {name!r}; it has: {', '.join(available)}{hint}"
            )


def choose_precision(
    bundle: Bundle, components: Sequence[str], requested: str, kind: str
) -> tuple[str, str]:
    """Decide which variant to load.

    Args:
        bundle: the bundle.
        components: the components that the model needs.
        requested: a precision, or "auto": the one that the manifest measured as fastest on this
            kind of device, out of those that passed its gate (no other is ever written); fp32
            where nothing was measured.
        kind: as `Placement.kind` gives it.

    Returns:
        The precision, and the reason in words.

    Raises:
        PrecisionError: the bundle does not hold it for every component.
    """
    for component in components:
        if component not in bundle.variants:
            bundle.files(component, requested)  # raises, naming what is there
    held = bundle.held(components)
    if requested != "auto":
        if requested not in held:
            raise PrecisionError(
                f"{bundle.name} has no precision {requested!r}; it has: {', '.join(held)}"
            )
        return requested, "it was asked for"
    if not held:
        raise PrecisionError(f"{bundle.name} has no precision that all its components share")
    if len(held) == 1:
        return held[0], "auto: it is the only one held"
    speed = _measured_speed(bundle, kind)
    timed = [precision for precision in held if precision in speed]
    if len(timed) > 1:
        fastest = min(timed, key=lambda precision: speed[precision])
        return fastest, f"auto: the manifest measured it as the fastest of {', '.join(timed)}"
    if "fp32" in held:
        return "fp32", f"auto: no variants were compared on {kind}, so the exact one is taken"
    return held[0], f"auto: no variants were compared on {kind}; it is the first one held"


def _measured_speed(bundle: Bundle, kind: str) -> dict[str, float]:
    """Milliseconds for one item through all components, by precision, on one kind of device."""
    if bundle.manifest is None:
        return {}
    total: dict[str, list[float]] = {}
    components = bundle.manifest.section("components")
    for component in components:
        variants = components.section(component).section("variants")
        for precision in variants:
            speed = variants.section(precision).get("speed") or {}
            if speed.get("device") == kind:
                total.setdefault(precision, []).append(speed["median_ms"])
    return {p: sum(times) for p, times in total.items() if len(times) == len(components)}


def available_cpus() -> int:
    """Cores that this process may really use: its affinity, and its container's CPU quota.

    A container limited to 2 CPUs of a 64-core host sees 64; ONNX Runtime would start 64 threads
    there and run many times slower. Both cgroup versions are read.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = _cgroup_quota(Path("/sys/fs/cgroup"))
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _cgroup_quota(root: Path) -> float | None:
    """The CPU limit in cores that a cgroup file system states, or None."""
    try:
        limit, _, period = (root / "cpu.max").read_text().strip().partition(" ")
    except OSError:
        try:
            limit = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in ("max", "-1"):
        return None
    return int(limit) / int(period or 100_000)


class Session:
    """One graph, loaded. Safe to run from several threads at once.

    Args:
        path: the graph.
        placement: where to run it.
        threads: threads inside one operator.
        spinning: whether idle threads spin for a moment. On, they cost a neighbour its core while
            they wait; off, a single small request takes longer.

    Raises:
        BundleError: ONNX Runtime cannot load the file.
        ProviderError: the provider was asked for, but did not start.
    """

    def __init__(
        self, path: Path, placement: Placement, *, threads: int, spinning: bool = True
    ) -> None:
        ort = engine()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        options.log_severity_level = 4  # errors are raised, with their text, and not printed too
        # Without an arena, a batch's memory goes back when it is done; with it, the process would
        # stay as large as the largest batch it ever saw.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        try:
            self._session = ort.InferenceSession(
                str(path),
                sess_options=options,
                providers=[name for name, _ in placement.providers],
                provider_options=[dict(values) for _, values in placement.providers],
            )
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise BundleError(
                f"ONNX Runtime {ort.__version__} cannot load {path}: {error}"
            ) from error
        active = self._session.get_providers()
        if active[0] != placement.provider:
            raise ProviderError(
                f"{placement.provider} did not start; active: {', '.join(active)}. "
                "`vlrt doctor` says what is missing"
            )
        self._types = {node.name: _TYPES.get(node.type) for node in self._session.get_inputs()}
        self._outputs = [node.name for node in self._session.get_outputs()]
        self.input_shapes: Mapping[str, tuple[int | None, ...]] = {
            node.name: tuple(size if isinstance(size, int) else None for size in node.shape)
            for node in self._session.get_inputs()
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
        missing = [name for name in self._types if name not in inputs]
        if missing:
            raise InferenceError(f"the graph needs {missing}; given: {sorted(inputs)}")
        feed = {
            name: np.ascontiguousarray(inputs[name], dtype=kind)
            for name, kind in self._types.items()
        }
        try:
            outputs = self._session.run(self._outputs, feed)
        except Exception as error:
            shapes = {name: array.shape for name, array in feed.items()}
            raise InferenceError(f"ONNX Runtime refused inputs of {shapes}: {error}") from error
        return {
            name: value.astype(np.float32) if value.dtype == np.float16 else value
            for name, value in zip(self._outputs, outputs, strict=True)
        }
