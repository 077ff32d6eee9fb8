"""From answers to the rows of a result: every measure, of every group, with its interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt import boxes as geometry

from . import accuracy_boxes, stats, vqa
from .accuracy_boxes import Precision
from .dataset_captions import Captions
from .dataset_coco import Scenes
from .dataset_imagenet import Classes
from .dataset_vqa import Questions
from .datasets import Dataset
from .stats import Estimate

ALL = "all"
Values = Mapping[str, Sequence[float]]  # measure -> a number for each of its items
Row = dict[str, Any]

_TOPS = (1, 5)
_RECALLS = (1, 5, 10)
# What `vlrt.detect` reports by default is an object; if these are fewer than the pictures, because
# they do not suit the weights, the best of each picture are.
_SCORE, _PLACES = 0.1, 10
_IOU = 0.75
_THRESHOLDS: dict[str, int | None] = {"mAP": None, "mAP50": 0}


@dataclass(frozen=True)
class Counted:
    """What was counted.

    Attributes:
        rows: a number each, as the document has them.
        items: by contender and measure, a number for each item, where a measure is their mean.
        positions: of each group but all, its items.
        pictures: by measure, the picture of each item, where several items share one.
    """

    rows: list[Row]
    items: dict[str, dict[str, list[float]]]
    positions: dict[str, list[int]]
    pictures: dict[str, list[int]]


def count(dataset: Dataset, answers: Mapping[str, Sequence[Any]], base: str) -> Counted:
    """Count every measure of every contender.

    Args:
        dataset: the truth.
        answers: by contender, as `accuracy_answers.Asker.answers` gives them.
        base: the contender that the others are compared with.
    """
    items: dict[str, dict[str, list[float]]] = {}
    for name, said in answers.items():
        values = dict(_values(dataset, said))
        if name != base:
            values[same_as(base)] = _same(dataset, said, answers[base])
        items[name] = {measure: list(map(float, numbers)) for measure, numbers in values.items()}
    rows = []
    if isinstance(dataset, Scenes):
        rows += _precision_rows(dataset, answers, base)
    pictures = {
        measure: shared
        for values in items.values()
        for measure, numbers in values.items()
        if (shared := _pictures(dataset, len(numbers)))
    }
    groups = _groups(dataset)
    rows += _mean_rows(items, groups, pictures, base)
    return Counted(rows, items, groups, pictures)


def same_as(base: str) -> str:
    """The measure that holds on any weights: how often the answer is the base's."""
    return f"same answer as {base}"


# --- means over items -----------------------------------------------------------------------------


def _values(dataset: Dataset, said: Sequence[Any]) -> Values:
    if isinstance(dataset, Classes):
        tops = [k for k in _TOPS if k < len(dataset.labels)]
        pairs = list(zip(dataset.truth, said, strict=True))
        return {f"top-{k}": [float(truth in best[:k]) for truth, best in pairs] for k in tops}
    if isinstance(dataset, Questions):
        pairs_ = zip(said, dataset.answers, strict=True)
        return {"VQA accuracy": [vqa.accuracy(answer, people) for answer, people in pairs_]}
    if isinstance(dataset, Captions):
        return retrieval(np.stack(said), dataset.owners)
    return {}


def retrieval(similarities: NDArray[np.floating], owners: Sequence[int]) -> Values:
    """Recall of captions by pictures and of pictures by captions.

    Args:
        similarities: [pictures, captions].
        owners: the picture of each caption.

    Returns:
        For each picture whether a caption of its own is among the best k, and for each caption
        whether its picture is; where there are more than k to choose from. A tie counts as lost.
    """
    own = np.arange(len(similarities))[:, None] == np.asarray(owners)
    best_own = np.where(own, similarities, -np.inf).max(axis=1, keepdims=True)
    before = ((similarities >= best_own) & ~own).sum(axis=1)
    of_own = similarities[np.asarray(owners), np.arange(len(owners))]
    others = ((similarities >= of_own) & ~own).sum(axis=0)
    ranks = {
        "image to text": (before, similarities.shape[1]),
        "text to image": (others, similarities.shape[0]),
    }
    return {
        f"recall@{k} {way}": (rank < k).astype(float).tolist()
        for way, (rank, choices) in ranks.items()
        for k in _RECALLS
        if k < choices
    }


def _same(dataset: Dataset, said: Sequence[Any], base: Sequence[Any]) -> list[float]:
    """Of each item, whether the answer is the base's; of scenes, how many of its objects are."""
    if isinstance(dataset, Scenes):
        return found_again(said, base)
    first: Callable[[Any], Any] = (
        (lambda answer: answer) if isinstance(dataset, Questions) else _best
    )
    return [float(first(one) == first(other)) for one, other in zip(said, base, strict=True)]


def _best(answer: Any) -> int:
    """The first of the best labels; or of similarities, the caption with the highest."""
    return int(answer[0]) if isinstance(answer, list) else int(np.argmax(answer))


