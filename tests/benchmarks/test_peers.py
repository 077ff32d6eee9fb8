"""The engines that vlrt is compared with: who takes part, how to get the others, what they run."""

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vlrt
from vlrt.boxes import nms
from vlrt.bundle import open_bundle
from vlrt.errors import BenchmarkError, BundleError, OptionError, PrecisionError
from vlrt.families import owlvit as owlvit_family
from vlrt_benchmarks import kept as keeping
from vlrt_benchmarks import openvino_conversion as conversion
from vlrt_benchmarks.kept import arrays_sha256, kept, run
from vlrt_benchmarks.peers import (
    BOTH,
    END,
    END_READY,
    FROM_FILE,
    IMAGE,
    STAGES,
    SUPPRESS,
    TEXT,
    compiled,
    cudagraph,
    eager,
    engines,
    hf_processors_rs,
    opencv,
    openvino,
    optimum,
    ours,
    torchvision,
)
from vlrt_benchmarks.plan import Plan, drawn_pictures, make_arrays
from vlrt_benchmarks.subject import Subject

DEMO = Path(vlrt.__file__).parent / "demo" / "bundles"
CHECKPOINTS = Path(__file__).parents[1] / "data"
LABELS = ["a red circle", "a blue square"]


def subject(family):
    """A demo model; of OWLv2, which has none, what needs no files."""
    checkpoint = CHECKPOINTS / f"{family}-shapes"
    return Subject(family, family, "", DEMO / family, checkpoint, False, ("int8",))


def plan(device="cpu", stages=(), pictures=(), optimum_python=None):
    return SimpleNamespace(
        device=device, stages=stages, pictures=pictures, optimum_python=optimum_python
    )


@pytest.fixture
def with_bf16(monkeypatch):
    """A processor that OpenVINO, installed or not, has bf16 for."""
    _fake_openvino(monkeypatch, ["BF16", "FP32", "INT8"])


def _fake_openvino(monkeypatch, able):
    module = ModuleType("openvino")
    module.Core = lambda: SimpleNamespace(get_property=lambda device, name: able)
    monkeypatch.setitem(sys.modules, "openvino", module)


def job_of(tmp_path, arrays, **rest):
    np.savez(tmp_path / "arrays.npz", **arrays)
    return {"arrays": str(tmp_path / "arrays.npz"), "threads": 1, "device": "cpu"} | rest


# --- who takes part -------------------------------------------------------------------------------


def test_every_engine_says_what_it_needs_and_how_to_get_it():
    found = engines()
    assert {"hf-processors-rs", "opencv", "openvino", "optimum", "torchvision"} <= found.keys()
    for name, module in found.items():
        assert "pip install" in module.INSTALL, name
        assert all(need.isidentifier() for need in module.NEEDS), name


@pytest.mark.parametrize(
    ("module", "family", "stages"),
    [
        (opencv, "clip", None),
        (opencv, "owlvit", (SUPPRESS,)),
        (torchvision, "vilt", None),
        (torchvision, "owlv2", (SUPPRESS,)),
        (hf_processors_rs, "clip", (FROM_FILE,)),
        (hf_processors_rs, "vilt", (FROM_FILE,)),
        (hf_processors_rs, "owlv2", None),
        (openvino, "clip", (IMAGE, TEXT)),
        (openvino, "owlvit", (IMAGE, TEXT)),
        (openvino, "vilt", (BOTH,)),
        (optimum, "clip", (END,)),
        (optimum, "owlvit", (END,)),
        (optimum, "owlv2", None),
        (optimum, "vilt", None),
    ],
)
@pytest.mark.usefixtures("with_bf16")
def test_an_engine_enters_what_it_can_run_and_says_why_not(module, family, stages):
    asked = plan(optimum_python="some-python")
    entries, refused = (
        module.entries(subject(family), asked),
        module.refused(subject(family), asked),
    )
    if stages is None:
        assert entries == []
        assert all(len(reason) > 10 for reason in refused.values())
        assert len(refused) == 1
    else:
        assert refused == {}
        assert {entry.stages for entry in entries} == {stages}
        assert set(stages) <= set(STAGES[family])
        assert all(entry.name.startswith(entry.engine) for entry in entries)


