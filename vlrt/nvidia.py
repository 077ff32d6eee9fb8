"""Whether CUDA will work here, and if not, why, and what to type: facts in, findings out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from vlrt.nvidia_driver import ANSWERS, LIBRARIES, RESTART, VISIBLE, Device, Facts, facts
from vlrt.nvidia_libraries import Found, Requirements, look_up, requirements
from vlrt.nvidia_offers import GPU_BUILD, TELLS_NODES, Build, another, best, instead, supply

ENGINES = ("onnxruntime", GPU_BUILD, "onnxruntime-openvino", "onnxruntime-directml")
DRIVERS = "https://www.nvidia.com/drivers"
_INTO_CONTAINER = "docker run --gpus all (with the NVIDIA Container Toolkit on the host)"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        kind: "gpu", "driver", "hidden", "build", "chip" or "library".
        problem: what, in words.
        advice: what to type or to do.
        fatal: whether CUDA does not start for it.
    """

    kind: str
    problem: str
    advice: str
    fatal: bool = True


class Examined(NamedTuple):
    """A machine and its environment.

    Attributes:
        facts: what it has of NVIDIA.
        needs: what the build needs; None for one without CUDA or for one of another CUDA than 12
            and 13.
        installed: pip's builds of ONNX Runtime, with their versions.
        build: the one that is imported; None if none can be.
        found: the libraries that the build needs or may need.
    """

    facts: Facts
    needs: Requirements | None
    installed: Mapping[str, str]
    build: Build | None
    found: Sequence[Found]


def examine() -> Examined:
    """This machine and this environment. Starts the driver's part of CUDA in this process."""
    there, build = facts(), imported()
    needs = None
    if build and build.has_cuda:
        needs = requirements(build.cuda_version, build.version, there.system, there.machine)
    found = look_up(needs.libraries, build.site) if needs and build else ()
    return Examined(there, needs, installed(build.site if build else None), build, found)


def installed(site: Path | None = None) -> dict[str, str]:
    """The builds of ONNX Runtime that pip lists, with their versions.

    Args:
        site: the folder of the one that is imported, which hides those in other folders; None for
            those of all.
    """
    found = {}
    for name in ENGINES:
        try:
            listed = distribution(name)
        except PackageNotFoundError:
            continue
        folder = Path(str(listed.locate_file(""))).resolve()
        if site is None or folder == site.resolve():
            found[name] = listed.version
    return found


def imported() -> Build | None:
    """The ONNX Runtime that is imported here; None if none can be."""
    from vlrt.session import CUDA, engine

    try:
        ort = engine()
    except ImportError:
        return None
    file = getattr(ort, "__file__", None)
    return Build(
        getattr(ort, "__version__", ""),
        getattr(ort, "package_name", ""),
        getattr(ort, "cuda_version", ""),
        CUDA in ort.get_available_providers(),
        Path(file).parent.parent if file else None,
    )


def why_not() -> str:
    """Why CUDA does not start here, and what to type, in two lines; empty if nothing is wrong.

    For errors, after CUDA failed: asking starts the driver's part of CUDA.
    """
    findings = sorted(diagnose(*examine()), key=lambda finding: not finding.fatal)
    return f"{findings[0].problem}\n{findings[0].advice}" if findings else ""


def diagnose(
    facts: Facts,
    needs: Requirements | None,
    installed: Mapping[str, str],
    build: Build | None,
    found: Sequence[Found] = (),
) -> list[Finding]:
    """What is wrong, the root of it first; empty if CUDA should work. As `Examined` has them."""
    if facts.absent:
        return [_nothing(facts, build)]
    findings = [*_of_machine(facts), *_of_build(facts, installed, build)]
    if needs and build:
        chips = _of_chips(facts, needs, build, found)
        findings += chips
        if any(finding.fatal for finding in chips):  # neither a driver nor libraries would help
            return findings
        findings += _of_driver(facts, needs, build, found)
        findings += _of_libraries(build, found)
    return findings


def _nothing(facts: Facts, build: Build | None) -> Finding:
    problem = "this machine has no NVIDIA GPU and no driver of one"
    advice = 'run on the CPU: device="cpu"'
    if facts.system not in LIBRARIES:
        problem = f"CUDA is for Linux and Windows, and this is {facts.system}"
    if build and build.has_cuda:
        advice += f', or pip uninstall -y {build.package or GPU_BUILD}; pip install "vlrt[cpu]"'
    if facts.container:
        advice += f". If the host has a GPU: {_INTO_CONTAINER}"
    return Finding("gpu", problem, advice)


def _of_machine(facts: Facts) -> Iterator[Finding]:
    """A GPU that is not there, or that its driver does not show."""
    if facts.broken:
        yield Finding("driver", facts.broken, f"install the driver again: {DRIVERS}")
    elif facts.error or facts.cuda:
        if not facts.devices:
            yield _not_shown(facts)
    elif facts.driver:
        name = LIBRARIES[facts.system][0]
        problem = f"driver {facts.driver} is loaded, but CUDA's part of it, {name}, is not found"
        if facts.container:
            advice = (
                f"{_INTO_CONTAINER}; NVIDIA_DRIVER_CAPABILITIES must have `compute` if it is set"
            )
        else:
            package = f"libnvidia-compute-{facts.driver.partition('.')[0]}"
            advice = f"install it (on Ubuntu: sudo apt install {package}), or all of it: {DRIVERS}"
        yield Finding("driver", problem, advice)
    else:
        problem = "this machine has an NVIDIA GPU, and no driver for it is loaded"
        advice = f"install one ({DRIVERS}; on Ubuntu: sudo ubuntu-drivers install), and {RESTART}"
        yield Finding("driver", problem, _INTO_CONTAINER if facts.container else advice)


