"""How the candidates of `vlrt bench tune` are measured: alone, then the fastest in turns."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from vlrt.errors import BenchmarkError
from vlrt.hardware import available_cpus
from vlrt.tuned import Setup

from .journal import Journal
from .machine import pinned
from .peers import Entry
from .request import LABELS, QUESTION, method
from .stats import Estimate, Rounds, times_as_fast, verdict
from .subject import Subject
from .tune_candidate import MODULE, STAGE
from .tune_setups import name_of
from .turns import Process, all_waiting, one_round, waiting

FINALISTS = 3  # beside the default
TOO_NOISY = "too noisy"  # of `stats.verdict`
# How far scores, in 0..1, may be apart between two candidates of one precision.
_EXACT, _ROUNDED = 1e-3, 2e-2
WARM_UP_S = 5.0


@dataclass(frozen=True)
class Work:
    """What the candidates do.

    Attributes:
        subject: the bundle.
        setups: the candidates, the default first.
        batch: pictures of a request.
        callers: who make a request each, all at once, in a run.
        rounds: turns of each finalist.
        turn_s: seconds in a turn, about.
    """

    subject: Subject
    setups: tuple[Setup, ...]
    batch: int
    callers: int
    rounds: int
    turn_s: float

    def facts(self) -> dict[str, Any]:
        """For a result, and for telling one run's plan from another's."""
        return {
            "setups": [name_of(setup) for setup in self.setups],
            "batch": self.batch,
            "callers": self.callers,
            "rounds": self.rounds,
            "turn_s": self.turn_s,
            "labels": list(LABELS),
            "question": QUESTION,
        }


@dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        samples: seconds of each run, by round, of each of the setups: of the finals, or of its one
            turn alone.
        finalists: the setups that met in the finals, by number; the default's is 0.
        challenger: the fastest of them but the default; 0 if there was no other.
        gain: how many times as fast as the default the challenger is.
        noise: the same of the default and itself.
        verdict: as `stats.verdict` gives it; or, where it is too noisy to say more, "no faster".
        again: the default's second turns, by round.
        unsteady: the names of those whose times were not steady when they had warmed up, be it for
            their turn alone or for the finals.
    """

    samples: Sequence[Rounds]
    finalists: Sequence[int]
    challenger: int
    gain: Estimate
    noise: Estimate
    verdict: str
    again: Rounds
    unsteady: Sequence[str] = ()

    @property
    def chosen(self) -> int:
        """The number of the setup to take."""
        return self.challenger if self.verdict == "faster" else 0


def measure(work: Work, journal: Journal) -> Found:
    """Let every candidate run alone, then the fastest and the default in turns.

    Raises:
        BenchmarkError: candidates of one precision disagree, or one failed.
    """
    alone: list[dict[str, Any]] = []
    for number, setup in enumerate(work.setups):
        like = [heat for heat, other in zip(alone, work.setups, strict=False)
                if other.precision == setup.precision]  # fmt: skip
        heat = partial(_alone, work, number, like[0] if like else None)
        alone.append(journal.keep(f"alone: {name_of(setup)}", heat))
    by_speed = sorted(range(1, len(alone)), key=lambda i: median(alone[i]["seconds"]))
    finalists = [0, *by_speed[:FINALISTS]]
    rounds = _finals(work, finalists, journal) if len(finalists) > 1 else []
    found = judge([one["seconds"] for one in alone], finalists, rounds)
    unsteady = {one["name"] for one in alone if not one["stable"]}
    unsteady.update(*(one["unsteady"] for one in rounds))
    names = [name_of(setup) for setup in work.setups]
    return replace(found, unsteady=[name for name in names if name in unsteady])


def _alone(work: Work, number: int, like: Mapping[str, Any] | None) -> dict[str, Any]:
    """One candidate's turn, once its scores are those of another in the same precision."""
    setup = work.setups[number]
    with tempfile.TemporaryDirectory(prefix="vlrt-bench-") as scratch:
        print(f"{number + 1} of {len(work.setups)}: {name_of(setup)}", file=sys.stderr)
        with waiting(_entry(setup), [STAGE], _job(work, setup), Path(scratch)) as process:
            scores = process.result(STAGE)["scores"].tolist()
            if like is not None:
                check_same(setup, scores, like)
            seconds, stable = process.turn(STAGE, work.turn_s), _stable(process)
    return {"name": name_of(setup), "scores": scores, "seconds": seconds, "stable": stable}


