"""The bundle that comes with vlrt: small enough, right enough, on scenes drawn afresh."""

import json

import pytest
from PIL import Image

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


def test_clip_names_nine_of_ten_pairs_that_training_never_showed():
    clip = vlrt.load(demo.bundle("clip"))
    found = pair_accuracy(clip.encode_images, clip.encode_texts, per_pair=12, seed=77)
    assert found["held_out"]["pair"] >= 0.9
    assert found["seen"]["pair"] >= 0.9


def test_half_of_the_pictures_show_pairs_that_training_never_showed():
    described = json.loads((demo.ROOT / "pictures" / "clip.json").read_text())
    assert len(described["labels"]) == 64
    assert [entry["in_training"] for entry in described["pictures"]].count(False) == 4


def test_owlvit_finds_what_it_was_asked_to_find():
    pytest.importorskip("pycocotools", reason="COCO's score is computed by pycocotools")
    pytest.importorskip("torch", reason="the evaluation stands beside the training")
    from vlrt_export.demo import owlvit

    found = owlvit.evaluate_model(vlrt.load(demo.bundle("owlvit")), amount=300, seed=77)
    assert found["seen"]["mAP50"] >= 0.85
    assert found["held_out"]["mAP50"] >= 0.6


def test_every_scene_shows_a_pair_that_training_never_showed():
    described = json.loads((demo.ROOT / "pictures" / "owlvit.json").read_text())
    assert len(described["labels"]) == 64
    for entry in described["pictures"]:
        assert not all(thing["in_training"] for thing in entry["objects"])


def test_vilt_answers_six_of_seven_questions_and_needs_the_picture_for_them():
    pytest.importorskip("torch", reason="the evaluation stands beside the training")
    from vlrt_export.demo import vilt

    right = vilt.evaluate_model(vlrt.load(demo.bundle("vilt")), amount=60, seed=77)["answers"]
    guessed = vilt.baselines(amount=60, seed=77)["language only"]["answers"]
    assert right["all"] >= 0.85
    assert guessed["all"] <= 0.35
    assert all(right[kind] > guessed[kind] + 0.2 for kind in guessed)


def test_the_demonstration_of_answers_tells_what_is_wrong(tmp_path):
    from vlrt.demo import vilt

    described = json.loads((demo.ROOT / "pictures" / "vilt.json").read_text())["pictures"]
    truths = [entry["answer"] for picture in described for entry in picture["questions"]]
    lines = [line for line in vilt.run(tmp_path) if line.startswith("    ")]
    assert len(lines) == len(truths) == 20
    for line, truth in zip(lines, truths, strict=True):
        answer = line.partition("?")[2].split()[0]
        assert line.endswith("right" if answer == truth else f"WRONG, it is {truth}")
    assert sum(line.endswith("right") for line in lines) >= 17
    with Image.open(tmp_path / "vlrt-demo-vilt.png") as drawn:
        assert drawn.width > 900


def test_the_demonstration_of_detection_tells_what_it_missed(tmp_path):
    from vlrt.demo import owlvit

    lines = owlvit.run(tmp_path)
    scenes = [line.split() for line in lines if line.startswith("  scene-")]
    assert len(scenes) == 4
    for _, found, of, total, *rest in scenes:
        assert of == "of"
        assert int(found) >= int(total) - 1
        assert (int(found) < int(total)) == ("MISSED" in rest)
    with Image.open(tmp_path / "vlrt-demo-owlvit.png") as drawn:
        assert drawn.width > 900
