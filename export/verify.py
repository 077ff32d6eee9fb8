"""Parity, quality and speed of a variant, and whether it passes its gate."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.ops import l2_normalize
from vlrt.session import Runner

from .precision import Gate

Arrays = dict[str, NDArray[Any]]
# Samples in one run. All of them at once would hold gigabytes of a large model's activations.
SLICE = 8


def slice_size(inputs: Mapping[str, NDArray[Any]], pictures: int) -> int:
    """How many samples to run at a time: so many `pictures`, or a full slice of texts."""
    return pictures if "pixel_values" in inputs else SLICE


def run_in_slices(
    run: Callable[[Arrays], Arrays], inputs: Mapping[str, NDArray[Any]], size: int = SLICE
) -> Arrays:
    """The outputs for all samples, `size` of them at a time, joined along the first axis.

    Scalars become one number a slice.
    """
    number = len(next(iter(inputs.values())))
    parts = [
        run({name: array[at : at + size] for name, array in inputs.items()})
        for at in range(0, number, size)
    ]
    return {
        name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]
    }


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
            `_embeds` are embeddings [..., D], of which only the direction counts.

    Returns:
        Of each output, `max_abs_error` as the graph gives it, and `max_abs_error_unit`: of
        embeddings scaled to length 1, which also have the lowest `min_cosine`; of others divided by
        the reference's largest magnitude, where that is over 1. NaN anywhere makes all numbers of
        its output NaN, which passes no gate.
    """
    found = {}
    for name, expected in reference.items():
        error = np.abs(outputs[name] - expected).max()
        if name.endswith("_embeds"):
            a, b = l2_normalize(outputs[name]), l2_normalize(expected)
            numbers = {
                "max_abs_error": error,
                "max_abs_error_unit": np.abs(a - b).max(),
                "min_cosine": (a * b).sum(axis=-1).min(),
            }
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


def complaints(
    gate: Gate, variants: Mapping[str, Mapping[str, Any]], quality: Mapping[str, Any]
) -> list[str]:
    """Why a variant does not pass its gate, each with the number and the limit; empty if it does.

    Args:
        gate: of its task and precision.
        variants: component -> `parity`, as the function of that name returns it, and `repeatable`.
        quality: what the family counted: the share `agreement`, or None for nothing to count, over
            the `compared`, and what these are `of`, in words. A family with a second way to use its
            outputs also has `example_agreement`, a share of the `pictures`.
    """
    found = []
    for component, variant in variants.items():
        if not variant["repeatable"]:
            found.append(f"{component}: a second run on the same input gave another result")
        for output, numbers in variant["parity"].items():
            which = f"{component}, {output}"
            error, limit = numbers["max_abs_error_unit"], gate.max_abs_error
            if not math.isfinite(error):
                found.append(f"{which}: NaN or infinity among its numbers")
                continue
            # Written so that NaN fails.
            lowest, needed = numbers.get("min_cosine"), gate.min_cosine
            if lowest is not None and needed is not None and not lowest >= needed:
                found.append(f"{which}: lowest cosine {lowest:.6f}, needs {needed}")
            if limit is not None and not error <= limit:
                found.append(f"{which}: largest error {error:.2e}, limit {limit:.0e}")
    agreement = quality["agreement"]
    if agreement is not None and not agreement >= gate.min_agreement:
        found.append(
            f"only {agreement:.4f} of {quality['compared']} {quality['of']}, "
            f"needs {gate.min_agreement}"
        )
    picked = quality.get("example_agreement")
    if picked is not None and not picked >= gate.min_agreement:
        found.append(
            f"only {picked:.4f} of {quality['pictures']} pictures, taken as examples, have the "
            f"same object picked, needs {gate.min_agreement}"
        )
    return found
