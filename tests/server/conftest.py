"""Real servers for tests: uvicorn in a thread, on a free port of this machine."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vlrt
from vlrt import demo

NAMES = {"clip-demo": "clip", "owlvit-demo": "owlvit", "vilt-demo": "vilt"}


@dataclass(frozen=True)
class Running:
    """A server that runs: where, and its parts."""

    url: str
    context: Any
    app: Any

    def until(self, holds: Callable[[], bool], seconds: float = 20) -> None:
        """Wait for something that the server does in its own time."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.005)


@contextmanager
def running(**given: Any) -> Iterator[Running]:
    """Run a server of the demonstration's models, with settings that differ from the defaults."""
    uvicorn = pytest.importorskip("uvicorn", reason="the server runs on it")
    pytest.importorskip("fastapi", reason="the server is built on it")
    from vlrt.server.app import build, create_app
    from vlrt.server.settings import Settings

    models = [{"name": name, "source": str(demo.bundle(family))} for name, family in NAMES.items()]
    context = build(Settings(**{"models": models, **given}))
    app = create_app(context)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="server of the tests")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended before it began"
            time.sleep(0.005)
        host, port = server.servers[0].sockets[0].getsockname()
        yield Running(f"http://{host}:{port}", context, app)
    finally:
        server.should_exit = True
        thread.join()
        context.jobs.close()
        context.scheduler.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A server with the default settings and all three models, shared by all tests."""
    with running() as one:
        yield one


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Run servers with other settings: `serve(max_images=2)`. They end with the test."""
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(running(**given))


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    """An HTTP client of the shared server."""
    httpx = pytest.importorskip("httpx", reason="the tests' client")
    with httpx.Client(base_url=server.url, timeout=60) as one:
        yield one


@pytest.fixture
def client_of() -> Iterator[Callable[..., Any]]:
    """Make clients of other servers: `client_of(server, headers=...)`."""
    httpx = pytest.importorskip("httpx", reason="the tests' client")
    with ExitStack() as stack:

        def made(server: Running, **given: Any) -> Any:
            return stack.enter_context(httpx.Client(base_url=server.url, timeout=60, **given))

        yield made


@pytest.fixture(scope="session")
def library() -> dict[str, Any]:
    """The same models as the library has them, without a server."""
    return {name: vlrt.load(demo.bundle(family)) for name, family in NAMES.items()}


@pytest.fixture(scope="session")
def scenes() -> list[Path]:
    """Pictures that come with vlrt: scenes of coloured shapes, and single shapes."""
    return sorted((demo.ROOT / "pictures").glob("*.jpg"))


@pytest.fixture(scope="session")
def shapes() -> list[str]:
    """The labels that the demonstration's models know."""
    described = json.loads((demo.ROOT / "pictures" / "clip.json").read_text())
    return list(described["labels"])
