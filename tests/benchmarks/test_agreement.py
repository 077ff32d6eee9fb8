"""Whether contenders do the same work, before anything is timed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("psutil", reason="the benchmarks need the extra bench")

from vlrt.errors import BenchmarkError
from vlrt_benchmarks import agreement
from vlrt_benchmarks.agreement import check, compare, largest_difference, lowest_cosine
from vlrt_benchmarks.peers import STAGES, Entry

NUMBERS = arrays(np.float32, (2, 3), elements=st.floats(-10, 10, width=32))


def entry(name, precision="fp32", **changes):
    return Entry(name, "fake", precision, STAGES["owlvit"], **changes)


BASE = entry("torch-fp32", exact=True)


def compared(contender, output, found, expected, stage="end to end", family="clip"):
    rows = compare(
        contender,
        BASE,
        family,
        stage,
        {output: np.asarray(found)},
        {output: np.asarray(expected)},
    )
    assert [row["output"] for row in rows] == [output]
    return rows[0]


# --- measures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "lowest"),
    [
        ([[1, 0]], [[2, 0]], 1.0),
        ([[1, 0], [0, 3]], [[1, 0], [0, -1]], -1.0),
        ([[[1, 0], [0, 0]]], [[[0, 0], [0, 1]]], 0.0),
    ],
)
def test_the_lowest_cosine_is_that_of_the_worst_sample(ours, theirs, lowest):
    given_ = [np.array(each, np.float32) for each in (ours, theirs)]
    assert lowest_cosine(*given_) == pytest.approx(lowest)


@given(NUMBERS.filter(lambda a: (np.linalg.norm(a, axis=1) > 1e-3).all()), st.floats(0.01, 100))
def test_a_cosine_does_not_depend_on_length(array, factor):
    assert lowest_cosine(array, array * np.float32(factor)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("ours", "theirs", "largest"),
    [([], [], 0), ([1.0, 2.0], [1.0, 2.5], 0.5), ([[-3]], [[3]], 6)],
)
def test_the_largest_difference_is_that_of_two_numbers(ours, theirs, largest):
    assert largest_difference(np.array(ours), np.array(theirs)) == largest


@given(NUMBERS, NUMBERS)
def test_a_difference_is_the_same_both_ways(a, b):
    assert largest_difference(a, b) == largest_difference(b, a)


def test_levels_of_pictures_do_not_wrap_around():
    levels = [np.array([level], np.uint8) for level in (0, 255)]
    assert largest_difference(*levels) == 255


def detections(*places):
    """Of one picture: (x, score) of each box, the last place free."""
    boxes = [[x, 0, x + 20, 20] for x, _ in places] + [[0, 0, 0, 0]]
    scores = [score for _, score in places] + [0.1]
    return {"boxes": np.array([boxes], np.float32), "scores": np.array([scores], np.float32)}


@pytest.mark.parametrize(
    ("ours", "theirs", "largest"),
    [
        ([], [], 0),
        ([(0, 0.9), (300, 0.5)], [(0, 0.9), (300, 0.5)], 0),
        ([(300, 0.5), (0, 0.5)], [(0, 0.5), (300, 0.5)], 0),  # a tie, in another order
        ([(300, 0.9), (0, 0.5)], [(0, 0.9), (300, 0.5)], 300),  # no tie
        ([(50, 0.9), (300, 0.5)], [(0, 0.9), (300, 0.5)], 50),
        ([(0, 0.9), (0, 0.1)], [(0, 0.9), (300, 0.1005)], 0),  # just above the threshold
        ([(0, 0.8)], [(0, 0.9)], np.inf),
        ([(np.nan, 0.9)], [(0, 0.9)], np.nan),
    ],
)
def test_boxes_are_as_far_apart_as_the_nearest_with_such_a_score(ours, theirs, largest):
    apart = agreement.box_difference(detections(*ours), detections(*theirs), 1e-3)
    assert apart == pytest.approx(largest, nan_ok=True)


@given(st.permutations(range(5)), st.integers(0, 4), st.sampled_from([-50, 50]))
def test_the_order_of_equal_scores_does_not_matter_and_a_box_that_moved_does(order, moved, by):
    expected = detections(*((200 * at, 0.5) for at in range(5)))
    found = detections(*((200 * at, 0.5) for at in order))
    assert agreement.box_difference(found, expected, 1e-3) == 0
    found["boxes"][0, moved] += by
    assert agreement.box_difference(found, expected, 1e-3) == 50


# --- what is needed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "off", "same"),
    [
        ("fp32", 0.0, True),
        ("fp32", 0.01, False),
        ("fp16", 0.01, True),
        ("bf16", 0.1, True),
        ("bf16", 0.3, False),
        ("int8", 0.2, True),
        ("int8", 0.3, False),
        ("int4w", 0.2, True),  # of few bits, as int8
    ],
)
def test_scores_must_be_as_near_as_the_precision_is_exact(precision, off, same):
    row = compared(entry("x", precision), "scores", [[0.5 + off]], [[0.5]])
    assert row["same"] is same
    assert row["measure"] == "largest difference"
    assert row["value"] == pytest.approx(off)


@pytest.mark.parametrize(("cosine", "same"), [(1.0, True), (0.97, True), (0.9, False)])
def test_embeddings_must_point_the_same_way(cosine, same):
    found = [[cosine, np.sqrt(1 - cosine**2)]]
    row = compared(entry("x", "int8"), "image_embeds", found, [[2.0, 0.0]], "encode image")
    assert row["measure"] == "lowest cosine"
    assert row["needed"] == 0.95
    assert row["same"] is same


@pytest.mark.parametrize("output", ["scores", "image_embeds", "pixel_values", "kept"])
@pytest.mark.parametrize("wrong", [[[np.nan, 1.0]], [[0.0, 0.0, 0.0]], [[0.0]]])
def test_no_number_and_another_shape_are_no_agreement(output, wrong):
    row = compared(entry("x", "int8", exact=True), output, wrong, [[1.0, 1.0]])
    assert row["value"] is None
    assert row["same"] is False
    with pytest.raises(BenchmarkError, match="not a number, or of another shape"):
        check([{"stage": "end to end", "batch": 1, **row}], allow=False)


@pytest.mark.parametrize(
    ("exact", "family", "off", "needed", "same"),
    [
        (True, "clip", 0.0, 0.0, True),
        (True, "clip", 1e-6, 0.0, False),
        (True, "owlv2", 1e-6, 1e-5, True),  # whose resize has another order of sums
        (False, "clip", 0.5, None, False),
    ],
)
def test_pixels_are_the_same_bit_for_bit_of_those_who_say_so(exact, family, off, needed, same):
    contender = entry("x", exact=exact)
    row = compared(contender, "pixel_values", [[off]], [[0.0]], "preprocess", family)
    assert (row["needed"], row["same"]) == (needed, same)


def test_what_is_only_reported_is_no_mismatch():
    contender = entry("vlrt-int8-fast", "int8", exact=True, free=("end to end",))
    row = compared(contender, "scores", [[0.9]], [[0.1]])
    assert row["needed"] is None
    check([{"stage": "end to end", "batch": 1, **row}], allow=False)


@pytest.mark.parametrize(("precision", "outputs"), [("fp32", {"boxes", "scores"}),
                                                    ("int8", {"scores"})])  # fmt: skip
def test_in_few_bits_the_best_boxes_may_be_others(precision, outputs):
    made = {"boxes": np.zeros((1, 10, 4)), "scores": np.zeros((1, 10))}
    rows = compare(entry("x", precision), BASE, "owlvit", "end to end", made, made)
    assert {row["output"] for row in rows} == outputs


def test_nothing_in_common_cannot_be_compared():
    with pytest.raises(BenchmarkError, match="nothing can be compared"):
        compare(entry("x"), BASE, "clip", "end to end", {"a": np.ones(1)}, {"b": np.ones(1)})


# --- whom with ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "named"), [("end to end", "base"), ("preprocess", "exact"), ("suppress", "base")]
)
def test_pixels_are_compared_with_exact_ones_and_the_rest_with_the_base(stage, named):
    base, exact = entry("base"), entry("exact", exact=True)
    assert agreement.reference_of(stage, [base, exact], base).name == named


def test_without_the_base_the_first_that_has_the_stage_stands_in():
    base = Entry("base", "fake", "fp32", ("encode image",))
    other = entry("other")
    assert agreement.reference_of("suppress", [base, other], base).name == "other"
    assert agreement.reference_of("suppress", [base], base) is None


@pytest.mark.parametrize(
    ("outputs", "empty"),
    [
        ({}, False),
        ({"scores": [[0.1]]}, False),  # no detections
        ({"scores": [[0.1, 0.1]], "boxes": [[[0, 0, 1, 1]] * 2]}, True),
        ({"scores": [[0.2, 0.1]], "boxes": [[[0, 0, 1, 1]] * 2]}, False),
    ],
)
def test_that_nothing_is_found_is_noticed(outputs, empty):
    made = {name: np.array(array, np.float32) for name, array in outputs.items()}
    assert agreement.is_empty(made, 0.1) is empty


# --- the verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[], [{"same": True, "needed": 0.1}]])
def test_agreement_passes(rows):
    check(rows, allow=False)


def test_a_mismatch_names_contender_stage_number_and_what_is_needed():
    row = compared(entry("openvino-int8", "int8"), "scores", [[0.9]], [[0.1]])
    told = {"stage": "end to end", "batch": 8, **row}
    with pytest.raises(
        BenchmarkError,
        match=r"openvino-int8, end to end, batch 8: the largest difference of scores with those "
        r"of torch-fp32 is 0\.8; needed: 0\.25 or less",
    ):
        check([told], allow=False)
    check([told], allow=True)
    assert told["same"] is False
