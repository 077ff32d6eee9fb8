"""Drawings of latency: ratios, distributions, stages, scaling with batch and with threads."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .plots import INK, colour, density, drawn, end_labels, plain_ticks, ratio_axis
from .wording import Figure, by_base, in_order, number, ratio

# The way of a picture through a model, in order, as far as it is measured stage by stage.
_WAY = (
    "decode and preprocess",
    "decode",
    "preprocess",
    "encode image",
    "encode text",
    "encode image and text",
    "post-process",
)
_BAR = 0.17  # inches a bar


def ratio_bars(body: dict[str, Any]) -> Iterator[Figure]:
    """For each base and batch size, each stage's ratios to it, with their intervals."""
    parts = (
        (base, batch, [row for row in rows if row["batch"] == batch and _others(row, base)])
        for base, rows in by_base(body).items()
        for batch in sorted({row["batch"] for row in rows})
    )
    for base, batch, rows in parts:
        if not rows:
            continue
        count = sum(len(_others(row, base)) + 1.2 for row in rows)
        best = max(
            ((found["value"], name, row["stage"]) for row in rows
             for name, found in _others(row, base).items())
        )  # fmt: skip
        yield Figure(
            f"Times as fast as {base}, batch {batch}",
            "Ratios of medians on a logarithmic scale; right of the line is faster. Whiskers hold "
            "the ratio with 95 % confidence; the grey band is the machine's noise.",
            f"Horizontal bars for {len(rows)} stages. The highest ratio is {ratio(best[0])}, by "
            f"{best[1]} in {best[2]}.",
            drawn(
                lambda axes, rows=rows, base=base: _draw_ratios(axes, rows, base),
                0.75 + _BAR * count,
            ),
        )


def _others(row: dict[str, Any], base: str) -> dict[str, Any]:
    return {name: row["ratios"][name] for name in in_order(row["ratios"]) if name != base}


def _draw_ratios(axes: Any, rows: Sequence[dict[str, Any]], base: str) -> None:
    every = [one for row in rows for one in _others(row, base).values()]
    # Intervals of a noisy machine may reach far: they are cut off, and the values stay readable.
    values = [one["value"] for one in every]
    low = min(0.97, max(min(one["low"] for one in every) / 1.06, min(values) / 4))
    high = max(1.1, min(max(one["high"] for one in every), max(values) * 3)) * 1.25
    ratio_axis(axes, low, high, f"times as fast as {base}")
    y = 0.0
    places: list[float] = []
    names: list[str] = []
    headings: list[int] = []
    for row in rows:
        places.append(y)
        names.append(row["stage"] + (f", {row['detail']}" if row["detail"] else ""))
        headings.append(len(names) - 1)
        noise = row.get("noise")
        first = y + 0.5
        for name, found in _others(row, base).items():
            y += 1
            places.append(y)
            names.append(name)
            value = found["value"]
            axes.barh(y, value - 1, left=1, height=0.74, color=colour(name))
            axes.plot([found["low"], found["high"]], [y, y], color=INK, linewidth=1, alpha=0.75)
            end = min(max(found["high"], value, 1), high / 1.2)
            axes.annotate(
                ratio(value), (end, y), xytext=(4, 0), textcoords="offset points", va="center"
            )
        if noise:
            axes.fill_betweenx(
                [first, y + 0.5], noise["low"], noise["high"], color=INK, alpha=0.09, linewidth=0
            )
        y += 1.2
    labels = axes.set_yticks(places, names)
    for heading in headings:
        labels[heading].label1.set_fontweight("bold")
    axes.set_ylim(y - 0.6, -0.7)


def distributions(body: dict[str, Any], stages: Sequence[str]) -> Iterator[Figure]:
    """How the times of single runs are spread, for the smallest batch of some stages."""
    for stage in dict.fromkeys(stages):
        rows = [row for row in body["rows"] if row["stage"] == stage and row["samples"]]
        if not rows:
            continue
        row = min(rows, key=lambda one: (one["batch"], bool(one["detail"])))
        summary = row["summary"]
        medians = "; ".join(f"{n} {number(one['p50_ms'])} ms" for n, one in summary.items())
        yield Figure(
            f"Every run of {stage}, batch {row['batch']}",
            "Where the times of single runs lie, on a logarithmic scale: the median (line), 90 % "
            "(tick) and 99 % (dot) of runs took no longer.",
            f"Distributions of milliseconds by contender. Medians: {medians}.",
            drawn(
                lambda axes, row=row: _draw_spread(axes, row, body.get("base", "")),
                0.6 + 0.36 * len(summary),
            ),
        )


