"""torch.compile: the models of transformers, compiled for the one shape of each row.

On the CPU weights are frozen: constants, in the layout that oneDNN's products want. On a GPU it is
the default mode of torch.compile (`cudagraph.py` is another one), inputs and outputs are in pinned
memory of the host, and pictures are uploaded as levels, whose normalisation is compiled too. ViLT
is taken without its random choice of patches, which is the same for pictures without padding
(`towers.ViltUnpadded`). Compiling is part of the first run, which is never counted.
"""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Entry, Stage, of_towers, several_shapes, staying

if TYPE_CHECKING:
    import argparse

    from ..plan import Plan
    from ..subject import Subject

NAME = "torch-compile"
NEEDS = ("torch", "transformers")
INSTALL = 'pip install "vlrt[export]"'
NEEDS_CHECKPOINT = True
# Shapes that one program may be compiled for: beyond so many, PyTorch gives up and says nothing.
_SHAPES = 64


def missing(options: "argparse.Namespace") -> str | None:
    """A C++ compiler, which code for the CPU is compiled by."""
    if options.device == "cpu" and shutil.which("g++") is None:
        return "it needs a C++ compiler: apt install g++"
    return None


def refused(subject: "Subject", plan: "Plan") -> dict[str, str]:
    """What it has no contender for here, and why."""
    why = several_shapes(subject, plan)
    return {NAME: why} if why else {}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """One for each precision that PyTorch computes in well on such a device."""
    from .eager import PRECISIONS

    if refused(subject, plan):
        return []
    return of_towers(NAME, PRECISIONS[plan.device], subject.family)


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """The stages of one precision."""
    import torch

    from .towers import load_model

    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    dynamo: Any = torch._dynamo  # noqa: SLF001 - the only place that has the limit
    dynamo.config.recompile_limit = _SHAPES
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = dtypes[job["precision"]]
    model = load_model(Path(job["checkpoint"]), job["family"], dtype).to(job["device"])
    return {stage: _stage(job, model, dtype, stage) for stage in job["stages"]}


def _stage(job: Mapping[str, Any], model: Any, dtype: Any, stage: str) -> Stage:
    import torch

    from .towers import Download, Upload, given_to, numpy_of, tensors

    device = job["device"]
    part, given = given_to(job, model, stage, dtype, unpadded=True)
    names = part.outputs
    on_cpu = device == "cpu"
    options: Any = {"freezing": True} if on_cpu else None
    compiled: Any = torch.compile(part, dynamic=False, options=options)
    if on_cpu:
        ready = tensors(given, dtype, device)
        run = partial(_run, compiled, ready)
    else:
        upload, download = Upload(given, dtype, device), Download(names, staying(job))

        def run() -> list[Any]:
            return download(compiled(*upload()))

    return Stage(run, lambda made: {n: numpy_of(one) for n, one in zip(names, made, strict=True)})


def _run(compiled: Any, ready: list[Any]) -> list[Any]:
    return list(compiled(*ready))
