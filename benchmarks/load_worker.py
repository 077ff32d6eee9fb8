"""A contender of `vlrt bench load`, a program of its own: load, warm up, be asked by many at once.

    python -m vlrt_benchmarks.load_worker JOB

JOB is JSON: kind ("vlrt" or "torch"), model (the directory of a bundle or checkpoint), precision,
method (of the model: classify, detect, ask), picture, batch_size (the picture is given so many
times in one request), labels, question, threads, spinning, cpus (to be pinned to), clients (of the
warm-up), warm_up_s.

The first line printed, after the warm-up, is the result of one request and what loading took. Then
each line read is a step: {"clients", "seconds"}, a closed loop, or {"per_second", "seconds",
"drain", "workers", "seed"}, an open one. What it found is printed as a line of JSON. Garbage
collection is off meanwhile. It ends with its input.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cold_start import OBJECTS
from .load_loops import Ask, Step, closed, open_loop, schedule

Job = dict[str, Any]


def load(job: Job) -> Any:
    """The model."""
    if job["kind"] == "torch":
        from .reference import load_reference

        return load_reference(Path(job["model"]), job["precision"], "cpu", job["threads"])
    import vlrt

    return vlrt.load(
        job["model"],
        precision=job["precision"],
        device="cpu",
        threads=job["threads"],
        spinning=job["spinning"],
    )


def requests(model: Any, job: Job) -> tuple[Ask, Callable[[], list[dict[str, Any]]]]:
    """What a client asks, and one answer to compare; labels are encoded once, as a server would.

    Returns:
        A request, and what gives the result as `cold_start.py` prints it.
    """
    size = job["batch_size"]
    pictures = [job["picture"]] * size if size > 1 else job["picture"]
    if job["method"] == "ask":
        return (
            lambda _: model.ask(pictures, job["question"], batch_size=size),
            lambda: model.ask(job["picture"], job["question"]).to_dict()["answers"],
        )
    labels = model.encode_labels(job["labels"])
    if job["method"] == "classify":
        return (
            lambda _: model.classify(pictures, labels, batch_size=size),
            lambda: model.classify(job["picture"], labels).to_dict()["labels"],
        )

    def objects() -> list[dict[str, Any]]:
        found = model.detect(job["picture"], labels, threshold=0.0, top_k=OBJECTS).to_dict()
        sides = {"x": found["width"], "y": found["height"]}
        return [
            {**one, "box": [value / sides[name[0]] for name, value in one["box"].items()]}
            for one in found["detections"]
        ]

    return lambda _: model.detect(pictures, labels, batch_size=size), objects


def result(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a result's `to_dict` with one key for all kinds of names."""
    kept = ("score", "box")
    return [
        {"name": row.get("label", row.get("answer")), **{k: row[k] for k in kept if k in row}}
        for row in rows
    ]


def step(ask: Ask, told: dict[str, Any]) -> Step:
    """Do one step."""
    if "clients" in told:
        return closed(ask, told["clients"], told["seconds"])
    due = schedule(told["per_second"], told["seconds"], told["seed"])
    return open_loop(ask, due, told["seconds"], told["drain"], told["workers"])


def main() -> None:
    """Run the contender named on the command line."""
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = json.loads(sys.argv[1])
    if job["cpus"]:
        os.sched_setaffinity(0, job["cpus"])
    started = time.perf_counter()
    ask, compared = requests(load(job), job)
    loading = time.perf_counter() - started
    ready = {"result": result(compared()), "loading_s": loading}
    closed(ask, job["clients"], job["warm_up_s"])
    gc.collect()
    gc.freeze()
    gc.disable()
    # Only now, for the next contender begins to load, or to be measured, when it reads this.
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(step(ask, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
