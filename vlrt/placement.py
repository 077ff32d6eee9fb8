"""Where graphs run, with which of a provider's options: pure decisions, by what is available."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from vlrt import cuda
from vlrt.checks import checked_count, checked_providers
from vlrt.errors import OptionError, ProviderError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, OPENVINO = "TensorrtExecutionProvider", "OpenVINOExecutionProvider"
Provider: TypeAlias = str | tuple[str, Mapping[str, Any]]
# Devices that have numbers, and the providers for them.
_NUMBERED = {"cuda": CUDA, "tensorrt": TENSORRT}
_DEVICES = "auto, cpu, cuda, cuda:0, cuda:1, ..., tensorrt, tensorrt:0, ..."
_GPU = '; for NVIDIA GPUs: pip install "vlrt[gpu]"'
_INSTALL = {CUDA: _GPU, TENSORRT: f"{_GPU} tensorrt-cu13"}


class Wishes(NamedTuple):
    """What a caller wants of a GPU.

    Attributes:
        memory_limit: what each graph may take of its memory, in MiB; None for all there is.
        cuda_graph: record a run of each shape, and replay it.
        engine_cache: the folder for TensorRT's engines.
    """

    memory_limit: int | None = None
    cuda_graph: bool = False
    engine_cache: str | None = None


@dataclass(frozen=True)
class Placement:
    """Where graphs run.

    Attributes:
        providers: ONNX Runtime's provider names with their options, the wanted one first.
        reason: why this place, in words.
        asked_for: whether the caller named it; if not, a tuned bundle may go elsewhere.
        whole: whether all that is work has to run there, as for a caller who names a device. One
            who names providers says himself which others may help.
    """

    providers: tuple[tuple[str, Mapping[str, Any]], ...]
    reason: str
    asked_for: bool = True
    whole: bool = False

    @property
    def provider(self) -> str:
        """The provider that must be active."""
        return self.providers[0][0]

    @property
    def kind(self) -> str:
        """The kind of device, as manifests name it: "cpu", "cuda", or the provider's own name."""
        return {CPU: "cpu", CUDA: "cuda"}.get(self.provider, self.provider)

    @property
    def options(self) -> Mapping[str, Any]:
        """The provider's options."""
        return self.providers[0][1]

    @property
    def device_id(self) -> int:
        """The number of the device, where devices have numbers; else 0."""
        return int(self.options.get("device_id", 0))

    @property
    def uses_cuda(self) -> bool:
        """Whether it is an NVIDIA GPU that its providers drive."""
        return self.provider in (CUDA, TENSORRT)

    @property
    def cuda_graph(self) -> bool:
        """Whether runs are recorded and replayed."""
        return str(self.options.get("enable_cuda_graph", 0)) in ("1", "True", "true")

    def for_precision(self, precision: str) -> "Placement":
        """The same for graphs in a precision, which TensorRT wants to be told of."""
        if self.provider != TENSORRT or precision != "fp16":
            return self
        (name, options), *helpers = self.providers
        told = {**options, "trt_fp16_enable": "1"}
        return replace(self, providers=((name, told), *helpers))

    def __str__(self) -> str:
        """The provider, and its options if there are any that it does not always have."""
        usual = cuda.options() if self.provider == CUDA else {}
        own = {name: value for name, value in self.options.items() if usual.get(name) != value}
        return f"{self.provider} with {own}" if own else self.provider


