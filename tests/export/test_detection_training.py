"""Drawn scenes with boxes, the matching loss and COCO's score, for the demo OWL-ViT."""

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the matching loss is computed by torch")
pytest.importorskip("pycocotools", reason="COCO's score is computed by pycocotools")

import torch
from PIL import Image

from vlrt import boxes as geometry
from vlrt_export.demo import owlvit
from vlrt_export.demo.detection_accuracy import (
    LABELS,
    Found,
    accuracy,
    held_out_scenes,
    mean_average_precision,
)
from vlrt_export.demo.detection_batches import (
    PHRASES,
    SceneRecipe,
    Target,
    make_scenes,
    relative_boxes,
)
from vlrt_export.demo.matching import Weights, assign, matching_loss
from vlrt_export.demo.scenes import HELD_OUT_PAIRS, draw_scene

pytestmark = pytest.mark.torch
CLIP = Path(__file__).parents[1] / "data" / "clip-shapes"


def target_of(boxes, positive):
    positive = np.array(positive, bool)
    return Target(np.array(boxes, np.float32), positive, np.zeros_like(positive))


# --- batches --------------------------------------------------------------------------------------


def test_batches_depend_on_seed_and_step_alone():
    recipe = SceneRecipe(seed=0, side=32, pictures=5)
    first, again, other = (make_scenes(recipe, step) for step in (4, 4, 5))
    assert first.pixels.shape == (5, 32, 32, 3)
    assert np.array_equal(first.pixels, again.pixels)
    assert first.texts == again.texts
    assert not np.array_equal(first.pixels, other.pixels)


def test_no_query_names_a_pair_that_is_held_out():
    assert not {(phrase.colour, phrase.shape) for phrase in PHRASES} & set(HELD_OUT_PAIRS)


def test_targets_say_what_is_true_of_each_object():
    batch = make_scenes(SceneRecipe(seed=1, side=32, pictures=12), 0)
    for target in batch.targets:
        assert target.positive.shape == target.open_.shape == (len(target.boxes), len(PHRASES))
        assert not (target.positive & target.open_).any()
        for row in target.positive:
            true_of = [phrase for phrase, yes in zip(PHRASES, row, strict=True) if yes]
            shapes = {phrase.shape for phrase in true_of if phrase.shape}
            colours = {phrase.colour for phrase in true_of if phrase.colour}
            # Its shape always; its colour, and the pair of both, where the colour has a name.
            assert len(shapes) == 1
            assert len(true_of) == (3 if colours else 1)


def test_some_objects_have_a_colour_of_no_name():
    batch = make_scenes(SceneRecipe(seed=2, side=32, pictures=12), 0)
    counts = {int(row.sum()) for target in batch.targets for row in target.positive}
    assert counts == {1, 3}


def test_relative_boxes_are_those_of_the_objects():
    scene = draw_scene(np.random.default_rng(3), size_wh=(160, 120), n_objects=3)
    corners = geometry.center_to_corners(relative_boxes(scene)) * [160, 120, 160, 120]
    assert np.allclose(corners, [thing.box for thing in scene.objects], atol=1e-3)


# --- the loss -------------------------------------------------------------------------------------


def test_objects_are_assigned_as_trying_all_orders_would_assign_them():
    rng = torch.Generator().manual_seed(0)
    weights = Weights()
    for _ in range(10):
        logits = torch.randn(5, 4, generator=rng)
        boxes = torch.rand(5, 4, generator=rng) * 0.4 + 0.1
        target = target_of((torch.rand(3, 4, generator=rng) * 0.4 + 0.1).numpy(), np.eye(3, 4))
        found = assign(logits, boxes, target, weights)

        def cost(places, logits=logits, boxes=boxes, target=target):
            one = [
                matching_loss(
                    logits[None, [place]],
                    boxes[None, [place]],
                    [target_of(target.boxes[[k]], target.positive[[k]])],
                    weights,
                )
                - matching_loss(
                    logits[None, [place]], boxes[None, [place]], [target_of(*_nothing(4))], weights
                )
                for k, place in enumerate(places)
            ]
            return float(sum(one))

        best = min(itertools.permutations(range(5), 3), key=cost)
        assert cost(found.tolist()) == pytest.approx(cost(best), abs=1e-4)


def _nothing(queries):
    return np.empty((0, 4), np.float32), np.empty((0, queries), bool)


def test_the_loss_of_an_empty_picture_is_that_of_what_is_claimed_in_it():
    silent, loud = torch.full((1, 3, 2), -20.0), torch.full((1, 3, 2), 5.0)
    boxes = torch.full((1, 3, 4), 0.5)
    empty = [target_of(*_nothing(2))]
    assert float(matching_loss(silent, boxes, empty, Weights())) < 1e-6
    assert float(matching_loss(loud, boxes, empty, Weights())) > 1


def test_a_perfect_answer_costs_nothing_and_a_wrong_box_or_label_does():
    boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.6, 0.3, 0.4]]])
    logits = torch.tensor([[[20.0, -20.0], [-20.0, -20.0]]])
    target = [target_of([[0.3, 0.3, 0.2, 0.2]], [[True, False]])]
    weights = Weights()
    assert float(matching_loss(logits, boxes, target, weights)) < 1e-5
    assert float(matching_loss(logits, boxes + 0.1, target, weights)) > 0.3
    assert float(matching_loss(logits.flip(2), boxes, target, weights)) > 1


