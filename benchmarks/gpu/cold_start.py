"""From the start of a process to its first answer, by the programs of `vlrt bench footprint`."""

from collections.abc import Mapping, Sequence
from typing import Any

from vlrt.errors import BenchmarkError

from .. import cold_starts, contender
from ..contender import Contender
from ..footprint import MEASURES
from ..footprint import row as row_of
from .jobs import job_of
from .record import IncompleteError, left_out
from .settings import Settings

MODELS = ("clip-b32", "owlvit-b32", "vilt")
_REQUESTS = 3  # after the first one


def measure(settings: Settings, model: str | None) -> dict[str, Any]:
    """Seconds of each phase and memory of the host, of each contender; torch is the base.

    Raises:
        BenchmarkError: no contender runs.
        IncompleteError: one does not.
    """
    one = settings.models[str(model)]
    best = settings.best
    job = job_of(settings, one, precision=best, batch=1, stages=())
    asked = {
        **{name: job[name] for name in ("family", "labels", "question", "cpus", "device")},
        "picture": job["pictures"][0],
        "threads": settings.threads,
        "more": _REQUESTS,
    }
    runners, first, failed = [], {}, {}
    for entered in (
        Contender("torch", "torch", best, settings.checkpoint(one)),
        Contender("vlrt", "vlrt", best, settings.bundle(one, best)),
    ):
        try:  # the first is not counted, as in `footprint`: it warms the page cache
            first[entered.name] = cold_starts.run_once(entered, asked)
            runners.append(entered)
        except BenchmarkError as error:
            failed[entered.name] = str(error)
    if not runners:
        raise BenchmarkError(left_out(failed))
    rounds = 1 if settings.small else 3
    counted = [
        {entered.name: cold_starts.run_once(entered, asked) for entered in runners}
        for _ in range(rounds)
    ]
    rows = []
    for key, (what, unit) in MEASURES.items():
        samples = {name: [each[name][key] for each in counted] for name in first}
        rows.append(row_of(what, unit, samples, runners[0].name))
    found = {
        "rows": rows,
        "agreement": _agreement(runners, first),
        "not_counted_s": {name: sample["total_s"] for name, sample in first.items()},
    }
    if failed:
        raise IncompleteError(left_out(failed), found)
    return found


def _agreement(runners: Sequence[Contender], first: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return contender.differences(runners, cold_starts.results(first))
    except BenchmarkError as error:  # it is told, and what was measured as well
        return {"differ": str(error)}
