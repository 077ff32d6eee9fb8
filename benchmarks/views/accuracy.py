"""How accuracy is shown: each measure with its interval, and the difference to the base."""

import math
from collections.abc import Iterator
from typing import Any

from ..accuracy_plots import differences, dots, speed_against_accuracy
from ..wording import (
    ABSENT,
    Figure,
    Highlight,
    Table,
    is_ours,
    points,
    points_interval,
    spoken,
)

_DECIDING = ("top-1", "mAP", "VQA accuracy", "recall@1 image to text")
GATE = 0.01  # a variant may lose as much, of 1
_WHOLE = "all"
_ENDS = ("low", "high")


def headline(document: dict[str, Any]) -> str:
    """How far the variant that differs most is from the base; first of those that surely do."""
    body = document["body"]
    measure = deciding(body)
    rows = [row for row in _whole(body, measure) if is_ours(row["contender"]) and row["difference"]]
    if not rows:
        return ""
    sure = [row for row in rows if _surely(row["difference"])]
    row = max(sure or rows, key=lambda one: abs(float(one["difference"]["value"])))
    found = row["difference"]
    change = found["value"]
    base = next(one["value"] for one in _whole(body, measure) if one["contender"] == _base(body))
    name = spoken(row["contender"])
    of_base = f"{spoken(_base(body))}'s {points(base)} {measure}"
    if not _known(found):
        return (
            f"Too few items to say whether {name} differs from {of_base}: it has "
            f"{points(row['value'])}"
        )
    if not sure:
        return (
            f"No variant differs from {of_base} by more than chance: {name} has "
            f"{points(row['value'])} [{_span(found)} points]"
        )
    word = "below" if change < 0 else "above"
    return f"{name} is {points(abs(change))} points {word} {of_base} [{_span(found)}]"


def highlights(document: dict[str, Any]) -> list[Highlight]:
    """The deciding measure of the base and of every variant."""
    body = document["body"]
    measure = deciding(body)
    found = []
    for row in _whole(body, measure):
        if row["contender"] == _base(body) or is_ours(row["contender"]):
            change = row["difference"]
            limits = "" if change is None else f"{points(change['value'], signed=True)} points"
            if change and change["low"] is not None:
                limits += f", {_span(change)}"
            says = f"{measure}: {spoken(row['contender'])}"
            found.append(Highlight(points(row["value"]), says, limits))
    return found


def tables(document: dict[str, Any]) -> list[Table]:
    """Every measure of every contender and group; what was counted on."""
    body = document["body"]
    rows = [
        [
            row["contender"],
            row["measure"],
            row["group"],
            points_interval(row),
            points_interval(row["difference"], signed=True),
            _within(row["difference"]) if row["contender"] != _base(body) else ABSENT,
        ]
        for row in body.get("rows", ())
    ]
    if not rows:
        return []
    header = ["contender", "measure", "of", "points [95 %]", f"less {_base(body)} [95 %]",
              "within a point"]  # fmt: skip
    drawn = "pictures" if "pictures" in body else "items"  # as older results have them
    note = (
        f"Points out of 100. Intervals are bootstraps over {drawn}, of differences over pairs of "
        "answers."
    )
    return [Table("Accuracy", header, rows, f"{note} {_counted_on(body)}".strip())]


def figures(document: dict[str, Any]) -> list[Figure]:
    """Drawings of what there is."""
    body = document["body"]
    return [*dots(body), *differences(body, GATE)] if body.get("rows") else []


def trade(document: dict[str, Any], medians: dict[str, float], where: str) -> Iterator[Figure]:
    """Speed against accuracy, of contenders that have both.

    Args:
        document: of accuracy.
        medians: milliseconds by contender.
        where: what they are of.
    """
    measure = deciding(document["body"])
    shares = {row["contender"]: row for row in _whole(document["body"], measure)}
    both = {name: (medians[name], shares[name]) for name in shares if name in medians}
    if len(both) > 1:
        yield speed_against_accuracy(both, measure, where)


def deciding(body: dict[str, Any]) -> str:
    """The measure that the others stand behind."""
    there = list(dict.fromkeys(row["measure"] for row in body.get("rows", ())))
    return next((one for one in _DECIDING if one in there), there[0] if there else "")


def _whole(body: dict[str, Any], measure: str) -> list[dict[str, Any]]:
    """One row a contender: of all items, or of the first group where nothing is of all."""
    rows = [row for row in body.get("rows", ()) if row["measure"] == measure]
    groups = [row["group"] for row in rows]
    group = _WHOLE if _WHOLE in groups or not groups else groups[0]
    return [row for row in rows if row["group"] == group]


def _base(body: dict[str, Any]) -> str:
    return str(body.get("base", ""))


def _span(estimate: dict[str, Any]) -> str:
    return f"{points(estimate['low'], signed=True)} to {points(estimate['high'], signed=True)}"


def _known(estimate: dict[str, Any]) -> bool:
    """Whether it has an interval that says something."""
    return all(estimate[key] is not None and math.isfinite(estimate[key]) for key in _ENDS)


def _surely(difference: dict[str, Any]) -> bool:
    """Whether it is more than chance."""
    return _known(difference) and not difference["low"] <= 0 <= difference["high"]


def _within(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return ABSENT
    return "yes" if difference["value"] >= -GATE else "NO"


def _counted_on(body: dict[str, Any]) -> str:
    dataset = body.get("dataset") or {}
    if not dataset:
        return ""
    drawn = ", drawn scenes" if dataset.get("drawn") else ""
    items = f"{dataset['items']} items" if "items" in dataset else "items"
    return f"Counted on {items} of {dataset.get('source')} ({dataset.get('format')}{drawn})."
