"""What a variant must reach, and what is said of one that does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlrt.errors import OptionError

pytest.importorskip("onnx")

from vlrt_export import gates, verify
from vlrt_export.gates import GATES, QUALITIES, Gate
from vlrt_export.precision import PRECISIONS

LABELS, OBJECTS = "zero-shot-image-classification", "zero-shot-object-detection"
GOOD = {"x_embeds": np.ones((2, 3), np.float32), "y": np.array([[3.0, -20]], np.float32)}
NOTHING = {"agreement": None, "compared": 0, "of": "pictures"}


def variant(outputs, expected=GOOD, *, repeatable=True):
    return {"c": {"parity": verify.parity(outputs, expected), "repeatable": repeatable}}


# --- the limits -----------------------------------------------------------------------------------


def test_every_task_has_a_gate_for_every_precision():
    assert all(tuple(of_task) == PRECISIONS for of_task in GATES.values())
    from vlrt.tasks import TASKS

    assert set(GATES) == {LABELS, OBJECTS, *TASKS.values()}


@pytest.mark.parametrize("task", [LABELS, OBJECTS])
def test_embeddings_must_be_this_near(task):
    needed = {name: gates.gate(task, name, "speed").min_cosine for name in PRECISIONS}
    assert needed == {
        "fp32": 0.999999, "fp16": 0.9999, "int8": 0.995, "int8w": 0.995, "int4w": 0.98,
    }  # fmt: skip


@pytest.mark.parametrize("task", GATES)
@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("quality", QUALITIES)
def test_a_point_of_accuracy_is_the_most_that_may_be_lost(task, name, quality):
    allowed = gates.gate(task, name, quality).max_accuracy_loss
    assert 0 < allowed <= (0.01 if quality == "speed" else 0.005)


@pytest.mark.parametrize("task", GATES)
@pytest.mark.parametrize("name", PRECISIONS)
def test_accuracy_allows_half_the_errors_of_speed(task, name):
    speed, accuracy = (gates.gate(task, name, quality) for quality in QUALITIES)
    assert speed == GATES[task][name]
    if name == "fp32":
        assert accuracy == speed
        return
    assert 1 - accuracy.min_agreement == pytest.approx((1 - speed.min_agreement) / 2)
    if speed.min_cosine is not None:
        assert 1 - accuracy.min_cosine == pytest.approx((1 - speed.min_cosine) / 2)
    if speed.max_abs_error is not None:
        assert accuracy.max_abs_error == speed.max_abs_error / 2
    assert (accuracy.min_cosine is None) == (speed.min_cosine is None)
    assert (accuracy.max_abs_error is None) == (speed.max_abs_error is None)
    assert accuracy.max_accuracy_loss == speed.max_accuracy_loss / 2


@pytest.mark.parametrize("quality", ["", "Speed", "best"])
def test_another_quality_is_refused_with_the_valid_ones(quality):
    with pytest.raises(OptionError, match=f"quality is '{quality}'; valid: speed, accuracy"):
        gates.gate(LABELS, "int8", quality)
    with pytest.raises(OptionError, match="valid: speed, accuracy"):
        gates.check_quality(quality)


# --- what is said ---------------------------------------------------------------------------------


def test_of_nothing_there_is_nothing_to_say():
    assert gates.complaints(GATES[LABELS]["fp32"], {}, NOTHING) == []


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("task", GATES)
def test_what_is_not_the_same_passes_no_gate(task, name):
    gate = gates.gate(task, name, "speed")
    assert gates.complaints(gate, variant(GOOD), NOTHING) == []
    assert gates.complaints(gate, variant(GOOD), NOTHING | {"agreement": 1.0}) == []
    (why,) = gates.complaints(gate, variant(GOOD, repeatable=False), NOTHING)
    assert why == "c: a second run on the same input gave another result"
    of = {"agreement": 0.5, "compared": 4, "of": "pictures are alike"}
    (why,) = gates.complaints(gate, variant(GOOD), of)
    assert why.startswith("only 0.5000 of 4 pictures are alike, needs ")
    assert gates.complaints(gate, variant(GOOD), of | {"agreement": float("nan")})
    broken = np.array([[1, 1, 1], [1, np.nan, 1]], np.float32)
    whys = gates.complaints(gate, variant(GOOD | {"x_embeds": broken}), NOTHING)
    assert whys == ["c, x_embeds: NaN or infinity among its numbers"]
    for value in (np.nan, np.inf):
        whys = gates.complaints(gate, variant(GOOD | {"y": GOOD["y"] * value}), NOTHING)
        assert whys == ["c, y: NaN or infinity among its numbers"]
    picked = NOTHING | {"example_agreement": 1.0, "pictures": 8}
    assert gates.complaints(gate, variant(GOOD), picked) == []
    (why,) = gates.complaints(gate, variant(GOOD), picked | {"example_agreement": 0.875})
    assert why.startswith("only 0.8750 of 8 pictures, taken as examples, have the same object")


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("task", GATES)
def test_who_is_wrong_more_often_passes_no_gate(task, name):
    gate = gates.gate(task, name, "speed")
    counted = {"reference": 0.95, "variant": 0.95, "of": "right answers"}
    for right in (0.95, 0.99, 0.95 - gate.max_accuracy_loss):
        quality = NOTHING | {"accuracy": counted | {"variant": right}}
        assert gates.complaints(gate, variant(GOOD), quality) == []
    for right in (0.95 - gate.max_accuracy_loss - 1e-4, float("nan")):
        quality = NOTHING | {"accuracy": counted | {"variant": right}}
        (why,) = gates.complaints(gate, variant(GOOD), quality)
        assert why.startswith(f"right answers: {right:.4f}, PyTorch 0.9500; it may lose 0.0")


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_whoever_passes_for_accuracy_passes_for_speed(cosine, agreement, lost):
    numbers = {"max_abs_error": 0.1, "max_abs_error_unit": 0.1, "min_cosine": cosine}
    made = {"c": {"parity": {"x_embeds": numbers}, "repeatable": True}}
    counted = {"reference": 1.0, "variant": 1 - lost, "of": "answers"}
    quality = {"agreement": agreement, "compared": 9, "of": "pictures", "accuracy": counted}
    for name in PRECISIONS[1:]:
        strict, loose = (gates.gate(LABELS, name, which) for which in ("accuracy", "speed"))
        if not gates.complaints(strict, made, quality):
            assert gates.complaints(loose, made, quality) == []


def test_values_are_held_to_their_size():
    """Numbers over 1 carry a rounding error of their own size."""
    gate = GATES[LABELS]["fp32"]
    close, far = (GOOD | {"y": GOOD["y"] + np.float32(error)} for error in (1e-3, 3e-3))
    assert gates.complaints(gate, variant(close), NOTHING) == []
    (why,) = gates.complaints(gate, variant(far), NOTHING)
    assert why.startswith("c, y: largest error 1.5")
    numbers = verify.parity(far, GOOD)["y"]
    assert numbers["max_abs_error"] == pytest.approx(3e-3, rel=1e-3, abs=0)
    assert numbers["max_abs_error_unit"] == pytest.approx(3e-3 / 20, rel=1e-3, abs=0)


def test_the_length_of_an_embedding_does_not_count():
    longer = verify.parity({"x_embeds": GOOD["x_embeds"] * 2}, {"x_embeds": GOOD["x_embeds"]})
    assert longer["x_embeds"]["max_abs_error"] == 1
    assert longer["x_embeds"]["max_abs_error_unit"] == 0


# --- embeddings of places -------------------------------------------------------------------------


def places(number, turned):
    """Embeddings of `number` places [1, P, 2], and the same with the first `turned` upside down."""
    expected = np.ones((1, number, 2), np.float32)
    found = expected.copy()
    found[:, :turned] *= -1
    return {"x_embeds": found}, {"x_embeds": expected}


@pytest.mark.parametrize(("number", "turned", "passes"), [
    (100, 0, True), (100, 1, True), (100, 2, False), (1000, 10, True), (1000, 11, False),
    (1, 1, False), (50, 1, False),
])  # fmt: skip
def test_of_a_hundred_places_one_may_be_far(number, turned, passes):
    found, expected = places(number, turned)
    numbers = verify.parity(found, expected)["x_embeds"]
    assert numbers["min_cosine"] == pytest.approx(-1 if turned else 1)
    whys = gates.complaints(GATES[OBJECTS]["int8"], variant(found, expected), NOTHING)
    assert (whys == []) == passes
    if not passes:
        assert whys == [
            "c, x_embeds: lowest cosine -1.000000 among the best 99 of 100 places, needs 0.995"
        ]


def test_an_embedding_a_picture_has_no_places():
    found, expected = (
        {name: array[0] for name, array in outputs.items()} for outputs in places(200, 1)
    )
    (why,) = gates.complaints(GATES[LABELS]["int8"], variant(found, expected), NOTHING)
    assert why == "c, x_embeds: lowest cosine -1.000000, needs 0.995"


@pytest.mark.parametrize("cosine", [0.9949, -1, float("nan")])
def test_an_object_that_is_far_passes_no_gate(cosine):
    gate = GATES[OBJECTS]["int8"]
    found, expected = places(1000, 0)
    assert gates.complaints(gate, variant(found, expected), NOTHING) == []
    near = NOTHING | {"min_object_cosine": 0.995}
    assert gates.complaints(gate, variant(found, expected), near) == []
    far = NOTHING | {"min_object_cosine": cosine}
    (why,) = gates.complaints(gate, variant(found, expected), far)
    assert why == f"lowest cosine {cosine:.6f} among the objects compared, needs 0.995"


def test_a_gate_without_limits_lets_all_pass_that_is_finite():
    open_gate = Gate(max_abs_error=None, min_cosine=None, min_agreement=0.0)
    found, expected = places(4, 4)
    assert gates.complaints(open_gate, variant(found, expected), NOTHING) == []
