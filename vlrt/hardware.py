"""What this machine's processor has: its name, its cores, and which int8 products it can make.

ONNX Runtime chooses its int8 kernels by what the processor offers (`core/mlas/lib/platform.cpp`).
The names here stand for its choices for uint8 activations against int8 weights:

| kernels      | processors                                  | products                        |
|--------------|---------------------------------------------|---------------------------------|
| `amx`        | Sapphire Rapids and later, on Linux         | exact, fast                     |
| `vnni`       | Cascade and Ice Lake, Alder Lake, Zen 4 ... | exact, fast                     |
| `saturating` | x86 before them, from AVX2 on               | saturate in 16 bits             |
| `i8mm`       | arm64 from v8.6, on Linux                   | exact, fast                     |
| `dotprod`    | arm64 from v8.2                             | exact, fast                     |
| `none`       | older ones                                  | exact, no faster than fp32      |
| `unknown`    | the system does not tell                    |                                 |

The last word has `vlrt.session.int8_kernels`, which tries two products: on Windows, which tells no
features of x86, ONNX Runtime has kernels for SSE4.1 that saturate too.
"""

import math
import os
import platform
import sys
from collections.abc import Collection
from itertools import takewhile
from pathlib import Path
from typing import Any

# Kernels that multiply faster in int8 than in fp32, and exactly.
FAST = ("amx", "vnni", "i8mm", "dotprod")
# Two products of 255 by 127 are added in 16 bits, which end at 32,767: they are cut off there.
# Weights of 7 bits fit: 2 * 255 * 64 is 32,640.
SATURATING = "saturating"
MEANINGS = {
    **dict.fromkeys(FAST, "int8 is exact, and the fastest"),
    SATURATING: "products of 8-bit weights saturate in 16 bits; such graphs are computed exactly "
    "here, which is slow, and `auto` takes them only where a bundle holds nothing else",
    "none": "int8 is exact, and saves memory rather than time",
    "unknown": "this system does not tell which int8 kernels its processor allows",
}

# What decides which int8 and fp16 kernels there are, as Linux names it; and what every processor
# has, so that a list without all the others differs from no list.
_FEATURES = frozenset((
    "sse2", "asimd", "f16c", "fma", "avx2", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw",
    "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
    "amx_bf16", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "svei8mm", "sme",
))  # fmt: skip
# The same as macOS names it, under `hw.optional.arm` and `machdep.cpu`.
_APPLE = {
    "AdvSIMD": "asimd", "FEAT_FP16": "asimdhp", "FEAT_DotProd": "asimddp", "FEAT_I8MM": "i8mm",
    "FEAT_BF16": "bf16", "FEAT_SME": "sme", "SSE2": "sse2", "F16C": "f16c", "FMA": "fma",
    "AVX2": "avx2", "AVX512F": "avx512f", "AVX512BW": "avx512bw", "AVX512DQ": "avx512dq",
    "AVX512VL": "avx512vl", "AVX512VNNI": "avx512_vnni",
}  # fmt: skip
_AVX512 = frozenset(("avx512f", "avx512bw", "avx512dq", "avx512vl"))
_WINDOWS_ARM_DOT_PRODUCT = 43  # PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE of winnt.h


def describe() -> dict[str, Any]:
    """This machine, as manifests and benchmarks record it beside its int8 kernels."""
    return {
        "processor": processor_name(),
        "threads": available_cpus(),
        "cpu_features": cpu_features(),
    }


def processor_name() -> str:
    """The processor as the system names it."""
    name = _value(_cpuinfo(), "model name") or _value(_sysctl(), "machdep.cpu.brand_string")
    return name or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """What the processor has of what int8 and fp16 kernels need, sorted; empty if unknown.

    Windows tells of no VNNI, so that nothing is known on x86.
    """
    if sys.platform == "win32":
        import ctypes

        found = ctypes.windll.kernel32.IsProcessorFeaturePresent(_WINDOWS_ARM_DOT_PRODUCT)
        return ["asimddp"] if found else []
    return features_of_cpuinfo(_cpuinfo()) or features_of_sysctl(_sysctl())


def int8_kernels() -> str:
    """Which of the int8 kernels in the table above ONNX Runtime should take on this machine."""
    return kernels(platform.system(), platform.machine(), cpu_features())


def kernels(system: str, machine: str, features: Collection[str]) -> str:
    """The int8 kernels for a processor.

    Args:
        system: "Linux", "Darwin" or "Windows", as `platform.system` names it.
        machine: as `platform.machine` names it.
        features: as `cpu_features` gives them. None at all means that they are hidden, by a
            container or a virtual machine, and not that the processor has none.

    Returns:
        A key of `MEANINGS`.
    """
    there = frozenset(features)
    if not there:
        return "unknown"
    if machine.lower() in ("x86_64", "amd64"):
        return _x86_kernels(system, there)
    if machine.lower() in ("aarch64", "arm64"):
        if system == "Linux" and "i8mm" in there:
            return "i8mm"
        return "dotprod" if "asimddp" in there else "none"
    return "unknown"


def _x86_kernels(system: str, features: frozenset[str]) -> str:
    if not {"avx2", "fma"} <= features:
        return "none"
    if system != "Darwin" and {"amx_tile", "amx_int8"} <= features:
        return "amx"
    if "avx_vnni" in features or features >= _AVX512 | {"avx512_vnni"}:
        return "vnni"
    return SATURATING


def features_of_cpuinfo(text: str) -> list[str]:
    """Features that Linux tells in `/proc/cpuinfo`, sorted."""
    flags = (_value(text, "flags") or _value(text, "Features")).split()
    return sorted(_FEATURES.intersection(flags))


def features_of_sysctl(text: str) -> list[str]:
    """Features that macOS tells in `sysctl hw.optional machdep.cpu`, by Linux's names, sorted."""
    lists = [_value(text, f"machdep.cpu.{key}") for key in ("features", "leaf7_features")]
    names = " ".join(lists).split()
    names += [name for name in _APPLE if _value(text, f"hw.optional.arm.{name}") == "1"]
    return sorted({_APPLE[name] for name in names if name in _APPLE})


def _cpuinfo() -> str:
    """What Linux tells of the first processor, as far as the first empty line."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            return "".join(takewhile(str.strip, file))
    except OSError:  # not Linux, or hidden
        return ""


def _sysctl() -> str:
    if sys.platform != "darwin":
        return ""
    import subprocess

    command = ["/usr/sbin/sysctl", "hw.optional", "machdep.cpu"]
    # Keys that a machine lacks make it fail, after it told the others.
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout


def _value(text: str, key: str) -> str:
    """What a text of lines `key : value` says of a key, first; empty if nothing."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


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
