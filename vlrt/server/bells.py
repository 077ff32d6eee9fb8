"""What a thread waits on until another wakes it."""

import threading
from contextlib import suppress


class Bell:
    """Wakes one thread; rung before it waits, it is not missed.

    A lock that is released by who rings. Unlike a Condition or an Event it waits in one call of C:
    an exception that is put into the waiting thread from outside cannot leave anything locked.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the thread that waits, or the next one to wait. From any thread, at any time."""
        with suppress(RuntimeError):  # it has been rung already
            self._lock.release()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it rings, or for so many seconds."""
        if seconds is None or seconds > threading.TIMEOUT_MAX:
            self._lock.acquire()
        else:
            self._lock.acquire(timeout=max(0.0, seconds))
