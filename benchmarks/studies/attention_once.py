"""One process of `attention.py`: load a graph, run it, print how far off it is and what it took.

    python attention_once.py CONTENDER JOB

JOB is JSON: graph, inputs (an .npz of q, k and v), heads, threads, repeats.
"""

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlrt.session import Session, place
from vlrt_benchmarks.worker import timed

Floats = NDArray[np.float32]


def exact(query: Floats, key: Floats, value: Floats, heads: int) -> NDArray[np.float64]:
    """Attention between [1, L, D] of so many heads, in float64: [1, L, D]."""
    q, k, v = (
        array[0].astype(np.float64).reshape(array.shape[1], heads, -1).transpose(1, 0, 2)
        for array in (query, key, value)
    )
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed: NDArray[np.float64] = shares @ v / shares.sum(axis=-1, keepdims=True)
    return mixed.transpose(1, 0, 2).reshape(query.shape)


def main() -> None:
    """Time the graph; prints its error as a share of the result, and the seconds of every run."""
    job = json.loads(sys.argv[2])
    session = Session(Path(job["graph"]), place("cpu"), threads=job["threads"])
    with np.load(job["inputs"]) as file:
        inputs = dict(file)
    expected = exact(inputs["q"], inputs["k"], inputs["v"], job["heads"])
    found = session.run(inputs)["y"]  # a warm-up, too
    seconds = [timed(lambda: session.run(inputs)) for _ in range(job["repeats"])]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    print(json.dumps(float(error)), flush=True)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
