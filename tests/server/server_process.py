"""`vlrt serve` as a process of its own, for tests."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

# The one that is installed: `python -m` would take a checkout's, if it stands in one.
COMMAND = (str(Path(sys.executable).with_name("vlrt")), "serve")
PATIENCE_S = 120  # before a test gives up; none of them is about time


def environment(**more: str) -> dict[str, str]:
    """This process's, without settings of a server."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("VLRT_SERVE_")}
    return {**kept, **more}


def ran(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run the command until it ends."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(**more), text=True, capture_output=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip


@dataclass
class Answer:
    """What became of a request; the status is None if its connection broke."""

    status: int | None = None
    document: Any = None


@dataclass
class Serving:
    """A server that listens.

    Attributes:
        process: its own.
        said: what it printed at the start.
        url: where it listens.
        curl: the command line that it says to try.
    """

    process: "subprocess.Popen[str]"
    log: Path
    said: list[str] = field(default_factory=list)
    url: str = ""
    curl: str = ""

    def asked(self, path: str, body: Any = None) -> Answer:
        """Ask for a path; with a body, POST it as JSON."""
        data = None if body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self.url + path, data, head)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return Answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.loads(error.read()))
        except OSError:
            return Answer()

    def in_flight(self) -> int:
        """Jobs that it has taken on and not finished."""
        lines = self.asked("/metrics").document.decode().splitlines()
        counts = [line.split()[-1] for line in lines if line.startswith("vlrt_in_flight{")]
        return int(sum(map(float, counts)))

    def errors(self) -> str:
        """What it has written to stderr."""
        return self.log.read_text()

    def ended(self) -> tuple[int, str]:
        """Its status, when it has ended, and what it wrote to stderr."""
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, self.errors()

    def told(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)


@contextmanager
def serving(
    log: Path, *arguments: str, command: Sequence[str] = COMMAND, **more: str
) -> Iterator[Serving]:
    """Run a server, on any port, for as long as the context lasts."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, "--port", "0", *arguments], env=environment(**more), text=True,
            stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    one = Serving(process, log)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            one.said.append(line.rstrip("\n"))
            if line.startswith("address"):
                one.url = line.split()[1]
            if line.startswith("  curl"):
                one.curl = line.strip()
                break
        else:
            raise AssertionError(f"it ended: {one.errors()}")
        yield one
    finally:
        process.kill()
        process.communicate()


def until(holds: Callable[[], bool]) -> None:
    """Wait for something to come to pass."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def big_picture(side: int) -> bytes:
    """A square picture that takes long to read, of few bytes."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 60)).save(file, "PNG")
    return file.getvalue()


def all_at_once(server: Serving, path: str, bodies: Sequence[Any]) -> Callable[[], list[Answer]]:
    """Send requests, each in a thread; what is returned waits for their answers."""
    answers = [Answer() for _ in bodies]

    def ask(position: int) -> None:
        answers[position] = server.asked(path, bodies[position])

    threads = [threading.Thread(target=ask, args=(position,)) for position in range(len(bodies))]
    for thread in threads:
        thread.start()

    def wait() -> list[Answer]:
        for thread in threads:
            thread.join()
        return answers

    return wait
