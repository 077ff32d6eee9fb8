"""Bodies of requests: taken in whole, within bounds of size and time, or refused."""

import asyncio
import time
from collections import deque
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlrt.errors import LimitError, RequestError, SlowBodyError, VlrtError
from vlrt.server.problems import problem

# Longest wait for a whole body. 32 MiB come in this time over 5 Mbit/s.
BODY_TIMEOUT_S = 60.0
# Whoever is refused may be sending still, and most clients read the answer only when they have sent
# all. So much more is read, and thrown away, before the connection is closed; less if none comes.
DISCARD_BYTES, DISCARD_S, DISCARD_IDLE_S = 2**26, 10.0, 1.0


class _Taken(NamedTuple):
    """What there is of a body.

    Attributes:
        pieces: its bytes.
        size: their number.
        more: whether its end is still to come.
    """

    pieces: deque[bytes]
    size: int
    more: bool


class BodyLimit:
    """Takes in the whole body of a request before anything is done about it.

    So a route never waits for a client, and what is too large or too slow is refused in one place:
    413 for more than `max_bytes`, whether the request states its length, does not, or lies; 408 for
    what is not there after `timeout_s`. Who leaves meanwhile costs no more than what was sent.

    Args:
        app: behind it.
        max_bytes: of a body.
        timeout_s: seconds from the first byte of a body to the last.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app, self._max_bytes, self._timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_length(scope)
            taken = await asyncio.wait_for(self._taken(receive), self._timeout_s)
        except asyncio.TimeoutError:
            slow = SlowBodyError(f"the body was not here after {self._timeout_s:g} seconds")
            await refuse(slow, scope, receive, send, more=False)
        except RequestError as error:
            await refuse(error, scope, receive, send)
        else:
            if taken is None:
                return
            if taken.size > self._max_bytes:
                over = LimitError(f"a body of more than it may have; {self._limit}")
                await refuse(over, scope, receive, send, more=taken.more)
                return
            await self._app(scope, _replaying(taken.pieces, receive), send)

    def _check_length(self, scope: Scope) -> None:
        stated = Headers(scope=scope).getlist("content-length")
        if not stated:
            return
        length = stated[0]
        if len(set(stated)) > 1 or not (length.isascii() and length.isdigit()):
            raise RequestError(f"Content-Length is {', '.join(stated)!r:.80}; valid: one number")
        length = length.lstrip("0")  # int() refuses thousands of digits
        if len(length) > 18 or int(length or "0") > self._max_bytes:
            raise LimitError(f"a body of {length:.20} bytes; {self._limit}")

    @property
    def _limit(self) -> str:
        return f"this server takes {self._max_bytes} bytes (max_body_mib)"

    async def _taken(self, receive: Receive) -> _Taken | None:
        """A body, or the first of it that is too much; None if the client left before its end."""
        pieces: deque[bytes] = deque()
        size, more = 0, True
        while more and size <= self._max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            size, more = size + len(piece), message.get("more_body", False)
            if piece:
                pieces.append(piece)
        return _Taken(pieces, size, more)


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
