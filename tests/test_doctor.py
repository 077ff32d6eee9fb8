"""What `vlrt doctor` prints of ONNX Runtime and of NVIDIA, on machines that are not this one."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vlrt import doctor, doctor_nvidia, nvidia, nvidia_libraries
from vlrt.errors import ProviderError
from vlrt.nvidia_driver import Device, Facts
from vlrt.nvidia_libraries import Found, requirements
from vlrt.nvidia_offers import Build
from vlrt.session import CPU, CUDA

TENSORRT = "TensorrtExecutionProvider"
H200 = Device(0, "NVIDIA H200", (9, 0), 143771)
NOTHING = Facts("Linux", "x86_64", (3, 12))
GOOD = dataclasses.replace(
    NOTHING, driver="580.159.03", cuda=(13, 0), devices=(H200,), installed=1, on_bus=1
)
OLD = dataclasses.replace(GOOD, driver="535.104.05", cuda=(12, 2))
FOR_CUDA = Build("1.31.1", "onnxruntime-gpu", "13.0", has_cuda=True, site=Path("/site"))
FOR_CPU = Build("1.32.0", "onnxruntime", "", has_cuda=False, site=Path("/site"))


def examined(facts, build, *missing, listed=None):
    """A machine, and an environment that has the libraries of a build but for some."""
    if listed is None:
        listed = {build.package: build.version} if build else {}
    needs = requirements(build.cuda_version, build.version) if build else None
    found = [
        Found(each, None)
        if each.title in missing
        else Found(each, f"/site/{each.folder}/{each.name}", "13.9")
        for each in (needs.libraries if needs else ())
    ]
    return nvidia.Examined(facts, needs, listed, build, found)


def section(case, starts, preloading=""):
    return doctor_nvidia.section(case, nvidia.diagnose(*case), starts, preloading)


# --- the section ----------------------------------------------------------------------------------


def test_a_machine_without_nvidia_takes_one_line():
    lines, works = section(examined(NOTHING, FOR_CPU), {})
    assert lines == ["NVIDIA        this machine has no NVIDIA GPU and no driver of one"]
    assert works


def test_a_machine_on_which_cuda_works():
    lines, works = section(examined(GOOD, FOR_CUDA), {0: None})
    assert works
    assert lines == [
        "NVIDIA        driver 580.159.03, for CUDA up to 13.0; needed: 580 or newer",
        "  cuda:0      NVIDIA H200, 143771 MiB, compute capability 9.0",
        "  cudart      /site/nvidia/cu13/lib/libcudart.so.13 (pip's nvidia-cuda-runtime 13.9)",
        "  cublasLt    /site/nvidia/cu13/lib/libcublasLt.so.13 (pip's nvidia-cublas 13.9)",
        "  cublas      /site/nvidia/cu13/lib/libcublas.so.13 (pip's nvidia-cublas 13.9)",
        "  curand      /site/nvidia/cu13/lib/libcurand.so.10 (pip's nvidia-curand 13.9)",
        "  cufft       /site/nvidia/cu13/lib/libcufft.so.12 (pip's nvidia-cufft 13.9)",
        "  nvrtc       /site/nvidia/cu13/lib/libnvrtc.so.13 (pip's nvidia-cuda-nvrtc 13.9)",
        "  cuDNN       /site/nvidia/cudnn/lib/libcudnn.so.9 (pip's nvidia-cudnn-cu13 13.9)",
        "  TensorRT    libnvinfer.so.10 not found; CUDA does not need it",
        "CUDA          will work on cuda:0 (NVIDIA H200, 143771 MiB)",
    ]


def test_what_keeps_cuda_from_starting_is_a_problem_and_the_verdict():
    case = examined(OLD, FOR_CUDA, "cudart", "cuDNN")
    lines, works = section(case, {0: "did not start"})
    assert not works
    assert "  cudart      libcudart.so.13 NOT FOUND" in lines
    assert "  cuDNN       libcudnn.so.9 NOT FOUND; CUDA starts without it" in lines
    problem = (
        "driver 535.104.05 supports CUDA up to 12.2; onnxruntime-gpu 1.31.1 is built for CUDA "
        "13.0, which needs driver 580 or newer"
    )
    at = lines.index(f"  PROBLEM: {problem}")
    assert '[cuda,cudnn]<1.27"' in lines[at + 1]
    assert lines[at + 2].startswith("  PROBLEM: onnxruntime-gpu 1.31.1 does not find libcudart")
    assert lines[at + 4].startswith("  NOTE: onnxruntime-gpu 1.31.1 does not find cuDNN 9")
    assert lines[-1] == f"CUDA          will NOT work: {problem}"


def test_trying_has_the_last_word():
    """What is known of builds here may be wrong of newer ones; an addition that ran is not."""
    case = examined(dataclasses.replace(GOOD, devices=(H200, H200)), FOR_CUDA, "cudart")
    lines, works = section(case, {0: None, 1: None})
    assert works
    assert not [line for line in lines if "PROBLEM" in line]
    assert any(line.startswith("  NOTE: onnxruntime-gpu 1.31.1 does not find") for line in lines)
    assert lines[-1].startswith("CUDA          will work on cuda:0 (NVIDIA H200, 143771 MiB), ")


def test_a_failure_without_a_known_cause_is_told_as_onnx_runtime_does():
    starts = {0: "CUDA failure 2: out of memory", 1: "CUDA failure 2"}
    lines, works = section(examined(GOOD, FOR_CUDA), starts, "Failed to load libx.so")
    assert not works
    assert lines[-1] == (
        "CUDA          will NOT work: nothing is found wrong, but it does not start: CUDA failure "
        "2: out of memory Failed to load libx.so"
    )


def test_gpus_that_start_are_named_alone():
    two = dataclasses.replace(GOOD, devices=(H200, Device(1, "Tesla T4", (7, 5), 15095)))
    lines, works = section(examined(two, FOR_CUDA), {0: "busy", 1: None})
    assert works
    assert lines[-1] == "CUDA          will work on cuda:1 (Tesla T4, 15095 MiB)"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (dataclasses.replace(NOTHING, on_bus=1), "a GPU, and no driver"),
        (dataclasses.replace(NOTHING, driver="570.86.10"), "driver 570.86.10, without CUDA"),
        (dataclasses.replace(NOTHING, broken="x"), "driver of unknown version, without CUDA"),
        (
            dataclasses.replace(GOOD, devices=(), error=999),
            "driver 580.159.03, for CUDA up to 13.0",
        ),
    ],
)
def test_the_first_line_tells_of_the_driver(facts, says):
    lines, works = section(examined(facts, FOR_CPU), {})
    assert works
    assert lines[0] == f"NVIDIA        {says}"


def test_tensorrt_that_pip_installed_is_not_found_by_itself(monkeypatch, tmp_path):
    library = tmp_path / "tensorrt_libs" / "libnvinfer.so.10"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setattr(nvidia_libraries, "pip_version", lambda package: "10.16")
    case = examined(GOOD, dataclasses.replace(FOR_CUDA, site=tmp_path))
    lines, _ = section(case, {0: None})
    found = f"{library}; ONNX Runtime finds it if LD_LIBRARY_PATH has its folder"
    assert f"  TensorRT    {found}" in lines


def test_hidden_gpus_are_counted():
    some = dataclasses.replace(GOOD, installed=8, visible="3")
    lines, _ = section(examined(some, FOR_CUDA), {0: None})
    assert "  CUDA_VISIBLE_DEVICES=3 hides 7 of 8 GPUs" in lines


def test_a_build_without_cuda_beside_a_gpu_is_told_and_works():
    lines, works = section(examined(GOOD, FOR_CPU), {})
    assert works
    assert lines == [
        "NVIDIA        driver 580.159.03, for CUDA up to 13.0",
        "  cuda:0      NVIDIA H200, 143771 MiB, compute capability 9.0",
        "  PROBLEM: this machine has an NVIDIA GPU, and onnxruntime 1.32.0 is built without CUDA",
        '    pip uninstall -y onnxruntime; pip install "vlrt[gpu]"',
        (
            "CUDA          will NOT work: this machine has an NVIDIA GPU, and onnxruntime 1.32.0 "
            "is built without CUDA"
        ),
    ]


def test_a_build_with_cuda_on_a_machine_without_a_gpu():
    lines, works = section(examined(NOTHING, FOR_CUDA), {0: "did not start"})
    assert not works
    assert lines == [
        "NVIDIA        no GPU and no driver",
        "  PROBLEM: this machine has no NVIDIA GPU and no driver of one",
        (
            '    run on the CPU: device="cpu", or pip uninstall -y onnxruntime-gpu; '
            'pip install "vlrt[cpu]"'
        ),
        "CUDA          will NOT work: this machine has no NVIDIA GPU and no driver of one",
    ]


# --- the report -----------------------------------------------------------------------------------


@pytest.fixture
def pretend(monkeypatch):
    """Another machine, another build of ONNX Runtime, and the providers that do not start."""

    def pretend_(case, available, refused=(), says=""):
        def start(placement):
            provider, options = placement.providers[0]
            tried.append((provider, dict(options), levels[-1]))
            if provider in refused:
                raise ProviderError(f"{provider} did not start\nfor a long story")

        tried, levels = [], []
        fake = SimpleNamespace(
            __version__="1.31.1",
            InferenceSession=object,
            get_available_providers=lambda: available,
            set_default_logger_severity=levels.append,
            preload_dlls=lambda msvc: print(says),
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        monkeypatch.setattr(doctor, "int8_kernels", lambda: "vnni")
        monkeypatch.setattr(doctor, "start", start)
        monkeypatch.setattr(nvidia, "examine", lambda: case)
        return tried, levels

    return pretend_


def test_cuda_is_started_on_each_gpu(pretend, capsys):
    two = dataclasses.replace(GOOD, devices=(H200, dataclasses.replace(H200, index=1)))
    case = examined(two, FOR_CUDA)
    tried, levels = pretend(case, [TENSORRT, CUDA, CPU], [TENSORRT], "Failed to load it")
    lines, healthy = doctor.report()
    assert healthy
    assert "onnxruntime   1.31.1 from onnxruntime-gpu" in lines
    assert f"  {TENSORRT}: does not start, and CUDA does not need it; see below" in lines
    assert f"  {CUDA}: starts" in lines
    assert f"  {CPU}: starts" in lines
    expected = [(CUDA, 0), (CUDA, 1), (TENSORRT, None), (CPU, None)]
    assert [(provider, options.get("device_id")) for provider, options, _ in tried] == expected
    # ONNX Runtime's own words on CUDA are not silenced where nothing explains a failure.
    assert [level for *_, level in tried] == [3, 3, 4, 4]
    assert levels[-1] == 2
    assert capsys.readouterr().out == ""


def test_cuda_that_does_not_start_is_no_healthy_default(pretend):
    tried, _ = pretend(examined(OLD, FOR_CUDA), [CUDA, CPU], [CUDA])
    lines, healthy = doctor.report()
    assert not healthy
    assert f"  {CUDA}: DOES NOT START: see below" in lines
    assert any(line.startswith("CUDA          will NOT work: driver 535") for line in lines)
    assert tried[0] == (CUDA, {"device_id": 0}, 4)


def test_a_failure_that_nothing_explains_is_told_with_what_was_printed(pretend):
    pretend(examined(GOOD, FOR_CUDA), [CUDA, CPU], [CUDA], "Failed to\nload it")
    lines, healthy = doctor.report()
    assert not healthy
    said = f"nothing is found wrong, but it does not start: {CUDA} did not start Failed to load it"
    assert f"CUDA          will NOT work: {said}" in lines


def test_other_providers_are_no_reason_to_fail(pretend):
    pretend(examined(NOTHING, FOR_CPU), ["OddExecutionProvider", CPU], ["OddExecutionProvider"])
    lines, healthy = doctor.report()
    assert healthy
    assert "  OddExecutionProvider: DOES NOT START: OddExecutionProvider did not start" in lines
    pretend(examined(NOTHING, FOR_CPU), [CPU], [CPU])
    assert not doctor.report()[1]


@pytest.mark.parametrize("facts", [NOTHING, GOOD])
def test_two_builds_are_a_problem_on_any_machine(pretend, facts):
    listed = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    pretend(examined(facts, FOR_CPU, listed=listed), [CPU])
    lines, healthy = doctor.report()
    assert not healthy
    assert "onnxruntime   1.31.1 from onnxruntime, onnxruntime-gpu" in lines
    problems = [line for line in lines if "PROBLEM" in line]
    assert len(problems) == 1
    if facts is NOTHING:
        assert "pip uninstall onnxruntime onnxruntime-gpu, then install one" in problems[0]
    else:
        assert "without CUDA, overwrote the other" in problems[0]
        advice = '    pip uninstall -y onnxruntime onnxruntime-gpu; pip install "vlrt[gpu]"'
        assert advice in lines


@pytest.mark.parametrize(
    ("module", "listed", "says"),
    [
        (
            None,
            {},
            'MISSING: ONNX Runtime is not installed; install one build of it: pip install "',
        ),
        (
            SimpleNamespace(),
            {"onnxruntime-gpu": "1.31.1"},
            (
                "BROKEN: its files are gone; install it again: pip install --force-reinstall "
                "--no-deps onnxruntime-gpu==1.31.1"
            ),
        ),
        (SimpleNamespace(), {"onnxruntime": "1", "onnxruntime-gpu": "2"}, "BROKEN: its files are "),
        ("import no_such_dependency", {}, "BROKEN: No module named 'no_such_dependency'"),
        (
            "import no_such_dependency",
            {"onnxruntime": "1.32.0"},
            (
                "BROKEN: No module named 'no_such_dependency'; install it again: pip install "
                "--force-reinstall --no-deps onnxruntime==1.32.0"
            ),
        ),
    ],
)
def test_an_engine_that_cannot_be_imported(monkeypatch, tmp_path, pretend, module, listed, says):
    pretend(examined(NOTHING, None, listed=listed), [])
    if isinstance(module, str):
        (tmp_path / "onnxruntime.py").write_text(module)
        monkeypatch.delitem(sys.modules, "onnxruntime")
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
    lines, healthy = doctor.report()
    assert not healthy
    assert [line for line in lines if line.startswith(f"onnxruntime   {says}")]
    assert "NVIDIA        this machine has no NVIDIA GPU and no driver of one" in lines


def test_beside_a_gpu_what_to_type_for_a_broken_engine_is_told_once(monkeypatch, pretend):
    pretend(examined(GOOD, None, listed={"onnxruntime-gpu": "1.31.1"}), [])
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    lines, healthy = doctor.report()
    assert not healthy
    assert "onnxruntime   BROKEN: its files are gone" in lines
    typed = [line for line in lines if "pip install" in line and "onnxruntime-gpu" in line]
    assert typed == ['    pip uninstall -y onnxruntime-gpu; pip install "vlrt[gpu]"']
