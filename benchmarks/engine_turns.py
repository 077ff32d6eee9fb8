"""Processes that wait for their turn, and whether their results agree."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .contenders import OFFLINE

PROGRAM = Path(__file__).with_name("engine_contender.py")
# After a turn, threads spin for a moment longer: the next contender must not pay for that.
PAUSE_S = 0.2


@dataclass
class Process:
    """One contender of one row, loaded and warm.

    Attributes:
        kind: of `engine_contender.py`, which it runs.
        outputs: where it saved what a run gives.
        versions: of what it runs on.
    """

    kind: str
    outputs: Path
    running: "subprocess.Popen[str]"
    errors: IO[str]
    versions: dict[str, str] = field(default_factory=dict)

    def turn(self, seconds: float) -> list[float]:
        """Let it run for about so long; the seconds of each run."""
        time.sleep(PAUSE_S)
        assert self.running.stdin is not None
        self.running.stdin.write(f"{seconds}\n")
        self.running.stdin.flush()
        taken: list[float] = self.answer()
        return taken

    def result(self) -> dict[str, NDArray[Any]]:
        """What its last warm-up gave, by name."""
        with np.load(self.outputs) as file:
            return dict(file)

    def answer(self) -> Any:
        """Its next line.

        Raises:
            SystemExit: it failed instead.
        """
        assert self.running.stdout is not None
        line = self.running.stdout.readline()
        if not line:
            code = self.running.wait()
            self.errors.seek(0)
            raise SystemExit(f"{self.kind} failed with exit code {code}:\n{self.errors.read()}")
        return json.loads(line)


@contextmanager
def waiting(python: str, kind: str, job: dict[str, Any], outputs: Path) -> Iterator[Process]:
    """Start a contender and wait until it has loaded, compiled and run.

    Args:
        python: its interpreter.
        kind, job: as the program takes them, but for the place of the outputs.
        outputs: that place.

    Raises:
        SystemExit: it failed.
    """
    command = [python, str(PROGRAM), kind, json.dumps({**job, "outputs": str(outputs)})]
    env = {**os.environ, **OFFLINE, "OMP_NUM_THREADS": str(job["threads"])}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=env,
        ) as running,
    ):  # leaving closes its input, which ends it
        process = Process(kind, outputs, running, errors)
        process.versions = process.answer()
        yield process


def lowest_cosine(found: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> float:
    """Of each output [B, ...] the cosine of each sample, flattened; the lowest of all."""
    lowest = 1.0
    for name, array in expected.items():
        a, b = (x.astype(np.float64).reshape(len(x), -1) for x in (found[name], array))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        lowest = float(np.minimum(lowest, ((a * b).sum(axis=1) / norms).min()))
    return lowest
