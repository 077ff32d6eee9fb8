"""One job in flight, as the loop that waits for it sees it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vlrt.server.tickets import Ticket

T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """What a job gave.

    Attributes:
        value: its result.
        seconds: how long each of its stages took, see `vlrt.server.tickets.STAGES`.
    """

    value: T
    seconds: Mapping[str, float]


class Job:
    """A job's ticket, and what becomes of it. For one event loop, but for `land`.

    Args:
        ticket: its way through the server.
        loop: which is told.

    Attributes:
        ticket: the same.
        ended: done when its thread has ended.
        outcome: what it gave, or an error; None until then, and once nobody asks for it.
    """

    def __init__(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        self.ticket, self._loop = ticket, loop
        self.ended: asyncio.Future[None] = loop.create_future()
        self.outcome: Done[Any] | Exception | None = None
        self._left = False

    @property
    def failed(self) -> bool:
        """Whether its thread has ended with an error."""
        return self.ended.done() and isinstance(self.outcome, Exception)

    def land(self) -> None:
        """Tell the loop that its thread has ended."""
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            if not self._loop.is_closed():  # otherwise nobody can wait for it any more
                raise

    def leave(self) -> None:
        """Nobody asks for its outcome any more."""
        self._left = True
        if self.ended.done():
            # An error knows the frames that it came through, of which the first knows this job:
            # together they would keep a picture until Python looks for what goes in circles.
            self.outcome = None

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if self._left:
            self.leave()
