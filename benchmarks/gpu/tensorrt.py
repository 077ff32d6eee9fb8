"""TensorRT's provider with its cached engine, where TensorRT is installed."""

import ctypes.util
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..worker import turn, warm_up
from .child import Child, run
from .end_to_end import asked
from .jobs import job_of
from .record import SkippedError
from .settings import Settings

MODELS = ("clip-b32", "owlvit-b32")
_BATCHES = (1, 8)


def measure(settings: Settings, model: str | None) -> dict[str, Any]:
    """Seconds to load without and with the cached engine, and milliseconds of whole calls.

    Raises:
        SkippedError: there is no GPU, or TensorRT is not installed.
        BenchmarkError: a process fails.
    """
    if settings.device != "cuda":
        raise SkippedError("TensorRT is NVIDIA's: DEVICE=cuda")
    if where() is None:
        raise SkippedError(
            "TensorRT is not installed: no libnvinfer is found, and no package tensorrt or "
            "tensorrt_libs is here"
        )
    one = settings.models[str(model)]
    job = job_of(settings, one, precision="fp16", batch=max(_BATCHES), stages=())
    cache = settings.work / "tensorrt" / one.name
    if cache.is_dir():
        for path in cache.iterdir():  # the first load must build
            path.unlink()
    cache.mkdir(parents=True, exist_ok=True)
    jobs = {
        "tensorrt, engine built": {"device": "tensorrt", "cache": str(cache)},
        "tensorrt, engine cached": {"device": "tensorrt", "cache": str(cache)},
        "cuda": {"device": "cuda", "cache": None},
    }
    limit = settings.limit_s / len(jobs)
    return {
        "tensorrt": where(),
        "contenders": {
            name: run(Child("tensorrt", "contender", {**job, **more, "title": name}), limit)
            for name, more in jobs.items()
        },
        "cache": sorted(path.name for path in cache.iterdir()),
    }


def where() -> str | None:
    """Where TensorRT's library is, or the package that has it; None for nowhere."""
    library = ctypes.util.find_library("nvinfer")
    if library is not None:
        return library
    names = [name for name in ("tensorrt_libs", "tensorrt") if find_spec(name) is not None]
    return names[0] if names else None


def contender(job: Mapping[str, Any]) -> dict[str, Any]:
    """One load and its calls, in a process of its own."""
    import vlrt

    started = time.perf_counter()
    more = {} if job["cache"] is None else {"engine_cache": Path(job["cache"])}
    model = vlrt.load(
        job["bundle"],
        precision=job["precision"],
        device=job["device"],
        threads=job["threads"],
        **more,
    )
    call = asked(model, job)
    first = call(job["pictures"][:1], 1)
    found: dict[str, Any] = {"first_answer_s": time.perf_counter() - started, "best": first}
    for batch in _BATCHES:
        paths = job["pictures"][:batch]
        warm_up(lambda paths=paths, batch=batch: call(paths, batch), 2.0)
        taken = turn(lambda paths=paths, batch=batch: call(paths, batch), 1.0)
        found[f"batch {batch}, ms"] = float(np.median(taken) * 1e3)
    return found