@pytest.mark.parametrize(
    ("device", "able", "names", "refused"),
    [
        ("cpu", ["FP32", "BF16"], ["openvino-fp32", "openvino-bf16", "openvino-int8"], []),
        ("cpu", ["FP32"], ["openvino-fp32", "openvino-int8"], ["openvino-bf16"]),
        ("cuda", ["FP32", "BF16"], [], ["openvino"]),
    ],
)
def test_openvino_enters_what_the_processor_has(monkeypatch, device, able, names, refused):
    _fake_openvino(monkeypatch, able)
    entries = openvino.entries(subject("clip"), plan(device))
    assert [entry.name for entry in entries] == names
    assert list(openvino.refused(subject("clip"), plan(device))) == refused


@pytest.mark.parametrize("module", [compiled, openvino, hf_processors_rs])
@pytest.mark.usefixtures("with_bf16")
def test_pictures_of_several_shapes_are_refused_before_anything_runs(pictures, module):
    several, one = plan(pictures=pictures), plan(pictures=pictures[:1] * 2)
    assert module.entries(subject("vilt"), several) == []
    [why] = module.refused(subject("vilt"), several).values()
    assert "these become several (height x width: " in why
    for family, asked in [("vilt", one), ("clip", several)]:
        assert module.entries(subject(family), asked)
        assert not module.refused(subject(family), asked)


def test_a_bundle_of_one_graph_is_refused_by_name():
    clip = open_bundle(DEMO / "clip")
    one_graph = SimpleNamespace(name="theirs", variants={"model": {}})
    with pytest.raises(BundleError, match=r"theirs is made of model; .* vision_model, text_model"):
        ours.parts(owlvit_family, one_graph)
    assert set(ours.parts(SimpleNamespace(COMPONENTS=("vision_model",)), clip)) == {"vision_model"}


def test_both_ways_from_end_to_end_share_one_model(monkeypatch, pictures):
    load, loaded = vlrt.load, []
    monkeypatch.setattr(vlrt, "load", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    job = {"bundle": str(DEMO / "clip"), "family": "clip", "precision": "int8", "device": "cpu",
           "threads": 1, "pictures": pictures, "labels": LABELS}  # fmt: skip
    stages = ours.load({**job, "stages": [END, END_READY]})
    assert len(loaded) == 1
    first, second = (one.outputs(one.run())["scores"] for one in stages.values())
    np.testing.assert_allclose(first, second, atol=1e-6)


# --- what is made once ----------------------------------------------------------------------------


def test_what_is_there_is_made_again_only_for_another_stamp(tmp_path):
    out, made = tmp_path / "model.xml", []

    def make():
        made.append(len(made))
        out.write_text(str(len(made)))

    for stamp in ({}, {}, {"openvino": "1"}, {"openvino": "1"}, {"openvino": "2"}):
        assert kept(out, stamp, make) == out
    assert out.read_text() == str(len(made)) == "3"
    out.unlink()
    kept(out, {"openvino": "2"}, make)
    assert out.read_text() == "4"


def test_what_was_cut_off_is_made_again(tmp_path):
    out = tmp_path / "model.xml"

    def fail():
        out.write_text("half")
        raise KeyboardInterrupt

    kept(out, {}, lambda: out.write_text("whole"))
    with pytest.raises(KeyboardInterrupt):
        kept(out, {"other": 1}, fail)
    kept(out, {}, lambda: out.write_text("whole again"))
    assert out.read_text() == "whole again"


def test_a_program_that_fails_is_quoted():
    run([sys.executable, "-c", "import os; assert not os.listdir()"], "nothing")
    program = "import sys; sys.exit('no such operator')"
    with pytest.raises(BenchmarkError, match=r"(?s)^the graph cannot be made.*no such operator$"):
        run([sys.executable, "-c", program], "the graph")


def test_a_fingerprint_is_of_names_types_shapes_and_numbers():
    a, b = np.arange(4, dtype=np.int32), np.ones((2, 2), np.float32)
    others = [
        {},
        {"a": a},
        {"a": b, "b": a},
        {"a": a.astype(np.uint32), "b": b},
        {"a": a.reshape(2, 2), "b": b},
        {"a": a + 1, "b": b},
        {"a": a, "b": b},
    ]
    assert len({arrays_sha256(one) for one in others}) == len(others)
    assert arrays_sha256({"b": b, "a": a}) == arrays_sha256({"a": a, "b": b})


# --- OpenVINO -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "name", "shape", "free"),
    [
        ("clip", "pixel_values", (1, 3, 64, 64), [-1, 3, 64, 64]),
        ("vilt", "pixel_values", (1, 3, 64, 96), [-1, 3, -1, -1]),
        ("vilt", "pixel_mask", (1, 64, 96), [-1, -1, -1]),
        ("clip", "input_ids", (1, 7), [-1, -1]),
    ],
)
def test_axes_that_may_vary_are_free(family, name, shape, free):
    assert conversion.free_axes(family, name, shape) == free


