"""Memory that a GPU fetches from by itself: what is to be uploaded is written there at once.

Ordinary memory is copied by the driver first, into pieces of its own. CUDA's pinned memory costs
milliseconds to get and is taken from all other processes, so what was taken stays, and is used
again as soon as nobody holds the array that was there. There is one pool a process; `use` opens it
when a graph is loaded on CUDA. Without it, arrays are ordinary ones.
"""

import ctypes
import functools
import math
import sys
import threading
import weakref
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vlrt.recording_lock import NOTHING_IS_RECORDED

# Sizes in steps, so that batches of nearly one size share what was taken.
_STEP = 1 << 16
# Bytes that may lie unused; what comes back beyond that goes to the system.
_MOST_UNUSED = 1 << 30
_PORTABLE = 1  # cudaHostAllocPortable: for every device of the process


class Pool:
    """Pinned memory of one process.

    Args:
        runtime: CUDA's runtime library, as `ctypes` loads it.
        device: whose context takes the memory.
    """

    def __init__(self, runtime: Any, device: int) -> None:
        self._runtime, self._device = runtime, device
        self._lock = threading.RLock()  # collecting garbage under it may give something back
        self._unused: dict[int, list[int]] = defaultdict(list)  # size -> addresses
        self._size_unused = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Room for an array; it comes back when nobody holds the array or a view of it.

        Returns:
            The array; ordinary memory where CUDA gives none that is pinned.
        """
        kind = np.dtype(dtype)
        size = -(-max(1, math.prod(shape) * kind.itemsize) // _STEP) * _STEP
        address = self._take(size)
        if address is None:
            return np.empty(shape, kind)
        memory: Any = (ctypes.c_byte * size).from_address(address)
        weakref.finalize(memory, self._give_back, size, address).atexit = False
        return np.ndarray(shape, kind, buffer=memory)

    def _take(self, size: int) -> int | None:
        with self._lock:
            if self._unused[size]:
                self._size_unused -= size
                return self._unused[size].pop()
        with NOTHING_IS_RECORDED:
            return self._taken(size)

    def _taken(self, size: int) -> int | None:
        address, before = ctypes.c_void_p(), ctypes.c_int()
        # A thread has a device; others of the process may count on theirs.
        self._runtime.cudaGetDevice(ctypes.byref(before))
        self._runtime.cudaSetDevice(self._device)
        status = self._runtime.cudaHostAlloc(
            ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(_PORTABLE)
        )
        self._runtime.cudaSetDevice(before)
        if status:
            self._runtime.cudaGetLastError()  # or the next call of anyone would be told of it
            return None
        return address.value

    def _give_back(self, size: int, address: int) -> None:
        # It may be garbage that is collected anywhere, even by who waits for a recording.
        spare = self._size_unused + size > _MOST_UNUSED
        if spare and NOTHING_IS_RECORDED.acquire(blocking=False):
            try:
                self._runtime.cudaFreeHost(ctypes.c_void_p(address))
            finally:
                NOTHING_IS_RECORDED.release()
            return
        with self._lock:
            self._unused[size].append(address)
            self._size_unused += size


_pools: list[Pool] = []


def use(cuda_major: int, device: int) -> bool:
    """Take memory from CUDA from now on; what is loaded on a second device shares the first's.

    Args:
        cuda_major: of the runtime that ONNX Runtime is built for.
        device: by its number.

    Returns:
        Whether CUDA's runtime is there.
    """
    if not _pools:
        runtime = _runtime(cuda_major)
        if runtime is None:
            return False
        _pools.append(Pool(runtime, device))
    return True


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Room for an array, pinned where `use` has found CUDA's runtime."""
    return _pools[0].empty(shape, dtype) if _pools else np.empty(shape, dtype)


@functools.cache
def _runtime(cuda_major: int) -> Any:
    """CUDA's runtime library, which ONNX Runtime has loaded before; None if it is not there."""
    windows = sys.platform == "win32"
    name = f"cudart64_{cuda_major}.dll" if windows else f"libcudart.so.{cuda_major}"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
