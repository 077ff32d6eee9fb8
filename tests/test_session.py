"""Devices, precisions, CPU quotas, and what a loaded graph does with its inputs."""

import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoints import read_json, write_json

import vlrt
from vlrt import session
from vlrt.bundle import graph_file, open_bundle
from vlrt.errors import (
    BundleError,
    EngineMissingError,
    InferenceError,
    OptionError,
    PrecisionError,
    ProviderError,
)
from vlrt.session import CPU, CUDA, Session, choose_precision, place

ON_CPU = [CPU]
ON_CUDA = ["TensorrtExecutionProvider", CUDA, CPU]
GRAPHS = ("vision_model", "text_model")


def pretend(monkeypatch, available, **more):
    """Another build of ONNX Runtime, as far as `place` looks at it."""
    fake = SimpleNamespace(
        get_available_providers=lambda: available, InferenceSession=object, **more
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)


# --- the engine -----------------------------------------------------------------------------------


def test_an_absent_engine_is_an_error_that_names_the_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineMissingError, match=r"vlrt\[cpu\].*vlrt\[gpu\]"):
        place()
    with pytest.raises(ImportError):
        place()


def test_the_husk_that_two_builds_leave_counts_as_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    with pytest.raises(EngineMissingError):
        place()


def test_an_engine_that_lacks_a_dependency_says_which(monkeypatch, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("import no_such_dependency")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as caught:
        place()
    assert not isinstance(caught.value, EngineMissingError)


# --- place ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("available", "device", "provider", "kind", "options"),
    [
        (ON_CPU, "auto", CPU, "cpu", {}),
        (ON_CPU, "cpu", CPU, "cpu", {}),
        (ON_CUDA, "cpu", CPU, "cpu", {}),
        (ON_CUDA, "auto", CUDA, "cuda", {"device_id": 0}),
        (ON_CUDA, "cuda", CUDA, "cuda", {"device_id": 0}),
        (ON_CUDA, "cuda:0", CUDA, "cuda", {"device_id": 0}),
        (ON_CUDA, "cuda:13", CUDA, "cuda", {"device_id": 13}),
    ],
)
def test_devices(monkeypatch, available, device, provider, kind, options):
    pretend(monkeypatch, available)
    placement = place(device)
    assert (placement.provider, placement.kind) == (provider, kind)
    assert options.items() <= dict(placement.providers[0][1]).items()
    assert device in placement.reason
    assert [name for name, _ in placement.providers[1:]] == ([CPU] if provider == CUDA else [])


@pytest.mark.parametrize(
    "device", ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:1.5", "cpu:0", "mps"]
)
def test_a_device_that_does_not_exist_names_the_valid_ones(monkeypatch, device):
    pretend(monkeypatch, ON_CUDA)
    with pytest.raises(OptionError, match="valid: auto, cpu, cuda"):
        place(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_that_was_not_built_in_is_an_error_and_no_fallback(monkeypatch, device):
    pretend(monkeypatch, ON_CPU)
    with pytest.raises(ProviderError, match=rf"no '{CUDA}'; it has: {CPU}.*vlrt\[gpu\]"):
        place(device)


def test_given_providers_are_taken_in_their_order(monkeypatch):
    pretend(monkeypatch, ON_CUDA)
    placement = place(providers=["TensorrtExecutionProvider", CUDA])
    assert [name for name, _ in placement.providers] == ["TensorrtExecutionProvider", CUDA]
    assert placement.kind == "TensorrtExecutionProvider"


@pytest.mark.parametrize(
    ("providers", "device", "error", "says"),
    [
        ([], "auto", OptionError, "providers is empty"),
        ([CPU], "cpu", OptionError, "not both"),
        (["NoSuchProvider"], "auto", ProviderError, "no 'NoSuchProvider'"),
        ([CPU, "NoSuchProvider"], "auto", ProviderError, "no 'NoSuchProvider'"),
    ],
)
def test_providers_that_cannot_be_used_are_refused(monkeypatch, providers, device, error, says):
    pretend(monkeypatch, ON_CPU)
    with pytest.raises(error, match=says):
        place(device, providers)


def test_a_provider_that_ends_up_inactive_is_an_error(monkeypatch, tmp_path):
    """ONNX Runtime warns and goes on with the CPU when CUDA's libraries are missing."""

    class FellBack:
        def __init__(self, path, **_):
            pass

        def get_providers(self):
            return [CPU]

    options = SimpleNamespace(add_session_config_entry=lambda *_: None)
    pretend(monkeypatch, ON_CUDA, SessionOptions=lambda: options, __version__="1")
    sys.modules["onnxruntime"].InferenceSession = FellBack
    with pytest.raises(ProviderError, match=rf"{CUDA} did not start; active: {CPU}"):
        Session(tmp_path / "x.onnx", place("cuda"), threads=1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "gpu"}, "device"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": -2}, "threads is -2"),
        ({"decode": "quick"}, "exact, fast"),
    ],
)
def test_bad_options_of_load_are_refused(tiny_bundle, options, says):
    with pytest.raises(OptionError, match=says):
        vlrt.load(tiny_bundle, **options)


