"""The few shapes that a GPU runs: batches and lengths are padded to the next of them.

Every shape costs at its first run: kernels are chosen, memory is taken, a CUDA graph is recorded.
So a service whose batches are of any size would pay again and again, and its memory would grow.
"""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from vlrt import pinned

# Tokens: lengths are multiples of so many, which suits the kernels too.
LENGTH_STEP = 8


def batch_bucket(rows: int) -> int:
    """The batch that so many rows are padded to: a power of two, or one and a half times one.

    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...: less than a third of a batch is padding.
    """
    power = 1 << max(0, rows - 1).bit_length()  # the least that is not below
    return power // 4 * 3 if power >= 4 and rows <= power // 4 * 3 else power


def length_bucket(length: int, most: int, step: int = LENGTH_STEP, beside: int = 0) -> int:
    """The length that texts of so many tokens are padded to.

    Args:
        length: of the longest text.
        most: what a model takes.
        step: of tokens, together with those beside.
        beside: tokens that stand in one row with a text's, such as those of a picture.
    """
    whole = -(-(length + beside) // step) * step
    return max(length, min(most, whole - beside))


def padded_rows(inputs: Mapping[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
    """Inputs with their last row repeated, up to so many rows; as they are if they have as many.

    Args:
        inputs: arrays of one number of rows, at least one, along the first axis.
        rows: as many, or more.

    Returns:
        Arrays in memory that a GPU fetches from by itself, where there is such.
    """
    padded = dict(inputs)
    for name, array in inputs.items():
        if len(array) < rows:
            padded[name] = pinned.empty((rows, *array.shape[1:]), array.dtype)
            padded[name][: len(array)] = array
            padded[name][len(array) :] = array[-1:]
    return padded
