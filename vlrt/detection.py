"""From what a detector says of every place of a picture to the objects found: pure functions.

Agrees with transformers' `OwlViTClassPredictionHead`, with `post_process_object_detection` and
`post_process_image_guided_detection` of its OWL-ViT and OWLv2 image processors, with its
`pipelines/zero_shot_object_detection.py`, and with `OwlViTForObjectDetection.embed_image_query`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from vlrt import boxes as geometry
from vlrt.checks import checked_count, checked_unit, is_number, per_label
from vlrt.errors import OptionError
from vlrt.ops import sigmoid
from vlrt.ops import top_k as best_first
from vlrt.templates import Templates

Float = NDArray[np.float32]
Index = NDArray[np.intp]
Threshold: TypeAlias = float | Mapping[str, float] | Sequence[float] | NDArray[Any]

WHOLE = np.array([0, 0, 1, 1], np.float32)  # the box of a whole picture, as parts of it

_NORM_EPSILON = np.float32(1e-6)  # what transformers adds to a length before dividing by it
_NEAR = np.float32(0.8)  # of the best overlap: which boxes may stand for an example
_FAR = 1e9  # pixels, beyond any picture; also what NaN and infinities fail


class SearchOptions(TypedDict, total=False):
    """The options of `detect`, for its overloads (see `vlrt.families.owlvit.Model.detect`)."""

    threshold: Threshold
    iou_threshold: float | None
    class_agnostic: bool
    multi_label: bool
    soft_nms: float | None
    top_k: int | None
    templates: Templates | None
    truncate: bool
    batch_size: int


class LikeOptions(TypedDict, total=False):
    """The options of `detect_like`, for its overloads."""

    threshold: float
    iou_threshold: float | None
    top_k: int | None
    batch_size: int


class View(NamedTuple):
    """One picture as a set of labels sees it.

    Attributes:
        logits: float32 [P, N], place by label; empty where a GPU kept them and gave the best alone.
        pred_boxes: float32 [P, 4], (centre x, centre y, width, height) in 0..1 of what the model
            saw.
        size_hw: (height, width) of the original picture in pixels.
        best: what the best of each place is, if that was found already.
    """

    logits: Float
    pred_boxes: Float
    size_hw: tuple[int, int]
    best: "Best | None" = None

    def best_of_each(self) -> "Best":
        """Which label is the best of each place, and its logit."""
        return best_of(self.logits) if self.best is None else self.best


class Best(NamedTuple):
    """Of each place the best label, intp [P], and its logit, float32 [P]."""

    label_ids: Index
    logits: Float


def best_of(logits: Float) -> Best:
    """The best of each row of logits [P, N], the first of equals."""
    label_ids = logits.argmax(axis=1)
    return Best(label_ids, logits[np.arange(len(logits)), label_ids])


class Selected(NamedTuple):
    """What was found, best first: float32 [K, 4] corners, float32 [K], intp [K]."""

    boxes: Float
    scores: Float
    label_ids: Index


@dataclass(frozen=True)
class Options:
    """Which of the candidates are kept.

    Attributes:
        iou_threshold: of two boxes that overlap by more than this (IoU), only the better one is
            kept; None keeps both.
        class_agnostic: compare boxes of different labels with each other too.
        multi_label: a box may be reported once for every label, and not for its best one alone.
        soft_nms: sigma of a soft suppression, which lowers scores by overlap instead of dropping. A
            box stays in it, and lowers others, down to the lowest of the labels' limits, even where
            its own label's limit leaves it out.
        top_k: at most so many.

    Raises:
        OptionError: a value outside its range, or one that would have no effect.
    """

    iou_threshold: float | None = None
    class_agnostic: bool = False
    multi_label: bool = False
    soft_nms: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        iou_threshold, sigma, top_k = self.iou_threshold, self.soft_nms, self.top_k
        if iou_threshold is not None:
            checked_unit("iou_threshold", iou_threshold)
        if sigma is not None and not (is_number(sigma) and 1e-6 <= sigma <= 1e6):
            raise OptionError(f"soft_nms is {sigma!r}; valid: None, or a sigma of 1e-6 to 1e6")
        if sigma is not None and iou_threshold is not None:
            raise OptionError(
                f"soft_nms={sigma!r} and iou_threshold={iou_threshold!r} are two ways to treat "
                "overlaps; give one of them"
            )
        if self.class_agnostic and sigma is None and iou_threshold is None:
            raise OptionError("class_agnostic has no effect without iou_threshold or soft_nms")
        if top_k is not None:
            checked_count("top_k", top_k)


def class_logits(class_embeds: Float, shift: Float, scale: Float, queries: Float) -> Float:
    """How much each place looks like each query: (cosine + shift) * scale.

    Args:
        class_embeds: float32 [P, D], of any length.
        shift, scale: float32 [P].
        queries: float32 [N, D], of any length.

    Returns:
        float32 [P, N].
    """
    # Dividing the products costs a D-th of dividing the embeddings, and is the same.
    lengths = np.sqrt(np.einsum("pd,pd->p", class_embeds, class_embeds)) + _NORM_EPSILON
    units = queries / (np.linalg.norm(queries, axis=1, keepdims=True) + _NORM_EPSILON)
    cosines = (class_embeds @ units.T) / lengths[:, None]
    logits: Float = (cosines + shift[:, None]) * scale[:, None]
    return logits


def select(
    logits: Float, boxes: Float, limits: Float, options: Options, best: Best | None = None
) -> Selected:
    """The objects among all places.

    By default each place has its best label, whose limit its score must exceed (strictly), as in
    `post_process_object_detection`; with `multi_label` each label is held against its limit at
    every place, as in transformers' pipeline.

    Args:
        logits: float32 [P, N]; not looked at where `best` is given, but with `multi_label`.
        boxes: float32 [P, 4], (x0, y0, x1, y1) in pixels.
        limits: float32 [N], the score that each label must exceed.
        options: what else to keep or leave out.
        best: of each place, if that is known.
    """
    if options.multi_label:
        every = sigmoid(logits.T)
        label_ids, places = np.nonzero(every > limits[:, None])
        scores = every[label_ids, places]
    else:
        all_ids, best_logits = best_of(logits) if best is None else best
        best_scores = sigmoid(best_logits)
        places = np.flatnonzero(best_scores > limits[all_ids])
        label_ids, scores = all_ids[places], best_scores[places]
    boxes = boxes[places]
    groups = None if options.class_agnostic else label_ids
    if options.soft_nms is not None:
        lowest = float(limits.min())
        order, scores = geometry.soft_nms(
            boxes, scores, sigma=options.soft_nms, score_threshold=lowest, label_ids=groups
        )
        above = scores > limits[label_ids[order]]
        order, scores = order[above], scores[above]
    else:
        if options.iou_threshold is not None:
            order = geometry.nms(boxes, scores, options.iou_threshold, groups)
        else:
            order = best_first(scores)
        scores = scores[order]
    order = order[: options.top_k]
    return Selected(boxes[order], scores[: options.top_k], label_ids[order])


def guided(boxes: Float, scores: Float, threshold: float, options: Options) -> tuple[Index, Float]:
    """The places that look like an example, and the display scores of transformers.

    A display score ("alpha") is where a score lies between a tenth of the best one (0) and the best
    one itself (1). Places at 0 are left out, however high their score.

    Args:
        boxes: float32 [P, 4], (x0, y0, x1, y1), in any unit.
        scores: float32 [P], in 0..1.
        threshold: places with a lower score are left out.
        options: `iou_threshold` and `top_k`.

    Returns:
        The places that are kept, intp [K], best first, and their display scores, float32 [K].
    """
    # The best place of all is never suppressed, so the scale is known before anything is left out.
    best = scores.max(initial=0) + np.float32(1e-6)
    low, span = best * np.float32(0.1), best * np.float32(0.9)
    alphas = np.clip((scores - low) / span, 0, 1)
    places = np.flatnonzero((alphas > 0) & (scores >= np.float32(threshold)))
    if options.iou_threshold is None:
        order = best_first(scores[places])
    else:
        order = geometry.nms(boxes[places], scores[places], options.iou_threshold)
    places = places[order[: options.top_k]]
    return places, alphas[places]


def example_place(class_embeds: Float, corners: Float, box: Float) -> int | None:
    """Which place stands for the object of an example picture, as `embed_image_query` picks it.

    Of the boxes whose overlap with the object's is at least 0.8 of the best, it is the one least
    like the picture's average, which is mostly background.

    Args:
        class_embeds: float32 [P, D], of any length.
        corners: float32 [P, 4], (x0, y0, x1, y1), in any unit.
        box: float32 [4], where the object is, in that unit: as a rule `WHOLE`.

    Returns:
        The place, or None if every box lies away from the object: then the generalised IoU decides,
        and where all of them are below 0, none reaches 0.8 of the best.
    """
    overlap = geometry.iou(box[None], corners)[0]
    if not overlap.any():
        overlap = geometry.giou(box[None], corners)[0]
    near = np.flatnonzero(overlap >= overlap.max() * _NEAR)
    if not len(near):
        return None
    likeness = class_embeds[near] @ class_embeds.mean(axis=0)
    return int(near[likeness.argmin()])


def limits(threshold: Threshold, labels: Sequence[str]) -> Float:
    """The score that each label must exceed.

    Args:
        threshold: one number for all labels, one a label, or a mapping from every label to its own.
        labels: the N labels.

    Returns:
        float32 [N].

    Raises:
        OptionError: a number outside 0..1, one too many or too few, or a label missing or unknown.
    """
    given: Any = threshold.tolist() if isinstance(threshold, np.ndarray) else threshold
    if isinstance(given, Mapping):
        numbers = per_label("threshold", given, labels)
    elif isinstance(given, Sequence) and not isinstance(given, str):
        numbers = list(given)
    else:
        numbers = [given] * len(labels)
    if len(numbers) != len(labels):
        raise OptionError(f"threshold has {len(numbers)} numbers for {len(labels)} labels")
    return np.array([checked_unit("threshold", number) for number in numbers], np.float32)


def checked_box(box: Any, size_hw: tuple[int, int]) -> Float:
    """Corners that a caller gave, float32 [4], if they are those of a box in the picture.

    Args:
        box: (x0, y0, x1, y1) in pixels.
        size_hw: (height, width) of the picture in pixels.

    Raises:
        OptionError: they are not four numbers, or not of a box that is at least partly inside.
    """
    try:
        given = np.asarray(box)
    except ValueError:  # rows of several lengths
        given = np.empty(0)
    if given.shape == (4,) and given.dtype.kind in "iuf" and (abs(given) <= _FAR).all():
        corners = given.astype(np.float32)
        inside = geometry.clip(corners[None], size_hw)
        if geometry.area(inside)[0] > 0:
            return corners
    raise OptionError(
        f"box is {box!r}; valid: (x0, y0, x1, y1) in pixels, x0 < x1 and y0 < y1, not outside of "
        f"the {size_hw[1]}x{size_hw[0]} picture"
    )
