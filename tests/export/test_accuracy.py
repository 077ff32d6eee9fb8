"""How often a variant is right about drawn scenes, beside PyTorch."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import (
    VILT_TASKS,
    write_checkpoint,
    write_json,
    write_owl_checkpoint,
    write_vilt_checkpoint,
)

from vlrt import demo
from vlrt.bundle import MANIFEST
from vlrt.errors import ExportError, ExtraMissingError

pytest.importorskip("onnx")
pytest.importorskip("safetensors")

from vlrt_export import accuracy, gates
from vlrt_export.checkpoint import Checkpoint, open_checkpoint
from vlrt_export.demo.detection_accuracy import LABELS, fresh_scenes
from vlrt_export.demo.evaluate import SEED
from vlrt_export.demo.scenes import HELD_OUT_PAIRS, SEEN_PAIRS

DATA = Path(__file__).parents[1] / "data"
FAMILIES = ("clip", "owlvit", "vilt")


def trained(kind):
    return open_checkpoint(str(DATA / f"{kind}-shapes"))


@pytest.fixture
def few(monkeypatch):
    """So little that a test may wait for it; scores of detection need every label."""
    for kind, amount in (("clip", 2), ("vilt", 8)):
        monkeypatch.setitem(accuracy.AMOUNTS, kind, amount)


@pytest.fixture
def unfinished(tmp_path):
    """The demonstration's CLIP as an export has it before the manifest is written."""
    root = Path(shutil.copytree(demo.bundle("clip"), tmp_path / "bundle"))
    values = json.loads((root / MANIFEST).read_bytes())["values"]
    (root / MANIFEST).unlink()
    return root, values


# --- for whom -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("clip", "top-1 accuracy among 64 labels on 960 drawn pictures"),
        ("owlvit", "mAP50:95 over 64 labels on 200 drawn scenes"),
        ("vilt", "right answers to 500 questions about drawn scenes"),
    ],
)
def test_of_a_demonstration_it_is_said_what_is_counted(kind, says):
    assert accuracy.counted(trained(kind)) == says
    told = accuracy.compared(trained(kind), 0.9, 0.8)
    assert told == {"reference": 0.9, "variant": 0.8, "of": says}


def test_who_was_not_trained_on_drawn_scenes_is_not_counted(tmp_path):
    for number, write in enumerate((
        write_checkpoint,
        lambda root: write_owl_checkpoint(root, "owlvit"),
        lambda root: write_owl_checkpoint(root, "owlv2"),
        *(lambda root, task=task: write_vilt_checkpoint(root, task) for task in VILT_TASKS),
    )):  # fmt: skip
        opened = Checkpoint("tiny", write(tmp_path / str(number)))
        assert accuracy.counted(opened) is None


@pytest.mark.parametrize(
    "record",
    [{}, {"accuracy": None}, {"accuracy": 0.9}, {"accuracy": {}}, {"accuracy": {"answers": {}}}],
)
def test_a_training_json_of_someone_else_makes_no_demonstration(tmp_path, record):
    root = write_checkpoint(tmp_path / "checkpoint")
    write_json(root / "training.json", record)
    assert accuracy.counted(Checkpoint("tiny", root)) is None


def test_one_that_is_broken_is_named(tmp_path):
    root = write_checkpoint(tmp_path / "checkpoint")
    (root / "training.json").write_text("{")
    with pytest.raises(ExportError, match=r"training\.json is not JSON"):
        accuracy.counted(Checkpoint("tiny", root))


def test_every_label_is_in_one_of_the_scenes():
    """Without, there is no mean over all of them."""
    scenes = fresh_scenes(accuracy.AMOUNTS["owlvit"], SEED)
    assert {f"{'an' if t.label[0] == 'o' else 'a'} {t.label}"
            for scene in scenes for t in scene.objects} == set(LABELS)  # fmt: skip


# --- what is counted ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "column"), [("clip", "pair"), ("owlvit", "mAP")])
def test_all_labels_weigh_the_same(kind, column):
    table = {"seen": {column: 0.5, "other": 0}, "held_out": {column: 1.0, "other": 0}}
    seen, held_out = len(SEEN_PAIRS), len(HELD_OUT_PAIRS)
    assert accuracy._share(kind, table) == (0.5 * seen + held_out) / (seen + held_out)


def test_all_questions_weigh_the_same():
    assert accuracy._share("vilt", {"answers": {"all": 0.25, "count": 1}}) == 0.25


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["clip", "vilt"])
def test_int8_is_as_often_right_as_pytorch(kind, few):
    pytest.importorskip("transformers")
    root = demo.bundle(kind)
    values = json.loads((root / MANIFEST).read_bytes())["values"]
    expected = accuracy.reference(trained(kind))
    assert expected > 0.85
    assert abs(accuracy.variant(root, "int8", values) - expected) <= 0.026  # one question of 40


@pytest.mark.torch
def test_a_variant_is_counted_before_there_is_a_manifest(unfinished, few):
    pytest.importorskip("transformers")
    root, values = unfinished
    assert accuracy.variant(root, "int8", values) > 0.95


@pytest.mark.torch
def test_a_variant_that_is_wrong_passes_no_gate(unfinished, few):
    """One that agrees in nothing else either; here the accuracy alone must tell."""
    pytest.importorskip("transformers")
    root, values = unfinished
    import onnx

    path = root / "onnx" / "vision_model_int8.onnx"
    model = onnx.load(path)
    (weight,) = [t for t in model.graph.initializer if t.name.startswith("visual_projection")]
    rolled = np.roll(onnx.numpy_helper.to_array(weight), 7, axis=-1)
    weight.CopyFrom(onnx.numpy_helper.from_array(rolled, weight.name))
    onnx.save(model, path)
    reached = accuracy.variant(root, "int8", values)
    assert reached < 0.5
    told = accuracy.compared(trained("clip"), 0.99, reached)
    quality = {"agreement": None, "compared": 0, "of": "", "accuracy": told}
    gate = gates.gate("zero-shot-image-classification", "int8", "speed")
    (why,) = gates.complaints(gate, {}, quality)
    assert why.startswith(f"top-1 accuracy among 64 labels on 960 drawn pictures: {reached:.4f}")


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("package", ["torch", "transformers", "tqdm"])
def test_what_is_missing_is_named_with_its_extra(kind, package, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(accuracy, "find_spec", lambda n: None if n == package else found(n))
    says = rf"needs the package '{package}'.*vlrt\[train\]"
    with pytest.raises(ExtraMissingError, match=says):
        accuracy.reference(trained(kind))
    with pytest.raises(ExtraMissingError, match=says):
        accuracy.variant(demo.bundle(kind), "int8", {})


@pytest.mark.torch
def test_what_scores_a_detector_is_named_with_its_extra(monkeypatch):
    pytest.importorskip("transformers")
    from vlrt_export.demo import detection_accuracy

    monkeypatch.setattr(detection_accuracy, "find_spec", lambda name: None)
    with pytest.raises(ExtraMissingError, match=r"'pycocotools'.*vlrt\[train\]"):
        accuracy.reference(trained("owlvit"))
