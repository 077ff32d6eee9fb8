"""Whether CUDA will work: what machines tell, what builds need, and what follows from both."""

import ctypes
import dataclasses
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlrt import nvidia, nvidia_libraries, nvidia_offers
from vlrt.nvidia import diagnose
from vlrt.nvidia_driver import ANSWERS, Device, Facts, facts
from vlrt.nvidia_libraries import Found, look_up, requirements, tensorrt
from vlrt.nvidia_offers import Build
from vlrt.session import CPU, CUDA

H200 = Device(0, "NVIDIA H200", (9, 0), 143771)
PASCAL = Device(0, "NVIDIA GeForce GTX 1080", (6, 1), 8112)
BLACKWELL = Device(0, "NVIDIA B200", (10, 0), 183359)
KEPLER = Device(0, "Tesla K80", (3, 7), 11441)
NOTHING = Facts("Linux", "x86_64", (3, 12))
GOOD = dataclasses.replace(
    NOTHING, driver="580.159.03", cuda=(13, 0), devices=(H200,), installed=1, on_bus=1
)
OLD = dataclasses.replace(GOOD, driver="535.104.05", cuda=(12, 2))
FOR_13 = Build("1.31.1", "onnxruntime-gpu", "13.0", has_cuda=True, site=Path("/site"))
FOR_12 = Build("1.26.0", "onnxruntime-gpu", "12.8", has_cuda=True, site=Path("/site"))
FOR_CPU = Build("1.32.0", "onnxruntime", "", has_cuda=False, site=Path("/site"))
GPU_LISTED = {"onnxruntime-gpu": "1.31.1"}


def on(device, **changes):
    return dataclasses.replace(GOOD, devices=(device,), **changes)


def found(build, *missing, **fields):
    """The libraries of a build, in pip's folders but for some, by their titles."""
    needs = requirements(build.cuda_version, build.version)
    return [
        Found(library, None, **fields)
        if library.title in missing
        else Found(library, f"/site/{library.folder}/{library.name}", "1.0")
        for library in needs.libraries
    ]


def findings(facts, build, *, listed=None, libraries=None):
    if listed is None:
        listed = {build.package: build.version} if build else {}
    needs = None
    if build and build.has_cuda:
        needs = requirements(build.cuda_version, build.version, facts.system, facts.machine)
    if libraries is None:
        libraries = found(build) if needs else []
    return diagnose(facts, needs, listed, build, libraries)


# --- what the driver tells ------------------------------------------------------------------------

DRIVER = r"""
#include <stddef.h>
#include <string.h>
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuInit(unsigned flags) { return flags ? 1 : STARTS; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int index) { *device = 10 + index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device == 10 ? "NVIDIA H200" : "NVIDIA T4 \xff", size); return 0; }
int cuDeviceTotalMem_v2(size_t *size, int device) {
    *size = device == 10 ? 150754820096ULL : 15828320256ULL; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute == 75) *value = device == 10 ? 9 : 7;
    if (attribute == 76) *value = device == 10 ? 0 : 5;
    return 0; }
"""
NVML = r"""
#include <string.h>
int nvmlInit_v2(void) { return STARTS; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    strncpy(version, "580.159.03", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 8; return 0; }
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Compile a driver: gives a loader that finds it, and nothing else."""
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc to compile a driver with")
    monkeypatch.setattr(platform, "system", lambda: "Linux")

    def compile_(name, source, **values):
        (tmp_path / f"{name}.c").write_text(source)
        path = tmp_path / name
        defines = [f"-D{key}={value}" for key, value in values.items()]
        command = ["gcc", "-shared", "-fPIC", *defines, "-o", path, tmp_path / f"{name}.c"]
        subprocess.run(command, check=True)

    def load(name):
        path = tmp_path / name
        return ctypes.CDLL(str(path) if path.exists() else name + ".of.nobody")

    load.compile = compile_
    return load


def not_there(name):
    raise OSError(f"{name}: cannot open shared object file: No such file or directory")


@pytest.mark.parametrize("system", ["Linux", "Windows", "Darwin", ""])
def test_a_machine_without_any_of_it_has_nothing(monkeypatch, tmp_path, system):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    told = facts(not_there, tmp_path)
    assert told == Facts(system, platform.machine(), sys.version_info[:2])
    assert told.absent


