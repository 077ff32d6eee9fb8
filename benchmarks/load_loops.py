"""Clients of a model in threads: closed loops, and open ones that wait for nobody.

A closed loop's client asks again as soon as it has its answer, so that a slow model is asked less
often. In an open loop requests come when they come: by a Poisson process, whose gaps are drawn
beforehand. There a request's latency counts from when it was due, and not from when a worker was
free to begin it: waiting in the queue is a part of it (no "coordinated omission").

A request is `ask(number)`, whose number is its own; what it raises ends the loop.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ask = Callable[[int], Any]
# What a loop found, ready for JSON.
Step = dict[str, Any]
# Digits of seconds that are kept: a clock's reading is worth no more.
_DIGITS = 6


def schedule(per_second: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """When the requests of a Poisson process are due.

    Args:
        per_second: how many come on average.
        seconds: the window's length.
        seed: the same gives the same gaps, in units of their mean, at every rate.

    Returns:
        float64 [N], seconds since the window opened, rising, all within it.
    """
    rng = np.random.default_rng(seed)
    expected = per_second * seconds
    gaps = np.zeros(0)
    while gaps.sum() < expected:
        gaps = np.concatenate([gaps, rng.exponential(size=int(expected / 8) + 16)])
    due = np.cumsum(gaps) / per_second
    return due[due < seconds]


def closed(ask: Ask, clients: int, seconds: float) -> Step:
    """Clients that each ask again as soon as they have their answer.

    The window opens when each of them has had one answer, so that all are at work, and what is
    answered in it counts. Requests that are under way when it closes are finished and not counted.

    Returns:
        `clients`, `seconds`, `completed`, `per_second` and `latencies_s` in the order in
        which answers came.
    """
    ready, over = threading.Semaphore(0), threading.Event()
    numbers = _Numbers()

    def client() -> list[tuple[float, float]]:
        spans: list[tuple[float, float]] = []
        try:
            while not over.is_set():
                started = time.perf_counter()
                ask(numbers.next())
                spans.append((started, time.perf_counter()))
                if len(spans) == 1:
                    ready.release()
        except BaseException:
            over.set()
            raise
        finally:
            ready.release()  # of one that failed the others do not wait
        return spans

    with ThreadPoolExecutor(clients, thread_name_prefix="client") as pool:
        running = [pool.submit(client) for _ in range(clients)]
        try:
            for _ in range(clients):
                ready.acquire()
            opened = time.perf_counter()
            over.wait(seconds)
        finally:
            over.set()
    spans = sorted((span for one in running for span in one.result()), key=lambda span: span[1])
    counted = [end - start for start, end in spans if opened <= end <= opened + seconds]
    return {
        "clients": clients,
        "seconds": seconds,
        "completed": len(counted),
        "per_second": len(counted) / seconds,
        "latencies_s": _rounded(counted),
    }


def open_loop(
    ask: Ask, due: NDArray[np.float64], seconds: float, drain: float, workers: int
) -> Step:
    """Requests that come when they are due, and wait in a queue for one of so many workers.

    The queue is first in, first out. A worker that is free takes the next request and, if that is
    not due yet, sleeps until it is; a clock that wakes it late counts as latency.

    Args:
        ask: see above.
        due: when each request is due, seconds since the window opens, rising.
        seconds: the window's length.
        drain: so many seconds after the window's end no request is begun any more, and no answer
            counts. Overload ends with it.
        workers: threads that answer.

    Returns:
        `seconds`, `arrived`, `completed` (answered before the drain's end), `per_second` (answers
        within the window, over its length), `latencies_s` of the completed requests in the order
        in which they were due, and `answered_s`, when the answers came.
    """
    numbers, failed = _Numbers(), threading.Event()
    latest = seconds + drain
    opened = time.perf_counter()

    def worker() -> list[tuple[int, float]]:
        done: list[tuple[int, float]] = []
        while (number := numbers.next()) < len(due) and not failed.is_set():
            now = time.perf_counter() - opened
            if now > latest:
                break
            if due[number] > now:
                failed.wait(due[number] - now)
            ask(number)
            done.append((number, time.perf_counter() - opened))
        return done

    def watched() -> list[tuple[int, float]]:
        try:
            return worker()
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
        running = [pool.submit(watched) for _ in range(workers)]
    answers = sorted(pair for one in running for pair in one.result() if pair[1] <= latest)
    within = sum(answered <= seconds for _, answered in answers)
    return {
        "seconds": seconds,
        "arrived": len(due),
        "completed": len(answers),
        "per_second": within / seconds,
        "latencies_s": _rounded([answered - due[number] for number, answered in answers]),
        "answered_s": _rounded([answered for _, answered in answers]),
    }


class _Numbers:
    """0, 1, 2 and so on, each for one thread alone."""

    def __init__(self) -> None:
        self._lock, self._next = threading.Lock(), 0

    def next(self) -> int:
        """The next of them."""
        with self._lock:
            self._next += 1
            return self._next - 1


def _rounded(seconds: list[float]) -> list[float]:
    return [round(float(value), _DIGITS) for value in seconds]
