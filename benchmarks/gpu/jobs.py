"""What is measured of a model: its subject, a plan, and the job that contenders are given."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlrt.errors import OptionError

from ..latency_options import QUESTION
from ..machine import pinned
from ..peers import BOTH, IMAGE, TEXT
from ..plan import Plan, make_arrays
from ..request import LABELS
from ..subject import Subject
from .settings import Model, Settings

_TASKS = {
    "clip": "zero-shot-image-classification",
    "owlvit": "zero-shot-object-detection",
    "vilt": "visual-question-answering",
}


def towers(model: Model) -> tuple[str, ...]:
    """The stages that a model's graphs are."""
    return (BOTH,) if model.family == "vilt" else (IMAGE, TEXT)


def held(bundle: Path) -> tuple[str, ...]:
    """The precisions that a bundle has for all of its graphs.

    Raises:
        OptionError: it is not there.
    """
    manifest = bundle / "vlrt.json"
    if not manifest.is_file():
        raise OptionError(f"there is no {manifest}; make it: benchmarks/gpu.sh bundles")
    components = json.loads(manifest.read_text())["components"].values()
    first, *others = [list(one["variants"]) for one in components]
    return tuple(p for p in first if all(p in other for other in others))


def job_of(
    settings: Settings,
    model: Model,
    *,
    precision: str,
    batch: int,
    stages: tuple[str, ...],
    device: str | None = None,
) -> dict[str, Any]:
    """What a contender is told (see `peers`), but for the place of the arrays.

    Raises:
        OptionError: there is no such bundle.
    """
    bundle = settings.bundle(model, precision)
    return {
        "title": f"{model.name} in {precision}",
        "threads": settings.threads,
        "cpus": pinned(settings.threads),
        "device": device or settings.device,
        "family": model.family,
        "bundle": str(bundle),
        "checkpoint": str(settings.checkpoint(model)),
        "precision": precision,
        "precisions": list(held(bundle)),
        "batch": batch,
        "pictures": settings.pictures(batch),
        "labels": list(LABELS),
        "question": QUESTION,
        "threshold": 0.1,
        "iou_threshold": 0.5,
        "stages": list(stages),
        "sizes": list(settings.sizes),
    }


def write_arrays(job: Mapping[str, Any]) -> None:
    """Write what a job's stages are run on, where it says."""
    bundle = Path(job["bundle"])
    subject = Subject(
        bundle.name,
        job["family"],
        _TASKS[job["family"]],
        bundle,
        Path(job["checkpoint"]),
        True,
        tuple(job["precisions"]),
    )
    plan = Plan(
        batches=(job["batch"],),
        pictures=tuple(map(Path, job["pictures"])),
        drawn=True,
        size_wh=(640, 480),
        labels=tuple(job["labels"]),
        question=job["question"],
        tokens=(),
        stages=tuple(stage for stage in job["stages"] if ", " not in stage),
        threads=job["threads"],
        cpus=tuple(job["cpus"]),
        device=job["device"],
        rounds=3,
        turn_s=0.1,
        warm_up_s=0.1,
        sizes=tuple(job["sizes"]),
    )
    Path(job["arrays"]).parent.mkdir(parents=True, exist_ok=True)
    make_arrays(subject, plan, job["batch"], Path(job["arrays"]))