def _stable(process: Process) -> bool:
    """Whether its times were steady when it had warmed up."""
    return bool(process.told["stages"][STAGE]["stable"])


def check_same(setup: Setup, scores: Sequence[Any], like: Mapping[str, Any]) -> None:
    """Refuse a candidate that gives other scores than another one in the same precision.

    Args:
        setup: the candidate.
        scores: its own [pictures, labels or answers or detections], in 0..1.
        like: the other's `scores`, and its `name`.

    Raises:
        BenchmarkError: they are further apart than rounding explains.
    """
    ours, theirs = np.array(scores), np.array(like["scores"])
    allowed = _EXACT if setup.precision == "fp32" else _ROUNDED
    apart = np.abs(ours - theirs).max() if ours.shape == theirs.shape else np.inf
    if not apart <= allowed:
        raise BenchmarkError(
            f"{name_of(setup)} gives other scores than {like['name']}: they are up to {apart:.2g} "
            f"apart, and {allowed:g} is allowed. Leave one out with --provider or --precision"
        )


def _finals(work: Work, finalists: Sequence[int], journal: Journal) -> list[dict[str, Any]]:
    """What `turns.one_round` gives, for each round, and who was `unsteady`."""
    setups = [work.setups[number] for number in finalists]
    names = [name_of(setup) for setup in setups]
    keys = [f"round {number}" for number in range(work.rounds)]
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        if not all(journal.held(key) for key in keys):
            jobs = {name: _job(work, one) for name, one in zip(names, setups, strict=True)}
            entries = [_entry(setup) for setup in setups]
            stages = {name: [STAGE] for name in names}
            started = all_waiting(entries, stages, jobs, "finals")
            processes = stack.enter_context(started)
        unsteady = [name for name, process in processes.items() if not _stable(process)]

        def taken(number: int) -> dict[str, Any]:
            told = one_round(processes, STAGE, work.turn_s, number, names[0])
            return {**told, "unsteady": unsteady}

        return [journal.keep(key, partial(taken, number)) for number, key in enumerate(keys)]


def judge(
    alone: Sequence[Sequence[float]],
    finalists: Sequence[int],
    rounds: Sequence[Mapping[str, Any]],
) -> Found:
    """Say who wins, if anybody does.

    Args:
        alone: seconds of each candidate's runs in its turn alone.
        finalists: the numbers of those in the finals, the default's 0 first.
        rounds: as `turns.one_round` gives them, the contenders in the finalists' order; none if the
            default was the only candidate.
    """
    samples: list[Rounds] = [[taken] for taken in alone]
    if not rounds:
        one = Estimate(1.0, 1.0, 1.0)
        return Found(samples, finalists, 0, one, one, "level", [])
    for at, number in enumerate(finalists):
        samples[number] = [list(one["samples"].values())[at] for one in rounds]
    again = [one["sentinel"] for one in rounds]
    challenger = min(finalists[1:], key=lambda number: median(chain(*samples[number])))
    gain = times_as_fast(samples[challenger], samples[0])
    noise = times_as_fast(samples[0], again)
    says = verdict(gain, noise)
    if says == TOO_NOISY and gain.high <= 1:  # which is all that must be known to leave it
        says = "no faster"
    if says == "level" and gain.low > 1:  # it may well be faster, if by less than the noise
        says = TOO_NOISY
    return Found(samples, finalists, challenger, gain, noise, says, again)


def _entry(setup: Setup) -> Entry:
    return Entry(name_of(setup), "vlrt", setup.precision, (STAGE,), module=MODULE)


def _job(work: Work, setup: Setup) -> dict[str, Any]:
    return {
        "threads": available_cpus(),  # of NumPy's and others', alike for all
        "cpus": pinned(available_cpus()),
        "warm_up_s": WARM_UP_S,
        "bundle": str(work.subject.bundle.resolve()),
        "precision": setup.precision,
        "threads_inside": setup.threads,
        "provider": setup.provider,
        "method": method(work.subject),
        "labels": list(LABELS),
        "question": QUESTION,
        "batch": work.batch,
        "callers": work.callers,
    }
