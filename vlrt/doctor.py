"""What this machine and this environment can run, and what to install for what they cannot."""

import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from vlrt import doctor_nvidia, hardware, jpeg, nvidia, tuned
from vlrt.errors import EngineMissingError, ProviderError
from vlrt.kernels import int8_kernels
from vlrt.nvidia_driver import Facts
from vlrt.session import CPU, CUDA, TENSORRT, Placement, engine, preload, start

_BASE = ("numpy", "pillow", "tokenizers", "huggingface_hub")
# ONNX Runtime's levels of what it prints; the first is its default.
_WARNINGS, _ERRORS_ONLY, _SILENT = 2, 3, 4
_EXTRAS = {
    "fast-decode": ("simplejpeg",),
    "export": ("torch", "transformers", "optimum", "onnx", "safetensors"),
}


def report() -> tuple[list[str], bool]:
    """Lines to print, and whether everything that vlrt needs to run is there."""
    machine = hardware.describe()
    lines = [
        f"vlrt          {version('vlrt')}",
        f"python        {platform.python_version()} at {sys.executable}",
        f"system        {platform.platform()}",
        f"processor     {machine['processor']}; this process may use {machine['threads']} CPUs",
        f"cpu features  {' '.join(machine['cpu_features']) or 'unknown on this system'}",
    ]
    lines += [f"{name:<13} {_version(name) or 'MISSING'}" for name in _BASE]
    lines.append(f"large JPEGs   decoded by {jpeg.decoder()}")
    lines.append(f"tuned         {_tuned()}")
    engine_lines, healthy = _engine_lines()
    return [*lines, *engine_lines, *_extra_lines()], healthy


def _tuned() -> str:
    """How many bundles were tuned on this machine, and where that is kept."""
    root = tuned.folder()
    if root is None:
        return f"nowhere: this system tells of no home folder; set {tuned.VARIABLE}"
    number = len(list(root.glob("*.json")))
    return f"{number or 'no'} {'bundle' if number == 1 else 'bundles'}, in {root}"


def _engine_lines() -> tuple[list[str], bool]:
    preloading = _preload()  # first, so that what it loads is found
    examined = nvidia.examine()
    findings = nvidia.diagnose(*examined)
    listed = examined.installed
    advised = any(finding.kind == "build" for finding in findings)  # in NVIDIA's section
    starts: dict[int, str | None] = {}
    try:
        ort = engine()
    except ImportError as error:
        why = _why_not_imported(error, listed, advised=advised)
        lines, healthy = [f"onnxruntime   {why}"], False
    else:
        source = ", ".join(listed) or "an unknown package"
        kernels = int8_kernels()
        lines = [
            f"onnxruntime   {ort.__version__} from {source}",
            f"  int8 kernels {kernels}: {hardware.MEANINGS[kernels]}",
        ]
        available = ort.get_available_providers()
        if CUDA in available:
            explained = any(finding.fatal for finding in findings)
            starts = _starts_of_cuda(examined.facts, explained=explained)
        healthy = True
        for provider in available:
            problem = _why_no_cuda(starts) if provider == CUDA else _start(provider)
            state = "starts" if problem is None else f"DOES NOT START: {problem}"
            if problem and provider == TENSORRT:  # whose own words are long, and of no help
                state = "does not start, and CUDA does not need it; see below"
            lines.append(f"  {provider}: {state}")
            healthy &= problem is None or provider != CPU
    if len(listed) > 1:
        healthy = False
        if not advised:
            lines.append(
                f"  PROBLEM: {' and '.join(listed)} overwrite each other; keep one: "
                f"pip uninstall {' '.join(listed)}, then install one of them again"
            )
    said, works = doctor_nvidia.section(examined, findings, starts, preloading)
    return [*lines, *said], healthy and works


def _why_not_imported(error: ImportError, listed: Mapping[str, str], *, advised: bool) -> str:
    if not listed and isinstance(error, EngineMissingError):
        return f"MISSING: {error}"
    why = "its files are gone" if isinstance(error, EngineMissingError) else str(error)
    if advised or len(listed) != 1:
        return f"BROKEN: {why}"
    package = "".join(f"{name}=={number}" for name, number in listed.items())
    return f"BROKEN: {why}; install it again: pip install --force-reinstall --no-deps {package}"


def _preload() -> str:
    """What ONNX Runtime says when it loads the NVIDIA libraries that pip installed."""
    try:
        return preload()
    except ImportError:  # of which the report tells
        return ""


def _starts_of_cuda(facts: Facts, *, explained: bool) -> dict[int, str | None]:
    """Why CUDA does not start on each GPU, None where it does; of the first if none is known.

    ONNX Runtime prints the reason, which it does not raise, unless it is `explained` already.
    """
    indices = [device.index for device in facts.devices] or [0]
    level = _SILENT if explained else _ERRORS_ONLY
    return {index: _start(CUDA, {"device_id": index}, level) for index in indices}


def _why_no_cuda(starts: Mapping[int, str | None]) -> str | None:
    return None if None in starts.values() else "see below"


def _start(
    provider: str, options: Mapping[str, Any] | None = None, level: int = _SILENT
) -> str | None:
    """None, or why a provider did not start."""
    engine().set_default_logger_severity(level)
    try:
        start(Placement(((provider, options or {}),), "doctor"))
    except ProviderError as error:
        return str(error).splitlines()[0]
    finally:
        engine().set_default_logger_severity(_WARNINGS)
    return None


def _extra_lines() -> Iterator[str]:
    for extra, packages in _EXTRAS.items():
        absent = [name for name in packages if find_spec(name) is None]
        if absent:
            yield f'{extra:<13} not installed ({", ".join(absent)}): pip install "vlrt[{extra}]"'
        else:
            held = ", ".join(f"{name} {_version(name)}" for name in packages)
            yield f"{extra:<13} {held}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
