"""A machine with GPUs, as `environment` pretends it: what it has, running on it, what it did."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from environment import Environment, UnavailableError, prepared

from vlrt import errors

HERE = Path(__file__).parent
CHILD = HERE / "child.py"


@dataclass(frozen=True)
class Machine:
    """What a test may choose of the machine.

    Attributes:
        devices: how many GPUs.
        name: what they are called.
        capability: their compute capability, times ten.
        memory: of each, in MiB, beyond which nothing is given out; None for no end.
        driver: the newest CUDA that the driver knows, as CUDA writes it.
        release: the driver's own version.
        capture_ms: what each capture takes longer, so that other threads do what they do meanwhile.
        without: file names of libraries that are not installed.
        system: whether pip's libraries of NVIDIA are found by everyone, as if the system had them,
            and not just by who looks in their folder.
    """

    devices: int = 2
    name: str = "Stand-in"
    capability: int = 90
    memory: int | None = None
    driver: int = 13000
    release: str = "580.65.06"
    capture_ms: int = 0
    without: tuple[str, ...] = ()
    system: bool = False

    def variables(self) -> dict[str, str]:
        """What `stand_in/machine.h` reads."""
        told = {
            "DEVICES": self.devices,
            "NAME": self.name,
            "CAPABILITY": self.capability,
            "MEMORY": self.memory,
            "DRIVER": self.driver,
            "DRIVER_RELEASE": self.release,
            "CAPTURE_MS": self.capture_ms,
        }
        return {f"STAND_IN_{name}": str(value) for name, value in told.items() if value is not None}


class Log(list[dict[str, Any]]):
    """What the stand-ins were called for, in order: each call a dictionary, "call" being its name.

    - "malloc", "free": "of" ("device" or "pinned"), "bytes", "device"; a malloc's "given".
    - "copy": "from", "to" ("device", "pinned" or "pageable"), "bytes", "waits", "captured".
    - "kernel": "name", as it was compiled; "captured".
    - "routine": "name", a function of cuBLAS or cuDNN that computes.
    - "capture" begins, in a "mode", "captured" ends it, "whole" or not.
    - "graph": a captured graph is launched, with so many "copies"; so many of them are "from_host",
      and so many of those "stale": the host's memory is not what it was when it was captured.
    - "wait": "for" a "stream", a "device" or an "event". "refused": what a capture forbids.
    - "mark": "name", by `child.mark`.
    """

    def between(self, start: str, end: str) -> "Log":
        """What came after a mark and before another."""
        names = [call["name"] if call["call"] == "mark" else None for call in self]
        return Log(self[names.index(start) + 1 : names.index(end)])

    def of(self, call: str, **fields: Any) -> "Log":
        """Calls of one name, and with these values."""
        wanted = {"call": call, **{name.rstrip("_"): value for name, value in fields.items()}}
        return Log(found for found in self if wanted.items() <= found.items())

    @property
    def bytes(self) -> int:
        """Together."""
        return sum(call["bytes"] for call in self)

    @property
    def names(self) -> list[str]:
        """Of the kernels, routines or marks."""
        return [call["name"] for call in self]


class Found(NamedTuple):
    """What a function gave that ran on the machine, and what the machine did meanwhile."""

    value: Any
    log: Log


def make() -> Environment:
    """Make the environment. Where there can be none, tests are skipped, but in CI they fail."""
    try:
        return prepared()
    except UnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"CUDA's provider cannot be tested here: {error}")


def run(
    function: Callable[..., Any],
    arguments: Iterable[Any],
    named: dict[str, Any],
    *,
    machine: Machine,
    environment: Environment,
    root: Path,
) -> Found:
    """Run a function of a test file in a process of its own, on a machine.

    Args:
        function: one at the top of its file, which the process imports.
        arguments, named: what JSON can hold, and paths, which arrive as strings.
        machine: where.
        environment: what the machine is made of.
        root: an empty folder.

    Raises:
        VlrtError: the function raised it.
    """
    packages, driver = environment.compose(root, machine.without)
    folders = [driver, *(packages.glob("nvidia/*/lib") if machine.system else ())]
    log, answer = root / "log", root / "answer"
    log.touch()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("STAND_IN_")},
        **machine.variables(),
        "STAND_IN_LOG": str(log),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, folders)),
        # ONNX Runtime's own folder first: it hides the CPU's build in this environment.
        "PYTHONPATH": os.pathsep.join(map(str, (packages, HERE, HERE.parent))),
    }
    file = function.__code__.co_filename
    called = json.dumps([file, function.__name__, [*arguments], named, str(answer)], default=str)
    done = subprocess.run(
        [sys.executable, "-W", "error", CHILD],
        input=called,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if not answer.is_file():
        pytest.fail(f"{function.__name__} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    given = json.loads(answer.read_text())
    if "error" in given:
        kind = getattr(errors, given["error"])
        error = kind.__new__(kind)
        error.args = (given["said"],)  # of those, too, that make their own text
        raise error
    calls = Log(map(json.loads, log.read_text().splitlines()))
    return Found(given["value"], calls)
