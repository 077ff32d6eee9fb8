"""What a build of ONNX Runtime for CUDA needs, and what of it this machine has.

From these sources:

- Drivers: NVIDIA's "CUDA Compatibility", table of minor version compatibility, and "CUDA Toolkit
  Release Notes", table of minimum drivers.
- Libraries: the import tables of `onnxruntime_providers_cuda` in PyPI's wheels of 1.23 to 1.31, and
  `onnxruntime.preload_dlls`. From 1.28 on cuDNN, cuFFT and NVRTC are loaded when an operator first
  needs them (microsoft/onnxruntime, pull requests 29252 and 29808).
- Chips: the headers of the machine code in the same wheels. Code serves GPUs of its own major
  compute capability, from its minor one on; PTX serves those from its own on, compiled by the
  driver (NVIDIA's "CUDA C++ Programming Guide", "Application Compatibility").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from vlrt.nvidia_driver import Load, load_by_name, problem_of

Chip = tuple[int, int]
# By the major version of CUDA: the least drivers on Linux and on Windows.
_DRIVERS = {12: ("525.60.13", "528.33"), 13: ("580", "580")}
# The first ONNX Runtime that starts without cuDNN, cuFFT and NVRTC.
_OPTIONAL_SINCE = (1, 28)
# Chips that PyPI's wheels hold machine code for, and the one whose PTX they hold besides.
_CHIPS: dict[str, tuple[tuple[Chip, ...], Chip | None]] = {
    "12": (((6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (9, 0)), (9, 0)),
    "12 Windows": (((5, 2), (6, 1), (7, 5), (8, 6), (8, 9)), (9, 0)),
    "13 before 1.29": (
        ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)),
        (12, 0),
    ),
    "13": (((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)), None),
    "13 arm": (((8, 9), (9, 0), (12, 0), (12, 1)), None),
}


class Library(NamedTuple):
    """A shared library that a build may need.

    Attributes:
        title: what it is called.
        name: its file.
        folder: where pip puts it, below the folder that holds `onnxruntime`.
        package: pip's package with it.
        needed: whether CUDA does not start without it.
        others: files of other versions of it, which do not serve.
    """

    title: str
    name: str
    folder: str
    package: str
    needed: bool
    others: tuple[str, ...]


@dataclass(frozen=True)
class Requirements:
    """What a build needs.

    Attributes:
        cuda: the major version of CUDA that it is built for.
        driver: the least driver.
        libraries: those that it loads, or may load.
        chips: compute capabilities that it holds machine code for.
        ptx: the one that newer GPUs can compile code of; None if there is none.
    """

    cuda: int
    driver: str
    libraries: tuple[Library, ...]
    chips: tuple[Chip, ...]
    ptx: Chip | None

    def runs_on(self, chip: Chip) -> bool:
        """Whether there is code for a GPU of this compute capability."""
        exact = any(chip[0] == code[0] and chip[1] >= code[1] for code in self.chips)
        return exact or (self.ptx is not None and chip >= self.ptx)


class Found(NamedTuple):
    """A library, and where it is.

    Attributes:
        library: which.
        path: its file; None if it cannot be loaded.
        version: of pip's package, if that is installed.
        problem: why it cannot be loaded although it is there.
        other: a file of another version of it that is there, if it is absent itself.
        rival: pip's package for another CUDA, which writes the same files.
    """

    library: Library
    path: str | None
    version: str | None = None
    problem: str = ""
    other: str = ""
    rival: str = ""


def requirements(
    cuda_version: str, release: str = "", system: str = "Linux", machine: str = "x86_64"
) -> Requirements | None:
    """What a build of ONNX Runtime needs; None for one without CUDA, or for a CUDA unknown here.

    Args:
        cuda_version: what it was built with, "13.0"; empty if without CUDA.
        release: its own version, "1.31.1"; empty for any that is new.
        system: as `platform.system` says it.
        machine: as `platform.machine` says it.
    """
    digits = cuda_version.partition(".")[0]
    major = int(digits) if digits.isdecimal() else 0
    if major not in _DRIVERS:
        return None
    windows = system == "Windows"
    number = tuple(map(int, re.findall(r"\d+", release)[:2])) or (99,)
    chips, ptx = _CHIPS[_key(major, number, machine, windows=windows)]
    return Requirements(
        major,
        _DRIVERS[major][windows],
        _libraries(major, number, machine, windows=windows),
        chips,
        ptx,
    )


def _key(major: int, number: tuple[int, ...], machine: str, *, windows: bool) -> str:
    if major == 12:
        return "12 Windows" if windows else "12"
    if number < (1, 29):
        return "13 before 1.29"
    return "13 arm" if machine == "aarch64" else "13"


def _libraries(
    major: int, number: tuple[int, ...], machine: str, *, windows: bool
) -> tuple[Library, ...]:
    old = number < _OPTIONAL_SINCE
    cufft = major - 1
    # Title, number in the file's name, folder and package for CUDA 12, whether it is needed.
    table = [
        ("cudart", major, "cuda_runtime", not windows or old),
        ("cublasLt", major, "cublas", True),
        ("cublas", major, "cublas", True),
        ("curand", 10, "curand", True),
        ("cufft", cufft, "cufft", old),
        ("nvrtc", major, "cuda_nvrtc", old and major == 13),
        ("cudnn", 9, "cudnn", old),
    ]
    if windows:  # these builds hold cuRAND themselves, and name NVRTC's file by its version
        table = [row for row in table if row[0] not in ("curand", "nvrtc")]
    others = {"cudnn": (8, 10), "cufft": (10, 11, 12), "curand": (), "": (11, 12, 13)}
    made = []
    for title, own, folder, needed in table:
        numbers = [other for other in others.get(title, others[""]) if other != own]
        files = [_file(title, each, windows=windows) for each in (own, *numbers)]
        suffix = f"-cu{major}" if major == 12 or title == "cudnn" else ""
        made.append(
            Library(
                title="cuDNN" if title == "cudnn" else title,
                name=files[0],
                folder=_folder(major, folder, machine, windows=windows),
                package=f"nvidia-{folder.replace('_', '-')}{suffix}",
                needed=needed,
                others=tuple(files[1:]),
            )
        )
    return tuple(made)


def _file(title: str, number: int, *, windows: bool) -> str:
    return f"{title}64_{number}.dll" if windows else f"lib{title}.so.{number}"


def _folder(major: int, folder: str, machine: str, *, windows: bool) -> str:
    if major == 12 or folder == "cudnn":
        return f"nvidia/{folder}/{'bin' if windows else 'lib'}"
    chip = "arm64" if machine.lower() in ("arm64", "aarch64") else "x86_64"
    return f"nvidia/cu{major}/" + (f"bin/{chip}" if windows else "lib")


def tensorrt(system: str) -> Library:
    """The library of TensorRT 10, which ONNX Runtime's provider for it loads."""
    name = "nvinfer_10.dll" if system == "Windows" else "libnvinfer.so.10"
    return Library("TensorRT", name, "tensorrt_libs", "tensorrt", needed=False, others=())


