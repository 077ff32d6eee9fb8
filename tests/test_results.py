"""Results: frozen, checked, ready for JSON."""

import dataclasses
import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from vlrt import Answers, Classification, LabelSet, Matches
from vlrt.errors import LabelError, OptionError
from vlrt.results import Detections, EncodedImage


def classification(labels=("a", "b", "c"), scores=(0.2, 0.5, 0.3), logits=(1, 3, 2)):
    scores, logits = (np.array(values, np.float32) for values in (scores, logits))
    return Classification(tuple(labels), scores, logits)


@pytest.mark.parametrize(
    ("k", "expected"),
    [(0, []), (1, ["b"]), (2, ["b", "c"]), (None, ["b", "c", "a"]), (9, ["b", "c", "a"])],
)
def test_top_gives_the_best_first(k, expected):
    assert [label for label, _ in classification().top(k)] == expected


def test_best_is_the_first_of_top():
    label, score = classification().best
    assert label == "b"
    assert score == pytest.approx(0.5)
    assert isinstance(score, float)


def test_equal_scores_keep_the_order_of_the_labels():
    tied = classification(scores=(0.25, 0.5, 0.25))
    assert [label for label, _ in tied.top()] == ["b", "a", "c"]


def test_to_dict_is_json_best_first():
    content = json.loads(json.dumps(classification().to_dict()))
    assert [row["label"] for row in content["labels"]] == ["b", "c", "a"]
    assert content["labels"][0] == {"label": "b", "score": 0.5, "logit": 3.0}


@pytest.mark.parametrize(
    ("scores", "logits"),
    [((), ()), ((0.5, 0.5), (1, 2)), ((0.2, 0.5, 0.3), (1, 2)), ([[1, 0, 0]], (1, 2, 3))],
)
def test_a_number_a_label_or_nothing(scores, logits):
    with pytest.raises(ValueError, match=r"\(3,\)"):
        classification(scores=scores, logits=logits)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (3, 4), (2,), (2, 4, 1)], ids=str)
def test_a_label_set_needs_a_row_a_label(shape):
    with pytest.raises(LabelError, match=r"\(2, D\)"):
        LabelSet(("a", "b"), np.zeros(shape, np.float32), "model")


def test_results_are_frozen():
    labels = LabelSet(("a",), np.ones((1, 2), np.float32), "model")
    for value in (classification(), labels):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.labels = ("x",)


def test_results_pickle():
    labels = LabelSet(("a", "b"), np.ones((2, 3), np.float32), "model")
    assert len(labels) == 2
    for value in (classification(), labels):
        copy = pickle.loads(pickle.dumps(value))
        assert copy.labels == value.labels


# --- answers and matches --------------------------------------------------------------------------


def answers(words=("two", "three"), scores=(0.75, 0.25)):
    return Answers("How many?", tuple(words), np.array(scores, np.float32))


def test_the_best_answer_is_the_first():
    assert answers().best == ("two", 0.75)
    assert type(answers().best[1]) is float
    assert len(answers()) == 2
    assert answers(scores=(0.5, 0.5)).best == ("two", 0.5)


def test_answers_are_json_best_first():
    assert json.loads(json.dumps(answers().to_dict())) == {
        "question": "How many?",
        "answers": [{"answer": "two", "score": 0.75}, {"answer": "three", "score": 0.25}],
    }


@pytest.mark.parametrize(
    ("words", "scores", "says"),
    [
        ((), (), "one at least"),
        (("a", "b"), (), r"\(2,\)"),
        (("a", "b"), (0.5,), r"\(2,\)"),
        (("a",), ((0.5,),), r"\(1,\)"),
        (("a", "b"), (0.2, 0.3), "best first"),
        (("a", "b"), (0.2, np.nan), "best first"),
    ],
    ids=str,
)
def test_a_score_an_answer_best_first_or_nothing(words, scores, says):
    with pytest.raises(ValueError, match=says):
        answers(words, scores)


def matches(logits=((1, 3, 3), (2, 0, -1))):
    return Matches(("a", "b", "c"), np.array(logits, np.float32))


def test_texts_are_ranked_for_a_picture_and_pictures_for_a_text():
    assert len(matches()) == 2
    assert matches().rank_texts() == [("b", 3.0), ("c", 3.0), ("a", 1.0)]
    assert matches().rank_texts(1, k=2) == [("a", 2.0), ("b", 0.0)]
    assert matches().rank_images() == [(1, 2.0), (0, 1.0)]
    assert matches().rank_images(2, k=1) == [(0, 3.0)]
    assert {type(position) for position, _ in matches().rank_images()} == {int}


def test_matches_are_json_in_the_order_of_the_pictures():
    content = json.loads(json.dumps(matches().to_dict()))
    assert [row["texts"][0] for row in content["images"]] == [
        {"text": "b", "logit": 3.0},
        {"text": "a", "logit": 2.0},
    ]
    assert [len(row["texts"]) for row in content["images"]] == [3, 3]


