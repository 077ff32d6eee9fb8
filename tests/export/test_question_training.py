"""Questions about drawn scenes, the guesser without eyes, and the training of the demo ViLT."""

import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from without import run_without

pytest.importorskip("torch", reason="the demo ViLT is trained by torch")

import torch

from vlrt_export.demo import train, vilt
from vlrt_export.demo.loop import Schedule
from vlrt_export.demo.question_accuracy import accuracy, guesser_accuracy
from vlrt_export.demo.question_batches import QuestionRecipe, make_questions
from vlrt_export.demo.questions import ANSWERS, APART, KINDS, MOST, Asked, ask, ask_about, guesser
from vlrt_export.demo.scenes import COLOURS, MAX_OBJECTS, plan_objects, plan_scene
from vlrt_export.demo.shapes import SHAPES

pytestmark = pytest.mark.torch
OWL = Path(__file__).parents[1] / "data" / "owlvit-shapes"


# --- questions ------------------------------------------------------------------------------------


def fitting(words, sprites):
    """Positions of the objects that words such as "red circles" or "blue object" are about."""
    known = [word for word in words.split() if word not in ("object", "objects")]
    colour = next((word for word in known if word in COLOURS), None)
    nouns = [word for word in known if word not in COLOURS]
    shape = next((s for s in SHAPES for noun in nouns if noun in (s, f"{s}s", f"{s}es")), None)
    assert len(known) == (colour is not None) + (shape is not None), words
    return [
        position
        for position, sprite in enumerate(sprites)
        if colour in (None, sprite.colour) and shape in (None, sprite.shape)
    ]


def understood(question, sprites):
    """A question taken by its words: the answer, and positions of what it is about."""
    words = question.rstrip("?")
    if words.startswith("how many"):
        found = fitting(words.removeprefix("how many ").removesuffix(" are there"), sprites)
        return str(len(found)), found, []
    if words.startswith("what colour"):
        (one,) = fitting(words.removeprefix("what colour is the "), sprites)
        return sprites[one].colour, [one], []
    if words.startswith(("which shape", "what shape")):
        (one,) = fitting(words.split(" is ")[1].removeprefix("the "), sprites)
        return sprites[one].shape, [one], []
    if words.startswith("is there"):
        found = fitting(words.removeprefix("is there ").split(maxsplit=1)[1], sprites)
        return "yes" if found else "no", found, []
    one, other = words.removeprefix("is the ").split(" left or right of the ")
    (one,), (other,) = fitting(one, sprites), fitting(other, sprites)
    ahead = sprites[one].centre[0] - sprites[other].centre[0]
    assert abs(ahead) >= APART
    return "left" if ahead < 0 else "right", [one], [other]


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_true_of_its_scene(kind):
    rng = np.random.default_rng(0)
    for _ in range(150):
        plan, asked = ask(rng, kind, (4, 3))
        assert asked.kind == kind
        answer, *about = understood(asked.question, plan.sprites)
        assert asked.answer == answer
        assert answer in ANSWERS
        assert [sorted(group) for group in asked.about] == about
        assert 1 <= len(plan.sprites) <= MAX_OBJECTS


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("count", [str(number) for number in range(MOST + 1)]),
        ("colour", list(COLOURS)),
        ("shape", SHAPES),
        ("existence", ["yes", "no"]),
        ("side", ["left", "right"]),
    ],
)
def test_the_answers_to_a_question_are_equally_frequent(kind, answers):
    rng = np.random.default_rng(1)
    made = [ask(rng, kind, (1, 1))[1] for _ in range(600)]
    counts = Counter(one.answer for one in made if "how many objects" not in one.question)
    assert set(counts) == set(answers)
    expected = sum(counts.values()) / len(answers)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_what_is_asked_about_a_scene_is_true_of_it():
    rng, kinds = np.random.default_rng(2), Counter()
    for _ in range(100):
        plan = plan_scene(rng, n_objects=(1, MAX_OBJECTS))
        for asked in ask_about(rng, plan):
            assert asked.answer == understood(asked.question, plan.sprites)[0]
            kinds[asked.kind, asked.answer] += 1
    assert {kind for kind, _ in kinds} == set(KINDS)
    assert min(kinds["existence", "yes"], kinds["existence", "no"]) > 20


