"""Cold starts: the contenders of `footprint.py`, a process each a round."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vlrt.errors import BenchmarkError

from .children import environment
from .contender import Contender, Result, differences
from .journal import Journal

PROGRAM = Path(__file__).with_name("cold_start.py")
# The `result` of a process, and what it took.
Sample = dict[str, Any]


def run_once(contender: Contender, job: Mapping[str, Any]) -> Sample:
    """Start one process, and wait for its end.

    Args:
        contender: what it is.
        job: what `cold_start.py` is told beside that.

    Returns:
        `result`, `total_s` from the start to the result, and what the process says itself.

    Raises:
        BenchmarkError: it failed.
    """
    told = {**job, "model": str(contender.model), "precision": contender.precision}
    command = [sys.executable, str(PROGRAM), contender.kind, json.dumps(told)]
    env = {**os.environ, **environment(job["threads"])}
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=env,
            start_new_session=True,  # an interrupt is for us, who then end it
        ) as process:
            assert process.stdout is not None
            try:
                result = process.stdout.readline()
                total = time.perf_counter() - started
                rest = process.stdout.read()
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            errors.seek(0)
            raise BenchmarkError(
                f"{contender.name} failed with exit code {process.returncode}:\n"
                f"{errors.read().strip()}"
            )
    return {"result": json.loads(result), "total_s": total, **json.loads(rest)}


def take_turns(
    contenders: Sequence[Contender], job: Mapping[str, Any], rounds: int, journal: Journal
) -> list[dict[str, Sample]]:
    """All samples, by round and contender; before the first a round that is not counted.

    Args:
        contenders: the base first. Each round begins with another, so that none always comes first.
        job: as `run_once` takes it.
        rounds: so many processes of each.
        journal: keeps them. A run that goes on begins with a round that is not counted too.

    Raises:
        BenchmarkError: one of them failed, or its result is not the base's.
    """
    keys = [{one.name: f"round {at}: {one.name}" for one in contenders} for at in range(rounds)]
    if not all(journal.held(key) for row in keys for key in row.values()):
        say("a round that is not counted, to compare the results")
        once = {one.name: run_once(one, {**job, "more": 0}) for one in contenders}
        differences(contenders, results(once))
    found = []
    for at, row in enumerate(keys):
        if not all(map(journal.held, row.values())):
            say(f"round {at + 1} of {rounds}")
        first = at % len(contenders)
        samples = {
            one.name: journal.keep(row[one.name], partial(run_once, one, job))
            for one in (*contenders[first:], *contenders[:first])
        }
        differences(contenders, results(samples))
        found.append(samples)
    return found


def results(samples: Mapping[str, Sample]) -> dict[str, Result]:
    """The results alone."""
    return {name: sample["result"] for name, sample in samples.items()}


def say(line: str) -> None:
    """Tell who waits what is going on."""
    print(line, file=sys.stderr)
