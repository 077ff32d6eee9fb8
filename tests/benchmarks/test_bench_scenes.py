"""Drawn scenes as datasets: that they are the demo's own scenes, and read back whole."""

import json

import numpy as np
import pytest

pytest.importorskip("psutil", reason="the benchmarks need the extra bench")
pytest.importorskip("torch", reason="the drawn scenes are in the package of the exporter")

from PIL import Image

from vlrt.errors import OptionError
from vlrt_benchmarks import datasets, scenes
from vlrt_benchmarks.__main__ import main
from vlrt_benchmarks.datasets import Wanted
from vlrt_export.demo.captions import label
from vlrt_export.demo.detection_accuracy import LABELS, fresh_scenes
from vlrt_export.demo.evaluate import single_object_scenes
from vlrt_export.demo.question_accuracy import fresh_questions
from vlrt_export.demo.scenes import HELD_OUT_PAIRS, SEEN_PAIRS

SEED = 11


def written(root, format_, amount, seed=SEED):
    number = scenes.write(root / format_, format_, amount, seed)
    return number, datasets.read(Wanted(format_, root / format_))


def same_pixels(path, image):
    return np.array_equal(np.asarray(Image.open(path)), np.asarray(image))


def test_classes_are_the_pairs_and_pictures_those_of_the_demo(tmp_path):
    number, found = written(tmp_path, "imagenet", 2)
    assert number == len(found) == 128
    assert set(found.labels) == set(LABELS)
    pictures = dict(zip(found.pictures, found.truth, strict=True))
    for pairs in (SEEN_PAIRS, HELD_OUT_PAIRS):
        for position in (0, 3):
            pair = pairs[position // 2]
            image = single_object_scenes(pairs, 2, (256, 256), SEED)[position].image
            path = tmp_path / "imagenet" / "_".join(pair) / f"{position % 2:05d}.png"
            assert same_pixels(path, image)
            assert found.labels[pictures[path]] == label(pair)
    assert {name: {found.labels[i] for i in of} for name, of in found.groups.items()} == {
        "seen": {label(pair) for pair in SEEN_PAIRS},
        "never seen": {label(pair) for pair in HELD_OUT_PAIRS},
    }


def test_boxes_are_those_of_the_drawn_objects(tmp_path):
    number, found = written(tmp_path, "coco", 4)
    assert number == len(found) == 4
    for position, scene in enumerate(fresh_scenes(4, SEED)):
        assert same_pixels(found.pictures[position], scene.image)
        for thing, drawn in zip(found.things[position], scene.objects, strict=True):
            x, y, width, height = thing.box
            assert (x, y, x + width, y + height) == pytest.approx(drawn.box)
            assert found.labels[thing.label] == label((drawn.colour, drawn.shape))
    assert sum(map(len, found.groups.values())) == len(LABELS)


def test_questions_have_ten_equal_answers_and_their_kinds(tmp_path):
    number, found = written(tmp_path, "vqa", 2)
    assert number == len(found) == 10
    for position, (asked, image) in enumerate(fresh_questions(2, SEED)):
        assert found.questions[position] == asked.question
        assert found.answers[position] == (asked.answer,) * 10
        assert position in found.groups[asked.kind]
        assert same_pixels(found.pictures[position], image)


def test_each_caption_is_there_once_and_names_all_objects(tmp_path):
    number, found = written(tmp_path, "captions", 12)
    assert number == len(found) == len(set(found.captions)) == 12
    assert found.owners == tuple(range(12))
    assert all(" and " in caption for caption in found.captions)


def test_the_same_seed_draws_the_same_and_another_does_not(tmp_path):
    made = [scenes.write(tmp_path / str(i), "coco", 2, seed) for i, seed in enumerate((1, 1, 2))]
    texts = [(tmp_path / str(i) / "instances.json").read_text() for i in range(len(made))]
    assert texts[0] == texts[1] != texts[2]


def test_the_command_writes_and_says_what_to_do(tmp_path, capsys):
    out = tmp_path / "some" / "where"
    assert main(["scenes", "-o", str(out), "--format", "coco", "--amount", "1"]) == 0
    assert f"vlrt bench accuracy MODEL --dataset {out} --format coco" in capsys.readouterr().out
    assert [p.name for p in out.parent.iterdir()] == ["where"]  # and nothing is left beside it
    assert main(["scenes", "-o", str(out), "--format", "coco"]) == 1
    assert "where is there already" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["scenes", "-o", str(empty), "--format", "vqa", "--amount", "1"]) == 0


@pytest.mark.parametrize(
    ("format_", "amount", "seed", "message"),
    [
        ("", 1, 0, "--format is ''; valid: imagenet, coco, vqa, captions"),
        ("voc", 1, 0, "--format is 'voc'"),
        ("coco", 0, 0, "--amount is 0; valid: a whole number of 1 or more"),
        ("coco", 1, -1, "--seed is -1; valid"),
    ],
)
def test_bad_wishes_are_named_and_leave_nothing(tmp_path, format_, amount, seed, message):
    with pytest.raises(OptionError, match=message):
        scenes.write(tmp_path / "out", format_, amount, seed)
    assert not list(tmp_path.iterdir())


def test_what_fails_midway_leaves_nothing(tmp_path, monkeypatch):
    def fail(root, amount, seed):
        (root / "some.png").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setitem(scenes._WRITERS, "coco", fail)
    with pytest.raises(KeyboardInterrupt):
        scenes.write(tmp_path / "out", "coco", 1, 0)
    assert not list(tmp_path.iterdir())


def test_scenes_are_kept_by_all_that_decides_them(tmp_path):
    first = scenes.cached(tmp_path, "coco", 1, 3)
    (first / "mark").touch()
    assert (scenes.cached(tmp_path, "coco", 1, 3) / "mark").exists()
    others = [scenes.cached(tmp_path, *which) for which in (("coco", 2, 3), ("coco", 1, 4))]
    assert len({first, *others}) == 3


def test_captions_end_where_no_scene_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "_TRIES", 1)
    monkeypatch.setattr("vlrt_export.demo.captions.is_true", lambda phrases, objects: True)
    with pytest.raises(OptionError, match="--amount is 2; of 1 scenes no caption fits another"):
        scenes.write(tmp_path / "out", "captions", 2, 0)


def test_files_are_those_of_the_formats(tmp_path):
    written(tmp_path, "vqa", 1)
    annotations = json.loads((tmp_path / "vqa" / "annotations.json").read_text())["annotations"]
    types = {one["multiple_choice_answer"]: one["answer_type"] for one in annotations}
    assert all(
        kind
        == ("yes/no" if answer in ("yes", "no") else "number" if answer.isdecimal() else "other")
        for answer, kind in types.items()
    )
