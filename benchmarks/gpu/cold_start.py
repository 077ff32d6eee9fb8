"""From the start of a process to its first answer, by the programs of `vlrt bench footprint`."""

from statistics import median
from typing import Any

from vlrt.errors import BenchmarkError

from .. import cold_starts, contender
from ..contender import Contender
from ..footprint import MEASURES
from ..footprint import row as row_of
from .jobs import job_of
from .settings import Settings

MODELS = ("clip-b32", "owlvit-b32", "vilt")


def measure(settings: Settings, model: str | None) -> dict[str, Any]:
    """Seconds of each phase and memory of the host, of each contender; torch is the base.

    Raises:
        BenchmarkError: a contender fails.
    """
    one = settings.models[str(model)]
    best = settings.best
    bundle = settings.bundle(one, best)
    contenders = [
        Contender("torch", "torch", best, settings.checkpoint(one)),
        Contender("vlrt", "vlrt", best, bundle),
    ]
    job = job_of(settings, one, precision=best, batch=1, stages=())
    asked = {
        "family": one.family,
        "picture": job["pictures"][0],
        "labels": job["labels"],
        "question": job["question"],
        "threads": settings.threads,
        "cpus": job["cpus"],
        "device": settings.device,
        "more": 3,
    }
    rounds = 1 if settings.small else 3
    found = [
        {one.name: cold_starts.run_once(one, asked) for one in contenders}
        for _ in range(rounds + 1)
    ]
    results = cold_starts.results(found[0])
    try:
        apart = contender.differences(contenders, results)
    except BenchmarkError as error:
        apart = {"vlrt": {"differs": str(error)}}
    counted = found[1:]  # the first warms the page cache, as in `footprint`
    rows = [
        row_of(measure_, unit, {c.name: [one[c.name][key] for one in counted] for c in contenders},
               "torch")
        for key, (measure_, unit) in MEASURES.items()
    ]  # fmt: skip
    first = {name: sample["total_s"] for name, sample in found[0].items()}
    total = {c.name: median(one[c.name]["total_s"] for one in counted) for c in contenders}
    return {"rows": rows, "agreement": apart, "not_counted_s": first, "total_s": total}
