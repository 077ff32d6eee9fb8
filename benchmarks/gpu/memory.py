"""Memory of a GPU and of the host: after loading, and after a batch of 64."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from vlrt.errors import BenchmarkError

from ..cold_start import resident_mib
from .child import Child, run_each
from .end_to_end import call_of
from .jobs import job_of
from .record import IncompleteError, left_out
from .settings import FULL, Settings

MODELS = tuple(FULL)
_BATCH = 64


def measure(settings: Settings, model: str | None) -> dict[str, Any]:
    """Of each contender: MiB after `load` and after `batch`, above what the GPU held before.

    Raises:
        IncompleteError: a contender does not run.
    """
    one = settings.models[str(model)]
    batch = 4 if settings.small else _BATCH
    job = job_of(settings, one, precision=settings.best, batch=batch, stages=())
    contenders: dict[str, dict[str, Any]] = {
        "vlrt": {"engine": "vlrt"},
        "torch": {"engine": "torch", "pool": False},
    }
    if settings.device == "cuda":
        contenders["vlrt-cuda-graph"] = {"engine": "vlrt", "load": {"cuda_graph": True}}
    children = [
        Child("memory", "contender", {**job, **more, "title": f"{name}, {job['title']}"})
        for name, more in contenders.items()
    ]
    made = dict(zip(contenders, run_each(children, settings.limit_s), strict=True))
    failed = {name: str(why) for name, why in made.items() if isinstance(why, BenchmarkError)}
    found = {
        "batch": batch,
        "precision": settings.best,
        "contenders": {name: made[name] for name in made if name not in failed},
        "failed": failed,
    }
    if failed:
        raise IncompleteError(left_out(failed), found)
    return found


def contender(job: Mapping[str, Any]) -> dict[str, Any]:
    """One of them, in a process of its own."""
    before = gpu_mib(job["device"])
    call = call_of(job)
    marks = {"load": _mark(job["device"], before)}
    call(job["pictures"], 1)
    marks["first"] = _mark(job["device"], before)
    call(job["pictures"], job["batch"])
    marks["batch"] = _mark(job["device"], before)
    return marks


def _mark(device: str, before: float | None) -> dict[str, float | None]:
    now, host = gpu_mib(device), resident_mib()
    gpu = None if now is None or before is None else now - before
    return {"gpu_mib": gpu, "host_mib": host["now_mib"], "host_peak_mib": host["peak_mib"]}


def gpu_mib(device: str) -> float | None:
    """MiB in use of a GPU, by whatever process, as its driver counts; None for the CPU.

    Raises:
        BenchmarkError: the driver does not tell.
    """
    if not device.startswith("cuda"):
        return None
    command = shutil.which("nvidia-smi")
    if command is None:
        raise BenchmarkError("nvidia-smi, which tells of a GPU's memory, is not on the PATH")
    number = device.partition(":")[2] or "0"
    query = [command, "-i", number, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    said = done.stdout.strip()
    if done.returncode != 0 or not re.fullmatch(r"\d+", said):
        raise BenchmarkError(f"nvidia-smi does not tell of memory: {said or done.stderr.strip()}")
    return float(said)
