"""What this machine has of NVIDIA: the driver, what CUDA it supports, and the GPUs that it shows.

Everything is asked of the driver itself through `ctypes`. Asking starts the driver's part of CUDA
in this process, so `vlrt.load` asks only after CUDA failed to start.
"""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Load = Callable[[str], Any]
VISIBLE = "CUDA_VISIBLE_DEVICES"
_ROOT = Path("/")
# The driver's own libraries, CUDA's and NVML, by system.
LIBRARIES = {
    "Linux": ("libcuda.so.1", "libnvidia-ml.so.1"),
    "Windows": ("nvcuda.dll", "nvml.dll"),
}
RESTART = "restart the machine"
# What `cuInit` may answer, in words, and what helps. NVIDIA's "CUDA Driver API", `CUresult`.
ANSWERS = {
    34: (
        "the CUDA library that is found is a stub, which only serves to build programs",
        "take the CUDA toolkit's folder `stubs` out of LD_LIBRARY_PATH",
    ),
    304: (
        "the operating system refused the driver something",
        "see that this user may read and write /dev/nvidia*",
    ),
    802: (
        "the machine is not ready for CUDA",
        "with NVSwitch: sudo systemctl start nvidia-fabricmanager, of the driver's version",
    ),
    803: (
        "the driver's library and its part in the kernel differ in version, as after an update",
        f"{RESTART}; if that was done: take cuda-compat's folder out of LD_LIBRARY_PATH",
    ),
    804: (
        "a package named cuda-compat is in use, which this GPU does not support",
        "uninstall it, or take its folder out of LD_LIBRARY_PATH",
    ),
    999: (
        "the driver does not start CUDA, and does not tell why",
        f"sudo modprobe nvidia_uvm; if that does not help: {RESTART}",
    ),
}
_VENDOR = "0x10de"  # NVIDIA's, on the PCI bus
_DISPLAY = "0x03"  # the class of display and 3D controllers there
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of `CUdevice_attribute`
# What a system without NVIDIA's library says of loading it, rather than of a part of it.
_NOT_THERE = ("cannot open shared object file", "could not find module", "image not found")


@dataclass(frozen=True)
class Device:
    """A GPU, as CUDA shows it to this process.

    Attributes:
        index: N of "cuda:N".
        name: as the driver has it.
        capability: the compute capability, (9, 0) for Hopper's.
        memory: in MiB.
    """

    index: int
    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class Facts:
    """What a machine has, as far as its system and its driver tell.

    Attributes:
        system: as `platform.system` says it.
        machine: as `platform.machine` says it.
        python: the first two numbers of Python's version.
        driver: the driver's version, "580.159.03"; None if there is none that tells.
        cuda: the CUDA version that the driver supports, (13, 0); None where its library is absent.
        broken: why the driver's CUDA library, which is there, cannot be used; empty where it can.
        error: what `cuInit` answered; 0 is success, or that it was not asked.
        devices: the GPUs that CUDA shows.
        installed: GPUs that the driver manages, shown or not; None where it does not tell.
        on_bus: NVIDIA's display controllers on the PCI bus; None where the system does not tell.
        visible: CUDA_VISIBLE_DEVICES, which hides GPUs; None if it is not set.
        container: whether this is a container, into which GPUs must be passed.
    """

    system: str
    machine: str
    python: tuple[int, int]
    driver: str | None = None
    cuda: tuple[int, int] | None = None
    broken: str = ""
    error: int = 0
    devices: tuple[Device, ...] = ()
    installed: int | None = None
    on_bus: int | None = None
    visible: str | None = None
    container: bool = False

    @property
    def absent(self) -> bool:
        """Whether nothing at all of NVIDIA was found."""
        return not (self.driver or self.cuda or self.broken or self.error or self.on_bus)


