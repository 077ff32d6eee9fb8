"""What stands between the network and the routes, as plain ASGI.

`install` puts the guards in their order. From the outside in: `Measured` (of `metrics`),
`SecurityHeaders`, CORS, `LastResort`, `ApiKeys`, `BodyLimit` (of `bodies`). So an error has the
headers that any answer has, whatever raised it, and is counted.
"""

import hashlib
import hmac
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlrt.errors import AccessError
from vlrt.server.bodies import BodyLimit, refuse
from vlrt.server.metrics import Measured
from vlrt.server.problems import problem

if TYPE_CHECKING:
    from vlrt.server.context import Context

# Paths that need no key. A "*" at the end stands for whatever follows.
OPEN_PATHS = ("/health/*", "/v2/health/*")
PAGE_PATHS = ("/", "/static/*")

_LOG = logging.getLogger("vlrt.server")
_SECURITY = {
    # The page needs all of it; to what is no page it does no harm.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def install(app: FastAPI, context: "Context") -> None:
    """Put every guard before an application, as its settings say."""
    settings = context.settings
    # What is added last stands outermost.
    app.add_middleware(
        BodyLimit,
        max_bytes=int(settings.max_body_mib * 2**20),
        max_all_bytes=int(settings.body_memory_mib * 2**20),
    )
    if settings.api_keys:
        app.add_middleware(
            ApiKeys,
            keys=[key.get_secret_value() for key in settings.api_keys],
            open_paths=OPEN_PATHS + (PAGE_PATHS if settings.page else ()),
        )
    app.add_middleware(LastResort)
    if settings.cors_origins:
        # Outside of the keys: browsers ask without one whether they may ask with one.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=[
                "Authorization", "Content-Type", "Inference-Header-Content-Length", "X-API-Key",
            ],
            expose_headers=["Inference-Header-Content-Length", "Retry-After", "Server-Timing"],
        )  # fmt: skip
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Measured, metrics=context.metrics)


class LastResort:
    """Answers with a problem whatever else was raised, and lets nothing through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # noqa: BLE001  it is told, and logged
            if not started:
                await problem(error, scope)(scope, receive, send)
                return
            # Half of an answer is out. The server closes the connection, so that it shows.
            asked = (scope["method"], scope["path"])
            _LOG.exception("an answer to %s %r broke off", *asked)


class SecurityHeaders:
    """Tells browsers what they may do with an answer; what an answer says itself stands."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, secured)


class ApiKeys:
    """Lets through who has a key, as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.

    Args:
        app: behind it.
        keys: those that are valid.
        open_paths: what GET and HEAD need no key for; a "*" at the end stands for what follows.
    """

    def __init__(self, app: ASGIApp, *, keys: Iterable[str], open_paths: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]
        self._paths = {path for path in open_paths if not path.endswith("*")}
        self._below = tuple(path[:-1] for path in open_paths if path.endswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        given = _keys(scope)
        if any([self._knows(key) for key in given]):  # noqa: C419  each is compared
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":  # which no route is for yet
            await send({"type": "websocket.close", "code": 1008})
            return
        await refuse(
            AccessError(
                ("the API key is not valid" if given else "an API key is missing")
                + "; send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            ),
            scope,
            receive,
            send,
        )

    def _is_open(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return False
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return path in self._paths or path.startswith(self._below)

    def _knows(self, key: bytes) -> bool:
        """Whether it is a valid key. It takes as long for any that is given."""
        digest, known = _digest(key), False
        for one in self._digests:
            known |= hmac.compare_digest(one, digest)
        return known


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _keys(scope: Scope) -> list[bytes]:
    """The keys that a request gives, of which one has to be valid."""
    found = []
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.append(value.strip())
        elif name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                found.append(key.strip())
    return [key for key in found if key]
