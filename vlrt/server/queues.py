"""What waits for a graph, and what is to be run next: no threads, no clock.

Models share the lanes by the time that they had: the next one is that which had the least. A model
that had nothing to do starts with as much as the least of the others had, so that it cannot save
up for later.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlrt.server.bells import Bell
from vlrt.server.tickets import Ticket
from vlrt.session import Tensor

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Outputs: TypeAlias = dict[str, NDArray[Any]]


class Session(Protocol):
    """What runs a graph; `vlrt.session.Session` is one."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    input_shapes: Mapping[str, tuple[int | None, ...]]

    def run(self, inputs: Arrays) -> Outputs:
        """Run the graph on named arrays, to named arrays."""
        ...


class Graph(Protocol):
    """What is to be known of a graph here."""

    model: str
    component: str
    max_batch: int
    session: Session


class Run:
    """What one caller wants of a graph.

    Args:
        graph: the graph.
        inputs: its inputs.
        ticket: of the caller's job, if it is one.
        since: when it came.

    Attributes:
        rows: of each of the inputs; None if they have not the same, so that they go alone.
        kind: what runs must have in common to be run as one.
        bell: rings when there is an outcome.
        outcome: outputs, or an error; None until then.
        started, ended: when its graph began and stopped to work on it.
        left: whether its caller has gone.
        expected: whether its caller was expected to come, and will be again.
    """

    def __init__(self, graph: Graph, inputs: Arrays, ticket: Ticket | None, since: float) -> None:
        self.graph, self.inputs, self.ticket, self.since = graph, inputs, ticket, since
        sizes = {array.shape[:1] for array in inputs.values()}
        size = sizes.pop() if len(sizes) == 1 else ()
        self.rows: int | None = size[0] if size else None
        arrays = tuple((name, inputs[name]) for name in sorted(inputs))
        kinds = tuple((name, array.shape[1:], array.dtype.str) for name, array in arrays)
        alone = () if self.rows is not None else (id(self),)
        self.kind = (graph.component, kinds, *alone)
        self.bell = Bell()
        self.outcome: Outputs | Exception | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.left = self.expected = False

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.left or (self.ticket is not None and self.ticket.over)

    def settle(self, outcome: Outputs | Exception) -> None:
        """Tell the caller what became of it, if it is there; the first word stands."""
        if self.outcome is None and not self.left:
            self.outcome = outcome
        self.bell.ring()

    def leave(self) -> None:
        """Have its caller ask for no outcome any more."""
        self.left, self.outcome = True, None  # not kept, as in `result`

    def result(self) -> Outputs:
        """The outputs; for the caller, once.

        Raises:
            Exception: that which the graph raised instead.
        """
        # Not kept: an error knows the frames that it came through, which know this run.
        outcome, self.outcome = self.outcome, None
        try:
            if isinstance(outcome, Exception):
                raise outcome
            assert outcome is not None
            return outcome
        finally:
            del outcome


class Batch(NamedTuple):
    """Runs of one kind, to be run as one, and when that began."""

    runs: Sequence[Run]
    started: float

    @property
    def graph(self) -> Graph:
        """Their graph."""
        return self.runs[0].graph

    @property
    def rows(self) -> int:
        """Of all together."""
        return sum(run.rows or 1 for run in self.runs)


