"""One process of a benchmark of graphs: load one, run it on seeded inputs, print what it took.

    python graph_once.py CONTENDER '{"graph": ..., "batch": ..., "threads": ..., "repeats": ...}'

The inputs are ViLT's, without padding: pictures of `size_hw` and texts of `length` tokens.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.session import Session, place
from vlrt_benchmarks.worker import timed


def make_inputs(batch: int, size_hw: tuple[int, int], length: int) -> dict[str, NDArray[Any]]:
    """A batch of noise."""
    rng = np.random.default_rng(0)
    return {
        "input_ids": rng.integers(1000, 20000, (batch, length)),
        "attention_mask": np.ones((batch, length), np.int64),
        "token_type_ids": np.zeros((batch, length), np.int64),
        "pixel_values": rng.normal(0, 0.5, (batch, 3, *size_hw)).astype(np.float32),
        "pixel_mask": np.ones((batch, *size_hw), np.int64),
    }


def main() -> None:
    """Time the graph; prints ten logits of each pair, and then the seconds of every run."""
    job = json.loads(sys.argv[2])
    session = Session(Path(job["graph"]), place("cpu"), threads=job["threads"])
    inputs = make_inputs(job["batch"], tuple(job["size_hw"]), job["length"])
    logits = session.run(inputs)["logits"]  # a warm-up, too
    seconds = [timed(lambda: session.run(inputs)) for _ in range(job["repeats"])]
    print(json.dumps([float(number) for number in logits[:, :10].ravel()]), flush=True)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
