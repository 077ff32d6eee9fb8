"""Results: frozen, checked, ready for JSON."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from vlrt import Classification, LabelSet
from vlrt.errors import LabelError


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
