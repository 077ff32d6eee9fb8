"""Post-processing of detectors: against plain loops, against transformers, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ids import told
from owl import torch_model
from tolerances import ALPHA_ABS, CLASS_LOGITS_ABS, MATHS_ABS

from vlrt import boxes as geometry
from vlrt.detection import (
    WHOLE,
    Options,
    checked_box,
    class_logits,
    example_place,
    guided,
    limits,
    select,
)
from vlrt.errors import OptionError
from vlrt.ops import sigmoid


def array(values, dtype=np.float32):
    return np.array(values, dtype)


def random_boxes(rng, number, *, largest=0.6):
    """(centre x, centre y, width, height) in 0..1, some of them the same."""
    boxes = np.concatenate(
        [rng.uniform(0.1, 0.9, (number, 2)), rng.uniform(0.05, largest, (number, 2))], axis=1
    ).astype(np.float32)
    boxes[number // 2 : number // 2 + 3] = boxes[:1]
    return boxes


# --- logits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("places", "queries"), [(0, 0), (0, 3), (4, 0), (1, 1), (5, 3)])
def test_logits_are_shifted_and_scaled_cosines(rng, places, queries):
    embeds = rng.normal(0, 7, (places, 6)).astype(np.float32)
    asked = rng.normal(0, 3, (queries, 6)).astype(np.float32)
    shift, scale = (rng.normal(0, 1, places).astype(np.float32) for _ in range(2))
    found = class_logits(embeds, shift, scale, asked)
    assert found.shape == (places, queries)
    assert found.dtype == np.float32
    for p in range(places):
        for q in range(queries):
            c, t = embeds[p].astype(np.float64), asked[q].astype(np.float64)
            cosine = c @ t / (np.linalg.norm(c) + 1e-6) / (np.linalg.norm(t) + 1e-6)
            assert found[p, q] == pytest.approx((cosine + shift[p]) * scale[p], abs=10 * MATHS_ABS)


def test_a_place_of_zeros_is_like_nothing():
    one = array([1])
    assert class_logits(array([[0, 0]]), 0 * one, one, array([[3, 4]])).tolist() == [[0.0]]


# --- select ---------------------------------------------------------------------------------------


def plainly(logits, boxes, least, options):
    """`select` in plain loops: (score, place, label), best first."""
    found = []
    for place, row in enumerate(logits):
        best = max(range(len(row)), key=lambda n: (row[n], -n))
        found += [
            (float(sigmoid(row[n : n + 1])[0]), place, n)
            for n in range(len(row))
            if options.multi_label or n == best
        ]
    found = [entry for entry in found if entry[0] > least[entry[2]]]
    # Equal scores: transformers goes label by label where a place may have several.
    found.sort(key=lambda e: (-e[0], e[2], e[1]) if options.multi_label else (-e[0], e[1]))
    kept = []
    for score, place, label in found:
        if options.iou_threshold is not None and any(
            (options.class_agnostic or other == label)
            and geometry.iou(boxes[before][None], boxes[place][None])[0, 0] > options.iou_threshold
            for _, before, other in kept
        ):
            continue
        kept.append((score, place, label))
    return kept[: options.top_k]


@st.composite
def candidates(draw):
    places, labels = draw(st.integers(0, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.normal(0, 2, (places, labels)).astype(np.float32)
    if draw(st.booleans()):
        logits = logits.round()  # ties
    corners = geometry.center_to_corners(random_boxes(rng, places)) * array([64, 48, 64, 48])
    least = rng.choice(array([0, 0.1, 0.5, 0.9, 1]), labels)
    overlap = draw(st.sampled_from([None, 0, 0.3, 0.7, 1]))
    options = Options(
        iou_threshold=overlap,
        class_agnostic=overlap is not None and draw(st.booleans()),
        multi_label=draw(st.booleans()),
        top_k=draw(st.sampled_from([None, 1, 3, 99])),
    )
    return logits, corners, least, options


@given(candidates())
def test_what_is_selected_is_what_plain_loops_select(given_):
    logits, boxes, least, options = given_
    found = select(logits, boxes, least, options)
    expected = plainly(logits, boxes, least, options)
    assert found.scores.tolist() == [score for score, _, _ in expected]
    assert found.label_ids.tolist() == [label for _, _, label in expected]
    assert np.array_equal(found.boxes, boxes[[place for _, place, _ in expected]].reshape(-1, 4))
    assert (found.boxes.dtype, found.scores.dtype, found.label_ids.dtype) == (
        np.float32,
        np.float32,
        np.intp,
    )


@given(candidates(), st.sampled_from([0.01, 0.5, 10.0]), st.booleans())
def test_soft_suppression_lowers_scores_and_drops_what_falls_under_its_limit(
    given_, sigma, class_agnostic
):
    logits, boxes, least, _ = given_
    hard = select(logits, boxes, least, Options(multi_label=True))
    soft = select(
        logits,
        boxes,
        least,
        Options(multi_label=True, soft_nms=sigma, class_agnostic=class_agnostic),
    )
    before = {(*box, n): s for box, s, n in zip(hard.boxes.tolist(), hard.scores, hard.label_ids,
                                                strict=True)}  # fmt: skip
    rows = zip(soft.boxes.tolist(), soft.scores, soft.label_ids, strict=True)
    assert all(least[n] < s <= 1 and (*box, n) in before for box, s, n in rows)
    assert (np.diff(soft.scores) <= 0).all()
    assert soft.scores[:1].tolist() == hard.scores[:1].tolist()  # the best one keeps its score


def test_a_score_at_the_threshold_is_not_above_it():
    logits, boxes = array([[0.0]]), array([[0, 0, 1, 1]])
    assert len(select(logits, boxes, array([0.5]), Options()).scores) == 0
    assert len(select(logits, boxes, array([np.nextafter(np.float32(0.5), 0)]), Options()).scores)


def test_the_best_label_of_a_place_is_held_against_its_own_limit():
    logits, boxes = array([[2, 1]]), array([[0, 0, 1, 1]])
    assert len(select(logits, boxes, array([0.99, 0.1]), Options()).scores) == 0
    every = select(logits, boxes, array([0.99, 0.1]), Options(multi_label=True))
    assert every.label_ids.tolist() == [1]


# --- options --------------------------------------------------------------------------------------

NO_UNIT = [-0.1, 1.1, math.nan, math.inf, "0.5", None, True, [0.5], 1j]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        *(({"iou_threshold": bad}, "iou_threshold is") for bad in NO_UNIT if bad is not None),
        *(({"soft_nms": bad}, "soft_nms is") for bad in (0, -1, math.nan, math.inf, "0.5", True)),
        *(({"top_k": bad}, "top_k is") for bad in (0, -1, 1.5, math.nan, "3", True)),
        ({"soft_nms": 0.5, "iou_threshold": 0.5}, "give one of them"),
        ({"class_agnostic": True}, "no effect"),
    ],
    ids=told,
)
def test_a_bad_option_is_named(options, says):
    with pytest.raises(OptionError, match=says):
        Options(**options)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0, [0, 0]),
        (0.25, [0.25, 0.25]),
        (np.float32(0.5), [0.5, 0.5]),
        ([0.25, 1], [0.25, 1]),
        (np.array([0.25, 0.75]), [0.25, 0.75]),
        (np.array(0.5), [0.5, 0.5]),
        ({"dog": 0.25, "cat": 0.75}, [0.75, 0.25]),
    ],
)
def test_every_label_has_its_limit(threshold, expected):
    found = limits(threshold, ["cat", "dog"])
    assert found.dtype == np.float32
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("threshold", "says"),
    [
        *((bad, "threshold is") for bad in NO_UNIT if bad != [0.5]),
        *(([0.5, bad], "threshold is") for bad in NO_UNIT),
        ([], "0 numbers for 2 labels"),
        ([0.5], "1 numbers for 2 labels"),
        (np.full(3, 0.5), "3 numbers for 2 labels"),
        ({}, r"no entry for \['cat', 'dog'\]"),
        ({"cat": 0.5}, r"no entry for \['dog'\]"),
        ({"cat": 0.5, "dog": 0.5, "cow": 0.5}, r"\['cow'\], not among the labels"),
        ({"cat": 0.5, "dog": 2}, "threshold is 2"),
    ],
    ids=told,
)
def test_a_bad_threshold_is_named(threshold, says):
    with pytest.raises(OptionError, match=says):
        limits(threshold, ["cat", "dog"])


@pytest.mark.parametrize("box", [(0, 0, 1, 1), [-5, 2.5, 90, 9], np.array([63, 47, 64, 48])])
def test_a_box_in_the_picture_is_taken(box):
    assert checked_box(box, (48, 64)).tolist() == list(box)


@pytest.mark.parametrize(
    "box",
    [
        [], (1, 2, 3), (1, 2, 3, 4, 5), [[1, 2, 3, 4]], "1,2,3,4", 7, (1, 2, None, 4), ("a",) * 4,
        (5, 2, 5, 9), (9, 2, 5, 9), (5, 9, 8, 2), (64, 0, 70, 9), (0, 48, 9, 60), (-9, 0, 0, 9),
        (0, 0, math.nan, 9), (0, 0, math.inf, 9), (0, 0, 1e300, 9), (0, 0, 10**400, 9),
        ("1", "2", "3", "4"), (True, False, True, True), [(0, 0), (1,)], iter([0, 0, 1, 1]),
    ],
    ids=told,
)  # fmt: skip
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(OptionError, match=r"valid: .* 64x48"):
        checked_box(box, (48, 64))


# --- by example -----------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [None, 0.3, 1.0])
def test_nothing_looks_like_an_example_where_there_is_nothing(overlap):
    options = Options(iou_threshold=overlap)
    places, alphas = guided(np.empty((0, 4), np.float32), array([]), 0.0, options)
    assert (places.tolist(), alphas.tolist()) == ([], [])
    places, _ = guided(array([[0, 0, 1, 1]]), array([0]), 0.0, options)
    assert places.tolist() == []


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.2, 0.9, 1.0]), st.sampled_from([0, 0.3, 1]))
def test_guided_is_what_plain_loops_give(seed, threshold, overlap):
    rng = np.random.default_rng(seed)
    boxes = geometry.center_to_corners(random_boxes(rng, 12))
    scores = rng.uniform(0, 1, 12).astype(np.float32) ** 2
    kept = []
    for place in sorted(range(12), key=lambda n: -scores[n]):
        if all(geometry.iou(boxes[[n]], boxes[[place]])[0, 0] <= overlap for n in kept):
            kept.append(place)
    kept = [n for n in kept if scores[n] >= threshold]
    best = float(scores.max()) + 1e-6
    expected = {n: (float(scores[n]) - 0.1 * best) / (0.9 * best) for n in kept}
    places, alphas = guided(boxes, scores, threshold, Options(iou_threshold=overlap))
    assert places.tolist() == [n for n in kept if expected[n] > 0]
    assert alphas == pytest.approx([expected[n] for n in places], abs=ALPHA_ABS)
    few, _ = guided(boxes, scores, threshold, Options(iou_threshold=overlap, top_k=2))
    assert few.tolist() == places[:2].tolist()


def test_the_object_of_an_example_is_the_large_box_least_like_the_average():
    boxes = array([[0, 0, 1, 1], [0, 0, 1, 0.9], [0, 0, 0.9, 1], [0.4, 0.4, 0.6, 0.6]])
    embeds = array([[1, 0], [0.5, 0], [1, 0], [-9, 0]])  # on average below 0
    assert example_place(embeds, boxes, WHOLE) == 0  # the first of two that are alike
    assert example_place(-embeds, boxes, WHOLE) == 0
    assert example_place(embeds * array([[1, 1], [3, 1], [1, 1], [1, 1]]), boxes, WHOLE) == 1
    assert example_place(embeds, boxes, array([0.45, 0.45, 0.55, 0.55])) == 3


def test_boxes_that_all_lie_away_show_nothing():
    embeds = array([[1, 0], [0, 1]])
    boxes = array([[0, 0, 1, 1], [5, 5, 6, 6]])
    assert example_place(embeds, boxes, array([2, 2, 3, 3])) is None
    flat = array([[0.5, 0.2, 0.5, 0.4], [0.5, -1, 0.5, 2]])  # no area: one inside, one sticks out
    assert example_place(embeds, flat, WHOLE) == 0
    assert example_place(embeds[1:], flat[1:], WHOLE) is None


# --- transformers ---------------------------------------------------------------------------------


def reference():
    """transformers' OWL-ViT image processor, and tensors of a random picture, ties included."""
    from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

    return OwlViTImageProcessorPil()