def test_load_says_what_it_decided(tiny_bundle):
    info = vlrt.load(tiny_bundle, precision="int8", device="cpu", threads=1, spinning=False).info
    expected = {"family": "clip", "precision": "int8", "provider": CPU, "threads": 1}
    assert expected.items() <= info.items()
    assert info["spinning"] is False
    assert info["bundle"] == str(tiny_bundle)


# --- precision ------------------------------------------------------------------------------------


def set_speed(root, times, device="cpu"):
    """times: precision -> milliseconds of the two components; None leaves one unmeasured."""
    manifest = read_json(root / "vlrt.json")
    for component, position in zip(GRAPHS, (0, 1), strict=True):
        for precision, entry in manifest["components"][component]["variants"].items():
            both = times.get(precision)
            found = both and both[position]
            entry["speed"] = {"device": device, "median_ms": found} if found else None
    write_json(root / "vlrt.json", manifest)


@pytest.mark.parametrize(
    ("times", "expected", "why"),
    [
        ({}, "fp32", "no variants were compared"),
        ({"int8": (1, 1)}, "fp32", "no variants were compared"),
        ({"fp32": (5, 5), "fp16": (9, 9), "int8": (2, 2)}, "int8", "fastest of fp32, fp16, int8"),
        ({"fp32": (5, 5), "fp16": (2, 2), "int8": (3, 3)}, "fp16", "fastest"),
        ({"fp32": (1, 1), "fp16": (2, 2), "int8": (3, 3)}, "fp32", "fastest"),
        ({"fp32": (5, 5), "fp16": (9, 1), "int8": (1, 8)}, "int8", "fastest"),
        ({"fp32": (5, 5), "fp16": (4, 4), "int8": (1, None)}, "fp16", "fastest of fp32, fp16"),
    ],
)
def test_auto_takes_what_the_manifest_measured_as_fastest(own_bundle, times, expected, why):
    set_speed(own_bundle, times)
    found, reason = choose_precision(open_bundle(own_bundle), GRAPHS, "auto", "cpu")
    assert found == expected
    assert why in reason


def test_speed_on_another_kind_of_device_does_not_count(own_bundle):
    set_speed(own_bundle, {"fp32": (5, 5), "int8": (1, 1)}, device="cuda")
    bundle = open_bundle(own_bundle)
    assert choose_precision(bundle, GRAPHS, "auto", "cpu")[0] == "fp32"
    assert choose_precision(bundle, GRAPHS, "auto", "cuda")[0] == "int8"


@pytest.mark.parametrize("held", [["int8"], ["fp16", "int8"]])
def test_auto_without_fp32_and_without_measurements_takes_one_that_is_held(foreign_bundle, held):
    for component in GRAPHS:
        (foreign_bundle / graph_file(component, "fp32")).unlink()
        if "fp16" not in held:
            (foreign_bundle / graph_file(component, "fp16")).unlink()
    found, reason = choose_precision(open_bundle(foreign_bundle), GRAPHS, "auto", "cpu")
    assert found == {"int8": "quantized"}.get(held[0], held[0])
    assert ("only one held" if held == ["int8"] else "first one held") in reason