def test_two_gpus_of_a_driver(driver, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,5")
    driver.compile("libcuda.so.1", DRIVER, VERSION=13010, STARTS=0, COUNT=2)
    driver.compile("libnvidia-ml.so.1", NVML, STARTS=0)
    told = facts(driver, tmp_path)
    assert told.devices == (
        Device(0, "NVIDIA H200", (9, 0), 143771),
        Device(1, "NVIDIA T4 \N{REPLACEMENT CHARACTER}", (7, 5), 15095),
    )
    assert (told.driver, told.cuda, told.error) == ("580.159.03", (13, 1), 0)
    assert (told.installed, told.visible, told.absent) == (8, "0,5", False)


@pytest.mark.parametrize("error", [100, *ANSWERS, 12345])
def test_a_driver_that_does_not_start_says_why(driver, tmp_path, error):
    driver.compile("libcuda.so.1", DRIVER, VERSION=12080, STARTS=error, COUNT=2)
    driver.compile("libnvidia-ml.so.1", NVML, STARTS=18)
    told = facts(driver, tmp_path)
    assert (told.error, told.cuda, told.devices) == (error, (12, 8), ())
    assert (told.driver, told.installed) == (None, None)
    assert not told.absent


def test_libraries_that_are_not_a_driver_are_named(driver, tmp_path):
    driver.compile("libcuda.so.1", "int cuTensorMapEncodeTiled(void) { return 0; }")
    driver.compile("libnvidia-ml.so.1", "int nvmlNothing(void) { return 0; }")
    told = facts(driver, tmp_path)
    assert "libcuda.so.1 is not NVIDIA's: " in told.broken
    assert (told.cuda, told.driver, told.absent) == (None, None, False)


def test_a_driver_that_cannot_be_loaded_is_no_absent_one(driver, tmp_path):
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    told = facts(driver, tmp_path)
    assert "libcuda.so.1 cannot be loaded: " in told.broken
    assert not told.absent


OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.126.09  Release Build  (dvs)\n"
CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.223.02  Sat Oct  7 15:39:11 UTC 2023\n"
)


@pytest.mark.parametrize(
    ("files", "driver", "on_bus"),
    [
        ({}, None, None),
        ({"proc/driver/nvidia/version": ""}, None, None),
        ({"proc/driver/nvidia/version": "GCC version:  gcc version 13.3.0\n"}, None, None),
        ({"proc/driver/nvidia/version": OPEN + "GCC version: 13.3.0\n"}, "580.126.09", None),
        ({"proc/driver/nvidia/version": CLOSED}, "470.223.02", None),
        ({"sys/bus/pci/devices/0/vendor": "0x1af4\n"}, None, 0),
        (
            {"sys/bus/pci/devices/0/vendor": "0x10de\n", "sys/bus/pci/devices/0/class": "0x040300"},
            None,
            0,
        ),
        (
            {
                f"sys/bus/pci/devices/{number}/{name}": text
                for number, kind in enumerate(["0x030000", "0x030200", "0x010802"])
                for name, text in [("vendor", "0x10de\n"), ("class", f"{kind}\n")]
            },
            None,
            2,
        ),
    ],
)
def test_what_linux_tells(monkeypatch, tmp_path, files, driver, on_bus):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    told = facts(not_there, tmp_path)
    assert (told.driver, told.on_bus) == (driver, on_bus)
    assert told.absent == (not driver and not on_bus)


@pytest.mark.parametrize("mark", [None, ".dockerenv", "run/.containerenv"])
def test_containers(monkeypatch, tmp_path, mark):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if mark:
        (tmp_path / mark).parent.mkdir(exist_ok=True)
        (tmp_path / mark).touch()
    assert facts(not_there, tmp_path).container == bool(mark)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert facts(not_there, tmp_path).container


def test_this_machine_is_examined():
    examined = nvidia.examine()
    assert examined.build.version
    assert examined.installed
    assert isinstance(nvidia.why_not(), str)


# --- what builds need -----------------------------------------------------------------------------

BOTH = ["cublas", "cublasLt"]


@pytest.mark.parametrize(
    ("cuda_version", "release", "system", "needed", "optional"),
    [
        ("", "1.31.1", "Linux", None, None),
        ("11.8", "1.18.0", "Linux", None, None),
        ("14.0", "2.0", "Linux", None, None),
        ("of nobody", "", "Linux", None, None),
        # As the import tables of PyPI's wheels have it.
        ("12.8", "1.26.0", "Linux", [*BOTH, "cuDNN", "cudart", "cufft", "curand"], ["nvrtc"]),
        ("12.8", "1.26.0", "Windows", [*BOTH, "cuDNN", "cudart", "cufft"], []),
        ("13.0", "1.27.0", "Linux", [*BOTH, "cuDNN", "cudart", "cufft", "curand", "nvrtc"], []),
        ("13.0", "1.28.0", "Linux", [*BOTH, "cudart", "curand"], ["cuDNN", "cufft", "nvrtc"]),
        ("13.0", "1.31.1", "Linux", [*BOTH, "cudart", "curand"], ["cuDNN", "cufft", "nvrtc"]),
        ("13.0", "1.31.1", "Windows", BOTH, ["cuDNN", "cudart", "cufft"]),
        ("13.0", "", "Linux", [*BOTH, "cudart", "curand"], ["cuDNN", "cufft", "nvrtc"]),
    ],
)
def test_the_libraries_that_builds_need(cuda_version, release, system, needed, optional):
    needs = requirements(cuda_version, release, system)
    if needed is None:
        assert needs is None
        return
    assert {each.title for each in needs.libraries if each.needed} == set(needed)
    assert {each.title for each in needs.libraries if not each.needed} == set(optional)