def outputs(**arrays):
    import torch

    class Outputs:
        pass

    made = Outputs()
    for name, value in arrays.items():
        setattr(made, name, torch.from_numpy(value[None].copy()))
    return made


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.6, 0.99])
@pytest.mark.parametrize(("places", "labels", "size_hw"), [(1, 1, (1, 1)), (64, 7, (48, 640))])
def test_detection_is_that_of_transformers(seed, threshold, places, labels, size_hw):
    pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, (places, labels)).astype(np.float32)
    logits[::3] = logits[::3].round()
    pred = random_boxes(rng, places)
    (expected,) = reference().post_process_object_detection(
        outputs(logits=logits, pred_boxes=pred), threshold=threshold, target_sizes=[size_hw]
    )
    order = np.argsort(-expected["scores"].numpy(), kind="stable")
    height, width = size_hw
    boxes = geometry.center_to_corners(pred) * array([width, height, width, height])
    found = select(logits, boxes, limits(threshold, range(labels)), Options())
    # A score may differ in its last bit, which can swap neighbours that are equal in the other.
    assert found.scores == pytest.approx(expected["scores"].numpy()[order], abs=MATHS_ABS)
    assert found.label_ids.tolist() == expected["labels"].numpy()[order].tolist()
    assert np.array_equal(found.boxes, expected["boxes"].numpy()[order])


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("places", "examples"), [(1, 1), (40, 1), (40, 3)])
def test_detection_by_example_is_that_of_transformers(seed, threshold, overlap, places, examples):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (places, examples)).astype(np.float32)
    pred = random_boxes(rng, places)
    (expected,) = reference().post_process_image_guided_detection(
        outputs(logits=logits, target_pred_boxes=pred),
        threshold=threshold,
        nms_threshold=overlap,
        target_sizes=torch.tensor([[48, 640]]),
    )
    corners = geometry.center_to_corners(pred)
    scores = sigmoid(logits.max(axis=1))
    places, alphas = guided(corners, scores, threshold, Options(iou_threshold=overlap))
    boxes = corners[places] * array([640, 48, 640, 48])
    by_place = np.argsort(places)  # transformers leaves them in the order of the places
    assert alphas[by_place] == pytest.approx(expected["scores"].numpy(), abs=ALPHA_ABS)
    assert np.array_equal(boxes[by_place], expected["boxes"].numpy())
    assert (np.diff(scores[places]) <= 0).all()