@pytest.mark.parametrize("arrays", [{}, {"pixel_mask": np.ones((2, 4, 4), np.int64)}])
def test_pictures_without_padding_are_taken(arrays):
    openvino.check_unpadded(arrays)


def test_pictures_with_padding_are_refused():
    mask = np.ones((2, 4, 4), np.int64)
    mask[1, :, 3:] = 0
    with pytest.raises(ValueError, match="give pictures of one shape"):
        openvino.check_unpadded({"pixel_mask": mask})


@pytest.mark.torch
@pytest.mark.parametrize(("family", "stage"), [("clip", IMAGE), ("owlvit", IMAGE), ("vilt", BOTH)])
def test_pytorch_gives_the_same_of_levels_as_of_values(tmp_path, family, stage):
    torch = pytest.importorskip("torch")
    before, threads = torch.is_grad_enabled(), torch.get_num_threads()
    checked = subject(family)
    pictures = drawn_pictures(tmp_path, 2, (64, 48))
    made = {}
    for device in ("cpu", "cuda"):  # whose arrays alone are for a GPU
        asked = Plan(
            (2,), pictures, True, (64, 48), tuple(LABELS), "what is it?", (), (stage,), 1, (),
            device, 3, 0.1, 0.1,
        )  # fmt: skip
        path = tmp_path / f"{device}.npz"
        make_arrays(checked, asked, 2, path)
        job = {
            "arrays": str(path), "threads": 1, "device": "cpu", "family": family, "stages": [stage],
            "checkpoint": str(checked.checkpoint), "precision": "fp32",
            "pictures": [str(picture) for picture in pictures],
        }  # fmt: skip
        one = eager.load(job)[stage]
        made[device] = one.outputs(one.run())
    torch.set_grad_enabled(before)
    torch.set_num_threads(threads)
    for name, array in made["cpu"].items():
        np.testing.assert_allclose(made["cuda"][name], array, atol=1e-4)


