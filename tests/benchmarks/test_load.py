"""How much a model can be asked: loops, what they count, the knee, and a run that goes on."""

import argparse
import json
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlrt import demo
from vlrt.errors import BenchmarkError, OptionError
from vlrt_benchmarks import load, load_process, load_steps
from vlrt_benchmarks.contender import Contender
from vlrt_benchmarks.journal import Journal
from vlrt_benchmarks.load_loops import closed, open_loop, schedule

RATES = st.floats(0.01, 5000)
WINDOWS = st.floats(0.01, 5)
SEEDS = st.integers(0, 1000)


# --- when requests come ---------------------------------------------------------------------------


@given(RATES, WINDOWS, SEEDS)
def test_requests_come_in_order_and_within_the_window(rate, seconds, seed):
    due = schedule(rate, seconds, seed)
    assert (np.diff(due) >= 0).all()
    assert ((due >= 0) & (due < seconds)).all()


@given(RATES, WINDOWS, SEEDS)
def test_a_seed_gives_the_same_gaps_in_units_of_their_mean(rate, seconds, seed):
    due = schedule(rate, seconds, seed)
    np.testing.assert_array_equal(due, schedule(rate, seconds, seed))
    half = schedule(rate / 2, seconds * 2, seed)  # powers of two: nothing is rounded
    np.testing.assert_array_equal(due, half / 2)


@given(RATES, WINDOWS, SEEDS)
def test_a_longer_window_goes_on_where_the_shorter_one_ends(rate, seconds, seed):
    due = schedule(rate, seconds, seed)
    np.testing.assert_array_equal(schedule(rate, seconds * 2, seed)[: len(due)], due)


@given(SEEDS)
def test_gaps_are_exponential(seed):
    gaps = np.diff(schedule(1000, 5, seed)) * 1000
    assert abs(len(gaps) - 5000) < 6 * 5000**0.5
    for limit in (0.1, 0.5, 1, 2, 4):
        share = np.exp(-limit)
        spread = (share * (1 - share) / len(gaps)) ** 0.5
        assert abs((gaps > limit).mean() - share) < 6 * spread


# --- loops ----------------------------------------------------------------------------------------


def test_nothing_due_is_nothing_asked():
    found = open_loop(pytest.fail, np.zeros(0), seconds=0.01, drain=0.01, workers=2)
    assert (found["arrived"], found["completed"], found["latencies_s"]) == (0, 0, [])


def test_latency_counts_from_when_a_request_was_due():
    due, stall, asked = np.array([0, 0.01, 0.02, 0.05]), 0.2, []

    def ask(number):
        asked.append(number)
        if number == 0:
            time.sleep(stall)

    found = open_loop(ask, due, seconds=0.1, drain=5, workers=1)
    assert asked == [0, 1, 2, 3]
    # All waited for the first one, though none of them took any time itself.
    assert all(
        taken >= stall - at - 1e-6 for taken, at in zip(found["latencies_s"], due, strict=True)
    )
    ended = np.array(found["answered_s"])
    np.testing.assert_allclose(found["latencies_s"], ended - due, atol=2e-6)
    assert (found["completed"], found["per_second"]) == (4, 0)


def test_overload_ends():
    due = schedule(5000, 0.2, seed=0)
    begun = []
    started = time.perf_counter()

    def ask(number):
        begun.append(time.perf_counter() - started)
        time.sleep(0.02)

    found = open_loop(ask, due, seconds=0.2, drain=0.2, workers=2)
    assert found["arrived"] == len(due)
    assert 0 < found["completed"] < len(due)
    assert max(found["answered_s"]) <= 0.4
    assert not load_steps.kept_up(found, grace_s=0.1)
    # What waited is given up, and not asked for after all.
    assert len(begun) <= found["completed"] + 2


def test_as_many_clients_ask_at_once_as_were_told():
    together = threading.Barrier(3)

    def ask(number):
        if number < 3:  # with fewer clients this would never end, and the test fail
            together.wait(timeout=60)

    found = closed(ask, clients=3, seconds=0.05)
    assert found["clients"] == 3
    assert found["completed"] == len(found["latencies_s"])
    assert found["per_second"] == found["completed"] / 0.05


def test_latencies_of_clients_are_in_the_order_of_their_answers():
    slow = threading.local()

    def ask(number):  # the client of the first request is slow
        slow.is_so = getattr(slow, "is_so", number == 0)
        time.sleep(0.1 if slow.is_so else 0.01)

    taken = closed(ask, clients=2, seconds=0.5)["latencies_s"]
    places = [at for at, seconds in enumerate(taken) if seconds > 0.09]
    assert places
    assert places != list(range(len(places)))  # client after client the slow one would be first


def test_what_is_answered_outside_of_the_window_is_not_counted():
    found = closed(lambda number: time.sleep(0.3 * number), clients=1, seconds=0.01)
    assert (found["completed"], found["per_second"], found["latencies_s"]) == (0, 0, [])