@pytest.mark.parametrize("cuda_version", ["12.8", "13.0"])
@pytest.mark.parametrize("windows", [False, True])
def test_they_are_where_onnx_runtime_looks(cuda_version, windows):
    """`onnxruntime-gpu` has the same function in its CPU build, with the CUDA as a global."""
    ort = pytest.importorskip("onnxruntime")
    if not hasattr(ort, "_get_nvidia_dll_paths"):
        pytest.skip("this ONNX Runtime is too old to have the function")
    theirs = {}
    namespace = {**vars(ort), "cuda_version": cuda_version}
    function = type(test_containers)(ort._get_nvidia_dll_paths.__code__, namespace)
    for path in function(windows, True, True):
        theirs[path[-1]] = "/".join(path[:-1])
    system = "Windows" if windows else "Linux"
    ours = {each.name: each.folder for each in requirements(cuda_version, "", system).libraries}
    assert ours.items() <= theirs.items()
    main = {name for name in theirs if not name.startswith("cudnn_")}  # parts of cuDNN
    assert main == set(ours)


@pytest.mark.parametrize(
    ("cuda_version", "packages"),
    [
        ("12.8", ("cuda-runtime-cu12 cublas-cu12 cublas-cu12 curand-cu12 cufft-cu12 "
                 "cuda-nvrtc-cu12 cudnn-cu12")),
        ("13.0", "cuda-runtime cublas cublas curand cufft cuda-nvrtc cudnn-cu13"),
    ],
)  # fmt: skip
def test_the_packages_of_pip(cuda_version, packages):
    libraries = requirements(cuda_version).libraries
    assert [library.package for library in libraries] == [f"nvidia-{x}" for x in packages.split()]


@pytest.mark.parametrize(
    ("cuda_version", "release", "system", "machine", "runs", "fails"),
    [
        ("12.8", "1.26.0", "Linux", "x86_64", "6.0 6.1 7.0 7.5 8.0 8.9 9.0 10.0 12.0", "3.7 5.2"),
        ("12.8", "1.26.0", "Windows", "AMD64", "5.2 6.1 7.5 8.6 8.9 9.0 12.0", "3.7 5.0 8.0 7.0"),
        ("13.0", "1.28.0", "Linux", "x86_64", "7.5 8.0 8.7 9.0 10.0 10.3 12.0 13.0", "6.1 7.0"),
        ("13.0", "1.31.1", "Linux", "x86_64", "7.5 8.0 8.6 8.7 8.9 9.0 12.0 12.1", "7.0 10.0 11.0"),
        ("13.0", "1.31.1", "Linux", "aarch64", "8.9 9.0 12.0 12.1", "7.5 8.0 8.7 10.0 11.0"),
        ("13.0", "", "Windows", "AMD64", "7.5 8.6 12.0", "6.1 10.0"),
    ],
)
def test_the_chips_that_builds_serve(cuda_version, release, system, machine, runs, fails):
    needs = requirements(cuda_version, release, system, machine)
    for expected, chips in ((True, runs), (False, fails)):
        for chip in chips.split():
            assert needs.runs_on(tuple(map(int, chip.split(".")))) == expected, chip


# --- where libraries are --------------------------------------------------------------------------


@pytest.fixture
def pip(monkeypatch):
    """The packages that pip lists, as a dictionary to fill."""
    listed = {}
    monkeypatch.setattr(nvidia_libraries, "pip_version", listed.get)
    return listed


def library(title, cuda_version="13.0"):
    needs = requirements(cuda_version)
    return next(each for each in needs.libraries if each.title == title)


def loader(*names):
    """A loader of the system that finds some libraries."""

    def load(name):
        if name not in names:
            not_there(name)

    return load