@pytest.mark.parametrize("position", [True, 0.5, "0", None])
def test_a_position_that_is_no_whole_number_is_refused(position):
    for rank in (matches().rank_texts, matches().rank_images):
        with pytest.raises(OptionError, match=f"is {position!r}; valid: 0 to"):
            rank(position)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "2"])
def test_a_number_of_matches_that_is_none_is_refused(k):
    for rank in (matches().rank_texts, matches().rank_images):
        with pytest.raises(OptionError, match=f"k is {k!r}; valid: a whole number"):
            rank(0, k)


@pytest.mark.parametrize("position", [-1, 2, 3, 99])
def test_a_position_outside_of_what_was_given_is_refused(position):
    with pytest.raises(OptionError, match=f"image is {position}; valid: 0 to 1"):
        matches().rank_texts(position)
    if position != 2:
        with pytest.raises(OptionError, match=f"text is {position}; valid: 0 to 2"):
            matches().rank_images(position)


@pytest.mark.parametrize("shape", [(0,), (3,), (2, 2), (2, 3, 1)], ids=str)
def test_matches_need_a_row_a_picture_and_a_column_a_text(shape):
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        matches(np.zeros(shape))


# --- label sets in files --------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [("a",), ("naïve café", "東京 🙂", "two\nlines", "x ")])
def test_a_label_set_comes_back_from_its_file(labels, tmp_path, rng):
    embeds = rng.normal(size=(len(labels), 3)).astype(np.float32)
    kept = LabelSet(labels, embeds, "model-1")
    kept.save(tmp_path / "labels.npz")
    copy = LabelSet.load(tmp_path / "labels.npz")
    assert (copy.labels, copy.model) == (labels, "model-1")
    assert all(type(label) is str for label in copy.labels)
    assert copy.embeds.dtype == np.float32
    np.testing.assert_array_equal(copy.embeds, embeds)


def test_a_label_set_is_kept_in_npz_only(tmp_path):
    with pytest.raises(LabelError, match=r"\.npz"):
        LabelSet(("a",), np.ones((1, 2), np.float32), "m").save(tmp_path / "labels.json")
    assert not list(tmp_path.iterdir())


ONE, TWO = np.ones((1, 2), np.float32), np.ones((2, 2), np.float32)