def placed(
    available: Sequence[str],
    device: str = "auto",
    providers: Sequence[Provider] | None = None,
    wishes: Wishes | None = None,
) -> Placement:
    """Decide where graphs run.

    Args:
        available: the providers that ONNX Runtime was built with.
        device: "cpu", "cuda", "cuda:N", "tensorrt", "tensorrt:N", or "auto": CUDA where ONNX
            Runtime is built for it, otherwise the CPU.
        providers: ONNX Runtime's own provider names, for anything else, each alone or with its
            options: `[("OpenVINOExecutionProvider", {"device_type": "CPU"})]`. The first must
            become active, the others serve the nodes that it lacks. Leaves `device` without
            effect, so giving both is an error. Options of CUDA's that are not given are those that
            `device` gives it.
        wishes: what is wanted of a GPU.

    Raises:
        ProviderError: this ONNX Runtime was not built with it.
        OptionError: `device`, `providers` or a wish is none of the above, or a wish is for another
            device.
    """
    wanted = wishes or Wishes()
    if wanted.memory_limit is not None:
        checked_count("memory_limit", wanted.memory_limit)
    if providers is not None:
        if device != "auto":
            raise OptionError(f"give device={device!r} or providers={providers!r}, not both")
        found = _by_name(available, providers)
    elif device == "auto":
        built = "for" if CUDA in available else "without"
        reason = f"auto: this ONNX Runtime is built {built} CUDA"
        found = _numbered("cuda", 0, reason, wanted) if CUDA in available else _on_cpu(reason)
        # Nobody asked for all of it; `vlrt.load` says what the CPU does.
        found = replace(found, asked_for=False, whole=False)
    elif device == "cpu":
        found = _on_cpu("device='cpu' was given")
    else:
        kind, colon, index = device.partition(":")
        if kind not in _NUMBERED or (colon and not index.isdecimal()):
            raise OptionError(f"device is {device!r}; valid: {_DEVICES}")
        need_providers([_NUMBERED[kind]], available)
        found = _numbered(kind, int(index or 0), f"device={device!r} was given", wanted)
    _check_wishes(wanted, found, named=providers is not None)
    return found


def _on_cpu(reason: str) -> Placement:
    return Placement(((CPU, {}),), reason)


def _by_name(available: Sequence[str], providers: Sequence[Provider]) -> Placement:
    pairs = checked_providers(providers, available)
    need_providers([name for name, _ in pairs], available)
    full = tuple(
        (name, {**cuda.options(), **options} if name == CUDA else options)
        for name, options in pairs
    )
    return Placement(full, "providers were given")


def _numbered(kind: str, index: int, reason: str, wanted: Wishes) -> Placement:
    """A GPU, by its number."""
    on_cuda = (CUDA, cuda.options(index, wanted.memory_limit, cuda_graph=wanted.cuda_graph))
    if kind == "cuda":
        return Placement((on_cuda, (CPU, {})), reason, whole=True)
    if not wanted.engine_cache:
        raise OptionError(
            "device='tensorrt' needs engine_cache=FOLDER: it takes minutes to build an engine, "
            "which is kept there for the next time"
        )
    options = cuda.tensorrt_options(index, wanted.engine_cache)
    return Placement(((TENSORRT, options), on_cuda, (CPU, {})), reason, whole=True)


def _check_wishes(wanted: Wishes, found: Placement, *, named: bool) -> None:
    """Refuse a wish that would have no effect."""
    suited = {"memory_limit": (CUDA,), "cuda_graph": (CUDA,), "engine_cache": (TENSORRT,)}
    for name, value in wanted._asdict().items():
        if value is None or value is False:
            continue
        if named:
            raise OptionError(
                f"{name} goes with device=...; beside providers=..., give the provider's own option"
            )
        if found.provider not in suited[name]:
            device = "tensorrt" if name == "engine_cache" else "cuda"
            raise OptionError(
                f"{name} is {value!r}, and is for device={device!r}; graphs would run on "
                f"{found.provider} ({found.reason})"
            )


def need_providers(names: Sequence[str], available: Sequence[str]) -> None:
    """See that ONNX Runtime was built with providers.

    Raises:
        ProviderError: it was not; the message says what to install, where that is known.
    """
    for name in names:
        if name not in available:
            raise ProviderError(
                f"this ONNX Runtime has no {name!r}; it has: {', '.join(available)}"
                f"{_INSTALL.get(name, '')}"
            )
