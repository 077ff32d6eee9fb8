"""What this machine and this environment can run, and what to install for what they cannot."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from vlrt import hardware, jpeg, tuned
from vlrt.errors import EngineMissingError, ProviderError
from vlrt.kernels import int8_kernels
from vlrt.session import CPU, Placement, engine, start

_BASE = ("numpy", "pillow", "tokenizers", "huggingface_hub")
_EXTRAS = {
    "fast-decode": ("simplejpeg",),
    "export": ("torch", "transformers", "optimum", "onnx", "safetensors"),
}
_ENGINES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


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
    installed = [name for name in _ENGINES if _version(name)]
    try:
        ort = engine()
    except EngineMissingError as error:
        return [f"onnxruntime   MISSING: {error}"], False
    lines = [f"onnxruntime   {ort.__version__} from {', '.join(installed) or 'an unknown package'}"]
    kernels = int8_kernels()
    lines.append(f"  int8 kernels {kernels}: {hardware.MEANINGS[kernels]}")
    healthy = True
    if len(installed) > 1:
        healthy = False
        lines.append(
            f"  PROBLEM: {' and '.join(installed)} overwrite each other; keep one: "
            f"pip uninstall {' '.join(installed)}, then install one of them again"
        )
    for provider in ort.get_available_providers():
        problem = _start(provider)
        lines.append(
            f"  {provider}: {'starts' if problem is None else 'DOES NOT START: ' + problem}"
        )
        healthy &= problem is None or provider != CPU
    if "onnxruntime-gpu" not in installed:
        lines.append('  for NVIDIA GPUs, replace it: pip uninstall onnxruntime; '
                     'pip install "vlrt[gpu]"')  # fmt: skip
    return lines, healthy


def _start(provider: str) -> str | None:
    """None, or why a provider did not start."""
    try:
        start(Placement(((provider, {}),), "doctor"))
    except ProviderError as error:
        return str(error).splitlines()[0]
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
