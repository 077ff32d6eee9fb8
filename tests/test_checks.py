"""Checks: what passes, and what is refused by name."""

import math

import numpy as np
import pytest

from vlrt.checks import check_finite, check_outputs, checked_count, checked_unit, per_label
from vlrt.errors import BundleError, InferenceError, OptionError


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_numbers_of_the_unit_interval_pass(value):
    assert checked_unit("threshold", value) == value


@pytest.mark.parametrize(
    "value", [-0.1, 1.1, math.nan, math.inf, "0.5", None, True, [0.5]], ids=str
)
def test_other_numbers_are_named(value):
    with pytest.raises(OptionError, match=r"threshold is .*; valid: a number from 0 to 1"):
        checked_unit("threshold", value)


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_whole_numbers_of_one_or_more_pass(value):
    assert checked_count("batch_size", value) == value


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, math.nan, "4", None, True, [4]], ids=str)
def test_other_counts_are_named(value):
    with pytest.raises(OptionError, match=r"batch_size is .*; valid: a whole number"):
        checked_count("batch_size", value)


@pytest.mark.parametrize(
    ("values", "labels", "says"),
    [
        ({}, ["a"], r"no entry for \['a'\] of the labels \['a'\]"),
        ({"a": 1}, ["a", "b"], r"no entry for \['b'\]"),
        ({"a": 1, "c": 2}, ["a"], r"\['c'\], not among the labels \['a'\]"),
    ],
)
def test_a_mapping_that_does_not_fit_the_labels_is_refused(values, labels, says):
    with pytest.raises(OptionError, match=says):
        per_label("threshold", values, labels)


def test_a_mapping_is_read_in_the_order_of_the_labels():
    assert per_label("threshold", {}, []) == []
    assert per_label("threshold", {"b": 2, "a": 1}, ["a", "b"]) == [1, 2]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_named(bad):
    good = np.ones((1, 2), np.float32)
    check_finite({}, "picture 0")
    check_finite({"logits": good, "boxes": good[:0]}, "picture 0")
    with pytest.raises(InferenceError, match="picture 7: the graph gives boxes"):
        check_finite({"logits": good, "boxes": good * bad}, "picture 7")


AXES = {"logits": "BPN", "pred_boxes": "BP4"}


def outputs(**shapes):
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def test_what_a_graph_must_give_passes_and_more_may_be_there():
    check_outputs("a graph", {}, {})
    check_outputs("a graph", outputs(logits=(1, 9, 2), pred_boxes=(1, 9, 4), more=()), AXES, N=2)


def test_a_digit_is_a_size():
    check_outputs("a graph", outputs(logits=(7, 1)), {"logits": "B1"}, B=7)
    with pytest.raises(BundleError, match=r"needed: logits \[B, 1\], B = 7; .*\[7, 2\]"):
        check_outputs("a graph", outputs(logits=(7, 2)), {"logits": "B1"}, B=7)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({}, r"lacks logits, pred_boxes; needed: logits \[B, P, N\], .* it gives: nothing"),
        ({"logits": (1, 9, 2)}, r"lacks pred_boxes; .* it gives: logits \[1, 9, 2\]"),
        ({"logits": (1, 9, 3), "pred_boxes": (1, 9, 4)}, r"other shapes .*N = 2; it gives"),
        ({"logits": (1, 9, 2), "pred_boxes": (1, 8, 4)}, r"other shapes .*pred_boxes \[1, 8, 4\]"),
        ({"logits": (1, 9, 2), "pred_boxes": (1, 9, 5)}, "other shapes"),
        ({"logits": (9, 2), "pred_boxes": (1, 9, 4)}, "other shapes"),
    ],
)
def test_a_graph_that_gives_something_else_is_named(shapes, says):
    with pytest.raises(BundleError, match=f"^the graph of owl .*{says}"):
        check_outputs("the graph of owl", outputs(**shapes), AXES, N=2)
