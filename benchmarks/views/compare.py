"""How a comparison is shown: what differs, what changed, and what is in one result alone."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..plots import INK, colour, drawn, ratio_axis
from ..wording import (
    ABSENT,
    Figure,
    Highlight,
    Table,
    number,
    points,
    points_interval,
    ratio,
    ratio_interval,
)

_ORDER = ("faster", "less", "higher", "slower", "more", "lower")


def headline(document: dict[str, Any]) -> str:
    """How many rows changed, and which way; what the base did is most likely the machine's."""
    rows = _about(document["body"])
    if not rows:
        return ""
    said = f"B against A, {len(rows)} rows: {_counted(rows)}"
    others = [row for row in document["body"]["rows"] if row not in rows]
    if not others:
        return said
    base = document["body"]["base"]
    as_far = "" if all(row["normalised"] for row in rows) else " as far as that can be"
    return f"{said}, normalised by {base}{as_far}, which itself is: {_counted(others)}"


def highlights(document: dict[str, Any]) -> list[Highlight]:
    """How many rows got each verdict."""
    counts = Counter(_verdict(row) for row in _about(document["body"]))
    return [Highlight(str(count), f"rows: {word}") for word, count in counts.most_common()]


def tables(document: dict[str, Any]) -> list[Table]:
    """Conditions that differ first, then every row."""
    body = document["body"]
    if not body:
        return []
    keys = ("title", "date", "processor", "commit", "load_average", "command")
    both = [
        [key.replace("_", " "), *(_text(body[side].get(key)) for side in ("a", "b"))]
        for key in keys
    ]
    made = [Table("A and B", ["fact", "A", "B"], both)]
    differs = [[one["what"], one["a"], one["b"]] for one in body["differs"]]
    if differs:
        made.append(Table("What differs in their conditions", ["what", "A", "B"], differs))
    else:
        made[0] = Table("A and B", ["fact", "A", "B"], both, "Their conditions are the same.")
    if body["rows"]:
        made.append(_changes(body))
    alone = [[name, side] for side in ("a", "b") for name in body[f"only_{side}"]]
    if alone:
        made.append(Table("In one alone", ["what", "in"], [[w, s.upper()] for w, s in alone]))
    return made


def figures(document: dict[str, Any]) -> list[Figure]:
    """Changes with their intervals; normalised ones where there are."""
    body = document["body"]
    rows = [row for row in _about(body) if _shown(row)["low"] is not None]
    if not rows:
        return []
    of_accuracy = body["of"] == "accuracy"
    said = points if of_accuracy else ratio
    least, most = (
        choose(rows, key=lambda row: float(_shown(row)["value"])) for choose in (min, max)
    )
    caption = (
        "B less A in points; to the right of the line is better."
        if of_accuracy
        else f"{_quotient(body)}; to the right of the line B is better."
    )
    if any(row["normalised"] for row in rows):
        caption += f" Where it can be, normalised by {body['base']}: another machine cancels."
    alt = (
        f"Dots with intervals. The lowest is {said(_shown(least)['value'])}, {_name(least)}; the "
        f"highest {said(_shown(most)['value'])}, {_name(most)}."
    )
    height = 0.7 + 0.19 * (len(rows) + 1.2 * len({row["work"] for row in rows}))
    svg = drawn(lambda axes: _draw(axes, rows, of_accuracy=of_accuracy), height)
    return [Figure("What changed", caption, alt, svg)]


def _shown(row: dict[str, Any]) -> Any:
    """The change that a verdict is about: the normalised one, if there is one."""
    return row["normalised"] or row["change"]


