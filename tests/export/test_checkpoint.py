"""Weights that are no numbers: refused when a checkpoint is built, by the tensor's name."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from vlrt.errors import ExportError

pytest.importorskip("onnx")
pytest.importorskip("safetensors")

from safetensors.numpy import load_file, save_file

from vlrt_export import __main__ as command
from vlrt_export import clip, owlvit, reference, vilt
from vlrt_export.checkpoint import Checkpoint
from vlrt_export.precision import Recipe

DATA = Path(__file__).parents[1] / "data"
PLACES = [
    (clip, "clip", "vision_model.embeddings.patch_embedding.weight"),
    (clip, "clip", "text_model.embeddings.token_embedding.weight"),
    (clip, "clip", "vision_model.encoder.layers.1.self_attn.k_proj.bias"),
    (owlvit, "owlvit", "class_head.logit_shift.bias"),
    (owlvit, "owlvit", "owlvit.vision_model.post_layernorm.weight"),
    (vilt, "vilt", "vilt.encoder.layer.0.intermediate.dense.weight"),
    (vilt, "vilt", "classifier.3.bias"),
]


def spoiled(root, kind, name, value):
    """A trained checkpoint with one number of one tensor replaced."""
    shutil.copytree(DATA / f"{kind}-shapes", root)
    weights = dict(load_file(root / "model.safetensors"))
    tensor = weights[name].copy()
    tensor.flat[tensor.size // 2] = value
    save_file(weights | {name: tensor}, root / "model.safetensors", metadata={"format": "pt"})
    return root


def build_all(family, checkpoint):
    for component in family.COMPONENTS:
        family.build(checkpoint, component, Recipe("fp32")).model("test")


@pytest.mark.parametrize(("family", "kind", "name"), PLACES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_none_is_found(tmp_path, family, kind, name, value):
    opened = Checkpoint(kind, spoiled(tmp_path / "checkpoint", kind, name, value))
    with pytest.raises(ExportError, match=rf"tensor '{name}' holds NaN or infinity: 1 of its \d+"):
        build_all(family, opened)


@pytest.mark.parametrize("kind", ["clip", "owlvit", "vilt"])
def test_what_is_read_twice_is_the_same(kind):
    opened = Checkpoint(kind, DATA / f"{kind}-shapes")
    for name in list(opened.tensors)[:5]:
        first, second = opened.tensor(name), opened.tensor(name)
        assert np.array_equal(first, second)
        assert first.dtype == np.float32


def test_a_tensor_that_was_refused_is_refused_again(tmp_path):
    name = "visual_projection.weight"
    opened = Checkpoint("clip", spoiled(tmp_path / "checkpoint", "clip", name, np.nan))
    for _ in range(2):
        with pytest.raises(ExportError, match=name):
            opened.tensor(name)


def test_the_command_names_the_tensor_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reference, "missing", lambda: ["torch"])
    name = "text_model.encoder.layers.0.mlp.fc2.weight"
    root = spoiled(tmp_path / "checkpoint", "clip", name, np.inf)
    assert command.main([str(root), "-o", str(tmp_path / "out")]) == 1
    assert f"the checkpoint's tensor '{name}' holds NaN or infinity" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
