"""How tuning is shown: the candidates, the default and the one that was chosen."""

from typing import Any

import numpy as np

from vlrt.tuned import Setup

from ..plots import INK, colour, drawn
from ..tune_setups import name_of as name_of_setup
from ..wording import ABSENT, Figure, Highlight, Table, number, ratio, ratio_interval


def headline(document: dict[str, Any]) -> str:
    """What was chosen, and what it gains."""
    body = document["body"]
    if not body.get("candidates"):
        return ""
    chosen, default = (name_of(body["candidates"][body[key]]) for key in ("chosen", "default"))
    if not body.get("settled", True):
        return f"This machine was too noisy to choose; the default stays: {default}"
    if chosen == default:
        return f"Nothing is faster here than the default, {default}"
    gain = body["gain"]
    return (
        f"{chosen} is {ratio(gain['value'])} times as fast as the default, {default} "
        f"[{ratio(gain['low'])}-{ratio(gain['high'])}]"
    )


def highlights(document: dict[str, Any]) -> list[Highlight]:
    """The gain, and the chosen candidate's median."""
    body = document["body"]
    if not body.get("candidates"):
        return []
    chosen = body["candidates"][body["chosen"]]
    made = [Highlight(f"{number(chosen['summary']['p50_ms'])} ms", f"median, {name_of(chosen)}")]
    gain = body.get("gain")
    if gain and body["chosen"] != body["default"]:
        limits = f"{ratio(gain['low'])} to {ratio(gain['high'])}, {body.get('verdict', '')}"
        says = "as fast as the default"
        made.insert(0, Highlight(f"{ratio(gain['value'])} times", says, limits.rstrip(", ")))
    return made


def tables(document: dict[str, Any]) -> list[Table]:
    """Every candidate, the fastest first."""
    body = document["body"]
    candidates = body.get("candidates", [])
    if not candidates:
        return []
    rows = []
    for index in _order(candidates):
        one, found = candidates[index], candidates[index]["summary"]
        marks = [key for key in ("default", "chosen") if body[key] == index]
        rows.append(
            [
                one["precision"],
                str(one["threads"]),
                _provider(one["provider"]),
                "yes" if one["spinning"] else "no",
                one.get("in", ABSENT),
                *(number(found[key]) for key in ("p50_ms", "p90_ms", "p99_ms", "per_second")),
                ", ".join(marks) or ABSENT,
            ]
        )
    header = ["precision", "threads", "provider", "threads spin", "measured in", "p50 ms",
              "p90 ms", "p99 ms", "a second", "mark"]  # fmt: skip
    written = body.get("written")
    gain = body.get("gain")
    note = "" if gain is None else (
        f"The fastest of the others is {ratio_interval(gain)} times as fast as the default: "
        f"{body.get('verdict', ABSENT)}. "
    )  # fmt: skip
    note += f"The choice was written to {written}." if written else "Nothing was written."
    return [Table("Candidates", header, rows, note)]


def figures(document: dict[str, Any]) -> list[Figure]:
    """The candidates' times."""
    body = document["body"]
    candidates = body.get("candidates", [])
    if not candidates:
        return []
    order = _order(candidates)
    said = "; ".join(
        f"{name_of(candidates[i])} {number(candidates[i]['summary']['p50_ms'])} ms" for i in order
    )
    return [
        Figure(
            "Candidates, the fastest first",
            "Medians (dots) and the middle 80 % of runs (lines). A ring is the default, the filled "
            "diamond what was chosen.",
            f"Dots with lines. Medians: {said}.",
            drawn(lambda axes: _draw(axes, body, order), 0.7 + 0.24 * len(candidates)),
        )
    ]


def name_of(candidate: dict[str, Any]) -> str:
    """A candidate in words: "int8 with 2 threads on CPU"."""
    said = name_of_setup(Setup(*(candidate[field] for field in Setup._fields)))
    return said + ("" if candidate.get("spinning", True) else ", threads do not spin")


def _provider(name: str) -> str:
    return str(name).removesuffix("ExecutionProvider")


def _order(candidates: list[dict[str, Any]]) -> list[int]:
    return sorted(range(len(candidates)), key=lambda i: float(candidates[i]["summary"]["p50_ms"]))


def _draw(axes: Any, body: dict[str, Any], order: list[int]) -> None:
    names = []
    for y, index in enumerate(order):
        one = body["candidates"][index]
        taken = 1e3 * np.concatenate([np.asarray(r, float) for r in one["samples"]])
        low, middle, high = np.percentile(taken, (10, 50, 90))
        shade = colour(f"vlrt-{one['precision']}")
        axes.plot([low, high], [y, y], color=shade)
        chosen = index == body["chosen"]
        marker, size = ("D", 7) if chosen else ("o", 5)
        axes.plot([middle], [y], marker=marker, markersize=size, color=shade)
        if index == body["default"]:
            axes.plot(
                [middle], [y], marker="o", markersize=12, color=INK, markerfacecolor="none",
                markeredgewidth=1,
            )  # fmt: skip
        marks = [key for key in ("default", "chosen") if body[key] == index]
        names.append(name_of(one) + (f" ({' and '.join(marks)})" if marks else ""))
    axes.set_xlim(0, axes.get_xlim()[1])
    axes.set_yticks(range(len(order)), names)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_xlabel("milliseconds a run")
