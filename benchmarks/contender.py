"""The contenders of `vlrt bench footprint` and `load`, and whether they do the same work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vlrt.errors import BenchmarkError, OptionError

from .cold_start import ANSWERS, OBJECTS
from .subject import Subject

# What `--against` takes.
AGAINST = ("torch",)
INSTALL = 'pip install "vlrt[export]"'
# How far scores, and the sides of boxes as shares of the picture, may lie from those in fp32.
# Quantisation moves them, most where they are even, as with seeded weights: at a logit scale of
# 100, a cosine off by 0.001 moves a score by up to 0.025.
TOLERANCES = {"fp32": 1e-3, "fp16": 1e-2}
_QUANTISED = 1e-1

# The best first, each with its name, its score and, of an object, its box (x0, y0, x1, y1) as
# shares of the picture's sides.
Result = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Contender:
    """What is started.

    Attributes:
        name: such as "vlrt-int8".
        kind: "vlrt" or "torch".
        precision: of its weights.
        model: the directory of a bundle or a checkpoint.
    """

    name: str
    kind: str
    precision: str
    model: Path

    @property
    def tolerance(self) -> float:
        """How far its results may be from those in fp32."""
        return TOLERANCES.get(self.precision, _QUANTISED)


def checked_against(names: Sequence[str]) -> None:
    """Refuse an engine that is none to compare with.

    Raises:
        OptionError: one of them is unknown.
    """
    for name in names:
        if name not in AGAINST:
            raise OptionError(f"--against is {name!r}; valid: {', '.join(AGAINST)}")


def enter(
    measured: Subject, against: Sequence[str], base: str
) -> tuple[list[Contender], dict[str, str]]:
    """The contenders that can run here; and of the others, what they need.

    Args:
        measured: the model, and its variants to measure.
        against: "torch", or nothing.
        base: what to call PyTorch, which comes first.
    """
    ours = [
        Contender(f"vlrt-{precision}", "vlrt", precision, measured.bundle)
        for precision in measured.precisions
    ]
    if "torch" not in against:
        return ours, {}
    if find_spec("torch") is None or find_spec("transformers") is None:
        return ours, {base: INSTALL}
    if measured.checkpoint is None:
        return ours, {base: "say what the bundle was made of: --checkpoint DIR"}
    return [Contender(base, "torch", "fp32", measured.checkpoint), *ours], {}


def difference(ours: Result, base: Result, tolerance: float) -> float:
    """The largest difference between two results, of a score or of a box's side.

    Compared are the scores by rank; of each name the best score that it has; and the boxes that
    `box_differences` compares. A name that a result cut off at its length lacks has there at most
    the score of the last.

    Args:
        ours, base: best first.
        tolerance: up to which they are the same.

    Raises:
        BenchmarkError: they are not the same, so that the two do not do the same work.
    """
    if len(ours) != len(base):
        raise BenchmarkError(f"{len(ours)} results are not the {len(base)} of the base")
    found = [abs(one["score"] - other["score"]) for one, other in zip(ours, base, strict=True)]
    best, expected = _best(ours), _best(base)
    if best.keys() != expected.keys() and not _cut_off(base):
        raise BenchmarkError(f"names are {sorted(best)}, the base's are {sorted(expected)}")
    for name in {*best, *expected}:
        if name in best and name in expected:
            found.append(abs(best[name]["score"] - expected[name]["score"]))
        elif name in best:
            found.append(best[name]["score"] - base[-1]["score"])
        else:
            found.append(expected[name]["score"] - ours[-1]["score"])
    found += box_differences(ours, base, tolerance)
    largest = float(np.max(found, initial=0))
    if not largest <= tolerance:  # not a number is no agreement
        raise BenchmarkError(
            f"the results differ by {largest:.4f}, allowed are {tolerance}: {list(ours)}, and of "
            f"the base {list(base)}"
        )
    return largest


def box_differences(ours: Result, base: Result, tolerance: float) -> list[float]:
    """The largest difference of a side between boxes, for each name where they can be compared.

    Compared is the box of our best object of a name with the nearest of the base's that may be the
    best: those of that name less than twice the tolerance below its best. Where the base's result
    may be cut off before the last of them, any box may be right, and none is compared.

    Args:
        ours, base: best first.
        tolerance: of scores.
    """
    best, expected = _best(ours), _best(base)
    found = []
    for name in expected:  # in their order, for the same results give the same list
        least = expected[name]["score"] - 2 * tolerance
        undecided = _cut_off(base) and base[-1]["score"] > least
        if name not in best or "box" not in expected[name] or undecided:
            continue
        near = [row["box"] for row in base if row["name"] == name and row["score"] > least]
        sides = np.abs(np.subtract(near, best[name]["box"]))
        found.append(float(sides.max(axis=1).min()))
    return found


def _best(result: Result) -> dict[str, Mapping[str, Any]]:
    """Of each name the best."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in result:
        found.setdefault(row["name"], row)
    return found


def _cut_off(result: Result) -> bool:
    """Whether there may be more that is worse: a result is of so many at the most."""
    return len(result) >= (OBJECTS if result and "box" in result[0] else ANSWERS)


def differences(
    contenders: Sequence[Contender], results: Mapping[str, Result]
) -> dict[str, dict[str, Any]]:
    """How far the result of each contender is from the first one's.

    Returns:
        Of each: the `difference`, what is `allowed`, and how many `boxes` could be compared.

    Raises:
        BenchmarkError: one of them is another result.
    """
    base = contenders[0]
    found = {}
    for one in contenders[1:]:
        allowed = max(one.tolerance, base.tolerance)
        try:
            apart = difference(results[one.name], results[base.name], allowed)
        except BenchmarkError as error:
            raise BenchmarkError(f"{one.name} does not do what {base.name} does: {error}") from None
        boxes = len(box_differences(results[one.name], results[base.name], allowed))
        found[one.name] = {"difference": apart, "allowed": allowed, "boxes": boxes}
    return found
