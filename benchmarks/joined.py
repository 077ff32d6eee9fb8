"""What several results of one model say together, and none says alone."""

from collections.abc import Sequence
from typing import Any

from vlrt.errors import OptionError

from .latency_plots import scaling
from .views import accuracy, latency
from .wording import Figure

Document = dict[str, Any]


def check_together(documents: Sequence[Document]) -> None:
    """Refuse results that belong on no page together.

    Raises:
        OptionError: there are none, or they are of several models.
    """
    if not documents:
        raise OptionError("there are no results; valid: one FILE.json or more")
    names = dict.fromkeys(str((one.get("model") or {}).get("name")) for one in documents)
    if len(names) > 1:
        raise OptionError(f"results of several models, {', '.join(names)}; valid: of one model")


def figures(documents: Sequence[Document]) -> list[Figure]:
    """Speed against accuracy, and scaling with threads, of what is there."""
    timed = [one for one in documents if one["kind"] == "latency"]
    return [*_trade(timed, documents), *_by_threads(timed)]


def _trade(timed: Sequence[Document], documents: Sequence[Document]) -> list[Figure]:
    """Of each result of accuracy, beside the first of latency."""
    made: list[Figure] = []
    for one in documents:
        if one["kind"] == "accuracy" and timed and not one["body"].get("speed"):
            where, medians = latency.median_ms(timed[0])
            made += accuracy.trade(one, medians, where)
    return made


def _by_threads(timed: Sequence[Document]) -> list[Figure]:
    """Items a second by threads, where results differ in them."""
    rows = [(_threads(one), latency.quoted_row(one["body"])) for one in timed]
    known = [(threads, row) for threads, row in rows if threads is not None and row is not None]
    if len({threads for threads, _ in known}) < 2:
        return []
    stage = known[0][1]["stage"]
    lines: dict[str, dict[float, float]] = {}
    for threads, row in known:
        if row["stage"] == stage:
            for name, found in row["summary"].items():
                lines.setdefault(name, {})[threads] = found["per_second"]
    return [scaling(lines, f"Throughput by threads, {stage}", "threads", "items a second")]


def _threads(one: Document) -> int | None:
    found = one["conditions"].get("threads")
    return int(found) if found is not None else None
