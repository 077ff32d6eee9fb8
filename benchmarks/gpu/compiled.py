"""torch.compile's programs, compiled ahead for all models at the same time, into its cache on disk.

Compiling is no part of what is measured, and takes longer than all measurements of a quick run: the
piece `latency` then finds the programs in the cache.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlrt.errors import BenchmarkError

from ..peers import BOTH, IMAGE, compiled, sized
from .child import Child, run_each
from .jobs import job_of, write_arrays
from .latency import sizes_of
from .record import IncompleteError, SkippedError
from .settings import Settings

MODELS: tuple[str, ...] = ()


def needed(settings: Settings) -> bool:  # noqa: ARG001
    """Where the cache is not there: the machine may be another."""
    cache = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", "absent"))
    return not cache.is_dir() or not any(cache.iterdir())


def measure(settings: Settings, model: str | None) -> dict[str, Any]:  # noqa: ARG001
    """Compile; of each model the seconds of each shape.

    Raises:
        SkippedError: there is no GPU.
        IncompleteError: a model cannot be compiled.
    """
    if settings.device != "cuda":
        raise SkippedError("torch.compile is compared on the GPU: DEVICE=cuda")
    children = {}
    for name, one in settings.models.items():
        tower = BOTH if one.family == "vilt" else IMAGE
        job = job_of(settings, one, precision="fp16", batch=1, stages=(tower,))
        sizes = [size for size in sizes_of(settings) if size > 1]
        arrays = str(settings.work / "compiled" / f"{name}.npz")
        more = {"arrays": arrays, "sizes": sizes, "title": name}
        children[name] = Child("compiled", "compile_each", {**job, **more})
    made = run_each(list(children.values()), settings.limit_s, len(children))
    found = {name: str(one) if isinstance(one, BenchmarkError) else one
             for name, one in zip(children, made, strict=True)}  # fmt: skip
    failed = [name for name, one in found.items() if isinstance(one, str)]
    if failed:
        raise IncompleteError(f"torch.compile failed of {', '.join(failed)}", found)
    return found


def compile_each(job: Mapping[str, Any]) -> dict[str, float]:
    """All shapes of one model, in a process of its own."""
    from ..worker import timed

    write_arrays(job)
    (tower,) = job["stages"]
    stages = [tower, *(sized(tower, size) for size in job["sizes"])]
    loaded = compiled.load({**job, "stages": stages})
    return {stage: timed(loaded[stage].run) for stage in stages}