def test_all_answers_occur_once_and_five_is_one():
    assert len(set(ANSWERS)) == len(ANSWERS)
    assert str(MAX_OBJECTS) in ANSWERS


@pytest.mark.parametrize("number", [0, MAX_OBJECTS + 1])
def test_a_scene_of_too_few_or_too_many_objects_is_refused(number):
    with pytest.raises(ValueError, match="1 to 5 objects"):
        plan_objects(np.random.default_rng(0), [("red", "ring")] * number, size_wh=(1, 1))


# --- who looks at no picture ----------------------------------------------------------------------


def test_the_guesser_repeats_what_it_has_heard_most_often():
    heard = [Asked("a", "x?", "1"), Asked("a", "x?", "2"), Asked("a", "x?", "2")]
    guess = guesser([*heard, Asked("a", "y?", "1"), Asked("a", "z?", "1"), Asked("b", "q?", "3")])
    assert guess("a", "x?") == "2"
    assert guess("a", "never heard?") == "1"
    assert guess("b", "never heard?") == "3"


def test_guessing_is_near_chance():
    table = guesser_accuracy(per_kind=60, seed=3)["answers"]
    chances = {"count": 0.2, "colour": 1 / 8, "shape": 1 / 8, "existence": 0.5, "side": 0.5}
    for kind, chance in chances.items():
        assert table[kind] < chance + 4 * (chance * (1 - chance) / 60) ** 0.5, kind
    assert table["all"] == pytest.approx(np.mean([table[kind] for kind in chances]))


def test_accuracy_counts_every_kind():
    """Who says "yes" to everything is right on some of one kind, and on nothing else."""
    table = accuracy(lambda images, questions: ["yes"] * len(images), per_kind=8, seed=0)["answers"]
    assert table["existence"] > 0
    assert [table[kind] for kind in ("count", "colour", "shape", "side")] == [0, 0, 0, 0]
    assert table["all"] == pytest.approx(table["existence"] / 5)


# --- batches --------------------------------------------------------------------------------------


def test_batches_depend_on_seed_and_step_alone():
    recipe = QuestionRecipe(seed=0, steps=100, side=24, patch=8, pictures=6)
    first, again, other = (make_questions(recipe, step) for step in (4, 4, 5))
    assert np.array_equal(first.pixels, again.pixels)
    assert first.questions == again.questions
    assert first.answers.tolist() == again.answers.tolist()
    assert first.questions != other.questions
    assert len(first.pixels) == len(first.questions) == len(first.answers)


def test_wide_and_high_pictures_come_in_smaller_batches():
    recipe = QuestionRecipe(seed=0, steps=100, side=24, patch=8, pictures=8)
    shapes = {make_questions(recipe, step).pixels.shape for step in range(16)}
    assert shapes == {(8, 24, 24, 3), (6, 24, 32, 3), (6, 32, 24, 3)}


@pytest.fixture(scope="module")
def batches():
    recipe = QuestionRecipe(seed=2, steps=0, side=48, patch=8, pictures=24)
    return [make_questions(recipe, step) for step in range(6)]


