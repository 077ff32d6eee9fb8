"""How load is shown: latency against offered load to the knee, and throughput by clients."""

from collections.abc import Iterator
from typing import Any

from ..latency_plots import scaling
from ..plots import INK, colour, drawn, plain_ticks
from ..wording import ABSENT, Figure, Highlight, Table, number, spoken

_PERCENTILES = {"p50_ms": "-", "p90_ms": "--", "p99_ms": ":"}
_NOISY = "This machine was too noisy for a knee"


def headline(document: dict[str, Any]) -> str:
    """How much the contender that bears most bears."""
    contenders = document["body"].get("contenders", {})
    if not contenders:
        return ""
    name = max(contenders, key=lambda one: contenders[one]["knee_per_s"] or 0)
    found = contenders[name]
    alone = f"alone, one takes {number(found['alone_p50_ms'])} ms"
    if found["knee_per_s"] is None:
        noisy = any(one.get("too_noisy") for one in contenders.values())
        said = _NOISY if noisy else "No knee was found"
        return f"{said}. {spoken(name)}: {alone}"
    return f"{spoken(name)} keeps up with {number(found['knee_per_s'])} requests a second; {alone}"


def highlights(document: dict[str, Any]) -> list[Highlight]:
    """Each contender's knee."""
    return [
        Highlight(
            f"{number(found['knee_per_s'])} a second",
            f"the most that {spoken(name)} keeps up with",
            f"alone {number(found['alone_p50_ms'])} ms a request",
        )
        for name, found in document["body"].get("contenders", {}).items()
        if found["knee_per_s"] is not None
    ]


def tables(document: dict[str, Any]) -> list[Table]:
    """What each bears, both loops."""
    contenders = document["body"].get("contenders", {})
    if not contenders:
        return []
    whole = [
        [name, *(number(found[key]) for key in ("alone_p50_ms", "capacity_per_s")), _knee(found)]
        for name, found in contenders.items()
    ]
    opened = [
        [
            name,
            number(one["offered_per_s"]),
            number(one["per_second"]),
            *(number(one["summary"].get(key)) for key in _PERCENTILES),
            str(one["completed"]),
            "yes" if one["kept_up"] else "no",
        ]
        for name, found in contenders.items()
        for one in found["open"]
    ]
    closed = [
        [
            name,
            str(one["clients"]),
            number(one["per_second"]),
            *(number(one["summary"].get(key)) for key in _PERCENTILES),
            str(one["completed"]),
        ]
        for name, found in contenders.items()
        for one in found["closed"]
    ]
    times = ["p50 ms", "p90 ms", "p99 ms", "completed"]
    return [
        Table(
            "Load",
            ["contender", "alone, p50 ms", "capacity a second", "knee a second"],
            whole,
            "Alone: one request at a time. Knee: the highest offered load that it kept up with, at "
            "latencies that are still service; none where the capacity, measured again at the end, "
            "was another: too noisy.",
        ),
        Table(
            "Open loop: requests arrive at random",
            ["contender", "offered a second", "completed a second", *times, "kept up"],
            opened,
            "Poisson arrivals; a latency begins when the request arrives, not when it is taken up.",
        ),
        Table(
            "Closed loop: each client waits for its answer",
            ["contender", "clients", "completed a second", *times],
            closed,
        ),
    ]


def figures(document: dict[str, Any]) -> list[Figure]:
    """Drawings of both loops."""
    contenders = document["body"].get("contenders", {})
    closed = {
        name: {float(one["clients"]): one["per_second"] for one in found["closed"]}
        for name, found in contenders.items()
        if len(found["closed"]) > 1
    }
    title = "Closed loop: throughput by clients"
    scaled = [scaling(closed, title, "clients", "requests a second")] if closed else []
    return [*_open(contenders), *scaled]


def _open(contenders: dict[str, Any]) -> Iterator[Figure]:
    there = {
        name: found
        for name, found in contenders.items()
        if any(one["summary"] for one in found["open"])
    }
    if not there:
        return
    knees = "; ".join(
        f"{name} {'none found' if knee == ABSENT else knee}"
        for name, knee in ((name, _knee(one)) for name, one in there.items())
    )
    every = [one for found in there.values() for one in found["open"] if one["summary"]]
    x_limit = 1.05 * max(one["offered_per_s"] for one in every)
    times = [one["summary"][key] for one in every for key in _PERCENTILES]

    def draw(*axes: Any) -> None:
        for one, (name, found) in zip(axes, there.items(), strict=True):
            one.set_yscale("log")
            one.set_ylim(min(times) / 1.3, max(times) * 1.5)
            plain_ticks(one.yaxis, *one.get_ylim())
            one.set_xlim(0, x_limit)
            _draw_open(one, name, found)
        for one in axes:
            one.set_ylabel("milliseconds")
        axes[-1].set_xlabel("offered requests a second")

    yield Figure(
        "Open loop: latency against offered load",
        "Half of the requests (line), 90 % (dashes) and 99 % (dots) took no longer, waiting "
        "included. Hollow: it did not keep up. The upright line is the knee.",
        f"Latency percentiles on a logarithmic scale by offered load. Knees, a second: {knees}.",
        drawn(draw, 0.3 + 1.9 * len(there), panels=[1] * len(there), shared=True),
    )


def _knee(found: dict[str, Any]) -> str:
    """A contender's knee; or that there is none, and why."""
    if found["knee_per_s"] is None and found.get("too_noisy"):
        return "too noisy"
    return number(found["knee_per_s"])


def _draw_open(axes: Any, name: str, found: dict[str, Any]) -> None:
    points = sorted(
        (one for one in found["open"] if one["summary"]), key=lambda one: one["offered_per_s"]
    )
    shade = colour(name)
    xs = [one["offered_per_s"] for one in points]
    for key, dashes in _PERCENTILES.items():
        axes.plot(xs, [one["summary"][key] for one in points], dashes, color=shade)
        for one in points:
            face = shade if one["kept_up"] else "none"
            axes.plot(
                [one["offered_per_s"]], [one["summary"][key]], "o", markersize=4, color=shade,
                markerfacecolor=face,
            )  # fmt: skip
    knee = found["knee_per_s"]
    if knee is not None:
        axes.axvline(knee, color=INK, linewidth=1, alpha=0.6)
        axes.annotate(
            f"knee {number(knee)}", (knee, 0.97), xycoords=("data", "axes fraction"),
            xytext=(-4, 0), textcoords="offset points", va="top", ha="right",
        )  # fmt: skip
    axes.grid()
    none = f"{name}, {'too noisy for a knee' if found.get('too_noisy') else 'no knee found'}"
    axes.set_title(none if knee is None else name)