def put(site, library, name=None):
    path = site / library.folder / (name or library.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_no_libraries_are_found_nowhere(tmp_path):
    assert look_up([], tmp_path) == ()


def test_pips_folder_comes_before_the_systems(pip, tmp_path):
    pip["nvidia-cublas"] = "13.1.0.3"
    cublas, cudart = library("cublas"), library("cudart")
    path = put(tmp_path, cublas)
    both = look_up([cublas, cudart], tmp_path, loader("libcublas.so.13", "libcudart.so.13"))
    assert both == (
        Found(cublas, str(path), "13.1.0.3"),
        Found(cudart, "the system's folders", None),
    )


def test_a_library_that_this_process_loaded_is_found_where_it_is():
    loaded = Path(ctypes.util.find_library("c") or "libc.so.6").name
    if sys.platform != "linux":
        pytest.skip("only Linux tells what is loaded")
    probe = cublas = library("cublas")._replace(name=loaded)
    (told,) = look_up([probe], None)
    assert Path(told.path).is_file()
    assert Path(told.path).name.startswith(cublas.name)


@pytest.mark.parametrize(
    ("title", "other"),
    [
        ("cublas", "libcublas.so.12"),
        ("cudart", "libcudart.so.11"),
        ("cufft", "libcufft.so.11"),
        ("cuDNN", "libcudnn.so.8"),
        ("curand", ""),
    ],
)
@pytest.mark.parametrize("in_pip", [False, True])
def test_another_version_is_named(pip, tmp_path, title, other, in_pip):
    wanted = library(title)
    if in_pip and other:
        put(tmp_path, library(title, "12.8"), other)
    (told,) = look_up([wanted], tmp_path, loader() if in_pip else loader(other))
    assert told == Found(wanted, None, other=other)


def test_a_library_that_is_there_and_does_not_load_says_why(pip):
    def load(name):
        missing = "libnvJitLink.so.13" if name == "libcufft.so.12" else name
        not_there(missing)

    cufft, cudart = look_up([library("cufft"), library("cudart")], None, load)
    assert "libnvJitLink.so.13: cannot open" in cufft.problem
    assert cudart.problem == ""


@pytest.mark.parametrize(
    ("listed", "rival"),
    [
        ({}, ""),
        ({"nvidia-cudnn-cu13": "9.1"}, ""),
        ({"nvidia-cudnn-cu12": "9.1"}, "nvidia-cudnn-cu12"),
        ({"nvidia-cudnn-cu13": "9.1", "nvidia-cudnn-cu12": "9.1"}, "nvidia-cudnn-cu12"),
    ],
)
def test_cudnn_of_two_cudas_has_one_folder(pip, tmp_path, listed, rival):
    pip.update(listed)
    cudnn = library("cuDNN")
    path = put(tmp_path, cudnn)
    (told,) = look_up([cudnn], tmp_path, loader())
    assert told == Found(cudnn, str(path), listed.get("nvidia-cudnn-cu13"), rival=rival)


@pytest.mark.parametrize(("system", "name"), [("Linux", "libnvinfer.so.10"),
                                              ("Windows", "nvinfer_10.dll")])  # fmt: skip
def test_tensorrt_is_looked_for(pip, tmp_path, system, name):
    (absent,) = look_up([tensorrt(system)], tmp_path, loader())
    assert (absent.library.name, absent.path) == (name, None)
    path = put(tmp_path, tensorrt(system))
    assert look_up([tensorrt(system)], tmp_path, loader())[0].path == str(path)


# --- what follows ---------------------------------------------------------------------------------

CUDA_12 = 'pip install "onnxruntime-gpu[cuda,cudnn]<1.27"'
BOTH_LISTED = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}


@pytest.mark.parametrize(
    ("facts", "build"),
    [
        (GOOD, FOR_13),
        (GOOD, FOR_12),
        (OLD, FOR_12),
        (on(PASCAL), FOR_12),
        (on(BLACKWELL), dataclasses.replace(FOR_13, version="1.28.0")),
        (dataclasses.replace(GOOD, driver=None), FOR_13),
        (dataclasses.replace(GOOD, visible="0"), FOR_13),
        (dataclasses.replace(GOOD, container=True, installed=8), FOR_13),
        # A CUDA of which nothing is known here.
        (GOOD, dataclasses.replace(FOR_13, cuda_version="14.0")),
    ],
)
def test_nothing_is_wrong_where_cuda_works(facts, build):
    assert findings(facts, build) == []


