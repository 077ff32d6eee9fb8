"""Mean average precision: that what is counted again here is what pycocotools counts."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from vlrt_benchmarks import accuracy_boxes
from vlrt_benchmarks.dataset_coco import Scenes, Thing

NOTHING = {"boxes": [], "scores": [], "labels": []}


def dataset(things, labels=("a", "b", "c")):
    number = len(things)
    return Scenes(
        Path("x.json"),
        tuple(Path(f"{i}.png") for i in range(number)),
        ((100, 100),) * number,
        tuple(tuple(of_one) for of_one in things),
        labels,
    )


def thing(label, x, y, width=20, height=20, *, crowd=False):
    return Thing(label, (x, y, width, height), width * height, crowd)


def random_case(seed, pictures=12):
    """Objects, and detections of which some are near an object and some are not."""
    rng = np.random.default_rng(seed)
    things, found = [], []
    for _ in range(pictures):
        own = [
            thing(int(rng.integers(2)), *rng.uniform(0, 60, 2), *rng.uniform(10, 40, 2),
                  crowd=bool(rng.random() < 0.1))
            for _ in range(rng.integers(4))
        ]  # fmt: skip
        boxes = [
            [x + dx, y + dy, x + w + dx, y + h]
            for (x, y, w, h) in (one.box for one in own)
            for dx, dy in rng.normal(0, 3, (2, 2))
        ] + [[5, 5, 30, 30]]
        number = len(boxes)
        # Ties between pictures; in one, copies of it would mix what has the same score.
        scores = np.sort(rng.permutation(10)[:number] / 10)[::-1]
        labels = rng.integers(0, 3, number)
        things.append(own)
        found.append({"boxes": boxes, "scores": scores.tolist(), "labels": labels.tolist()})
    return things, found


def repeated(things, found, draw):
    """The same with each picture as often as it was drawn."""
    at = np.repeat(np.arange(len(things)), draw)
    return [things[i] for i in at], [found[i] for i in at]


def test_what_is_perfect_is_1_and_what_is_not_there_is_0():
    truth = dataset([[thing(0, 10, 10)], [thing(1, 30, 30)]])
    right = [
        {"boxes": [[10, 10, 30, 30]], "scores": [0.9], "labels": [0]},
        {"boxes": [[30, 30, 50, 50]], "scores": [0.8], "labels": [1]},
    ]
    perfect = accuracy_boxes.precision(truth, right)
    assert accuracy_boxes.mean(perfect.whole, None) == pytest.approx([1])
    assert accuracy_boxes.mean(perfect.drawn, None) == pytest.approx(np.ones(200))
    nothing = accuracy_boxes.precision(truth, [NOTHING, NOTHING])
    assert accuracy_boxes.mean(nothing.whole, None) == [0]
    half = accuracy_boxes.precision(truth, [right[0], NOTHING])
    assert accuracy_boxes.mean(half.whole, None) == pytest.approx([0.5])
    assert accuracy_boxes.mean(half.whole, [0]) == pytest.approx([1])
    assert np.ptp(accuracy_boxes.mean(half.drawn, None)) == pytest.approx(
        1
    )  # one or the other alone


def test_a_higher_overlap_counts_for_more_thresholds():
    truth = dataset([[thing(0, 0, 0, 10, 10)]])
    # An IoU of 0.72, which counts as an object at 0.5, 0.55, 0.6, 0.65 and 0.7.
    found = [{"boxes": [[0, 0, 10, 7.2]], "scores": [1.0], "labels": [0]}]
    table = accuracy_boxes.precision(truth, found).whole
    assert accuracy_boxes.mean(table, None, threshold=0) == pytest.approx([1])
    assert accuracy_boxes.mean(table, None) == pytest.approx([0.5])


@pytest.mark.parametrize("seed", range(6))
def test_counting_again_is_counting_as_pycocotools_does(seed):
    things, found = random_case(seed)
    truth = dataset(things)
    evaluation = accuracy_boxes._evaluated(truth, found)
    matched = accuracy_boxes.matches(evaluation, truth)
    # Once each; then drawn again, against pycocotools on that many copies of each picture.
    rng = np.random.default_rng(seed)
    draws = np.stack([np.ones(12, int), *rng.multinomial(12, [1 / 12] * 12, size=3)])
    table = accuracy_boxes.resampled(matched, draws)
    for row, draw in zip(table, draws, strict=True):
        again, found_again = repeated(things, found, draw)
        expected = accuracy_boxes.precision(dataset(again), found_again).whole[0]
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_crowds_count_for_nothing():
    crowd = dataset([[thing(0, 0, 0, 50, 50, crowd=True), thing(0, 60, 60)]])
    found = [{"boxes": [[0, 0, 25, 25], [60, 60, 80, 80]], "scores": [0.9, 0.8], "labels": [0, 0]}]
    assert accuracy_boxes.mean(accuracy_boxes.precision(crowd, found).whole, None) == pytest.approx(
        [1]
    )


def test_categories_without_objects_are_left_out():
    found = accuracy_boxes.precision(dataset([[thing(0, 0, 0)], []]), [NOTHING] * 2)
    assert np.isnan(found.whole[..., 1:]).all()
    assert accuracy_boxes.mean(found.whole, [0, 1]) == [0]
    assert np.isnan(accuracy_boxes.mean(found.whole, [1, 2])).all()
    # Of two pictures drawn again, it is the one without objects twice in a quarter of the draws.
    unknown = np.isnan(accuracy_boxes.mean(found.drawn, None))
    assert 0.1 < unknown.mean() < 0.4
