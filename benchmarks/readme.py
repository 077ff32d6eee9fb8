"""The tables of README.md that hold measured numbers: out of `results/`, and nowhere else.

    python -m benchmarks.readme            writes them into README.md
    python -m benchmarks.readme --check    only says which of them are not what was measured

A table is found by its header, which stays as it is here.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from .document import Document, read
from .machine import ROOT
from .serve_steps import ALONE, BATCHING
from .wording import ratio_interval

README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
TORCH, PIPELINE, RUST = "torch-fp32", "pipeline-fp32", "hf-processors-rs"
INT8, FP32, FAST = "vlrt-int8", "vlrt-fp32", "vlrt-int8-fast"
Rows = Iterator[list[str]]


@cache
def result(name: str) -> Document:
    """One of the results that are committed."""
    return read(RESULTS / f"{name}.json")


def row_of(name: str, stage: str, batch: int, detail: str = "") -> dict[str, Any]:
    """The row of a latency result.

    Raises:
        KeyError: it has none such.
    """
    for row in result(name)["body"]["rows"]:
        if (row["stage"], row["batch"], row["detail"]) == (stage, batch, detail):
            found: dict[str, Any] = row
            return found
    raise KeyError(f"{name} has no row {stage}, batch {batch}, {detail}")


def times(row: dict[str, Any], ours: str, theirs: str) -> str:
    """How many times as fast ours is, by medians; a dash where one of them was not there."""
    medians = {name: one["p50_ms"] for name, one in row["summary"].items()}
    if ours not in medians or theirs not in medians:
        return "-"
    return f"{medians[theirs] / medians[ours]:.2f}"


# The towers that are measured by themselves: result, name, stage, batch, detail.
_TOWERS = (
    *(("clip-b32", f"CLIP image, batch {n}", "encode image", n, "") for n in (1, 8)),
    *(
        ("clip-b32", f"CLIP text, {t} tokens, batch {n}", "encode text", n, f"{t} tokens")
        for t in (12, 77)
        for n in (1, 8)
    ),
    ("owlvit-b32", "OWL-ViT image, batch 1", "encode image", 1, ""),
    ("vilt-b32", "ViLT, picture and question, batch 1", "encode image and text", 1, ""),
)


def towers(ours: str, theirs: Sequence[str]) -> Rows:
    """One line a tower: how many times as fast ours is as each of theirs."""
    for name, title, *at in _TOWERS:
        row = row_of(f"latency-{name}", *at)
        yield [title, *(times(row, ours, one) for one in theirs)]


def whole_way() -> Rows:
    """From files to results, one line a kind of work."""
    for title, name, batch, ours in (
        ("CLIP, one picture", "clip-b32-whole", 1, INT8),
        ("CLIP, eight pictures", "clip-b32-whole", 8, INT8),
        ('CLIP, eight pictures, `decode="fast"`', "clip-b32-whole", 8, FAST),
        ("OWL-ViT, one picture", "owlvit-b32", 1, INT8),
        ("ViLT, one question", "vilt-b32", 1, INT8),
    ):
        row = row_of(f"latency-{name}", "end to end", batch)
        yield [title, *(times(row, ours, one) for one in (TORCH, PIPELINE, "optimum-fp32"))]


def preprocessing() -> Rows:
    """From files to pixel values, one line a family and size."""
    for title, name, batch in (
        ("CLIP, 1920x1080", "clip-b32", 1),
        ("CLIP, eight of 1920x1080", "clip-b32", 8),
        ("OWL-ViT, 1920x1080", "owlvit-b32", 1),
        ("ViLT, 1920x1080", "vilt-b32", 1),
    ):
        summary = row_of(f"latency-{name}", "decode and preprocess", batch)["summary"]
        medians = {one: summary[one]["p50_ms"] for one in summary}
        yield [title, *(f"{medians[one] / medians[TORCH]:.2f}" for one in (RUST, INT8, FAST))]


def footprint() -> Rows:
    """What a new process takes, and what is installed."""
    for title, name, measure in (
        ("demo model, start to answer", "demo-clip", "cold start"),
        ("demo model, peak memory", "demo-clip", "peak memory"),
        ("CLIP B/32, start to answer", "clip-b32", "cold start"),
        ("CLIP B/32, peak memory", "clip-b32", "peak memory"),
        ("OWL-ViT B/32, start to answer", "owlvit-b32", "cold start"),
        ("OWL-ViT B/32, peak memory", "owlvit-b32", "peak memory"),
        ("ViLT B/32, start to answer", "vilt-b32", "cold start"),
        ("ViLT B/32, peak memory", "vilt-b32", "peak memory"),
        ("installed environment, without pip", "clip-b32", "installed environment"),
    ):
        rows = result(f"footprint-{name}")["body"]["rows"]
        row = next(row for row in rows if row["measure"] == measure)
        ours, theirs = (row["medians"][one] for one in (INT8, "transformers"))
        texts = [
            f"{value:.2f}" if row["unit"] == "s" else f"{value:.0f}" for value in (ours, theirs)
        ]
        yield [
            title,
            *(f"{text} {row['unit']}" for text in texts),
            f"**{ours / theirs:.3f}**" if ours / theirs < 0.1 else f"**{ours / theirs:.2f}**",
        ]


def accuracy(name: str, columns: Sequence[tuple[str, str]]) -> Rows:
    """One line a contender.

    Args:
        name: of the result.
        columns: (measure, group), in per cent each.
    """
    rows = result(f"accuracy-{name}")["body"]["rows"]
    values = {(row["contender"], row["measure"], row["group"]): row["value"] for row in rows}
    for contender in dict.fromkeys(row["contender"] for row in rows):
        title = contender.replace("torch-", "PyTorch ").replace("-", " ")
        yield [title, *(f"{values[(contender, *column)]:.1%}" for column in columns)]


def serving() -> Rows:
    """How many requests a second a server answers, one line a number of clients."""
    for row in result("serve-clip-b32")["body"]["compare_batching"]["rows"]:
        rates = (f"{row['medians'][name]:.1f}" for name in (BATCHING, ALONE))
        yield [str(row["clients"]), *rates, ratio_interval(row["ratio"])]


def arriving() -> Rows:
    """What becomes of requests that come at random, one line a rate; the first is one client's."""
    closed = result("serve-clip-b32")["body"]["compare_batching"]["rows"][0]
    half = result("serve-clip-b32-half")["body"]["half_load"]
    over = result("serve-clip-b32-overload")["body"]["overload"]
    for title, answered, refused, failures, summary in (
        (
            "one after the other", closed["summary"][BATCHING]["runs"], closed["refused"][BATCHING],
            closed["failures"][BATCHING], closed["summary"][BATCHING],
        ),
        (
            "at random, half of the capacity", half["summary"]["runs"], half["refused"],
            half["failures"], half["summary"],
        ),
        (
            "at random, four times the capacity", over["answers"]["200"], over["answers"]["503"],
            over["failures"], over["summary"],
        ),
    ):  # fmt: skip
        counts = (f"{count:,}" for count in (answered, refused, sum(failures.values())))
        yield [title, *counts, *(f"{summary[name]:.0f}" for name in ("p50_ms", "p99_ms"))]


