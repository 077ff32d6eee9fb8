"""Drawings of `vlrt bench serve`: throughput by clients, and memory over time."""

from collections.abc import Mapping, Sequence
from typing import Any

from .plots import INK, colour, drawn
from .serve_steps import ALONE, BATCHING
from .wording import Figure, number, ratio_interval

_COLOURS = {BATCHING: colour("vlrt"), ALONE: colour("torch")}


def clients_of(count: int) -> str:
    """So many of them, in words."""
    return f"{count} client{'' if count == 1 else 's'}"


def throughput(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Requests a second by clients, with batching and without."""
    best = max(rows, key=lambda row: float(row["ratio"]["value"]))
    clients = [float(row["clients"]) for row in rows]

    def draw(axes: Any) -> None:
        axes.set_xscale("log", base=2)
        for name, shade in _COLOURS.items():
            axes.plot(clients, [row["medians"][name] for row in rows], color=shade, label=name)
            for at, row in zip(clients, rows, strict=True):
                taken = row["per_second"][name]
                axes.plot([at] * len(taken), taken, "o", markersize=3, color=shade, alpha=0.6)
        axes.set_xticks(clients, [f"{one:g}" for one in clients])
        axes.set_xlabel("clients")
        axes.set_ylabel("requests a second")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.legend(loc="upper left")

    return Figure(
        "Throughput by clients",
        "Closed loops; lines are medians, dots are rounds. More is better.",
        f"Two lines by clients. Batching gains most with {clients_of(best['clients'])}: "
        f"{ratio_interval(best['ratio'])} times.",
        drawn(draw, 2.6),
    )


def memory(title: str, used: Mapping[str, Any]) -> Figure:
    """Memory over time, with the line whose slope is given, if there is one."""
    times, values = zip(*used["samples"], strict=True)

    def draw(axes: Any) -> None:
        axes.plot(times, values, color=colour("vlrt"), linewidth=1.2)
        if "mib_per_hour" in used:
            middle, end = (times[0] + times[-1]) / 2, times[-1]
            begin = used["begin_mib"]
            rise = used["mib_per_hour"]["value"] * (end - middle) / 3600
            axes.plot([middle, end], [begin, begin + rise], "--", color=INK, linewidth=1)
        axes.set_ylim(0, 1.15 * max(values))
        axes.set_xlabel("seconds")
        axes.set_ylabel("MiB resident")
        axes.grid(axis="y")

    line = " The dashes are the line whose slope is given." if "mib_per_hour" in used else ""
    return Figure(
        title,
        f"The server's resident memory over time.{line}",
        f"One line over {number(times[-1])} seconds, from {number(values[0])} to "
        f"{number(values[-1])} MiB, at most {number(max(values))}.",
        drawn(draw, 2.2),
    )
