"""Processors as their systems tell of them, and which int8 kernels they allow."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlrt import hardware
from vlrt.hardware import FAST, MEANINGS, SATURATING, features_of_cpuinfo, features_of_sysctl

COMMON = "fpu vme de pse tsc msr sse sse2 ssse3 sse4_1 sse4_2 popcnt aes"
AVX512 = "avx512f avx512dq avx512cd avx512bw avx512vl"
FLAGS = {
    "Sapphire Rapids": f"{COMMON} avx f16c fma avx2 avx_vnni avx512_bf16 {AVX512} avx512_vnni "
    "amx_bf16 avx512_fp16 amx_tile amx_int8",
    "Ice Lake": f"{COMMON} avx f16c fma avx2 {AVX512} avx512_vnni",
    "Skylake with AVX-512": f"{COMMON} avx f16c fma avx2 {AVX512}",
    "Alder Lake": f"{COMMON} avx f16c fma avx2 avx_vnni",
    "Haswell": f"{COMMON} avx f16c fma avx2",
    "Zen 2": f"{COMMON} avx f16c fma avx2 sha_ni",
    "Nehalem": COMMON,
    "Graviton2": "fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm dcpop asimddp",
    "Graviton3": "fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp sve bf16 i8mm svei8mm",
    "Raspberry Pi 4": "fp asimd evtstrm crc32 cpuid",
}
M1 = """hw.optional.arm.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
machdep.cpu.brand_string: Apple M1
"""
M2 = """hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_BF16: 1
"""
MAC_PRO = """machdep.cpu.features: FPU SSE2 FMA AVX1.0 F16C
machdep.cpu.leaf7_features: AVX512F AVX512BW AVX512DQ AVX512VL
"""
ARM = ("Graviton2", "Graviton3", "Raspberry Pi 4")


def cpuinfo(name, cores=2):
    """`/proc/cpuinfo` as x86 and arm64 kernels write it."""
    if name in ARM:
        core = f"processor\t: {{}}\nBogoMIPS\t: 243.75\nFeatures\t: {FLAGS[name]}\n\n"
    else:
        core = f"processor\t: {{}}\nmodel name\t: An {name}: 2 GHz\nflags\t\t: {FLAGS[name]}\n\n"
    return "".join(core.format(number) for number in range(cores))


def machine(name):
    return "aarch64" if name in ARM else "x86_64"


# --- what the systems tell ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\n", []),
        ("processor\t: 0\n", []),
        ("flags\t\t:\n", []),
        ("flags: sse2 AVX2 avx2x\n", ["sse2"]),
        ("model name: with avx2 : flags : avx_vnni\nflags : fma\n", ["fma"]),
        (cpuinfo("Raspberry Pi 4"), ["asimd"]),
        (cpuinfo("Graviton2"), ["asimd", "asimddp", "asimdhp"]),
        (cpuinfo("Alder Lake"), ["avx2", "avx_vnni", "f16c", "fma", "sse2"]),
    ],
)
def test_the_features_of_cpuinfo(text, expected):
    assert features_of_cpuinfo(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("hw.optional.arm.FEAT_DotProd: 0\n", []),
        (M1, ["asimd", "asimddp"]),
        (M2, ["asimddp", "bf16", "i8mm"]),
        (MAC_PRO, [*sorted(AVX512.replace("avx512cd ", "").split()), "f16c", "fma", "sse2"]),
    ],
)
def test_the_features_of_sysctl(text, expected):
    assert features_of_sysctl(text) == expected


@given(st.text())
def test_no_text_is_too_strange(text):
    for features in (features_of_cpuinfo(text), features_of_sysctl(text)):
        assert features == sorted(set(features))
        assert hardware.kernels("Linux", "x86_64", features) in MEANINGS


# --- kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Sapphire Rapids", "amx"),
        ("Ice Lake", "vnni"),
        ("Alder Lake", "vnni"),
        ("Skylake with AVX-512", "saturating"),
        ("Haswell", "saturating"),
        ("Zen 2", "saturating"),
        ("Nehalem", "none"),
        ("Graviton2", "dotprod"),
        ("Graviton3", "i8mm"),
        ("Raspberry Pi 4", "none"),
    ],
)
def test_the_kernels_of_processors_on_linux(name, expected):
    features = features_of_cpuinfo(cpuinfo(name))
    assert hardware.kernels("Linux", machine(name), features) == expected


@pytest.mark.parametrize(
    ("system", "name", "features", "expected"),
    [
        ("Linux", "x86_64", [], "unknown"),
        ("Linux", "aarch64", [], "unknown"),
        ("Windows", "AMD64", [], "unknown"),
        ("Windows", "ARM64", ["asimddp"], "dotprod"),
        ("Linux", "riscv64", ["rvv"], "unknown"),
        ("Linux", "armv7l", ["asimddp"], "unknown"),
        # What ONNX Runtime compiles for Linux alone.
        ("Darwin", "arm64", ["asimddp", "i8mm"], "dotprod"),
        ("Darwin", "x86_64", ["amx_int8", "amx_tile", "avx2", "avx_vnni", "fma"], "vnni"),
        # A virtual machine may hide a part: AMX without its tiles, VNNI without its registers.
        ("Linux", "x86_64", ["amx_int8", "avx2", "avx_vnni", "fma"], "vnni"),
        ("Linux", "x86_64", ["amx_int8", "amx_tile", "sse2"], "none"),
        ("Linux", "x86_64", ["avx2", "avx512_vnni", "avx512f", "fma"], "saturating"),
        ("Linux", "x86_64", ["avx2"], "none"),
    ],
)
def test_the_kernels_of_other_systems_and_odd_ones(system, name, features, expected):
    assert hardware.kernels(system, name, features) == expected


def test_every_kind_of_kernels_has_a_meaning():
    assert set(MEANINGS) == {*FAST, SATURATING, "none", "unknown"}


# --- this machine ---------------------------------------------------------------------------------


def test_this_machine_is_described():
    described = hardware.describe()
    assert set(described) == {"processor", "threads", "cpu_features"}
    assert described["processor"]
    assert described["threads"] >= 1
    assert described["cpu_features"] == sorted(described["cpu_features"])
    assert hardware.int8_kernels() in MEANINGS


def test_macos_is_asked_through_sysctl(monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command[1:])
        told = "machdep.cpu.brand_string: Apple M2\nhw.optional.arm.FEAT_DotProd: 1\n"
        return SimpleNamespace(stdout=told)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(hardware, "_cpuinfo", str)
    assert hardware.processor_name() == "Apple M2"
    assert hardware.cpu_features() == ["asimddp"]
    assert asked == [["hw.optional", "machdep.cpu"]] * 2


def test_a_machine_that_hides_everything_is_unknown_and_named(monkeypatch):
    monkeypatch.setattr(hardware, "_cpuinfo", str)
    monkeypatch.setattr(hardware, "_sysctl", str)
    described = hardware.describe()
    assert described["cpu_features"] == []
    assert hardware.int8_kernels() == "unknown"
    assert described["processor"]


# --- why 8-bit weights go wrong where kernels add in 16 bits --------------------------------------


def multiply_in_16_bits(activations, weights):
    """uint8 [M, K] by int8 [K, N] as `vpmaddubsw` and its like do: pairs of products are added in
    16 bits and cut off there, and the sums of pairs added in 32."""
    products = activations.astype(np.int32)[:, :, None] * weights.astype(np.int32)[None]
    pairs = products[:, 0::2] + products[:, 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1)


def multiply(activations, weights):
    return activations.astype(np.int32) @ weights.astype(np.int32)


def worst(bits):
    """The largest activations, and the largest weights of each sign in so many bits."""
    most = 2 ** (bits - 1) - 1
    return np.full((1, 4), 255, np.uint8), np.array([[most, -most]] * 4, np.int8)


def test_8_bit_weights_are_cut_off():
    activations, weights = worst(8)
    assert multiply(activations, weights).tolist() == [[129540, -129540]]
    assert multiply_in_16_bits(activations, weights).tolist() == [[65534, -65536]]


def test_7_bit_weights_are_not():
    activations, weights = worst(7)
    assert np.array_equal(multiply_in_16_bits(activations, weights), multiply(activations, weights))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 40), st.integers(1, 4))
def test_any_7_bit_weights_are_exact(seed, rows, pairs, columns):
    rng = np.random.default_rng(seed)
    activations = rng.integers(0, 256, (rows, 2 * pairs)).astype(np.uint8)
    weights = rng.integers(-64, 65, (2 * pairs, columns)).astype(np.int8)
    expected = multiply(activations, weights)
    assert np.array_equal(multiply_in_16_bits(activations, weights), expected)


def test_ordinary_8_bit_weights_are_far_off_too(rng):
    """Not a corner: with weights like a quantised layer's, and activations away from zero."""
    activations = rng.integers(100, 256, (8, 768)).astype(np.uint8)
    weights = np.clip(rng.normal(0, 40, (768, 64)), -127, 127).astype(np.int8)
    exact = multiply(activations, weights)
    error = np.abs(multiply_in_16_bits(activations, weights) - exact)
    assert error.max() > 0.02 * np.abs(exact).max()
    halved = weights // 2
    assert np.array_equal(multiply_in_16_bits(activations, halved), multiply(activations, halved))


# --- CPUs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "200000 100000\n"}, 2.0),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu.max": "40000 10000"}, 4.0),
        ({"cpu.max": "200000"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
        ({"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, None),
    ],
    ids=str,
)
def test_the_quota_of_both_cgroup_versions(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert hardware._cgroup_quota(tmp_path) == expected


@pytest.mark.parametrize("quota", [None, 0.3, 1.0, 1.5, 2.0, 1000.0])
def test_threads_respect_quota_and_affinity(monkeypatch, quota):
    monkeypatch.setattr(hardware, "_cgroup_quota", lambda root: quota)
    cores = len(os.sched_getaffinity(0))
    expected = cores if quota is None else min(cores, math.ceil(quota))
    assert hardware.available_cpus() == expected >= 1
