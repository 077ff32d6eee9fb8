"""The small maths, against float64 and at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tolerances import MATHS_ABS

from vlrt.errors import OptionError
from vlrt.ops import cosine_similarity, l2_normalize, sigmoid, softmax, top_k

rows = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8)


def array(values):
    return np.array(values, np.float32)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_sigmoid_of_nothing_is_nothing(shape):
    assert sigmoid(np.zeros(shape, np.float32)).shape == shape


@given(st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=8))
def test_sigmoid_is_that_of_float64(values):
    found = sigmoid(array(values))
    assert found.dtype == np.float32
    assert found == pytest.approx([1 / (1 + math.exp(-v)) for v in values], rel=1e-6, abs=0)


def test_sigmoid_of_extremes_does_not_overflow():
    lowest = np.finfo(np.float32).min  # what transformers puts where a query is masked
    assert sigmoid(array([lowest, -200, 0, 200, 3e38])).tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_softmax_of_nothing_is_nothing(shape):
    assert softmax(np.zeros(shape, np.float32)).shape == shape


@given(rows)
def test_softmax_is_that_of_float64(values):
    logits = array(values).astype(np.float64)
    expected = np.exp(logits - logits.max())
    found = softmax(array(values))
    assert found.dtype == np.float32
    assert found == pytest.approx(expected / expected.sum(), abs=1e-5)
    assert found.sum() == pytest.approx(1, abs=MATHS_ABS)


@given(st.lists(st.integers(-500, 500), min_size=1, max_size=8), st.integers(-500, 500))
def test_softmax_does_not_see_a_shift(values, shift):
    assert np.array_equal(softmax(array(values)), softmax(array(values) + shift))


@pytest.mark.parametrize("extreme", [3e38, -3e38, 100.0, 1e4])
def test_softmax_of_extremes_is_finite(extreme):
    found = softmax(array([[extreme, 0.0], [extreme, extreme]]))
    assert np.isfinite(found).all()
    assert found[1].tolist() == [0.5, 0.5]


def test_softmax_takes_each_row_alone():
    logits = array([[1, 2, 3], [30, 20, 10]])
    assert np.array_equal(softmax(logits), np.stack([softmax(row) for row in logits]))


@given(rows)
def test_unit_vectors_point_where_they_did(values):
    vector = array([values])
    found = l2_normalize(vector)
    length = np.linalg.norm(vector.astype(np.float64))
    if length < 1e-15:  # float32 cannot square anything so small
        assert not np.isnan(found).any()
    elif length > 1e-3:
        assert found == pytest.approx(vector / length, abs=MATHS_ABS)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 3, 4)])
def test_vectors_of_zeros_stay_zero(shape):
    found = l2_normalize(np.zeros(shape, np.float32))
    assert found.shape == shape
    assert not found.any()


@pytest.mark.parametrize(
    ("scores", "k", "expected"),
    [
        ([], None, []),
        ([], 3, []),
        ([0.5], 1, [0]),
        ([0.1, 0.9, 0.5], None, [1, 2, 0]),
        ([0.1, 0.9, 0.5], 2, [1, 2]),
        ([0.1, 0.9, 0.5], 99, [1, 2, 0]),
        ([0.1, 0.9, 0.5], 0, []),
        ([0.5, 0.9, 0.5, 0.9], None, [1, 3, 0, 2]),  # equal ones keep their order
    ],
)
def test_top_k(scores, k, expected):
    assert top_k(array(scores), k).tolist() == expected


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (1, 1), (3, 5)])
def test_cosines_are_those_of_every_pair(rng, n, m):
    a, b = (rng.normal(0, 9, (rows, 6)).astype(np.float32) for rows in (n, m))
    found = cosine_similarity(a, b)
    assert found.shape == (n, m)
    for i in range(n):
        for j in range(m):
            x, y = a[i].astype(np.float64), b[j].astype(np.float64)
            expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
            assert found[i, j] == pytest.approx(expected, abs=MATHS_ABS)


def test_cosines_never_leave_their_range(rng):
    vectors = rng.normal(0, 1, (200, 3)).astype(np.float32)
    assert np.abs(cosine_similarity(vectors, np.concatenate([vectors, -vectors]))).max() <= 1


def test_a_row_of_zeros_is_like_nothing():
    assert cosine_similarity(array([[0, 0]]), array([[1, 2]])).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (2, 4)), ((3,), (2, 3)), ((2, 3), (3,)), ((1, 2, 3), (2, 3))]
)
def test_embeddings_of_other_shapes_are_refused_with_both(a, b):
    with pytest.raises(OptionError, match=r"given \(.*\) and \("):
        cosine_similarity(np.zeros(a, np.float32), np.zeros(b, np.float32))


def test_nan_is_not_taken_for_a_vector_of_zeros():
    assert np.isnan(l2_normalize(array([[np.nan, 1.0], [1.0, 0.0]]))[0]).all()
