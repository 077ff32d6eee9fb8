"""Processes of a piece's own: one function of a module here, with a job of JSON and a result of it.

    python -m vlrt_benchmarks.gpu.child MODULE FUNCTION JOB.json RESULT.json

The module is one of this folder; what it prints is for the reader, and goes to stderr.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlrt.errors import BenchmarkError

from ..children import environment, last_words

_GRACE_S = 10.0


@dataclass(frozen=True)
class Child:
    """What to run: a function of a module here, a job for it, and the CPUs that it may use."""

    module: str
    function: str
    job: Mapping[str, Any]
    cpus: tuple[int, ...] = ()


def run(child: Child, limit_s: float) -> Any:
    """Run one, to its result.

    Raises:
        BenchmarkError: it failed, or ran past the limit; the message holds its last words.
    """
    (found,) = run_each([child], limit_s)
    if isinstance(found, BenchmarkError):
        raise found
    return found


def run_each(children: Sequence[Child], limit_s: float, at_once: int = 1) -> list[Any]:
    """Run several, some at the same time.

    Args:
        children: what to run.
        limit_s: for all together.
        at_once: at most so many at a time.

    Returns:
        Of each its result, or the `BenchmarkError` that tells why there is none.
    """
    ends = time.monotonic() + limit_s
    found: list[Any] = [None] * len(children)
    waiting, running = list(enumerate(children)), {}
    with tempfile.TemporaryDirectory(prefix="vlrt-gpu-") as scratch:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    number, child = waiting.pop(0)
                    running[number] = _start(child, Path(scratch, str(number)))
                time.sleep(0.05)
                late = time.monotonic() > ends
                for number, process in list(running.items()):
                    if late or process.poll() is not None:
                        folder = Path(scratch, str(number))
                        found[number] = _ended(children[number], process, folder, limit_s)
                        del running[number]
        finally:
            for process in running.values():
                end(process)
    return found


def _start(child: Child, folder: Path) -> "subprocess.Popen[bytes]":
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({**child.job, "cpus": list(child.cpus)}))
    threads = len(child.cpus) or int(child.job.get("threads", 1))
    program = [sys.executable, "-m", f"{__package__}.child", child.module, child.function]
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            [*program, str(folder / "job.json"), str(folder / "result.json")],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **environment(threads)},
            start_new_session=True,
        )


def _ended(
    child: Child, process: "subprocess.Popen[bytes]", folder: Path, limit_s: float
) -> "Any | BenchmarkError":
    late = process.poll() is None
    if late:
        end(process)
    what = f"{child.module}.{child.function} of {child.job.get('title', 'this piece')}"
    said = last_words((folder / "said").read_text(errors="replace"))
    if late:
        return BenchmarkError(f"{what} ran past {limit_s:.0f} s and was ended; it said:\n{said}")
    if process.returncode != 0:
        return BenchmarkError(f"{what} ended with exit code {process.returncode}:\n{said}")
    return json.loads((folder / "result.json").read_text())


def end(process: "subprocess.Popen[Any]") -> None:
    """End a process and those that it started: as by Ctrl-C first, so that it can clear up."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
            return


def main(module: str, function: str, job: str, result: str) -> None:
    """Run one function, in this process."""
    told = json.loads(Path(job).read_text())
    if told["cpus"]:
        os.sched_setaffinity(0, told["cpus"])
    found = getattr(importlib.import_module(f"{__package__}.{module}"), function)(told)
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
