"""Tensors of the Open Inference Protocol, as JSON and as binary data, to NumPy and back.

Nothing is cast, cut or filled up: a tensor is what it says that it is, or an error.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from reprlib import Repr
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import LimitError, RequestError
from vlrt.server.answering import rendered
from vlrt.session import Tensor

# The protocol's numbers. Its BYTES are texts, which no graph of vlrt takes, and its BF16 NumPy does
# not have.
DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{
        f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits}")
        for kind in ("INT", "UINT")
        for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
# Of an axis that a graph leaves open, other than its rows. Longer than any that the library makes
# (ViLT's pictures have sides of up to 640); before a graph refuses, it may take memory by the
# square of it.
LONGEST_AXIS = 1024
# What JSON has for a kind of type, and what to call it.
_KINDS: Mapping[str, tuple[set[type], str]] = {
    "b": ({bool}, "true, false"),
    "i": ({int}, "whole numbers"),
    "u": ({int}, "whole numbers"),
    "f": ({int, float}, "numbers"),
}
_PIECE = 2**13  # numbers
_SHORT = Repr()


def datatype(dtype: np.dtype[Any]) -> str:
    """What the protocol calls a type; what is no number is BYTES."""
    return _NAMES.get(dtype, "BYTES")


def split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """A request's JSON, and the binary data after it.

    Args:
        body: of the request.
        header_length: what `Inference-Header-Content-Length` says, None without it: all is JSON.

    Raises:
        RequestError: that is not the length of a part of the body.
    """
    size = len(body)
    if header_length is not None:
        size = int(header_length) if _is_length(header_length) else -1
        if not 0 <= size <= len(body):
            raise RequestError(
                f"Inference-Header-Content-Length is {header_length!r:.40}; valid: the length of "
                f"the JSON in bytes, at most that of the body, {len(body)}"
            )
    return body[:size], memoryview(body)[size:]


def cut(data: memoryview, sizes: Sequence[tuple[str, int]]) -> list[memoryview]:
    """Binary data in the parts that follow each other in it.

    Args:
        data: all of it.
        sizes: of each part what to call it, and its bytes.

    Raises:
        RequestError: the parts are not exactly the data.
    """
    for what, size in sizes:
        if size < 0:
            raise RequestError(f"{what}: binary_data_size is {size}; valid: 0 or more")
    ends = list(itertools.accumulate(size for _, size in sizes))
    total = ends[-1] if ends else 0
    if total != len(data):
        raise RequestError(
            f"{len(data)} bytes follow the JSON, but the inputs' binary_data_size says {total}; if "
            "some should follow, Inference-Header-Content-Length has to tell where"
        )
    return [data[end - size : end] for end, (_, size) in zip(ends, sizes, strict=True)]


def check_declared(what: str, named: str, shape: Sequence[int], declared: Tensor) -> None:
    """Refuse what a graph does not take; the number of rows is for others to judge.

    Args:
        what: to call the tensor in messages.
        named: its datatype.
        shape: of it.
        declared: what the graph says.

    Raises:
        RequestError: it is of another type, or another shape.
        LimitError: an axis that the graph leaves open is longer than `LONGEST_AXIS`.
    """
    if named != datatype(declared.dtype):
        raise RequestError(f"{what} is {named!r:.40}; valid: {datatype(declared.dtype)}")
    if named not in DATATYPES:
        raise RequestError(f"{what} is of texts; raw tensors are of: {', '.join(DATATYPES)}")
    sizes = declared.shape
    fits = len(shape) == len(sizes) and all(
        size is None or size == given for size, given in zip(sizes, shape, strict=True)
    )
    if not fits or any(given < 1 for given in shape):
        valid = [-1 if size is None else size for size in sizes]
        raise RequestError(
            f"{what} is of shape {list(shape)!s:.200}; valid: {valid}, where -1 is any number of 1 "
            "or more"
        )
    for axis, (size, given) in enumerate(zip(sizes, shape, strict=True)):
        if axis > 0 and size is None and given > LONGEST_AXIS:
            raise LimitError(f"{what}: axis {axis} is {given} long; valid: up to {LONGEST_AXIS}")


def from_json(what: str, data: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A tensor whose numbers stand in the JSON.

    Args:
        what: to call it in messages.
        data: its numbers, all in one list, last axis first; or lists in lists as its shape says.
        shape: 1 or more on each axis.
        dtype: one of `DATATYPES`. Of floats, decimals are rounded to it.

    Raises:
        RequestError: they are not as many as the shape says, or not of this type, or beyond it. Or
            it is FP16, which the protocol has only as binary data.
    """
    if dtype == np.float16:
        raise RequestError(f"{what}: FP16 is not for JSON; send it as binary data")
    values = _flat(what, data, shape)
    _check_kinds(what, values, dtype)
    if dtype.kind == "f":
        return _floats(what, values, dtype).reshape(shape)
    if dtype.kind != "b":
        bounds = np.iinfo(dtype)
        lowest, highest = int(bounds.min), int(bounds.max)
        if min(values) < lowest or max(values) > highest:
            at = next(at for at, value in enumerate(values) if not lowest <= value <= highest)
            _refuse(what, at, values[at], f"{lowest} to {highest}")
    return np.array(values, dtype).reshape(shape)


