"""COCO's mean average precision by pycocotools, with intervals over pictures.

pycocotools matches boxes and gives the number itself. It knows no intervals, and is too slow to
count hundreds of times. So what it matched is counted again here for pictures drawn with
replacement, as `accumulate` of its `COCOeval` counts; a picture that is drawn twice counts twice.
`tests/benchmarks/test_accuracy_boxes.py` shows that both count alike.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt import boxes as geometry
from vlrt.errors import ExtraMissingError

from .dataset_coco import Scenes

BEST = 100  # detections of a picture that count, as COCO has it
RESAMPLES = 200
_SEED = 0
_AT_ONCE = 2_000_000  # numbers in one array
_RECALLS = np.linspace(0, 1, 101)

Float = NDArray[np.float64]
Found = Mapping[str, Any]  # of one picture: boxes [N, 4] in corners, scores [N], labels [N]
# Average precisions [draws, IoU thresholds, categories]; NaN where a draw has none of a category.
Table = Float


@dataclass(frozen=True)
class Matched:
    """What was found of one category, the best score first.

    Attributes:
        pictures: intp [D], where each detection is.
        right: bool [T, D], whether it is an object, for each of T IoU thresholds.
        wrong: bool [T, D], whether it is none; what is neither counts for nothing.
        objects: [pictures], how many there are to be found.
    """

    pictures: NDArray[np.intp]
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    objects: Float


@dataclass(frozen=True)
class Precision:
    """How well a contender detects.

    Attributes:
        whole: float64 [1, T, K], average precisions by pycocotools.
        drawn: float64 [RESAMPLES, T, K], the same of pictures drawn again.
    """

    whole: Table
    drawn: Table


def check_installed() -> None:
    """See that pycocotools is there, before hours are spent on what it is to score.

    Raises:
        ExtraMissingError: it is not.
    """
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ModuleNotFoundError as error:
        raise ExtraMissingError("scoring a detector", "bench", "pycocotools") from error


def precision(dataset: Scenes, found: Sequence[Found]) -> Precision:
    """Score detections.

    Args:
        dataset: the truth.
        found: of each of its pictures, in order.
    """
    evaluation = _evaluated(dataset, found)
    # [IoU threshold 0.5..0.95, recall, category, area, most detections]; -1: no object of it.
    table = evaluation.eval["precision"][:, :, :, 0, 0]
    known = (table > -1).all(axis=(0, 1))
    whole = np.where(known, table.mean(axis=1), np.nan)
    return Precision(whole[None], resampled(matches(evaluation, dataset), _draws(len(dataset))))


def mean(table: Table, labels: Sequence[int] | None, *, threshold: int | None = None) -> Float:
    """The mean average precision of each draw, over the categories of which it has objects.

    Args:
        table: average precisions.
        labels: the categories to count; None for all.
        threshold: which IoU threshold; None for the mean over all of them. The first is 0.5.

    Returns:
        float64 [draws]; NaN where a draw has no object of these categories.
    """
    chosen = table if labels is None else table[:, :, list(labels)]
    chosen = chosen if threshold is None else chosen[:, [threshold]]
    known = ~np.isnan(chosen)
    numbers = known.sum(axis=(1, 2))
    sums = np.where(known, chosen, 0).sum(axis=(1, 2))
    means: Float = np.divide(sums, numbers, out=np.full(len(sums), np.nan), where=numbers > 0)
    return means


def _draws(pictures: int) -> NDArray[np.int64]:
    """How often each picture is in each draw, [RESAMPLES, pictures]; the same for everyone."""
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=RESAMPLES)


def _evaluated(dataset: Scenes, found: Sequence[Found]) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth, results = COCO(), COCO()
        shared = {
            "images": [{"id": number} for number in range(len(dataset))],
            "categories": [{"id": number} for number in range(len(dataset.labels))],
        }
        truth.dataset = {**shared, "annotations": _truth(dataset)}
        results.dataset = {**shared, "annotations": _results(found)}
        truth.createIndex()
        results.createIndex()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [BEST]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _truth(dataset: Scenes) -> list[dict[str, Any]]:
    """The objects as annotations. Ids begin with 1: to pycocotools, 0 means no object."""
    pairs = [(at, thing) for at, things in enumerate(dataset.things) for thing in things]
    return [
        {
            "id": number,
            "image_id": at,
            "category_id": thing.label,
            "bbox": list(thing.box),
            "area": thing.area,
            "iscrowd": int(thing.crowd),
        }
        for number, (at, thing) in enumerate(pairs, start=1)
    ]


def _results(found: Sequence[Found]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for at, one in enumerate(found):
        corners = np.asarray(one["boxes"], np.float32).reshape(-1, 4)
        boxes = geometry.corners_to_xywh(corners).astype(np.float64)
        for box, score, label in zip(boxes.tolist(), one["scores"], one["labels"], strict=True):
            area = box[2] * box[3]
            row = {"image_id": at, "category_id": label, "bbox": box, "score": score, "area": area}
            rows.append({"id": len(rows) + 1, "iscrowd": 0, **row})
    return rows


def matches(evaluation: Any, dataset: Scenes) -> list[Matched | None]:
    """What pycocotools matched, by category; None for one that is neither there nor found."""
    pictures = len(dataset)
    found: list[Matched | None] = []
    for category in range(len(dataset.labels)):
        each = evaluation.evalImgs[category * pictures : (category + 1) * pictures]
        there = [one for one in each if one is not None]
        if not there:
            found.append(None)
            continue
        objects = np.zeros(pictures)
        for one in there:
            objects[one["image_id"]] = np.count_nonzero(one["gtIgnore"] == 0)
        scores = np.concatenate([one["dtScores"] for one in there])
        order = np.argsort(-scores, kind="mergesort")
        of = np.concatenate([np.full(len(o["dtScores"]), o["image_id"], np.intp) for o in there])
        hit = np.concatenate([one["dtMatches"] for one in there], axis=1)[:, order] > 0
        ignored = np.concatenate([one["dtIgnore"] for one in there], axis=1)[:, order] > 0
        found.append(Matched(of[order], hit & ~ignored, ~hit & ~ignored, objects))
    return found


def resampled(matched: Sequence[Matched | None], draws: NDArray[np.int64]) -> Table:
    """Average precisions where each picture counts as often as it was drawn.

    Args:
        matched: by category.
        draws: [draws, pictures].

    Returns:
        float64 [draws, T, K].
    """
    thresholds = next((len(one.right) for one in matched if one is not None), 1)
    table = np.full((len(draws), thresholds, len(matched)), np.nan)
    for category, one in enumerate(matched):
        if one is None:
            continue
        step = max(1, _AT_ONCE // max(1, one.right.size))
        for start in range(0, len(draws), step):
            block = slice(start, start + step)
            table[block, :, category] = _average_precisions(one, draws[block])
    return table


def _average_precisions(one: Matched, draws: NDArray[np.int64]) -> Float:
    """Of one category, float64 [draws, T]."""
    objects = draws @ one.objects
    times = draws[:, None, one.pictures]
    right = np.cumsum(one.right * times, axis=2, dtype=float)
    wrong = np.cumsum(one.wrong * times, axis=2, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw without one of its objects
        recall = right / objects[:, None, None]
    exact = right / (right + wrong + np.spacing(1))
    # The precision at a recall is the best at that recall or a higher one; beyond the highest, 0.
    best = np.maximum.accumulate(exact[..., ::-1], axis=2)[..., ::-1]
    best = np.concatenate([best, np.zeros((*best.shape[:2], 1))], axis=2)
    found = np.full(right.shape[:2], np.nan)
    for draw in np.flatnonzero(objects > 0):
        for threshold in range(right.shape[1]):
            at = np.searchsorted(recall[draw, threshold], _RECALLS, side="left")
            found[draw, threshold] = best[draw, threshold, at].mean()
    return found
