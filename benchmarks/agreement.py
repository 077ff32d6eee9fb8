"""Whether contenders do the same work: their results against the base's, before anything is timed.

Each kind of output has a measure of its own, and how far it may be off depends on the precision:
what is done in fp32 must be the same but for the order of sums, bf16 and fp16 round, and few bits
quantise. What is not a number agrees with nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import BenchmarkError

from .peers import DECODE, FROM_FILE, PREPROCESS, Arrays, Entry

COSINE, DIFFERENCE, SAME = "lowest cosine", "largest difference", "same"
_PIXEL_STAGES = (DECODE, PREPROCESS, FROM_FILE)
# The classes, from the most exact; a precision that is not here is one of few bits.
_CLASSES = ("fp32", "fp16", "bf16", "int8")
# The lowest cosine of a sample's numbers, flattened.
_COSINES = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.99, "int8": 0.95}
_EMBEDDINGS = ("image_embeds", "text_embeds", "image_class_embeds")
# The largest difference of one number; a class that is not there is not compared.
_DIFFERENCES: dict[str, dict[str, float]] = {
    "scores": {"fp32": 1e-3, "fp16": 0.03, "bf16": 0.2, "int8": 0.25},  # of 0..1
    "logits": {"fp32": 0.01, "fp16": 0.2, "bf16": 1, "int8": 4},
    "logit_shift": {"fp32": 0.01, "fp16": 0.05, "bf16": 0.2, "int8": 0.5},
    "logit_scale": {"fp32": 0.01, "fp16": 0.5, "bf16": 2, "int8": 5},
    "objectness_logits": {"fp32": 0.01, "fp16": 0.2, "bf16": 1, "int8": 4},
    "pred_boxes": {"fp32": 1e-3, "fp16": 0.01, "bf16": 0.1, "int8": 0.5},  # of 0..1
    # In pixels; some round to whole ones. In less than fp32, the best ten may be others.
    "boxes": {"fp32": 1.5},
}
_WITH = {"boxes": ("scores",)}  # what is looked at beside an output
_PIXELS = ("picture", "pixel_values", "pixel_mask")
# OWLv2 resizes through SciPy in transformers and NumPy in vlrt: the order of sums differs.
_PIXELS_ABS = {"owlv2": 1e-5}


def precision_class(precision: str) -> str:
    """The class of a precision, for how exact its results must be."""
    return precision if precision in _CLASSES else _CLASSES[-1]


def reference_of(stage: str, entries: Sequence[Entry], base: Entry) -> Entry | None:
    """Whose result of a stage the others are compared with.

    The base, if it has the stage; of pixels, only if its own are exact. Otherwise the first of
    those of whom that is true.
    """
    for entry in (base, *entries):
        if stage in entry.stages and (entry.exact or stage not in _PIXEL_STAGES):
            return entry
    return None


def compare(
    entry: Entry, reference: Entry, family: str, stage: str, found: Arrays, expected: Arrays
) -> list[dict[str, Any]]:
    """How a contender's results of one stage compare, an output at a time.

    Args:
        entry: the contender.
        reference: whom it is compared with.
        family: the model's.
        stage: which stage's results they are.
        found, expected: the contender's results and the reference's, by name.

    Returns:
        For each output that both have: `contender`, `reference`, `output`, `measure`, `value`
        (None where it is not a number, or shapes differ), `needed` (None where any will do) and
        whether it is the `same`.

    Raises:
        BenchmarkError: they have none in common.
    """
    both = _class_of(entry, reference)
    names = [n for n in expected if n in found and both in _DIFFERENCES.get(n, _CLASSES)]
    if not names:
        raise BenchmarkError(
            f"{entry.name}, {stage}: it gives {sorted(found)}, {reference.name} gives "
            f"{sorted(expected)}; nothing can be compared"
        )
    return [
        {
            "contender": entry.name,
            "reference": reference.name,
            "output": name,
            **_compared(entry, reference, family, stage, name, found, expected),
        }
        for name in names
    ]


def check(rows: Sequence[Mapping[str, Any]], *, allow: bool) -> None:
    """Refuse to time contenders that do other work.

    Args:
        rows: as `compare` gives them, each with its `stage` and `batch`.
        allow: leave mismatches, which are marked, to the reader.

    Raises:
        BenchmarkError: a result is not the same; all of them are named.
    """
    wrong = [row for row in rows if not row["same"] and row["needed"] is not None]
    if not wrong or allow:
        return
    lines = [
        f"{row['contender']}, {row['stage']}, batch {row['batch']}: the {row['measure']} of "
        f"{row['output']} with those of {row['reference']} is {_told(row['value'])}; needed: "
        f"{_needed(row)}"
        for row in wrong
    ]
    raise BenchmarkError(
        "contenders do not give the same results, so their times would not compare (--allow-"
        "mismatch measures them all the same, and marks them):\n" + "\n".join(lines)
    )


def is_empty(expected: Arrays, threshold: float) -> bool:
    """Whether these are detections, and there are none (see `peers.found`)."""
    return "boxes" in expected and bool((expected["scores"] <= np.float32(threshold)).all())


def lowest_cosine(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Of two arrays [B, ...] the cosine of each sample, flattened; the lowest of all."""
    a, b = (array.astype(np.float64).reshape(len(array), -1) for array in (found, expected))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a sample of zeros has no cosine
        return float(((a * b).sum(axis=1) / norms).min())


