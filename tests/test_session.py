"""Devices, int8 products, and what a loaded graph does with its inputs."""

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoints import read_json, write_json

import vlrt
from vlrt import hardware, kernels, session
from vlrt.arena import SMALL_RUNS
from vlrt.bundle import graph_file
from vlrt.errors import (
    BundleError,
    EngineMissingError,
    InferenceError,
    OptionError,
    ProviderError,
)
from vlrt.files import file_sha256
from vlrt.session import CPU, CUDA, Session, place

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


def test_libraries_that_pip_installed_are_loaded_and_what_is_missing_is_returned(
    monkeypatch, capsys
):
    def preload_dlls(msvc):
        assert not msvc
        print("Failed to load\n  libcudnn.so.9")

    pretend(monkeypatch, ON_CUDA, preload_dlls=preload_dlls)
    for _ in range(2):
        assert session.preload() == "Failed to load libcudnn.so.9"
    assert capsys.readouterr().out == ""  # a user's results may go there
    pretend(monkeypatch, ON_CUDA)  # a build that has no such function
    assert session.preload() == ""


# --- place ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("available", "device", "provider", "kind", "options"),
    [
        (ON_CPU, "auto", CPU, "cpu", {}),
        (ON_CPU, "cpu", CPU, "cpu", {}),
        (ON_CUDA, "cpu", CPU, "cpu", {}),
        (ON_CUDA, "auto", CUDA, "cuda", {"device_id": "0"}),
        (ON_CUDA, "cuda", CUDA, "cuda", {"device_id": "0"}),
        (ON_CUDA, "cuda:0", CUDA, "cuda", {"device_id": "0"}),
        (ON_CUDA, "cuda:13", CUDA, "cuda", {"device_id": "13"}),
    ],
)
def test_devices(monkeypatch, available, device, provider, kind, options):
    pretend(monkeypatch, available)
    placement = place(device)
    assert (placement.provider, placement.kind) == (provider, kind)
    assert options.items() <= dict(placement.providers[0][1]).items()
    assert device in placement.reason
    assert [name for name, _ in placement.providers[1:]] == ([CPU] if provider == CUDA else [])


@pytest.mark.parametrize("available", [ON_CPU, ON_CUDA])
def test_only_auto_leaves_the_place_open(monkeypatch, available):
    pretend(monkeypatch, available)
    assert not place().asked_for
    assert place("cpu").asked_for
    for provider in available:
        found = session.place_on(provider)
        assert (found.provider, found.asked_for) == (provider, True)
    assert session.place_on(available[-1]).providers == ((CPU, {}),)
    if CUDA in available:
        assert session.place_on(CUDA).providers == place("cuda").providers
    with pytest.raises(ProviderError, match="no 'NoSuchProvider'"):
        session.place_on("NoSuchProvider")


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


def test_providers_may_bring_their_options(monkeypatch):
    pretend(monkeypatch, ["OpenVINOExecutionProvider", CPU])
    options = {"device_type": "CPU", "num_of_threads": 2}
    for pair in (("OpenVINOExecutionProvider", options), ["OpenVINOExecutionProvider", options]):
        placement = place(providers=[pair, CPU])
        assert placement.providers == (("OpenVINOExecutionProvider", options), (CPU, {}))
        assert placement.kind == "OpenVINOExecutionProvider"


def test_options_reach_onnx_runtime_and_its_complaint_names_them(tiny_bundle, tmp_path):
    model = vlrt.load(tiny_bundle, providers=[(CPU, {"a": "b"})], precision="fp32")
    assert model.info["provider_options"] == {"a": "b"}
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    placement = place(providers=[(CPU, {"a": "b"})])
    with pytest.raises(BundleError, match=rf"x\.onnx on {CPU} with {{'a': 'b'}}: ") as caught:
        Session(tmp_path / "x.onnx", placement, threads=1, advice="Upgrade.")
    said = str(caught.value)
    assert f"\n{CPU} itself starts: it may not take what is in this graph" in said
    assert said.endswith("\nUpgrade.")


