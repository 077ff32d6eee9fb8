"""Batches of mixed sizes for minutes, and whether memory of the GPU and the host grows."""

import random
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..cold_start import resident_mib
from ..serve_sums import growth
from .child import Child, run
from .end_to_end import call_of
from .jobs import job_of
from .memory import gpu_mib
from .settings import Settings

MODELS = ("owlvit-b32",)
_SECONDS = {"full": 600.0, "small": 4.0}
_QUICK_S = 60.0
_BATCHES, _SMALL_BATCHES = (1, 2, 3, 5, 8, 13, 16, 21, 32, 48, 64), (1, 2, 3)
_START_S = 90.0  # for loading, and the first run of each size


def measure(settings: Settings, model: str | None) -> dict[str, Any]:
    """Samples each second, the slope of each with its interval, and a verdict.

    Raises:
        BenchmarkError: the process failed.
    """
    one = settings.models[str(model)]
    seconds = settings.seconds or (_QUICK_S if settings.quick else _SECONDS[settings.size])
    batches = _SMALL_BATCHES if settings.small else _BATCHES
    job = job_of(settings, one, precision=settings.best, batch=max(batches), stages=())
    more = {
        "engine": "vlrt",
        "seconds": seconds,
        "batches": batches,
        "every_s": min(1.0, seconds / 100),
    }
    told = run(Child("soak", "contender", {**job, **more}), seconds + _START_S)
    kinds = {"host_mib": told["host"], "gpu_mib": told["gpu"]}
    return {
        "seconds": seconds,
        "batches": list(batches),
        "precision": settings.best,
        "calls": told["calls"],
        "pictures": told["pictures"],
        "memory": {
            name: {**growth(samples), "peak": max(mib for _, mib in samples), "samples": samples}
            for name, samples in kinds.items()
            if samples
        },
    }


def contender(job: Mapping[str, Any]) -> dict[str, Any]:
    """The process: every size once, and then sizes in random order until its time is over."""
    call = call_of(job)
    for batch in job["batches"]:
        call(job["pictures"][:batch], batch)
    host: list[tuple[float, float]] = []
    gpu: list[tuple[float, float]] = []
    ended = threading.Event()
    started = time.monotonic()

    def sample() -> None:
        while not ended.wait(job["every_s"]):
            at = time.monotonic() - started
            host.append((at, resident_mib()["now_mib"]))
            held = gpu_mib(job["device"])
            if held is not None:
                gpu.append((at, held))

    watch = threading.Thread(target=sample)
    watch.start()
    chosen = random.Random(0)  # noqa: S311 - nothing is kept secret by it
    calls = pictures = 0
    try:
        while time.monotonic() - started < job["seconds"]:
            batch = chosen.choice(job["batches"])
            call(job["pictures"][:batch], batch)
            calls, pictures = calls + 1, pictures + batch
    finally:
        ended.set()
        watch.join()
    return {"host": host, "gpu": gpu, "calls": calls, "pictures": pictures}
