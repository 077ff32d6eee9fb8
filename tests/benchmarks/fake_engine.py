"""An engine for tests: it gives what its job says, and dies when it is told to."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

STAGES = ("post-process", "end to end")


def entry(name="fake-fp32", **job):
    from vlrt_benchmarks.peers import Entry

    return Entry(name, "fake", "fp32", STAGES, job, module=__name__)


def load(job):
    print("a library that prints")  # no answer
    if job.get("dies") == "loading":
        sys.exit("no such kernel")
    return {stage: stage_of(job, stage) for stage in job["stages"]}


def stage_of(job, stage):
    runs = 0

    def run():
        nonlocal runs
        runs += 1
        if job.get("dies") == stage and Path(job["outputs"], "ready").exists():
            raise ZeroDivisionError("a run too many")
        return np.array(job.get("scores", [[0.25, 0.75]]), np.float32)

    return SimpleNamespace(run=run, outputs=lambda scores: {"scores": scores})
