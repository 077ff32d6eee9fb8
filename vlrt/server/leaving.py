"""What happens to a request whose client leaves before it is answered, or that takes too long."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from vlrt.errors import DeadlineError

T = TypeVar("T")


class GoneError(Exception):
    """The client has closed its connection. Nobody is there to be told."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T], deadline_s: float) -> T:
    """Do some work for as long as the client waits for it, and no longer than is allowed.

    Args:
        request: whose body was read already.
        work: all that it asks for, which may be several jobs in a row; cancelled when the client
            leaves, or at the deadline.
        deadline_s: seconds from now.

    Raises:
        GoneError: the client has left.
        DeadlineError: the work was not done in time.
        What the work raises.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait(
            (working, leaving), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED
        )
        if working.done():
            return working.result()
        if leaving.done():
            raise GoneError
        raise DeadlineError(f"the request was not done within {deadline_s:g} s; retry", 1.0)
    finally:
        working.cancel()
        leaving.cancel()
        # Both have ended when this has, whoever it was that stopped them.
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # whatever else a server still tells is of the body, which was read


class NoAnswer(Response):
    """Sends nothing: whoever asked has gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve nobody."""


def install(app: FastAPI) -> None:
    """Let requests end whose clients have gone: no answer is begun, and nothing is logged."""

    async def gone(_request: Request, _error: Exception) -> Response:
        return NoAnswer()

    app.add_exception_handler(GoneError, gone)
