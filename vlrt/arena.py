"""When ONNX Runtime gives back the memory that it keeps from run to run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# So many runs in a row have to be less than half as large as the largest before them. More than
# one, so that sizes in turn, such as full batches and a rest, take and give nothing all the time.
SMALL_RUNS = 3


class Arena:
    """Counts the runs of a graph and says which of them is to give back what larger ones took.

    It is the last of `SMALL_RUNS` small ones, if no other is in flight beside it. So a process
    whose last run was its largest keeps that memory until smaller ones follow, and one with several
    runs in flight all the time keeps it, too. Safe to use from several threads at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self._alone = False  # whether no run began while the first of those in flight went on
        self._largest = 0  # bytes of the largest inputs since memory was given back
        self._small = 0  # runs since then that were less than half as large, in a row

    @contextmanager
    def run(self, size: int) -> Iterator[bool]:
        """Count one run, from its beginning to its end.

        Args:
            size: of its inputs, in bytes.

        Yields:
            Whether it is to give memory back when it ends. A run that fails may not have done so:
            then it is the turn of the next small one.
        """
        with self._lock:
            self._alone = self._in_flight == 0
            self._in_flight += 1
            small = 2 * size < self._largest
            gives_back = small and self._alone and self._small + 1 >= SMALL_RUNS
        succeeded = False
        try:
            yield gives_back
            succeeded = True
        finally:
            with self._lock:
                self._in_flight -= 1
                if gives_back and succeeded and self._alone:
                    self._largest, self._small = size, 0
                elif 2 * size < self._largest:
                    self._small += 1
                else:
                    self._largest, self._small = max(self._largest, size), 0
