"""How many threads may work at the same time."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from vlrt.checks import checked_count
from vlrt.server.bells import Bell


class _Waiter:
    """A thread that waits for a slot; `has_slot` is set before the bell rings."""

    def __init__(self) -> None:
        self.bell = Bell()
        self.has_slot = False


class Slots:
    """A number of slots, each of which lets one thread work. Safe to use from several threads.

    A slot that is given back goes straight to the next thread that waits, so that none overtakes:
    first to those that worked before, in order; then to the models in turn, to each one's threads
    in order.

    Args:
        number: of slots.

    Raises:
        OptionError: it is not a whole number of 1 or more.
    """

    def __init__(self, number: int) -> None:
        self._free = checked_count("slots", number)
        self._lock = threading.Lock()
        # A slot is free only while both are empty.
        self._resumed: deque[_Waiter] = deque()
        self._new: OrderedDict[str, deque[_Waiter]] = OrderedDict()  # by model, the next one first

    def acquire(
        self, model: str, *, resumed: bool = False, wait: Callable[[Bell], None] = Bell.wait
    ) -> None:
        """Take a slot, as soon as it is this thread's turn.

        Args:
            model: for which it works.
            resumed: whether it worked before, and has more to do.
            wait: waits for a bell, but may come back sooner. An exception out of it ends the wait
                for a slot too, and is passed on.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                return
            waiter = _Waiter()
            line = self._resumed if resumed else self._new.setdefault(model, deque())
            line.append(waiter)
        try:
            while not waiter.has_slot:
                wait(waiter.bell)
        except BaseException:
            self._leave(model, waiter, line)
            raise

    def release(self) -> None:
        """Give a slot back."""
        with self._lock:
            self._pass_on()

    def _leave(self, model: str, waiter: _Waiter, line: "deque[_Waiter]") -> None:
        """Wait no more; a slot that came at the last moment is the next one's."""
        with self._lock:
            if waiter.has_slot:
                self._pass_on()
                return
            line.remove(waiter)
            if line is self._new.get(model) and not line:
                del self._new[model]

    def _pass_on(self) -> None:
        """Give a slot to the next thread that waits; the caller has the lock."""
        if self._resumed:
            waiter = self._resumed.popleft()
        elif self._new:
            model, line = self._new.popitem(last=False)
            waiter = line.popleft()
            if line:
                self._new[model] = line  # as the last one
        else:
            self._free += 1
            return
        waiter.has_slot = True
        waiter.bell.ring()
