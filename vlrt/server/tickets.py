"""One job's way through the server: whether it may go on, whether it works, where its time went."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from vlrt.errors import DeadlineError
from vlrt.server.bells import Bell
from vlrt.server.slots import Slots

Clock = Callable[[], float]
# Where the time of a job goes: waiting for a slot, at work before a graph (up to the last of them),
# waiting for a graph, in graphs, at work after the last graph.
STAGES = ("wait", "prepare", "queue", "run", "finish")


class Cancelled(Exception):  # noqa: N818, it is no error: nobody waits for the result any more
    """The job's client has gone. Ends the job's thread, and reaches nobody."""


class Ticket:
    """One job's way through the server. Safe to use from several threads.

    Args:
        model: whose graphs it runs.
        deadline: by the clock; infinity for none.
        slots: where its thread takes a slot while it works; None to work at once.
        clock: what it is timed by.

    Attributes:
        seconds: how long each of `STAGES` took so far.
    """

    def __init__(
        self,
        model: str,
        deadline: float = float("inf"),
        slots: Slots | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self.model, self.deadline = model, deadline
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._slots, self._clock = slots, clock
        self._began = self._last = clock()
        self._lock = threading.Lock()
        self._bells: set[Bell] = set()
        self._cancelled = False
        self._begun = False  # whether it ever had a slot
        self._works = False  # whether it has one
        self._ran = False  # whether a graph

    @property
    def over(self) -> bool:
        """Whether its client has gone, or its time is up."""
        return self._cancelled or self._clock() >= self.deadline

    def cancel(self) -> None:
        """Its client has gone: wake its thread if it waits, to end at its next `check`."""
        with self._lock:
            self._cancelled = True
            for bell in self._bells:
                bell.ring()

    def check(self) -> None:
        """Go on only if that is of use to anybody.

        Raises:
            Cancelled: its client has gone.
            DeadlineError: its time is up.
        """
        if self._cancelled:
            raise Cancelled(f"a job of {self.model} was cancelled")
        if self._clock() >= self.deadline:
            allowed = self.deadline - self._began
            raise DeadlineError(f"{self.model} was not done within {allowed:g} s; retry", 1.0)

    def wait(self, bell: Bell) -> None:
        """Wait until a bell rings. It may ring for nothing: look, and wait again.

        Raises:
            Cancelled, DeadlineError: see `check`; while it waits, too.
        """
        with self._lock:
            self._bells.add(bell)
        try:
            self.check()  # after the bell was added: from then on `cancel` rings it
            bell.wait(None if self.deadline == float("inf") else self.deadline - self._clock())
            self.check()
        finally:
            with self._lock:
                self._bells.discard(bell)

    def mark(self, stage: str, at: float | None = None) -> None:
        """Count the time since the last mark, until now or another moment after it, as a stage."""
        until = max(self._last, self._clock() if at is None else at)
        self.seconds[stage] += until - self._last
        self._ran = self._ran or stage == "run"
        self._last = until

    def begin(self, *, resumed: bool = False) -> None:
        """Start to work: take a slot.

        Args:
            resumed: whether it worked before; then it comes before those that did not.

        Raises:
            Cancelled, DeadlineError: instead of waiting for a slot any longer.
        """
        try:
            if self._slots is not None:
                self._slots.acquire(self.model, resumed=resumed, wait=self.wait)
                self._begun = self._works = True
            self.check()
        finally:
            self.mark("wait")

    def end(self) -> None:
        """Work no more: give the slot back, if it has one."""
        self.mark("finish" if self._ran else "prepare")
        self._give_back()
        if self._begun and self._slots is not None:
            self._slots.end(self.model)

    def _give_back(self) -> None:
        if self._works and self._slots is not None:
            self._works = False
            self._slots.release()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Give the slot back for the time of a wait, and take one again after it.

        Raises:
            Cancelled, DeadlineError: see `begin`. Without a slot nothing goes on.
        """
        self._give_back()
        try:
            yield
        finally:
            self.begin(resumed=True)


_current: ContextVar[Ticket | None] = ContextVar("vlrt_ticket", default=None)


def current() -> Ticket | None:
    """The ticket of the job that this thread works on."""
    return _current.get()


@contextmanager
def working_on(ticket: Ticket) -> Iterator[None]:
    """Make a ticket the `current` one."""
    token = _current.set(ticket)
    try:
        yield
    finally:
        _current.reset(token)
