"""A server's threads share a few heaps, where the C library has several."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip("fastapi", reason="needs the server extra")

# Each thread takes memory while all are alive, so that each would have a heap of its own. In the
# map of the process, a heap beside the first is a piece of 64 MiB, aligned to as much.
SCRIPT = """
import ctypes, re, sys, threading
from pathlib import Path
from vlrt.server.memory import share_arenas

print(share_arenas())
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
together = threading.Barrier(8)


def take():
    malloc(1000)
    together.wait()


threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
starts = re.findall(r"^([0-9a-f]+)-", Path("/proc/self/maps").read_text(), re.MULTILINE)
print(sum(int(start, 16) % 2**26 == 0 for start in starts))
"""


def heaps(**environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    shared, number = done.stdout.split()
    return shared == "True", int(number)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a heap a thread")
def test_threads_share_two_heaps():
    shared, number = heaps()
    assert shared
    assert number <= 2  # the first lies elsewhere; another mapping may be aligned by chance


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a heap a thread")
def test_who_says_how_many_there_are_is_obeyed():
    shared, number = heaps(MALLOC_ARENA_MAX="16")
    assert not shared
    assert number > 2