def found_again(said: Sequence[Any], base: Sequence[Any]) -> list[float]:
    """Of each picture in which the base finds objects, the share that another finds too.

    Found again is an object of the same label with an IoU of 0.75 or more.

    Args:
        said, base: detections of each picture, the best score first.
    """
    scores = [np.asarray(one["scores"], np.float32) for one in base]
    sure = sum(int((of_one > _SCORE).sum()) for of_one in scores) >= len(base)
    shares = []
    for one, other in zip(said, base, strict=True):
        theirs = _objects(other, sure=sure)
        if len(theirs["labels"]):
            shares.append(float(_hits(_objects(one, sure=sure), theirs).mean()))
    return shares


def _objects(found: Mapping[str, Any], *, sure: bool) -> dict[str, NDArray[Any]]:
    """The detections that are objects: by their score, or the best ones."""
    scores = np.asarray(found["scores"], np.float32)
    number = int((scores > _SCORE).sum()) if sure else _PLACES
    boxes = np.asarray(found["boxes"], np.float32).reshape(-1, 4)
    return {"boxes": boxes[:number], "labels": np.asarray(found["labels"], np.intp)[:number]}


def _hits(
    ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]
) -> NDArray[np.bool_]:
    """Which of their objects are among ours."""
    close = geometry.iou(theirs["boxes"], ours["boxes"]) >= _IOU
    alike = theirs["labels"][:, None] == ours["labels"]
    hits: NDArray[np.bool_] = (close & alike).any(axis=1)
    return hits


def _mean_rows(
    items: Mapping[str, Mapping[str, Sequence[float]]],
    groups: Mapping[str, Sequence[int]],
    pictures: Mapping[str, Sequence[int]],
    base: str,
) -> list[Row]:
    rows = []
    for name, values in items.items():
        for measure, numbers in values.items():
            everything: dict[str, Sequence[int]] = {ALL: range(len(numbers)), **groups}
            for group, positions in everything.items():
                if not positions:
                    continue
                mine = [numbers[i] for i in positions]
                shared = pictures.get(measure)
                clusters = [shared[i] for i in positions] if shared else None
                difference = None
                if name != base and measure in items[base]:
                    theirs = [items[base][measure][i] for i in positions]
                    difference = stats.mean_difference(mine, theirs, clusters)
                rows.append(_row(name, group, measure, stats.mean(mine, clusters), difference))
    return rows


def _groups(dataset: Dataset) -> dict[str, list[int]]:
    """The items of each group, of datasets whose groups are of items; those with none left out."""
    groups: dict[str, list[int]] = {}
    if isinstance(dataset, Classes):
        for name, labels in dataset.groups.items():
            wanted = set(labels)
            groups[name] = [i for i, truth in enumerate(dataset.truth) if truth in wanted]
    elif isinstance(dataset, Questions):
        groups = {name: list(members) for name, members in dataset.groups.items()}
    return {name: positions for name, positions in groups.items() if positions}


def _pictures(dataset: Dataset, number: int) -> list[int] | None:
    """The picture of each of so many items; None where none share one."""
    own: Sequence[Any] = range(number)
    if isinstance(dataset, Questions):
        own = dataset.pictures
    elif isinstance(dataset, Captions) and number == len(dataset.owners):  # by caption
        own = dataset.owners
    first = {picture: position for position, picture in enumerate(dict.fromkeys(own))}
    return [first[picture] for picture in own] if len(first) < number else None


# --- mean average precision -----------------------------------------------------------------------


def _precision_rows(dataset: Scenes, answers: Mapping[str, Sequence[Any]], base: str) -> list[Row]:
    found = {name: accuracy_boxes.precision(dataset, said) for name, said in answers.items()}
    groups: dict[str, Sequence[int] | None] = {ALL: None, **dataset.groups}
    rows = []
    for name, precision in found.items():
        for group, labels in groups.items():
            for measure, threshold in _THRESHOLDS.items():
                mine = _over_draws(precision, labels, threshold)
                if np.isnan(mine[0]):  # there is no object of the group to find
                    continue
                difference = None
                if name != base:
                    theirs = _over_draws(found[base], labels, threshold)
                    difference = _interval(mine[0] - theirs[0], mine[1] - theirs[1], -1.0)
                rows.append(_row(name, group, measure, _interval(*mine, 0.0), difference))
    return rows


def _over_draws(
    precision: Precision, labels: Sequence[int] | None, threshold: int | None
) -> tuple[float, NDArray[np.float64]]:
    """A mean average precision, and those of the pictures drawn again."""
    whole, drawn = (
        accuracy_boxes.mean(table, labels, threshold=threshold)
        for table in (precision.whole, precision.drawn)
    )
    return float(whole[0]), drawn


def _interval(value: float, drawn: NDArray[np.float64], lowest: float) -> Estimate:
    """The basic bootstrap's (Davison and Hinkley 1997, section 5.2), at most 1.

    The fewer pictures, the higher their mean average precision; that of pictures drawn again, of
    which some are the same, is higher still. So what they are too high by is taken off.
    """
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return Estimate(value, max(lowest, 2 * value - high), min(1.0, 2 * value - low))


def _row(
    contender: str, group: str, measure: str, found: Estimate, difference: Estimate | None
) -> Row:
    return {
        "contender": contender,
        "group": group,
        "measure": measure,
        **found.as_dict(),
        "difference": None if difference is None else difference.as_dict(),
    }
