"""Boxes as plain geometry: formats, clipping, overlaps, and suppressing what overlaps.

Boxes are float32 [N, 4]: corners (x0, y0, x1, y1), unless a name says centres (centre x, centre y,
width, height). Units are the caller's: pixels, or parts of a picture. A box with x1 <= x0 or
y1 <= y0 is empty: it has area 0 and overlaps nothing. Arrays of another dtype or shape raise an
`OptionError`.

Formats and overlaps agree bit for bit with transformers (`center_to_corners_format`, `box_iou`,
`generalized_box_iou`), because a threshold on them decides which objects are reported. Only what is
0 / 0 there, NaN, is 0 here.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import OptionError

Float = NDArray[np.float32]
Index = NDArray[np.intp]
Bool = NDArray[np.bool_]
Decay = Callable[[int, slice], Float]

# Candidates compared with others at a time, so that the arrays between stay in the caches.
_BLOCK = 128

# Boxes that come back under many labels are compared once, in a table of this many at most (36 MB
# for `nms`, 144 MB for `soft_nms`, twice that while it is made), if there are more pairs than this.
_TABLE_BOXES = 6000
_TABLE_PAIRS = 16_000_000


def center_to_corners(boxes: Float) -> Float:
    """(centre x, centre y, width, height) to (x0, y0, x1, y1); float32 [..., 4]."""
    center, size = _halves(boxes)
    return np.concatenate([center - 0.5 * size, center + 0.5 * size], axis=-1)


def corners_to_center(boxes: Float) -> Float:
    """(x0, y0, x1, y1) to (centre x, centre y, width, height); float32 [..., 4]."""
    start, end = _halves(boxes)
    return np.concatenate([(start + end) / 2, end - start], axis=-1)


def corners_to_xywh(boxes: Float) -> Float:
    """(x0, y0, x1, y1) to COCO's (x0, y0, width, height); float32 [..., 4]."""
    start, end = _halves(boxes)
    return np.concatenate([start, end - start], axis=-1)


def clip(boxes: Float, size_hw: tuple[int, int]) -> Float:
    """Cut corners at the edges of a picture; a box wholly outside becomes an empty one.

    Args:
        boxes: float32 [..., 4], in pixels.
        size_hw: (height, width) of the picture in pixels.

    Returns:
        float32 [..., 4], x in 0..width and y in 0..height.

    Raises:
        OptionError: a side of the picture is negative.
    """
    height, width = size_hw
    if height < 0 or width < 0:
        raise OptionError(f"size_hw is {size_hw}; valid: (height, width), neither below 0")
    corner = np.array([width, height], np.float32)
    return np.concatenate([np.clip(half, 0, corner) for half in _halves(boxes)], axis=-1)


def area(boxes: Float) -> Float:
    """Width times height of float32 [N, 4]; float32 [N]."""
    x0, y0, x1, y1 = _columns(boxes)
    return _length(x0, x1) * _length(y0, y1)


def iou(a: Float, b: Float) -> Float:
    """Intersection over union of every box of `a` with every box of `b`.

    Args:
        a: float32 [N, 4].
        b: float32 [M, 4].

    Returns:
        float32 [N, M] in 0..1.
    """
    return _iou_and_union(a, b)[0]


def giou(a: Float, b: Float) -> Float:
    """Generalised IoU of every box of `a` with every box of `b`.

    The IoU, less the part of the smallest box around both that neither covers (Rezatofighi et al.
    2019), so boxes that do not touch still tell how far apart they are.

    Args:
        a: float32 [N, 4].
        b: float32 [M, 4].

    Returns:
        float32 [N, M] in -1..1; 0 where the box around both is empty too.
    """
    overlap, union = _iou_and_union(a, b)
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = _columns(a)[..., None], _columns(b)
    around = _length(np.minimum(ax0, bx0), np.maximum(ax1, bx1))
    around *= _length(np.minimum(ay0, by0), np.maximum(ay1, by1))
    return overlap - _ratio(around - union, around)


def nms(
    boxes: Float, scores: Float, iou_threshold: float, label_ids: NDArray[np.integer] | None = None
) -> Index:
    """Greedy non-maximum suppression: the best box stays, what overlaps it goes, and so on.

    Args:
        boxes: float32 [N, 4].
        scores: float32 [N]; of equal ones the first counts as better.
        iou_threshold: in 0..1; a box goes if its IoU with a better one that stays is above it.
        label_ids: integers [N]; only boxes of one label suppress each other. None: any two do.

    Returns:
        intp [K], which boxes stay, best first.

    Raises:
        OptionError: shapes or dtypes that do not fit, a threshold outside 0..1, or a number in
            `boxes` or `scores` that is NaN or infinite.
    """
    threshold = _fraction("iou_threshold", iou_threshold)
    label_ids = _candidates(boxes, scores, label_ids)
    order = np.lexsort((-scores, label_ids))
    boxes, label_ids = boxes[order], label_ids[order]
    recurring = _recurring(boxes, label_ids)
    if recurring is None:
        keep = _suppress(boxes, label_ids, threshold)
    else:
        distinct, which = recurring
        over = _table(distinct, lambda rows: iou(rows, distinct) > threshold)
        keep = np.concatenate([_suppress_by_table(over, which[own]) for own in _runs(label_ids)])
    kept = order[keep]
    return _best_first(kept, scores[kept])[0]