def test_a_requested_precision_is_never_replaced(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    for precision in ("fp32", "fp16", "int8"):
        assert choose_precision(bundle, GRAPHS, precision, "cpu")[0] == precision
    with pytest.raises(PrecisionError, match="'uint8'; it has: fp32, fp16, int8"):
        choose_precision(bundle, GRAPHS, "uint8", "cpu")


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
    assert session._cgroup_quota(tmp_path) == expected


@pytest.mark.parametrize("quota", [None, 0.3, 1.0, 1.5, 2.0, 1000.0])
def test_threads_respect_quota_and_affinity(monkeypatch, quota):
    import os

    monkeypatch.setattr(session, "_cgroup_quota", lambda root: quota)
    cores = len(os.sched_getaffinity(0))
    expected = cores if quota is None else min(cores, math.ceil(quota))
    assert session.available_cpus() == expected >= 1


# --- running --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text(tiny_bundle):
    return Session(tiny_bundle / graph_file("text_model", "fp32"), place("cpu"), threads=1)


@pytest.fixture(scope="module")
def vision(tiny_bundle):
    return Session(tiny_bundle / graph_file("vision_model", "fp32"), place("cpu"), threads=1)


def test_the_free_axes_of_inputs_are_none(text, vision):
    assert text.input_shapes == {"input_ids": (None, None)}
    assert vision.input_shapes == {"pixel_values": (None, 3, 32, 32)}


def test_a_missing_input_is_named_with_those_given(text):
    with pytest.raises(InferenceError, match=r"needs \['input_ids'\]; given: \['ids', 'mask'\]"):
        text.run({"ids": np.zeros(1), "mask": np.zeros(1)})


@pytest.mark.parametrize(
    "shape", [(1, 3, 16, 16), (1, 1, 32, 32), (3, 32, 32), (1, 3, 32, 33)], ids=str
)
def test_a_wrong_shape_is_refused_with_that_shape(vision, shape):
    with pytest.raises(InferenceError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        vision.run({"pixel_values": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("ids", [[[10**6, 1]], [[-(10**6), 1]], [[1] * 17]])
def test_ids_beyond_the_tables_are_refused(text, ids):
    with pytest.raises(InferenceError, match="refused"):
        text.run({"input_ids": np.array(ids, np.int64)})


def test_inputs_are_cast_and_surplus_ones_left_out(text):
    ids = np.array([[522, 300, 523]])
    expected = text.run({"input_ids": ids})["text_embeds"]
    surplus = {"input_ids": ids.astype(np.int32), "attention_mask": np.ones_like(ids)}
    assert np.array_equal(text.run(surplus)["text_embeds"], expected)
    strided = np.repeat(ids, 2, axis=1)[:, ::2]
    assert np.array_equal(text.run({"input_ids": strided})["text_embeds"], expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_come_by_name_with_the_batch_of_the_input(vision, batch):
    out = vision.run({"pixel_values": np.zeros((batch, 3, 32, 32), np.float32)})
    assert list(out) == ["image_embeds"]
    assert len(out["image_embeds"]) == batch


def test_fp16_outputs_come_back_as_float32(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, half = onnx.helper, onnx.TensorProto.FLOAT16
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "half",
        [helper.make_tensor_value_info("x", half, ["n"])],
        [helper.make_tensor_value_info("y", half, ["n"])],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save_model(model, tmp_path / "half.onnx")
    runner = Session(tmp_path / "half.onnx", place("cpu"), threads=1)
    out = runner.run({"x": np.array([0.5, 1.5], np.float32)})["y"]
    assert out.dtype == np.float32
    assert out.tolist() == [1.0, 3.0]


def test_a_file_that_is_no_graph_is_named(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    for name in ("x.onnx", "absent.onnx"):
        with pytest.raises(BundleError, match=rf"cannot load .*{name}"):
            Session(tmp_path / name, place("cpu"), threads=1)


MEMORY = """
import sys
from pathlib import Path

import numpy as np

from vlrt.session import Session, place


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


runner = Session(Path(sys.argv[1]), place("cpu"), threads=1)
side = runner.input_shapes["pixel_values"][2]
batch = np.zeros((64, 3, side, side), np.float32)
runner.run({"pixel_values": batch[:1]})
before, peak = resident(), Path("/proc/self/status")
runner.run({"pixel_values": batch})
runner.run({"pixel_values": batch[:1]})
after = resident()
top = next(line for line in peak.read_text().splitlines() if line.startswith("VmHWM"))
print(before, int(top.split()[1]) / 1024, after)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_batch_leaves_no_memory_behind(tmp_path):
    """64 pictures need tens of MB; after them, a single one must not keep what they took."""
    pytest.importorskip("onnx")
    pytest.importorskip("safetensors")
    from checkpoints import write_checkpoint

    from vlrt_export import clip, graph
    from vlrt_export.checkpoint import Checkpoint
    from vlrt_export.precision import Recipe

    wide = {"hidden_size": 256, "intermediate_size": 1024, "image_size": 128}
    root = write_checkpoint(tmp_path / "wide", vision=wide)
    made = clip.build(Checkpoint("wide", root), "vision_model", Recipe("fp32"))
    assert isinstance(made, graph.Graph)
    (tmp_path / "x.onnx").write_bytes(made.model("test").SerializeToString())
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "x.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    before, peak, after = map(float, done.stdout.split())
    assert peak - before > 60, "the batch was too small to tell"
    assert after - before < (peak - before) / 2
