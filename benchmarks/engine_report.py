"""What `engines.py` found, in tables: ratios of medians, and whether they are as asked for.

`times_table` makes the tables of the README, which `tests/test_readme.py` compares with them.
"""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from .common import markdown
from .engine_work import (
    COMPILED,
    OPENVINO_BF16,
    OPENVINO_FP32,
    OPENVINO_INT8,
    RATIOS,
    TORCH,
    VLRT_FP32,
    VLRT_INT8,
)

# Ours -> those that the README compares it with.
README_TABLES = {
    VLRT_INT8: (TORCH, COMPILED, OPENVINO_BF16, OPENVINO_INT8),
    VLRT_FP32: (TORCH, OPENVINO_FP32),
}


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


def times_table(
    results: dict[str, dict[str, Any]], ours: str, theirs: Sequence[str]
) -> list[list[str]]:
    """How many times as long others take, on every row that has ours.

    Args:
        results: row -> contender -> what was found.
        ours: a contender.
        theirs: those to compare it with, a column each; "-" where one did not run.

    Returns:
        The cells, the header first.
    """
    rows = [
        [name, *(f"{ratio(row, ours, one)[0]:.2f}" if one in row else "-" for one in theirs)]
        for name, row in results.items()
        if ours in row
    ]
    return [[f"{ours}, times as fast as", *theirs], *rows]


def verdicts(results: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All that was asked for; None stands for what was not measured."""
    for wanted in RATIOS:
        row = results.get(wanted.work, {})
        found: dict[str, Any] = dict.fromkeys(("ratio", "range", "met", "same_result"))
        if wanted.ours in row and wanted.theirs in row:
            times, low, high = ratio(row, wanted.ours, wanted.theirs)
            found = {
                "ratio": times,
                "range": [low, high],
                "met": times >= wanted.least,
                "same_result": row[wanted.theirs]["same"],
            }
        yield {
            "work": wanted.work,
            "ours": wanted.ours,
            "theirs": wanted.theirs,
            "least": wanted.least,
            **found,
        }


def verdict_table(found: Sequence[dict[str, Any]]) -> str:
    """The same as Markdown."""
    lines = []
    for one in found:
        name = f"{one['work']}: {one['ours']} against {one['theirs']}"
        measured, met = "not measured", "-"
        if one["ratio"] is not None:
            measured = f"{one['ratio']:.2f} [{one['range'][0]:.2f}-{one['range'][1]:.2f}]"
            met = "yes" if one["met"] else "NO"
            name += "" if one["same_result"] else " (whose result is not the same)"
        lines.append([name, f"{one['least']:g}", measured, met])
    return markdown(["times as fast", "at least", "measured [range]", "met"], lines)