@pytest.mark.parametrize(
    ("facts", "build", "kinds", "problem", "advice"),
    [
        (NOTHING, FOR_CPU, ["gpu"], "no NVIDIA GPU and no driver", 'device="cpu"'),
        (NOTHING, FOR_13, ["gpu"], "no NVIDIA GPU and no driver",
         'pip uninstall -y onnxruntime-gpu; pip install "vlrt[cpu]"'),
        (dataclasses.replace(NOTHING, container=True), FOR_13, ["gpu"], "no NVIDIA GPU",
         "docker run --gpus all"),
        (dataclasses.replace(NOTHING, system="Darwin"), FOR_CPU, ["gpu"], "this is Darwin",
         'device="cpu"'),
        (dataclasses.replace(NOTHING, on_bus=1), FOR_13, ["driver"], "no driver for it",
         "https://www.nvidia.com/drivers"),
        (dataclasses.replace(NOTHING, on_bus=1, container=True), FOR_13, ["driver"],
         "no driver for it", "docker run --gpus all"),
        (dataclasses.replace(NOTHING, driver="570.86.10"), FOR_13, ["driver"],
         "driver 570.86.10 is loaded, but CUDA's part of it, libcuda.so.1, is not found",
         "sudo apt install libnvidia-compute-570"),
        (dataclasses.replace(NOTHING, driver="570.86.10", container=True), FOR_13, ["driver"],
         "libcuda.so.1", "NVIDIA_DRIVER_CAPABILITIES must have `compute`"),
        (dataclasses.replace(NOTHING, broken="libcuda.so.1 is not NVIDIA's"), FOR_13, ["driver"],
         "libcuda.so.1 is not NVIDIA's", "install the driver again"),
        (dataclasses.replace(GOOD, devices=(), error=100, visible=""), FOR_13, ["hidden"],
         "CUDA_VISIBLE_DEVICES='' hides every GPU", "unset CUDA_VISIBLE_DEVICES"),
        (dataclasses.replace(GOOD, devices=(), visible="7", system="Windows"), FOR_13, ["hidden"],
         "CUDA_VISIBLE_DEVICES='7' hides every GPU", "set CUDA_VISIBLE_DEVICES="),
        (dataclasses.replace(GOOD, devices=(), error=100), FOR_13, ["gpu"],
         "driver 580.159.03 is there, but shows no GPU", "nvidia-smi -L"),
        (dataclasses.replace(GOOD, devices=(), visible="0", installed=0), FOR_13, ["gpu"],
         "shows no GPU", "nvidia-smi -L"),
        (dataclasses.replace(GOOD, devices=(), error=803), FOR_13, ["driver"],
         "differ in version, as after an update (error 803 of cuInit)", "restart the machine"),
        (dataclasses.replace(GOOD, devices=(), error=804), FOR_13, ["driver"],
         "cuda-compat", "LD_LIBRARY_PATH"),
        (dataclasses.replace(GOOD, devices=(), error=802), FOR_13, ["driver"],
         "not ready", "nvidia-fabricmanager"),
        (dataclasses.replace(GOOD, devices=(), error=999), FOR_13, ["driver"],
         "does not start CUDA", "modprobe nvidia_uvm"),
        (dataclasses.replace(GOOD, devices=(), error=12345), FOR_13, ["driver"],
         "cuInit gives error 12345", "restart the machine"),
        # Builds.
        (GOOD, None, ["build"], "ONNX Runtime is not installed", 'pip install "vlrt[gpu]"'),
        (GOOD, FOR_CPU, ["build"],
         "this machine has an NVIDIA GPU, and onnxruntime 1.32.0 is built without CUDA",
         'pip uninstall -y onnxruntime; pip install "vlrt[gpu]"'),
        (OLD, FOR_CPU, ["build"], "built without CUDA",
         f"pip uninstall -y onnxruntime; {CUDA_12}"),
        (on(PASCAL), FOR_CPU, ["build"], "built without CUDA", CUDA_12),
        (on(BLACKWELL), FOR_CPU, ["build"], "built without CUDA", "[cuda,cudnn]==1.28.*"),
        (on(KEPLER), FOR_CPU, ["build"], "built without CUDA", "PyPI has no build that fits"),
        (dataclasses.replace(GOOD, python=(3, 10)), FOR_CPU, ["build"], "built without CUDA",
         "use Python 3.11 or newer, which this, 3.10, is not"),
        (dataclasses.replace(GOOD, machine="aarch64"), FOR_CPU, ["build"], "built without CUDA",
         'pip install "vlrt[gpu]"'),
        (dataclasses.replace(OLD, machine="aarch64"), FOR_CPU, ["build"], "built without CUDA",
         "PyPI has no build that fits"),
        (dataclasses.replace(NOTHING, on_bus=1), FOR_CPU, ["driver", "build"], "no driver for it",
         "https://www.nvidia.com/drivers"),
        # Drivers and chips.
        (OLD, FOR_13, ["driver"],
         ("driver 535.104.05 supports CUDA up to 12.2; onnxruntime-gpu 1.31.1 is built for CUDA "
         "13.0, which needs driver 580 or newer"),
         f"for this driver: pip uninstall -y nvidia-cudnn-cu13; {CUDA_12}"),
        (dataclasses.replace(OLD, driver=None, cuda=(11, 4)), FOR_12, ["driver"],
         "which needs driver 525.60.13 or newer", "install a newer driver: https"),
        (dataclasses.replace(OLD, cuda=(11, 4), system="Windows", machine="AMD64"), FOR_12,
         ["driver"], "which needs driver 528.33 or newer", "install a newer driver: https"),
        (on(PASCAL), FOR_13, ["chip"],
         ("cuda:0 (NVIDIA GeForce GTX 1080) is of compute capability 6.1; onnxruntime-gpu 1.31.1 "
         "has machine code for 7.5, 8.0, 8.6, 8.9, 9.0, 12.0 only"), CUDA_12),
        (on(PASCAL, driver="535.104.05", cuda=(12, 2)), FOR_13, ["chip"], "6.1", CUDA_12),
        (on(BLACKWELL), FOR_13, ["chip"], "10.0",
         'pip install "onnxruntime-gpu[cuda,cudnn]==1.28.*"'),
        (on(KEPLER), FOR_12, ["chip"], "9.0 and newer only", "PyPI has no build with it"),
    ],
)  # fmt: skip
def test_the_root_of_it_comes_first(facts, build, kinds, problem, advice):
    told = findings(facts, build)
    assert [finding.kind for finding in told] == kinds
    assert problem in told[0].problem
    assert advice in told[0].advice
    assert all(finding.fatal for finding in told)


