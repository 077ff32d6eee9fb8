"""Drawings of accuracy: each measure, differences to the base, and speed against accuracy."""

from collections.abc import Iterator
from typing import Any

from .plots import INK, colour, drawn, plain_ticks
from .wording import Figure, number, points

# Groups are told apart by shape, contenders by colour.
_MARKERS = "oDs^vP*X"


def dots(body: dict[str, Any]) -> Iterator[Figure]:
    """Every measure of every contender, with intervals; a panel a measure."""
    measures = list(dict.fromkeys(row["measure"] for row in body["rows"]))
    counts = [
        len({row["contender"] for row in body["rows"] if row["measure"] == one}) for one in measures
    ]
    groups = list(dict.fromkeys(row["group"] for row in body["rows"]))
    height = 0.35 + 0.45 * len(measures) + 0.27 * sum(counts)
    best = max(body["rows"], key=lambda row: float(row["value"]))

    def draw(*axes: Any) -> None:
        for one, measure in zip(axes, measures, strict=True):
            rows = [row for row in body["rows"] if row["measure"] == measure]
            _draw_measure(one, rows, groups)
            one.set_title(measure)
        axes[-1].set_xlabel("points out of 100")
        if len(groups) > 1:
            _group_legend(axes[0], groups)

    yield Figure(
        "Accuracy",
        "Dots are what was counted, lines hold it with 95 % confidence.",
        f"Dots by contender for {', '.join(measures)}. The highest is {points(best['value'])} "
        f"{best['measure']}, by {best['contender']}.",
        drawn(draw, height, panels=counts),
    )


def _draw_measure(axes: Any, rows: list[dict[str, Any]], groups: list[str]) -> None:
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    for row in rows:
        y = contenders.index(row["contender"]) + _shift(groups, row["group"])
        shade = colour(row["contender"])
        if row["low"] is not None:
            axes.plot([100 * row["low"], 100 * row["high"]], [y, y], color=shade, linewidth=1.6)
        marker = _MARKERS[groups.index(row["group"]) % len(_MARKERS)]
        axes.plot([100 * row["value"]], [y], marker=marker, color=shade, markersize=5.5)
    axes.set_yticks(range(len(contenders)), contenders)
    axes.set_ylim(len(contenders) - 0.5, -0.5)
    ends = [100 * row[k] for row in rows for k in ("low", "value", "high") if row[k] is not None]
    low, high = min(*ends, max(ends) - 2), max(ends)  # two points at least
    margin = 0.06 * (high - low)
    axes.set_xlim(low - margin, min(high + margin, 100 + margin / 2))
    axes.grid(axis="x")


def _shift(groups: list[str], group: str) -> float:
    if len(groups) == 1:
        return 0.0
    return 0.5 * (groups.index(group) / (len(groups) - 1) - 0.5)


def _group_legend(axes: Any, groups: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=_MARKERS[i % len(_MARKERS)], color=INK, linewidth=0, label=group)
        for i, group in enumerate(groups)
    ]
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1.02, 1), ncols=4, borderpad=0,
        handletextpad=0.1, columnspacing=1,
    )  # fmt: skip


def differences(body: dict[str, Any], gate: float) -> Iterator[Figure]:
    """Each contender less the base, with the gate marked."""
    rows = [row for row in body["rows"] if row["difference"] and row["contender"] != body["base"]]
    if not rows:
        return
    labels = [
        f"{row['contender']}, {row['measure']}"
        + ("" if row["group"] == "all" else f" of {row['group']}")
        for row in rows
    ]
    worst = min(rows, key=lambda row: float(row["difference"]["value"]))
    yield Figure(
        f"Less {body['base']}",
        f"Points lost (left) or won (right), the same items compared. Inside the band: within the "
        f"gate of {100 * gate:g} point.",
        f"Dots with intervals. The lowest difference is "
        f"{points(worst['difference']['value'], signed=True)} points, by {worst['contender']} in "
        f"{worst['measure']}.",
        drawn(lambda axes: _draw_differences(axes, rows, labels, gate), 0.7 + 0.23 * len(rows)),
    )


def _draw_differences(
    axes: Any, rows: list[dict[str, Any]], labels: list[str], gate: float
) -> None:
    axes.axvspan(-100 * gate, 100 * gate, color=INK, alpha=0.07, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1.1)
    for y, row in enumerate(rows):
        found = row["difference"]
        shade = colour(row["contender"])
        if found["low"] is not None:
            axes.plot([100 * found["low"], 100 * found["high"]], [y, y], color=shade)
        axes.plot([100 * found["value"]], [y], marker="o", color=shade, markersize=5)
    widest = max(abs(bound) for bound in axes.get_xlim())
    axes.set_xlim(-max(widest, 130 * gate), max(widest, 130 * gate))
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_xlabel("points")


def speed_against_accuracy(
    both: dict[str, tuple[float, dict[str, Any]]], measure: str, where: str
) -> Figure:
    """Contenders by milliseconds and by accuracy.

    Args:
        both: contender -> median milliseconds, and its row of the measure.
        measure: of accuracy.
        where: what the milliseconds are of.
    """
    said = "; ".join(
        f"{name} {number(milliseconds)} ms and {points(row['value'])}"
        for name, (milliseconds, row) in both.items()
    )
    return Figure(
        "Speed against accuracy",
        "The upper left corner is best. Lines hold the accuracy with 95 % confidence.",
        f"Points by median milliseconds ({where}) and {measure}: {said}.",
        drawn(lambda axes: _draw_trade(axes, both, measure, where), 3.3),
    )


def _draw_trade(
    axes: Any, both: dict[str, tuple[float, dict[str, Any]]], measure: str, where: str
) -> None:
    times = [milliseconds for milliseconds, _ in both.values()]
    low, high = min(times) / 1.3, max(times) * 1.9
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    plain_ticks(axes.xaxis, low, high)
    for name, (milliseconds, row) in both.items():
        shade = colour(name)
        if row["low"] is not None:
            ends = [100 * row["low"], 100 * row["high"]]
            axes.plot([milliseconds] * 2, ends, color=shade, linewidth=1.2, alpha=0.6)
        axes.plot([milliseconds], [100 * row["value"]], marker="o", markersize=8, color=shade)
    axes.margins(y=0.12)
    _place_names(axes, both)
    axes.grid()
    axes.set_xlabel(f"median milliseconds, {where}")
    axes.set_ylabel(f"{measure}, points")


def _place_names(axes: Any, both: dict[str, tuple[float, dict[str, Any]]]) -> None:
    """Names beside their points; one that would lie on another moves up or down."""
    axes.autoscale_view()  # now, for what follows asks where things lie
    to_share = axes.transData + axes.transAxes.inverted()
    taken: list[tuple[float, float]] = []
    for name, (milliseconds, row) in sorted(both.items(), key=lambda one: -one[1][1]["value"]):
        x, y = to_share.transform((milliseconds, 100 * row["value"]))
        height = y
        while any(
            abs(x - other_x) < 0.3 and abs(height - other) < 0.07 for other_x, other in taken
        ):
            height -= 0.01
        taken.append((x, height))
        axes.annotate(
            name, (x, height), xycoords="axes fraction", xytext=(8, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