@pytest.mark.parametrize(
    ("providers", "device", "error", "says"),
    [
        ([], "auto", OptionError, "providers is empty"),
        ("", "auto", OptionError, "providers is ''; valid: a list of names"),
        (CPU, "auto", OptionError, f"providers is '{CPU}'; valid: a list of names"),
        (3, "auto", OptionError, "providers is 3"),
        ({CPU: {}}, "auto", OptionError, "valid: a list of names"),
        ([None], "auto", OptionError, r"providers\[0\] is None; valid: .* pairs"),
        ([CPU, (CPU,)], "auto", OptionError, r"providers\[1\] is \('CPU"),
        ([(CPU, {}, {})], "auto", OptionError, r"providers\[0\] is"),
        ([(CPU, "device_type")], "auto", OptionError, r"providers\[0\] is"),
        ([(CPU, {1: "x"})], "auto", OptionError, r"providers\[0\] is"),
        ([({}, CPU)], "auto", OptionError, r"providers\[0\] is"),
        ([CPU, (CPU, {})], "auto", OptionError, "names one twice: CPU"),
        ([("NoSuchProvider", {"a": 1})], "auto", ProviderError, "no 'NoSuchProvider'"),
        ([CPU], "cpu", OptionError, "not both"),
        (["NoSuchProvider"], "auto", ProviderError, "no 'NoSuchProvider'"),
        ([CPU, "NoSuchProvider"], "auto", ProviderError, "no 'NoSuchProvider'"),
    ],
)
def test_providers_that_cannot_be_used_are_refused(monkeypatch, providers, device, error, says):
    pretend(monkeypatch, ON_CPU)
    with pytest.raises(error, match=says):
        place(device, providers)


class FellBack:
    """A session that is on the CPU."""

    def __init__(self, path, **_):
        pass

    def get_providers(self):
        return [CPU]


def test_a_provider_that_ends_up_inactive_is_an_error(monkeypatch, tmp_path):
    """ONNX Runtime warns and goes on with the CPU when CUDA's libraries are missing."""
    pretend_to_open(monkeypatch, FellBack)
    with pytest.raises(ProviderError, match=rf"{CUDA} with .* did not start; active: {CPU}"):
        Session(tmp_path / "x.onnx", place("cuda:1"), threads=1)


def pretend_to_open(monkeypatch, kind):
    """A build of ONNX Runtime for CUDA whose sessions are of another kind."""
    options = SimpleNamespace(add_session_config_entry=lambda *_: None)
    pretend(monkeypatch, ON_CUDA, SessionOptions=lambda: options, __version__="1")
    sys.modules["onnxruntime"].InferenceSession = kind


def test_a_provider_that_refuses_its_options_is_not_the_bundles_fault(monkeypatch, tmp_path):
    """It fails whatever the graph; ONNX Runtime must not go on with the CPU, which it prints."""

    class Refuses:
        def __init__(self, graph, *, enable_fallback, provider_options, **_):
            assert not enable_fallback
            raise RuntimeError(f"no such option: gpu={provider_options[0]['gpu']}")

    pretend_to_open(monkeypatch, Refuses)
    placement = place(providers=[(CUDA, {"gpu": "x"})])
    with pytest.raises(ProviderError) as caught:
        Session(tmp_path / "x.onnx", placement, threads=1, advice="Upgrade.")
    first, *more = str(caught.value).split(". ", 1)
    assert first == f"{CUDA} with {{'gpu': 'x'}} does not start: no such option: gpu=x"
    assert "`vlrt doctor` says" in more[0]


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("", "active: CPUExecutionProvider. `vlrt doctor` says what is missing"),
        ("the driver is too old\ntype this", "Provider. the driver is too old\ntype this\n`vlrt"),
    ],
)
def test_why_cuda_does_not_start_is_told_as_doctor_would(monkeypatch, tmp_path, why, expected):
    pretend_to_open(monkeypatch, FellBack)
    monkeypatch.setattr("vlrt.nvidia.why_not", lambda: why)
    with pytest.raises(ProviderError) as caught:
        Session(tmp_path / "x.onnx", place("cuda"), threads=1)
    assert expected in str(caught.value)


def test_a_graph_that_a_provider_does_not_take_is_told_with_both(monkeypatch, tmp_path):
    class TakesSums:
        def __init__(self, graph, **_):
            if graph != session._ONE_SUM:
                raise RuntimeError("no such operator")

        def get_providers(self):
            return [CUDA]

        def run(self, *_):
            return [np.ones(1)]

    pretend_to_open(monkeypatch, TakesSums)
    with pytest.raises(BundleError) as caught:
        Session(tmp_path / "x.onnx", place("cuda"), threads=1, advice="Upgrade.")
    first, second, third = str(caught.value).splitlines()
    assert first.endswith(f"x.onnx on {CUDA}: no such operator")
    assert second.startswith(f"{CUDA} itself starts: it may not take what is in this graph")
    assert third == "Upgrade."


