"""The contenders of `vlrt bench footprint` and `load`, and whether they do the same work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vlrt.errors import BenchmarkError, OptionError

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
    """The largest difference between two results: of a score or, of the best object, a box's side.

    Args:
        ours, base: best first. Of objects those beyond the best are compared by score alone, for
            which of two that are as good comes first is chance.
        tolerance: up to which they are the same. Where the base's best leads by less than twice
            that, the best of ours may be another.

    Raises:
        BenchmarkError: they are not the same, so that the two do not do the same work.
    """
    found = [[row["score"] for row in result] for result in (ours, base)]
    if len(found[0]) != len(found[1]):
        raise BenchmarkError(f"{len(ours)} results are not the {len(base)} of the base")
    if not base:
        return 0.0
    largest = float(np.abs(np.subtract(found[0], found[1])).max())
    lead = found[1][0] - (found[1][1] if len(base) > 1 else 0)
    if lead > 2 * tolerance:
        if ours[0]["name"] != base[0]["name"]:
            raise BenchmarkError(f"the best is {ours[0]!r}, the base's is {base[0]!r}")
        sides = np.subtract(ours[0].get("box", []), base[0].get("box", []))
        largest = float(np.abs([largest, *sides]).max())
    if not largest <= tolerance:  # not a number is no agreement
        raise BenchmarkError(
            f"the results differ by {largest:.4f}, allowed are {tolerance}: {list(ours)}, and of "
            f"the base {list(base)}"
        )
    return largest


def differences(
    contenders: Sequence[Contender], results: Mapping[str, Result]
) -> dict[str, dict[str, float]]:
    """How far the result of each contender is from the first one's, and how far it may be.

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
        found[one.name] = {"difference": apart, "allowed": allowed}
    return found
