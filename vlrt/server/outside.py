"""The outermost layer of the application: a line in the log for each request, and the last word."""

import asyncio
import logging
import time
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlrt.errors import OverloadError
from vlrt.server.problems import problem

_log = logging.getLogger("vlrt.access")
_AGAIN_S = 5.0  # after it, likely, another server is there


class Outside:
    """Logs each request, and answers those that the server's end cuts off.

    A line holds the method, the route (or the path, where there is none), the status and the
    milliseconds; neither the query nor a header, since these may hold what is secret.

    Args:
        app: all the rest.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            # Only `vlrt.server.serving` cancels requests, when the time for finishing them is up.
            if status == 0:
                error = OverloadError("the server has ended; this was not finished", _AGAIN_S)
                answer = problem(error, scope)
                answer.headers["Connection"] = "close"
                await answer(scope, receive, noted)
        finally:
            _log.info(
                "method=%s path=%s status=%s ms=%.1f",
                scope["method"],
                path_of(scope),
                status or "left",  # the client did, before it was answered
                (time.perf_counter() - began) * 1000,
            )


def path_of(scope: Scope) -> str:
    """The route that a request took or, where there is none, its path, in one printable word."""
    route = getattr(scope.get("route"), "path", None)
    return str(route) if route else quote(str(scope["path"])[:200])
