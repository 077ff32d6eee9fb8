"""A contender, a program of its own: load, warm up, save what comes out, and run when told to.

    python worker.py JOB.json

The job is as `peers/__init__.py` says, and names the `module` that loads it. Loading comes first,
then of every stage so many runs that their times are steady, of which the last one's result is
saved in the folder `outputs`. The line of JSON printed then holds the versions of what runs and
what that took. From then on each line read, {"stage", "seconds"}, is a turn: one run that is not
counted, for another contender had the caches, and runs for about so long, with garbage collection
off. The seconds of each are printed as a line of JSON. It ends with its input.

It runs under any Python that has NumPy and what the contender needs; it imports nothing of vlrt.
"""

import gc
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TextIO

# A turn has at least so many runs, unless one takes the whole turn; and at the most so many: more
# say nothing new, and a median over rounds is made of few of them as well.
LEAST_RUNS, MOST_RUNS = 3, 200
# Times are steady when the medians of two stretches of runs, one after the other, are this near.
STEADY = 0.05
_STRETCH_S, _STRETCH_RUNS = 0.05, 3
_LONG_S = 1.0  # a run that takes longer is a stretch by itself
_PACKAGES = (
    "vlrt", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "torch", "torchvision",
    "transformers", "optimum", "optimum-onnx", "openvino", "nncf", "hf-processors-rs",
    "opencv-python-headless", "numpy", "pillow", "simplejpeg", "tokenizers",
)  # fmt: skip
# Those whose modules have another name.
_IMPORTED_AS = {
    "onnxruntime-gpu": "onnxruntime", "onnxruntime-openvino": "onnxruntime",
    "optimum-onnx": "optimum", "opencv-python-headless": "cv2", "pillow": "PIL",
}  # fmt: skip

Run = Callable[[], Any]


def turn(run: Run, seconds: float) -> list[float]:
    """The seconds of each run of one turn."""
    run()
    taken: list[float] = []
    total = 0.0
    while total < seconds or (len(taken) < LEAST_RUNS and taken[0] < seconds):
        taken.append(timed(run))
        total += taken[-1]
        if len(taken) == MOST_RUNS:
            break
    return taken


def timed(run: Run) -> float:
    """The seconds of one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def warm_up(run: Run, limit_s: float) -> dict[str, Any]:
    """Run until times are steady.

    Args:
        run: the first time it may compile, which no limit ends.
        limit_s: seconds after which it ends, steady or not, if two stretches were compared.

    Returns:
        `first_s`, of the first run; `warm_up_s`, of all others; `runs`; and whether times were
        `stable` in the end.
    """
    first_s = timed(run)
    started = time.perf_counter()
    stretch = _stretch(run)
    runs, before, taken, stable = 1 + len(stretch), median(stretch), 0.0, False
    while not stable and taken < limit_s:
        stretch = _stretch(run)
        now = median(stretch)
        stable, before = abs(now - before) <= STEADY * max(now, before), now
        runs += len(stretch)
        taken = time.perf_counter() - started
    return {"first_s": first_s, "warm_up_s": taken, "runs": runs, "stable": stable}


def _stretch(run: Run) -> list[float]:
    taken = [timed(run)]
    while len(taken) < _STRETCH_RUNS and taken[0] <= _LONG_S:
        taken.append(timed(run))
    while sum(taken) < _STRETCH_S and len(taken) < MOST_RUNS:
        taken.append(timed(run))
    return taken


def versions() -> dict[str, str]:
    """Of the packages that an engine may be made of, those that are installed and imported."""
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        if _IMPORTED_AS.get(name, name.replace("-", "_")) not in sys.modules:
            continue
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # imported from another one
            continue
    return found


def main(path: Path, answers: TextIO) -> None:
    """Load the contender, say that it is ready, and take turns."""
    job: Mapping[str, Any] = json.loads(path.read_text())
    if job["cpus"]:
        os.sched_setaffinity(0, job["cpus"])
    import numpy as np  # not before: it makes its threads at once, and they stay where they are

    _package()
    started = time.perf_counter()
    stages = importlib.import_module(job["module"]).load(job)
    loading_s = time.perf_counter() - started
    warmed = {}
    for number, name in enumerate(job["stages"]):
        warmed[name] = warm_up(stages[name].run, job["warm_up_s"])
        outputs = stages[name].outputs(stages[name].run())
        np.savez(Path(job["outputs"], f"{number}.npz"), **outputs)
        del outputs
    gc.collect()
    gc.freeze()
    gc.disable()
    _say(answers, {"versions": versions(), "loading_s": loading_s, "stages": warmed})
    for line in sys.stdin:
        asked = json.loads(line)
        _say(answers, [round(s, 9) for s in turn(stages[asked["stage"]].run, asked["seconds"])])


def _package() -> None:
    """Make `vlrt_benchmarks` this folder, installed or not."""
    root = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "vlrt_benchmarks", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vlrt_benchmarks"] = module
    spec.loader.exec_module(module)


def _say(answers: TextIO, value: Any) -> None:
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    # What libraries print must not be taken for an answer: it goes to stderr.
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # This file's folder has modules of the names of packages that engines import.
    sys.path = [place for place in sys.path if place != str(Path(__file__).resolve().parent)]
    main(Path(sys.argv[1]), own)
