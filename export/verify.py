"""Parity and speed of a variant."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.ops import l2_normalize
from vlrt.session import Runner

Arrays = dict[str, NDArray[Any]]
# Samples in one run. All of them at once would hold gigabytes of a large model's activations.
SLICE = 8


def slice_size(inputs: Mapping[str, NDArray[Any]], pictures: int) -> int:
    """How many samples to run at a time: so many `pictures`, or a full slice of texts."""
    return pictures if "pixel_values" in inputs else SLICE


def slices(inputs: Mapping[str, NDArray[Any]], size: int = SLICE) -> Iterator[Arrays]:
    """Samples, `size` of them at a time."""
    number = len(next(iter(inputs.values())))
    for at in range(0, number, size):
        yield {name: array[at : at + size] for name, array in inputs.items()}


def joined(parts: Sequence[Arrays]) -> Arrays:
    """The outputs of several runs along the first axis."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def run_in_slices(
    run: Callable[[Arrays], Arrays], inputs: Mapping[str, NDArray[Any]], size: int = SLICE
) -> Arrays:
    """The outputs for all samples, run `size` of them at a time."""
    return joined([run(part) for part in slices(inputs, size)])


def run_twice(
    runner: Runner, inputs: Mapping[str, NDArray[Any]], size: int = SLICE
) -> tuple[Arrays, bool]:
    """The outputs of a graph, and whether a second run gave the same.

    Some ONNX Runtime builds corrupt the second run of an fp16 graph (onnxruntime issue 27768).
    """
    first, second = (run_in_slices(runner.run, inputs, size) for _ in range(2))
    same = all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)
    return first, same


def parity(outputs: Arrays, reference: Arrays) -> dict[str, dict[str, float]]:
    """How far each output is from the reference's.

    Args:
        outputs, reference: float arrays by name, the same names in both. Those whose names end in
            `_embeds` are embeddings, one each [B, D] or one a place [B, P, D], of which only the
            direction counts.

    Returns:
        Of each output, `max_abs_error` as the graph gives it, and `max_abs_error_unit`: of
        embeddings scaled to length 1, which also have the lowest `min_cosine`, and those of places
        `cosine_of_99_in_100`, which so many places reach; of others divided by the reference's
        largest magnitude, where that is over 1. NaN anywhere makes the errors of its output and
        the lowest cosine NaN, which passes no gate.
    """
    found = {}
    for name, expected in reference.items():
        error = np.abs(outputs[name] - expected).max()
        if name.endswith("_embeds"):
            a, b = l2_normalize(outputs[name]), l2_normalize(expected)
            cosines = (a * b).sum(axis=-1)
            numbers = {
                "max_abs_error": error,
                "max_abs_error_unit": np.abs(a - b).max(),
                "min_cosine": cosines.min(),
            }
            if cosines.ndim > 1:
                left_out = cosines.size // 100
                numbers["cosine_of_99_in_100"] = np.sort(cosines, axis=None)[left_out]
        else:
            unit = error / np.maximum(1, np.abs(expected).max())
            numbers = {"max_abs_error": error, "max_abs_error_unit": unit}
        found[name] = {key: float(number) for key, number in numbers.items()}
    return found


def speed(
    runner: Runner, inputs: Mapping[str, NDArray[Any]], threads: int, device: str
) -> dict[str, Any]:
    """Median milliseconds for `inputs`, one sample. For ranking variants of one export.

    Seven runs, or as many as fit in two seconds, but at least three, after one that is not counted.
    """
    runner.run(inputs)
    times: list[float] = []
    while len(times) < 3 or (len(times) < 7 and sum(times) < 2):
        start = time.perf_counter()
        runner.run(inputs)
        times.append(time.perf_counter() - start)
    return {
        "device": device,
        "median_ms": round(statistics.median(times) * 1000, 3),
        "runs": len(times),
        "batch": 1,
        "threads": threads,
    }
