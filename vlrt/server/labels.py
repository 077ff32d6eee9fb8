"""Labels, encoded once for all requests that name the same ones."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from vlrt.results import LabelSet
from vlrt.server.jobs import Jobs
from vlrt.server.models import Served
from vlrt.templates import Templates

Encoded: TypeAlias = LabelSet | Sequence[str]


@dataclass
class _Coming:
    """A set that is being made, and how many wait for it."""

    task: "asyncio.Task[LabelSet]"
    waiting: int = 0


class LabelCache:
    """The label sets that were used last, within a bound of memory. For one event loop.

    A set is kept whole, and not label by label, so that what a request gets does not depend on what
    was asked before it. Requests that want the same set at the same time wait for one encoding,
    which ends when all of them have gone.

    Args:
        jobs: where labels are encoded.
        max_bytes: of all sets together; the one used longest ago goes first. One larger than that
            is not kept.

    Attributes:
        hits, misses: how often a set was there, or being made, and how often not.
        bytes: of the sets that are kept, their texts included, about.
    """

    def __init__(self, jobs: Jobs, max_bytes: int) -> None:
        self._jobs, self._max_bytes = jobs, max_bytes
        self._kept: OrderedDict[Hashable, tuple[LabelSet, int]] = OrderedDict()
        self._coming: dict[Hashable, _Coming] = {}
        self.hits = self.misses = self.bytes = 0

    async def encoded(
        self,
        served: Served,
        labels: Sequence[str],
        templates: Templates | None = None,
        *,
        truncate: bool = False,
    ) -> Encoded:
        """Labels as a model takes them: a set, or as they are if it cannot encode them apart.

        Args:
            served: the model.
            labels, templates, truncate: as its `encode_labels` takes them.

        Raises:
            LabelError, TextError, OptionError: see there.
            OverloadError: the model has too much to do; or a DeadlineError.
        """
        if "encode_labels" not in served.model.methods:
            return labels
        key = (served.name, tuple(labels), _hashable(templates), truncate)
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            return self._kept[key][0]
        if key in self._coming:
            self.hits += 1
        else:
            self.misses += 1
            task = asyncio.create_task(self._encode(key, served, labels, templates, truncate))
            task.add_done_callback(_seen)
            self._coming[key] = _Coming(task)
        coming = self._coming[key]
        coming.waiting += 1
        try:
            # A client that goes does not take the set from the others that wait for it.
            return await asyncio.shield(coming.task)
        finally:
            coming.waiting -= 1
            if not coming.waiting:
                self._forget(key, coming.task)
                coming.task.cancel()  # one that is done does not mind
            del coming  # an error knows this frame, and the task knows the error

    async def _encode(
        self,
        key: Hashable,
        served: Served,
        labels: Sequence[str],
        templates: Templates | None,
        truncate: bool,
    ) -> LabelSet:
        def encode() -> LabelSet:
            found: LabelSet = served.model.encode_labels(
                labels, templates=templates, truncate=truncate
            )
            return found

        try:
            found = (await self._jobs.run(served.name, encode)).value
        finally:
            self._forget(key, asyncio.current_task())
        self._keep(key, found)
        return found

    def _forget(self, key: Hashable, task: "asyncio.Task[LabelSet] | None") -> None:
        """Let nobody wait for an encoding any more, unless it is another's by now."""
        if key in self._coming and self._coming[key].task is task:
            del self._coming[key]

    def _keep(self, key: Hashable, found: LabelSet) -> None:
        # About: a string takes up to four bytes a character, and what is around it as many again.
        size = found.embeds.nbytes + 8 * len(repr(key))
        if size > self._max_bytes:
            return
        self._kept[key] = found, size
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (_, oldest) = self._kept.popitem(last=False)
            self.bytes -= oldest


def _seen(task: "asyncio.Task[LabelSet]") -> None:
    """Take note of a failure that nobody waits for any more, lest asyncio complains."""
    if not task.cancelled():
        task.exception()


def _hashable(templates: Templates | None) -> Hashable:
    if isinstance(templates, Mapping):
        return tuple((label, tuple(texts)) for label, texts in templates.items())
    return None if templates is None else tuple(templates)