def _draw_spread(axes: Any, row: dict[str, Any], base: str) -> None:
    names = in_order(row["samples"], base)
    taken = {
        name: 1e3 * np.concatenate([np.asarray(one, float) for one in row["samples"][name]])
        for name in names
    }
    whole = np.concatenate(list(taken.values()))
    low, high = whole.min() / 1.1, np.quantile(whole, 0.999) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    plain_ticks(axes.xaxis, low, high)
    axes.grid(axis="x")
    grid = np.linspace(np.log(low), np.log(high), 160)
    for y, name in enumerate(names):
        height = 0.42 * density(np.log(taken[name]), grid)
        seen = height > 0.002
        shade = colour(name)
        axes.fill_between(
            np.exp(grid), y - height, y + height, where=seen, color=shade, alpha=0.55, linewidth=0
        )
        p50, p90, p99 = np.percentile(taken[name], (50, 90, 99))
        axes.plot([p50, p50], [y - 0.42, y + 0.42], color=INK, linewidth=1.6)
        axes.plot([p90, p90], [y - 0.2, y + 0.2], color=INK, linewidth=1.1)
        axes.plot([p99], [y], marker="o", markersize=3, color=INK, linewidth=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.6)
    axes.set_xlabel("milliseconds a run")


def breakdown(body: dict[str, Any]) -> Iterator[Figure]:
    """Where one item's time goes, for contenders that were measured in at least two stages."""
    batch = min(row["batch"] for row in body["rows"])
    parts = _parts(body, batch)
    stages = [stage for stage in _WAY if any(stage in one for one in parts.values())]
    if len(stages) < 2 or not parts:
        return
    sums = "; ".join(f"{name} {number(sum(one.values()))} ms" for name, one in parts.items())
    yield Figure(
        f"Where the time goes, batch {batch}",
        "Medians of the stages, one after another; of texts the smallest number measured. A whole "
        "run can differ from the sum: stages share caches, and texts can be encoded once.",
        f"Stacked bars of {', '.join(stages)}. Sums: {sums}.",
        drawn(lambda axes: _draw_parts(axes, parts, stages), 0.9 + 0.3 * len(parts)),
    )


def _parts(body: dict[str, Any], batch: int) -> dict[str, dict[str, float]]:
    """Contender -> stage -> median in ms, of contenders that have more than one of the way."""
    parts: dict[str, dict[str, float]] = {}
    for row in body["rows"]:
        if row["batch"] != batch or row["stage"] not in _WAY:
            continue
        for name, found in row["summary"].items():
            parts.setdefault(name, {}).setdefault(row["stage"], found["p50_ms"])
    for found in parts.values():
        if "decode" in found and "preprocess" in found:
            found.pop("decode and preprocess", None)
    whole = max((len(found) for found in parts.values()), default=0)
    complete = [name for name, found in parts.items() if 1 < len(found) >= whole - 1]
    return {name: parts[name] for name in in_order(complete, body.get("base", ""))}


def _draw_parts(axes: Any, parts: dict[str, dict[str, float]], stages: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    strength = dict(zip(stages, np.linspace(0.3, 1, len(stages)), strict=True))
    longest = max(sum(found.values()) for found in parts.values())
    for y, (name, found) in enumerate(parts.items()):
        left = 0.0
        for stage in (stage for stage in stages if stage in found):
            axes.barh(
                y, found[stage], left=left, height=0.66, color=colour(name), alpha=strength[stage]
            )
            left += found[stage]
        axes.annotate(
            number(left), (left, y), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axes.set_xlim(0, longest * 1.13)
    axes.set_yticks(range(len(parts)), list(parts))
    axes.set_ylim(len(parts) - 0.45, -0.55)
    axes.grid(axis="x")
    axes.set_xlabel("milliseconds")
    handles = [Patch(color=INK, alpha=0.75 * strength[stage], label=stage) for stage in stages]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, borderpad=0,
        handlelength=1, columnspacing=1.2,
    )  # fmt: skip


def by_batch(body: dict[str, Any], stages: Sequence[str]) -> Iterator[Figure]:
    """Items a second by batch size, of those of the stages that were measured with several."""
    for stage in dict.fromkeys(stages):
        rows = [row for row in body["rows"] if row["stage"] == stage]
        lines: dict[str, dict[float, float]] = {}
        for row in rows:
            for name, found in row["summary"].items():
                lines.setdefault(name, {}).setdefault(row["batch"], found["per_second"])
        if len({row["batch"] for row in rows}) > 1:
            yield scaling(lines, f"Throughput by batch, {stage}", "batch size", "items a second")


def scaling(lines: dict[str, dict[float, float]], title: str, x_label: str, y_label: str) -> Figure:
    """Lines over a size that doubles: contender -> size -> value."""
    top = max(((y, x, name) for name, line in lines.items() for x, y in line.items()))
    return Figure(
        title,
        f"{y_label[0].upper()}{y_label[1:]}, more is better.",
        f"Lines by contender. The most is {number(top[0])} {y_label}, by {top[2]} at {x_label} "
        f"{top[1]:g}.",
        drawn(lambda axes: _draw_scaling(axes, lines, x_label, y_label), 2.9),
    )


def _draw_scaling(
    axes: Any, lines: dict[str, dict[float, float]], x_label: str, y_label: str
) -> None:
    sizes = sorted({x for line in lines.values() for x in line})
    axes.set_xscale("log", base=2)
    ends = []
    for name, line in lines.items():
        xs = sorted(line)
        ys = [line[x] for x in xs]
        axes.plot(xs, ys, color=colour(name), marker="o", markersize=4)
        ends.append((xs[-1], ys[-1], name, colour(name)))
    axes.set_ylim(0, max(y for line in lines.values() for y in line.values()) * 1.08)
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    end_labels(axes, ends, gap=0.075)
