"""Thousands of labels: NumPy's product on the host against the head on the device."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..worker import turn, warm_up
from .child import Child, run
from .jobs import job_of
from .record import SkippedError
from .settings import Settings

MODELS = ("clip-b32", "owlvit-b32")
_LABELS = {"full": (1_000, 5_000, 20_000), "small": (100,)}
_BATCHES = {"full": (1, 64), "small": (2,)}


def measure(settings: Settings, model: str | None) -> dict[str, Any]:
    """Milliseconds of a whole call with either, by the number of labels and the batch.

    Raises:
        SkippedError: there is no GPU.
        BenchmarkError: one of them fails.
    """
    if settings.device != "cuda":
        raise SkippedError('similarity="device" is compared on the GPU: DEVICE=cuda')
    one = settings.models[str(model)]
    batches = _BATCHES[settings.size]
    job = job_of(settings, one, precision=settings.best, batch=max(batches), stages=())
    more = {"numbers": _LABELS[settings.size], "batches": batches, "turn_s": 1.0}
    kinds = {
        kind: run(Child("similarity", "contender", {**job, **more, "similarity": kind}),
                  settings.limit_s / 2)
        for kind in ("numpy", "device")
    }  # fmt: skip
    rows = []
    for ours, theirs in zip(kinds["device"], kinds["numpy"], strict=True):
        apart = np.abs(np.subtract(ours["best"], theirs["best"])).max()
        rows.append(
            {
                "labels": ours["labels"],
                "batch": ours["batch"],
                "device_ms": ours["ms"],
                "numpy_ms": theirs["ms"],
                "difference": float(apart),
            }
        )
    return {"precision": settings.best, "rows": rows}


def contender(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Either, in a process of its own: labels are vectors from a seed, of length 1."""
    import vlrt
    from vlrt.results import LabelSet

    model = vlrt.load(
        job["bundle"],
        precision=job["precision"],
        device=job["device"],
        threads=job["threads"],
        similarity=job["similarity"],
    )
    known = model.encode_labels(job["labels"])
    found = []
    for number in job["numbers"]:
        drawn = np.random.default_rng(0).standard_normal((number, known.embeds.shape[1]))
        embeds = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
        labels = LabelSet(tuple(f"label {at}" for at in range(number)), embeds, known.model)
        for batch in job["batches"]:
            call = partial(_best, model, job["family"], job["pictures"][:batch], labels)
            warm_up(call, 2.0)
            taken = turn(call, job["turn_s"])
            found.append(
                {
                    "labels": number,
                    "batch": batch,
                    "ms": float(np.median(taken) * 1e3),
                    "best": call(),
                }
            )
    return found


def _best(model: Any, family: str, paths: list[str], labels: Any) -> list[float]:
    if family == "clip":
        made = model.classify(paths, labels, batch_size=len(paths))
        return [float(one.scores.max()) for one in made]
    made = model.detect(paths, labels, threshold=0.1, top_k=10, batch_size=len(paths))
    return [float(one.scores.max(initial=0.1)) for one in made]
