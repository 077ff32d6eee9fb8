"""Bodies of requests: taken in whole, within bounds of size and time, or refused."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlrt.errors import LimitError, OverloadError, RequestError, SlowBodyError, VlrtError
from vlrt.server.problems import problem

# Longest wait for a whole body. 32 MiB come in this time over 5 Mbit/s.
BODY_TIMEOUT_S = 60.0
# Whoever is refused may be sending still, and most clients read the answer only when they have sent
# all. So much more is read, and thrown away, before the connection is closed; less if none comes.
DISCARD_BYTES, DISCARD_S, DISCARD_IDLE_S = 2**26, 10.0, 1.0


@dataclass
class _Body:
    """What there is of a body.

    Attributes:
        pieces: its bytes.
        size: how many there were.
        more: whether its end is still to come.
        left: whether its client left before it.
    """

    pieces: deque[bytes] = field(default_factory=deque)
    size: int = 0
    more: bool = True
    left: bool = False


class BodyLimit:
    """Takes in the whole body of a request before anything is done about it.

    So a route never waits for a client, and what is too large or too slow is refused in one place:
    413 for more than `max_bytes`, whether the request states its length, does not, or lies; 408 for
    what is not there after `timeout_s`; 503 for what does not fit beside the bodies of the other
    requests. Who leaves meanwhile costs no more than what was sent.

    Args:
        app: behind it.
        max_bytes: of a body.
        max_all_bytes: of the bodies of all requests that are not answered yet.
        timeout_s: seconds from the first byte of a body to the last.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        max_all_bytes: int,
        timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self._app, self._timeout_s = app, timeout_s
        self._max_bytes, self._max_all_bytes = max_bytes, max_all_bytes
        self._all_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body()
        try:
            await self._serve(scope, receive, send, body)
        finally:
            self._all_bytes -= body.size

    async def _serve(self, scope: Scope, receive: Receive, send: Send, body: _Body) -> None:
        try:
            self._check_length(scope)
            await asyncio.wait_for(self._take(receive, body), self._timeout_s)
        except asyncio.TimeoutError:
            slow = SlowBodyError(f"the body was not here after {self._timeout_s:g} seconds")
            await refuse(slow, scope, receive, send, more=False)
        except (RequestError, OverloadError) as error:
            await refuse(error, scope, receive, send, more=body.more)
        else:
            if not body.left:
                await self._app(scope, _replaying(body.pieces, receive), send)

    def _check_length(self, scope: Scope) -> None:
        stated = Headers(scope=scope).getlist("content-length")
        if not stated:
            return
        if "transfer-encoding" in Headers(scope=scope):
            # Proxies differ about where such a body ends, and so where the next request begins.
            raise RequestError("Content-Length and Transfer-Encoding are there; valid: one of them")
        length = stated[0]
        if len(set(stated)) > 1 or not (length.isascii() and length.isdigit()):
            raise RequestError(f"Content-Length is {', '.join(stated)!r:.80}; valid: one number")
        length = length.lstrip("0")  # int() refuses thousands of digits
        if len(length) > 18 or int(length or "0") > self._max_bytes:
            raise LimitError(f"a body of {length:.20} bytes; {self._limit}")

    @property
    def _limit(self) -> str:
        return f"this server takes {self._max_bytes} bytes (max_body_mib)"

    async def _take(self, receive: Receive, body: _Body) -> None:
        """Take in a body.

        Raises:
            LimitError: it is too large.
            OverloadError: all of them are.
        """
        while body.more:
            message = await receive()
            if message["type"] == "http.disconnect":
                body.left = True
                return
            piece = message.get("body", b"")
            body.size, body.more = body.size + len(piece), message.get("more_body", False)
            self._all_bytes += len(piece)
            if body.size > self._max_bytes:
                raise LimitError(f"a body of more than it may have; {self._limit}")
            if self._all_bytes > self._max_all_bytes:
                raise OverloadError(
                    f"the bodies of all requests together have more than {self._max_all_bytes} "
                    "bytes (body_memory_mib); retry",
                    1.0,
                )
            if piece:
                body.pieces.append(piece)


def _replaying(body: deque[bytes], receive: Receive) -> Receive:
    """The channel that a body came from, as it was before."""
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        piece = body.popleft() if body else b""  # each is let go of once it is handed out
        replayed = not body
        return {"type": "http.request", "body": piece, "more_body": not replayed}

    return replay


async def refuse(
    error: VlrtError, scope: Scope, receive: Receive, send: Send, *, more: bool = True
) -> None:
    """Answer with a problem, and close the connection if there is, or may be, a body to come.

    Args:
        error: why.
        scope, receive, send: the request's.
        more: whether the client may be sending still; then it is read on, see `DISCARD_BYTES`.
    """
    answer = problem(error, scope)
    headers = Headers(scope=scope)
    if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
        await answer(scope, receive, send)
        return
    answer.headers["Connection"] = "close"
    # The answer goes out whole, with its length, but the server is not told yet that it is: then it
    # would close a connection with bytes unread, and what the client gets to see is a reset.
    start: Message = {
        "type": "http.response.start",
        "status": answer.status_code,
        "headers": answer.raw_headers,
    }
    await send(start)
    await send({"type": "http.response.body", "body": bytes(answer.body), "more_body": True})
    # Who waits to be told to go on is told not to by the answer, and would be by a `receive`.
    if more and "expect" not in headers:
        await _discard(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    """Read what is left of a body, within bounds."""
    left, until = DISCARD_BYTES, time.monotonic() + DISCARD_S
    while left > 0:
        try:
            wait_s = min(until - time.monotonic(), DISCARD_IDLE_S)
            message = await asyncio.wait_for(receive(), wait_s)
        except asyncio.TimeoutError:
            return
        if not message.get("more_body", False):  # its end, or the client's
            return
        left -= len(message["body"])
