"""Tensors of the Open Inference Protocol: what is sent is what comes, or an error."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vlrt.errors import LimitError, RequestError
from vlrt.server import tensors as tensors_module
from vlrt.server.tensors import (
    DATATYPES,
    LONGEST_AXIS,
    check_declared,
    cut,
    datatype,
    from_binary,
    from_json,
    split,
    to_binary,
    to_json,
)
from vlrt.session import Tensor

SHAPES = arrays.array_shapes(max_dims=4, max_side=5)
BYTE_ORDERS = ["<", ">"]


def same(one, other):
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@st.composite
def tensors(draw, names=tuple(DATATYPES), *, finite=True):
    dtype = DATATYPES[draw(st.sampled_from(names))]
    elements = {"allow_nan": not finite, "allow_infinity": not finite} if dtype.kind == "f" else {}
    return draw(arrays.arrays(dtype, SHAPES, elements=elements))


def of_json(array):
    """What a client reads of a tensor that was written as JSON."""
    return json.loads(to_json("it", array))


def test_the_datatypes_are_the_protocols():
    whole = {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
    assert set(DATATYPES) == {"BOOL", "FP16", "FP32", "FP64"} | whole
    assert [datatype(dtype) for dtype in DATATYPES.values()] == list(DATATYPES)
    assert datatype(np.dtype(np.object_)) == "BYTES"


@given(tensors(finite=False))
def test_binary_data_comes_back_bit_for_bit(array):
    data = to_binary(array)
    again = from_binary("it", memoryview(data), array.shape, array.dtype)
    assert same(again, array)
    assert again.flags.writeable
    assert again.flags.aligned


@given(tensors(), st.sampled_from(BYTE_ORDERS), st.booleans())
def test_binary_data_is_little_endian_in_row_order_whatever_the_memory(array, order, transposed):
    held = np.asfortranarray(array) if transposed else array
    held = held.astype(held.dtype.newbyteorder(order))
    assert to_binary(held) == array.astype(array.dtype.newbyteorder("<")).tobytes()


@given(tensors(), st.integers(0, 7))
def test_binary_data_at_any_address_becomes_an_aligned_tensor(array, before):
    data = memoryview(bytes(before) + to_binary(array))[before:]
    again = from_binary("it", data, array.shape, array.dtype)
    assert same(again, array)
    assert again.flags.aligned


@given(tensors(tuple(name for name in DATATYPES if name != "FP16")))
def test_json_comes_back_bit_for_bit_flat_and_nested(array):
    flat = of_json(array)
    assert same(from_json("it", flat, array.shape, array.dtype), array)
    assert same(from_json("it", array.tolist(), array.shape, array.dtype), array)


@given(tensors(finite=False), st.integers(-9, 9).filter(bool))
def test_other_lengths_of_binary_data_are_refused(array, more):
    data = to_binary(array)
    data = data + bytes(more) if more > 0 else data[:more]
    needed = f"valid: {array.nbytes}, for {datatype(array.dtype)}"
    with pytest.raises(RequestError, match=f"it is {len(data)} bytes long; {needed}"):
        from_binary("it", memoryview(data), array.shape, array.dtype)


@given(tensors(("INT8", "FP32", "BOOL")), st.data())
def test_other_numbers_of_elements_are_refused(array, data):
    flat = of_json(array)
    length = data.draw(st.integers(0, 2 * len(flat)).filter(lambda number: number != len(flat)))
    values = (flat * 2)[:length]
    with pytest.raises(RequestError, match=rf"valid: one list of {len(flat)} numbers"):
        from_json("it", values, array.shape, array.dtype)


@given(tensors(("INT32",)), st.data())
def test_lists_of_another_shape_are_refused(array, data):
    nested = array.tolist()
    part = nested
    for _ in range(data.draw(st.integers(0, array.ndim - 1))):
        part = data.draw(st.sampled_from(part))
    if data.draw(st.booleans()) or len(part) == 1:
        part.append(part[0])
    else:
        part.pop()
    with pytest.raises(RequestError, match="its data is not of shape"):
        from_json("it", nested, array.shape, array.dtype)


@pytest.mark.parametrize(
    "values",
    [None, {}, "1234", 1, True, [], [[]], [[1, 2], 3], [[1, 2], [3]], [[[1, 2], [3, 4]]], [1, 2]],
)
def test_what_is_no_list_of_the_shape_is_refused(values):
    with pytest.raises(RequestError, match=r"it: its data is not of shape \[2, 2\]; valid: one"):
        from_json("it", values, (2, 2), np.dtype(np.int64))


@pytest.mark.parametrize(
    ("named", "values", "words"),
    [
        ("INT8", [0, 128], "position 1 is 128; valid: -128 to 127"),
        ("INT8", [-129, 0], "position 0 is -129; valid: -128 to 127"),
        ("UINT8", [0, -1], "position 1 is -1; valid: 0 to 255"),
        ("UINT16", [65536, 0], "position 0 is 65536; valid: 0 to 65535"),
        ("INT32", [0, 2**31], "position 1 is 2147483648"),
        ("INT64", [0, 2**63], "position 1 is 9223372036854775808"),
        ("INT64", [0, -(2**63) - 1], "position 1 is -9223372036854775809"),
        ("UINT64", [0, 2**64], "position 1 is 18446744073709551616"),
        ("INT64", [0, 10**4000], r"position 1 is 10+\.\.\.0+; valid"),
        ("FP32", [0, 1e39], r"position 1 is 1e\+39; valid: -3.4028"),
        ("FP32", [-1e39, 0], r"position 0 is -1e\+39"),
        ("FP32", [0, 10**39], "position 1 is 1000000000000000000000"),
        ("FP32", [0, 10**400], r"position 1 is 10+\.\.\.0+; valid"),
        ("FP64", [0, -(10**400)], r"position 1 is -10+\.\.\.0+; valid: -1.797"),
        ("FP64", [0, math.inf], "position 1 is inf"),  # what json makes of 1e400
        ("FP64", [math.nan, 0], "position 0 is nan"),
        ("INT64", [0, 1.0], "position 1 is 1.0; valid: whole numbers"),
        ("INT64", [0, True], "position 1 is True; valid: whole numbers"),
        ("UINT8", ["1", 0], "position 0 is '1'; valid: whole numbers"),
        ("FP32", [0, False], "position 1 is False; valid: numbers"),
        ("FP32", [None, 0], "position 0 is None; valid: numbers"),
        ("FP64", [0, [1]], r"position 1 is \[1\]; valid: numbers"),
        ("FP64", [0, [1] * 99], r"position 1 is \[1, 1, 1, 1, 1, 1, \.\.\.\]; valid: numbers"),
        ("FP64", [0, "1" * 99], r"position 1 is '1+\.\.\.1+'; valid: numbers"),
        ("BOOL", [True, 1], "position 1 is 1; valid: true, false"),
        ("BOOL", [0.0, True], "position 0 is 0.0; valid: true, false"),
        ("FP16", [0, 1], "FP16 is not for JSON; send it as binary data"),
    ],
)
def test_json_that_a_type_does_not_hold_is_refused(named, values, words):
    with pytest.raises(RequestError, match=f"^it: .*{words}"):
        from_json("it", values, (2,), DATATYPES[named])


@given(st.sampled_from([name for name in DATATYPES if "INT" in name]), st.integers())
def test_a_whole_number_is_kept_or_refused(named, value):
    dtype = DATATYPES[named]
    bounds = np.iinfo(dtype)
    if bounds.min <= value <= bounds.max:
        assert from_json("it", [value], (1,), dtype).tolist() == [value]
    else:
        with pytest.raises(RequestError, match="position 0"):
            from_json("it", [value], (1,), dtype)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30))
def test_a_decimal_becomes_the_nearest_float(value):
    with np.errstate(over="ignore"):
        nearest = np.float32(np.float64(value))
    if np.isfinite(nearest):
        assert same(from_json("it", [value], (1,), np.dtype(np.float32)), nearest.reshape(1))
    else:
        with pytest.raises(RequestError, match="position 0"):
            from_json("it", [value], (1,), np.dtype(np.float32))


def test_a_bool_of_binary_data_is_zero_or_one():
    with pytest.raises(RequestError, match="it: its data at position 2 is 255; valid: 0, 1"):
        from_binary("it", memoryview(b"\0\1\xff\2"), (2, 2), np.dtype(np.bool_))


@pytest.mark.parametrize("number", [1, tensors_module._PIECE, 3 * tensors_module._PIECE + 1])
def test_json_is_written_in_pieces(number, monkeypatch):
    """While one is written nothing else of the process goes on, health checks not either."""
    sizes, rendered = [], tensors_module.rendered

    def noted(values):
        sizes.append(len(values))
        return rendered(values)

    monkeypatch.setattr(tensors_module, "rendered", noted)
    array = np.random.default_rng(0).standard_normal(number, np.float32)
    assert same(np.array(of_json(array), np.float32), array)
    assert sum(sizes) == number
    assert max(sizes) <= tensors_module._PIECE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_result_that_json_has_not_is_an_error(value, dtype):
    with pytest.raises(RequestError, match=r"^it holds NaN or an infinity.*binary data"):
        to_json("it", np.array([0, value], dtype))


DECLARED = Tensor(np.dtype(np.float32), (None, 3, None))


@pytest.mark.parametrize("shape", [(1, 3, 1), (7, 3, LONGEST_AXIS), (2 * LONGEST_AXIS, 3, 5)])
def test_what_a_graph_declares_is_taken(shape):
    check_declared("it", "FP32", shape, DECLARED)


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (1,),
        (1, 3),
        (1, 3, 1, 1),
        (1, 4, 1),
        (0, 3, 1),
        (1, 3, 0),
        (-1, 3, -1),
        (1, -3, 1),
        (2**64, 2**64, 2**64),
        (1,) * 1000,
    ],
)
def test_another_shape_than_declared_is_refused(shape):
    with pytest.raises(RequestError, match=r"it is of shape .*; valid: \[-1, 3, -1\], where -1"):
        check_declared("it", "FP32", shape, DECLARED)


@pytest.mark.parametrize("named", ["FP16", "FP64", "INT64", "BF16", "BYTES", "fp32", "", "x" * 99])
def test_another_type_than_declared_is_refused(named):
    with pytest.raises(RequestError, match=r"^it is '\w{0,39}'?; valid: FP32$"):
        check_declared("it", named, (1, 3, 1), DECLARED)


def test_texts_are_refused():
    with pytest.raises(RequestError, match="it is of texts; raw tensors are of: BOOL, INT8"):
        check_declared("it", "BYTES", (1,), Tensor(np.dtype(np.object_), (None,)))


@pytest.mark.parametrize("length", [LONGEST_AXIS + 1, 2**70])
def test_an_open_axis_has_a_limit(length):
    with pytest.raises(LimitError, match=f"it: axis 2 is {length} long; valid: up to 1024"):
        check_declared("it", "FP32", (1, 3, length), DECLARED)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_a_body_is_split_where_its_header_says(head, data):
    found, rest = split(head + data, str(len(head)))
    assert (found, bytes(rest)) == (head, data)


def test_a_body_without_the_header_is_json():
    found, rest = split(b"{}", None)
    assert (found, bytes(rest)) == (b"{}", b"")


@pytest.mark.parametrize(
    "length", ["", "3", "-1", "+1", "1.0", "0x1", " 1", "1_0", "\u0661", "1" * 9999]
)
def test_a_length_that_is_none_of_the_body_is_refused(length):
    with pytest.raises(RequestError, match=r"Content-Length is .*; valid: .*of the body, 2$"):
        split(b"{}", length)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_binary_data_is_cut_into_what_follows_each_other(parts):
    sizes = [(str(at), len(part)) for at, part in enumerate(parts)]
    assert [bytes(part) for part in cut(memoryview(b"".join(parts)), sizes)] == parts


@pytest.mark.parametrize("sizes", [[], [5], [3, 3], [1, 1, 1], [2**70], [0]])
def test_binary_data_that_is_not_all_named_is_refused(sizes):
    with pytest.raises(RequestError, match=rf"^4 bytes follow the JSON, .* says {sum(sizes)};"):
        cut(memoryview(b"1234"), [("it", size) for size in sizes])


def test_a_negative_size_is_refused():
    with pytest.raises(RequestError, match="that: binary_data_size is -1; valid: 0 or more"):
        cut(memoryview(b"1234"), [("it", 5), ("that", -1)])