def from_binary(
    what: str, data: memoryview, shape: Sequence[int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """A tensor whose numbers are binary data: little-endian, last axis first, without gaps.

    Args:
        what: to call it in messages.
        data: its numbers.
        shape: 1 or more on each axis.
        dtype: one of `DATATYPES`.

    Returns:
        A copy, because data may lie at any address, where not every processor can read numbers.

    Raises:
        RequestError: these are not as many bytes as it takes; or one of a BOOL is not 0 or 1.
    """
    needed = math.prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise RequestError(
            f"{what} is {len(data)} bytes long; valid: {needed}, for {datatype(dtype)} of shape "
            f"{list(shape)}"
        )
    if dtype.kind == "b":
        numbers = np.frombuffer(data, np.uint8)
        if numbers.max() > 1:
            at = int((numbers > 1).argmax())
            _refuse(what, at, int(numbers[at]), "0, 1")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def to_json(what: str, array: NDArray[Any]) -> str:
    """A tensor's numbers in one list, last axis first; read again, they are the same numbers.

    It is written in pieces: in the middle of one, no other thread of the process goes on.

    Raises:
        RequestError: one is NaN or an infinity, which JSON does not have.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(
            f"{what} holds NaN or an infinity, which JSON does not have; ask for binary data to "
            "see it"
        )
    flat = array.ravel()
    pieces = (flat[at : at + _PIECE].tolist() for at in range(0, len(flat), _PIECE))
    return f"[{','.join(rendered(piece)[1:-1] for piece in pieces)}]"


def to_binary(array: NDArray[Any]) -> bytes:
    """A tensor's numbers as binary data, as `from_binary` takes them."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _is_length(text: str) -> bool:
    # No body is 10**18 bytes long, and of longer numbers `int` may refuse to read the digits.
    return text.isascii() and text.isdecimal() and len(text) <= 18


def _refuse(what: str, position: int, value: Any, valid: str) -> NoReturn:
    shown = _SHORT.repr(value)
    raise RequestError(f"{what}: its data at position {position} is {shown}; valid: {valid}")


def _flat(what: str, data: Any, shape: Sequence[int]) -> list[Any]:
    """The numbers as one list.

    Raises:
        RequestError: `data` is neither one list of the right length, nor lists as the shape says.
    """
    count = math.prod(shape)
    if isinstance(data, list):
        if len(data) == count and not isinstance(data[0], list):
            return data
        level = [data]
        for size in shape:
            if not all(isinstance(part, list) and len(part) == size for part in level):
                break
            level = list(itertools.chain.from_iterable(level))
        else:
            return level
    raise RequestError(
        f"{what}: its data is not of shape {list(shape)}; valid: one list of {count} numbers, or "
        "lists in lists as the shape says"
    )


def _check_kinds(what: str, values: list[Any], dtype: np.dtype[Any]) -> None:
    allowed, valid = _KINDS[dtype.kind]
    # By the types, and not by isinstance: a bool is an int, which is not meant. In C, for there may
    # be a million of them.
    others = set(map(type, values)) - allowed
    if others:
        at = next(at for at, value in enumerate(values) if type(value) in others)
        _refuse(what, at, values[at], valid)


def _floats(what: str, values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    largest = float(np.finfo(dtype).max)
    valid = f"-{largest} to {largest}"
    try:
        wide = np.array(values, np.float64)
    except OverflowError:  # of a whole number; one of decimals is an infinity by now
        at = next(at for at, value in enumerate(values) if not -largest <= value <= largest)
        _refuse(what, at, values[at], valid)
    with np.errstate(over="ignore"):
        array: NDArray[Any] = wide.astype(dtype)
    finite = np.isfinite(array)
    if not finite.all():
        at = int(finite.argmin())
        _refuse(what, at, values[at], valid)
    return array
