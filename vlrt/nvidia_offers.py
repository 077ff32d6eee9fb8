"""Which builds of ONNX Runtime pip has for NVIDIA GPUs, and what to type to get one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vlrt.nvidia_driver import Facts
from vlrt.nvidia_libraries import Found, requirements

GPU_BUILD = "onnxruntime-gpu"
# The first release that says which nodes run on the GPU, which `vlrt.gpu` asks.
TELLS_NODES = (1, 24)
_X86 = ("x86_64", "AMD64")


class Offer(NamedTuple):
    """A build that pip can install.

    Attributes:
        spec: what to tell pip.
        cuda_version: the CUDA that the build is for.
        release: of ONNX Runtime; empty for the newest.
        python: the least Python.
        machines: what it is made for, as `platform.machine` says it.
    """

    spec: str
    cuda_version: str
    release: str
    python: tuple[int, int]
    machines: tuple[str, ...]


# The best first, as PyPI has them: for CUDA 13 since 1.27, whose extra `cuda` names packages that
# do not exist; with machine code for compute capability 10.0 up to 1.28; for Arm since 1.29.
# Python 3.10 gets 1.23 at the most, which is older than `TELLS_NODES`.
_OFFERS = (
    Offer("vlrt[gpu]", "13.0", "", (3, 11), (*_X86, "aarch64")),
    Offer(f"{GPU_BUILD}[cuda,cudnn]==1.28.*", "13.0", "1.28", (3, 11), _X86),
    Offer(f"{GPU_BUILD}[cuda,cudnn]<1.27", "12.8", "1.26", (3, 11), _X86),
)


@dataclass(frozen=True)
class Build:
    """The ONNX Runtime that is imported here.

    Attributes:
        version: its release.
        package: what it says that pip's package is called.
        cuda_version: of the CUDA that it is built with, "13.0"; empty if without, or if it does
            not tell.
        has_cuda: whether it has the provider.
        site: the folder that holds it.
    """

    version: str
    package: str
    cuda_version: str
    has_cuda: bool
    site: Path | None = None

    @property
    def release(self) -> tuple[int, ...]:
        """Its release as numbers, (1, 31); empty if it is none of numbers."""
        parts = self.version.split(".")[:2]
        return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()

    def __str__(self) -> str:
        """Package and release."""
        return f"{self.package or 'onnxruntime'} {self.version}"


def best(facts: Facts) -> Offer | None:
    """The build that fits a machine's driver, its GPUs and its Python; None if none does."""
    return next((offer for offer in _OFFERS if _fits(offer, facts)), None)


def _fits(offer: Offer, facts: Facts) -> bool:
    needs = requirements(offer.cuda_version, offer.release, facts.system, facts.machine)
    chips = [device.capability for device in facts.devices]
    return (
        needs is not None
        and facts.python >= offer.python
        and facts.machine in offer.machines
        and (facts.cuda is None or facts.cuda[0] >= needs.cuda)
        and (not chips or any(map(needs.runs_on, chips)))
    )


def another(offer: Offer, build: Build, found: Sequence[Found]) -> str:
    """What to type for another build in the place of one that has CUDA."""
    # pip replaces the build itself. The packages of cuDNN for two CUDAs write the same files.
    remove = [
        f"pip uninstall -y {each.library.package}; "
        for each in found
        if each.library.title == "cuDNN" and each.version
    ]
    same = offer.cuda_version.partition(".")[0] == build.cuda_version.partition(".")[0]
    return f'{"" if same else "".join(remove)}pip install "{offer.spec}"'


def instead(facts: Facts, installed: Mapping[str, str]) -> str:
    """What to type to have one build, with CUDA, instead of those that pip lists."""
    offer = best(facts)
    if offer is None and facts.python < _OFFERS[-1].python:
        major, minor = facts.python
        return f'use Python 3.11 or newer, which this, {major}.{minor}, is not; or device="cpu"'
    if offer is None:
        return 'PyPI has no build that fits this machine; on the CPU it runs: device="cpu"'
    remove = f"pip uninstall -y {' '.join(installed)}; " if installed else ""
    return f'{remove}pip install "{offer.spec}"'


def supply(build: Build, absent: Sequence[Found]) -> str:
    """What to type to get libraries that a build lacks."""
    release = ">=1.28" if build.version.startswith("1.27") else f"=={build.version}"
    typed = [f'pip install "{GPU_BUILD}[cuda,cudnn]{release}"']
    # What pip lists it takes as there, be it in a folder where ONNX Runtime does not look.
    listed = [f"{each.library.package}=={each.version}" for each in absent if each.version]
    if len(listed) == len(absent):
        typed.clear()
    if listed:
        packages = " ".join(dict.fromkeys(listed))
        typed.append(f"pip install --force-reinstall --no-deps {packages}")
    return "; ".join(typed)
