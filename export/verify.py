"""Parity, quality and speed of a variant, and whether it passes its gate."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.ops import l2_normalize
from vlrt.session import Runner

from .precision import GATES

Arrays = dict[str, NDArray[Any]]
# Samples in one run. All of them at once would hold gigabytes of a large model's activations.
SLICE = 8


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


def run_twice(runner: Runner, inputs: Mapping[str, NDArray[Any]]) -> tuple[Arrays, bool]:
    """The outputs of a graph, and whether a second run gave the same.

    Some ONNX Runtime builds corrupt the second run of an fp16 graph (onnxruntime issue 27768).
    """
    first, second = (run_in_slices(runner.run, inputs) for _ in range(2))
    same = all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)
    return first, same


def embedding_parity(outputs: Arrays, reference: Arrays) -> dict[str, float]:
    """How far embeddings are from the reference's.

    Args:
        outputs, reference: float arrays [..., D] by name, the same names in both.

    Returns:
        `max_abs_error` as the graph gives them, `max_abs_error_unit` scaled to length 1, and the
        lowest `min_cosine`. NaN anywhere makes all of them NaN, which passes no gate.
    """
    errors, unit_errors, cosines = [], [], []
    for name, expected in reference.items():
        a, b = l2_normalize(outputs[name]), l2_normalize(expected)
        errors.append(np.abs(outputs[name] - expected).max())
        unit_errors.append(np.abs(a - b).max())
        cosines.append((a * b).sum(axis=-1).min())
    return {
        "max_abs_error": float(np.max(errors)),
        "max_abs_error_unit": float(np.max(unit_errors)),
        "min_cosine": float(np.min(cosines)),
    }


def top1_agreement(
    logits: NDArray[np.float32], reference: NDArray[np.float32]
) -> dict[str, float | int | None]:
    """How often the best label is the same.

    Args:
        logits, reference: [pictures, labels].

    Returns:
        `top1_agreement` over all pictures, and `clear_top1_agreement` over the `clear_pictures`:
        those whose best label the reference puts ahead by a logit of 1 or more (2.7 times as
        likely). A tie that falls the other way is no fault of the variant. None without any.
    """
    best_two = np.sort(reference, axis=1)[:, -2:]
    clear = best_two[:, -1] - best_two[:, 0] >= 1
    same = logits.argmax(axis=1) == reference.argmax(axis=1)
    return {
        "pictures": len(reference),
        "labels": int(reference.shape[1]),
        "top1_agreement": float(same.mean()),
        "clear_pictures": int(clear.sum()),
        "clear_top1_agreement": float(same[clear].mean()) if clear.any() else None,
    }


def speed(
    runner: Runner, inputs: Mapping[str, NDArray[Any]], threads: int, device: str
) -> dict[str, Any]:
    """Median milliseconds for the first item of `inputs` alone. For ranking variants of one export.

    Seven runs, or as many as fit in two seconds, but at least three, after one that is not counted.
    """
    one = {name: array[:1] for name, array in inputs.items()}
    runner.run(one)
    times: list[float] = []
    while len(times) < 3 or (len(times) < 7 and sum(times) < 2):
        start = time.perf_counter()
        runner.run(one)
        times.append(time.perf_counter() - start)
    return {
        "device": device,
        "median_ms": round(statistics.median(times) * 1000, 3),
        "runs": len(times),
        "batch": 1,
        "threads": threads,
    }


def complaints(
    precision: str,
    parity: Mapping[str, Mapping[str, Any]],
    quality: Mapping[str, Any],
) -> list[str]:
    """Why a variant does not pass its gate, each with the number and the limit; empty if it does.

    Args:
        precision: decides the gate.
        parity: component -> what `embedding_parity` returned, and `repeatable`.
        quality: what `top1_agreement` returned.
    """
    gate, found = GATES[precision], []
    for component, numbers in parity.items():
        if not numbers["repeatable"]:
            found.append(f"{component}: a second run on the same input gave another result")
        # Written so that NaN fails.
        if not numbers["min_cosine"] >= gate.min_cosine:
            found.append(
                f"{component}: lowest cosine {numbers['min_cosine']:.6f}, needs {gate.min_cosine}"
            )
        limit = gate.max_abs_error
        if limit is not None and not numbers["max_abs_error_unit"] <= limit:
            found.append(
                f"{component}: largest error {numbers['max_abs_error_unit']:.2e}, limit {limit:.0e}"
            )
    agreement = quality["clear_top1_agreement"]
    if agreement is not None and agreement < gate.min_top1_agreement:
        found.append(
            f"best label differs: agreement {agreement:.4f} over {quality['clear_pictures']} "
            f"clear-cut pictures, needs {gate.min_top1_agreement}"
        )
    return found