def test_pointers_mark_the_boxes_of_what_is_asked_about_and_their_middles(batches):
    counted = 0
    for batch in batches:
        assert batch.pointers.shape[:3] == tuple(np.array(batch.pixels.shape[:3]) // (1, 8, 8))
        for question, answer, marks in zip(
            batch.questions, batch.answers, batch.pointers, strict=True
        ):
            boxes, middles = marks[..., :2], marks[..., 2:]
            both = "left or right" in question
            assert middles.any(axis=(0, 1)).tolist()[1] == both
            if question.startswith("how many"):
                counted += 1
                # Middles of two objects may share a patch.
                assert middles[..., 0].sum() <= int(ANSWERS[answer])
                assert middles.any() == boxes.any() == (ANSWERS[answer] != "0")
            elif not question.startswith("is there"):
                assert middles.sum() == 1 + both
            assert boxes.sum() >= middles.sum()
    assert counted > 10


def test_places_are_those_of_single_objects(batches):
    sides = 0
    for batch in batches:
        height, width = batch.pointers.shape[1:3]
        for question, answer, marks, places in zip(
            batch.questions, batch.answers, batch.pointers, batch.places, strict=True
        ):
            known = ~np.isnan(places.reshape(2, 2)).any(axis=1)
            if question.startswith("how many"):
                assert known.tolist() == [ANSWERS[answer] == "1", False]
            for group in np.flatnonzero(known):
                (row, column) = np.argwhere(marks[..., 2 + group])[0]
                x, y = places[2 * group : 2 * group + 2] * (width, height)
                assert (int(y), int(x)) == (row, column)
            if "left or right" in question:
                sides += 1
                assert known.all()
                assert ANSWERS[answer] == ("left" if places[0] < places[2] else "right")
    assert sides > 10


# --- the model ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainee():
    tokenizer = vilt.build_tokenizer(0)
    model = vilt.Pointing(vilt.build_model(OWL, tokenizer)).eval()
    return vilt.ViltTrainee(model, tokenizer, vilt.build_processor())


@pytest.mark.parametrize("step", range(4))  # square, wide and high
def test_training_computes_what_transformers_does(trainee, step):
    batch = make_questions(QuestionRecipe(3, 4, vilt.SIDE, vilt.PATCH, 3), step)
    tokens = trainee.tokenizer(batch.questions, padding=True, return_tensors="pt")
    pixels = vilt.normalised(batch.pixels)
    with torch.no_grad():
        logits, points, places, own = trainee.model(tokens, pixels)
        expected = trainee.model.vilt(**tokens, pixel_values=pixels).logits
    assert torch.allclose(logits, expected, atol=1e-5)
    assert points.shape == batch.pointers.shape
    assert places.shape == batch.places.shape
    assert own.shape == (*batch.pointers.shape[:3], 2)


def test_what_comes_from_the_owl_learns_slowly_and_nothing_else(trainee):
    slow = tuple(trainee.model.slow(0.2))
    names = [name for name, _ in trainee.model.named_parameters()]
    assert all(any(name.startswith(prefix) for name in names) for prefix in slow)
    fast = {name for name in names if not name.startswith(slow)}
    layers = {int(name.split(".")[4]) for name in fast if ".encoder.layer." in name}
    assert layers == {6, 7, 8}
    assert any("text_embeddings" in name for name in fast)
    assert not any("patch_embeddings" in name for name in fast)


def test_every_word_of_the_questions_is_one_token_and_any_text_can_be_read(trainee):
    rng = np.random.default_rng(5)
    for kind in KINDS:
        question = ask(rng, kind, (1, 1))[1].question
        # One for each word, and [CLS], the question mark, [SEP].
        assert len(trainee.tokenizer(question)["input_ids"]) == len(question.split()) + 3
    strange = trainee.tokenizer("Zebra-7!")["input_ids"]
    assert trainee.tokenizer.unk_token_id not in strange


def test_the_layers_are_those_of_the_owl(trainee):
    from transformers import OwlViTForObjectDetection

    owl = OwlViTForObjectDetection.from_pretrained(OWL).owlvit.vision_model
    theirs, ours = owl.encoder.layers[2], vilt.build_model(OWL, trainee.tokenizer)
    tokens = torch.randn(2, 9, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=None)
        found = ours.vilt.encoder.layer[2](tokens)
    expected, found = (x[0] if isinstance(x, tuple) else x for x in (expected, found))
    # Their GELU is another approximation of the same curve.
    assert torch.allclose(found, expected, atol=0.1)
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.9999


def test_the_embedded_patches_are_nearly_those_of_the_owl(trainee):
    """The norm that ViLT lacks is folded into the embeddings, as far as it is linear."""
    from transformers import OwlViTForObjectDetection

    tower = OwlViTForObjectDetection.from_pretrained(OWL).owlvit.vision_model
    recipe = QuestionRecipe(seed=1, steps=1, side=vilt.SIDE, patch=8, pictures=4)
    batches = (make_questions(recipe, step) for step in range(9))
    square = next(b for b in batches if b.pixels.shape[1] == b.pixels.shape[2])
    pixels = vilt.normalised(square.pixels)
    with torch.no_grad():
        theirs = tower.pre_layernorm(tower.embeddings(pixels, interpolate_pos_encoding=True))
        embeddings = trainee.model.vilt.vilt.embeddings
        patches = embeddings.patch_embeddings(pixels).flatten(2).transpose(1, 2)
        assert torch.allclose(embeddings.cls_token[0, 0], theirs[0, 0], atol=1e-5)
        ours = patches + embeddings.position_embeddings[:, 1:]
        both = torch.stack([ours.flatten(), theirs[:, 1:].flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.8


@pytest.fixture
def short(tmp_path, monkeypatch):
    """Training in two short stages on small batches that saves after every step."""
    stages = (
        vilt.Stage(0.5, 1e-3, 0.2, 0.1, 0.2, 0.2, 0.0),
        vilt.Stage(0.5, 1e-3, 0.5, 0.0, 0.2, 0.2, 5.0),
    )
    monkeypatch.setattr(vilt, "STAGES", stages)
    monkeypatch.setattr(vilt, "PICTURES", 3)
    monkeypatch.setattr(vilt, "Schedule", partial(Schedule, save_every=1, warm_up=1))
    monkeypatch.setattr(vilt, "evaluate_folder", lambda folder: {})
    monkeypatch.setattr(vilt.ViltTrainee, "report", lambda self: "")
    return lambda name, **options: vilt.train_family(
        tmp_path / name, **{"owlvit": OWL, "steps": 4, "seed": 0} | options,
        work=tmp_path / f"{name}.work",
    )  # fmt: skip


def weights_in(folder):
    return vilt.ViltForQuestionAnswering.from_pretrained(folder).state_dict()


def test_a_run_that_is_interrupted_in_its_second_stage_goes_on(
    tmp_path, monkeypatch, short, trainee
):
    short("whole")
    seen, loss = [], vilt.ViltTrainee.loss

    def interrupted(self, batch):
        seen.append(self.placing)
        if len(seen) == 4:
            raise RuntimeError("the plug is pulled")
        return loss(self, batch)

    monkeypatch.setattr(vilt.ViltTrainee, "loss", interrupted)
    with pytest.raises(RuntimeError, match="plug"):
        short("torn")
    record = short("torn")
    assert seen == [0, 0, 5, 5, 5]
    assert [stage["steps"] for stage in record["stages"]] == [2, 2]
    assert record["started_from"] == "owlvit-shapes"
    whole, torn = weights_in(tmp_path / "whole"), weights_in(tmp_path / "torn")
    fresh = trainee.model.vilt.state_dict()
    assert whole.keys() == fresh.keys()
    moved = [name for name in fresh if not torch.allclose(whole[name], fresh[name], atol=1e-6)]
    assert len(moved) > 100
    for name, tensor in whole.items():
        assert torch.allclose(tensor, torn[name], atol=1e-6), name


def test_the_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch, short):
    short("out")
    other = tmp_path / "other"
    shutil.copytree(OWL, other)
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    weights["class_head.logit_shift.bias"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    for options, says in [
        ({"seed": 1}, r"is of another run: recipe\.seed was 0 and is 1; give the same"),
        ({"steps": 6}, r"schedule\.steps was 2 and is 3"),
        ({"owlvit": other}, r"owlvit_sha256 was '\w{64}' and is '\w{64}'"),
    ]:
        with pytest.raises(ValueError, match=says):
            short("out", **options)


def test_training_leaves_a_model_that_transformers_loads_and_the_command_scores(
    tmp_path, monkeypatch, short, capsys
):
    short("out", steps=2)
    monkeypatch.undo()
    table = vilt.evaluate_folder(tmp_path / "out", amount=2)
    assert table["answers"].keys() == {"all", *KINDS}
    monkeypatch.setattr(vilt, "evaluate_folder", lambda folder, seed: table)
    assert train.main(["evaluate", str(tmp_path / "out")]) == 0
    assert "answers: all" in capsys.readouterr().out


def test_what_is_drawn_for_training_needs_no_torch():
    script = (
        "from vlrt_export.demo.question_batches import QuestionRecipe, make_questions\n"
        "print(len(make_questions(QuestionRecipe(0, 1, 24, 8, 4), 0).questions))"
    )
    done = run_without(("torch", "transformers"), script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("3", "4")
