"""The threads that run graphs: what comes next is for `Queues` to say, who waits is told here."""

import logging
import threading
from collections.abc import Callable, Sequence

from vlrt.errors import InferenceError, OverloadError
from vlrt.server.bells import Bell
from vlrt.server.queues import Batch, Outputs, Queues, Run
from vlrt.server.tickets import Clock, Ticket

_log = logging.getLogger("vlrt.server")


class _Lane:
    """A thread that runs one batch at a time, and what it has at hand."""

    def __init__(self, number: int, work: Callable[["_Lane"], None]) -> None:
        self.number = number
        self.bell = Bell()
        self.batch: Batch | None = None
        # A daemon: a graph that never ends does not keep the process.
        self.thread = threading.Thread(
            target=work, args=(self,), name=f"vlrt-lane-{number}", daemon=True
        )


class Lanes:
    """Lanes, each of which runs one batch at a time. Safe to use from several threads.

    A lane whose thread ends, for whatever reason, is replaced by a new one.

    Args:
        number: of lanes.
        queues: what they run next.
        compute: runs several callers' inputs as one, to the outputs of each.
        clock: what everything is timed by.

    Attributes:
        clock: the same.
    """

    def __init__(
        self,
        number: int,
        queues: Queues,
        compute: Callable[[Sequence[Run]], list[Outputs]],
        clock: Clock,
    ) -> None:
        self.clock = clock
        self._number, self._queues, self._compute = number, queues, compute
        # Guards the queues and the lanes. It is held for moments, and never while anything waits.
        # A plain lock, for the reason that `Bell` gives.
        self._lock = threading.Lock()
        self._lanes: dict[int, _Lane] = {}
        self._started = False

    def start(self) -> None:
        """Start the lanes; runs that came before wait for them."""
        with self._lock:
            self._started = True
            self._man()

    def close(self) -> None:
        """Run what waits, and end the lanes. Runs that come later get an OverloadError."""
        with self._lock:
            self._queues.closing = True
            self._ring()
        while lanes := self._all_lanes():
            for lane in lanes:
                lane.thread.join()
            with self._lock:
                self._man()
        with self._lock:
            left = self._queues.clear()
        for run in left:  # there is some only if no lane ever started
            run.settle(_closed(run.graph.model))

    def healthy(self) -> bool:
        """Whether every lane lives."""
        with self._lock:
            alive = [lane for lane in self._lanes.values() if lane.thread.is_alive()]
            return len(alive) == self._number

    def depth(self, model: str) -> int:
        """Rows of a model that wait."""
        with self._lock:
            return self._queues.depth(model)

    def expect(self, ticket: Ticket) -> None:
        """A job is on its way to a graph: others of its model wait for it, a little."""
        with self._lock:
            self._queues.expect(ticket)

    def forget(self, ticket: Ticket) -> None:
        """A job has ended, or will: nobody is to wait for it."""
        with self._lock:
            self._queues.forget(ticket)
            self._ring()

    def run(self, run: Run) -> None:
        """Let a run wait for its turn, and wait until it has an outcome.

        Raises:
            OverloadError: the scheduler was closed.
            Cancelled, DeadlineError: its job's client has gone, or its time is up.
        """
        with self._lock:
            if self._queues.closing:
                raise _closed(run.graph.model)
            self._man()
            self._queues.add(run)
            self._ring()
        try:
            while run.outcome is None:
                if run.ticket is None:
                    run.bell.wait()
                else:
                    run.ticket.wait(run.bell)
        except BaseException:
            with self._lock:
                run.leave()
                self._queues.remove([run])
            raise

    def _ring(self) -> None:
        """Let idle lanes look again at what there is; the caller has the lock."""
        for lane in self._lanes.values():
            lane.bell.ring()

    def _all_lanes(self) -> list[_Lane]:
        with self._lock:
            return list(self._lanes.values())

    def _man(self) -> None:
        """See to it that there are lanes; the caller has the lock."""
        for number in range(self._number if self._started else 0):
            lane = self._lanes.get(number)
            if lane is not None and lane.thread.is_alive():
                continue
            if lane is not None:  # it was ended before it could say so
                self._bury(lane, "it ended without a word")
            if not (self._queues.closing and self._queues.empty):
                lane = _Lane(number, self._work)
                lane.thread.start()
                self._lanes[number] = lane

    def _bury(self, lane: _Lane, why: str) -> None:
        """Forget a lane that ended, and tell whose runs it had; the caller has the lock."""
        batch = lane.batch
        if batch is not None:
            graph = batch.graph
            for run in batch.runs:
                message = f"{graph.model}.{graph.component}: the worker ended while it ran this"
                run.settle(InferenceError(f"{message}: {why}"))
            self._queues.remove(batch.runs)
            self._queues.finish(batch, self.clock())
        # Last, so that if this too is cut short, the next caller finds what is left to do.
        lane.batch = None
        if self._lanes.get(lane.number) is lane:
            del self._lanes[lane.number]

    def _work(self, lane: _Lane) -> None:
        """What a lane's thread does."""
        try:
            while self._turn(lane):
                pass
        except BaseException as error:  # noqa: BLE001, also what was put into the thread
            with self._lock:
                self._bury(lane, f"{type(error).__name__}: {error}")
                self._man()
            _log.exception("%s ended and is replaced", lane.thread.name)

    def _turn(self, lane: _Lane) -> bool:
        """Run what comes next, or wait for it.

        Returns:
            Whether there is to be another turn.
        """
        now = self.clock()
        with self._lock:
            self._queues.drop()
            # It is the lane's before it leaves the queue, so that no run is lost with its lane.
            lane.batch = batch = self._queues.choose(now)
            if batch is not None:
                self._queues.begin(batch)
            elif self._queues.closing:
                del self._lanes[lane.number]
                return False
            else:
                seconds = self._queues.seconds_left(now)
        if batch is None:
            lane.bell.wait(seconds)
            return True
        self._run_batch(batch)
        with self._lock:
            self._queues.finish(batch, self.clock())
            lane.batch = None
        return True

    def _run_batch(self, batch: Batch) -> None:
        """Run runs as one or, if that fails, each alone, so that only the culprit fails."""
        try:
            outputs = self._compute(batch.runs)
        except Exception as error:  # noqa: BLE001, it is the caller's
            if len(batch.runs) == 1:
                self._settle(batch.runs[0], error)
                return
        else:
            for run, own in zip(batch.runs, outputs, strict=True):
                self._settle(run, own)
            return
        for run in batch.runs:
            if run.over:
                continue
            try:
                (own,) = self._compute([run])
            except Exception as error:  # noqa: BLE001, as above
                self._settle(run, error)
            else:
                self._settle(run, own)

    def _settle(self, run: Run, outcome: Outputs | Exception) -> None:
        """Give a caller its outcome, after which its job is on its way again."""
        run.ended = self.clock()
        with self._lock:
            self._queues.come_back(run)
        run.settle(outcome)


def _closed(model: str) -> OverloadError:
    return OverloadError(f"the server is stopping and runs {model} no more; retry", 1.0)
