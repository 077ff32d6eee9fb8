"""One process of `session_options.py`.

    python session_once.py SETTING JOB      load a graph with one setting changed, and time it
    python session_once.py neighbour JOB    work on one core, and count

JOB is JSON: graph, threads, setting (see `change`), repeats (batch size -> runs); or, for requests
with pauses between them: graph, threads, setting, pause_ms, neighbours, seconds; a graph of null
makes no requests. A neighbour's: seconds.

The first line printed is a row of the result, the second what it took.
"""

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from vlrt.session import CPU, session_options
from vlrt_benchmarks.cold_start import resident_mib

Job = dict[str, Any]


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


def load(job: Job) -> ort.InferenceSession:
    """The graph, loaded."""
    setting = job["setting"]
    options = session_options(
        setting.get("threads", job["threads"]),
        spinning=setting.get("spinning", True),
        exact_products=setting.get("exact_products", False),
    )
    change(options, setting)
    return ort.InferenceSession(job["graph"], sess_options=options, providers=[CPU])


def noise(session: ort.InferenceSession, batch: int) -> dict[str, NDArray[np.float32]]:
    """Pictures of noise: float32 [batch, 3, H, W]."""
    (pixels,) = session.get_inputs()
    rng = np.random.default_rng(0)
    return {pixels.name: rng.normal(size=(batch, *pixels.shape[1:])).astype(np.float32)}


def run_setting(job: Job) -> None:
    """Time loading, runs of each batch size, and what memory is left after a single one."""
    started = time.perf_counter()
    session = load(job)
    load_s = time.perf_counter() - started
    one = noise(session, 1)
    first = session.run(None, one)[0]
    print(json.dumps(first.ravel()[:8].tolist()), flush=True)
    seconds: dict[str, list[float]] = {}
    for batch, repeats in job["repeats"].items():
        inputs = noise(session, int(batch))
        session.run(None, inputs)
        seconds[batch] = []
        for _ in range(repeats):
            started = time.perf_counter()
            session.run(None, inputs)
            seconds[batch].append(time.perf_counter() - started)
    session.run(None, one)
    print(json.dumps({"load_s": load_s, "seconds": seconds, **resident_mib()}))


def run_requests(job: Job) -> None:
    """Answer single requests with pauses between them, for as long as neighbours work."""
    session = load(job) if job["graph"] else None
    one = noise(session, 1) if session else {}
    if session:
        session.run(None, one)
    print("[]", flush=True)
    command = [sys.executable, __file__, "neighbour", json.dumps({"seconds": job["seconds"]})]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(job["neighbours"])
    ]
    seconds = []
    while any(process.poll() is None for process in running):
        if session:
            started = time.perf_counter()
            session.run(None, one)
            seconds.append(time.perf_counter() - started)
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
