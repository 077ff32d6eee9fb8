"""What of a result can be compared: (work, contender) -> its value, unit and samples."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .wording import base_of, work

_BLOCKS = 10  # that a closed loop's latencies are cut into, in the place of rounds
_Entries = Iterator[tuple[tuple[str, str], dict[str, Any]]]


def _of_latency(body: Mapping[str, Any]) -> _Entries:
    for row in body.get("rows", ()):
        # Where the base lacks the stage, ratios are to another, and normalise nothing.
        to_base = row["ratios"] if base_of(row, body) == body.get("base") else {}
        for name, rounds in row["samples"].items():
            yield (
                (work(row), name),
                {
                    "value": row["summary"][name]["p50_ms"],
                    "unit": "ms",
                    "rounds": rounds,
                    "to_base": to_base.get(name),
                    "noise": row.get("noise"),
                },
            )


def _of_accuracy(body: Mapping[str, Any]) -> _Entries:
    # Objects are found again in pictures where the base finds some: it decides which items count.
    paired = (body.get("dataset") or {}).get("format") != "coco"
    for row in body.get("rows", ()):
        whole, measure = row["group"] == "all", row["measure"]
        items = body.get("items", {}).get(row["contender"], {}).get(measure) if paired else None
        shared = body.get("pictures", {}).get(measure)
        if not whole:  # older results do not say which items a group has
            positions = body.get("positions", {}).get(row["group"])
            items, shared = (_at(of_all, positions) for of_all in (items, shared))
        yield (
            (measure if whole else f"{measure} of {row['group']}", row["contender"]),
            {**row, "unit": "points", "items": items, "pictures": shared},
        )


def _at(values: Sequence[Any] | None, positions: Sequence[int] | None) -> list[Any] | None:
    return None if values is None or positions is None else [values[i] for i in positions]


def _of_footprint(body: Mapping[str, Any]) -> _Entries:
    for row in body.get("rows", ()):
        for name, samples in row["samples"].items():
            rounds = [[float(one)] for one in samples]
            value = row["medians"][name]
            exact = len(rounds) == 1  # such as bytes: the same on any machine, in any state
            yield (
                (row["measure"], name),
                {
                    "value": value,
                    "unit": row["unit"],
                    "rounds": rounds,
                    "exact": exact,
                    "to_base": None if exact else row["ratio"].get(name),
                },
            )


def _of_load(body: Mapping[str, Any]) -> _Entries:
    for name, found in body.get("contenders", {}).items():
        for what in ("capacity", "knee"):
            value = found[f"{what}_per_s"]
            if value is not None:
                rate = {"value": value, "unit": "a second", "rounds": [], "more_is_better": True}
                yield (what, name), rate
        for one in found["closed"]:
            taken = one["latencies_s"]
            size = math.ceil(len(taken) / _BLOCKS) or 1
            yield (
                (f"closed loop, {one['clients']} clients", name),
                {
                    "value": one["summary"].get("p50_ms"),
                    "unit": "ms",
                    "rounds": [taken[at : at + size] for at in range(0, len(taken), size)],
                },
            )


def _of_serve(body: Mapping[str, Any]) -> _Entries:
    for row in body.get("compare_batching", {}).get("rows", ()):
        for name, rates in row["per_second"].items():
            yield (
                (f"requests a second, {row['clients']} clients", name),
                {
                    "value": row["medians"][name],
                    "unit": "a second",
                    "rounds": [[one] for one in rates],
                    "more_is_better": True,
                },
            )


def _of_tune(body: Mapping[str, Any]) -> _Entries:
    from .views.tune import name_of

    for one in body.get("candidates", ()):
        yield (
            ("tuning", name_of(one)),
            {"value": one["summary"]["p50_ms"], "unit": "ms", "rounds": one["samples"]},
        )


ENTRIES = {
    "latency": _of_latency,
    "accuracy": _of_accuracy,
    "footprint": _of_footprint,
    "load": _of_load,
    "serve": _of_serve,
    "tune": _of_tune,
}
