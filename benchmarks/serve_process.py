"""The processes of `vlrt bench serve`: `vlrt serve`, what watches its memory, and the clients."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlrt.errors import BenchmarkError

from .children import OFFLINE, last_words
from .load_process import Process

if TYPE_CHECKING:
    from typing import Self  # from Python 3.11 on

HOST = "127.0.0.1"
MIB = 2**20
_READY_S, _END_S, _LOOK_S, _ASK_S = 600.0, 90.0, 0.2, 30.0


@dataclass
class Server:
    """A server that is ready.

    Attributes:
        name: for messages.
        port: on this machine alone.
        running: `vlrt serve`.
        exit_code: of its end by SIGTERM; None while it runs.
    """

    name: str
    port: int
    running: "subprocess.Popen[bytes]"
    exit_code: int | None = field(default=None)

    def get(self, path: str) -> tuple[int, Any]:
        """A path's status and what it answers, as JSON if it is that, or None.

        Raises:
            OSError: it does not answer.
        """
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_ASK_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        with suppress(ValueError):
            return answer.status, json.loads(said)
        return answer.status, None

    def rss_mib(self) -> float:
        """Its resident memory.

        Raises:
            BenchmarkError: it has ended.
        """
        import psutil

        try:
            return float(psutil.Process(self.running.pid).memory_info().rss / MIB)
        except psutil.NoSuchProcess as error:
            raise BenchmarkError(f"{self.name} has ended, and was to be measured") from error


@contextmanager
def serving(name: str, bundles: Mapping[str, Path], flags: Sequence[str]) -> Iterator[Server]:
    """`vlrt serve` on a free port, ready; leaving ends it by SIGTERM.

    Args:
        name: for messages.
        bundles: directories by the names to serve them under.
        flags: further ones of `vlrt serve`.

    Raises:
        BenchmarkError: it ended before it was ready, or was not ready in ten minutes, or did not
            end in a minute and a half.
    """
    port = _free_port()
    command = [sys.executable, "-m", "vlrt.cli", "serve"]
    command += [f"{key}={path}" for key, path in bundles.items()]
    command += ["--host", HOST, "--port", str(port), "--log-level", "warning", *flags]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        running = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**_own_environment(), **OFFLINE},
            start_new_session=True,  # an interrupt is for us, who then end it
        )
        with running:
            try:
                server = Server(name, port, running)
                _await_ready(server)
                yield server
                server.exit_code = _ended(server)
            except BaseException as error:
                running.kill()
                running.wait()
                said.seek(0)
                words = last_words(said.read())
                if isinstance(error, BenchmarkError) and words:
                    raise BenchmarkError(f"{error}\n{words}") from error
                raise


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM end this program as an exception does, so that its servers end with it."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _own_environment() -> dict[str, str]:
    """This process's, without settings of a server that someone runs beside."""
    return {key: value for key, value in os.environ.items() if not key.startswith("VLRT_SERVE_")}


def _await_ready(server: Server) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        code = server.running.poll()
        if code is not None:
            raise BenchmarkError(f"{server.name} ended with exit code {code} before it was ready:")
        with suppress(OSError, http.client.HTTPException):
            if server.get("/health/ready")[0] == http.client.OK:
                return
        time.sleep(_LOOK_S)
    raise BenchmarkError(f"{server.name} was not ready after {_READY_S:g} s:")


def _ended(server: Server) -> int:
    server.running.send_signal(signal.SIGTERM)
    try:
        return server.running.wait(_END_S)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{server.name} did not end {_END_S:g} s after SIGTERM:") from error


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind((HOST, 0))
        return int(asked.getsockname()[1])


class Watch:
    """Samples the memory of a server while it is entered.

    Args:
        server: whose.
        every_s: between samples.

    Attributes:
        samples: (seconds since it was entered, MiB), in order. The first is taken on entering, the
            last on leaving.
    """

    def __init__(self, server: Server, every_s: float) -> None:
        self.samples: list[tuple[float, float]] = []
        self._server, self._every_s = server, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory", daemon=True)
        self._started = 0.0

    def __enter__(self) -> "Self":
        self._started = time.monotonic()
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            self._sample()

    def _sample(self) -> None:
        rss = self._server.rss_mib()
        self.samples.append((round(time.monotonic() - self._started, 3), round(rss, 3)))

    def _look(self) -> None:
        due = self._started
        while True:
            due += self._every_s
            if self._over.wait(max(0.0, due - time.monotonic())):
                return
            try:
                self._sample()
            except BenchmarkError:  # it has ended: the sample on leaving says so
                return


@contextmanager
def clients(folder: Path) -> Iterator[Process]:
    """Start the load generator; leaving ends it.

    Args:
        folder: as `serve_requests.keep` wrote it.
    """
    command = [sys.executable, "-m", f"{__package__}.serve_clients", str(folder)]
    with tempfile.TemporaryFile("w+") as errors:
        running = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        with running:
            process = Process("the load generator", running, errors)
            try:
                process.answer()
                yield process
            except BaseException:
                running.kill()
                assert running.stdin is not None
                with suppress(BrokenPipeError):
                    running.stdin.close()
                raise
            # Leaving closes its input, which ends it.