@pytest.mark.torch
def test_logits_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    head = torch_model("OwlViT").class_head
    features, asked = torch.randn(1, 36, 16), torch.randn(1, 5, 16)
    with torch.no_grad():
        expected = head(features, asked, None)[0][0].numpy()
        embeds = head(features, None, None)[1][0].numpy()
        shift = head.logit_shift(features)[0, :, 0].numpy()
        scale = (head.elu(head.logit_scale(features)) + 1)[0, :, 0].numpy()
    found = class_logits(embeds, shift, scale, asked[0].numpy())
    assert np.abs(found - expected).max() <= CLASS_LOGITS_ABS


@pytest.mark.torch
@pytest.mark.parametrize(
    ("shift_wh", "is_found"),
    [
        ((0, 0), True),
        ((3, 3), True),
        ((-300, -300), True),  # no box has an area: the generalised IoU decides, and all have 0
        ((-300, 2.5), True),  # it decides, and those that stick out of the picture are below 0
        ((-300, 90), False),  # it decides, and every box sticks out
    ],
)
def test_the_object_of_an_example_is_that_of_transformers(shift_wh, is_found):
    torch = pytest.importorskip("torch")
    model = torch_model("OwlViT")
    with torch.no_grad():
        model.box_head.dense2.bias[2:] = torch.tensor(shift_wh, dtype=torch.float32)
        features = torch.randn(6, 36, 16)
        grids = features.reshape(6, 6, 6, 16)
        _, expected, pred = model.embed_image_query(features, grids)
        embeds = model.class_predictor(features)[1].numpy()
    corners = geometry.center_to_corners(pred.numpy())
    found = [example_place(embeds[n], corners[n], WHOLE) for n in range(6)]
    no_overlap = [not geometry.iou(WHOLE[None], corners[n]).any() for n in range(6)]
    assert all(flat == (shift_wh[0] == -300) for flat in no_overlap)
    if is_found:
        assert found == expected.flatten().tolist()
    else:
        assert expected is None
        assert found == [None] * 6
