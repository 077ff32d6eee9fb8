"""Running what several requests want of a graph as one.

A `BatchingRunner` stands between a model and a graph. Its callers, each in a thread of its own,
wait until a *lane* has run their inputs, together with those of others of the same shapes: every
graph treats each row alone, so that the results are the same. All that a lane does, it does between
two looks at `Queues`, which says what comes next.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlrt.checks import checked_count
from vlrt.errors import InferenceError
from vlrt.server.lanes import Lanes
from vlrt.server.queues import Arrays, Outputs, Queues, Run, Session
from vlrt.server.tickets import Cancelled, Clock, Ticket, current

__all__ = ["BatchingRunner", "Cancelled", "Ran", "Scheduler", "Ticket", "current"]


@dataclass(frozen=True)
class Ran:
    """One run of a graph.

    Attributes:
        model, component: which graph.
        requests: callers whose inputs it ran together.
        rows: of all of them.
        seconds: how long it took.
        error: whether it failed; several callers' inputs are then run again, each alone.
    """

    model: str
    component: str
    requests: int
    rows: int
    seconds: float
    error: bool


def _ignore(_ran: Ran) -> None:
    pass


class Scheduler(Lanes):
    """Runs graphs for many callers: what fits together as one, and each model in its turn.

    A run waits for others to join it until its graph's `max_batch` rows are there, it has waited
    for `max_delay_s`, or no job of its model is on its way to a graph. So one client alone never
    waits for others.

    Args:
        lanes: how many graphs run at the same time.
        max_delay_s: how long a run waits at most for others to join it.
        batching: whether runs are joined at all; otherwise each goes alone, at once.
        observe: is told of every run of a graph, in a lane's thread.
        clock: what everything is timed by.

    Attributes:
        clock: the same.

    Raises:
        OptionError: `lanes` is not a whole number of 1 or more.
    """

    def __init__(
        self,
        *,
        lanes: int = 1,
        max_delay_s: float = 0.005,
        batching: bool = True,
        observe: Callable[[Ran], None] = _ignore,
        clock: Clock = time.monotonic,
    ) -> None:
        queues = Queues(max_delay_s, batching=batching)
        super().__init__(checked_count("lanes", lanes), queues, self._compute_batch, clock)
        self._observe = observe
        self._runners: dict[str, list[BatchingRunner]] = {}  # by model

    def runner(
        self, model: str, component: str, session: Session, *, max_batch: int
    ) -> "BatchingRunner":
        """What a model runs in place of one of its graphs.

        Args:
            model, component: which graph, for fairness, metrics and errors.
            session: runs it.
            max_batch: rows that are run as one at most; more of one caller are run as they are. 1
                for graphs whose rows are not each by itself.

        Raises:
            OptionError: `max_batch` is not a whole number of 1 or more.
        """
        made = BatchingRunner(
            self, model, component, session, checked_count("max_batch", max_batch)
        )
        self._runners.setdefault(model, []).append(made)
        return made

    def at_once(self, model: str) -> int:
        """Callers of a model that keep all lanes busy: a batch for each, and one that is next."""
        batch = max((runner.max_batch for runner in self._runners.get(model, ())), default=1)
        return (self._number + 1) * batch

    def _compute_batch(self, runs: Sequence[Run]) -> list[Outputs]:
        """Run a graph once for one or several callers, and observe it."""
        started, error = self.clock(), True
        for run in runs:
            run.started = started if run.started is None else run.started
        graph = runs[0].graph
        try:
            outputs = split(graph.session.run(joined(runs)), runs)
            error = False
        finally:
            rows = sum(run.rows or 1 for run in runs)
            seconds = self.clock() - started
            self._observe(Ran(graph.model, graph.component, len(runs), rows, seconds, error))
        return outputs


class BatchingRunner:
    """A graph that several threads run as one. Safe to share between them.

    Args:
        scheduler: says when.
        model, component: which graph.
        session: runs it.
        max_batch: rows that are run as one at most.

    Attributes:
        model, component, max_batch: the same.
        inputs, outputs, input_shapes: the session's.
    """

    def __init__(
        self, scheduler: Scheduler, model: str, component: str, session: Session, max_batch: int
    ) -> None:
        self.model, self.component, self.max_batch = model, component, max_batch
        self.session = session
        self.inputs, self.outputs = session.inputs, session.outputs
        self.input_shapes = session.input_shapes
        self._scheduler = scheduler

    def run(self, inputs: Arrays) -> Outputs:
        """Run the graph, together with what others want of it at the same time.

        Args:
            inputs: as the session takes them. With as many rows each, at least one, they may be run
                together with others of the same shapes and types; otherwise they go alone.

        Returns:
            As the session gives them, but views of what several callers share: who keeps a part
            should copy it.

        Raises:
            InferenceError: the graph refuses the inputs, gives other rows than it took, or its
                worker ended. Whatever else the session raises, too.
            OverloadError: the scheduler was closed.
            Cancelled, DeadlineError: the job's client has gone, or its time is up.
        """
        ticket = current()
        own = {name: np.asarray(inputs[name]) for name in self.inputs if name in inputs}
        run = Run(self, own, ticket, self._scheduler.clock())
        if run.rows == 0:
            raise InferenceError(f"{self.model}.{self.component}: inputs without rows")
        if ticket is None:
            self._scheduler.run(run)
        else:
            ticket.check()
            ticket.mark("prepare")
            with ticket.away():
                try:
                    self._scheduler.run(run)
                finally:
                    ticket.mark("queue", run.started)
                    ticket.mark("run", run.ended if run.started else run.since)
        return run.result()


def joined(runs: Sequence[Run]) -> Arrays:
    """The inputs of several runs of one kind as one."""
    if len(runs) == 1:
        return runs[0].inputs
    return {name: np.concatenate([run.inputs[name] for run in runs]) for name in runs[0].inputs}


def split(outputs: Outputs, runs: Sequence[Run]) -> list[Outputs]:
    """Each run's rows of the outputs, as views.

    Raises:
        InferenceError: an output has not as many rows as the inputs.
    """
    if runs[0].rows is None:
        return [outputs]
    ends = np.cumsum([run.rows for run in runs])
    graph = runs[0].graph
    for name, array in outputs.items():
        if array.shape[:1] != (ends[-1],):
            raise InferenceError(
                f"{graph.model}.{graph.component} gave {name} of {list(array.shape)} for "
                f"{ends[-1]} rows"
            )
    parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}
    return [{name: part[at] for name, part in parts.items()} for at in range(len(runs))]
