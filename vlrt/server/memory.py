"""Keeping the memory of a process with many threads from growing without need."""

import ctypes
import os
import platform

_M_ARENA_MAX = -8  # of glibc's malloc.h
_ARENAS = 2


def share_arenas() -> bool:
    """Have all threads that are to come take their memory from a few heaps, in place of many.

    glibc gives threads heaps of their own, up to eight a CPU, and what one has freed no other can
    use. A server's threads each read pictures of many sizes for a moment, so that after a while
    each heap holds as much as the largest needed. Who sets `MALLOC_ARENA_MAX` is obeyed; other
    libraries than glibc have no such heaps.

    Returns:
        Whether it was done.
    """
    if "MALLOC_ARENA_MAX" in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS))