def soft_nms(
    boxes: Float,
    scores: Float,
    *,
    sigma: float,
    score_threshold: float,
    label_ids: NDArray[np.integer] | None = None,
) -> tuple[Index, Float]:
    """Soft non-maximum suppression: boxes that overlap a better one lose score instead of going.

    Gaussian, after Bodla et al. 2017: the best box is taken, the score of every other one is
    multiplied by exp(-IoU^2 / sigma), and so on with the best of those left. Time grows with the
    boxes that stay times those of their label, so a `score_threshold` of 0 is the slowest.

    Args:
        boxes: float32 [N, 4].
        scores: float32 [N]; of equal ones the first counts as better.
        sigma: 1e-6..1e6, how much overlap is forgiven; the paper uses 0.5.
        score_threshold: in 0..1; a box whose score is not above it, at first or later, is left out.
        label_ids: integers [N]; only boxes of one label weaken each other. None: any two do.

    Returns:
        intp [K] and float32 [K]: which boxes stay, best first, and the scores they have now.

    Raises:
        OptionError: as in `nms`, and for a setting outside its range.
    """
    threshold = _fraction("score_threshold", score_threshold)
    if not 1e-6 <= sigma <= 1e6:
        raise OptionError(f"sigma is {sigma}; valid: 1e-6 to 1e6")
    label_ids = _candidates(boxes, scores, label_ids)
    order = np.lexsort((-scores, label_ids))
    order = order[scores[order] > threshold]
    boxes, left, label_ids = boxes[order], scores[order], label_ids[order]

    def weights(rows: Float, others: Float) -> Float:
        factors: Float = np.exp(-(iou(rows, others) ** 2) / np.float32(sigma))
        return factors

    recurring = _recurring(boxes, label_ids)
    if recurring is None:

        def decay(best: int, own: slice) -> Float:
            return weights(boxes[[best]], boxes[own]).reshape(-1)

    else:
        distinct, which = recurring
        table: Float = _table(distinct, lambda rows: weights(rows, distinct))

        def decay(best: int, own: slice) -> Float:
            return table[[which[best]], which[own]]

    for own in _runs(label_ids):
        left[own] = _soften(left[own], own, threshold, decay)
    stays = left > threshold
    return _best_first(order[stays], left[stays])


def _suppress(boxes: Float, label_ids: Index, threshold: np.float32) -> Bool:
    """Bool [N], which of the candidates stay; sorted by label, then best first.

    A block is settled in itself, then its last label goes on to suppress the rest of that label.
    """
    keep = np.ones(len(boxes), np.bool_)
    for start in range(0, len(boxes), _BLOCK):
        stop = min(start + _BLOCK, len(boxes))
        block = start + np.flatnonzero(keep[start:stop])
        over = np.triu(iou(boxes[block], boxes[block]) > threshold, 1)
        over &= label_ids[block, None] == label_ids[block]
        keep[block] = _settle(over)
        last = label_ids[stop - 1]
        rest = stop + np.flatnonzero(keep[stop : np.searchsorted(label_ids, last, "right")])
        block = block[keep[block] & (label_ids[block] == last)]
        keep[rest] = ~(iou(boxes[block], boxes[rest]) > threshold).any(axis=0)
    return keep


def _settle(over: Bool) -> Bool:
    """Bool [N], which candidates stay; over[i, j] says that i, if it stays, suppresses j > i.

    After n rounds the first n are right, and mostly all are after very few.
    """
    keep: Bool = np.ones(len(over), np.bool_)
    while True:
        stays: Bool = ~np.logical_or.reduce(over & keep[:, None], axis=0)
        if np.array_equal(stays, keep):
            return keep
        keep = stays


def _suppress_by_table(over: Bool, which: Index) -> Bool:
    """Bool [N], which candidates of one label stay; best first, each a box of the table `over`."""
    gone = np.zeros(len(over), np.bool_)
    keep = np.zeros(len(which), np.bool_)
    for i, box in enumerate(which.tolist()):
        if not gone[box]:
            keep[i] = True
            gone |= over[box]
    return keep