def load_by_name(name: str) -> Any:
    """A shared library from where the system looks, on Windows in PATH, too, as programs do.

    Raises:
        OSError: it is not there, or cannot be loaded.
    """
    return ctypes.CDLL(name, winmode=0)


def facts(load: Load = load_by_name, root: Path = _ROOT) -> Facts:
    """What this machine has. Raises nothing on a machine that has nothing.

    Args:
        load: loads a shared library by its name.
        root: of the file system, in which the kernel tells what it knows.
    """
    system = platform.system()
    found: dict[str, Any] = {}
    if system in LIBRARIES:
        cuda, nvml = LIBRARIES[system]
        found = {**_asked_cuda(load, cuda), **_asked_nvml(load, nvml)}
    if not found.get("driver"):
        found["driver"] = _driver_of_kernel(root)
    return Facts(
        system=system,
        machine=platform.machine(),
        python=sys.version_info[:2],
        on_bus=_on_bus(root),
        visible=os.environ.get(VISIBLE),
        container=_contained(root),
        **found,
    )


def _asked_cuda(load: Load, name: str) -> dict[str, Any]:
    try:
        library = load(name)
        get_version, start, count = (
            getattr(library, function)
            for function in ("cuDriverGetVersion", "cuInit", "cuDeviceGetCount")
        )
    except OSError as error:
        problem = problem_of(name, error)
        return {"broken": f"{name} cannot be loaded: {problem}"} if problem else {}
    except AttributeError as error:
        return {"broken": f"{name} is not NVIDIA's: {error}"}
    number = ctypes.c_int()
    told: dict[str, Any] = {}
    if get_version(ctypes.byref(number)) == 0 and number.value:
        told["cuda"] = (number.value // 1000, number.value % 1000 // 10)
    told["error"] = start(0)
    if told["error"] == 0 and count(ctypes.byref(number)) == 0:
        told["devices"] = tuple(_device(library, index) for index in range(number.value))
    return told


def problem_of(name: str, error: OSError) -> str:
    """Why a library that is there cannot be loaded; empty if it is not there."""
    said = str(error)
    return "" if name in said and any(words in said.lower() for words in _NOT_THERE) else said


def _device(library: Any, index: int) -> Device:
    handle, number, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(size), handle)
    capability = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        library.cuDeviceGetAttribute(ctypes.byref(number), attribute, handle)
        capability.append(number.value)
    major, minor = capability
    return Device(index, name.value.decode(errors="replace"), (major, minor), size.value >> 20)


def _asked_nvml(load: Load, name: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    version, count = ctypes.create_string_buffer(80), ctypes.c_uint()
    try:
        library = load(name)
        if library.nvmlInit_v2():
            return {}
        if library.nvmlSystemGetDriverVersion(version, len(version)) == 0:
            told["driver"] = version.value.decode(errors="replace")
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
            told["installed"] = count.value
        library.nvmlShutdown()
    except (OSError, AttributeError):  # containers may have CUDA alone, and other systems neither
        return told
    return told


def _driver_of_kernel(root: Path) -> str | None:
    """The version of the driver in the Linux kernel, which containers see as well."""
    try:
        text = (root / "proc" / "driver" / "nvidia" / "version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module\D*?(?:for \S+)?\s+(\d+\.\d+(?:\.\d+)?)", text)
    return found[1] if found else None


def _on_bus(root: Path) -> int | None:
    """NVIDIA's display controllers that Linux lists; None where it lists no devices at all."""
    folders = list((root / "sys" / "bus" / "pci" / "devices").glob("*"))
    return sum(map(_is_gpu, folders)) if folders else None


def _is_gpu(folder: Path) -> bool:
    try:
        vendor, kind = ((folder / name).read_text().strip() for name in ("vendor", "class"))
    except OSError:
        return False
    return vendor == _VENDOR and kind.startswith(_DISPLAY)


def _contained(root: Path) -> bool:
    marks = (root / ".dockerenv", root / "run" / ".containerenv")
    return any(mark.exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ
