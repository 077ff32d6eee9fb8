"""What goes wrong in graphs and lanes harms nobody else."""

import ctypes
import random
import threading
import time

import pytest
from server_graphs import PATIENCE, Graph, Held, callers, is_of, queued, results, running, until, x

from vlrt.errors import InferenceError
from vlrt.server.batching import Scheduler


def end_thread(thread, error=SystemExit) -> None:
    """Raise an exception in another thread, as soon as it runs Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(error)
    )


def poisoned(start: float):
    """Inputs of one row that the graph refuses."""
    return x(1, start=-start)


@pytest.mark.parametrize("poison", [ValueError, MemoryError, StopIteration, ZeroDivisionError])
@pytest.mark.parametrize("bad", [[0], [1], [3], [0, 2], [0, 1, 2, 3]])
def test_a_poisoned_run_fails_alone(poison, bad):
    graph = Held(poison=poison)
    several = [poisoned(10 + at) if at in bad else x(1, start=at) for at in range(4)]
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        first = pool.submit(runner.run, x(1))
        graph.entered.acquire(timeout=PATIENCE)
        futures = [queued(pool, scheduler, runner, inputs) for inputs in several]
        graph.free()
        gave = results(futures)
        assert is_of(first.result(PATIENCE), x(1))
        assert scheduler.healthy()
    for at, one in enumerate(gave):
        if at in bad:
            assert type(one) is poison
            assert str(one) == f"poison {-(10 + at)}"
        else:
            assert is_of(one, several[at])
    assert [(ran.requests, ran.error) for ran in scheduler.ran] == [
        (1, False),
        (4, True),
        *((1, at in bad) for at in range(4)),
    ]


def test_one_that_left_is_not_run_again_alone():
    from vlrt.server.batching import Ticket
    from vlrt.server.tickets import working_on

    graph = Held()
    ticket = Ticket("m")

    def job():
        with working_on(ticket):
            return runner.run(x(1, start=5))

    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        first = pool.submit(runner.run, x(1))
        graph.entered.acquire(timeout=PATIENCE)
        bad = queued(pool, scheduler, runner, poisoned(10))
        leaves = pool.submit(job)
        until(lambda: scheduler.depth("m") == 2)
        stays = queued(pool, scheduler, runner, x(1, start=7))
        graph.may.release()
        graph.entered.acquire(timeout=PATIENCE)  # the batch of three
        ticket.cancel()
        until(leaves.done)
        graph.free()
        assert is_of(stays.result(PATIENCE), x(1, start=7))
        assert isinstance(bad.exception(PATIENCE), ValueError)
        first.result(PATIENCE)
    assert graph.rows == [1, 3, 1, 1]


@pytest.mark.parametrize("poison", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_a_lane_is_told_and_the_lane_replaced(poison, caplog):
    graph = Held(poison=poison)
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=2)
        first = pool.submit(runner.run, x(1))
        graph.entered.acquire(timeout=PATIENCE)
        futures = [
            queued(pool, scheduler, runner, inputs)
            for inputs in (x(1), poisoned(3), x(1, start=8), x(1, start=9))
        ]
        graph.free()
        gave = results(futures)
        assert is_of(first.result(PATIENCE), x(1))
        for one in gave[:2]:  # they shared a batch, of which it is not known who ended the lane
            assert isinstance(one, InferenceError)
            assert "m.c: the worker ended while it ran this" in str(one)
            assert f"{poison.__name__}: poison -3" in str(one)
        assert is_of(gave[2], x(1, start=8))
        assert is_of(gave[3], x(1, start=9))
        until(scheduler.healthy)
        assert is_of(runner.run(x(1)), x(1))
        until(lambda: caplog.records)  # the log is written last
    assert [record.message for record in caplog.records] == ["vlrt-lane-0 ended and is replaced"]


class Spinning(Graph):
    """One that runs Python code until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.may = threading.Event(), threading.Event()

    def run(self, inputs):
        self.entered.set()
        while not self.may.is_set():
            time.sleep(0.0005)
        return super().run(inputs)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_lane_that_is_ended_in_a_run_is_replaced(error, caplog):
    graph = Spinning()
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=1)
        first = pool.submit(runner.run, x(1))
        assert graph.entered.wait(PATIENCE)
        others = [queued(pool, scheduler, runner, x(1, start=at)) for at in range(3)]
        (lane,) = scheduler._lanes.values()
        end_thread(lane.thread, error)
        found = first.exception(PATIENCE)
        assert isinstance(found, InferenceError)
        assert f"m.c: the worker ended while it ran this: {error.__name__}" in str(found)
        until(scheduler.healthy)
        assert scheduler._lanes[0] is not lane
        graph.may.set()
        assert all(is_of(one, x(1, start=at)) for at, one in enumerate(results(others)))
        lane.thread.join(PATIENCE)
        assert not lane.thread.is_alive()
    assert len(caplog.records) == 1