class NotCpu(str):
    """The CPU's name, for PyTorch, and unlike it."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        return False


@pytest.fixture
def without_cuda(monkeypatch):
    """What PyTorch has for CUDA, on the CPU: what is captured is computed; the replays of all."""
    torch = pytest.importorskip("torch")
    before, threads, empty = torch.is_grad_enabled(), torch.get_num_threads(), torch.empty
    replayed = []

    class Graph:
        def replay(self):
            replayed.append(self)

    class Stream:
        def wait_stream(self, other):
            assert isinstance(other, Stream)

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())

    def pageable(*shape, pin_memory=False, **more):
        return empty(*shape, **more)

    monkeypatch.setattr(torch, "empty", pageable)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    monkeypatch.setattr(torch, "compile", lambda part, **options: part)
    yield replayed
    torch.set_grad_enabled(before)
    torch.set_num_threads(threads)


@pytest.mark.torch
@pytest.mark.parametrize("module", [cudagraph, compiled])
@pytest.mark.parametrize(
    ("family", "stage"), [("clip", IMAGE), ("clip", TEXT), ("owlvit", IMAGE), ("vilt", BOTH)]
)
def test_pytorch_for_a_gpu_gives_what_eager_does(
    monkeypatch, tmp_path, without_cuda, module, family, stage
):
    checked = subject(family)
    pictures = drawn_pictures(tmp_path, 2, (64, 48))
    rows = [stage] if stage == TEXT else [stage, f"{stage}, 2 pictures"]
    asked = Plan(
        (1,), pictures, True, (64, 48), tuple(LABELS), "what is it?", (), (IMAGE, TEXT, BOTH), 1,
        (), "cuda", 3, 0.1, 0.1, sizes=(2,),
    )  # fmt: skip
    make_arrays(checked, asked, 1, tmp_path / "arrays.npz")
    job = {
        "arrays": str(tmp_path / "arrays.npz"), "threads": 1, "device": "cpu", "family": family,
        "stages": rows, "checkpoint": str(checked.checkpoint), "precision": "fp32", "pictures": [],
    }  # fmt: skip
    expected = {row: one.outputs(one.run()) for row, one in eager.load(job).items()}
    staying = {"image_class_embeds"} if family == "owlvit" else set()
    monkeypatch.setattr(module, "staying", lambda job: staying)
    if module is compiled:  # which does it otherwise on the CPU
        job["device"] = NotCpu("cpu")
    for row, one in module.load(job).items():
        for _ in range(2):
            found = one.outputs(one.run())
        for name, array in expected[row].items():
            np.testing.assert_allclose(found[name], array, atol=1e-4)
    assert len(without_cuda) == (2 * len(rows) if module is cudagraph else 0)


def test_cuda_graphs_are_refused_on_the_cpu_with_a_reason():
    assert cudagraph.entries(subject("clip"), plan()) == []
    assert "--device cuda" in cudagraph.refused(subject("clip"), plan())[cudagraph.NAME]


def test_on_a_gpu_pytorch_enters_cuda_graphs_and_vlrt_does_too(monkeypatch):
    asked = plan("cuda")
    entries = cudagraph.entries(subject("clip"), asked)
    assert [e.name for e in entries] == ["torch-cuda-graph-fp32", "torch-cuda-graph-fp16"]
    assert {e.stages for e in entries} == {(IMAGE, TEXT)}
    with pytest.raises(PrecisionError, match="int8 is for the CPU"):
        ours.entries(subject("clip"), asked)
    monkeypatch.setattr("vlrt.choice.runs_on_cuda", lambda bundle, components: ["int8", "fp64"])
    entries = {e.name: e.job for e in ours.entries(subject("clip"), asked)}
    assert list(entries) == ["vlrt-int8", "vlrt-int8-cuda-graph", "vlrt-int8-fast"]
    assert entries["vlrt-int8-cuda-graph"] == {"cuda_graph": True}


@pytest.mark.torch
@pytest.mark.parametrize(("family", "stage"), [("clip", IMAGE), ("vilt", BOTH)])
def test_scales_come_from_drawn_samples_one_by_one(monkeypatch, tmp_path, family, stage):
    pytest.importorskip("vlrt_export.samples", exc_type=ImportError)
    monkeypatch.setattr(conversion, "SAMPLES", 3)
    made = conversion.calibration(subject(family), stage)
    assert arrays_sha256(made) == arrays_sha256(conversion.calibration(subject(family), stage))
    np.savez(tmp_path / "samples.npz", **made)
    names = ["attention_mask", "pixel_values"]
    samples = conversion.read_samples(tmp_path / "samples.npz", names)
    assert [list(sample) for sample in samples] == [names] * 3
    for number, sample in enumerate(samples):
        assert sample["pixel_values"].shape[:2] == (1, 3)
        np.testing.assert_array_equal(sample["pixel_values"], made[f"{number}/pixel_values"])
    assert not np.array_equal(samples[0]["pixel_values"], samples[1]["pixel_values"])


@pytest.mark.torch
def test_openvino_gives_what_pytorch_gives_of_any_batch_and_length(tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    import torch

    from vlrt_benchmarks.peers import towers

    clip = subject("clip")
    [entry] = [one for one in openvino.entries(clip, plan()) if one.precision == "fp32"]
    made = openvino.prepare(entry, clip, plan(stages=(f"{TEXT}, 12 tokens", FROM_FILE)), tmp_path)
    assert list(made["models"]) == [TEXT]
    tower = towers.load(clip.checkpoint, "clip", TEXT, torch.float32, unpadded=True)
    ids = np.array([[98, 7, 8, 9, 99, 99], [98, 7, 99, 99, 99, 99], [98, 5, 6, 99, 99, 99]])
    mask = (np.arange(6) < np.array([[5], [3], [4]])).astype(np.int64)
    stage = f"{TEXT}, 12 tokens"
    arrays = {f"{stage}/input_ids": ids, f"{stage}/attention_mask": mask}
    [loaded] = openvino.load(
        job_of(tmp_path, arrays, stages=[stage], precision="fp32", **made)
    ).values()
    with torch.inference_mode():
        texts = {"input_ids": ids, "attention_mask": mask}
        [expected] = tower(*(torch.from_numpy(texts[name]) for name in tower.inputs))
    found = loaded.outputs(loaded.run())["text_embeds"]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


# --- optimum --------------------------------------------------------------------------------------


def test_optimum_is_found_by_its_interpreter(monkeypatch):
    monkeypatch.delenv(optimum.VARIABLE, raising=False)
    assert optimum.interpreter(None) is None
    told = optimum.missing(SimpleNamespace(optimum_python=None))
    assert told is not None
    assert "python -m venv optimum && optimum/bin/pip install torch==2.13.0 optimum-onnx" in told
    monkeypatch.setenv(optimum.VARIABLE, "theirs")
    assert optimum.interpreter(None) == "theirs"
    assert optimum.interpreter("named") == "named"


def test_an_interpreter_without_optimum_says_what_it_lacks():
    told = optimum.missing(SimpleNamespace(optimum_python=sys.executable))
    assert told is not None
    assert told.startswith(f"{sys.executable} lacks a package")
    assert optimum.INSTALL in told


def test_an_interpreter_that_is_none_is_refused(tmp_path):
    nowhere = tmp_path / "python"
    with pytest.raises(OptionError, match=r"--optimum-python .*cannot be run"):
        optimum.missing(SimpleNamespace(optimum_python=nowhere))


def test_an_interpreter_with_optimum_is_taken(monkeypatch):
    found = subprocess.CompletedProcess([], 0, json.dumps({"optimum-onnx": "0.1"}), "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: found)
    assert optimum.missing(SimpleNamespace(optimum_python=sys.executable)) is None


@pytest.mark.torch
def test_optimum_exports_and_quantises_by_its_own_commands(monkeypatch, tmp_path):
    pytest.importorskip("vlrt_export.checkpoint", exc_type=ImportError)
    commands = []

    def note(command, what):
        commands.append(command)
        out = Path(command[-1])
        out.mkdir()

    monkeypatch.setattr(keeping, "run", note)
    monkeypatch.setattr(optimum, "_versions", lambda python: {"optimum-onnx": "0.1"})
    asked = plan(optimum_python="their-python")
    exact, small = optimum.entries(subject("owlvit"), asked)
    for _ in range(2):  # the second time there is nothing to do
        assert Path(optimum.prepare(small, subject("owlvit"), asked, tmp_path)["model"]).is_dir()
        assert Path(optimum.prepare(exact, subject("owlvit"), asked, tmp_path)["model"]).is_dir()
    export, quantise = commands
    assert {command[0] for command in commands} == {"their-python"}
    assert export[3:7] == ["export", "onnx", "--task", "zero-shot-object-detection"]
    assert quantise[3:5] == ["onnxruntime", "quantize"]
    assert quantise[quantise.index("--onnx_model") + 1] == export[-1]


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for number, size_wh in enumerate([(40, 30), (50, 20)]):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


class Parts:
    """What stands for optimum's model and for transformers' processor and tokenizer."""

    def __init__(self):
        self.texts, self.sizes = [], None

    def tokenizer(self, texts, **_):
        self.texts.append(texts)
        return {"input_ids": len(texts)}

    def processor(self, *, images, **_):
        return {"pixel_values": len(images)}

    def post_process_object_detection(self, outputs, *, threshold, target_sizes):
        self.sizes = target_sizes
        return outputs


@pytest.mark.torch
def test_optimum_encodes_the_labels_in_every_run(pictures):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    parts = Parts()

    def model(input_ids, pixel_values):
        logits = torch.arange(float(input_ids * pixel_values)).reshape(pixel_values, input_ids)
        return SimpleNamespace(logits_per_image=logits)

    job = {"pictures": pictures, "labels": LABELS}
    stage = optimum._classify(job, model, parts.processor, parts.tokenizer)
    stage.run()
    scores = stage.outputs(stage.run())["scores"]
    np.testing.assert_allclose(scores, [[0.268941, 0.731059]] * 2, atol=1e-6)
    assert parts.texts == [LABELS, LABELS]


@pytest.mark.torch
def test_optimum_detects_each_label_in_each_picture(pictures):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    parts = Parts()
    seen = [
        {"boxes": torch.tensor([[1.0, 2, 3, 4]]), "scores": torch.tensor([0.5])},
        {"boxes": torch.zeros((0, 4)), "scores": torch.zeros(0)},
    ]

    def processor(**given):
        return parts.processor(**given)

    processor.post_process_object_detection = parts.post_process_object_detection
    job = {"pictures": pictures, "labels": LABELS, "threshold": 0.1}
    stage = optimum._detect(job, lambda **_: seen, processor, parts.tokenizer)
    found = stage.outputs(stage.run())
    assert parts.texts == [LABELS * 2]
    assert parts.sizes == [(30, 40), (20, 50)]
    np.testing.assert_allclose(found["scores"][:, :2], [[0.5, 0.1], [0.1, 0.1]])
    np.testing.assert_array_equal(found["boxes"][0, 0], [1, 2, 3, 4])


# --- hf-processors-rs -----------------------------------------------------------------------------

SETTINGS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}


@pytest.mark.parametrize(
    ("size", "sizes_hw", "expected"),
    [
        (32, [], (32, 32)),
        ([24, 32], [], (24, 32)),
        ({"height": 24, "width": 32}, [], (24, 32)),
        ({"shortest_edge": 32}, [[32, 64]], (32, 64)),
        ({"shortest_edge": 32}, [[32, 64], (32, 64)], (32, 64)),
    ],
)
def test_a_vit_processor_is_told_the_size_of_the_result(size, sizes_hw, expected):
    made = hf_processors_rs.as_vit({**SETTINGS, "size": size}, sizes_hw)
    assert made["size"] == dict(zip(("height", "width"), expected, strict=True))
    assert made["image_processor_type"] == "ViTImageProcessor"
    assert made["rescale_factor"] == 1 / 255


def test_pictures_that_become_several_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\[\[32, 64\], \[64, 32\]\].*give pictures of one shape"):
        hf_processors_rs.as_vit({**SETTINGS, "size": 32}, [[32, 64], [64, 32]])


def test_sizes_are_worked_out_where_they_depend_on_the_picture(pictures):
    paths = [Path(path) for path in pictures]
    [entry] = hf_processors_rs.entries(subject("vilt"), plan())
    assert hf_processors_rs.prepare(entry, subject("clip"), plan(pictures=paths), Path()) == {}
    sizes = hf_processors_rs.prepare(entry, subject("vilt"), plan(pictures=paths), Path())
    assert list(sizes["sizes_hw"]) == pictures
    made = vlrt.load(DEMO / "vilt").processor
    for path, size_hw in sizes["sizes_hw"].items():
        assert made.pixels(vlrt.load_image(path)).shape == (3, *size_hw)


@pytest.mark.parametrize("family", ["clip", "owlvit", "vilt"])
def test_its_pixels_are_transformers_and_so_ours(pictures, family):
    pytest.importorskip("hf_processors_rs")
    told = plan(pictures=[Path(pictures[0])])
    [entry] = hf_processors_rs.entries(subject(family), told)
    sizes = hf_processors_rs.prepare(entry, subject(family), told, Path())
    job = {"family": family, "bundle": str(DEMO / family), "pictures": pictures[:1], "threads": 1}
    stage = hf_processors_rs.load(job | sizes)[FROM_FILE]
    found = stage.outputs(stage.run())["pixel_values"]
    ours = vlrt.load(DEMO / family).processor.inputs([vlrt.load_image(pictures[0])])
    np.testing.assert_allclose(found, ours["pixel_values"], atol=1e-5)


# --- suppressing boxes ----------------------------------------------------------------------------


def some_boxes(seed, number, labels):
    rng = np.random.default_rng(seed)
    start = rng.uniform(-20, 200, (number, 2))
    boxes = np.concatenate([start, start + rng.uniform(5, 150, (number, 2))], axis=1)
    return {
        "suppress/boxes": boxes.astype(np.float32),
        "suppress/scores": rng.uniform(0.01, 1, number).astype(np.float32),
        "suppress/labels": rng.integers(0, labels, number),
    }


@given(st.integers(0, 2**32 - 1), st.integers(0, 80), st.integers(1, 4))
def test_opencv_keeps_what_ours_keeps(tmp_path_factory, seed, number, labels):
    pytest.importorskip("cv2")
    arrays = some_boxes(seed, number, labels)
    folder = tmp_path_factory.mktemp("arrays")
    stage = opencv.load(job_of(folder, arrays, iou_threshold=0.5))[SUPPRESS]
    ours = nms(*(arrays[f"suppress/{name}"] for name in ("boxes", "scores")), 0.5,
               arrays["suppress/labels"])  # fmt: skip
    np.testing.assert_array_equal(stage.outputs(stage.run())["kept"], np.sort(ours))


@pytest.mark.torch
def test_torchvision_is_given_boxes_scores_and_labels(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    arrays = some_boxes(0, 50, 3)

    def batched_nms(boxes, scores, labels, threshold):
        return torch.from_numpy(nms(boxes.numpy(), scores.numpy(), threshold, labels.numpy()))

    module, ops = ModuleType("torchvision"), ModuleType("torchvision.ops")
    module.ops, ops.batched_nms = ops, batched_nms
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
    threads = torch.get_num_threads()
    stage = torchvision.load(job_of(tmp_path, arrays, iou_threshold=0.3))[SUPPRESS]
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    kept_there = stage.outputs(stage.run())["kept"]
    ours = nms(arrays["suppress/boxes"], arrays["suppress/scores"], 0.3, arrays["suppress/labels"])
    np.testing.assert_array_equal(kept_there, np.sort(ours))
    assert 0 < len(kept_there) < 50
