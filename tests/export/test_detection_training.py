"""Drawn scenes with boxes, the matching loss and COCO's score, for the demo OWL-ViT."""

import itertools
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the matching loss is computed by torch")
pytest.importorskip("pycocotools", reason="COCO's score is computed by pycocotools")

import torch
from checkpoints import write_json
from PIL import Image
from without import run_without

from vlrt import boxes as geometry
from vlrt.results import Detections
from vlrt_export.demo import owlvit, train
from vlrt_export.demo.captions import label
from vlrt_export.demo.detection_accuracy import (
    LABELS,
    accuracy,
    fresh_scenes,
    mean_average_precision,
)
from vlrt_export.demo.detection_batches import (
    PHRASES,
    SceneRecipe,
    Target,
    make_scenes,
    relative_boxes,
)
from vlrt_export.demo.loop import Schedule
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
    return fresh_scenes(260, seed=11)


def found(boxes, scores, label_ids):
    return Detections(tuple(LABELS), boxes, scores, label_ids, (320, 320))


def truth_of(scene):
    boxes = np.array([thing.box for thing in scene.objects], np.float32)
    ids = np.array([LABELS.index(label((t.colour, t.shape))) for t in scene.objects])
    return found(boxes, np.linspace(0.9, 0.5, len(boxes), dtype=np.float32), ids)


def test_finding_everything_scores_one(scenes):
    table = mean_average_precision(scenes, [truth_of(scene) for scene in scenes])
    for row in table.values():
        assert row == pytest.approx({"mAP": 1.0, "mAP50": 1.0})


def test_boxes_that_are_a_little_off_lose_the_strict_score_alone(scenes):
    moved = [truth_of(scene) for scene in scenes]
    moved = [
        replace(one, boxes=one.boxes + 0.12 * np.ptp(one.boxes.reshape(-1, 2, 2), axis=1).mean())
        for one in moved
    ]
    table = mean_average_precision(scenes, moved)
    assert table["seen"]["mAP50"] > 0.8
    assert table["seen"]["mAP"] < 0.6


def test_finding_nothing_and_missing_pairs_are_refused(scenes):
    nothing = found(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.intp))
    with pytest.raises(ValueError, match="nothing was found"):
        mean_average_precision(scenes, [nothing] * len(scenes))
    with pytest.raises(ValueError, match="no scene shows"):
        mean_average_precision(scenes[:3], [truth_of(scene) for scene in scenes[:3]])


# --- the model ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainee():
    torch.manual_seed(0)  # the logits of fresh heads lie about -3, and not always below -2.94
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


@pytest.fixture(scope="module")
def clip():
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(CLIP).eval()


