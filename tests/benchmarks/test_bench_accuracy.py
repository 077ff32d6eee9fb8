"""Counting accuracy: the measures by hand, a contender at work, and the command as a whole."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="intervals need the extra bench")
pytest.importorskip("pycocotools")

import vlrt
from vlrt.errors import DatasetError, OptionError
from vlrt.results import Answers, Classification, Detections
from vlrt_benchmarks import accuracy, accuracy_measures, accuracy_words, scenes
from vlrt_benchmarks.__main__ import main
from vlrt_benchmarks.accuracy_answers import CHUNK, Asker
from vlrt_benchmarks.accuracy_measures import count, found_again, retrieval
from vlrt_benchmarks.dataset_captions import Captions
from vlrt_benchmarks.dataset_coco import Scenes, Thing
from vlrt_benchmarks.dataset_imagenet import Classes
from vlrt_benchmarks.dataset_vqa import Questions
from vlrt_benchmarks.subject import Subject

ROOT = Path(__file__).parents[2]
BUNDLES, CHECKPOINTS = ROOT / "vlrt" / "demo" / "bundles", ROOT / "tests" / "data"
LABELS = tuple("abcdefg")


def files(number):
    return tuple(Path(f"{i}.png") for i in range(number))


def classes(truth, groups=None):
    return Classes(Path("x"), files(len(truth)), tuple(truth), LABELS, groups or {})


def questions(pictures=("0.png", "0.png", "1.png")):
    paths = tuple(map(Path, pictures))
    people = (("yes",) * 10, ("no",) * 7 + ("yes",) * 3, ("2",) * 10)
    return Questions(Path("x"), paths, ("q0", "q1", "q2"), people, {"number": (2,)})


def scene(number=2):
    things = tuple((Thing(0, (10.0, 10.0, 20.0, 20.0), 400.0, crowd=False),) for _ in range(number))
    return Scenes(
        Path("x"), files(number), ((50, 60),) * number, things, ("a", "b"), {"rare": (1,)}
    )


def found(*objects):
    """Detections as JSON: (x0, y0, x1, y1, score, label)."""
    return {
        "boxes": [list(one[:4]) for one in objects],
        "scores": [one[4] for one in objects],
        "labels": [one[5] for one in objects],
    }


def values(counted, measure="value"):
    return {(row["contender"], row["group"], row["measure"]): row[measure] for row in counted.rows}


# --- measures -------------------------------------------------------------------------------------


def test_classes_count_by_group_and_against_the_base():
    dataset = classes([0, 1, 2, 3], {"early": (0, 1), "absent": (6,)})
    answers = {
        "base": [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2, 1, 0, 3, 4], [0, 1, 2, 4, 5]],
        "other": [[1, 0, 2, 3, 4], [0, 1, 2, 3, 4], [2, 1, 0, 3, 4], [3, 1, 2, 4, 5]],
    }
    counted = count(dataset, answers, "base")
    assert counted.items["base"] == {"top-1": [1, 0, 1, 0], "top-5": [1, 1, 1, 0]}
    assert counted.items["other"]["same answer as base"] == [0, 1, 1, 0]
    assert values(counted) == {
        ("base", "all", "top-1"): 0.5,
        ("base", "early", "top-1"): 0.5,
        ("base", "all", "top-5"): 0.75,
        ("base", "early", "top-5"): 1,
        ("other", "all", "top-1"): 0.5,
        ("other", "early", "top-1"): 0,
        ("other", "all", "top-5"): 1,
        ("other", "early", "top-5"): 1,
        ("other", "all", "same answer as base"): 0.5,
        ("other", "early", "same answer as base"): 0.5,
    }
    differences = values(counted, "difference")
    assert differences["base", "all", "top-1"] is None
    assert differences["other", "all", "same answer as base"] is None
    assert differences["other", "early", "top-1"]["value"] == -0.5
    # Two items that change their places are no difference, but one that chance could turn.
    change = differences["other", "all", "top-1"]
    assert change["value"] == 0
    assert change["low"] < 0 < change["high"]


def test_questions_count_as_vqa_does():
    counted = count(questions(), {"base": ["Yes", "yes", "two"]}, "base")
    assert counted.positions == {"number": [2]}
    assert counted.items == {"base": {"VQA accuracy": pytest.approx([1, 0.9, 1])}}
    assert values(counted)["base", "number", "VQA accuracy"] == 1


def test_questions_about_one_picture_are_drawn_together():
    answers = {"base": ["2", "2", "2"], "other": ["Yes", "no", "2"]}
    apart, shared, one = (
        count(questions(pictures), answers, "base") for pictures in ("abc", "aab", "aaa")
    )
    assert apart.pictures == {}
    assert set(map(tuple, shared.pictures.values())) == {(0, 0, 1)}
    key = ("other", "all", "VQA accuracy")
    first, second = (values(counted, "difference")[key] for counted in (apart, one))
    assert first["value"] == second["value"]
    assert np.isfinite([first["low"], first["high"]]).all()
    # All questions are about one picture, and nothing says how far another would be.
    assert (second["low"], second["high"]) == (-np.inf, np.inf)
    assert values(one, "low")[key] == -np.inf


def test_captions_of_one_picture_are_drawn_together():
    dataset = Captions(Path("x"), files(3), tuple("abcd"), (0, 1, 2, 2))
    rows = np.eye(4)[[0, 1, 2]]
    found = count(dataset, {"base": list(rows)}, "base").pictures
    assert found == {"recall@1 text to image": [0, 1, 2, 2]}
    alone = Captions(Path("x"), files(2), ("a", "b"), (0, 1))
    assert count(alone, {"base": list(np.eye(2))}, "base").pictures == {}


@pytest.mark.parametrize(
    ("similarities", "owners", "expected"),
    [
        ([[1.0]], [0], {}),  # nothing to choose from
        (np.eye(2), [0, 1], {"image to text": [1, 1], "text to image": [1, 1]}),
        (1 - np.eye(2), [0, 1], {"image to text": [0, 0], "text to image": [0, 0]}),
        (np.ones((2, 2)), [0, 1], {"image to text": [0, 0], "text to image": [0, 0]}),
        # One of a picture's captions is enough; each caption has one picture.
        ([[3, 0, 2], [1, 1, 2.5]], [0, 0, 1],
         {"image to text": [1, 1], "text to image": [1, 0, 1]}),
    ],
)  # fmt: skip
def test_recall_at_1_of_both_ways(similarities, owners, expected):
    recalls = retrieval(np.array(similarities), owners)
    assert recalls == {f"recall@1 {way}": numbers for way, numbers in expected.items()}


def test_recall_grows_with_what_may_be_chosen():
    rng = np.random.default_rng(0)
    recalls = retrieval(rng.random((30, 30)), range(30))
    means = [np.mean(recalls[f"recall@{k} image to text"]) for k in (1, 5, 10)]
    assert 0 <= means[0] <= means[1] <= means[2] < 1
    assert len(recalls) == 6


THERE = (10, 10, 30, 30)


@pytest.mark.parametrize(
    ("ours", "share"),
    [
        ([], 0),
        ([(*THERE, 0.5, 0)], 1),
        ([(*THERE, 0.5, 1)], 0),  # another label
        ([(10, 10, 30, 25.5, 0.5, 0)], 1),  # an IoU of 0.775
        ([(10, 10, 30, 24, 0.5, 0)], 0),  # and of 0.7
        ([(*THERE, 0.05, 0)], 0),  # not sure enough to be an object
    ],
)
def test_objects_are_found_again_by_place_and_label(ours, share):
    assert found_again([found(*ours)], [found((*THERE, 0.9, 0))]) == [share]


def test_the_best_places_are_compared_where_there_are_no_objects():
    weak = [found((*THERE, 0.01, 0), (40, 40, 50, 50, 0.009, 0))] * 2
    assert found_again(weak, weak) == [1, 1]
    half = found((*THERE, 0.02, 0))
    assert found_again([half, weak[0]], weak) == [0.5, 1]
    assert found_again([found()], [found()]) == []
    # A picture without an object counts for nothing, if others have enough.
    sure = [found((*THERE, 0.9, 0), (*THERE, 0.8, 1)), found()]
    assert found_again(sure, sure) == [1]


def test_scenes_count_as_pycocotools_does_with_a_paired_difference():
    right = [found((*THERE, 0.9, 0))] * 2
    counted = count(scene(), {"base": right, "other": [right[0], found()]}, "base")
    assert values(counted) == {
        ("base", "all", "mAP"): pytest.approx(1),
        ("base", "all", "mAP50"): pytest.approx(1),
        ("other", "all", "mAP"): pytest.approx(0.5, abs=0.01),
        ("other", "all", "mAP50"): pytest.approx(0.5, abs=0.01),
        ("other", "all", "same answer as base"): 0.5,
    }
    change = values(counted, "difference")["other", "all", "mAP"]
    assert change["value"] == pytest.approx(-0.5, abs=0.01)
    assert change["low"] <= change["value"] <= change["high"]
    assert "mAP" not in counted.items["base"]


# --- a contender at work --------------------------------------------------------------------------


class Fake:
    """A model that notes what it is asked."""

    def __init__(self, **info):
        self.info, self.asked = info, []

    def encode_labels(self, labels, *, templates, truncate):
        self.asked.append(("labels", tuple(labels), templates, truncate))
        return "encoded"

    def classify(self, pictures, labels, **options):
        self.asked.append(("classify", len(pictures), labels, options))
        logits = np.arange(len(LABELS), dtype=np.float32)
        return [Classification(LABELS, logits, logits) for _ in pictures]

    def detect(self, pictures, labels, **options):
        self.asked.append(("detect", len(pictures), labels, options))
        box, score = np.array([THERE], np.float32), np.array([1 / 3], np.float32)
        one = Detections(("a", "b"), box, score, np.array([1]), (50, 60))
        return [one for _ in pictures]

    def ask(self, picture, questions, **options):
        self.asked.append(("ask", picture, tuple(questions), options))
        return [Answers(q, (f"to {q}",), np.ones(1, np.float32)) for q in questions]

    def encode_texts(self, texts, *, truncate):
        return np.array([[len(text), 1] for text in texts], np.float32)

    def encode_images(self, pictures, **options):
        return np.array([[1, int(path.stem)] for path in pictures], np.float32)


class Notes:
    """A journal in memory, and how often a model was loaded."""

    def __init__(self):
        self.kept, self.loaded, self.model = {}, 0, Fake()

    def keep(self, key, make):
        if key not in self.kept:
            self.kept[key] = json.loads(json.dumps(make()))
        return self.kept[key]

    def load(self):
        self.loaded += 1
        return self.model

    def asker(self, **options):
        options = {"batch": None, "say": lambda line: None, **options}
        return Asker(self.load, self.keep, **options)


def test_labels_are_encoded_once_and_pictures_a_part_at_a_time():
    notes = Notes()
    answers = notes.asker(batch=3, templates=["a {}"]).answers(classes([0] * (CHUNK + 1)))
    assert answers == [[6, 5, 4, 3, 2]] * (CHUNK + 1)
    assert notes.model.asked == [
        ("labels", LABELS, ["a {}"], True),
        ("classify", CHUNK, "encoded", {"batch_size": 3}),
        ("classify", 1, "encoded", {"batch_size": 3}),
    ]
    assert notes.loaded == 1


def test_what_is_kept_is_not_asked_again():
    notes, dataset = Notes(), classes([0] * (CHUNK + 1))
    first = notes.asker().answers(dataset)
    assert notes.asker().answers(dataset) == first
    assert notes.loaded == 1  # nothing was left to be asked, so nothing loaded
    del notes.kept[f"{CHUNK}"]
    notes.model.asked.clear()
    assert notes.asker().answers(dataset) == first
    assert [what for what, *_ in notes.model.asked] == ["labels", "classify"]


def test_detections_are_kept_in_all_their_digits():
    (answer,) = Notes().asker().answers(scene(1))
    assert np.float32(answer["scores"][0]) == np.float32(1 / 3)
    assert answer["boxes"] == [list(THERE)]
    assert answer["labels"] == [1]


def test_a_picture_of_another_size_than_stated_is_an_error():
    wrong = Scenes(Path("x.json"), files(1), ((60, 50),), ((),), ("a", "b"))
    with pytest.raises(DatasetError, match=r"x\.json says that 0\.png is 50x60; it is 60x50"):
        Notes().asker().answers(wrong)


def test_a_foreign_graph_takes_labels_as_they_are():
    notes = Notes()
    notes.model = Fake(components=["model"])
    notes.asker(templates=["a {}"]).answers(scene(1))
    ((what, number, labels, asked),) = notes.model.asked
    assert (what, number, labels) == ("detect", 1, ("a", "b"))
    # The model refuses templates that it cannot fill in: nothing is left out in silence.
    assert (asked["templates"], asked["truncate"]) == (["a {}"], True)
    encoded = Notes()
    encoded.asker(templates=["a {}"]).answers(scene(1))
    assert "templates" not in encoded.model.asked[1][3]


def test_questions_about_one_picture_are_asked_together():
    notes = Notes()
    assert notes.asker().answers(questions()) == ["to q0", "to q1", "to q2"]
    assert [one[1:3] for one in notes.model.asked] == [
        (Path("0.png"), ("q0", "q1")),
        (Path("1.png"), ("q2",)),
    ]


def test_similarities_are_of_every_picture_with_every_caption():
    notes = Notes()
    dataset = Captions(Path("x"), files(3), ("a", "bbb", "cc", "d"), (0, 1, 2, 2))
    rows = np.stack(notes.asker().answers(dataset))
    np.testing.assert_array_equal(rows, [[1 + i, 3 + i, 2 + i, 1 + i] for i in range(3)][:3])
    assert np.array_equal(rows, np.stack(notes.asker().answers(dataset)))
    assert notes.loaded == 1


# --- who answers, and what fits -------------------------------------------------------------------


def subject(**changes):
    given = {
        "name": "m", "family": "clip", "task": "zero-shot-image-classification",
        "bundle": Path("b"), "checkpoint": Path("c"), "seeded": False,
        "precisions": ("int8", "fp32"),
    }  # fmt: skip
    return Subject(**{**given, **changes})


@pytest.mark.torch
@pytest.mark.parametrize(
    ("against", "names"),
    [
        ([], ["vlrt-fp32", "vlrt-int8"]),
        (None, ["torch-fp32", "vlrt-fp32", "vlrt-int8"]),
        (["torch-bf16"], ["torch-fp32", "torch-bf16", "vlrt-fp32", "vlrt-int8"]),
    ],
)
def test_the_base_is_pytorch_or_the_most_exact_variant(against, names):
    pytest.importorskip("transformers")
    contenders, skipped = accuracy.find_contenders(subject(), against)
    assert [one.name for one in contenders] == names
    assert skipped == {}


def test_without_a_checkpoint_pytorch_is_skipped_or_refused():
    contenders, skipped = accuracy.find_contenders(subject(checkpoint=None), None)
    assert [one.name for one in contenders] == ["vlrt-fp32", "vlrt-int8"]
    assert "pass --checkpoint DIR" in skipped["torch-fp32"]
    with pytest.raises(OptionError, match="--against torch: the bundle's checkpoint is not at"):
        accuracy.find_contenders(subject(checkpoint=None), ["torch"])


def test_what_cannot_be_counted_is_refused_before():
    many = Captions(Path("x.tsv"), files(300), ("a",) * 300, tuple(range(300)))
    accuracy.check_fit(many, subject(), "none")
    with pytest.raises(OptionError, match=r"m looks at each of 90000 pairs .* x\.tsv with --limit"):
        accuracy.check_fit(many, subject(task="image-text-retrieval"), "none")
    with pytest.raises(OptionError, match="--templates has no effect on the format vqa"):
        accuracy.check_fit(questions(), subject(), "imagenet")


def test_seeded_weights_and_parts_are_said():
    facts = {"items": 1, "of": 1, "drawn": False}
    assert accuracy_words.notes(subject(), questions(), facts, "torch-fp32") == []
    said = accuracy_words.notes(subject(seeded=True), questions(), facts, "torch-fp32")
    assert any("accuracy is chance" in one and "same answer as torch-fp32" in one for one in said)
    part = accuracy_words.notes(subject(), questions(), facts | {"of": 9}, "torch-fp32")
    assert part == ["1 of 9 items were counted, drawn from a seed."]
    left_out = replace(scene(), sizeless=2)
    assert any("2 boxes" in one for one in accuracy_words.notes(subject(), left_out, facts, "x"))
    assert not any(
        "boxes of" in one for one in accuracy_words.notes(subject(), scene(), facts, "x")
    )


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    for format_, amount in (("coco", 3), ("vqa", 1), ("captions", 12)):
        scenes.write(root / format_, format_, amount, 5)
    return root


def bench(family, *others, checkpoint=True):
    made_of = ["--checkpoint", str(CHECKPOINTS / f"{family}-shapes")] if checkpoint else []
    return ["accuracy", str(BUNDLES / family), *made_of, "--threads", "1", *map(str, others)]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("family", "format_", "measures"),
    [
        ("clip", "captions", {"recall@1 image to text", "recall@10 text to image"}),
        ("owlvit", "coco", {"mAP", "mAP50"}),
        ("vilt", "vqa", {"VQA accuracy"}),
    ],
)
def test_a_demo_model_is_counted_and_written(datasets, tmp_path, capsys, family, format_, measures):
    pytest.importorskip("transformers")
    out = tmp_path / "found.json"
    assert main(bench(family, "--dataset", datasets / format_, "-o", out)) == 0
    assert "# " in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found.html", "found.json", "found.md"]
    body = json.loads(out.read_text())["body"]
    assert body["base"] == "torch-fp32"
    assert (body["dataset"]["format"], body["dataset"]["drawn"]) == (format_, False)
    assert measures <= {row["measure"] for row in body["rows"]}
    assert {row["contender"] for row in body["rows"]} == {"torch-fp32", "vlrt-int8"}
    for row in body["rows"]:
        assert 0 <= row["value"] <= 1
        is_base = row["contender"] == "torch-fp32" or row["measure"].startswith("same answer")
        assert (row["difference"] is None) == is_base
    same = body["items"]["vlrt-int8"][accuracy_measures.same_as("torch-fp32")]
    assert np.mean(same) > 0.5


def test_a_run_that_was_cut_off_goes_on(datasets, tmp_path, capsys, monkeypatch):
    out, load = tmp_path / "found.json", vlrt.load
    command = bench("vilt", "--dataset", datasets / "vqa", "-o", out, checkpoint=False)
    with monkeypatch.context() as patch:
        patch.setattr(
            accuracy_measures, "count", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert main(command) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["found.partial"]
    assert main([*command, "--batch", "3"]) == 1
    assert "another plan (batch was None, is 3)" in capsys.readouterr().err
    loads = []
    monkeypatch.setattr(vlrt, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    assert main(command) == 0
    assert loads == []  # every answer was kept
    assert not (tmp_path / "found.partial").exists()


@pytest.mark.parametrize(
    ("family", "others", "message"),
    [
        ("clip", ["--dataset", "nowhere"], "--dataset nowhere is not there"),
        ("clip", ["--format", "voc"], "--format is 'voc'; valid: imagenet, coco, vqa, captions"),
        ("clip", ["--format", "coco"], "--format coco does not show zero-shot-image-class"),
        ("clip", ["--against", "torch"], "--against torch: the bundle's checkpoint is not at hand"),
        ("clip", ["--classes", "x"], "--classes is of a dataset; pass --dataset, too"),
        ("clip", ["--templates", "x"], "templates 'x': valid are 'imagenet' and a UTF-8 text file"),
        ("clip", ["--seed", "-1"], "--seed is -1; valid: a whole number of 0 or more"),
        ("clip", ["-o", "x.txt"], "-o is 'x.txt'; valid: a name that ends in .json"),
        ("owlvit", ["--dataset", "{coco}", "--amount", "2"], "--amount is of drawn scenes"),
        ("owlvit", ["--dataset", "{coco}", "--limit", "9"], "--limit is 9; {coco}/instances.json"),
        ("owlvit", ["--dataset", "{vqa}"], "{vqa} is a folder without instances.json"),
        ("vilt", ["--dataset", "{vqa}/images"], "is a folder without questions.json"),
    ],
)
def test_wrong_usage_is_named(datasets, tmp_path, monkeypatch, capsys, family, others, message):
    monkeypatch.chdir(tmp_path)
    names = {name: str(datasets / name) for name in ("coco", "vqa")}
    given = [text.format(**names) for text in others]
    cache = ["--cache", str(tmp_path / "cache"), "--amount", "1"]
    command = bench(family, *given, checkpoint=False)
    assert main(command if "--dataset" in others else [*command, *cache]) == 1
    assert message.format(**names) in capsys.readouterr().err
    assert not list(tmp_path.glob("bench-*"))


def test_an_unknown_engine_is_wrong_usage():
    with pytest.raises(SystemExit) as error:
        main(bench("clip", "--against", "caffe"))
    assert error.value.code == 2


def test_drawn_scenes_are_the_default(tmp_path):
    options = argparse.Namespace(
        dataset=None, format=None, images=None, annotations=None, classes=None,
        cache=tmp_path, amount=2, seed=3, limit=1,
    )  # fmt: skip
    dataset, facts = accuracy.open_dataset(options, "zero-shot-object-detection")
    assert len(dataset) == 1
    assert facts["source"] == "drawn scenes of coco, seed 3"
    assert (facts["drawn"], facts["items"], facts["of"]) == (True, 1, 2)
