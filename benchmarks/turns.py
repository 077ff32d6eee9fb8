"""Processes that wait for their turn, and what they took."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from vlrt.errors import BenchmarkError

from .children import PAUSE_S, environment, last_words
from .peers import Arrays, Entry

PROGRAM = Path(__file__).with_name("worker.py")


@dataclass
class Process:
    """One contender, loaded and warm.

    Attributes:
        entry: what it is.
        stages: what it was told to load.
        folder: where it saved what its stages give.
        told: what it said of itself when it was ready: `versions`, `loading_s` and, by stage,
            what `worker.warm_up` gives.
    """

    entry: Entry
    stages: Sequence[str]
    folder: Path
    running: "subprocess.Popen[str]"
    errors: IO[str]
    told: dict[str, Any] = field(default_factory=dict)

    def settle(self) -> None:
        """Wait until it has loaded, compiled and warmed up.

        Raises:
            BenchmarkError: it ended instead.
        """
        self.told = self.answer("loading and warming up")

    def turn(self, stage: str, seconds: float) -> list[float]:
        """Let it run one stage for about so long; the seconds of each run."""
        assert self.running.stdin is not None
        try:
            self.running.stdin.write(json.dumps({"stage": stage, "seconds": seconds}) + "\n")
            self.running.stdin.flush()
        except BrokenPipeError:  # it has ended; why, it said elsewhere
            with suppress(BrokenPipeError):  # of what it was not told: nobody is to try it again
                self.running.stdin.close()
        taken: list[float] = self.answer(f"running {stage}")
        time.sleep(PAUSE_S)
        return taken

    def result(self, stage: str) -> Arrays:
        """What its last warm-up of a stage gave, by name."""
        with np.load(self.folder / f"{list(self.stages).index(stage)}.npz") as file:
            return dict(file)

    def answer(self, doing: str) -> Any:
        """Its next line.

        Raises:
            BenchmarkError: it ended instead; the message holds the last that it said.
        """
        assert self.running.stdout is not None
        line = self.running.stdout.readline()
        if not line:
            code = self.running.wait()
            self.errors.seek(0)
            said = last_words(self.errors.read())
            raise BenchmarkError(
                f"{self.entry.name} ended with exit code {code} while {doing}:\n{said}"
            )
        return json.loads(line)


@contextmanager
def waiting(
    entry: Entry, stages: Sequence[str], job: Mapping[str, Any], folder: Path
) -> Iterator[Process]:
    """Start a contender and wait until it is warm; as `starting`, which does not wait.

    Raises:
        BenchmarkError: it failed.
    """
    with starting(entry, stages, job, folder) as process:
        process.settle()
        yield process


@contextmanager
def starting(
    entry: Entry, stages: Sequence[str], job: Mapping[str, Any], folder: Path
) -> Iterator[Process]:
    """Start a contender, which then loads, compiles and warms up.

    Args:
        entry: the contender.
        stages: those to load.
        job: what `peers` says, but for the stages and the place of the outputs.
        folder: that place, which is there.
    """
    told = {**job, "module": entry.module, "stages": list(stages), "outputs": str(folder)}
    path = folder / "job.json"
    path.write_text(json.dumps(told))
    env = {**os.environ, **environment(job["threads"])}
    with tempfile.TemporaryFile("w+") as errors:
        running = subprocess.Popen(
            [entry.python, str(PROGRAM), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=env,
            start_new_session=True,  # an interrupt is for us, who then end it
        )
        with running:
            try:
                yield Process(entry, stages, folder, running, errors)
            except BaseException:
                running.kill()
                raise
            # Leaving closes its input, which ends it.


@contextmanager
def all_waiting(
    entries: Sequence[Entry],
    stages: Mapping[str, Sequence[str]],
    jobs: Mapping[str, Mapping[str, Any]],
    title: str,
    *,
    failed: dict[str, str] | None = None,
    together: bool = False,
) -> Iterator[dict[str, Process]]:
    """Start contenders one after the other, so that none slows another's loading.

    Args:
        entries: the contenders.
        stages: of each, by name.
        jobs: of each, by name.
        title: of what they do, for the lines that say how far it is.
        failed: takes those that did not load, and what they said last; they are left out then.
        together: let all load at once instead.

    Raises:
        BenchmarkError: one failed, and there is no `failed`.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlrt-bench-")))
        processes = {}
        for number, entry in enumerate(entries):
            print(f"{title}: {entry.name} loads and warms up", file=sys.stderr)
            folder = scratch / str(number)
            folder.mkdir()
            started = starting(entry, stages[entry.name], jobs[entry.name], folder)
            processes[entry.name] = stack.enter_context(started)
            if not together:
                _settle(processes, entry.name, failed)
        for name in list(processes) if together else ():
            _settle(processes, name, failed)
        yield processes


def _settle(processes: dict[str, Process], name: str, failed: dict[str, str] | None) -> None:
    """Wait until a contender is warm, or leave it out."""
    try:
        processes[name].settle()
    except BenchmarkError as error:
        if failed is None:
            raise
        print(f"left out: {error}", file=sys.stderr)
        failed[name] = str(error)
        del processes[name]


def one_round(
    processes: Mapping[str, Process], stage: str, seconds: float, number: int, sentinel: str
) -> dict[str, Any]:
    """Let every contender have its turn on one stage, and one of them a second one.

    Args:
        processes: by name; those that do not have the stage are passed over.
        stage: what they run.
        seconds: of a turn, about.
        number: the round's. Each begins with another contender, so that none always comes first.
        sentinel: who has a second turn, which tells how much is mere noise: after all others or
            before them, whichever is farther from its first, as those of others are apart.

    Returns:
        `samples`, by contender the seconds of each run, and `sentinel`, those of the second turn.
    """
    names = [name for name, process in processes.items() if stage in process.stages]
    at = number % len(names)
    order = names[at:] + names[:at]
    taken = {}
    last = order.index(sentinel) < len(order) / 2
    again = [] if last else processes[sentinel].turn(stage, seconds)
    for name in order:
        taken[name] = processes[name].turn(stage, seconds)
    if last:
        again = processes[sentinel].turn(stage, seconds)
    return {"samples": {name: taken[name] for name in names}, "sentinel": again}