def test_on_the_cpu_alone_a_graph_that_cannot_be_loaded_is_the_bundles_fault(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=rf"on {CPU}: ") as caught:
        Session(tmp_path / "x.onnx", place("cpu"), threads=1, advice="Upgrade.")
    assert "itself starts" not in str(caught.value)


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


# --- int8 products --------------------------------------------------------------------------------


def test_the_trial_graphs_are_what_they_are_said_to_be():
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    products = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("a", types.UINT8, [1, 4])],
        [helper.make_tensor_value_info("y", types.INT32, [1, 1])],
        [helper.make_tensor("b", types.INT8, [4, 1], bytes([127] * 4), raw=True)],
    )
    one_sum = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", types.FLOAT, [1])],
        [helper.make_tensor_value_info("y", types.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 13)]
    for found, graph in ((kernels._FOUR_PRODUCTS, products), (session._ONE_SUM, one_sum)):
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        assert onnx.load_from_string(found) == model


def test_products_are_tried_and_agree_with_the_processors_features():
    if hardware.int8_kernels() == "unknown":
        pytest.skip("this system hides its processor's features")
    assert kernels.products_saturate() == (hardware.int8_kernels() == hardware.SATURATING)


@pytest.mark.parametrize(
    ("saturate", "named", "expected"),
    [
        (False, "vnni", "vnni"),
        (False, "unknown", "unknown"),
        (True, "unknown", "saturating"),
        (True, "saturating", "saturating"),
        (True, "vnni", "saturating"),  # an emulator may tell its host's features
        (False, "saturating", "none"),  # as a later ONNX Runtime may have it
    ],
)
def test_the_trial_has_the_last_word_on_kernels(monkeypatch, saturate, named, expected):
    monkeypatch.setattr(kernels, "products_saturate", lambda: saturate)
    monkeypatch.setattr(hardware, "int8_kernels", lambda: named)
    assert kernels.int8_kernels() == expected


@pytest.mark.parametrize(
    ("machine", "saturate", "expected"),
    [("AMD64", False, "vnni"), ("AMD64", True, "saturating"), ("ARM64", False, "unknown")],
)
def test_on_windows_the_trial_tells_what_the_system_does_not(
    monkeypatch, machine, saturate, expected
):
    monkeypatch.setattr(kernels, "products_saturate", lambda: saturate)
    monkeypatch.setattr(hardware, "cpu_features", list)
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert kernels.int8_kernels() == expected


def test_exact_products_reach_onnx_runtime_and_change_no_exact_result(tiny_bundle):
    """Where nothing saturates, the entry costs time alone."""
    if kernels.products_saturate():
        pytest.skip("this processor's products saturate, so that results differ")
    pixels = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    found = {}
    for exact in (False, True):
        path = tiny_bundle / graph_file("vision_model", "int8")
        made = Session(path, place("cpu"), threads=1, exact_products=exact)
        entries = made._session.get_session_options()
        if exact:
            assert entries.get_session_config_entry("session.x64quantprecision") == "1"
        found[exact] = made.run({"pixel_values": pixels})["image_embeds"]
    assert np.array_equal(found[True], found[False])


