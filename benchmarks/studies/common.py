"""Runs the contenders of a benchmark, each in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .common import markdown

CONTENDERS = ("vlrt", "transformers")
COLD_START = Path(__file__).with_name("cold_start.py")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
Sample = dict[str, Any]


def run_once(contender: str, job: dict[str, Any], program: Path = COLD_START) -> Sample:
    """One process of one contender; its scores and what it took.

    Args:
        contender: as the program calls it.
        job: for the program, which gets it as JSON.
        program: prints its scores as one line of JSON, and then a JSON object of what it took.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, str(program), contender, json.dumps(job)]
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **OFFLINE}
        ) as process:
            assert process.stdout is not None
            result = process.stdout.readline()
            total = time.perf_counter() - started
            rest = process.stdout.read()
        if process.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{contender} failed:\n{errors.read()}")
    return {"scores": json.loads(result), "total_s": total, **json.loads(rest)}


def compare_scores(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> float:
    """The largest difference of two rows of scores.

    Raises:
        SystemExit: it is above the tolerance, or the best label is another, so the two do not do
            the same work.
    """
    difference = float(np.abs(np.subtract(ours, theirs)).max())
    if difference > tolerance or np.argmax(ours) != np.argmax(theirs):
        raise SystemExit(
            f"the scores differ by {difference:.4f}, allowed are {tolerance} and the same best "
            f"label: vlrt {ours}, transformers {theirs}"
        )
    return difference


def cold_starts(
    jobs: dict[str, dict[str, Any]], *, rounds: int, tolerance: float
) -> tuple[dict[str, list[Sample]], float]:
    """All samples of each contender, and the largest difference of their scores."""
    warm = {contender: run_once(contender, jobs[contender]) for contender in CONTENDERS}
    difference = compare_scores(*(warm[c]["scores"] for c in CONTENDERS), tolerance)
    samples: dict[str, list[Sample]] = {contender: [] for contender in CONTENDERS}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for contender in CONTENDERS:
            samples[contender].append(run_once(contender, jobs[contender]))
    return samples, difference


def ratio_table(results: dict[str, dict[str, list[float]]], base: str) -> str:
    """Of every contender, its median over that of `base`, and the range.

    Args:
        results: job -> contender -> seconds, every sample; each job has the same contenders.
        base: the contender that the others are measured by.
    """
    rows = []
    for name, seconds in results.items():
        unit = median(seconds[base])
        cells = [
            f"{median(taken) / unit:.3g} [{min(taken) / unit:.3g}-{max(taken) / unit:.3g}]"
            for taken in seconds.values()
        ]
        rows.append([name, f"{unit:.3g}", *cells])
    contenders = next(iter(results.values()))
    return markdown([f"time / {base} [range]", f"{base}, s", *contenders], rows)


def medians(results: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Job -> contender -> the median of its seconds."""
    return {
        job: {contender: median(taken) for contender, taken in seconds.items()}
        for job, seconds in results.items()
    }
