"""Boxes: formats and overlaps bit for bit as transformers, suppression as plain loops do it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tolerances import BOX_ROUND_TRIP_REL, GIOU_ABS, SOFT_SCORE_ABS

from vlrt import boxes as geometry
from vlrt.errors import OptionError

NONE = np.zeros((0, 4), np.float32)

# Speed settings that take small examples through every road: one block, many blocks, the table.
ROADS = {
    "one block": {"_TABLE_PAIRS": 10**9},
    "many blocks": {"_TABLE_PAIRS": 10**9, "_BLOCK": 2},
    "table": {"_TABLE_PAIRS": 0, "_BLOCK": 3},
}
roads = st.sampled_from(sorted(ROADS))


def array(values):
    return np.array(values, np.float32)


def on_road(road, function, *arguments, **settings):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ROADS[road].items():
            patch.setattr(geometry, name, value)
        return function(*arguments, **settings)


@st.composite
def some_boxes(draw, min_size=0, max_size=12):
    """Corners on a coarse grid, so that boxes often touch, coincide, contain or miss each other."""
    corners = draw(
        st.lists(
            st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(1, 6)] * 2),
            min_size=min_size,
            max_size=max_size,
        )
    )
    return array([(x, y, x + w, y + h) for x, y, w, h in corners]).reshape(-1, 4)


@st.composite
def odd_boxes(draw):
    """Any corners at all: tiny, huge, empty, turned round."""
    count = draw(st.integers(0, 6))
    return draw(arrays(np.float32, (count, 4), elements=st.floats(-1000, 1000, width=32)))


@st.composite
def candidates(draw):
    """Boxes, of which some come again, with scores, of which some are equal, and labels."""
    distinct = draw(some_boxes(max_size=6))
    count = draw(st.integers(0, 24)) if len(distinct) else 0
    which = draw(arrays(np.intp, count, elements=st.integers(0, max(len(distinct) - 1, 0))))
    levels = st.integers(0, 20).map(lambda level: level / 20)
    scores = draw(arrays(np.float32, count, elements=levels.map(np.float32)))
    labels = draw(st.none() | arrays(np.int64, count, elements=st.integers(-1, 3)))
    return distinct[which].reshape(-1, 4), scores, labels


def plain_iou(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inner = max(sides[0], 0) * max(sides[1], 0)
    return inner / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inner) if inner else 0.0


def plain_nms(boxes, scores, threshold, labels):
    """Greedy NMS, one pair at a time."""
    labels = [0] * len(scores) if labels is None else labels
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        rivals = [k for k in kept if labels[k] == labels[i]]
        if all(np.float32(plain_iou(boxes[k], boxes[i])) <= np.float32(threshold) for k in rivals):
            kept.append(i)
    return kept


def random_boxes(rng, count, largest=0.3):
    center, size = rng.uniform(0, 1, (count, 2)), rng.uniform(0.01, largest, (count, 2))
    return np.concatenate([center - size / 2, center + size / 2], axis=1).astype(np.float32)


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 4), (4,), (1, 4), (3, 4), (2, 5, 4), (2, 0, 4)])
@pytest.mark.parametrize(
    "function",
    [
        geometry.center_to_corners,
        geometry.corners_to_center,
        geometry.corners_to_xywh,
        lambda boxes: geometry.clip(boxes, (3, 5)),
    ],
)
def test_formats_keep_shape_dtype_and_input(function, shape):
    boxes = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    boxes.flags.writeable = False
    found = function(boxes)
    assert found.shape == shape
    assert found.dtype == np.float32


def test_each_format_says_what_its_name_says():
    corners = array([10, 20, 30, 60])
    assert geometry.corners_to_center(corners).tolist() == [20, 40, 20, 40]
    assert geometry.corners_to_xywh(corners).tolist() == [10, 20, 20, 40]
    assert geometry.center_to_corners(array([20, 40, 20, 40])).tolist() == [10, 20, 30, 60]


@given(odd_boxes())
def test_formats_come_back(boxes):
    far = BOX_ROUND_TRIP_REL * (float(np.abs(boxes).max(initial=0)) + 1)
    there = geometry.center_to_corners(geometry.corners_to_center(boxes))
    back = geometry.corners_to_center(geometry.center_to_corners(boxes))
    assert there == pytest.approx(boxes, abs=far)
    assert back == pytest.approx(boxes, abs=far)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([-1, -2, 30, 40], [0, 0, 20, 10]),
        ([0, 0, 20, 10], [0, 0, 20, 10]),
        ([25, 12, 30, 40], [20, 10, 20, 10]),  # outside: empty
        ([-9, -9, -1, -1], [0, 0, 0, 0]),
    ],
)
def test_clip(box, expected):
    assert geometry.clip(array([box]), (10, 20)).tolist() == [expected]


@given(odd_boxes(), st.integers(0, 900), st.integers(0, 900))
def test_clipped_boxes_lie_inside_and_stay_there(boxes, height, width):
    found = geometry.clip(boxes, (height, width))
    assert (found >= 0).all()
    assert (found <= [width, height, width, height]).all()
    assert np.array_equal(geometry.clip(found, (height, width)), found)


@pytest.mark.parametrize("size_hw", [(-1, 5), (5, -1)])
def test_a_picture_of_negative_size_is_refused(size_hw):
    with pytest.raises(OptionError, match=r"size_hw is \(.*-1"):
        geometry.clip(NONE, size_hw)


# --- overlaps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (1, 1), (2, 5)])
@pytest.mark.parametrize("function", [geometry.iou, geometry.giou])
def test_every_box_meets_every_box(rng, function, n, m):
    a, b = random_boxes(rng, n, 0.9), random_boxes(rng, m, 0.9)
    found = function(a, b)
    assert found.shape == (n, m)
    assert found.dtype == np.float32
    for i in range(n):
        for j in range(m):
            assert found[i, j] == function(a[i : i + 1], b[j : j + 1])[0, 0]


@pytest.mark.parametrize(
    ("other", "iou", "giou"),
    [
        ([0, 0, 2, 2], 1, 1),
        ([0, 0, 1, 2], 1 / 2, 1 / 2),  # inside
        ([1, 0, 3, 2], 1 / 3, 1 / 3),
        ([1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
        ([2, 0, 4, 2], 0, 0),  # side by side
        ([4, 0, 6, 2], 0, -1 / 3),
        ([1, 1, 1, 1], 0, 0),  # a point
        ([5, 5, 3, 3], 0, -5 / 9),  # turned round, so empty
    ],
)
def test_overlaps_with_a_square(other, iou, giou):
    square, other = array([[0, 0, 2, 2]]), array([other])
    assert geometry.iou(square, other)[0, 0] == pytest.approx(iou, abs=GIOU_ABS)
    assert geometry.giou(square, other)[0, 0] == pytest.approx(giou, abs=GIOU_ABS)


def test_areas():
    assert geometry.area(NONE).shape == (0,)
    boxes = array([[0, 0, 2, 3], [1, 1, 1, 9], [5, 0, 2, 3], [5, 5, 2, 2]])
    assert geometry.area(boxes).tolist() == [6, 0, 0, 0]


@given(odd_boxes(), odd_boxes())
def test_overlaps_are_symmetric_and_in_their_ranges(a, b):
    iou, giou = geometry.iou(a, b), geometry.giou(a, b)
    assert np.array_equal(iou, geometry.iou(b, a).T)
    assert np.array_equal(giou, geometry.giou(b, a).T)
    assert (iou >= 0).all()
    assert (iou <= 1).all()
    assert (giou >= -1 - GIOU_ABS).all()
    assert (giou <= iou + GIOU_ABS).all()


@given(some_boxes(), some_boxes())
def test_iou_is_that_of_float64(a, b):
    expected = [[plain_iou(x, y) for y in b] for x in a]
    assert np.array_equal(geometry.iou(a, b), array(expected).reshape(len(a), len(b)))


@given(some_boxes(min_size=1))
def test_a_box_overlaps_itself_wholly(boxes):
    assert (np.diag(geometry.iou(boxes, boxes)) == 1).all()
    assert (np.diag(geometry.giou(boxes, boxes)) == 1).all()


@given(odd_boxes())
def test_empty_boxes_overlap_nothing_not_even_themselves(boxes):
    empty = np.concatenate([boxes[:, 2:], np.minimum(boxes[:, 2:], boxes[:, :2])], axis=1)
    assert not geometry.area(empty).any()
    assert not geometry.iou(empty, np.concatenate([boxes, empty])).any()


def test_nan_is_not_taken_for_an_empty_box():
    assert np.isnan(geometry.iou(array([[0, 0, np.nan, 1]]), array([[0, 0, 1, 1]]))).all()


# --- nms ------------------------------------------------------------------------------------------

SAME, NEAR, FAR = [0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]


@pytest.mark.parametrize(
    ("boxes", "scores", "threshold", "labels", "expected"),
    [
        ([], [], 0.5, None, []),
        ([], [], 0.5, [], []),
        ([SAME], [0.0], 0.0, None, [0]),
        ([SAME, NEAR, FAR], [0.1, 0.9, 0.5], 0.5, None, [1, 2]),
        ([SAME, NEAR, FAR], [0.1, 0.9, 0.5], 0.5, [0, 1, 0], [1, 2, 0]),
        ([SAME, NEAR, FAR], [0.1, 0.9, 0.5], 0.5, [7, 7, -3], [1, 2]),
        ([SAME, NEAR], [0.9, 0.1], 0.8, None, [0, 1]),  # just at the threshold: it stays
        ([SAME, NEAR], [0.9, 0.1], 0.79, None, [0]),
        ([SAME, SAME, SAME], [0.5, 0.5, 0.5], 0.9, None, [0]),  # the first of equal ones
        ([SAME, SAME], [0.5, 0.9], 1.0, None, [1, 0]),
        ([FAR, SAME, FAR], [0.5, 0.5, 0.5], 0.5, None, [0, 1]),
        ([SAME, FAR, SAME, FAR], [0.5, 0.5, 0.5, 0.5], 0.5, [1, 0, 0, 0], [0, 1, 2]),
        # what is suppressed suppresses nothing itself
        ([[0, 0, 10, 1], [4, 0, 14, 1], [8, 0, 18, 1]], [0.9, 0.8, 0.7], 0.4, None, [0, 2]),
        ([[5, 5, 5, 5], [5, 5, 5, 5]], [0.9, 0.8], 0.0, None, [0, 1]),  # empty boxes
        ([SAME, NEAR], [-3.0, -5.0], 0.5, None, [0]),  # scores may be logits
    ],
)
@pytest.mark.parametrize("road", ROADS)
def test_nms(road, boxes, scores, threshold, labels, expected):
    labels = None if labels is None else np.array(labels, np.intp)
    boxes = array(boxes).reshape(-1, 4)
    found = on_road(road, geometry.nms, boxes, array(scores), threshold, labels)
    assert found.dtype == np.intp
    assert found.tolist() == expected


@given(candidates(), st.sampled_from([0.0, 0.2, 0.25, 1 / 3, 0.5, 0.9, 1.0]), roads)
def test_nms_is_that_of_plain_loops(given_boxes, threshold, road):
    boxes, scores, labels = given_boxes
    found = on_road(road, geometry.nms, boxes, scores, threshold, labels)
    assert found.tolist() == plain_nms(boxes, scores, threshold, labels)


@given(candidates(), st.floats(0, 1), roads)
def test_what_nms_keeps_it_keeps_again(given_boxes, threshold, road):
    boxes, scores, labels = given_boxes
    kept = on_road(road, geometry.nms, boxes, scores, threshold, labels)
    labels = None if labels is None else labels[kept]
    again = on_road(road, geometry.nms, boxes[kept], scores[kept], threshold, labels)
    assert again.tolist() == list(range(len(kept)))


@given(candidates(), st.floats(0, 1), roads)
def test_no_two_boxes_that_nms_keeps_overlap_too_much(given_boxes, threshold, road):
    boxes, scores, labels = given_boxes
    kept = on_road(road, geometry.nms, boxes, scores, threshold, labels)
    rivals = np.triu(np.ones((len(kept), len(kept)), bool), 1)
    if labels is not None:
        rivals &= labels[kept][:, None] == labels[kept]
    overlaps = geometry.iou(boxes[kept], boxes[kept])
    assert (overlaps[rivals] <= np.float32(threshold)).all()


@pytest.mark.parametrize("largest", [0.02, 0.1, 0.6])
def test_many_blocks_of_many_labels_agree_with_plain_loops(rng, largest):
    boxes, scores = random_boxes(rng, 700, largest), rng.random(700).astype(np.float32)
    labels = rng.choice([0, 1, 2, 9], 700, p=[0.7, 0.2, 0.05, 0.05])
    for threshold in (0.1, 0.5):
        found = geometry.nms(boxes, scores, threshold, labels)
        assert found.tolist() == plain_nms(boxes, scores, threshold, labels)


def test_boxes_that_come_again_under_many_labels_are_settled_label_by_label(rng):
    # 250 labels on the same 300 boxes pass the number of pairs from which a table is made.
    distinct, labels = random_boxes(rng, 300), np.repeat(np.arange(250), 300)
    boxes, scores = np.tile(distinct, (250, 1)), rng.random(75_000).astype(np.float32)
    assert geometry._recurring(boxes, labels) is not None
    found = geometry.nms(boxes, scores, 0.4, labels)
    for label in range(250):
        own = labels == label
        expected = np.flatnonzero(own)[geometry.nms(distinct, scores[own], 0.4)]
        assert np.array_equal(found[labels[found] == label], expected)
    assert (np.diff(scores[found]) <= 0).all()


def test_a_table_is_made_only_where_it_is_small_and_saves_work(rng):
    twice = np.tile(random_boxes(rng, 4000), (2, 1))
    one_label, labels = np.zeros(8000, np.intp), np.repeat([0, 1], 4000)
    assert geometry._recurring(twice[:4000], one_label[:4000]) is None  # nothing comes again
    assert geometry._recurring(twice, labels) is None  # too rarely
    distinct, which = geometry._recurring(twice, one_label)
    assert len(distinct) == 4000
    assert np.array_equal(distinct[which], twice)
    large = np.tile(random_boxes(rng, geometry._TABLE_BOXES + 1), (3, 1))
    assert geometry._recurring(large, np.zeros(len(large), np.intp)) is None


# --- soft nms -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "expected", "left"),
    [
        ([], [], None, [], []),
        ([], [], [], [], []),
        ([SAME], [0.3], None, [0], [0.3]),
        ([SAME], [0.25], None, [], []),  # not above the threshold
        ([SAME, FAR], [0.5, 0.9], None, [1, 0], [0.9, 0.5]),
        ([SAME, SAME], [0.9, 0.8], [0, 1], [0, 1], [0.9, 0.8]),
        ([SAME, SAME], [0.9, 0.8], None, [0], [0.9]),  # 0.8 / e^2 is too little
        ([NEAR, SAME, FAR], [0.9, 1.0, 0.5], None, [1, 2, 0], [1, 0.5, 0.9 * np.exp(-1.28)]),
        ([SAME, SAME, SAME], [1, 1, 1], [0, 0, 1], [0, 2], [1, 1]),
        ([SAME, SAME], [-1, -2], None, [], []),
    ],
)
@pytest.mark.parametrize("road", ROADS)
def test_soft_nms(road, boxes, scores, labels, expected, left):
    labels = None if labels is None else np.array(labels, np.intp)
    found, found_scores = on_road(
        road,
        geometry.soft_nms,
        array(boxes).reshape(-1, 4),
        array(scores),
        sigma=0.5,
        score_threshold=0.25,
        label_ids=labels,
    )
    assert (found.dtype, found_scores.dtype) == (np.intp, np.float32)
    assert found.tolist() == expected
    assert found_scores == pytest.approx(array(left), abs=SOFT_SCORE_ABS)


@given(
    candidates(), st.sampled_from([0.05, 0.5, 3.0]), st.sampled_from([0.0, 0.01, 0.1, 0.6]), roads
)
def test_soft_nms_is_that_of_plain_loops(given_boxes, sigma, threshold, road):
    boxes, scores, labels = given_boxes
    found, found_scores = on_road(
        road,
        geometry.soft_nms,
        boxes,
        scores,
        sigma=sigma,
        score_threshold=threshold,
        label_ids=labels,
    )
    assert (np.diff(found_scores) <= 0).all()
    labels = np.zeros(len(scores), int) if labels is None else labels
    left = dict(enumerate(scores.astype(np.float64)))
    # Each choice is replayed in float64: it must be a best one there, but for rounding.
    for i, score in zip(found.tolist(), found_scores.tolist(), strict=True):
        assert score == pytest.approx(left.pop(i), abs=SOFT_SCORE_ABS)
        rivals = [k for k in left if labels[k] == labels[i]]
        assert all(left[k] <= score + SOFT_SCORE_ABS for k in rivals)
        for k in rivals:
            left[k] *= np.exp(-(plain_iou(boxes[i], boxes[k]) ** 2) / sigma)
    assert (found_scores > np.float32(threshold)).all()
    assert all(score <= threshold + SOFT_SCORE_ABS for score in left.values())


@given(candidates(), roads)
def test_soft_nms_that_forgives_nothing_is_nms_at_0(given_boxes, road):
    boxes, scores, labels = given_boxes
    scores = scores + np.float32(0.1)
    found, left = on_road(
        road, geometry.soft_nms, boxes, scores, sigma=1e-6, score_threshold=0.05, label_ids=labels
    )
    kept = on_road(road, geometry.nms, boxes, scores, 0.0, labels)
    assert found.tolist() == kept.tolist()
    assert np.array_equal(left, scores[kept])


def test_soft_nms_of_recurring_boxes_is_that_of_each_label_alone(rng):
    distinct, labels = random_boxes(rng, 300), np.repeat(np.arange(250), 300)
    boxes, scores = np.tile(distinct, (250, 1)), rng.random(75_000).astype(np.float32)
    settings = {"sigma": 0.5, "score_threshold": 0.5}
    found, left = geometry.soft_nms(boxes, scores, **settings, label_ids=labels)
    for label in (0, 100, 249):
        own, here = np.flatnonzero(labels == label), labels[found] == label
        expected, expected_left = geometry.soft_nms(distinct, scores[own], **settings)
        assert np.array_equal(found[here], own[expected])
        assert np.array_equal(left[here], expected_left)


# --- what is refused ------------------------------------------------------------------------------

BOXES, SCORES = array([SAME, NEAR, FAR]), array([0.9, 0.8, 0.7])


def soft(boxes, scores, label_ids=None, sigma=0.5, score_threshold=0.1):
    return geometry.soft_nms(
        boxes, scores, sigma=sigma, score_threshold=score_threshold, label_ids=label_ids
    )


def hard(boxes, scores, label_ids=None):
    return geometry.nms(boxes, scores, 0.5, label_ids)


@pytest.mark.parametrize(
    "function",
    [
        geometry.center_to_corners,
        geometry.corners_to_center,
        geometry.corners_to_xywh,
        geometry.area,
        lambda boxes: geometry.clip(boxes, (2, 2)),
        lambda boxes: geometry.iou(boxes, BOXES),
        lambda boxes: geometry.iou(BOXES, boxes),
        lambda boxes: geometry.giou(boxes, BOXES),
        lambda boxes: geometry.giou(BOXES, boxes),
        lambda boxes: hard(boxes, SCORES),
        lambda boxes: soft(boxes, SCORES),
    ],
)
@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros((3, 5), np.float32),
        np.zeros((4, 3), np.float32),
        np.zeros((), np.float32),
        np.zeros((0,), np.float32),
        np.zeros((3, 4)),
        np.zeros((3, 4), np.intp),
    ],
)
def test_boxes_of_other_shapes_and_types_are_refused(function, boxes):
    given_dtype = rf"boxes must be float32 \[.*, 4\]; given {boxes.dtype} \("
    with pytest.raises(OptionError, match=given_dtype):
        function(boxes)


@pytest.mark.parametrize("function", [geometry.area, lambda b: geometry.iou(b, b)])
@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)])
def test_overlaps_need_one_list_of_boxes(function, shape):
    with pytest.raises(OptionError, match=r"float32 \[N, 4\]; given float32 \("):
        function(np.zeros(shape, np.float32))


@pytest.mark.parametrize("function", [hard, soft])
@pytest.mark.parametrize(
    ("scores", "label_ids", "message"),
    [
        (array([]), None, r"scores must be float32 \[3\]; given float32 \(0,\)"),
        (SCORES[:2], None, r"scores must be float32 \[3\]; given float32 \(2,\)"),
        (SCORES[:, None], None, r"given float32 \(3, 1\)"),
        (SCORES.astype(np.float64), None, "given float64"),
        (SCORES, np.zeros(2, np.intp), r"label_ids must be integers \[3\]; given int64 \(2,\)"),
        (SCORES, np.zeros(3), "given float64"),
        (SCORES, np.zeros(3, bool), "given bool"),
    ],
)
def test_scores_and_labels_that_do_not_fit_are_refused(function, scores, label_ids, message):
    with pytest.raises(OptionError, match=message):
        function(BOXES, scores, label_ids)


@pytest.mark.parametrize("function", [hard, soft])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 3, "score"])
def test_the_first_row_that_is_not_finite_is_named(function, bad, column):
    boxes, scores = BOXES.copy(), SCORES.copy()
    for row in (1, 2):
        if column == "score":
            scores[row] = bad
        else:
            boxes[row, column] = bad
    with pytest.raises(OptionError, match=rf"row 1 is box .*{bad}"):
        function(boxes, scores)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, 50])
@pytest.mark.parametrize("count", [0, 3])
def test_thresholds_outside_0_to_1_are_refused(value, count):
    with pytest.raises(OptionError, match=rf"iou_threshold is {value}; valid: 0 to 1"):
        geometry.nms(BOXES[:count], SCORES[:count], value)
    with pytest.raises(OptionError, match=rf"score_threshold is {value}; valid: 0 to 1"):
        soft(BOXES[:count], SCORES[:count], score_threshold=value)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, 1e-9])
@pytest.mark.parametrize("count", [0, 3])
def test_a_sigma_that_is_no_spread_is_refused(value, count):
    with pytest.raises(OptionError, match=rf"sigma is {value}; valid: 1e-6 to 1e6"):
        soft(BOXES[:count], SCORES[:count], sigma=value)


def test_nothing_given_is_changed():
    boxes, scores, labels = BOXES.copy(), SCORES.copy(), np.array([1, 0, 1])
    for given_array in (boxes, scores, labels):
        given_array.flags.writeable = False
    assert hard(boxes, scores, labels).tolist() == [0, 1, 2]
    assert soft(boxes, scores, labels)[0].tolist() == [0, 1, 2]


# --- transformers ---------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("n", [0, 1, 300])
@pytest.mark.parametrize("unit", [1, 640])
def test_formats_are_those_of_transformers(rng, n, unit):
    import torch
    from transformers.image_transforms import center_to_corners_format, corners_to_center_format

    boxes = random_boxes(rng, n) * np.float32(unit)
    for ours, theirs in (
        (geometry.center_to_corners, center_to_corners_format),
        (geometry.corners_to_center, corners_to_center_format),
    ):
        assert np.array_equal(ours(boxes), theirs(torch.from_numpy(boxes)).numpy())


@pytest.mark.torch
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 2), (1, 1), (300, 200)])
@pytest.mark.parametrize("unit", [1, 640])
@pytest.mark.parametrize("largest", [0.1, 0.9])
def test_overlaps_are_those_of_transformers(rng, n, m, unit, largest):
    import torch
    from transformers.models.owlvit.modeling_owlvit import box_iou, generalized_box_iou

    a, b = (random_boxes(rng, count, largest) * np.float32(unit) for count in (n, m))
    theirs = [torch.from_numpy(boxes) for boxes in (a, b)]
    assert np.array_equal(geometry.iou(a, b), box_iou(*theirs)[0].numpy())
    assert np.array_equal(geometry.giou(a, b), generalized_box_iou(*theirs).numpy())


@pytest.mark.torch
def test_only_what_transformers_calls_nan_differs(rng):
    import torch
    from transformers.models.owlvit.modeling_owlvit import box_iou, generalized_box_iou

    boxes = np.concatenate([random_boxes(rng, 50), array([[0.5, 0.5, 0.5, 0.5]] * 2)])
    boxes = np.concatenate([boxes, array([[0.2, 0.3, 0.2, 0.9], [0.2, 0.3, 0.8, 0.3]])])
    given_boxes = torch.from_numpy(boxes)
    iou, giou = geometry.iou(boxes, boxes), geometry.giou(boxes, boxes)
    their_iou = box_iou(given_boxes, given_boxes)[0].numpy()
    their_giou = generalized_box_iou(given_boxes, given_boxes).numpy()
    nan_iou, nan_giou = np.isnan(their_iou), np.isnan(their_giou)
    assert np.array_equal(iou[~nan_iou], their_iou[~nan_iou])
    assert np.array_equal(giou[~nan_giou], their_giou[~nan_giou])
    assert nan_iou.sum() == 16  # every pair of the four empty boxes
    assert not iou[nan_iou].any()
    assert set(giou[nan_giou].tolist()) == {0, -1}  # -1: apart, with nothing but room between


@pytest.mark.torch
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_nms_is_that_of_image_guided_detection(rng, threshold):
    import torch
    from transformers.models.owlvit.modeling_owlvit import box_iou

    boxes, scores = random_boxes(rng, 200, 0.6), rng.random(200).astype(np.float32)
    corners, left = torch.from_numpy(boxes), torch.from_numpy(scores.copy())
    # The rule of `post_process_image_guided_detection`: from the best score down, what is left
    # puts out all that overlaps it.
    for i in torch.argsort(-left).tolist():
        if left[i]:
            overlaps = box_iou(corners[i : i + 1], corners)[0][0]
            overlaps[i] = -1
            left[overlaps > threshold] = 0
    expected = torch.argsort(-left)[: int((left > 0).sum())].tolist()
    assert geometry.nms(boxes, scores, threshold).tolist() == expected
