"""The steps of `vlrt bench load`, and what they say: capacity, what was kept up with, the knee."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from vlrt.errors import BenchmarkError

from . import stats
from .contender import Contender, differences
from .journal import Journal
from .load_loops import Step
from .load_process import Process, working

# Latency that is still service, in medians of a lone client's.
LIMIT = 5
# Share of what arrived that must be answered in time.
KEPT_UP = 0.95
# Times as much as in its repetition the capacity may be, or as little.
_STEADY = 1.25
_AGAIN = "the busiest clients again"


def measure(
    contenders: Sequence[Contender],
    job: Mapping[str, Any],
    settings: Mapping[str, Any],
    journal: Journal,
) -> dict[str, Any]:
    """All steps of all contenders, which take turns.

    Args:
        contenders: the base first.
        job: as `load_worker.py` takes it, but for what is a contender's own.
        settings: `clients` of the closed loops, 1 among them; `offered`, shares of the capacity;
            `seconds` of a step.
        journal: keeps every step.

    Returns:
        What `evaluated` gives, by contender.

    Raises:
        BenchmarkError: a contender failed, gives other results than the base, or is too slow for
            the length of a step.
    """
    clients = {number: f"clients: {number}" for number in settings["clients"]}
    shares = {share: f"share of the capacity: {share:g}" for share in settings["offered"]}
    titles = (*clients.values(), *shares.values(), _AGAIN)
    missing = not all(journal.held(f"{one.name}, {t}") for t in titles for one in contenders)
    closed: dict[str, list[Step]] = {one.name: [] for one in contenders}
    opened: dict[str, list[Step]] = {one.name: [] for one in contenders}
    with ExitStack() as stack:
        running = start(contenders, job, stack) if missing else {}

        def step(name: str, title: str, told: Mapping[str, Any]) -> Step:
            key = f"{name}, {title}"
            if not journal.held(key):
                print(key, file=sys.stderr)
            return journal.keep(key, lambda: answered(running[name].step(told), key))

        for number, title in clients.items():
            for name, own in closed.items():
                told = {"clients": number, "seconds": settings["seconds"]}
                own.append(step(name, title, told))
        for seed, (share, title) in enumerate(shares.items()):
            for name, own in opened.items():
                told = open_step(closed[name], share, settings["seconds"], seed)
                own.append(step(name, title, told) | {"share": share})
        again = {
            name: step(
                name,
                _AGAIN,
                {"clients": busiest(own)["clients"], "seconds": settings["seconds"]},
            )
            for name, own in closed.items()
        }
    return {name: evaluated(closed[name], opened[name], again[name]) for name in closed}


def start(
    contenders: Sequence[Contender], job: Mapping[str, Any], stack: ExitStack
) -> dict[str, Process]:
    """Start all contenders, one after the other, and compare their results.

    Raises:
        BenchmarkError: one failed, or gives another result than the first.
    """
    running, found = {}, {}
    for one in contenders:
        print(f"{one.name} loads and warms up", file=sys.stderr)
        own = {**job, "kind": one.kind, "model": str(one.model), "precision": one.precision}
        running[one.name] = stack.enter_context(working(one.name, own))
        found[one.name] = running[one.name].answer()["result"]
    differences(contenders, found)
    return running


def open_step(closed: Sequence[Step], share: float, seconds: float, seed: int) -> dict[str, Any]:
    """An open loop at a share of the capacity that closed loops showed, as a worker takes it."""
    best = busiest(closed)
    return {
        "per_second": best["per_second"] * share,
        "seconds": seconds,
        "drain": seconds,
        "workers": best["clients"],
        "seed": seed,
    }


def answered(step: Step, title: str) -> Step:
    """The step, if there is something to sum up in it.

    Raises:
        BenchmarkError: nothing arrived, or nothing was answered.
    """
    if step.get("arrived") == 0:
        raise BenchmarkError(
            f"{title}: nothing arrived in {step['seconds']:g} s; take a longer --seconds"
        )
    if not step["completed"]:
        raise BenchmarkError(
            f"{title}: nothing was answered in {step['seconds']:g} s; take a longer --seconds"
        )
    return step


def evaluated(closed: Sequence[Step], opened: Sequence[Step], again: Step) -> dict[str, Any]:
    """What the steps of one contender say.

    Args:
        closed: as `load_loops.closed` gives them, of a lone client first.
        opened: as `load_loops.open_loop` gives them, each with its `share` of the capacity.
        again: the busiest of `closed`, after the open loops.

    Returns:
        `capacity_per_s`, and `again_per_s` of its repetition; `too_noisy`, whether these are so far
        apart that there is no knee; `alone_p50_ms`, `workers`, `knee_per_s`; and the steps, with
        their `summary`, `closed` and `open`.
    """
    best = busiest(closed)
    alone_s = stats.summary([closed[0]["latencies_s"]])["p50_ms"] / 1e3
    rows = [
        {
            "offered_per_s": best["per_second"] * step["share"],
            **{key: value for key, value in step.items() if key != "answered_s"},
            "summary": summary(step),
            "kept_up": kept_up(step, LIMIT * alone_s),
        }
        for step in opened
    ]
    change = again["per_second"] / best["per_second"]
    too_noisy = not 1 / _STEADY <= change <= _STEADY
    return {
        "capacity_per_s": best["per_second"],
        "again_per_s": again["per_second"],
        "too_noisy": too_noisy,
        "alone_p50_ms": alone_s * 1e3,
        "workers": best["clients"],
        "closed": [{**step, "summary": summary(step)} for step in closed],
        "open": rows,
        "knee_per_s": None if too_noisy else knee(rows, alone_s * 1e3),
    }


def summary(step: Step) -> dict[str, float]:
    """Of a step's latencies; throughput is the step's own, for its clients do not take turns."""
    found = stats.summary([step["latencies_s"]])
    return {key: value for key, value in found.items() if key != "per_second"}


def busiest(closed: Sequence[Step]) -> Step:
    """The closed loop with the best throughput; of those that are level the fewest clients."""
    return max(closed, key=lambda step: (step["per_second"], -step["clients"]))


def kept_up(step: Step, grace_s: float) -> bool:
    """Whether what arrived was answered in time, but for a small rest.

    Args:
        step: an open loop.
        grace_s: so long after the window an answer is still in time, but no longer than another
            window: what came last must have its time, and a queue that has grown must not.
    """
    latest = step["seconds"] + min(grace_s, step["seconds"])
    in_time = sum(answered <= latest for answered in step["answered_s"])
    return bool(in_time >= KEPT_UP * step["arrived"])


def knee(opened: Sequence[Mapping[str, Any]], alone_p50_ms: float) -> float | None:
    """The highest load that was kept up with, at latencies that are still service.

    Args:
        opened: open loops, each with `offered_per_s`, `kept_up` and its `summary`.
        alone_p50_ms: the median latency of a lone client.

    Returns:
        Requests a second, or None if there is no such load.
    """
    served = [
        float(step["offered_per_s"])
        for step in opened
        if step["kept_up"] and step["summary"]["p99_ms"] < LIMIT * alone_p50_ms
    ]
    return max(served, default=None)
