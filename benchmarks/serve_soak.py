"""The long section of `vlrt bench serve`: mixed requests, good and bad, and memory meanwhile."""

import random
from collections.abc import Sequence
from typing import Any

from . import serve_sums as sums
from .serve_process import Watch
from .serve_requests import Request
from .serve_steps import Bench, Step, capacity

SHARE = 0.8
_EVERY_S = 1.0
_ORDER = 2000


def soak(bench: Bench, seconds: float, seed: int = 0) -> Step:
    """A long time of mixed requests, good and bad, and whether memory grows in it.

    Args:
        bench: see above.
        seconds: how long.
        seed: of the order in which requests come.

    Raises:
        BenchmarkError: nothing was answered before, or the server ended.
    """
    first = len(bench.plain)  # what comes after those is for the soak
    order = [first + number for number in mixture(bench.requests[first:], seed)]

    def measured() -> Step:
        ends: dict[str, Any] = {}
        with bench.server("soak", ends) as server:
            took = max(bench.seconds, seconds / 20)
            bears = capacity(bench, server, order=order, seconds=took)
            with Watch(server, min(_EVERY_S, seconds / 100)) as watch:
                found = bench.opened(server, SHARE * bears, seed, order=order, seconds=seconds)
            ready, _ = server.get("/health/ready")
        rows = found.pop("rows")
        by_kind: dict[str, list[list[Any]]] = {}
        for row in rows:
            by_kind.setdefault(bench.requests[row[0]].name, []).append(list(row))
        return {
            "capacity_per_s": bears,
            **found,
            "summary": sums.percentiles(sums.latencies(rows)),
            "retry_after": sums.retry_after(rows),
            "kinds": {name: _kind(bench, by_kind[name]) for name in sorted(by_kind)},
            "memory": {**sums.growth(watch.samples), "samples": watch.samples,
                       "peak_mib": max(mib for _, mib in watch.samples)},
            "ready_after": ready,
            "exit_code": ends["soak"],
        }  # fmt: skip

    return bench.kept("soak", measured)


def mixture(requests: Sequence[Request], seed: int) -> list[int]:
    """An order in which requests are asked, each as often as it weighs, chosen at random.

    Each is in it once at least.
    """
    chosen = random.Random(seed)  # noqa: S311 - nothing is kept secret by it
    numbers = range(len(requests))
    more = chosen.choices(numbers, [one.weight for one in requests], k=_ORDER)
    order = [*numbers, *more]
    chosen.shuffle(order)
    return order


def _kind(bench: Bench, rows: list[list[Any]]) -> Step:
    expected = bench.requests[rows[0][0]].expected
    return {
        **sums.counted(rows, bench.requests),
        "expected": expected,
        "summary": sums.percentiles(sums.latencies(rows, expected)),
    }
