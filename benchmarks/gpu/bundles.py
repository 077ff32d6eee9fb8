"""The checkpoints as bundles, several exports at the same time.

They are verified on a few pictures and texts, not on as many as `vlrt export` takes: how exact they
are on the GPU, the piece `parity` says. int8 has a bundle of its own: it takes longest, and has no
kernels on CUDA.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlrt.errors import BenchmarkError

from ..machine import pinned
from .child import Child, run_each
from .record import IncompleteError, left_out
from .settings import Settings, weights_sha256

MODELS: tuple[str, ...] = ()
_SAMPLES = {False: 4, True: 2}  # pictures and as many texts; True: of a quick run
_CPUS = 4  # of one export


def needed(settings: Settings) -> bool:  # noqa: ARG001
    """Always: what was made before is kept, and costs little to look at."""
    return True


def measure(settings: Settings, model: str | None) -> dict[str, Any]:  # noqa: ARG001
    """Export what is not there; of each bundle what its manifest says of precision.

    Raises:
        OptionError: a checkpoint is not there.
        IncompleteError: a bundle could not be made; all are tried.
    """
    children = []
    cpus = pinned(settings.threads)
    at_once = max(1, len(cpus) // _CPUS)
    jobs = [job for fast in (True, False) for job in _jobs(settings, fast=fast)]
    for number, job in enumerate(jobs):
        at = number % at_once
        share = cpus[at * _CPUS : (at + 1) * _CPUS] if at_once > 1 else cpus
        children.append(Child("bundles", "make", job, tuple(share)))
    made = run_each(children, settings.limit_s, at_once)
    found = {str(job["title"]): one for job, one in zip(jobs, made, strict=True)}
    failed = {name: str(one) for name, one in found.items() if isinstance(one, BenchmarkError)}
    if failed:
        raise IncompleteError(left_out(failed), {**found, **failed})
    return found


def _jobs(settings: Settings, *, fast: bool) -> list[dict[str, Any]]:
    """Those of floating point, or those of int8; the largest first."""
    found = []
    for model in sorted(settings.models.values(), key=lambda one: not one.changes):
        precisions = [p for p in settings.precisions(model) if (p != "int8") == fast]
        if not precisions:
            continue
        bundle = settings.bundle(model, precisions[-1])
        found.append(
            {
                "title": bundle.name,
                "checkpoint": str(settings.checkpoint(model)),
                "sha256": weights_sha256(settings.checkpoint(model)),
                "bundle": str(bundle),
                "precisions": precisions,
                "samples": _SAMPLES[settings.quick],
            }
        )
    return found


def make(job: Mapping[str, Any]) -> dict[str, Any]:
    """One bundle, in a process of its own."""
    from vlrt.bundle import open_bundle

    from ..kept import kept
    from ..subject import exporter_sha256

    out = Path(job["bundle"])
    stamp = {
        "checkpoint": job["sha256"],
        "precisions": job["precisions"],
        "samples": job["samples"],
        "exporter": exporter_sha256(),
    }
    kept(out, stamp, lambda: _export(job, out))
    manifest = open_bundle(out).manifest
    assert manifest is not None
    return {
        "refused": manifest.get("refused"),
        "verified": manifest.get("verified"),
        "components": {
            component: {
                precision: {"parity": of["parity"], "repeatable": of["repeatable"]}
                for precision, of in told["variants"].items()
            }
            for component, told in manifest["components"].items()
        },
    }


def _export(job: Mapping[str, Any], out: Path) -> None:
    from vlrt_export.checkpoint import open_checkpoint
    from vlrt_export.pipeline import export, import_exporter
    from vlrt_export.samples import Samples, default

    checkpoint = open_checkpoint(job["checkpoint"])
    given = default(import_exporter(checkpoint.model_type), checkpoint)
    few = Samples(
        given.images[: job["samples"]],
        given.texts[: job["samples"]],
        source=f"the first {job['samples']} of the drawn scenes",
        drawn=True,
    )
    export(job["checkpoint"], out, precisions=job["precisions"], overwrite=True, calibrate=few)
