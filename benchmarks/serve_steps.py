"""What `vlrt bench serve` measures in seconds: batching, half of the capacity, and overload."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from . import serve_sums as sums
from . import stats
from .journal import Journal
from .load_process import Process
from .serve_process import Server, Watch, serving
from .serve_requests import Request

BATCHING, ALONE = "batching", "no batching"
HALF, OVERLOAD = 0.5, 4.0
# A capacity that is further from its repetition is not worth a share of it.
_STEADY = 1.25
_CAPACITY_S = 10.0
# A request that the server has not answered so long after its own deadline is lost.
_PATIENCE_S = 60.0
_EVERY_S = 0.1
Step = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all sections share.

    Attributes:
        bundles: directories by the names to serve them under.
        flags: of `vlrt serve`, for every server.
        generator: the clients.
        requests: that the generator holds.
        plain: numbers of those that are asked but in the soak, the first of all; as many of every
            model.
        journal: keeps every step.
        seconds: of a step.
        rounds: how often a step is repeated.
        clients: of the closed loops of the comparison.
        busy: clients of the closed loop that measures a capacity.
        warm_up_s: of every server.
    """

    bundles: Mapping[str, Path]
    flags: Sequence[str]
    generator: Process
    requests: Sequence[Request]
    plain: Sequence[int]
    journal: Journal
    seconds: float
    rounds: int
    clients: Sequence[int]
    busy: int
    warm_up_s: float

    def step(self, server: Server, **told: Any) -> Step:
        """Have the generator do a step, as `serve_clients.py` takes it."""
        told = {"port": server.port, "timeout_s": _PATIENCE_S, "order": list(self.plain), **told}
        return self.generator.step(told)

    def closed(self, server: Server, clients: int, title: str, **told: Any) -> Step:
        """A closed loop, summed up.

        Raises:
            BenchmarkError: no answer was good.
        """
        seconds = told.setdefault("seconds", self.seconds)
        found = self.step(server, clients=clients, **told)
        rows = found["rows"]
        return {
            "clients": clients,
            "per_second": sums.throughput(rows, self.requests, seconds, title),
            **sums.counted(rows, self.requests),
            "latencies_s": sums.latencies(rows),
            "cpu_share": found["cpu_share"],
        }

    def opened(self, server: Server, rate: float, seed: int, **told: Any) -> Step:
        """An open loop, with its rows."""
        seconds = told.setdefault("seconds", self.seconds)
        found = self.step(server, per_second=rate, seed=seed, **told)
        rows = found["rows"]
        return {
            "offered_per_s": rate,
            "seconds": seconds,
            **sums.counted(rows, self.requests),
            "per_second": sums.per_second(rows, self.requests, seconds),
            "late_p99_ms": sums.lateness_ms(rows),
            "cpu_share": found["cpu_share"],
            "connections": found["connections"],
            "rows": rows,
        }

    @contextmanager
    def server(self, name: str, ends: dict[str, Any], *flags: str) -> Iterator[Server]:
        """A server that is warm; how it ended is put into `ends`."""
        print(f"{name}: loads and warms up", file=sys.stderr)
        with serving(name, self.bundles, [*self.flags, *flags]) as server:
            self.step(server, clients=self.busy, seconds=self.warm_up_s)
            yield server
        ends[name] = server.exit_code
        if server.exit_code:
            print(f"{name}: SIGTERM gave exit code {server.exit_code}", file=sys.stderr)

    def kept(self, key: str, make: Callable[[], Step]) -> Step:
        """A step under its key, measured unless the journal has it."""
        if not self.journal.held(key):
            print(key, file=sys.stderr)
        return self.journal.keep(key, make)


def comparison(bench: Bench) -> Step:
    """Throughput with batching and without, in turns.

    Both servers are there; the one whose turn it is not is idle. Their order changes every round.

    Raises:
        BenchmarkError: nothing was answered, or a server ended.
    """
    titles = {
        (number, name, clients): f"{name}, clients: {clients}, round {number + 1}"
        for number in range(bench.rounds)
        for clients in bench.clients
        for name in ((BATCHING, ALONE) if number % 2 == 0 else (ALONE, BATCHING))
    }
    # A queue that holds all clients: none is refused, and both do the same work.
    queue = ("--queue-length", str(max(64, 2 * max(bench.clients))))
    found: dict[tuple[int, str], list[Step]] = {}
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        if not all(map(bench.journal.held, titles.values())):
            for name, flags in ((BATCHING, ()), (ALONE, ("--no-batching",))):
                servers[name] = stack.enter_context(bench.server(name, {}, *queue, *flags))
        for (_, name, clients), title in titles.items():

            def make(name: str = name, clients: int = clients, title: str = title) -> Step:
                return bench.closed(servers[name], clients, title)

            found.setdefault((clients, name), []).append(bench.kept(title, make))
    return {"rows": [_compared(clients, found) for clients in bench.clients]}