def test_a_lane_that_is_ended_while_idle_is_replaced_and_harms_nobody(caplog):
    with running(lanes=2) as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", Graph(), max_batch=4)
        for turn in range(5):
            assert is_of(runner.run(x(1)), x(1))
            until(lambda: all(lane.batch is None for lane in scheduler._lanes.values()))
            before = list(scheduler._lanes.values())
            for lane in before:
                end_thread(lane.thread)
            futures = [pool.submit(runner.run, x(1, start=at)) for at in range(8)]
            assert all(is_of(one, x(1, start=at)) for at, one in enumerate(results(futures)))
            for lane in before:
                lane.thread.join(PATIENCE)
                assert not lane.thread.is_alive()
            until(scheduler.healthy)
            assert not set(before) & set(scheduler._lanes.values())
            assert len(caplog.records) == 2 * (turn + 1)


class Vanishing(Scheduler):
    """One whose first lanes end with a batch at hand, before they can say so."""

    vanish = 1

    def _work(self, lane):
        if not self.vanish:
            super()._work(lane)
            return
        self.vanish -= 1
        with self._lock:
            lane.batch = self._queues.choose(0.0)
            if lane.batch:
                self._queues.begin(lane.batch)


@pytest.mark.parametrize("finder", ["run", "close"])
def test_a_lane_that_ended_without_a_word_is_found(finder):
    scheduler = Vanishing()
    runner = scheduler.runner("m", "c", Graph(), max_batch=1)
    with callers() as pool:
        lost = queued(pool, scheduler, runner, x(1))
        waits = queued(pool, scheduler, runner, x(1, start=4))
        scheduler.start()
        lane = scheduler._lanes[0]
        lane.thread.join(PATIENCE)
        assert not scheduler.healthy()
        if finder == "run":
            assert is_of(runner.run(x(1)), x(1))
            assert scheduler.healthy()
        else:
            scheduler.close()
        found = lost.exception(PATIENCE)
        assert isinstance(found, InferenceError)
        assert "ended without a word" in str(found)
        assert is_of(waits.result(PATIENCE), x(1, start=4))
    scheduler.close()


def test_an_observer_that_fails_does_not_do_so_in_silence():
    def broken(_ran):
        raise RuntimeError("no such metric")

    with running(observe=broken) as scheduler:
        runner = scheduler.runner("m", "c", Graph(), max_batch=4)
        with pytest.raises(RuntimeError, match="no such metric"):
            runner.run(x(1))
        assert scheduler.healthy()


def test_lanes_that_are_ended_at_any_moment_lose_nobody():
    """Every caller gets its own rows, or is told that the worker ended."""
    rng, stop, ended = random.Random(0), threading.Event(), set()
    served = 0
    with running(lanes=2, max_delay_s=0.001) as scheduler, callers(16) as pool:
        runners = [scheduler.runner(f"m{at}", "c", Graph(), max_batch=4) for at in range(3)]

        def calls(seed):
            own, gave = random.Random(seed), []
            while not stop.is_set():
                inputs = x(own.randint(1, 3), start=own.randint(0, 1000))
                try:
                    gave.append(is_of(own.choice(runners).run(inputs), inputs))
                except InferenceError as error:
                    assert "the worker ended" in str(error)  # noqa: PT017
                    gave.append(None)
            return gave

        futures = [pool.submit(calls, seed) for seed in range(12)]
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            time.sleep(rng.random() * 0.01)
            for lane in set(scheduler._lanes.values()) - ended:
                if rng.random() < 0.5:
                    ended.add(lane)  # once each: a second time could hit logging with its lock
                    end_thread(lane.thread)
        stop.set()
        for gave in results(futures):
            assert False not in gave
            served += gave.count(True)
        until(scheduler.healthy)
        assert is_of(runners[0].run(x(1)), x(1))
    assert served > 0
    assert len(ended) > 10