def test_the_text_tower_is_clips(trainee, clip):
    tokens = trainee.tokenizer(["a red circle", "a ring"], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = clip.text_projection(clip.text_model(**tokens).pooler_output)
        ours = trainee._queries(["a red circle", "a ring"])
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_vision_tower_is_clips_at_clips_own_picture_size(clip):
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = owlvit.build_model(CLIP, 64).eval()
    with torch.no_grad():
        grid = model.image_embedder(pixel_values=pixels)[0]
        tower = clip.vision_model
        tokens = tower.post_layernorm(tower(pixel_values=pixels).last_hidden_state)
        expected = model.layer_norm(tokens[:, 1:] * tokens[:, :1])
    assert torch.allclose(grid.flatten(1, 2), expected, atol=1e-4)


def test_a_grown_table_of_positions_keeps_its_directions_and_its_token():
    """What grows along x still does, evenly, and not along y; near the borders it levels off."""
    x, y = np.meshgrid(np.arange(8.0), np.arange(8.0))
    flat = np.stack([x, 3 * y], axis=-1).reshape(64, 2)
    table = torch.from_numpy(np.concatenate([[[-5.0, 7.0]], flat]))
    for side in (12, 16):
        grown = owlvit.resized_table(table, side).numpy()
        assert grown[0].tolist() == [-5, 7]
        inside = grown[1:].reshape(side, side, 2)[3:-3, 3:-3]
        expected = (np.arange(3, side - 3) + 0.5) * 8 / side - 0.5
        # The kernel itself bends a line by a few hundredths of a step.
        assert np.abs(inside[..., 0] - expected).max() < 0.05
        assert np.abs(inside[..., 1] / 3 - expected[:, None]).max() < 0.05
        assert np.ptp(inside[..., 0], axis=0).max() < 1e-9
        assert np.ptp(inside[..., 1], axis=1).max() < 1e-9


def test_growing_to_the_same_side_changes_nothing(trainee):
    pixels = np.full((1, 96, 96, 3), (200, 30, 30), np.uint8)
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


@pytest.fixture
def short(tmp_path, monkeypatch):
    """Training in two short stages that saves after every step."""
    monkeypatch.setattr(
        owlvit, "STAGES", (owlvit.Stage(32, 2, 0.5, 1e-3, 1.0), owlvit.Stage(40, 2, 0.5, 1e-3, 1.0))
    )
    monkeypatch.setattr(owlvit, "Schedule", partial(Schedule, save_every=1, warm_up=1))
    monkeypatch.setattr(owlvit, "evaluate_folder", lambda folder: {})
    monkeypatch.setattr(owlvit.OwlTrainee, "report", lambda self: "")
    return lambda name, **options: owlvit.train_family(
        tmp_path / name, **{"clip": CLIP, "steps": 4, "seed": 0} | options,
        work=tmp_path / f"{name}.work",
    )  # fmt: skip


def weights_in(folder):
    return owlvit.OwlViTForObjectDetection.from_pretrained(folder).state_dict()


def test_a_run_that_is_interrupted_in_its_second_stage_goes_on(tmp_path, monkeypatch, short):
    short("whole")
    seen, loss = [], owlvit.OwlTrainee.loss

    def interrupted(self, batch):
        seen.append(self.side)
        if seen == [32, 32, 40, 40]:
            raise RuntimeError("the plug is pulled")
        return loss(self, batch)

    monkeypatch.setattr(owlvit.OwlTrainee, "loss", interrupted)
    with pytest.raises(RuntimeError, match="plug"):
        short("torn")
    record = short("torn")
    assert seen == [32, 32, 40, 40, 40]
    assert [stage["steps"] for stage in record["stages"]] == [2, 2]
    whole, torn = weights_in(tmp_path / "whole"), weights_in(tmp_path / "torn")
    fresh = owlvit.build_model(CLIP, 40).state_dict()
    moved = [name for name in fresh if not torch.allclose(whole[name], fresh[name], atol=1e-6)]
    assert len(moved) > 100
    for name, tensor in whole.items():
        assert torch.allclose(tensor, torn[name], atol=1e-6), name


def other_clip(root):
    from safetensors.torch import load_file, save_file

    shutil.copytree(CLIP, root)
    weights = load_file(root / "model.safetensors")
    weights["logit_scale"] += 1
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})
    return root


def test_the_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch, short):
    short("out")
    other = other_clip(tmp_path / "other")
    for options, says in [
        ({"seed": 1}, r"0-32.*is of another run: recipe\.seed was 0 and is 1; give the same"),
        ({"steps": 6}, r"schedule\.steps was 2 and is 3"),
        ({"clip": other}, r"clip_sha256 was '\w{64}' and is '\w{64}'"),
    ]:
        with pytest.raises(ValueError, match=says):
            short("out", **options)
    first, second = owlvit.STAGES
    for changes, says in [
        ({"pictures": 3}, r"1-40.*recipe\.pictures was 2 and is 3"),
        ({"rate": 2e-3}, r"schedule\.rate was 0\.001 and is 0\.002"),
        ({"vision": 0.5}, r"slow\.owlvit\. was 1\.0 and is 0\.5"),
    ]:
        monkeypatch.setattr(owlvit, "STAGES", (first, replace(second, **changes)))
        with pytest.raises(ValueError, match=says):
            short("out")


def test_two_stages_of_training_leave_a_model_that_transformers_loads(tmp_path, short):
    record = short("out", steps=2)
    assert [stage["side"] for stage in record["stages"]] == [32, 40]
    detect = owlvit.load_detector(tmp_path / "out")
    one = detect([Image.new("RGB", (60, 30))])[0]
    assert (one.boxes.shape, one.size_hw) == ((100, 4), (30, 60))
    with pytest.raises(ValueError, match="no scene shows"):
        accuracy(lambda images: [one] * len(images), scenes=3, seed=0)


# --- the command ----------------------------------------------------------------------------------


def test_without_what_scores_training_is_refused_before_it_starts(tmp_path):
    script = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from vlrt_export.demo.train import main; sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    done = run_without(("pycocotools",), script, "owlvit", "--clip", CLIP, "-o", out)
    assert done.returncode == 1
    assert 'pip install "vlrt[train]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [(None, "holds no trained model"), ("gpt2", "'gpt2'; valid: clip, owlvit")],
)
def test_what_cannot_be_evaluated_is_refused(tmp_path, capsys, config, says):
    if config:
        write_json(tmp_path / "config.json", {"model_type": config})
    assert train.main(["evaluate", str(tmp_path)]) == 1
    assert says in capsys.readouterr().err