@pytest.mark.parametrize("broken", [0, 1, 5])
def test_a_request_that_fails_ends_its_loop(broken):
    def ask(number):
        time.sleep(0.001)
        if number == broken:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        closed(ask, clients=2, seconds=60)
    with pytest.raises(ValueError, match="broken"):
        open_loop(ask, np.arange(10000) / 100, seconds=100, drain=100, workers=2)


# --- what steps say -------------------------------------------------------------------------------


def opened(offered, p99_ms, kept_up=True):
    return {"offered_per_s": offered, "kept_up": kept_up, "summary": {"p99_ms": p99_ms}}


@pytest.mark.parametrize(
    ("steps", "knee"),
    [
        ([], None),
        ([opened(10, 20, kept_up=False), opened(20, 20, kept_up=False)], None),
        ([opened(10, 50)], None),
        ([opened(10, 49.9)], 10),
        ([opened(10, 20), opened(20, 40), opened(30, 70), opened(40, 40, kept_up=False)], 20),
        ([opened(20, 40), opened(10, 20)], 20),
        ([opened(10, float("nan"))], None),
    ],
)
def test_the_knee_is_the_highest_load_that_was_kept_up_with_in_time(steps, knee):
    assert load_steps.knee(steps, alone_p50_ms=10) == knee


@pytest.mark.parametrize(
    ("answered", "grace_s", "expected"),
    [
        ([], 1, False),
        ([0.5] * 18, 1, False),
        ([0.5] * 19, 1, True),
        ([0.5] * 18 + [1.4], 0.5, True),
        ([0.5] * 18 + [1.6], 0.5, False),
        ([0.5] * 18 + [2.1], 9, False),  # no longer than another window
    ],
)
def test_what_was_kept_up_with(answered, grace_s, expected):
    step = {"seconds": 1, "arrived": 20, "answered_s": answered}
    assert load_steps.kept_up(step, grace_s) is expected


def closed_step(clients, per_second, latency_s=0.01):
    return {"clients": clients, "seconds": 1, "completed": 2, "per_second": per_second,
            "latencies_s": [latency_s] * 2}  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "clients"),
    [
        ([closed_step(1, 5)], 1),
        ([closed_step(1, 5), closed_step(2, 9), closed_step(4, 8)], 2),
        ([closed_step(1, 5), closed_step(2, 9), closed_step(4, 9)], 2),
    ],
)
def test_the_busiest_loop(steps, clients):
    assert load_steps.busiest(steps)["clients"] == clients


@pytest.mark.parametrize(
    ("again", "too_noisy"), [(100, False), (124, False), (81, False), (79, True), (126, True)]
)
def test_a_capacity_that_is_another_afterwards_gives_no_knee(again, too_noisy):
    step = {"seconds": 1, "arrived": 2, "completed": 2, "per_second": 2, "share": 0.5,
            "latencies_s": [0.01, 0.02], "answered_s": [0.1, 0.2]}  # fmt: skip
    found = load_steps.evaluated([closed_step(1, 100)], [step], closed_step(1, again))
    assert found["too_noisy"] is too_noisy
    assert found["knee_per_s"] == (None if too_noisy else 50)
    assert found["open"][0]["offered_per_s"] == 50
    assert "answered_s" not in found["open"][0]
    for one in (*found["closed"], *found["open"]):  # that of one client after the other
        assert "per_second" not in one["summary"]


@pytest.mark.parametrize(
    ("step", "what"),
    [({"arrived": 0, "completed": 0}, "arrived"), ({"arrived": 9, "completed": 0}, "answered"),
     ({"completed": 0}, "answered")],
)  # fmt: skip
def test_a_step_that_says_nothing_is_an_error(step, what):
    with pytest.raises(BenchmarkError, match=f"a step: nothing was {what}|nothing {what}"):
        load_steps.answered({"seconds": 1, **step}, "a step")


# --- processes ------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="a broken pipe is another error there")
def test_a_process_that_dies_between_steps_says_why(tmp_path, monkeypatch):
    (tmp_path / "dying").mkdir()
    (tmp_path / "dying" / "load_worker.py").write_text(
        "import sys; print('{}', flush=True); sys.exit('out of memory')"
    )
    monkeypatch.setattr(load_process, "__package__", "dying")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def asked():
        with load_process.working("vlrt-int8", {"threads": 1}) as process:
            assert process.answer() == {}
            process.running.wait(timeout=60)
            process.step({"clients": 1, "seconds": 1})

    with pytest.raises(BenchmarkError, match=r"(?s)vlrt-int8 ended with exit code 1:.*memory"):
        asked()


# --- a run that goes on ---------------------------------------------------------------------------

CONTENDERS = [Contender(f"vlrt-{p}", "vlrt", p, Path("bundle")) for p in ("fp32", "int8")]
SETTINGS = {"clients": [1, 2], "offered": [0.5, 1.0], "seconds": 1}
STEPS = len(CONTENDERS) * (2 + 2 + 1)