def _not_shown(facts: Facts) -> Finding:
    if facts.error in ANSWERS:
        problem, advice = ANSWERS[facts.error]
        return Finding("driver", f"{problem} (error {facts.error} of cuInit)", advice)
    if facts.error not in (0, 100, 101):
        problem = f"the driver does not start CUDA: cuInit gives error {facts.error}"
        return Finding("driver", problem, f"{RESTART}; then try nvidia-smi")
    if facts.visible is not None and facts.installed != 0:
        clear = f"set {VISIBLE}=" if facts.system == "Windows" else f"unset {VISIBLE}"
        return Finding("hidden", f"{VISIBLE}={facts.visible!r} hides every GPU", clear)
    advice = "nvidia-smi -L should list one; if not, the log may say why: sudo dmesg | grep -i nvrm"
    return Finding(
        "gpu",
        f"NVIDIA's driver{f' {facts.driver}' if facts.driver else ''} is there, but shows no GPU",
        _INTO_CONTAINER if facts.container else advice,
    )


def _of_build(facts: Facts, installed: Mapping[str, str], build: Build | None) -> Iterator[Finding]:
    """An ONNX Runtime that is absent, without CUDA, or two of them in one folder."""
    listed = " and ".join(f"{name} {version}" for name, version in installed.items())
    others = [name for name in installed if name != GPU_BUILD]
    again = instead(facts, installed)
    if build is None and installed:
        problem = (
            f"pip lists {listed}, but its files are gone or broken, as when two builds are "
            "uninstalled over each other"
        )
    elif build is None:
        problem = "ONNX Runtime is not installed"
    elif build.has_cuda:
        if build.release and build.release < TELLS_NODES:
            problem = f"{build} is too old to say which nodes run on the GPU, which vlrt asks of it"
            yield Finding("build", problem, again)
        if others and GPU_BUILD in installed:
            problem = f"{listed} overwrite each other; what is imported has CUDA"
            yield Finding("build", problem, again, fatal=False)
        return
    elif GPU_BUILD in installed and others:
        problem = f"{listed} are both installed, and {build}, without CUDA, overwrote the other"
    elif GPU_BUILD in installed:
        problem = f"pip lists {listed}, but what is imported, from {build.site}, is without CUDA"
    else:
        has = "this machine has an NVIDIA GPU, and " if facts.devices else ""
        problem = f"{has}{build} is built without CUDA"
    yield Finding("build", problem, again)


def _of_chips(
    facts: Facts, needs: Requirements, build: Build, found: Sequence[Found]
) -> list[Finding]:
    """GPUs that the build holds no machine code for."""
    alien = [device for device in facts.devices if not needs.runs_on(device.capability)]
    if not alien:
        return []
    codes = ", ".join(map(_number, needs.chips)) + (" and newer" if needs.ptx else "")
    problem = f"{', '.join(map(_of_capability, alien))}; {build} has machine code for {codes} only"
    if len(alien) < len(facts.devices):
        other = next(device for device in facts.devices if device not in alien)
        advice = f'take another: device="cuda:{other.index}"'
        return [Finding("chip", problem, advice, fatal=False)]
    offer = best(facts)
    advice = (
        another(offer, build, found) if offer else 'PyPI has no build with it; device="cpu" runs'
    )
    return [Finding("chip", problem, advice)]


def _of_driver(
    facts: Facts, needs: Requirements, build: Build, found: Sequence[Found]
) -> list[Finding]:
    """A driver that is too old for the CUDA of the build."""
    if facts.cuda is None or facts.cuda[0] >= needs.cuda:
        return []
    problem = (
        f"driver {facts.driver or 'of unknown version'} supports CUDA up to "
        f"{_number(facts.cuda)}; {build} is built for CUDA {build.cuda_version}, which needs "
        f"driver {needs.driver} or newer"
    )
    advice = f"install a newer driver: {DRIVERS}"
    offer = best(facts)
    if offer:
        advice += f"; or, for this driver: {another(offer, build, found)}"
    return [Finding("driver", problem, advice)]


def _of_libraries(build: Build, found: Sequence[Found]) -> Iterator[Finding]:
    """Libraries that cannot be loaded, or of which another version is there."""
    absent = [each for each in found if not each.path]
    needed = [each for each in absent if each.library.needed]
    if needed:
        problem = f"{build} does not find {', '.join(map(_described, needed))}"
        yield Finding("library", problem, supply(build, needed))
    optional = [each for each in absent if each.library.title == "cuDNN" and each not in needed]
    for each in optional:
        problem = (
            f"{build} does not find {_described(each)}: CUDA starts without it, but graphs with "
            "convolutions do not run (those of `vlrt export` have none)"
        )
        yield Finding("library", problem, supply(build, optional), fatal=False)
    for each in found:
        if each.path and each.rival:
            own = each.library.package
            listed = f"{own} {each.version} and {each.rival}" if each.version else each.rival
            problem = f"cuDNN's folder holds files of {listed}; {build} needs those of {own} alone"
            advice = f'pip uninstall -y {each.rival} {own}; pip install "{own}<10"'
            yield Finding("library", problem, advice, fatal=each.library.needed)


def _described(found: Found) -> str:
    """A library's file; what is there instead of it, or what the loader says of one that is."""
    library = found.library
    name = f"cuDNN 9 ({library.name})" if library.title == "cuDNN" else library.name
    if found.other:
        return f"{name} (only {found.other}, which does not serve)"
    return f"{name} (it is there, but: {found.problem})" if found.problem else name


def _number(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"


def _of_capability(device: Device) -> str:
    return (
        f"cuda:{device.index} ({device.name}) is of compute capability {_number(device.capability)}"
    )
