"""The bundle that comes with vlrt: small enough, right enough, on scenes drawn afresh."""

import json

import pytest

import vlrt
from vlrt import demo
from vlrt.bundle import open_bundle
from vlrt_export.demo.evaluate import pair_accuracy

MEGABYTES_A_FAMILY = 4


@pytest.mark.parametrize(
    "family", [module.__name__.rpartition(".")[2] for module in demo.families()]
)
def test_a_bundle_is_small_and_proved_against_pytorch(family):
    root = demo.bundle(family)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert size <= MEGABYTES_A_FAMILY * 1e6
    bundle = open_bundle(root)
    assert bundle.precisions == ["int8"]
    assert bundle.manifest["verified"]["against"] == "PyTorch fp32, eager"


def test_the_smallest_graph_is_one_of_the_bundles_graphs():
    assert demo.smallest_graph().parent.name == "onnx"


def test_clip_names_nine_of_ten_pairs_that_training_never_showed():
    clip = vlrt.load(demo.bundle("clip"))
    found = pair_accuracy(clip.encode_images, clip.encode_texts, per_pair=12, seed=77)
    assert found["held_out"]["pair"] >= 0.9
    assert found["seen"]["pair"] >= 0.9


def test_half_of_the_pictures_show_pairs_that_training_never_showed():
    described = json.loads((demo.ROOT / "pictures" / "clip.json").read_text())
    assert len(described["labels"]) == 64
    assert [entry["in_training"] for entry in described["pictures"]].count(False) == 4