def _soften(left: Float, own: slice, threshold: np.float32, decay: Decay) -> Float:
    """The scores that one label's candidates have in the end, 0 for those that are left out.

    `decay(i, own)` is what candidate i multiplies the scores of its label's candidates by.
    """
    left, final = left.copy(), np.zeros_like(left)
    best = int(left.argmax())
    while left[best] > threshold:
        final[best] = left[best]
        left *= decay(own.start + best, own)
        left[best] = -1  # taken: never above a threshold again
        best = int(left.argmax())
    return final


def _recurring(boxes: Float, label_ids: Index) -> tuple[Float, Index] | None:
    """(distinct boxes, which of them each box is) where a table of their overlaps saves work."""
    pairs = int((np.unique(label_ids, return_counts=True)[1] ** 2).sum())
    if pairs <= _TABLE_PAIRS:
        return None
    bits = np.ascontiguousarray(boxes).view(np.uint64)  # [N, 2], which sorts faster
    order = np.lexsort(bits.T)
    new = np.diff(bits[order], axis=0, prepend=~bits[order[:1]]).any(axis=1)
    distinct, which = boxes[order[new]], np.empty_like(order)
    which[order] = np.cumsum(new) - 1
    return (distinct, which) if len(distinct) <= min(_TABLE_BOXES, pairs**0.5 / 2) else None


def _table(distinct: Float, row_of: Callable[[Float], NDArray[Any]]) -> NDArray[Any]:
    """[D, D], `row_of` of all distinct boxes, a block at a time."""
    starts = range(0, len(distinct), _BLOCK)
    return np.concatenate([row_of(distinct[start : start + _BLOCK]) for start in starts])


def _runs(label_ids: Index) -> Iterator[slice]:
    """The stretch of each label, where they are sorted."""
    starts = np.flatnonzero(np.diff(label_ids, prepend=label_ids[:1] - 1))
    return (slice(start, stop) for start, stop in pairwise([*starts.tolist(), len(label_ids)]))


def _best_first(kept: Index, scores: Float) -> tuple[Index, Float]:
    order = np.lexsort((kept, -scores))
    return kept[order], scores[order]


def _iou_and_union(a: Float, b: Float) -> tuple[Float, Float]:
    """IoU and area of the union, float32 [N, M] each, in transformers' order of operations."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = _columns(a)[..., None], _columns(b)
    inner = _length(np.maximum(ax0, bx0), np.minimum(ax1, bx1))
    inner *= _length(np.maximum(ay0, by0), np.minimum(ay1, by1))
    union = area(a)[:, None] + area(b)
    union -= inner
    return _ratio(inner, union), union


def _length(start: Float, end: Float) -> Float:
    length: Float = end - start
    np.maximum(length, 0, out=length)
    return length


def _ratio(part: Float, whole: Float) -> Float:
    ratio: Float = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return ratio


def _halves(boxes: Float) -> tuple[Float, Float]:
    if boxes.dtype != np.float32 or boxes.shape[-1:] != (4,):
        raise OptionError(f"boxes must be float32 [..., 4]; given {boxes.dtype} {boxes.shape}")
    return boxes[..., :2], boxes[..., 2:]


def _columns(boxes: Float) -> Float:
    if boxes.dtype != np.float32 or boxes.shape[1:] != (4,):
        raise OptionError(f"boxes must be float32 [N, 4]; given {boxes.dtype} {boxes.shape}")
    return np.ascontiguousarray(boxes.T)


def _candidates(boxes: Float, scores: Float, label_ids: NDArray[np.integer] | None) -> Index:
    """The label ids, all 0 where there are none, once everything fits together."""
    count = _columns(boxes).shape[1]
    if scores.dtype != np.float32 or scores.shape != (count,):
        raise OptionError(f"scores must be float32 [{count}]; given {scores.dtype} {scores.shape}")
    if label_ids is None:
        label_ids = np.zeros(count, np.intp)
    if label_ids.dtype.kind not in "iu" or label_ids.shape != (count,):
        raise OptionError(
            f"label_ids must be integers [{count}]; given {label_ids.dtype} {label_ids.shape}"
        )
    # NaN would change the order without a word.
    sound = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if not sound.all():
        row = int(sound.argmin())
        raise OptionError(
            f"row {row} is box {boxes[row].tolist()} with score {scores[row]}; valid: finite ones"
        )
    return label_ids.astype(np.intp)


def _fraction(name: str, value: float) -> np.float32:
    if not 0 <= value <= 1:
        raise OptionError(f"{name} is {value}; valid: 0 to 1")
    return np.float32(value)  # as torch does when it compares float32 with a number
