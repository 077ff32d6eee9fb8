"""Contenders in processes of their own: warm, in turns, and their last words when they die."""

import os
import sys
from itertools import chain, repeat
from pathlib import Path

import fake_engine
import numpy as np
import pytest

pytest.importorskip("psutil", reason="the benchmarks need the extra bench")

from vlrt.errors import BenchmarkError
from vlrt_benchmarks import turns, worker
from vlrt_benchmarks.turns import all_waiting, one_round, waiting

STAGE, WHOLE = fake_engine.STAGES


class Clock:
    """Time that only runs make pass: so many seconds each, in turn."""

    def __init__(self, monkeypatch, *seconds):
        self.now, self.runs, self._seconds = 0.0, 0, iter(seconds)
        monkeypatch.setattr(worker.time, "perf_counter", lambda: self.now)

    def run(self):
        self.now += next(self._seconds)
        self.runs += 1


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(turns, "PAUSE_S", 0)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def job(**changes):
    return {"threads": 1, "cpus": [], "warm_up_s": 0.1, **changes}


# --- one contender's time -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("each", "counted"),
    [
        (2.0, 1),  # a whole turn is one run
        (0.4, 3),
        (0.3, 4),
        (0.1, 10),
        (1e-6, worker.MOST_RUNS),
    ],
)
def test_a_turn_lasts_about_as_long_as_it_is_told(monkeypatch, each, counted):
    clock = Clock(monkeypatch, *repeat(each, 1000))
    taken = worker.turn(clock.run, 0.95)
    assert len(taken) == counted
    assert taken == pytest.approx([each] * counted)


def test_the_first_run_of_a_turn_is_not_counted(monkeypatch):
    clock = Clock(monkeypatch, 60.0, *repeat(0.5, 3))
    assert worker.turn(clock.run, 1.2) == pytest.approx([0.5] * 3)
    assert clock.runs == 4


def test_times_that_settle_are_stable_and_compiling_is_told_apart(monkeypatch):
    seconds = chain([90.0], repeat(0.5, 3), repeat(0.2, 3), repeat(0.201, 3))
    told = worker.warm_up(Clock(monkeypatch, *seconds).run, limit_s=60)
    assert told["stable"] is True
    assert told["first_s"] == 90
    assert told["runs"] == 10


def test_times_that_never_settle_end_and_are_said_to_be_unstable(monkeypatch):
    seconds = (2.0**run for run in range(100))
    told = worker.warm_up(Clock(monkeypatch, *seconds).run, limit_s=200)
    assert told["stable"] is False
    assert told["warm_up_s"] >= 200


@pytest.mark.parametrize(
    ("seconds", "runs", "stable"),
    [((2.0, 2.0, 2.0), 3, True), ((9.0, 4.0, 2.0), 3, False), ((0.9,) * 7, 7, True)],
)
def test_slow_runs_are_compared_whatever_the_limit_and_no_more_than_needed(
    monkeypatch, seconds, runs, stable
):
    told = worker.warm_up(Clock(monkeypatch, *seconds).run, limit_s=1)
    assert (told["runs"], told["stable"]) == (runs, stable)


# --- processes ------------------------------------------------------------------------------------


def test_a_contender_loads_takes_turns_and_gives_its_results(tmp_path):
    own = fake_engine.entry(scores=[[0.5, 0.5]])
    given = job(**own.job)
    with waiting(own, fake_engine.STAGES, given, tmp_path) as process:
        taken = process.turn(WHOLE, 0.001)
        assert process.result(STAGE)["scores"].tolist() == [[0.5, 0.5]]
    assert len(taken) >= 3
    assert all(seconds > 0 for seconds in taken)
    assert set(process.told["stages"]) == set(fake_engine.STAGES)
    assert process.told["versions"]["numpy"] == np.__version__
    assert process.running.returncode == 0


