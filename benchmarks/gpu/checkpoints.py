"""Checkpoints of full size with seeded weights, each made in a process of its own, all at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlrt.errors import BenchmarkError

from .child import Child, run_each
from .settings import Settings, weights_sha256

MODELS: tuple[str, ...] = ()


def needed(settings: Settings) -> bool:  # noqa: ARG001
    """Always: what was made before is kept, and costs little to look at."""
    return True


def measure(settings: Settings, model: str | None) -> dict[str, Any]:  # noqa: ARG001
    """Make those that are not there; of each its digest and size.

    Raises:
        OptionError: the data are not there.
        BenchmarkError: one could not be made; all are tried.
    """
    wanted = {}
    for name, one in settings.models.items():
        if not (settings.checkpoint(one) / "model.safetensors").is_file():
            root = settings.checkpoint(one).parent
            job = {"snapshot": str(settings.snapshot(one)), "root": str(root), "title": name}
            wanted[name] = Child("checkpoints", "make", job)
    made = run_each(list(wanted.values()), settings.limit_s, max(1, settings.threads // 2))
    failed = [str(one) for one in made if isinstance(one, BenchmarkError)]
    if failed:
        raise BenchmarkError("\n".join(failed))
    found = {}
    for name, one in settings.models.items():
        file = settings.checkpoint(one) / "model.safetensors"
        found[name] = {"sha256": weights_sha256(file.parent), "bytes": file.stat().st_size}
    return found


def make(job: Mapping[str, Any]) -> None:
    """One checkpoint, in a process of its own."""
    from ..checkpoints import seeded_checkpoint

    seeded_checkpoint(Path(job["snapshot"]), Path(job["root"]))
