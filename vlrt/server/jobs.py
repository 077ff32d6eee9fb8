"""Work for requests: a bounded number of threads, each with a deadline, awaited by asyncio."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from vlrt.checks import checked_count
from vlrt.errors import DeadlineError, InferenceError, LimitError, OverloadError
from vlrt.server.batching import Scheduler
from vlrt.server.flow import Flow
from vlrt.server.job import Done, Job
from vlrt.server.slots import Slots
from vlrt.server.tickets import Cancelled, Ticket, working_on

__all__ = ["Done", "Jobs"]

T = TypeVar("T")


def _ignore(_model: str, _seconds: Mapping[str, float]) -> None:
    pass


class Jobs:
    """Takes work on, up to a bound, and gives what comes of it in time. For one event loop.

    Each job has a thread of its own until it ends: it waits for a slot, works, and waits for graphs
    (`vlrt.server.batching`) without its slot. No more of a model have begun at a time than keep its
    graphs busy, so that what is prepared for them takes bounded memory.

    Args:
        scheduler: of the graphs.
        slots: threads that may work at the same time.
        queue_length: jobs of one model in flight at most, each until its thread has ended.
        deadline_s: seconds that a job may take from the moment that it is taken on.
        finished: is told of each job that ended by itself, well or with an error, in its thread:
            the model, and how long its stages took.

    Raises:
        OptionError: `slots` or `queue_length` is not a whole number of 1 or more.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        slots: int,
        queue_length: int,
        deadline_s: float,
        finished: Callable[[str, Mapping[str, float]], None] = _ignore,
    ) -> None:
        self._scheduler, self._clock = scheduler, scheduler.clock
        # So many begin as are of use: those that work, and those whose graphs run or are next.
        self._slots = Slots(slots, lambda model: scheduler.at_once(model) + slots)
        self._queue_length = checked_count("queue_length", queue_length)
        self._deadline_s = deadline_s
        self._finished = finished
        self._lock = threading.Lock()
        self._flows: dict[str, Flow] = {}
        self._jobs: set[Job] = set()
        self._closed = False

    async def run(self, model: str, work: Callable[[], T]) -> Done[T]:
        """Do work in a thread.

        Args:
            model: for which it is.
            work: calls the model's methods.

        Raises:
            OverloadError: the model has too much to do.
            DeadlineError: it was not done in time.
            Exception: whatever the work raises.
        """
        (done,) = await self.run_all(model, [work])
        return done

    async def run_all(self, model: str, works: Sequence[Callable[[], T]]) -> list[Done[T]]:
        """Do several works, each in a thread, all or none of them.

        If this coroutine is cancelled, they end as soon as they can: those that have not begun
        never do, and what waits for a graph is not computed.

        Args:
            model: for which they are.
            works: each calls the model's methods.

        Returns:
            What each gave, in order.

        Raises:
            LimitError: more of them than are ever taken on.
            OverloadError, DeadlineError: see `run`.
            Exception: that of the first, by position, which fails.
        """
        jobs = self._admit(model, len(works))
        try:
            self._start(jobs, works)
            await self._landed(model, jobs)
            return [self._result(job) for job in jobs]
        finally:
            for job in jobs:
                self._cancel(job)
                job.leave()

    def in_flight(self, model: str) -> int:
        """Jobs of a model whose threads have not ended."""
        with self._lock:
            return self._flow(model).in_flight

    async def drain(self, seconds: float) -> int:
        """Wait until nothing is in flight.

        Args:
            seconds: at most.

        Returns:
            How many jobs were left.
        """
        until = self._clock() + seconds
        while ended := self._endings():
            done, _ = await asyncio.wait(ended, timeout=max(0.0, until - self._clock()))
            if not done:
                break
        return len(self._endings())

    def close(self) -> None:
        """Take nothing on any more, and cancel what is in flight."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs)
        for job in jobs:
            self._cancel(job)

    def _flow(self, model: str) -> Flow:
        return self._flows.setdefault(model, Flow())

    def _endings(self) -> list["asyncio.Future[None]"]:
        with self._lock:
            return [job.ended for job in self._jobs]

    def _admit(self, model: str, number: int) -> list[Job]:
        """Take jobs on, all or none."""
        loop, now, limit = asyncio.get_running_loop(), self._clock(), self._queue_length
        if number > limit:
            raise LimitError(f"{number} jobs for {model} at once; at most {limit} are taken on")
        tickets = [
            Ticket(model, now + self._deadline_s, self._slots, clock=self._clock)
            for _ in range(number)
        ]
        with self._lock:
            if self._closed:
                raise _stopping(model)
            flow = self._flow(model)
            if flow.in_flight + number > limit:
                seconds = flow.retry_after(now)
                raise OverloadError(
                    f"{model} has {flow.in_flight} jobs in flight, and {number} more would be "
                    f"beyond the limit of {limit}; retry in {seconds:.0f} s",
                    seconds,
                )
            flow.begin(number, now)
            jobs = [Job(ticket, loop) for ticket in tickets]
            self._jobs.update(jobs)
        for ticket in tickets:
            self._scheduler.expect(ticket)
        return jobs

    def _start(self, jobs: Sequence[Job], works: Sequence[Callable[[], Any]]) -> None:
        """Start a thread for each job."""
        for at, (job, work) in enumerate(zip(jobs, works, strict=True)):
            name = f"vlrt-job-{job.ticket.model}"
            try:
                # A daemon: work that never ends does not keep the process.
                threading.Thread(
                    target=self._work, args=(job, work), name=name, daemon=True
                ).start()
            except (RuntimeError, MemoryError) as error:
                for never in jobs[at:]:
                    self._free(never)
                raise OverloadError(
                    f"no thread for {job.ticket.model}: {error}; retry", 1.0
                ) from error

    async def _landed(self, model: str, jobs: Sequence[Job]) -> None:
        """Wait until all have ended, or one has failed and all before it have ended."""
        while True:
            failed = next((at for at, job in enumerate(jobs) if job.failed), len(jobs))
            for job in jobs[failed + 1 :]:
                self._cancel(job)
            pending = [job.ended for job in jobs[:failed] if not job.ended.done()]
            if not pending:
                return
            left = jobs[0].ticket.deadline - self._clock()
            if left <= 0:
                raise self._late(model)
            await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    def _result(self, job: Job) -> Done[Any]:
        # Not kept, as in `Run.result`.
        outcome, job.outcome = job.outcome, None
        try:
            if isinstance(outcome, DeadlineError):
                raise self._late(job.ticket.model)
            if isinstance(outcome, Cancelled):  # of all that cancel, only `close` is waited for
                raise _stopping(job.ticket.model)
            if isinstance(outcome, Exception):
                raise outcome
            assert outcome is not None
            return outcome
        finally:
            del outcome

    def _late(self, model: str) -> DeadlineError:
        with self._lock:
            seconds = self._flow(model).retry_after(self._clock())
        return DeadlineError(
            f"{model} was not done within {self._deadline_s:g} s; retry in {seconds:.0f} s", seconds
        )

    def _cancel(self, job: Job) -> None:
        """Let a job end as soon as it can, if it has not ended."""
        if not job.ended.done():
            job.ticket.cancel()
            self._scheduler.forget(job.ticket)

    def _work(self, job: Job, work: Callable[[], Any]) -> None:
        """What a job's thread does."""
        try:
            job.outcome = self._attempt(job.ticket, work)
        finally:
            self._free(job)

    def _attempt(self, ticket: Ticket, work: Callable[[], Any]) -> Done[Any] | Exception:
        try:
            try:
                ticket.begin()
                with working_on(ticket):
                    value = work()
            finally:
                ticket.end()
            seconds = dict(ticket.seconds)
            self._finished(ticket.model, seconds)
            return Done(value, seconds)
        except Exception as error:  # noqa: BLE001, it is the caller's
            return error
        except BaseException as error:  # noqa: BLE001, SystemExit is not for the loop to hear
            name = type(error).__name__
            ended = InferenceError(f"a job of {ticket.model} was ended by {name}: {error}")
            ended.__cause__ = error
            return ended

    def _free(self, job: Job) -> None:
        """Count a job as ended, and tell the loop."""
        self._scheduler.forget(job.ticket)
        with self._lock:
            self._flow(job.ticket.model).end(self._clock())
            self._jobs.discard(job)
        job.land()


def _stopping(model: str) -> OverloadError:
    return OverloadError(f"the server is stopping and takes on no work for {model}; retry", 1.0)
