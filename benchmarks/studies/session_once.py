"""One process of `session_options.py`.

    python session_once.py SETTING JOB      load a graph with one setting changed, and time it
    python session_once.py neighbour JOB    work on one core, and count

JOB is JSON: graph, threads, setting (see `load`), repeats (batch size -> runs); or, for requests
with pauses between them: graph, threads, setting, pause_ms, neighbours, seconds; a graph of null
makes no requests. A neighbour's: seconds.

The first line printed is a row of the result, the second what it took.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from vlrt.arena import SMALL_RUNS
from vlrt.session import CPU, Arrays, Runner, Session, place, session_options
from vlrt_benchmarks.cold_start import resident_mib
from vlrt_benchmarks.worker import timed

Job = dict[str, Any]
# Single ones, after which memory is read: so many make `Session` give back what larger ones took,
# and the last takes what it needs itself.
_LAST_RUNS = SMALL_RUNS + 1


class Alone:
    """A graph in ONNX Runtime, without what `vlrt.session.Session` does around its runs."""

    input_shapes: Mapping[str, tuple[int | None, ...]]

    def __init__(self, path: str, options: ort.SessionOptions) -> None:
        self._session = ort.InferenceSession(path, sess_options=options, providers=[CPU])
        self._outputs = [node.name for node in self._session.get_outputs()]
        self.input_shapes = {node.name: tuple(node.shape) for node in self._session.get_inputs()}

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph on named arrays, to named arrays."""
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))


def change(options: ort.SessionOptions, setting: dict[str, Any]) -> None:
    """Change options as vlrt sets them: config entries by name, and attributes.

    Args:
        options: to change.
        setting: "entries": name -> value; "arena", "memory_pattern": whether to keep one;
            "level": of optimisation, "ORT_ENABLE_BASIC" for one.
    """
    for name, value in setting.get("entries", {}).items():
        options.add_session_config_entry(name, value)
    if "arena" in setting:
        options.enable_cpu_mem_arena = setting["arena"]
    if "memory_pattern" in setting:
        options.enable_mem_pattern = setting["memory_pattern"]
    if "level" in setting:
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, setting["level"])


def load(job: Job) -> Runner:
    """The graph, loaded: in ONNX Runtime alone, or, where a setting says "session", as vlrt does.

    A setting may also hold "threads", "spinning", "exact_products", and what `change` takes.
    """
    setting = job["setting"]
    if setting.get("session"):
        return Session(Path(job["graph"]), place("cpu"), threads=job["threads"])
    options = session_options(
        setting.get("threads", job["threads"]),
        spinning=setting.get("spinning", True),
        exact_products=setting.get("exact_products", False),
    )
    change(options, setting)
    return Alone(job["graph"], options)


def noise(session: Runner, batch: int) -> dict[str, NDArray[np.float32]]:
    """Pictures of noise: float32 [batch, 3, H, W]."""
    ((name, shape),) = session.input_shapes.items()
    sizes = [side for side in shape[1:] if isinstance(side, int)]  # all are: CLIP's are fixed
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(batch, *sizes)).astype(np.float32)}


def run_setting(job: Job) -> None:
    """Time loading and runs of each batch size, and read what memory is left after single ones."""
    started = time.perf_counter()
    session = load(job)
    load_s = time.perf_counter() - started
    one = noise(session, 1)
    (first,) = session.run(one).values()
    print(json.dumps(first.ravel()[:8].tolist()), flush=True)
    seconds: dict[str, list[float]] = {}
    for batch, repeats in job["repeats"].items():
        inputs = noise(session, int(batch))
        session.run(inputs)
        seconds[batch] = [timed(partial(session.run, inputs)) for _ in range(repeats)]
    del inputs
    for _ in range(_LAST_RUNS):
        session.run(one)
    memory = {"steady_mib": resident_mib()["now_mib"], "peak_mib": resident_mib()["peak_mib"]}
    print(json.dumps({"load_s": load_s, "seconds": seconds, **memory}))


def run_requests(job: Job) -> None:
    """Answer single requests with pauses between them, for as long as neighbours work."""
    session = load(job) if job["graph"] else None
    one = noise(session, 1) if session else {}
    if session:
        session.run(one)
    print("[]", flush=True)
    command = [sys.executable, __file__, "neighbour", json.dumps({"seconds": job["seconds"]})]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(job["neighbours"])
    ]
    seconds = []
    while any(process.poll() is None for process in running):
        if session:
            seconds.append(timed(partial(session.run, one)))
        time.sleep(job["pause_ms"] / 1000)
    printed = [process.communicate()[0].splitlines()[-1] for process in running]
    print(json.dumps({"seconds": seconds, "neighbours": [json.loads(line) for line in printed]}))


def run_neighbour(job: Job) -> None:
    """Work on one core, in pieces of a fraction of a millisecond; prints how many a second."""
    numbers = np.arange(1, 50_001, dtype=np.float64)
    done = 0
    started = time.perf_counter()
    while time.perf_counter() < started + job["seconds"]:
        np.sqrt(numbers).sum()
        done += 1
    print(json.dumps(done / (time.perf_counter() - started)))


def main() -> None:
    """Run what the command line names."""
    job = json.loads(sys.argv[2])
    if sys.argv[1] == "neighbour":
        run_neighbour(job)
    elif "pause_ms" in job:
        run_requests(job)
    else:
        run_setting(job)


if __name__ == "__main__":
    main()