def archive(**changes):
    """The bytes of a label set's file with other arrays, or other bytes for one of them."""
    arrays = {"labels": np.array(["a"]), "embeds": ONE, "model": np.array("m")} | changes
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        for name, value in arrays.items():
            if value is not None:
                content = value if isinstance(value, bytes) else npy(value)
                members.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text):
    """An array file that holds nothing but a header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


NO_LABEL_SETS = {
    "empty": b"",
    "no archive": b"labels",
    "cut short": archive()[: len(archive()) // 2],
    "broken inside": archive()[:60] + b"\xff" * 20 + archive()[80:],
    "one array": npy(TWO),
    "one pickled array": npy(np.array([None], object)),
    "without embeds": archive(embeds=None),
    "more embeds than labels": archive(embeds=TWO),
    "pickled labels": archive(labels=np.array(["a", None], object), embeds=TWO),
    "labels that are one text": archive(labels=np.array("cat"), embeds=np.ones((3, 2), "f4")),
    "labels that are numbers": archive(labels=np.array([7])),
    "labels that are one number": archive(labels=np.array(1)),
    "no labels": archive(labels=np.array([], "U1"), embeds=ONE[:0]),
    "an empty label": archive(labels=np.array([" "])),
    "embeds that are texts": archive(embeds=np.array([["1", "2"]])),
    "embeds with NaN": archive(embeds=ONE * np.nan),
    "embeds of float64": archive(embeds=np.ones((1, 2))),
    "a model that is a number": archive(model=np.array(3)),
    "a header that does not end": archive(embeds=header("{'descr': (((")),
    "a header that is no Python": archive(embeds=header("\x00{'descr': '<f4', ")),
    "a shape beyond any memory": archive(
        embeds=header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 9999999)}\n")
    ),
}


@pytest.mark.parametrize("name", NO_LABEL_SETS)
def test_a_file_that_is_no_label_set_is_refused_by_name(name, tmp_path):
    path = tmp_path / "labels.npz"
    path.write_bytes(NO_LABEL_SETS[name])
    with pytest.raises(
        LabelError, match=r"labels\.npz' cannot be read as a label set: ."
    ) as raised:
        LabelSet.load(path)
    assert raised.value.__cause__ is not None
    path.write_bytes(archive())
    assert LabelSet.load(path).labels == ("a",)


def test_a_missing_label_set_is_named(tmp_path):
    with pytest.raises(LabelError, match=r"missing\.npz"):
        LabelSet.load(tmp_path / "missing.npz")


@pytest.mark.parametrize("place", ["missing/labels.npz", "a directory.npz"])
def test_a_label_set_that_cannot_be_written_is_named(place, tmp_path):
    (tmp_path / "a directory.npz").mkdir()
    with pytest.raises(LabelError, match=r"\.npz' cannot be written"):
        LabelSet(("a",), ONE, "m").save(tmp_path / place)


@pytest.mark.parametrize(
    ("labels", "embeds", "says"),
    [
        ((), ONE[:0], "at least one"),
        (("a", ""), TWO, "label 1 is ''"),
        ((" \n",), ONE, "label 0"),
        ((7,), ONE, "label 0 is 7"),
        (("a",), ONE.astype(np.float64), "embeds of float64"),
        (("a",), ONE.astype(np.float16), "embeds of float16"),
        (("a",), ONE * np.nan, "finite"),
        (("a",), ONE * np.inf, "finite"),
    ],
)
def test_a_label_set_needs_texts_and_finite_numbers(labels, embeds, says):
    with pytest.raises(LabelError, match=says):
        LabelSet(labels, embeds, "m")


# --- encoded pictures and detections --------------------------------------------------------------


def encoded(places=3, **changed):
    row = np.zeros(places, np.float32)
    values = {
        "class_embeds": np.zeros((places, 5), np.float32),
        "logit_shift": row,
        "logit_scale": row,
        "pred_boxes": np.zeros((places, 4), np.float32),
        "objectness_logits": None,
        "size_hw": (40, 60),
        "model": "m",
    }
    return EncodedImage(**{**values, **changed})


@pytest.mark.parametrize("places", [0, 1, 3])
def test_an_encoded_image_pickles(places):
    image = encoded(places, objectness_logits=np.ones(places, np.float32))
    copy = pickle.loads(pickle.dumps(image))
    assert (copy.size_hw, copy.model) == (image.size_hw, image.model)
    np.testing.assert_array_equal(copy.objectness_logits, image.objectness_logits)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("class_embeds", (2, 5)), ("logit_shift", (2,)), ("logit_scale", (3, 1)),
     ("pred_boxes", (3, 5)), ("pred_boxes", (2, 4)), ("objectness_logits", (2,))],
)  # fmt: skip
def test_an_encoded_image_needs_a_row_a_place(name, shape):
    with pytest.raises(ValueError, match="one row a place"):
        encoded(**{name: np.zeros(shape, np.float32)})


def detections(number=2, **changed):
    boxes = [[-3, 5, 20, 50], [10, 10, 30.5, 20]]
    values = {
        "labels": ("cat", "dog"),
        "boxes": np.array(boxes, np.float32)[:number],
        "scores": np.array([0.75, 0.5], np.float32)[:number],
        "label_ids": np.array([1, 0], np.intp)[:number],
        "size_hw": (40, 60),
        "alphas": None,
    }
    return Detections(**{**values, **changed})


def test_no_detections_are_a_result_too():
    none = detections(0)
    assert (len(none), none.names, len(none.clipped())) == (0, [], 0)
    assert none.to_dict() == {"width": 60, "height": 40, "detections": []}


def test_detections_as_a_dict_are_json_with_the_boxes_as_they_are():
    content = json.loads(json.dumps(detections().to_dict()))
    assert [entry["label"] for entry in content["detections"]] == ["dog", "cat"]
    assert content["detections"][0] == {
        "label": "dog", "score": 0.75, "box": {"xmin": -3, "ymin": 5, "xmax": 20, "ymax": 50}
    }  # fmt: skip


def test_detections_by_example_tell_both_scores():
    found = detections(alphas=np.array([1, 0.25], np.float32))
    assert [entry["alpha"] for entry in found.to_dict()["detections"]] == [1.0, 0.25]


def test_clipped_boxes_lie_in_the_picture_and_nothing_else_changes():
    found = detections()
    clipped = found.clipped()
    assert clipped.boxes.tolist() == [[0, 5, 20, 40], [10, 10, 30.5, 20]]
    assert found.boxes[0, 0] == -3
    assert clipped.names == found.names
    assert clipped.size_hw == found.size_hw


@pytest.mark.parametrize(
    ("name", "shape"),
    [("boxes", (2, 5)), ("boxes", (1, 4)), ("boxes", (8,)), ("label_ids", (1,)),
     ("label_ids", (2, 1)), ("alphas", (3,))],
)  # fmt: skip
def test_detections_need_a_box_a_score(name, shape):
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        detections(**{name: np.zeros(shape)})


def test_detections_pickle():
    copy = pickle.loads(pickle.dumps(detections()))
    assert copy.to_dict() == detections().to_dict()
