"""How footprint is shown: start, memory and disk beside the base's."""

from typing import Any

from ..plots import INK, colour, drawn
from ..wording import ABSENT, Figure, Highlight, Table, is_ours, number, ratio, spoken

_LARGE = ("cold start", "peak memory", "steady memory", "model", "installed environment")


def headline(document: dict[str, Any]) -> str:
    """The first measure's ratio, and how much smaller the environment is, if it was measured."""
    body = document["body"]
    said = []
    for row in body.get("rows", ()):
        name = _smallest(row)
        if name is not None and body["base"] in row["medians"]:
            said.append((row, name))
    if not said:
        return ""
    row, name = said[0]
    ours, theirs = (f"{number(row['medians'][one])} {row['unit']}" for one in (name, body["base"]))
    return f"{spoken(name)}: {row['measure']} {ours}, where {spoken(body['base'])} has {theirs}"


def highlights(document: dict[str, Any]) -> list[Highlight]:
    """Each measure's smallest of ours, beside the base's."""
    body = document["body"]
    found = []
    for row in body.get("rows", ()):
        name = _smallest(row)
        if name is None or row["measure"] not in _LARGE:
            continue
        theirs = row["medians"].get(body["base"])
        limits = "" if theirs is None else (
            f"{spoken(body['base'])}: {number(theirs)} {row['unit']}"
        )  # fmt: skip
        value = f"{number(row['medians'][name])} {row['unit']}"
        found.append(Highlight(value, f"{row['measure']}, {spoken(name)}", limits))
    return found


def tables(document: dict[str, Any]) -> list[Table]:
    """Medians and ratios; the environments."""
    body = document["body"]
    rows = body.get("rows", ())
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row["medians"]))
    cells = [
        [f"{row['measure']}, {row['unit']}", *(_cell(row, name, body["base"]) for name in names)]
        for row in rows
    ]
    note = (
        f"Medians; in brackets the share of what {body['base']} takes, with the interval that "
        "holds it with 95 % confidence. Less is better."
    )
    return [Table("Footprint", ["measure", *names], cells, note), *_environments(body)]


def figures(document: dict[str, Any]) -> list[Figure]:
    """Bars side by side: a figure a unit, a panel a measure."""
    body = document["body"]
    units = dict.fromkeys(row["unit"] for row in body.get("rows", ()) if row["medians"])
    return [
        _figure([row for row in body["rows"] if row["unit"] == unit and row["medians"]], body)
        for unit in units
    ]


def _figure(rows: list[dict[str, Any]], body: dict[str, Any]) -> Figure:
    """What has one unit."""
    bars = sum(len(row["medians"]) for row in rows)
    said = "; ".join(
        f"{row['measure']}: "
        + ", ".join(f"{name} {number(one)} {row['unit']}" for name, one in row["medians"].items())
        for row in rows
    )

    def draw(*axes: Any) -> None:
        for one, row in zip(axes, rows, strict=True):
            _draw(one, row, body["base"])

    height = 0.24 * bars + 0.38 * len(rows) + 0.1
    title = ", ".join(row["measure"] for row in rows)
    return Figure(
        title[:1].upper() + title[1:],
        f"Medians; less is better. In brackets: the share of what {body['base']} takes.",
        f"Bars. {said}.",
        drawn(draw, height, panels=[len(row["medians"]) for row in rows]),
    )


def _smallest(row: dict[str, Any]) -> str | None:
    ours = {name: value for name, value in row["medians"].items() if is_ours(name)}
    return min(ours, key=lambda name: float(ours[name])) if ours else None


def _cell(row: dict[str, Any], name: str, base: str) -> str:
    if name not in row["medians"]:
        return ABSENT
    value = number(row["medians"][name])
    found = row["ratio"].get(name)
    if found is None or name == base:
        return value
    span = ""
    if found["low"] is not None and found["low"] != found["high"]:
        span = f", {ratio(found['low'])}-{ratio(found['high'])}"
    return f"{value} [{ratio(found['value'])}{span}]"


def _draw(axes: Any, row: dict[str, Any], base: str) -> None:
    names = list(row["medians"])
    longest = max(row["medians"].values()) or 1
    for y, name in enumerate(names):
        value = row["medians"][name]
        axes.barh(y, value, height=0.72, color=colour(name))
        share = row["ratio"].get(name)
        after = f"  ({ratio(share['value'])})" if share and name != base else ""
        axes.annotate(
            f"{number(value)}{after}", (value, y), xytext=(4, 0), textcoords="offset points",
            va="center",
        )  # fmt: skip
        samples = row["samples"].get(name, ())
        if len(samples) > 1:
            axes.plot([min(samples), max(samples)], [y, y], color=INK, linewidth=1, alpha=0.75)
    axes.set_xlim(0, longest * 1.25)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_title(f"{row['measure']}, {row['unit']}")


def _environments(body: dict[str, Any]) -> list[Table]:
    found = body.get("environments")
    if not found:
        return []
    made = []
    for name, one in found.items():
        versions = one.get("versions", {})
        rows = [
            [package, versions.get(package, ABSENT), number(size / 1e6)]
            for package, size in one["packages"].items()
        ]
        note = f"{number(one['bytes'] / 1e6)} MB, of: pip install {' '.join(one['requirements'])}"
        header = ["package", "version", "MB"]
        made.append(Table(f"Environment of {name}", header, rows, note, folded=True))
    return made