@pytest.mark.parametrize(
    ("listed", "build", "problem", "advice", "fatal"),
    [
        (BOTH_LISTED, FOR_CPU, ("onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed, "
         "and onnxruntime 1.32.0, without CUDA, overwrote the other"),
         'pip uninstall -y onnxruntime onnxruntime-gpu; pip install "vlrt[gpu]"', True),
        (BOTH_LISTED, FOR_13, "overwrite each other; what is imported has CUDA",
         "pip uninstall -y onnxruntime onnxruntime-gpu; ", False),
        (BOTH_LISTED, None, "its files are gone", "pip uninstall -y onnxruntime onnx", True),
        (GPU_LISTED, None, ("pip lists onnxruntime-gpu 1.31.1, but its files are gone or broken, "
         "as when two builds are uninstalled over each other"),
         'pip uninstall -y onnxruntime-gpu; pip install "vlrt[gpu]"', True),
        (GPU_LISTED, FOR_CPU, ("pip lists onnxruntime-gpu 1.31.1, but what is imported, from "
         "/site, is without CUDA"), "pip uninstall -y onnxruntime-gpu; ", True),
    ],
)  # fmt: skip
def test_builds_that_overwrite_each_other(listed, build, problem, advice, fatal):
    (told,) = findings(GOOD, build, listed=listed)
    assert (told.kind, told.fatal) == ("build", fatal)
    assert problem in told.problem.replace("\\", "/")
    assert told.advice.startswith(advice)


SUPPLY = 'pip install "onnxruntime-gpu[cuda,cudnn]=={}"'


@pytest.mark.parametrize(
    ("build", "missing", "fields", "problem", "advice", "fatal"),
    [
        (FOR_13, ["cudart"], {}, "does not find libcudart.so.13", SUPPLY.format("1.31.1"), True),
        (FOR_13, ["cublas", "cublasLt"], {}, "does not find libcublasLt.so.13, libcublas.so.13",
         SUPPLY.format("1.31.1"), True),
        (FOR_13, ["curand"], {"other": "libcurand.so.9"},
         "libcurand.so.10 (only libcurand.so.9, which does not serve)", SUPPLY.format("1.31.1"),
         True),
        (FOR_13, ["curand"], {"problem": "libc.so.6: no GLIBC_2.99"},
         "libcurand.so.10 (it is there, but: libc.so.6: no GLIBC_2.99)", SUPPLY.format("1.31.1"),
         True),
        (FOR_13, ["cuDNN"], {}, "cuDNN 9 (libcudnn.so.9): CUDA starts without it, but graphs",
         SUPPLY.format("1.31.1"), False),
        (FOR_12, ["cuDNN"], {}, "does not find cuDNN 9 (libcudnn.so.9)", SUPPLY.format("1.26.0"),
         True),
        (FOR_12, ["cuDNN"], {"other": "libcudnn.so.8"},
         "cuDNN 9 (libcudnn.so.9) (only libcudnn.so.8, which does not serve)",
         SUPPLY.format("1.26.0"), True),
        (FOR_12, ["cufft"], {}, "libcufft.so.11", SUPPLY.format("1.26.0"), True),
        # 1.27's own extra cannot be installed.
        (dataclasses.replace(FOR_13, version="1.27.0"), ["nvrtc"], {}, "libnvrtc.so.13",
         SUPPLY.format("").replace("==", ">=1.28"), True),
        # pip has it, in another folder or without its file.
        (FOR_13, ["cublas", "cublasLt", "cudart"], {"version": "13.0.1"}, "libcudart.so.13",
         ("pip install --force-reinstall --no-deps nvidia-cuda-runtime==13.0.1 "
         "nvidia-cublas==13.0.1"), True),
    ],
)  # fmt: skip
def test_libraries_that_are_missing(build, missing, fields, problem, advice, fatal):
    (told,) = findings(GOOD, build, libraries=found(build, *missing, **fields))
    assert (told.kind, told.fatal) == ("library", fatal)
    assert problem in told.problem
    assert told.advice == advice


