"""How many threads may work at the same time."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from vlrt.checks import checked_count
from vlrt.server.bells import Bell


class _Waiter:
    """A thread that waits for a slot; `has_slot` is set before the bell rings."""

    def __init__(self) -> None:
        self.bell = Bell()
        self.has_slot = False


def _no_bound(_model: str) -> float:
    return float("inf")


class Slots:
    """A number of slots, each of which lets one thread work. Safe to use from several threads.

    A slot that is given back goes straight to the next thread that waits, so that none overtakes:
    first to those that worked before, in order; then to the models in turn, to each one's threads
    in order. A model of which enough have begun has no turn until one of them has ended: what they
    hold takes memory, and more of it would only wait.

    Args:
        number: of slots.
        most: threads of a model that may have begun and not ended, which is more than none. They
            must not wait for others of that model to begin.

    Raises:
        OptionError: `number` is not a whole number of 1 or more.
    """

    def __init__(self, number: int, most: Callable[[str], float] = _no_bound) -> None:
        self._free = checked_count("slots", number)
        self._most = most
        self._lock = threading.Lock()
        # A slot is free only while nobody who waits may have it.
        self._resumed: deque[_Waiter] = deque()
        self._new: OrderedDict[str, deque[_Waiter]] = OrderedDict()  # by model, the next one first
        self._begun: Counter[str] = Counter()  # by model, those that have not ended

    def acquire(
        self, model: str, *, resumed: bool = False, wait: Callable[[Bell], None] = Bell.wait
    ) -> None:
        """Take a slot, as soon as it is this thread's turn.

        Args:
            model: for which it works.
            resumed: whether it worked before, and has more to do. Otherwise it begins, and is to
                `end`.
            wait: waits for a bell, but may come back sooner. An exception out of it ends the wait
                for a slot too, and is passed on.
        """
        waiter = _Waiter()
        with self._lock:
            line = self._resumed if resumed else self._new.setdefault(model, deque())
            line.append(waiter)
            self._hand_out()
        try:
            while not waiter.has_slot:
                wait(waiter.bell)
        except BaseException:
            self._leave(model, waiter, line)
            raise

    def release(self) -> None:
        """Give a slot back."""
        with self._lock:
            self._free += 1
            self._hand_out()

    def end(self, model: str) -> None:
        """Count a thread that has begun, and has no slot any more, as ended."""
        with self._lock:
            self._begun[model] -= 1
            self._hand_out()

    def _leave(self, model: str, waiter: _Waiter, line: "deque[_Waiter]") -> None:
        """Wait no more; a slot that came at the last moment is the next one's."""
        with self._lock:
            if waiter.has_slot:
                self._free += 1
                if line is not self._resumed:
                    self._begun[model] -= 1
                self._hand_out()
                return
            line.remove(waiter)
            if line is self._new.get(model) and not line:
                del self._new[model]

    def _hand_out(self) -> None:
        """Give free slots to the next threads that may have them; the caller has the lock."""
        while self._free and (waiter := self._next()) is not None:
            self._free -= 1
            waiter.has_slot = True
            waiter.bell.ring()

    def _next(self) -> _Waiter | None:
        """Whose turn it is; it waits no more."""
        if self._resumed:
            return self._resumed.popleft()
        for model, line in self._new.items():
            if self._begun[model] < self._most(model):
                self._begun[model] += 1
                del self._new[model]
                waiter = line.popleft()
                if line:
                    self._new[model] = line  # as the last one
                return waiter
        return None
