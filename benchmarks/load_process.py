"""The process of a contender of `vlrt bench load`, as the parent sees it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from vlrt.errors import BenchmarkError

from .children import PAUSE_S, environment, last_words
from .load_loops import Step


@dataclass
class Process:
    """One contender, loaded.

    Attributes:
        name: such as "vlrt-int8".
        running: `load_worker.py`.
        errors: what it says on stderr.
    """

    name: str
    running: "subprocess.Popen[str]"
    errors: IO[str]

    def step(self, told: Mapping[str, Any]) -> Step:
        """Have it do a step, as `load_worker.py` takes them; what it found.

        Raises:
            BenchmarkError: it ended instead.
        """
        assert self.running.stdin is not None
        try:
            self.running.stdin.write(json.dumps(dict(told)) + "\n")
            self.running.stdin.flush()
        except BrokenPipeError:  # it has ended; why, it said elsewhere
            pass
        found: Step = self.answer()
        time.sleep(PAUSE_S)
        return found

    def answer(self) -> Any:
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
            raise BenchmarkError(f"{self.name} ended with exit code {code}:\n{said}")
        return json.loads(line)


@contextmanager
def working(name: str, job: Mapping[str, Any]) -> Iterator[Process]:
    """Start a contender; leaving ends it.

    Args:
        name: of the contender.
        job: as `load_worker.py` takes it.
    """
    command = [sys.executable, "-m", f"{__package__}.load_worker", json.dumps(dict(job))]
    with tempfile.TemporaryFile("w+") as errors:
        running = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment(job["threads"])},
            start_new_session=True,  # an interrupt is for us, who then end it
        )
        with running:
            try:
                yield Process(name, running, errors)
            except BaseException:
                running.kill()
                # What it did not read any more must not be an error of its own on leaving.
                assert running.stdin is not None
                with suppress(BrokenPipeError):
                    running.stdin.close()
                raise
            # Leaving closes its input, which ends it.