def test_what_is_open_to_a_held_out_pair_is_not_counted():
    boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2]]])
    logits = torch.tensor([[[20.0, 20.0]]])
    wrong = target_of([[0.3, 0.3, 0.2, 0.2]], [[True, False]])
    open_ = Target(wrong.boxes, wrong.positive, np.array([[False, True]]))
    assert float(matching_loss(logits, boxes, [open_], Weights())) < 1e-5
    assert float(matching_loss(logits, boxes, [wrong], Weights())) > 1


# --- COCO's score ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes():
    return held_out_scenes(260, seed=11)


def truth_of(scene):
    boxes = np.array([thing.box for thing in scene.objects], np.float32)
    ids = np.array(
        [LABELS.index(f"{'an' if t.colour == 'orange' else 'a'} {t.label}") for t in scene.objects]
    )
    return Found(boxes, np.linspace(0.9, 0.5, len(boxes), dtype=np.float32), ids)


def test_finding_everything_scores_one(scenes):
    table = mean_average_precision(scenes, [truth_of(scene) for scene in scenes])
    for row in table.values():
        assert row == pytest.approx({"mAP": 1.0, "mAP50": 1.0})


def test_boxes_that_are_a_little_off_lose_the_strict_score_alone(scenes):
    moved = [truth_of(scene) for scene in scenes]
    moved = [
        Found(one.boxes + 0.12 * np.ptp(one.boxes.reshape(-1, 2, 2), axis=1).mean(), one.scores,
              one.label_ids)
        for one in moved
    ]  # fmt: skip
    table = mean_average_precision(scenes, moved)
    assert table["seen"]["mAP50"] > 0.8
    assert table["seen"]["mAP"] < 0.6


def test_finding_nothing_and_missing_pairs_are_refused(scenes):
    nothing = Found(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.intp))
    with pytest.raises(ValueError, match="nothing was found"):
        mean_average_precision(scenes, [nothing] * len(scenes))
    with pytest.raises(ValueError, match="no scene shows"):
        mean_average_precision(scenes[:3], [truth_of(scene) for scene in scenes[:3]])


# --- the model ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainee():
    return owlvit.OwlTrainee(
        owlvit.build_model(CLIP, 96), owlvit.build_tokenizer(CLIP), Weights(), 96
    )


def test_a_fresh_model_is_silent_and_puts_each_box_on_its_patch(trainee):
    trainee.model.eval()
    pixels = np.zeros((1, 96, 96, 3), np.uint8)
    with torch.no_grad():
        logits, boxes = trainee.predict(pixels, ["a red circle"])
    assert logits.shape == (1, 144, 1)
    assert float(logits.sigmoid().max()) < 0.05
    assert torch.allclose(boxes[0, 0, :2], torch.tensor([1 / 12, 1 / 12]), atol=1e-3)
    assert torch.allclose(boxes[..., 2:], torch.tensor(1 / 12), atol=1e-3)


def test_the_towers_are_clips(trainee):
    """At CLIP's own picture size nothing is interpolated, and the text tower always is CLIP's."""
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(CLIP)
    tokens = trainee.tokenizer(["a red circle", "a ring"], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = clip.text_projection(clip.text_model(**tokens).pooler_output)
        ours = trainee._queries(["a red circle", "a ring"])
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_growing_to_the_same_side_changes_nothing(trainee):
    pixels = np.asarray(Image.new("RGB", (96, 96), (200, 30, 30)))[None]
    trainee.model.eval()
    with torch.no_grad():
        before = trainee.predict(pixels, ["a red square"])
        same = owlvit.OwlTrainee(
            owlvit.grow(trainee.model, 96).eval(), trainee.tokenizer, trainee.weights, 96
        ).predict(pixels, ["a red square"])
        wider = owlvit.OwlTrainee(
            owlvit.grow(trainee.model, 128).eval(), trainee.tokenizer, trainee.weights, 128
        )
        logits, _ = wider.predict(np.zeros((1, 128, 128, 3), np.uint8), ["a red square"])
    for a, b in zip(before, same, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert logits.shape == (1, 256, 1)


def test_two_steps_of_training_leave_a_model_that_transformers_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(
        owlvit, "STAGES", (owlvit.Stage(32, 2, 0.5, 1e-4, 1.0), owlvit.Stage(40, 2, 0.5, 1e-4, 1.0))
    )
    monkeypatch.setattr(owlvit, "evaluate_folder", lambda folder: {})
    monkeypatch.setattr(owlvit.OwlTrainee, "report", lambda self: "")
    record = owlvit.train_family(
        tmp_path / "out", clip=CLIP, steps=2, seed=0, work=tmp_path / "work"
    )
    assert [stage["side"] for stage in record["stages"]] == [32, 40]
    detect = owlvit.load_detector(tmp_path / "out")
    found = detect([Image.new("RGB", (60, 30))])[0]
    assert found.boxes.shape == (100, 4)
    with pytest.raises(ValueError, match="no scene shows"):
        accuracy(lambda images: [found] * len(images), scenes=3, seed=0)