def look_up(
    libraries: Sequence[Library], site: Path | None, load: Load = load_by_name
) -> tuple[Found, ...]:
    """Where each library is: in pip's folder, or where the system's loader finds it.

    What is not in pip's folder is loaded, and stays loaded, which changes what a later start of
    CUDA in this process finds, to the better at most.

    Args:
        libraries: which.
        site: the folder that holds `onnxruntime`, beside which it looks for pip's libraries; None
            if it is not known.
        load: loads a shared library by its name.
    """
    return tuple(_look_up(library, site, load) for library in libraries)


def _look_up(library: Library, site: Path | None, load: Load) -> Found:
    installed = pip_version(library.package)
    rival = _rival(library)
    file = site / library.folder / library.name if site else None
    if file and file.is_file():
        return Found(library, str(file), installed, rival=rival)
    try:
        load(library.name)
    except OSError as error:
        problem = problem_of(library.name, error)
    else:
        path = _mapped(library.name) or "the system's folders"
        return Found(library, path, installed)
    other = next((name for name in library.others if _is_there(name, site, load)), "")
    return Found(library, None, installed, problem, other, rival)


def _is_there(name: str, site: Path | None, load: Load) -> bool:
    if site and any((site / "nvidia").rglob(name)):
        return True
    try:
        load(name)
    except OSError:
        return False
    return True


def _rival(library: Library) -> str:
    """What else of pip's writes cuDNN's files, whose folder is the same for every CUDA."""
    if library.title != "cuDNN":
        return ""
    names = [f"nvidia-cudnn-cu{major}" for major in (11, 12, 13)]
    return next((name for name in names if name != library.package and pip_version(name)), "")


def pip_version(package: str) -> str | None:
    """The version of a package that pip installed; None if it did not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _mapped(name: str) -> str | None:
    """The file of a library that this process loaded, where the system tells."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return None
    paths = (line.partition("/")[2] for line in lines)
    return next((f"/{path}" for path in paths if Path(path).name.startswith(name)), None)