_PEERS = ("torch-fp32", "torch-compile-bf16", "openvino-bf16", "openvino-int8")
_DETECTION = [(m, g) for m in ("mAP50", "mAP") for g in ("seen", "never seen")]
# What README calls a kind of question, and what the dataset does.
_KINDS = {
    "all": "all", "how many": "count", "what colour": "colour", "which shape": "shape",
    "is there": "existence", "left or right": "side",
}  # fmt: skip
# header -> rows
TABLES: dict[tuple[str, ...], Callable[[], Rows]] = {
    ("", "vlrt, int8", "transformers, fp32", "ratio"): footprint,
    (
        "vlrt int8, times as fast as", "PyTorch fp32", "torch.compile bf16", "OpenVINO bf16",
        "OpenVINO int8",
    ): lambda: towers(INT8, _PEERS),
    ("vlrt fp32, times as fast as", "PyTorch fp32", "OpenVINO fp32"): lambda: towers(
        FP32, ("torch-fp32", "openvino-fp32")
    ),
    (
        "from file to result, vlrt int8 times as fast as", "PyTorch fp32",
        "transformers' pipeline fp32", "optimum-onnx fp32",
    ): whole_way,
    (
        "clients at a time", "requests a second", "without batching", "times as many",
    ): serving,
    ("requests come", "answered", "503", "failed", "p50, ms", "p99, ms"): arriving,
    ("time / transformers", "hf-processors-rs", "vlrt", 'vlrt, `decode="fast"`'): preprocessing,
    ("top-1 among 64 labels", "pairs seen in training", "pairs never seen"): lambda: accuracy(
        "demo-clip", [("top-1", "seen"), ("top-1", "never seen")]
    ),
    (
        "", "mAP50, seen in training", "mAP50, never seen", "mAP, seen", "mAP, never seen",
    ): lambda: accuracy("demo-owlvit", _DETECTION),
    ("right answers", *_KINDS): lambda: accuracy(
        "demo-vilt", [("VQA accuracy", group) for group in _KINDS.values()]
    ),
}  # fmt: skip


def line_of(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def replaced(text: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A text with the rows of one table taken from `rows`.

    Raises:
        ValueError: there is no table of this header.
    """
    lines = text.splitlines()
    start = lines.index(line_of(header).replace("|  |", "| |")) + 2
    stop = start + len(list(takewhile(lambda line: line.startswith("|"), lines[start:])))
    return "\n".join([*lines[:start], *map(line_of, rows), *lines[stop:]]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    before = text = README.read_text(encoding="utf-8")
    for header, rows in TABLES.items():
        new = replaced(text, header, list(rows()))
        if new != text:
            print(f"{'differs' if options.check else 'written'}: {line_of(header)}")
        text = new
    if not options.check:
        Path(README).write_text(text, encoding="utf-8")
    return int(options.check and text != before)


if __name__ == "__main__":
    sys.exit(main())