def test_a_contender_runs_without_garbage_collection_and_pinned(tmp_path):
    # The worker's own words: it says so after warming up, of the interpreter that it runs in.
    script = tmp_path / "shows_state.py"
    script.write_text(
        "import gc, os\n"
        "import numpy as np\n"
        "from types import SimpleNamespace\n"
        "def load(job):\n"
        "    def run():\n"
        "        open(job['seen'], 'w').write(f'{gc.isenabled()} {os.sched_getaffinity(0)} '\n"
        "                                     + os.environ['OMP_NUM_THREADS'])\n"
        "    made = SimpleNamespace(run=run, outputs=lambda _: {'scores': np.zeros(1)})\n"
        "    return dict.fromkeys(job['stages'], made)\n"
    )
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system pins nothing")
    cpu = min(os.sched_getaffinity(0))
    own = fake_engine.entry()
    object.__setattr__(own, "module", "shows_state")
    given = job(seen=str(tmp_path / "seen"), cpus=[cpu], threads=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with waiting(own, [STAGE], given, tmp_path) as process:
            process.turn(STAGE, 0.001)
    assert (tmp_path / "seen").read_text() == f"False {{{cpu}}} 3"


def test_a_contender_that_cannot_load_is_an_error_with_its_last_words(tmp_path):
    own = fake_engine.entry(dies="loading")
    with (
        pytest.raises(BenchmarkError, match=r"(?s)fake-fp32 ended with exit code 1 .*no such ker"),
        waiting(own, [STAGE], job(**own.job), tmp_path),
    ):
        pytest.fail("it is not ready")


def test_a_contender_that_dies_in_its_turn_is_an_error_with_its_last_words(tmp_path):
    own = fake_engine.entry(dies=WHOLE)
    with waiting(own, fake_engine.STAGES, job(**own.job), tmp_path) as process:
        (tmp_path / "ready").touch()
        assert process.turn(STAGE, 0.001)
        with pytest.raises(BenchmarkError, match=r"(?s)running end to end:.*a run too many"):
            process.turn(WHOLE, 0.001)


def test_a_contender_that_dies_between_turns_is_named(tmp_path):
    own = fake_engine.entry()
    with (
        pytest.raises(BenchmarkError, match=f"fake-fp32 ended with exit code -9 while .*{STAGE}"),
        waiting(own, [STAGE], job(), tmp_path) as process,
    ):
        die_and_turn(process)


def die_and_turn(process):
    process.running.kill()
    process.running.wait()
    process.turn(STAGE, 0.001)


def test_what_waits_is_ended_when_anything_fails(tmp_path):
    own = fake_engine.entry()
    with pytest.raises(KeyboardInterrupt), waiting(own, [STAGE], job(), tmp_path) as process:
        raise KeyboardInterrupt
    assert process.running.returncode is not None


# --- rounds ---------------------------------------------------------------------------------------


class Player:
    """Stands in for a process, and notes whose turn it was."""

    def __init__(self, name, stages, played):
        self.name, self.stages, self._played = name, stages, played

    def turn(self, stage, seconds):
        self._played.append(self.name)
        return [seconds]


@pytest.mark.parametrize(
    ("number", "order"),
    [(0, ["a", "b", "c", "a"]), (1, ["a", "b", "c", "a"]), (2, ["c", "a", "b", "a"]),
     (3, ["a", "b", "c", "a"])],
)  # fmt: skip
def test_each_round_has_another_order_and_the_sentinel_twice_with_others_between(number, order):
    played = []
    processes = {name: Player(name, [STAGE], played) for name in "abc"}
    found = one_round(processes, STAGE, 0.5, number, "a")
    assert played == order
    assert list(found["samples"]) == ["a", "b", "c"]
    assert found["sentinel"] == [0.5]


def test_who_does_not_have_a_stage_is_passed_over():
    played = []
    processes = {"a": Player("a", [STAGE], played), "b": Player("b", [WHOLE], played)}
    assert list(one_round(processes, STAGE, 0.5, 0, "a")["samples"]) == ["a"]
    assert played == ["a", "a"]


def test_all_are_ready_before_the_first_turn(capfd):
    entries = [fake_engine.entry(name) for name in ("a", "b")]
    stages = {"a": [STAGE], "b": [STAGE, WHOLE]}
    with all_waiting(entries, stages, dict.fromkeys("ab", job()), "batch 1") as processes:
        found = [one_round(processes, row, 0.001, 0, "b") for row in (STAGE, WHOLE)]
    assert [set(one["samples"]) for one in found] == [{"a", "b"}, {"b"}]
    assert "batch 1: b loads" in capfd.readouterr().err
    assert sys.executable == entries[0].python


@pytest.mark.parametrize("together", [False, True])
def test_who_does_not_load_can_be_left_out(together):
    entries = [fake_engine.entry("a"), fake_engine.entry("b"), fake_engine.entry("c")]
    stages = {entry.name: [STAGE] for entry in entries}
    jobs = {"a": job(), "b": job(dies="loading"), "c": job()}
    failed = {}
    with all_waiting(entries, stages, jobs, "x", failed=failed, together=together) as running:
        assert list(running) == ["a", "c"]
        assert list(running["c"].told["stages"]) == [STAGE]
    assert list(failed) == ["b"]
    assert "no such kernel" in failed["b"]
    with (
        pytest.raises(BenchmarkError, match="no such kernel"),
        all_waiting(entries, stages, jobs, "x", together=together),
    ):
        pass