def test_libraries_that_pip_lists_and_others_are_got_in_two_steps():
    libraries = [
        each._replace(version="10.4") if each.library.title == "curand" else each
        for each in found(FOR_13, "cublas", "curand")
    ]
    (told,) = findings(GOOD, FOR_13, libraries=libraries)
    assert told.advice == (
        f"{SUPPLY.format('1.31.1')}; pip install --force-reinstall --no-deps nvidia-curand==10.4"
    )


@pytest.mark.parametrize("title", ["cufft", "nvrtc"])
def test_what_no_graph_of_these_families_needs_is_not_missed(title):
    assert findings(GOOD, FOR_13, libraries=found(FOR_13, title)) == []


@pytest.mark.parametrize(("build", "fatal"), [(FOR_13, False), (FOR_12, True)])
@pytest.mark.parametrize("own", [None, "9.1"])
def test_cudnn_for_another_cuda(build, fatal, own):
    other = "nvidia-cudnn-cu12" if build is FOR_13 else "nvidia-cudnn-cu13"
    libraries = found(build)
    libraries[-1] = libraries[-1]._replace(rival=other, version=own)
    (told,) = findings(GOOD, build, libraries=libraries)
    package = libraries[-1].library.package
    assert (told.kind, told.fatal) == ("library", fatal)
    assert told.problem.startswith(f"cuDNN's folder holds files of {package} 9.1 and" if own else
                                   f"cuDNN's folder holds files of {other};")  # fmt: skip
    assert told.advice == f'pip uninstall -y {other} {package}; pip install "{package}<10"'


@pytest.mark.parametrize(
    ("version", "old"),
    [("1.23.2", True), ("1.24.0", False), ("1.31.1", False), ("dev", False), ("", False)],
)
def test_a_build_that_does_not_tell_where_nodes_run_is_too_old(version, old):
    build = dataclasses.replace(FOR_13, version=version)
    found = diagnose(GOOD, None, {"onnxruntime-gpu": version}, build)
    said = [finding.problem for finding in found if "too old to say which nodes" in finding.problem]
    assert bool(said) == old


def test_a_chip_beside_one_that_works_is_only_noted():
    both = dataclasses.replace(GOOD, devices=(PASCAL, dataclasses.replace(H200, index=1)))
    (told,) = findings(both, FOR_13)
    assert (told.kind, told.fatal) == ("chip", False)
    assert told.advice == 'take another: device="cuda:1"'


def test_several_causes_are_told_in_their_order():
    libraries = found(FOR_13, "cudart", "cuDNN")
    facts = dataclasses.replace(OLD, devices=(), error=803)
    told = findings(facts, FOR_13, listed=BOTH_LISTED, libraries=libraries)
    assert [(finding.kind, finding.fatal) for finding in told] == [
        ("driver", True),
        ("build", False),
        ("driver", True),
        ("library", True),
        ("library", False),
    ]


VERSIONS = st.none() | st.tuples(st.integers(11, 14), st.integers(0, 9))
DEVICES = st.builds(
    Device,
    st.integers(0, 8),
    st.text(max_size=5),
    st.tuples(st.integers(3, 14), st.integers(0, 9)),
    st.integers(0, 200000),
)


