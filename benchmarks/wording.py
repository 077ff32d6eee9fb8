"""How reports write numbers, intervals and names; and the tables they put them in."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "-"
_ENGINES = {
    "torch-compile": "torch.compile",
    "torch": "PyTorch",
    "pipeline": "transformers' pipeline",
    "openvino": "OpenVINO",
    "optimum": "optimum-onnx",
}


@dataclass(frozen=True)
class Table:
    """Rows of text, which Markdown and HTML show alike.

    Attributes:
        title: what it shows.
        header: a heading for each column.
        rows: cells, the first of which names the row.
        note: how to read it; may be empty.
        folded: whether a page shows it only when asked.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        title: what it shows.
        caption: how to read it.
        alt: what it says, for those who do not see it.
        svg: an `<svg>` element; its ids are unique in it, not on a page.
        wide: whether it needs the whole width of a page.
    """

    title: str
    caption: str
    alt: str
    svg: str
    wide: bool = False


@dataclass(frozen=True)
class Highlight:
    """A number worth quoting, what it says, and what limits it."""

    value: str
    says: str
    limits: str = ""


def number(value: float | None) -> str:
    """Three digits that say something, without exponents as far as that can be read."""
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def ratio(value: float | None) -> str:
    """A ratio with two digits behind the point, or fewer where it is large."""
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{value:.2f}" if value < 9.995 else number(value)


def points(value: float | None, *, signed: bool = False) -> str:
    """A share, 0 to 1, as a number of points out of 100."""
    if value is None or not math.isfinite(value):
        return number(value)
    said = f"{100 * value:{'+' if signed else ''}.2f}"
    return "0.00" if said.strip("+-") == "0.00" else said


def ratio_interval(estimate: Mapping[str, Any] | None) -> str:
    """An estimate of a ratio: "7.41 [7.10-7.80]"."""
    if estimate is None:
        return ABSENT
    low, high = ratio(estimate["low"]), ratio(estimate["high"])
    return f"{ratio(estimate['value'])} [{low}-{high}]"


def points_interval(estimate: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """An estimate of a share in points: "63.20 [61.02 to 65.38]"."""
    if estimate is None:
        return ABSENT
    value, low, high = (points(estimate[key], signed=signed) for key in ("value", "low", "high"))
    return value if estimate["low"] is None else f"{value} [{low} to {high}]"


def spoken(contender: str) -> str:
    """A contender's name as a sentence says it: "PyTorch fp32" for torch-fp32."""
    for engine, name in _ENGINES.items():
        if contender == engine or contender.startswith(f"{engine}-"):
            return f"{name} {contender[len(engine) + 1 :].replace('-', ' ')}".rstrip()
    return contender.replace("-", " ")


def is_ours(contender: str) -> bool:
    """Whether it is a variant of vlrt's."""
    return contender == "vlrt" or contender.startswith("vlrt-")


def in_order(contenders: Iterable[str], base: str = "") -> list[str]:
    """Contenders as a report lists them: the base, vlrt's variants, then the others."""
    return sorted(contenders, key=lambda name: (name != base, not is_ours(name)))


def is_number(cell: str) -> bool:
    """Whether a cell begins with a number, or holds none for want of one."""
    return cell == ABSENT or cell.lstrip("+-")[:1].isdigit()


def base_of(row: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Whom a row's ratios are to: the result's base, or another where that lacks the stage."""
    return str(row.get("base") or body.get("base", ""))


def by_base(body: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The rows of a latency result by whom their ratios are to, the result's base first."""
    found: dict[str, list[Any]] = {str(body.get("base", "")): []}
    for row in body.get("rows", ()):
        found.setdefault(base_of(row, body), []).append(row)
    return {base: rows for base, rows in found.items() if rows}


def work(row: Mapping[str, Any]) -> str:
    """What a row of a latency result ran: "encode text, batch 8, 12 tokens"."""
    return ", ".join([str(row["stage"]), f"batch {row['batch']}", *filter(None, [row["detail"]])])