def _compared(clients: int, found: Mapping[tuple[int, str], Sequence[Step]]) -> Step:
    own = {name: found[clients, name] for name in (BATCHING, ALONE)}
    ours, theirs = ([[1 / one["per_second"]] for one in own[name]] for name in (BATCHING, ALONE))
    return {
        "clients": clients,
        "per_second": {n: [one["per_second"] for one in steps] for n, steps in own.items()},
        "medians": {n: median(one["per_second"] for one in steps) for n, steps in own.items()},
        "summary": {n: sums.percentiles(_pooled(steps)) for n, steps in own.items()},
        "ratio": stats.times_as_fast(ours, theirs).as_dict(),
        "failures": {n: _failures(steps) for n, steps in own.items()},
        "refused": {n: sum(_refused(one) for one in steps) for n, steps in own.items()},
        "cpu_share": {n: max(one["cpu_share"] for one in steps) for n, steps in own.items()},
    }


def half_load(bench: Bench) -> Step:
    """Latency of requests that come at random, at half of the capacity.

    Raises:
        BenchmarkError: nothing was answered, or the server ended.
    """

    def measured() -> Step:
        ends: dict[str, Any] = {}
        with bench.server("half load", ends) as server:
            before = capacity(bench, server)
            steps = []
            for seed in range(bench.rounds):
                one = bench.opened(server, HALF * before, seed)
                one["latencies_s"] = sums.latencies(one.pop("rows"))
                steps.append(one | {"summary": sums.percentiles(one["latencies_s"])})
            after = capacity(bench, server)
        return {**_steady(before, after), "rounds": steps, "exit_code": ends["half load"]}

    found = bench.kept("half load", measured)
    return {
        **found,
        "summary": sums.percentiles(_pooled(found["rounds"])),
        "failures": _failures(found["rounds"]),
        "refused": sum(map(_refused, found["rounds"])),
    }


def overload(bench: Bench) -> Step:
    """Four times as many requests as can be answered: what comes of each, and of memory.

    Raises:
        BenchmarkError: nothing was answered before, or the server ended.
    """

    def measured() -> Step:
        ends: dict[str, Any] = {}
        with bench.server("overload", ends) as server:
            before = capacity(bench, server)
            own_mib = server.rss_mib()
            with Watch(server, _EVERY_S) as watch:
                found = bench.opened(server, OVERLOAD * before, 0)
            ready, _ = server.get("/health/ready")
            after = capacity(bench, server)
            after_mib = server.rss_mib()
        rows = found.pop("rows")
        good, busy = (sums.latencies(rows, status) for status in (sums.OK, sums.BUSY))
        return {
            **_steady(before, after),
            **found,
            "latencies_s": good,
            "summary": sums.percentiles(good),
            "refused_summary": sums.percentiles(busy),
            "retry_after": sums.retry_after(rows),
            "memory": {"before_mib": own_mib, "after_mib": after_mib,
                       "peak_mib": max(mib for _, mib in watch.samples), "samples": watch.samples},
            "ready_after": ready,
            "exit_code": ends["overload"],
        }  # fmt: skip

    return bench.kept("overload", measured)


def capacity(bench: Bench, server: Server, **told: Any) -> float:
    """Right answers a second to many clients, in no more than a moment of the time there is."""
    told = {"seconds": min(bench.seconds, _CAPACITY_S), **told}
    found = bench.closed(server, bench.busy, f"{server.name}, capacity", **told)
    return float(found["per_second"])


def _steady(before: float, after: float) -> Step:
    return {
        "capacity_per_s": before,
        "again_per_s": after,
        "too_noisy": not 1 / _STEADY <= after / before <= _STEADY,
    }


def _pooled(steps: Sequence[Step]) -> list[float]:
    return [taken for one in steps for taken in one["latencies_s"]]


def _failures(steps: Sequence[Step]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in steps:
        for name, count in one["failures"].items():
            found[name] = found.get(name, 0) + count
    return found


def _refused(step: Step) -> int:
    return int(step["answers"].get(str(sums.BUSY), 0))