def _about(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a comparison is about: where some are normalised, not the base's own."""
    rows: list[dict[str, Any]] = body.get("rows", [])
    if not any(row["normalised"] for row in rows):
        return rows
    return [row for row in rows if row["contender"] != body["base"]]


def _counted(rows: Sequence[dict[str, Any]]) -> str:
    counts = Counter(map(_verdict, rows))
    ordered = sorted(counts, key=lambda word: _ORDER.index(word) if word in _ORDER else len(_ORDER))
    return ", ".join(f"{counts[word]} {word}" for word in ordered)


def _verdict(row: dict[str, Any]) -> str:
    return str(_shown(row)["verdict"])


def _name(row: dict[str, Any]) -> str:
    return f"{row['contender']}, {row['work']}"


def _quotient(body: dict[str, Any]) -> str:
    """What a change is."""
    said = "A's median over B's"
    rates = any(row.get("more_is_better") for row in body["rows"])
    return f"{said}, of rates B's over A's" if rates else said


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return ABSENT if value is None else str(value)


def _changes(body: dict[str, Any]) -> Table:
    if body["of"] == "accuracy":
        rows = [
            [
                row["work"], row["contender"], points(row["a"]), points(row["b"]),
                points_interval(row["change"], signed=True),
                "yes" if row["change"].get("paired") else "no", _verdict(row),
            ]
            for row in body["rows"]
        ]  # fmt: skip
        header = ["measure", "contender", "A", "B", "B less A [95 %]", "paired", "verdict"]
        note = "Points out of 100. Paired: the same items on both sides, compared one by one."
        return Table("What changed", header, rows, note)
    normalised = any(row["normalised"] for row in body["rows"])
    rows = []
    for row in body["rows"]:
        cells = [row["work"], row["contender"], *(f"{number(row[s])} {row['unit']}" for s in "ab"),
                 _change(row["change"]), row["change"]["verdict"]]  # fmt: skip
        if normalised:
            found = row["normalised"]
            cells += [_change(found), found["verdict"] if found else ABSENT]
        rows.append(cells)
    header = ["what", "contender", "A", "B", "change", "verdict"]
    note = (
        f"Change: {_quotient(body)}, with the interval that holds it with 95 % confidence; above 1 "
        "B is better. The two did not take turns: another state of the machine looks like a change."
    )
    if body.get("floor"):
        note += (
            f" Where no noise was measured, less than {body['floor']:.0%} counts as none; of exact "
            "sizes, everything counts."
        )
    if normalised:
        header += [f"normalised by {body['base']}", "verdict"]
        note += f" The quotient of both ratios to {body['base']} does not have that fault."
    return Table("What changed", header, rows, note)


def _change(found: dict[str, Any] | None) -> str:
    if found is None:
        return ABSENT
    return ratio(found["value"]) if found["low"] is None else ratio_interval(found)


def _draw(axes: Any, rows: list[dict[str, Any]], *, of_accuracy: bool) -> None:
    scale = 100 if of_accuracy else 1
    ends = [scale * _shown(row)[key] for row in rows for key in ("low", "high")]
    if of_accuracy:
        axes.axvline(0, color=INK, linewidth=1.1)
        axes.grid(axis="x")
        axes.set_xlabel("B less A, points")
    else:
        ratio_axis(axes, min(0.95, *ends) / 1.01, max(1.05, *ends) * 1.01, "change")
    y = 0.0
    places: list[float] = []
    names: list[str] = []
    headings: list[int] = []
    for work in dict.fromkeys(row["work"] for row in rows):
        headings.append(len(names))
        names.append(work)
        places.append(y)
        for row in (row for row in rows if row["work"] == work):
            y += 1
            names.append(row["contender"])
            places.append(y)
            found, shade = _shown(row), colour(row["contender"])
            axes.plot([scale * found["low"], scale * found["high"]], [y, y], color=shade)
            axes.plot([scale * found["value"]], [y], marker="o", markersize=5, color=shade)
        y += 1.2
    labels = axes.set_yticks(places, names)
    for heading in headings:
        labels[heading].label1.set_fontweight("bold")
    axes.set_ylim(y - 0.6, -0.7)
