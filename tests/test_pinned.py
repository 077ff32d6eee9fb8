# ruff: noqa: N802  the names are CUDA's
"""Memory that CUDA gives, against a runtime that notes what it is asked for."""

import ctypes
import gc
import threading

import numpy as np
import pytest

from vlrt import pinned


class Runtime:
    """CUDA's runtime, on the device 5; what it has given and not got back is in `given`."""

    def __init__(self, limit=None):
        self.limit, self.given, self.asked, self.device, self.devices = limit, {}, [], 5, []

    def cudaGetDevice(self, out):
        out._obj.value = self.device

    def cudaSetDevice(self, device):
        self.device = getattr(device, "value", device)
        self.devices.append(self.device)

    def cudaHostAlloc(self, out, size, flags):
        self.asked.append((size.value, flags.value))
        if self.limit is not None and size.value > self.limit:
            return 2
        memory = (ctypes.c_byte * size.value)()
        out._obj.value = ctypes.addressof(memory)
        self.given[out._obj.value] = memory
        return 0

    def cudaFreeHost(self, address):
        del self.given[address.value]

    def cudaGetLastError(self):
        self.asked.append("what was the error?")


@pytest.mark.parametrize("shape", [(), (0,), (0, 4, 4, 3), (1,), (2, 33, 65, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_arrays_are_like_any_other(shape, dtype):
    array = pinned.Pool(Runtime(), 0).empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, dtype)
    array[...] = 3
    assert (array == 3).all()
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_memory_is_used_again_when_no_view_of_it_is_left():
    runtime = Runtime()
    pool = pinned.Pool(runtime, 3)
    array = pool.empty((100_000,), np.uint8)
    view = array[10:20].reshape(2, 5)
    del array
    other = pool.empty((100_000,), np.uint8)
    assert len(runtime.given) == 2
    view[:], other[:] = 1, 2
    assert (view == 1).all()
    del view, other
    gc.collect()
    again = [pool.empty((n,), np.uint8) for n in (70_000, 131_072)]  # of the same step of size
    assert len(runtime.given) == 2
    assert runtime.asked == [(131_072, 1)] * 2
    del again


def test_the_callers_device_is_left_as_it_was():
    runtime = Runtime()
    pinned.Pool(runtime, 3).empty((1,), np.uint8)
    assert (runtime.devices[0], runtime.device) == (3, 5)


def test_where_cuda_gives_none_memory_is_ordinary_and_the_error_is_taken_back():
    runtime = Runtime(limit=1 << 16)
    array = pinned.Pool(runtime, 0).empty((1 << 17,), np.uint8)
    array[:] = 1
    assert not runtime.given
    assert runtime.asked[-1] == "what was the error?"


def test_what_lies_unused_is_bounded(monkeypatch):
    monkeypatch.setattr(pinned, "_MOST_UNUSED", 2 << 16)
    runtime = Runtime()
    pool = pinned.Pool(runtime, 0)
    arrays = [pool.empty((1,), np.uint8) for _ in range(5)]
    assert len(runtime.given) == 5
    del arrays
    gc.collect()
    assert len(runtime.given) == 2


def test_threads_never_share_an_array():
    pool, wrong = pinned.Pool(Runtime(), 0), []

    def work(number):
        for _ in range(200):
            array = pool.empty((1000,), np.uint8)
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_cuda_arrays_are_ordinary_ones():
    array = pinned.empty((2, 3), np.uint8)
    assert (array.shape, array.base) == ((2, 3), None)
    assert not pinned.use(1, 0)  # no such version of CUDA's runtime is there
    assert pinned.empty((2, 3), np.uint8).base is None


def test_the_pool_is_opened_once(monkeypatch):
    runtime = Runtime()
    monkeypatch.setattr(pinned, "_pools", [])
    monkeypatch.setattr(pinned, "_runtime", lambda major: runtime if major == 13 else None)
    assert not pinned.use(12, 0)
    assert pinned.use(13, 1)
    pool = pinned._pools[0]
    assert pinned.use(13, 0)
    assert pinned._pools == [pool]
    array = pinned.empty((2, 3), np.uint8)
    assert len(runtime.given) == 1
    del array