class _Share:
    """A model's runs by kind, its batches at work, and the time that it had."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[Any, ...], deque[Run]] = {}
        self.working: list[Batch] = []
        self.expected: set[Ticket] = set()
        self.used = 0.0

    @property
    def active(self) -> bool:
        return bool(self.waiting or self.working)

    def used_by(self, now: float) -> float:
        """What it had, and what it is having."""
        return self.used + sum(now - batch.started for batch in self.working)


class Queues:
    """What waits for a graph. Not to be used from several threads at once.

    Args:
        max_delay_s: how long a run waits at most for others to join it.
        batching: whether runs are joined at all; otherwise each goes alone, at once.
    """

    def __init__(self, max_delay_s: float, *, batching: bool) -> None:
        self._max_delay_s = max_delay_s
        self._batching = batching
        self._shares: dict[str, _Share] = {}
        self._least = 0.0  # what the active model that had the least had, when it was last seen
        self.closing = False  # whether nobody will join any more

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not any(share.waiting for share in self._shares.values())

    def depth(self, model: str) -> int:
        """Rows of a model that wait."""
        return sum(run.rows or 1 for run in self._runs(model))

    def expect(self, ticket: Ticket) -> None:
        """A job that will come to a graph, so that others of its model wait for it a little."""
        self._share(ticket.model).expected.add(ticket)

    def forget(self, ticket: Ticket) -> None:
        """A job that will not."""
        self._share(ticket.model).expected.discard(ticket)

    def add(self, run: Run) -> None:
        """Let a run wait."""
        share = self._share(run.graph.model)
        if not share.active:
            share.used = max(share.used, self._least)
        run.expected = run.ticket in share.expected
        if run.ticket is not None:
            share.expected.discard(run.ticket)
        share.waiting.setdefault(run.kind, deque()).append(run)

    def remove(self, runs: Iterable[Run]) -> None:
        """Let runs wait no more, those that still do."""
        for run in runs:
            waiting = self._share(run.graph.model).waiting
            left = deque(each for each in waiting.get(run.kind, ()) if each is not run)
            # One step each, so that a lane that ends in between leaves no line without a run.
            if left:
                waiting[run.kind] = left
            else:
                waiting.pop(run.kind, None)

    def clear(self) -> list[Run]:
        """Remove everything, and give it."""
        runs = list(itertools.chain.from_iterable(map(self._runs, self._shares)))
        self.remove(runs)
        return runs

    def drop(self) -> None:
        """Remove runs that nobody waits for any more."""
        runs = itertools.chain.from_iterable(map(self._runs, self._shares))
        self.remove([run for run in runs if run.over])

    def choose(self, now: float) -> Batch | None:
        """What is to be run next, which still waits; None if nothing is ready."""
        ready = [
            (share.used_by(now), line[0].since, line)
            for share in self._shares.values()
            for line in share.waiting.values()
            if self._due(share, line) <= now
        ]
        if not ready:
            return None
        _, _, line = min(ready, key=lambda each: each[:2])
        return Batch(self._first(line), now)

    def seconds_left(self, now: float) -> float | None:
        """How long until something is ready if nothing else happens; None if nothing waits."""
        due = [
            self._due(share, line)
            for share in self._shares.values()
            for line in share.waiting.values()
        ]
        return min(due) - now if due else None

    def begin(self, batch: Batch) -> None:
        """Begin to run what `choose` gave."""
        self._share(batch.graph.model).working.append(batch)
        self.remove(batch.runs)

    def finish(self, batch: Batch, now: float) -> None:
        """Count the time of a batch as its model's, unless that was done."""
        share = self._share(batch.graph.model)
        working = [each for each in share.working if each is not batch]
        if len(working) == len(share.working):
            return
        share.used += now - batch.started
        # This model, too, is active until the batch is taken away.
        active = [each.used for each in self._shares.values() if each.active]
        self._least = max(self._least, min(active))
        share.working = working

    def come_back(self, run: Run) -> None:
        """Expect a run's job again, if it was expected before and its caller is still there."""
        if run.expected and not run.over and run.ticket is not None:
            self.expect(run.ticket)

    def _share(self, model: str) -> _Share:
        return self._shares.setdefault(model, _Share())

    def _runs(self, model: str) -> Iterator[Run]:
        return itertools.chain.from_iterable(self._share(model).waiting.values())

    def _first(self, line: Sequence[Run]) -> list[Run]:
        """The first runs of a line, in order, of as many rows together as its graph takes."""
        totals = itertools.accumulate(run.rows or 1 for run in line)
        most = line[0].graph.max_batch if self._batching else 1
        fit = sum(1 for _ in itertools.takewhile(lambda total: total <= most, totals))
        return list(itertools.islice(line, max(1, fit)))

    def _due(self, share: _Share, line: Sequence[Run]) -> float:
        """When a line is ready to be run: long ago, or when its oldest run has waited enough."""
        first = line[0]
        waits_for_more = (
            self._batching
            and not self.closing
            and share.expected
            and first.rows is not None
            and sum(run.rows or 1 for run in line) < first.graph.max_batch
        )
        return first.since + self._max_delay_s if waits_for_more else -np.inf
