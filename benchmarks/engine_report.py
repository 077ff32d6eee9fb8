"""What `engines.py` found, in tables: ratios of medians, and whether they are as asked for."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from .common import markdown
from .engine_work import RATIOS


def ratio(row: dict[str, Any], ours: str, theirs: str) -> tuple[float, float, float]:
    """How many times as long theirs takes: of medians, and the range over rounds."""
    times = [row[name]["seconds"] for name in (ours, theirs)]
    whole = [median(second for taken in rounds for second in taken) for rounds in times]
    by_round = [median(b) / median(a) for a, b in zip(*times, strict=True)]
    return whole[1] / whole[0], min(by_round), max(by_round)


def row_table(row: dict[str, Any], batch: int) -> str:
    """All contenders of one row."""
    base = next(iter(row))
    lines = []
    for name, found in row.items():
        seconds = [second for taken in found["seconds"] for second in taken]
        times, low, high = ratio(row, name, base)
        lines.append(
            [
                name,
                f"{times:.2f} [{low:.2f}-{high:.2f}]",
                f"{median(seconds) / batch * 1000:.2f}",
                f"{min(seconds) / batch * 1000:.2f}",
                f"{found['cosine']:.5f}" + ("" if found["same"] else " (not the same result)"),
            ]
        )
    header = ["", f"{base} / it [range]", "median ms a sample", "fastest", "cosine"]
    return markdown(header, lines)


def verdicts(results: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What was asked for, of the rows that ran."""
    for wanted in RATIOS:
        row = results.get(wanted.work, {})
        if wanted.ours in row and wanted.theirs in row:
            times, low, high = ratio(row, wanted.ours, wanted.theirs)
            yield {
                "work": wanted.work,
                "ours": wanted.ours,
                "theirs": wanted.theirs,
                "least": wanted.least,
                "ratio": times,
                "range": [low, high],
                "met": times >= wanted.least,
                "same_result": row[wanted.theirs]["same"],
            }


def verdict_table(found: Sequence[dict[str, Any]]) -> str:
    """The same as Markdown."""
    lines = [
        [
            f"{one['work']}: {one['ours']} against {one['theirs']}"
            + ("" if one["same_result"] else " (whose result is not the same)"),
            f"{one['least']:g}",
            f"{one['ratio']:.2f} [{one['range'][0]:.2f}-{one['range'][1]:.2f}]",
            "yes" if one["met"] else "NO",
        ]
        for one in found
    ]
    return markdown(["times as fast", "at least", "measured [range]", "met"], lines)
