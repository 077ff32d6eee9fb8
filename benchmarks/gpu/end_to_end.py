"""Pictures a second from JPEG bytes to results, many pictures in a call.

vlrt decodes and resizes in its threads while the GPU runs; as "vlrt-device" it compares pictures
with labels there too (`similarity="device"`). PyTorch takes part twice: as most people use
transformers, one picture after the other on the host, and with a pool of threads that does the
host's work ahead, which is what a careful user of it would write. The contenders are processes of
their own that take turns; a run is a whole call.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlrt.errors import BenchmarkError

from ..peers import Entry, Stage
from ..stats import summary, times_as_fast
from ..turns import all_waiting, one_round
from .jobs import job_of
from .record import IncompleteError, left_out
from .settings import FULL, Model, Settings

MODELS = tuple(FULL)
_SIZES_WH = ((640, 480), (1920, 1080))
_MODULE = "vlrt_benchmarks.gpu.end_to_end"

Call = Callable[[Sequence[str], int], list[float]]


def measure(settings: Settings, model: str | None) -> dict[str, Any]:
    """Of each size of pictures and batch: pictures a second of each contender, and the ratios.

    Raises:
        IncompleteError: a contender does not run.
        BenchmarkError: none does.
    """
    one = settings.models[str(model)]
    rows = _rows(settings)
    contenders = _contenders(settings, one)
    stages = {entry.name: list(rows) for entry in contenders}
    jobs = {entry.name: _job(settings, one, entry, rows) for entry in contenders}
    failed: dict[str, str] = {}
    rounds = 3 if settings.quick or settings.small else 5
    turn_s = 0.02 if settings.small else 1.0
    with all_waiting(contenders, stages, jobs, one.name, failed=failed, together=True) as running:
        if not running:
            raise BenchmarkError(left_out(failed))
        first = next(iter(running))
        results = {name: {row: running[name].result(row) for row in rows} for name in running}
        taken = {
            row: [one_round(running, row, turn_s, number, first) for number in range(rounds)]
            for row in rows
        }
    found = {
        "rows": [_row(row, rows[row][2], taken[row]) for row in rows],
        "agreement": _agreement(results, first),
        "failed": failed,
    }
    if failed:
        raise IncompleteError(left_out(failed), found)
    return found


def _rows(settings: Settings) -> dict[str, tuple[tuple[int, int], int, int]]:
    """By name the size of the pictures, the batch, and how many pictures a run has."""
    if settings.small:
        asked = [((64, 48), 2, 2)]
    elif settings.quick:
        asked = [((640, 480), 64, 256)]
    else:
        batches = settings.sizes or (1, 8, 64)
        asked = [(size, batch, max(64, 4 * batch)) for size in _SIZES_WH for batch in batches]
    return {f"{size[0]}x{size[1]}, batch {batch}": (size, batch, n) for size, batch, n in asked}


def _contenders(settings: Settings, model: Model) -> list[Entry]:
    """On a GPU, vlrt by its defaults and with what it has for more speed."""
    best = settings.best
    made: list[tuple[str, dict[str, Any]]] = [("vlrt", {})]
    if settings.device == "cuda":
        if model.family != "vilt":
            made.append(("vlrt-device", {"load": {"similarity": "device"}}))
        if not settings.quick:
            made.append(("vlrt-cuda-graph", {"load": {"cuda_graph": True}}))
    made += [("torch", {"pool": False}), ("torch-pool", {"pool": True})]
    return [
        Entry(name, name.partition("-")[0], best, (), job, module=_MODULE) for name, job in made
    ]


def _job(
    settings: Settings, model: Model, entry: Entry, rows: Mapping[str, tuple[Any, int, int]]
) -> dict[str, Any]:
    pictures = {row: settings.pictures(n, size) for row, (size, _, n) in rows.items()}
    job = job_of(settings, model, precision=entry.precision, batch=1, stages=())
    return {
        **job,
        "engine": entry.engine,
        "runs": {row: [batch, pictures[row]] for row, (_, batch, _) in rows.items()},
        "warm_up_s": 0.2 if settings.small else 3.0,
        **entry.job,
    }


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """In a contender's process: a stage for each row."""
    call = call_of(job)
    return {
        row: Stage(partial(call, paths, batch), lambda best: {"best": np.array(best, np.float32)})
        for row, (batch, paths) in job["runs"].items()
    }


def call_of(job: Mapping[str, Any]) -> "Call":
    """A contender: it takes paths and a batch, and gives the best score of each picture."""
    return _vlrt(job) if job["engine"] == "vlrt" else _torch(job)


def _vlrt(job: Mapping[str, Any]) -> Call:
    """The best score of each picture, by vlrt."""
    import vlrt

    model = vlrt.load(
        job["bundle"],
        precision=job["precision"],
        device=job["device"],
        threads=job["threads"],
        **job.get("load", {}),
    )
    return asked(model, job)


def asked(model: Any, job: Mapping[str, Any]) -> Call:
    """What a user calls of a model of vlrt's, or of PyTorch's behind the same methods."""
    if job["family"] == "vilt":
        question = job["question"]
        return lambda paths, batch: [
            float(one.scores[0]) for one in model.ask(list(paths), question, batch_size=batch)
        ]
    labels = model.encode_labels(job["labels"])
    if job["family"] == "clip":
        return lambda paths, batch: [
            float(one.scores.max()) for one in model.classify(list(paths), labels, batch_size=batch)
        ]
    threshold = job["threshold"]
    return lambda paths, batch: [
        float(one.scores.max(initial=threshold))
        for one in model.detect(list(paths), labels, threshold=threshold, batch_size=batch)
    ]


def _torch(job: Mapping[str, Any]) -> Call:
    """The same by transformers, as `reference.py` puts it together, or with a pool of threads."""
    import torch

    from ..reference import load_reference

    torch.set_grad_enabled(False)
    model = load_reference(Path(job["checkpoint"]), job["precision"], job["device"], job["threads"])
    if not job["pool"]:
        return asked(model, job)
    from .torch_pool import pooled

    return pooled(model, job)


def _row(row: str, items: int, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = list(rounds[0]["samples"])
    samples = {name: [one["samples"][name] for one in rounds] for name in names}
    ours = names[0]
    return {
        "row": row,
        "pictures": items,
        "summary": {name: summary(taken, items) for name, taken in samples.items()},
        "ratios": {
            name: times_as_fast(samples[ours], taken).as_dict()
            for name, taken in samples.items()
            if name != ours
        },
        "noise": times_as_fast(samples[ours], [one["sentinel"] for one in rounds]).as_dict(),
    }


def _agreement(results: Mapping[str, Mapping[str, Any]], first: str) -> dict[str, float]:
    """How far the best score of any picture is from that of the first contender."""
    return {
        name: max(
            float(np.abs(one["best"] - results[first][row]["best"]).max())
            for row, one in rows.items()
        )
        for name, rows in results.items()
        if name != first
    }
