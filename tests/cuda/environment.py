"""ONNX Runtime with its real CUDA provider, on libraries that stand in for NVIDIA's.

The provider's own code decides what runs on a GPU, what is copied when, which options it takes and
what it captures; NVIDIA's libraries only do what they are told. So with libraries whose functions
succeed and compute nothing, everything but the numbers can be tested on a machine without a GPU.
`stand_in/` holds those functions that must do something; all others that the provider asks for are
generated, from what its file says it needs, so that a newer provider finds them too.

Both are made once a machine, in `$XDG_CACHE_HOME/vlrt-tests`. They need Linux on x86-64, gcc, and
the Python package index.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ONNXRUNTIME_GPU = "1.31.1"
# CUDA's headers, of the release that this ONNX Runtime was built with.
HEADERS = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-crt==13.0.88")
SOURCES = Path(__file__).parent / "stand_in"
# What comes with the driver, and stands on the system's path; all else is where pip's packages of
# NVIDIA keep it.
DRIVER = ("libcuda.so.1", "libnvidia-ml.so.1")
CUDNN = "libcudnn.so.9"
# What is opened by name, and so is not in the list of what the provider needs.
OPENED_BY_NAME = (CUDNN, "libnvidia-ml.so.1")
# What computes, in cuBLAS and cuDNN; the log tells of it.
_ROUTINE = re.compile(
    r"cublas\w*([Gg]e(mm|am)|LtMatmul$)|cudnn(ReduceTensor|\w+Forward|\w+Execute)"
)


class UnavailableError(Exception):
    """The environment cannot be made here; its text says why."""


class Environment(NamedTuple):
    """What was made.

    Attributes:
        packages: a folder as pip leaves it, with `onnxruntime` and its metadata.
        libraries: a folder with the stand-ins, by their file names.
    """

    packages: Path
    libraries: Path

    def compose(self, root: Path, without: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """Lay out a machine, in links: what pip installed, and what came with the driver.

        Args:
            root: an empty folder.
            without: file names of libraries that this machine lacks.

        Returns:
            The folder of packages and that of the driver.
        """
        packages, driver = root / "packages", root / "driver"
        packages.mkdir()
        driver.mkdir()
        for path in self.packages.glob("onnxruntime*"):
            (packages / path.name).symlink_to(path)
        for folder in (packages / "nvidia" / "cu13" / "lib", packages / "nvidia" / "cudnn" / "lib"):
            folder.mkdir(parents=True)
        for path in self.libraries.iterdir():
            if path.name in DRIVER:
                folder = driver
            else:
                part = "cudnn" if path.name == CUDNN else "cu13"
                folder = packages / "nvidia" / part / "lib"
            if path.name not in without:
                (folder / path.name).symlink_to(path)
        return packages, driver


def prepared() -> Environment:
    """Make the environment, or find it made.

    Raises:
        UnavailableError: this machine is not one for which it can be made, or lacks the means.
    """
    here = (platform.system(), platform.machine(), platform.python_implementation())
    if here != ("Linux", "x86_64", "CPython"):
        raise UnavailableError(f"onnxruntime-gpu runs on Linux, x86_64, CPython; this is {here}")
    compiler = shutil.which("gcc")
    if compiler is None:
        raise UnavailableError("there is no gcc to compile the stand-ins with")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlrt-tests"
    cache.mkdir(parents=True, exist_ok=True)
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    packages = _made(
        cache / f"onnxruntime-gpu-{ONNXRUNTIME_GPU}-{tag}",
        lambda to: _install(to, f"onnxruntime-gpu=={ONNXRUNTIME_GPU}"),
    )
    headers = _made(cache / HEADERS[0].replace("==", "-"), lambda to: _install(to, *HEADERS))
    include = headers / "nvidia" / "cu13" / "include"
    provider = packages / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
    libraries = _made(
        cache / f"stand-in-{_digest(provider)}",
        lambda to: _compile(compiler, provider, include, to),
    )
    return Environment(packages, libraries)


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder whole or not at all, by one process at a time."""
    import fcntl  # not on Windows

    with folder.with_suffix(f"{folder.suffix}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                make(Path(scratch) / "made")
                (Path(scratch) / "made").rename(folder)
    return folder


def _run(*command: str | Path, failing: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise UnavailableError(f"{failing}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def _install(to: Path, *packages: str) -> None:
    """Install packages without what they depend on: the rest is the running environment's."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(*pip, "--no-deps", "--target", to, *packages, failing=f"pip cannot install {packages}")


def _digest(provider: Path) -> str:
    """Of everything that the stand-ins are made from."""
    parts = [str((provider.parents[2].name, HEADERS)).encode(), Path(__file__).read_bytes()]
    parts += [path.name.encode() + path.read_bytes() for path in sorted(SOURCES.iterdir())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _stem(library: str) -> str:
    """The part of a library's file name between "lib" and ".so"."""
    return library.removeprefix("lib").partition(".so")[0]


def _compile(compiler: str, provider: Path, include: Path, to: Path) -> None:
    """Compile every library that the provider needs of NVIDIA, or opens by name."""
    to.mkdir()
    asked = _run("readelf", "--wide", "--dynamic", "--dyn-syms", provider, failing="readelf")
    needed = re.findall(r"\(NEEDED\).*\[(libcu\w*\.so\.\d+)\]", asked)
    functions = re.findall(r" UND (\w+)", asked)
    named = re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes())
    functions += sorted({name.decode() for name in named})
    for library in (*needed, *OPENED_BY_NAME):
        stem = _stem(library)
        generated = to / f"{stem}.c"
        generated.write_text("\n".join(_generated(_owned(functions, stem))))
        # A library's symbols bear its name as their version, where NVIDIA gives them any.
        script = to / f"{stem}.map"
        script.write_text(f"{library} {{ global: *; }};\n")
        versioned = [f"-Wl,--version-script,{script}"] if f"@{library}" in asked else []
        _run(
            compiler, "-shared", "-fPIC", "-O1", "-pthread", f"-Wl,-soname,{library}", *versioned,
            "-I", SOURCES, "-I", include, generated,
            *sorted(SOURCES.glob(f"{stem}.c")), *sorted(SOURCES.glob(f"{stem}_*.c")),
            "-o", to / library, failing=f"compiling {library}",
        )  # fmt: skip
        generated.unlink()
        script.unlink()


def _owned(functions: list[str], stem: str) -> Iterator[str]:
    """Those of the functions that a library defines, which their names tell."""
    prefix = {
        "cuda": r"cu[A-Z]",
        "cudart": r"(__)?cuda[A-Z]",
        "cublas": r"cublas(?!Lt)",
    }.get(stem, re.escape(stem))
    return (name for name in functions if re.match(prefix, name))


def _generated(functions: Iterator[str]) -> Iterator[str]:
    """C that defines functions which succeed, and gives way to what `stand_in/` defines."""
    yield '#include "machine.h"'
    for name in functions:
        noted = ""
        if _ROUTINE.match(name):
            noted = rf'note("{{\"call\": \"routine\", \"name\": \"{name}\"}}"); '
        yield f"__attribute__((weak)) int {name}(void) {{ {noted}return 0; }}"
