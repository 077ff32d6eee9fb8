"""The shapes that a GPU is given: few of them, and little padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlrt.buckets import LENGTH_STEP, batch_bucket, length_bucket, padded_rows


def test_batches_have_few_sizes():
    sizes = sorted({batch_bucket(rows) for rows in range(1, 257)})
    assert sizes == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]


@given(rows=st.integers(1, 100_000))
def test_less_than_a_third_of_a_batch_is_padding(rows):
    size = batch_bucket(rows)
    assert rows <= size
    assert size - rows < size / 3 or size == rows
    assert batch_bucket(size) == size


@pytest.mark.parametrize(
    ("length", "most", "expected"),
    [(0, 77, 0), (1, 77, 8), (8, 77, 8), (9, 77, 16), (73, 77, 77), (77, 77, 77), (3, 4, 4)],
)
def test_lengths_are_whole_steps_up_to_the_models_limit(length, most, expected):
    assert length_bucket(length, most) == expected


@given(length=st.integers(0, 100), most=st.integers(0, 100), step=st.integers(1, 9))
def test_a_length_is_never_cut(length, most, step):
    found = length_bucket(length, most, step)
    assert length <= found < length + step
    assert found in (length, most) or found % step == 0
    assert length_bucket(length, most, 1) == length


@pytest.mark.parametrize(
    ("length", "beside", "expected"),
    [(1, 0, 8), (7, 193, 7), (8, 193, 15), (12, 145, 15), (40, 193, 40), (33, 193, 39)],
)
def test_with_a_pictures_tokens_beside_it_is_all_of_them_that_are_whole_steps(
    length, beside, expected
):
    found = length_bucket(length, 40, beside=beside)
    assert found == expected
    assert found == 40 or (found + beside) % LENGTH_STEP == 0


@given(rows=st.integers(1, 9), more=st.integers(0, 9))
def test_rows_are_padded_with_the_last_one(rows, more):
    inputs = {
        "pixel_values": np.arange(rows * 6, dtype=np.uint8).reshape(rows, 2, 3),
        "input_ids": np.arange(rows, dtype=np.int64)[:, None],
    }
    padded = padded_rows(inputs, rows + more)
    for name, array in inputs.items():
        assert len(padded[name]) == rows + more
        assert padded[name].dtype == array.dtype
        assert np.array_equal(padded[name][:rows], array)
        assert (padded[name][rows:] == array[-1]).all()
        assert (padded[name] is array) == (more == 0)  # nothing is copied for nothing


def test_the_step_is_eight_tokens():
    """Fewer would make more shapes; README and `warmup` count on it."""
    assert LENGTH_STEP == 8
