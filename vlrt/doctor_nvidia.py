"""What `vlrt doctor` says of NVIDIA: the driver, the GPUs, the libraries, and one verdict."""

from collections.abc import Iterator, Mapping, Sequence

from vlrt.nvidia import Examined, Finding
from vlrt.nvidia_driver import VISIBLE, Device, Facts
from vlrt.nvidia_libraries import Found, look_up, tensorrt

Starts = Mapping[int, str | None]  # why CUDA did not start on a device, None where it did


def section(
    examined: Examined, findings: Sequence[Finding], starts: Starts, preloading: str = ""
) -> tuple[list[str], bool]:
    """Lines to print, and whether CUDA works, or is not asked for by the installed build.

    Args:
        examined: the machine.
        findings: what is wrong with it.
        starts: what trying each device gave; empty where the build has no CUDA.
        preloading: what ONNX Runtime said of loading pip's libraries.
    """
    facts, build = examined.facts, examined.build
    if facts.absent and not starts:
        return [f"NVIDIA        {findings[0].problem}"], True
    working = [index for index, problem in starts.items() if problem is None]
    lines = [f"NVIDIA        {_driver(examined)}", *_devices(facts)]
    if not facts.absent:
        lines += [_library(found) for found in examined.found]
        lines += _tensorrt(examined)
    lines += _findings(findings, works=bool(working))
    lines.append(f"CUDA          {_verdict(facts, findings, starts, preloading)}")
    return lines, bool(working) or not (build and build.has_cuda)


def _driver(examined: Examined) -> str:
    facts, needs = examined.facts, examined.needs
    if facts.absent:
        return "no GPU and no driver"
    if not (facts.driver or facts.cuda or facts.broken or facts.error):
        return "a GPU, and no driver"
    said = f"driver {facts.driver or 'of unknown version'}"
    said += f", for CUDA up to {facts.cuda[0]}.{facts.cuda[1]}" if facts.cuda else ", without CUDA"
    return f"{said}; needed: {needs.driver} or newer" if needs else said


def _devices(facts: Facts) -> Iterator[str]:
    for device in facts.devices:
        major, minor = device.capability
        yield f"  {_described(device)}, compute capability {major}.{minor}"
    hidden = (facts.installed or 0) - len(facts.devices)
    if facts.visible is not None and hidden > 0:
        yield f"  {VISIBLE}={facts.visible} hides {hidden} of {facts.installed} GPUs"


def _described(device: Device) -> str:
    return f"cuda:{device.index:<6} {device.name}, {device.memory} MiB"


def _library(found: Found) -> str:
    library = found.library
    source = f" (pip's {library.package} {found.version})" if found.version else ""
    if found.path:
        return f"  {library.title:<11} {found.path}{source}"
    use = "" if library.needed else "; CUDA starts without it"
    return f"  {library.title:<11} {library.name} NOT FOUND{use}"


def _tensorrt(examined: Examined) -> Iterator[str]:
    build = examined.build
    if build and build.has_cuda:
        (found,) = look_up([tensorrt(examined.facts.system)], build.site)
        where = found.path or f"{found.library.name} not found; CUDA does not need it"
        if found.version and found.path and build.site and found.path.startswith(str(build.site)):
            where += "; ONNX Runtime finds it if LD_LIBRARY_PATH has its folder"
        yield f"  {found.library.title:<11} {where}"


def _findings(findings: Sequence[Finding], *, works: bool) -> Iterator[str]:
    for finding in findings:
        yield f"  {'PROBLEM' if finding.fatal and not works else 'NOTE'}: {finding.problem}"
        yield f"    {finding.advice}"


def _verdict(facts: Facts, findings: Sequence[Finding], starts: Starts, preloading: str) -> str:
    working = [index for index, problem in starts.items() if problem is None]
    if working:
        named = {device.index: device for device in facts.devices}
        return "will work on " + ", ".join(_named(index, named.get(index)) for index in working)
    cause = next((finding.problem for finding in findings if finding.fatal), None)
    if cause is None:
        said = [problem for problem in starts.values() if problem]
        cause = " ".join(["nothing is found wrong, but it does not start:", *said[:1], preloading])
    return f"will NOT work: {cause.strip()}"


def _named(index: int, device: Device | None) -> str:
    return f"cuda:{index} ({device.name}, {device.memory} MiB)" if device else f"cuda:{index}"