def largest_difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Of any two numbers at the same place; 0 of empty arrays."""
    with np.errstate(invalid="ignore"):  # of two infinities
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max(initial=0))


def box_difference(found: Arrays, expected: Arrays, near: float) -> float:
    """How far boxes are from the nearest one found whose score is as good.

    Not by rank: equal scores may come in any order. Nor of boxes whose score is as near to the
    lowest, which is the threshold or that of the last place: another engine may leave them out.

    Args:
        found, expected: `boxes` [B, K, 4] and `scores` [B, K], as `peers.found` makes them.
        near: scores that differ by this or less are as good.

    Returns:
        The largest difference of a coordinate, in that of the boxes' units; 0 where there is
        nothing to compare, infinite where a box has no counterpart.
    """
    scores = expected["scores"].astype(np.float64)
    sides = np.abs(found["boxes"][:, None].astype(np.float64) - expected["boxes"][:, :, None])
    alike = np.abs(found["scores"][:, None] - scores[:, :, None]) <= near
    nearest = np.where(alike, sides.max(axis=3), np.inf).min(axis=2, initial=np.inf)
    lowest = scores.min(axis=1, keepdims=True, initial=np.inf)
    return float(nearest[scores > lowest + near].max(initial=0))


def _compared(
    entry: Entry,
    reference: Entry,
    family: str,
    stage: str,
    name: str,
    found: Arrays,
    expected: Arrays,
) -> dict[str, Any]:
    measure = COSINE if name in _EMBEDDINGS else SAME if name == "kept" else DIFFERENCE
    needed = _limit(entry, reference, family, stage, name)
    if any(found[one].shape != expected[one].shape for one in {name, *_WITH.get(name, ())}):
        return {"measure": measure, "value": None, "needed": needed, "same": False}
    if measure == COSINE:
        value = lowest_cosine(found[name], expected[name])
        same = value >= (1 if needed is None else needed)
    else:
        if name == "boxes":
            near = _DIFFERENCES["scores"][_class_of(entry, reference)]
            value = box_difference(found, expected, near)
        else:
            value = largest_difference(found[name], expected[name])
        same = value <= (needed or 0)  # not a number is not
    return {
        "measure": measure,
        "value": value if np.isfinite(value) else None,
        "needed": needed,
        "same": bool(same),
    }


def _limit(entry: Entry, reference: Entry, family: str, stage: str, name: str) -> float | None:
    """What is needed of an output; None where it is only reported."""
    if stage in entry.free:
        return None
    if name in _PIXELS:
        return _PIXELS_ABS.get(family, 0.0) if entry.exact else None
    if name == "kept":
        return 0.0
    both = _class_of(entry, reference)
    return _COSINES[both] if name in _EMBEDDINGS else _DIFFERENCES[name][both]


def _class_of(*entries: Entry) -> str:
    """The least exact of their classes."""
    return max((precision_class(entry.precision) for entry in entries), key=_CLASSES.index)


def _told(value: float | None) -> str:
    return "not a number, or of another shape" if value is None else f"{value:.6g}"


def _needed(row: Mapping[str, Any]) -> str:
    if row["measure"] == SAME:
        return "the same"
    return f"{row['needed']:g} or {'more' if row['measure'] == COSINE else 'less'}"
