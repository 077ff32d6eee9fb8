"""The server's life: load, listen, serve, and end without dropping what it has begun."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Generator
from types import FrameType

import uvicorn

from vlrt.errors import OptionError
from vlrt.server.announcing import announcement
from vlrt.server.app import build, create_app
from vlrt.server.context import Context
from vlrt.server.memory import share_arenas
from vlrt.server.outside import Outside
from vlrt.server.settings import Settings

_log = logging.getLogger("vlrt.server")
_MAX_HEAD = 16 * 1024  # bytes of a request line and its headers
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_WORD_S = 1  # for telling the clients whose requests are cut off, and for threads to end


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT: then finish what is in flight, within `drain_s`.

    While it loads, either ends the process at once, with 0.

    Returns:
        0. A second signal ends the process at once, with 128 and its number.

    Raises:
        OptionError: the address cannot be had.
        VlrtError: a model cannot be loaded.
    """
    _set_up_logging(settings.log_level)
    for number in _SIGNALS:
        signal.signal(number, _ended_early)
    share_arenas()
    # It is had before the models are loaded, which takes longer, but does not listen yet.
    listening = _bound(settings.host, settings.port)
    try:
        context = build(settings)
        for served in context.catalogue:
            served.warm_up()
        server = _Server(context, listening)
        server.run(sockets=[listening])
    finally:
        listening.close()
    # It waits for graphs that are running still, which nobody waits for any more.
    closing = threading.Thread(target=context.scheduler.close, daemon=True)
    closing.start()
    closing.join(_LAST_WORD_S)
    if server.working or closing.is_alive():
        # These threads must not keep the process, and Python must not go from under them.
        os._exit(0)
    return 0


class _Server(uvicorn.Server):
    """uvicorn's server, with other ideas of its start and its end.

    Args:
        context: the parts of the application.
        listening: the socket that it will listen at.

    Attributes:
        working: threads that were still at work when it had ended.
    """

    def __init__(self, context: Context, listening: socket.socket) -> None:
        settings = context.settings
        super().__init__(
            uvicorn.Config(
                Outside(create_app(context)),
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",  # `serve` does what there is to do before and after
                log_config=None,
                access_log=False,  # `Outside` has its own
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=_LAST_WORD_S,
                h11_max_incomplete_event_size=_MAX_HEAD,
            )
        )
        self._context, self._listening = context, listening
        self.working = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so.

        Raises:
            OptionError: another process listens there; it had the address at the same time.
        """
        host, port = self._listening.getsockname()[:2]
        try:
            await super().startup(sockets)
        except OSError as error:
            raise _not_had(host, port, error) from error
        settings = self._context.settings
        if not settings.api_keys and not ipaddress.ip_address(host).is_loopback:
            print(
                f"vlrt: warning: it listens at {host}, beyond this machine, and has no API keys: "
                "whoever reaches it can use it. Give it keys with --api-key or --api-keys-file",
                file=sys.stderr,
            )
        address = f"http://{_asked(host, port)}"
        _say("\n".join(announcement(settings, self._context.catalogue, address)))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """See to signals. uvicorn would raise them again at the end, and so end with 143."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to end or, if that was begun, end: all that was said is flushed already."""
        if self.should_exit:
            os._exit(128 + sig)
        self._context.state.draining = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing more, finish what is in flight, and cut off what takes too long."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        tasks, drain_s = self.server_state.tasks, self._context.settings.drain_s
        _log.info("ending; requests in flight: %d", len(tasks))
        await self._ended(drain_s)
        if tasks:
            _log.warning(
                "the %g s for finishing are over; requests that were left: %d", drain_s, len(tasks)
            )
            for task in list(tasks):
                task.cancel()
            await self._ended(_LAST_WORD_S)
        self._context.jobs.close()
        self.working = await self._context.jobs.drain(_LAST_WORD_S)
        await super().shutdown(sockets)

    async def _ended(self, seconds: float) -> None:
        """Wait until no request is in flight, or for so long."""
        clock, tasks = asyncio.get_running_loop().time, self.server_state.tasks
        until = clock() + seconds
        while tasks and clock() < until:
            await asyncio.wait(list(tasks), timeout=until - clock())


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has an address, and does not listen yet.

    Raises:
        OptionError: it cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # else a server that ended keeps its port for a minute
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise _not_had(host, port, error) from error
    return made


def _not_had(host: str, port: int, error: OSError) -> OptionError:
    return OptionError(
        f"cannot listen at {host} port {port}: {error.strerror or error}; choose others with "
        "--host and --port"
    )


def _asked(host: str, port: int) -> str:
    """An address as clients on this machine write it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  they cannot ask "any"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _say(text: str) -> None:
    """Print a text at once. Whoever does not want to read it is served all the same."""
    try:
        print(text, flush=True)
    except OSError as error:
        _log.warning("stdout cannot be written: %s", error.strerror or error)
        # What it still holds goes nowhere, or it would fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ended_early(sig: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """End while models are loaded: nothing was begun that had to be finished.

    The first process of a container has to say this: signals that it does not handle, it ignores.
    """
    _log.info("ended before it listened")
    os._exit(0)


def _set_up_logging(level: str) -> None:
    """Log to stderr. Of uvicorn's own messages, those that tell of trouble."""
    # Pillow warns of odd metadata in words that clients choose, and Python keeps all it warned of.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("vlrt").setLevel(level.upper())
    if level != "debug":
        logging.getLogger("uvicorn").setLevel(
            max(logging.WARNING, logging.getLevelName(level.upper()))
        )