@given(
    st.builds(
        Facts,
        st.sampled_from(["Linux", "Windows", "Darwin", ""]),
        st.sampled_from(["x86_64", "AMD64", "aarch64", "riscv64"]),
        st.sampled_from([(3, 10), (3, 11), (3, 13)]),
        st.sampled_from([None, "535.104.05", "580.159.03", ""]),
        VERSIONS,
        st.sampled_from(["", "libcuda.so.1 is odd"]),
        st.sampled_from([0, 100, 803, 5]),
        st.lists(DEVICES, max_size=3).map(tuple),
        st.none() | st.integers(0, 8),
        st.none() | st.integers(0, 8),
        st.none() | st.text(max_size=3),
        st.booleans(),
    ),
    st.sampled_from([None, FOR_12, FOR_13, FOR_CPU]),
    st.sampled_from([{}, GPU_LISTED, BOTH_LISTED, {"onnxruntime": "1.32.0"}]),
    st.sets(st.sampled_from(["cudart", "cublas", "cuDNN", "nvrtc"])),
)
def test_no_machine_is_too_strange(facts, build, listed, missing):
    libraries = found(build, *missing) if build and build.has_cuda else []
    told = findings(facts, build, listed=listed, libraries=libraries)
    for finding in told:
        assert finding.problem.strip()
        assert finding.advice.strip()
    works = build and build.has_cuda and facts.devices and not facts.broken
    assert told or works


# --- the words for errors -------------------------------------------------------------------------


@pytest.fixture
def examined(monkeypatch):
    """What is examined, as a list to fill."""
    given = []
    monkeypatch.setattr(nvidia, "examine", lambda: given[0])
    return given


def test_why_not_says_nothing_where_nothing_is_wrong(examined):
    needs = requirements("13.0", "1.31.1")
    examined.append(nvidia.Examined(GOOD, needs, GPU_LISTED, FOR_13, found(FOR_13)))
    assert nvidia.why_not() == ""


def test_why_not_tells_what_keeps_cuda_from_starting_first(examined):
    needs = requirements("13.0", "1.31.1")
    libraries = found(FOR_13, "cudart")
    examined.append(nvidia.Examined(GOOD, needs, BOTH_LISTED, FOR_13, libraries))
    assert nvidia.why_not().splitlines() == [
        "onnxruntime-gpu 1.31.1 does not find libcudart.so.13",
        'pip install "onnxruntime-gpu[cuda,cudnn]==1.31.1"',
    ]
    libraries[:] = found(FOR_13)
    assert "overwrite each other" in nvidia.why_not()


def test_the_build_is_what_is_imported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert nvidia.imported() is None
    fake = SimpleNamespace(
        InferenceSession=object, __version__="1.31.1", package_name="onnxruntime-gpu",
        cuda_version="13.0", get_available_providers=lambda: [CUDA, CPU],
        __file__=str(tmp_path / "onnxruntime" / "__init__.py"),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    build = Build("1.31.1", "onnxruntime-gpu", "13.0", has_cuda=True, site=tmp_path)
    assert nvidia.imported() == build
    examined = nvidia.examine()
    assert examined.build == build
    assert [each.library.title for each in examined.found][-1] == "cuDNN"
    del fake.__file__, fake.package_name, fake.cuda_version
    fake.get_available_providers = lambda: [CPU]
    assert nvidia.imported() == Build("1.31.1", "", "", has_cuda=False)
    assert nvidia.examine().found == ()


def test_loading_a_model_asks_nothing_of_it(tiny_bundle):
    program = (
        "import sys, vlrt\n"
        "vlrt.load(sys.argv[1])\n"
        "print(*[name for name in sys.modules if name.startswith('vlrt.nvidia')])\n"
    )
    command = [sys.executable, "-c", program, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_offers_are_asked_for_by_what_fits():
    assert nvidia_offers.best(GOOD).spec == "vlrt[gpu]"
    assert nvidia_offers.best(NOTHING).spec == "vlrt[gpu]"
    assert nvidia_offers.best(dataclasses.replace(GOOD, machine="riscv64")) is None


def package(folder, name, version):
    """A folder with a package that pip lists."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_builds_in_other_folders_than_the_imported_one_are_hidden(monkeypatch, tmp_path):
    package(tmp_path / "first", "onnxruntime-gpu", "1.31.1")
    package(tmp_path / "second", "onnxruntime", "1.30.0")
    both = [str(tmp_path / "first"), str(tmp_path / "second")]
    monkeypatch.setattr(sys, "path", both)
    assert nvidia.installed() == {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}
    assert nvidia.installed(tmp_path / "first") == {"onnxruntime-gpu": "1.31.1"}
    assert nvidia.installed(tmp_path / "second") == {"onnxruntime": "1.30.0"}
    package(tmp_path / "first", "onnxruntime", "1.32.0")  # which does write over the other
    assert len(nvidia.installed(tmp_path / "first")) == 2