class Fakes:
    """Processes that answer at once, and are cut off after so many steps of all."""

    def __init__(self, monkeypatch, scores=(0.9, 0.9), cut_off_after=None):
        self.scores, self.left = dict(zip(CONTENDERS, scores, strict=True)), cut_off_after
        self.started, self.steps = [], []
        monkeypatch.setattr(load_steps, "working", self.working)

    @contextmanager
    def working(self, name, job):
        self.started.append(name)
        (contender,) = [one for one in CONTENDERS if one.name == name]
        yield Fake(self, name, {"result": [{"name": "a", "score": self.scores[contender]}]})


class Fake:
    def __init__(self, fakes, name, ready):
        self.fakes, self.name, self.ready = fakes, name, ready

    def answer(self):
        return self.ready

    def step(self, told):
        if self.fakes.left == len(self.fakes.steps):
            raise KeyboardInterrupt
        self.fakes.steps.append((self.name, told))
        if "clients" in told:
            return closed_step(told["clients"], 100.0 * told["clients"])
        return {"seconds": 1, "arrived": 1, "completed": 1, "per_second": 1.0,
                "latencies_s": [0.01], "answered_s": [0.1]}  # fmt: skip


def measured(path):
    with Journal(path, SETTINGS) as journal:
        return load_steps.measure(CONTENDERS, {}, SETTINGS, journal)


@pytest.mark.parametrize("cut_off_after", [0, 1, 5, STEPS - 1])
def test_an_interrupted_run_loses_nothing(tmp_path, monkeypatch, cut_off_after):
    whole = Fakes(monkeypatch)
    expected = measured(tmp_path / "whole.partial")
    first = Fakes(monkeypatch, cut_off_after=cut_off_after)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path / "cut.partial")
    rest = Fakes(monkeypatch)
    assert measured(tmp_path / "cut.partial") == expected
    assert first.steps + rest.steps == whole.steps
    assert len(whole.steps) == STEPS
    again = Fakes(monkeypatch)
    assert measured(tmp_path / "cut.partial") == expected
    assert again.started == []


def test_contenders_take_turns_and_are_offered_shares_of_their_capacity(tmp_path, monkeypatch):
    fakes = Fakes(monkeypatch)
    found = measured(tmp_path / "run.partial")
    assert [name for name, _ in fakes.steps] == ["vlrt-fp32", "vlrt-int8"] * 5
    opened = [told for _, told in fakes.steps if "per_second" in told]
    assert [told["per_second"] for told in opened] == [100, 100, 200, 200]
    assert {told["workers"] for told in opened} == {2}
    assert opened[0]["seed"] == opened[1]["seed"] != opened[2]["seed"]
    assert {own["knee_per_s"] for own in found.values()} == {200}


def test_other_results_end_the_benchmark(tmp_path, monkeypatch):
    fakes = Fakes(monkeypatch, scores=(0.9, 0.7))
    with pytest.raises(BenchmarkError, match="vlrt-int8 does not do what vlrt-fp32 does"):
        measured(tmp_path / "run.partial")
    assert fakes.steps == []


def test_a_step_without_an_answer_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(Fake, "step", lambda self, told: {"seconds": 1, "completed": 0})
    Fakes(monkeypatch)
    with pytest.raises(BenchmarkError, match="nothing was answered in 1 s"):
        measured(tmp_path / "run.partial")
    with Journal(tmp_path / "run.partial", SETTINGS) as journal:
        assert not journal.held("vlrt-fp32, clients: 1")


# --- the command ----------------------------------------------------------------------------------


def options(*arguments):
    parser = argparse.ArgumentParser()
    load.add(parser.add_subparsers())
    return parser.parse_args(["load", str(demo.bundle("clip")), *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "jax"], "--against is 'jax'; valid: torch"),
        (["--precision", "auto", "int8"], "'auto int8'; valid: auto alone"),
        (["--precision", "fp32"], "it has: int8"),
        (["-o", "result.txt"], "ends in .json"),
    ],
)
def test_wrong_options_are_named(arguments, message):
    given = options(*arguments)
    with pytest.raises(OptionError, match=message):
        load.run(given)


@pytest.mark.parametrize("seconds", ["", "0", "-1", "nan", "inf", "ten"])
def test_seconds_are_a_number_above_0(seconds):
    with pytest.raises(argparse.ArgumentTypeError, match="not a number above 0"):
        load.positive(seconds)


def test_a_demo_bundle_is_measured(tmp_path, capsys):
    out = tmp_path / "load.json"
    given = options("--seconds", "0.3", "--clients", "2", "--offered", "0.2", "--threads", "1",
                    "-o", str(out), "--against", "torch")  # fmt: skip
    assert load.run(given) == 0
    found = json.loads(out.read_text())
    own = found["body"]["contenders"]["vlrt-int8"]
    assert [step["clients"] for step in own["closed"]] == [1, 2]
    (opened,) = own["open"]
    assert opened["offered_per_s"] == pytest.approx(0.2 * own["capacity_per_s"])
    assert 0 < len(opened["latencies_s"]) == opened["completed"] <= opened["arrived"]
    assert "torch-fp32" in found["skipped"]
    assert capsys.readouterr().out == out.with_suffix(".md").read_text() + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "load.html", "load.json", "load.md",
    ]  # fmt: skip
