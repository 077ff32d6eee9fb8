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
    """Of each result of accuracy, beside the first of latency in which something can be quoted."""
    quoted = [one for one in timed if latency.quoted_row(one["body"]) is not None]
    if not quoted:
        return []
    where, medians = latency.median_ms(quoted[0])
    counted = [one for one in documents if one["kind"] == "accuracy"]
    return [figure for one in counted for figure in accuracy.trade(one, medians, where)]


def _by_threads(timed: Sequence[Document]) -> list[Figure]:
    """Items a second by threads, of results that differ in nothing else.

    Raises:
        OptionError: two of them have the same number of threads.
    """
    rows = [(one, latency.quoted_row(one["body"])) for one in timed if _threads(one) is not None]
    known = [(one, row) for one, row in rows if row is not None]
    alike = [pair for pair in known if _same_but_threads(*pair) == _same_but_threads(*known[0])]
    threads = [_threads(one) for one, _ in alike]
    if len(set(threads)) < 2:
        return []
    twice = sorted({str(number) for number in threads if threads.count(number) > 1})
    if twice:
        raise OptionError(
            f"several results of latency with {' and '.join(twice)} threads, the same work and the "
            "same machine; valid beside others: one for each number of threads"
        )
    lines: dict[str, dict[float, float]] = {}
    for one, row in alike:
        for name, found in row["summary"].items():
            lines.setdefault(name, {})[float(one["conditions"]["threads"])] = found["per_second"]
    stage = alike[0][1]["stage"]
    return [scaling(lines, f"Throughput by threads, {stage}", "threads", "items a second")]


def _same_but_threads(one: Document, row: dict[str, Any]) -> tuple[Any, ...]:
    """What must be the same for throughput to tell of threads alone."""
    machine = one["conditions"].get("machine", {})
    device = one.get("settings", {}).get("device")
    gpus = [gpu.get("name") for gpu in machine.get("gpus", ())]
    return (row["stage"], row["batch"], row["detail"], device, machine.get("processor"), gpus)


def _threads(one: Document) -> int | None:
    found = one["conditions"].get("threads")
    return int(found) if found is not None else None