def write_product(path, *, static, bits):
    """A graph of one int8 product as exports make it: float32 `x` [rows, 32] to `y` [rows, 16].

    Returns:
        What it gives for ones: float64 [16].
    """
    onnx = pytest.importorskip("onnx")
    helper, array, floats = onnx.helper, onnx.numpy_helper.from_array, onnx.TensorProto.FLOAT
    weights = np.full((32, 16), 2 ** (bits - 1) - 1, np.int8)
    weights[:, ::2] *= -1
    scales = np.full(16, 0.01, np.float32)
    tensors = [array(weights, "w"), array(scales, "ws")]
    if static:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node(
                "MatMulIntegerToFloat",
                ["q", "w", "s", "ws", "z"],
                ["y"],
                domain="com.microsoft",
            ),
        ]
        tensors += [array(np.float32(1 / 255), "s"), array(np.uint8(0), "z")]
    else:
        nodes = [
            helper.make_node(
                "DynamicQuantizeMatMul", ["x", "w", "ws"], ["y"], domain="com.microsoft"
            )
        ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", floats, ["rows", 32])],
        [helper.make_tensor_value_info("y", floats, ["rows", 16])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return weights.sum(axis=0) * 0.01


def write_small_weights(path, *, bits):
    """The same product with weights alone in few bits, and activations made int8 on the way."""
    onnx = pytest.importorskip("onnx")
    helper, array, floats = onnx.helper, onnx.numpy_helper.from_array, onnx.TensorProto.FLOAT
    middle = 2 ** (bits - 1)
    weights = np.full((16, 32), 2 * middle - 1, np.uint8)  # [N, K], as the operator has them
    weights[::2] = 1
    packed = weights if bits == 8 else weights[:, ::2] | weights[:, 1::2] << 4
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s", "z"],
        ["y"],
        domain="com.microsoft",
        K=32,
        N=16,
        bits=bits,
        block_size=32,
        accuracy_level=4,
    )
    zeros = np.full((16, 1), middle if bits == 8 else middle | middle << 4, np.uint8)
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", floats, ["rows", 32])],
        [helper.make_tensor_value_info("y", floats, ["rows", 16])],
        [
            array(packed[:, None], "w"),
            array(np.full((16, 1), 0.01, np.float32), "s"),
            array(zeros, "z"),
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return (weights.astype(int) - middle).sum(axis=1) * 0.01


PRODUCTS = """
import json
import sys
from pathlib import Path

import numpy as np

from vlrt import kernels, session

print(kernels.int8_kernels())
for path in sys.argv[1:]:
    for exact in (False, True):
        made = session.Session(Path(path), session.place("cpu"), threads=1, exact_products=exact)
        print(json.dumps(made.run({"x": np.ones((3, 32), np.float32)})["y"].tolist()))
"""
EMULATOR = next(filter(None, map(shutil.which, ("qemu-x86_64", "qemu-x86_64-static"))), None)


@pytest.mark.skipif(
    EMULATOR is None or platform.machine() != "x86_64", reason="needs qemu-x86_64, an emulator"
)
@pytest.mark.parametrize(
    ("processor", "saturates"),
    [("Haswell", True), pytest.param("Nehalem", False, id="Nehalem, which has no AVX2")],
)
def test_on_a_processor_without_vnni_8_bit_weights_need_exact_products(
    tmp_path, processor, saturates
):
    """On emulated ones, with the same ONNX Runtime."""
    kinds = [(static, bits) for static in (False, True) for bits in (8, 7)]
    kinds += [("weights alone", bits) for bits in (8, 4)]
    paths = [tmp_path / f"{number}.onnx" for number in range(len(kinds))]
    expected = [
        write_small_weights(path, bits=bits)
        if kind == "weights alone"
        else write_product(path, static=kind, bits=bits)
        for path, (kind, bits) in zip(paths, kinds, strict=True)
    ]
    command = [EMULATOR, "-cpu", processor, sys.executable, "-c", PRODUCTS, *paths]
    environment = os.environ | {"OPENBLAS_CORETYPE": processor}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found, *lines = done.stdout.splitlines()
    assert (found == hardware.SATURATING) == saturates
    found = [json.loads(line) for line in lines]
    for (kind, bits), right, default, exact in zip(
        kinds, expected, found[0::2], found[1::2], strict=True
    ):
        assert np.allclose(exact, right, rtol=1e-5)
        wrong = saturates and kind != "weights alone" and bits == 8
        assert np.allclose(default, right, rtol=1e-5) != wrong


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_alone_in_few_bits_give_the_right_products_here(tmp_path, bits):
    expected = write_small_weights(tmp_path / "x.onnx", bits=bits)
    made = Session(tmp_path / "x.onnx", place("cpu"), threads=1)
    found = made.run({"x": np.ones((3, 32), np.float32)})["y"]
    np.testing.assert_allclose(found, np.tile(expected, (3, 1)), rtol=1e-5)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("bits", [8, 7])
def test_products_on_this_processor_are_right_as_load_sets_them(tmp_path, static, bits):
    expected = write_product(tmp_path / "x.onnx", static=static, bits=bits)
    exact = kernels.int8_kernels() == hardware.SATURATING
    made = Session(tmp_path / "x.onnx", place("cpu"), threads=1, exact_products=exact)
    found = made.run({"x": np.ones((3, 32), np.float32)})["y"]
    np.testing.assert_allclose(found, np.tile(expected, (3, 1)), rtol=1e-5)


# --- a graph that cannot be loaded ----------------------------------------------------------------


def too_new(path):
    """Make a graph one of an opset that no ONNX Runtime knows yet."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    model.opset_import[0].version = 999
    onnx.save_model(model, path)


def test_a_graph_too_new_for_this_onnx_runtime_says_what_made_it_and_what_to_do(own_bundle):
    path = own_bundle / graph_file("text_model", "fp16")
    too_new(path)
    manifest = read_json(own_bundle / "vlrt.json")
    manifest["verified"]["versions"]["onnxruntime"] = "77.7"
    manifest["files"][graph_file("text_model", "fp16")] = {
        "size": path.stat().st_size,
        "sha256": file_sha256(path),
    }
    write_json(own_bundle / "vlrt.json", manifest)
    with pytest.raises(BundleError) as caught:
        vlrt.load(own_bundle, precision="fp16", device="cpu")
    said = str(caught.value)
    assert f"ONNX Runtime {session.engine().__version__} cannot load {path}" in said
    assert "999" in said
    assert "made and tried with ONNX Runtime 77.7: upgrade" in said
    assert said.endswith("or load another precision: fp32, int8")
    assert vlrt.load(own_bundle, precision="int8", device="cpu")


def test_a_foreign_graph_that_is_too_new_says_what_else_there_is(foreign_bundle):
    too_new(foreign_bundle / graph_file("vision_model", "fp32"))
    with pytest.raises(BundleError, match=r"does not say .*precision: fp16, quantized$"):
        vlrt.load(foreign_bundle, precision="fp32", device="cpu")
    for component in GRAPHS:
        for precision in ("fp16", "quantized"):
            (foreign_bundle / graph_file(component, precision)).unlink()
    with pytest.raises(BundleError, match=r"a later one may load it$"):
        vlrt.load(foreign_bundle, precision="fp32", device="cpu")


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


class Spy:
    """In place of ONNX Runtime's session: notes which runs are to give memory back.

    A picture of value 13 is bad luck.
    """

    def __init__(self):
        self.gave_back = []

    def run(self, names, feed, options):
        entry = "memory.enable_memory_arena_shrinkage"
        self.gave_back.append(options is not None and options.get_run_config_entry(entry))
        (pixels,) = feed.values()
        if np.any(pixels == 13):
            raise RuntimeError("bad luck")
        return [np.zeros((len(pixels), 1), np.float32)]


@pytest.fixture
def spied(tiny_bundle):
    """A session and the spy in it."""
    made = Session(tiny_bundle / graph_file("vision_model", "fp32"), place("cpu"), threads=1)
    made._session = spy = Spy()
    return made, spy


def pictures(number, value=0):
    return {"pixel_values": np.full((number, 3, 32, 32), value, np.float32)}


BACK = "cpu:0"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([8], [False]),
        ([1, 1, 1, 1], [False] * 4),
        ([8, 8], [False, False]),
        ([8, 4, 4, 4], [False] * 4),  # not less than half
        ([8, 1, 1], [False, False, False]),
        ([8, 1, 1, 1], [False, False, False, BACK]),
        ([8, 3, 2, 1], [False, False, False, BACK]),
        ([8, 1, 1, 1, 1, 1, 1], [False, False, False, BACK, False, False, False]),
        ([8, 1, 1, 1, 8, 1, 1, 1], [False, False, False, BACK] * 2),
        ([8, 1, 8, 1, 8, 1, 8, 1], [False] * 8),
        ([8, 1, 1, 5, 1, 1, 1], [False] * 6 + [BACK]),
    ],
    ids=str,
)
def test_memory_goes_back_after_some_small_runs_in_a_row(spied, sizes, expected):
    assert SMALL_RUNS == 3
    made, spy = spied
    for number in sizes:
        made.run(pictures(number))
    assert spy.gave_back == expected


def test_a_run_that_fails_leaves_giving_back_to_the_next(spied):
    made, spy = spied
    for number in (8, 1, 1):
        made.run(pictures(number))
    with pytest.raises(InferenceError, match="bad luck"):
        made.run(pictures(1, value=13))
    made.run(pictures(1))
    made.run(pictures(1))
    assert spy.gave_back == [False, False, False, BACK, BACK, False]


def test_a_large_run_that_fails_counts(spied):
    made, spy = spied
    with pytest.raises(InferenceError, match="bad luck"):
        made.run(pictures(8, value=13))
    for _ in range(3):
        made.run(pictures(1))
    assert spy.gave_back == [False, False, False, BACK]


def test_memory_is_given_back_by_a_run_that_is_alone(spied):
    """Of two at once neither does so, nor does what began meanwhile; the next one alone does."""
    made, spy = spied
    for number in (8, 1, 1):
        made.run(pictures(number))
    began, may_end = threading.Event(), threading.Event()

    def wait(names, feed, options):
        began.set()
        assert may_end.wait(60)
        return original(names, feed, options)

    original, spy.run = spy.run, wait
    slow = threading.Thread(target=made.run, args=(pictures(8),))
    slow.start()
    assert began.wait(60)
    spy.run = original
    for _ in range(4):
        made.run(pictures(1))
    assert spy.gave_back[3:] == [False] * 4
    may_end.set()
    slow.join()
    made.run(pictures(1))
    made.run(pictures(1))
    made.run(pictures(1))
    assert spy.gave_back[7:] == [False, False, False, BACK]


def test_a_large_run_beside_the_one_that_gives_back_is_not_forgotten(spied):
    made, spy = spied
    for number in (8, 1, 1):
        made.run(pictures(number))

    def with_another(names, feed, options):
        spy.run = original
        made.run(pictures(16))
        return original(names, feed, options)

    original, spy.run = spy.run, with_another
    for _ in range(4):
        made.run(pictures(1))
    assert spy.gave_back[3:] == [False, BACK, False, BACK, False]


def test_threads_that_share_a_session_get_what_one_alone_gets(vision):
    """Of sizes in turn, so that memory is given back in between."""
    batches = [pictures(number, value=number / 8) for number in (8, 1, 1, 1, 1, 1, 3, 1)]
    expected = [vision.run(batch)["image_embeds"] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(vision.run, batches * 8))
    for number, out in enumerate(found):
        assert np.array_equal(out["image_embeds"], expected[number % len(batches)])
    assert vision._arena._in_flight == 0


def test_memory_is_kept_on_the_cpu_alone(monkeypatch, tmp_path):
    assert session.session_options(1, spinning=True, exact_products=False).enable_cpu_mem_arena
    asked = []

    class OnCuda:
        get_inputs = get_outputs = get_provider_graph_assignment_info = list

        def __init__(self, graph, *, sess_options, **_):
            asked.append(sess_options.enable_cpu_mem_arena)

        def get_providers(self):
            return [CUDA]

    pretend_to_open(monkeypatch, OnCuda)
    Session(tmp_path / "x.onnx", place("cuda"), threads=1)
    assert asked == [False]


MEMORY = """
import sys
from pathlib import Path

import numpy as np

from vlrt.arena import SMALL_RUNS
from vlrt.session import Session, place


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


runner = Session(Path(sys.argv[1]), place("cpu"), threads=1)
side = runner.input_shapes["pixel_values"][2]
batch = np.zeros((64, 3, side, side), np.float32)
runner.run({"pixel_values": batch[:1]})
before, peak = resident(), Path("/proc/self/status")
runner.run({"pixel_values": batch})
for _ in range(SMALL_RUNS):
    runner.run({"pixel_values": batch[:1]})
after = resident()
top = next(line for line in peak.read_text().splitlines() if line.startswith("VmHWM"))
print(before, int(top.split()[1]) / 1024, after)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_batch_leaves_no_memory_behind(tmp_path):
    """64 pictures need tens of MB; after them, single ones must not keep what they took."""
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


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("CPUExecutionProvider", {}, {}),
        ("OpenVINOExecutionProvider", {}, {"num_of_threads": "3"}),
        (
            "OpenVINOExecutionProvider",
            {"device_type": "CPU", "num_of_threads": "1"},
            {"device_type": "CPU", "num_of_threads": "1"},
        ),
    ],
)
def test_an_engine_with_threads_of_its_own_gets_as_many(name, options, expected):
    assert session._with_threads(name, options, 3) == expected


@pytest.mark.parametrize("spinning", [False, True])
def test_threads_stop_when_a_run_ends(spinning):
    """Else those of one graph take a core from the next graph, or from the next picture."""
    options = session.session_options(2, spinning=spinning, exact_products=False)
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spinning))
