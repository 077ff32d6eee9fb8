"""Jobs: what is taken on, what comes of it in time, and that nothing is left behind."""

import asyncio
import gc
import random
import threading
import time
import weakref
from collections import Counter
from contextlib import contextmanager

import pytest
from server_graphs import PATIENCE, Clock, Graph, Held, is_of, running, until, x

from vlrt.errors import (
    DeadlineError,
    ImageError,
    InferenceError,
    LimitError,
    OptionError,
    OverloadError,
)
from vlrt.server.batching import current
from vlrt.server.flow import Flow
from vlrt.server.jobs import Done, Jobs
from vlrt.server.slots import Slots
from vlrt.server.tickets import STAGES, Cancelled, Ticket


@contextmanager
def serving(
    graph=None,
    *,
    slots=2,
    queue_length=64,
    deadline_s=PATIENCE,
    finished=None,
    max_batch=16,
    **options,
):
    """Jobs of one graph; when they end, no thread is left."""
    with running(**options) as scheduler:
        extra = {} if finished is None else {"finished": finished}
        jobs = Jobs(
            scheduler, slots=slots, queue_length=queue_length, deadline_s=deadline_s, **extra
        )
        jobs.scheduler = scheduler
        jobs.runner = scheduler.runner("m", "c", graph or Graph(), max_batch=max_batch)
        yield jobs
        until(lambda: not any(t.name.startswith("vlrt-job") for t in threading.enumerate()))
        assert jobs.in_flight("m") == 0


async def soon(condition):
    """Wait, on the loop, for what another thread is about to do."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.001)


def test_a_job_gives_its_value_and_where_its_time_went():
    told = []
    with serving(finished=lambda *what: told.append(what)) as jobs:

        def work():
            time.sleep(0.01)
            first = jobs.runner.run(x(1))
            jobs.runner.run(x(2))
            time.sleep(0.01)
            return first

        began = time.monotonic()
        done = asyncio.run(jobs.run("m", work))
        whole = time.monotonic() - began
    assert isinstance(done, Done)
    assert is_of(done.value, x(1))
    assert tuple(done.seconds) == STAGES
    assert all(seconds >= 0 for seconds in done.seconds.values())
    assert done.seconds["prepare"] >= 0.01
    assert done.seconds["finish"] >= 0.01
    assert 0.02 <= sum(done.seconds.values()) <= whole
    assert told == [("m", done.seconds)]


def test_stages_by_the_clock():
    clock = Clock()

    def later(seconds):
        clock.now += seconds

    class Slow(Graph):
        def run(self, inputs):
            later(8.0)
            return super().run(inputs)

    with serving(Slow(), clock=clock, deadline_s=float("inf")) as jobs:

        def work():
            later(1.0)
            jobs.runner.run(x(1))
            later(2.0)
            jobs.runner.run(x(1))
            later(4.0)

        done = asyncio.run(jobs.run("m", work))
        without = asyncio.run(jobs.run("m", lambda: later(32.0)))
    assert done.seconds == {"wait": 0, "prepare": 3.0, "queue": 0, "run": 16.0, "finish": 4.0}
    assert without.seconds == dict.fromkeys(STAGES, 0) | {"prepare": 32.0}


class OddError(Exception):
    pass


@pytest.mark.parametrize(
    "error", [ImageError("p"), OddError("o"), MemoryError(), StopAsyncIteration()]
)
def test_errors_pass_through_as_they_are(error):
    def work():
        raise error

    async def main(jobs):
        with pytest.raises(type(error)) as caught:
            await jobs.run("m", work)
        assert caught.value is error
        return (await jobs.run("m", lambda: 7)).value

    with serving() as jobs:
        assert asyncio.run(main(jobs)) == 7


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_what_would_end_the_loop_ends_the_job_alone(error):
    def work():
        raise error("bye")

    with serving() as jobs, pytest.raises(InferenceError, match=f"ended by {error.__name__}: bye"):
        asyncio.run(jobs.run("m", work))


def test_several_jobs_run_as_one_and_in_order():
    graph = Graph()
    with serving(graph, max_delay_s=3600.0, slots=1) as jobs:
        works = [lambda at=at: jobs.runner.run(x(1, start=at)) for at in range(8)]
        done = asyncio.run(jobs.run_all("m", works))
        assert asyncio.run(jobs.run_all("m", [])) == []
    assert all(is_of(one.value, x(1, start=at)) for at, one in enumerate(done))
    assert graph.rows == [8]


def test_a_client_alone_never_waits_for_others():
    with serving(max_delay_s=3600.0) as jobs:

        async def main():
            for at in range(5):
                done = await jobs.run("m", lambda at=at: jobs.runner.run(x(1, start=at)))
                assert is_of(done.value, x(1, start=at))
                assert jobs.in_flight("m") == 0

        asyncio.run(main())


def test_never_more_work_than_there_are_slots_and_none_is_held_in_a_graph():
    graph, lock, working, most, arrived = Held(), threading.Lock(), 0, 0, 0

    def step(change, arrives=0):
        nonlocal working, most, arrived
        with lock:
            working += change
            arrived += arrives
            most = max(most, working)

    def work():
        step(+1)
        time.sleep(0.001)
        step(-1, arrives=1)
        jobs.runner.run(x(1))
        step(+1)
        time.sleep(0.001)
        step(-1)

    with serving(graph, slots=2) as jobs:

        async def main():
            running = asyncio.create_task(jobs.run_all("m", [work] * 12))
            # Two slots, yet all come as far as the graph.
            await soon(lambda: arrived == 12)
            graph.free()
            await running

        asyncio.run(main())
    assert 1 <= most <= 2


@pytest.mark.parametrize(("lanes", "most"), [(1, 2 * 3 + 2), (2, 3 * 3 + 2)])
def test_no_more_begin_than_keep_the_graphs_busy(lanes, most):
    """Each that has begun holds a picture made ready, or will."""
    graph, began, ended = Held(), [], []

    def work():
        began.append(1)
        jobs.runner.run(x(1))
        ended.append(1)

    with serving(graph, slots=2, lanes=lanes, max_batch=3, max_delay_s=0.001) as jobs:

        async def main():
            running = asyncio.create_task(jobs.run_all("m", [work] * 40))
            await soon(lambda: len(began) == most)
            await asyncio.sleep(0.02)
            assert len(began) == most
            assert (await jobs.run("another", lambda: 5)).value == 5
            while not running.done():
                assert len(began) - len(ended) <= most
                graph.may.release()
                await asyncio.sleep(0.001)
            await running

        asyncio.run(main())
    assert len(ended) == 40


def test_those_that_never_end_well_leave_room_for_others():
    """Whether they fail, are late or leave: their places are had again."""

    def work(start):
        return is_of(jobs.runner.run(x(1, start=start)), x(1, start=start))

    with serving(slots=1, max_batch=1, deadline_s=0.2) as jobs:

        async def main():
            for turn in range(6):
                with pytest.raises(ValueError, match="poison"):
                    await jobs.run_all("m", [lambda: work(-9.0)] * 8)
                with pytest.raises(DeadlineError):
                    await jobs.run_all("m", [lambda: time.sleep(0.3)] * (turn % 2 + 1))
                goes = asyncio.create_task(jobs.run_all("m", [lambda: work(1.0)] * 8))
                await asyncio.sleep(0.001)
                goes.cancel()
                await soon(lambda: jobs.in_flight("m") == 0)
            jobs._deadline_s = PATIENCE
            assert all(one.value for one in await jobs.run_all("m", [lambda: work(5.0)] * 64))

        asyncio.run(main())


@pytest.mark.parametrize("ends", ["well", "gone", "late"])
@pytest.mark.parametrize("poison", [False, True])
def test_what_a_job_held_goes_with_it(ends, poison):
    """Without Python's search for what goes in circles, before which pictures would pile up."""
    graph, held = Held(), []

    def work():
        inputs = x(1, start=-9.0 if poison else 9.0)
        held.append(weakref.ref(inputs["x"]))
        return jobs.runner.run(inputs)["sum"].item()

    async def main():
        first = asyncio.create_task(asyncio.to_thread(jobs.runner.run, x(1)))
        await soon(lambda: graph.entered.acquire(blocking=False))
        asked = asyncio.create_task(jobs.run_all("m", [work] * 4))
        await soon(lambda: jobs.scheduler.depth("m") == 4)
        graph.may.release()
        await soon(lambda: graph.entered.acquire(blocking=False))  # all four together
        if ends == "gone":
            asked.cancel()
        if ends in ("gone", "late"):
            await soon(lambda: jobs.in_flight("m") == 0)
        graph.free()
        await asyncio.wait([first, asked])
        # Not raised again here, for this frame knows the task.
        if ends == "gone":
            assert asked.cancelled()
        elif ends == "late":
            assert type(asked.exception()) is DeadlineError
        elif poison:
            assert type(asked.exception()) is ValueError
        else:
            assert [one.value for one in asked.result()] == [19.0] * 4

    gc.collect()
    gc.disable()
    try:
        with serving(graph, slots=4, deadline_s=0.3 if ends == "late" else PATIENCE) as jobs:
            asyncio.run(main())
        until(lambda: len(held) == 4 and not any(one() is not None for one in held))
    finally:
        gc.enable()


@pytest.mark.parametrize("free", [True, False])
def test_who_is_over_when_its_graph_has_run_does_not_go_on_without_a_slot(free):
    slots = Slots(1)
    ticket = Ticket("m", slots=slots)
    ticket.begin()

    def wait_for_a_graph():
        with ticket.away():
            ticket.cancel()
            if not free:
                slots.acquire("another")

    with pytest.raises(Cancelled):
        wait_for_a_graph()
    ticket.end()
    if not free:
        slots.release()
    slots.acquire("m")  # it did not keep one


def test_no_more_is_taken_on_than_the_queue_is_long():
    with serving(queue_length=3, slots=3) as jobs:
        free = threading.Event()

        async def main():
            first = asyncio.create_task(jobs.run_all("m", [lambda: free.wait(PATIENCE)] * 2))
            await soon(lambda: jobs.in_flight("m") == 2)
            with pytest.raises(OverloadError, match=r"m has 2 jobs.*limit of 3; retry") as caught:
                await jobs.run_all("m", [lambda: 1] * 2)
            assert 1.0 <= caught.value.retry_after <= 60.0
            assert not isinstance(caught.value, DeadlineError)
            assert jobs.in_flight("m") == 2  # none of the two
            with pytest.raises(LimitError, match="4 jobs for m at once; at most 3"):
                await jobs.run_all("m", [lambda: 1] * 4)
            assert (await jobs.run("another", lambda: 5)).value == 5
            free.set()
            await first
            assert len(await jobs.run_all("m", [lambda: 1] * 3)) == 3

        asyncio.run(main())


def test_a_deadline_passes_at_once_and_its_place_is_taken_until_its_thread_ends():
    graph, free = Graph(), threading.Event()

    def work():
        free.wait(PATIENCE)
        jobs.runner.run(x(1))

    with serving(graph, queue_length=1, deadline_s=1.0) as jobs:

        async def main():
            with pytest.raises(DeadlineError, match="m was not done within 1 s") as caught:
                await jobs.run("m", work)
            assert 1.0 <= caught.value.retry_after <= 60.0
            assert jobs.in_flight("m") == 1
            with pytest.raises(OverloadError, match="limit of 1"):
                await jobs.run("m", lambda: 1)
            free.set()
            await soon(lambda: jobs.in_flight("m") == 0)
            jobs._deadline_s = PATIENCE
            assert (await jobs.run("m", lambda: 1)).value == 1

        asyncio.run(main())
    assert graph.rows == []  # it ended before its graph


def test_a_deadline_in_the_queue_is_kept_though_the_lane_is_busy():
    graph = Held()
    with serving(graph, deadline_s=0.05) as jobs:

        async def main():
            busy = asyncio.create_task(asyncio.to_thread(jobs.runner.run, x(1)))
            await soon(lambda: graph.entered.acquire(blocking=False))
            with pytest.raises(DeadlineError):
                await jobs.run_all("m", [lambda: jobs.runner.run(x(1))] * 3)
            await soon(lambda: jobs.in_flight("m") == 0)  # the lane is still held
            graph.free()
            await busy

        asyncio.run(main())
    assert graph.rows == [1]


def test_a_client_that_goes_takes_its_jobs_along():
    graph, began = Held(), []

    def work():
        began.append(current())
        return jobs.runner.run(x(1, start=50))

    with serving(graph, slots=1, max_delay_s=3600.0) as jobs:

        async def main():
            busy = asyncio.create_task(asyncio.to_thread(jobs.runner.run, x(1)))
            await soon(lambda: graph.entered.acquire(blocking=False))
            goes = asyncio.create_task(jobs.run_all("m", [work] * 3))
            await soon(lambda: jobs.scheduler.depth("m") == 3)
            goes.cancel()
            with pytest.raises(asyncio.CancelledError):
                await goes
            await soon(lambda: jobs.in_flight("m") == 0)
            graph.free()
            await busy
            assert is_of((await jobs.run("m", lambda: jobs.runner.run(x(1)))).value, x(1))

        asyncio.run(main())
    assert len(began) == 3
    assert all(ticket is not None for ticket in began)
    assert graph.rows == [1, 1]


def test_jobs_that_wait_for_a_slot_when_their_client_goes_never_begin():
    free, began = threading.Event(), []
    with serving(slots=1) as jobs:

        async def main():
            first = asyncio.create_task(jobs.run("m", lambda: free.wait(PATIENCE)))
            await asyncio.sleep(0)
            goes = asyncio.create_task(jobs.run_all("m", [lambda: began.append(1)] * 4))
            await soon(lambda: jobs.in_flight("m") == 5)
            goes.cancel()
            await soon(lambda: jobs.in_flight("m") == 1)
            free.set()
            assert (await first).value is True
            assert (await jobs.run("m", lambda: 3)).value == 3

        asyncio.run(main())
    assert began == []


def test_the_first_error_by_position_is_raised_and_the_later_ones_are_cancelled():
    slow, later, seen = threading.Event(), threading.Event(), []

    def fails(name, event=None):
        if event is not None:
            event.wait(PATIENCE)
        raise OddError(name)

    def waits():
        ticket = current()
        while not ticket.over:
            time.sleep(0.001)
        seen.append("told")
        later.set()
        ticket.check()

    works = [lambda: 0, lambda: fails("b", slow), lambda: fails("c"), waits]

    async def main(jobs):
        running = asyncio.create_task(jobs.run_all("m", works))
        # c fails, which ends the job behind it, but b might fail too and comes first.
        await soon(later.is_set)
        assert not running.done()
        slow.set()
        with pytest.raises(OddError, match=r"^b$"):
            await running

    with serving(slots=4) as jobs:
        asyncio.run(main(jobs))
    assert seen == ["told"]


def test_draining_waits_for_threads_and_says_what_is_left():
    free = threading.Event()
    with serving(deadline_s=1.0) as jobs:

        async def main():
            assert await jobs.drain(0.0) == 0
            with pytest.raises(DeadlineError):
                await jobs.run_all("m", [lambda: free.wait(PATIENCE)] * 2)
            assert await jobs.drain(0.01) == 2
            draining = asyncio.create_task(jobs.drain(PATIENCE))
            await asyncio.sleep(0)
            free.set()
            assert await draining == 0
            assert jobs.in_flight("m") == 0

        asyncio.run(main())


def test_closing_refuses_and_cancels():
    graph = Held()
    with serving(graph) as jobs:

        async def main():
            waits = asyncio.create_task(jobs.run("m", lambda: jobs.runner.run(x(1))))
            await soon(lambda: graph.entered.acquire(blocking=False))
            jobs.close()
            with pytest.raises(OverloadError, match="the server is stopping"):
                await waits
            with pytest.raises(OverloadError, match="the server is stopping"):
                await jobs.run("m", lambda: 1)
            graph.free()

        asyncio.run(main())


def test_a_loop_that_has_ended_is_not_told():
    """A thread may outlive its loop; it ends without a word, since nobody is there to hear it."""
    began, free = threading.Event(), threading.Event()

    def work():
        began.set()
        free.wait(PATIENCE)

    with serving() as jobs:

        async def main():
            asked = asyncio.create_task(jobs.run("m", work))
            await soon(began.is_set)
            asked.cancel()

        asyncio.run(main())
        assert jobs.in_flight("m") == 1
        free.set()


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_without_threads_work_is_refused_and_nothing_is_left(monkeypatch, kind):
    start, left = threading.Thread.start, [2]

    def few(thread):
        if thread.name.startswith("vlrt-job"):
            if not left[0]:
                raise kind("can't start new thread")
            left[0] -= 1
        start(thread)

    with serving() as jobs:

        async def main():
            with pytest.raises(OverloadError, match="no thread for m: can't start new thread"):
                await jobs.run_all("m", [lambda: 1] * 4)
            await soon(lambda: jobs.in_flight("m") == 0)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", few)
            asyncio.run(main())
        assert asyncio.run(jobs.run("m", lambda: 1)).value == 1


@pytest.mark.parametrize("option", ["slots", "queue_length"])
@pytest.mark.parametrize("value", [0, 2.5, "3"])
def test_counts_are_checked(option, value):
    with running() as scheduler, pytest.raises(OptionError, match=option):
        Jobs(scheduler, **{"slots": 1, "queue_length": 1, "deadline_s": 1.0, option: value})


@pytest.mark.parametrize(
    ("number", "ends", "now", "seconds"),
    [
        (8, [], 100.0, 1.0),  # just begun
        (8, [], 102.0, 16.0),
        (8, [101.0, 102.0, 103.0, 104.0], 104.0, 4.0),  # one a second, four left
        (60, [101.0], 200.0, 60.0),  # stuck
        (80, [100 + at / 10 for at in range(1, 71)], 107.0, 1.0),  # ten a second
    ],
)
def test_when_to_come_again(number, ends, now, seconds):
    flow = Flow()
    flow.begin(number, 100.0)
    for at in ends:
        flow.end(at)
    assert flow.retry_after(now) == pytest.approx(seconds)
    for _ in range(flow.in_flight):
        flow.end(now)
    flow.begin(1, now + 10_000.0)  # a pause is no slow rate
    assert flow.retry_after(now + 10_000.5) == 1.0


def run_in_turn(runner, inputs, turns):
    for _ in range(turns):
        outputs = runner.run(inputs)
        assert is_of(outputs, inputs)
    return outputs


async def ask(jobs, runners, rng):
    """One request: what became of it."""
    runner = rng.choice(runners)
    inputs = x(rng.randint(1, 4), rng.randint(1, 2), start=rng.randint(0, 10_000))
    bad = rng.random() < 0.05
    if bad:
        inputs["x"][0, 0] = -1.0
    turns = rng.randint(1, 3)
    asked = asyncio.create_task(jobs.run(runner.model, lambda: run_in_turn(runner, inputs, turns)))
    if rng.random() < 0.1:
        await asyncio.sleep(rng.random() * 0.005)
        asked.cancel()
    try:
        done = await asked
    except asyncio.CancelledError:
        return "gone"
    except ValueError:
        return "poison" if bad else "another's poison"
    return "right" if is_of(done.value, inputs) and not bad else "wrong"


def test_many_clients_of_many_models_for_a_while():
    """Every one gets what is theirs, whoever fails, leaves or is late beside them."""
    graphs = [Graph(), Graph(), Graph()]
    counted = Counter()
    with serving(slots=3, lanes=2, max_delay_s=0.001) as jobs:
        runners = [
            jobs.scheduler.runner(f"m{at}", "c", graph, max_batch=8)
            for at, graph in enumerate(graphs)
        ]

        async def client(seed, until):
            rng = random.Random(seed)
            while time.monotonic() < until:
                counted[await ask(jobs, runners, rng)] += 1

        async def main():
            end = time.monotonic() + 1.5
            await asyncio.gather(*(client(seed, end) for seed in range(64)))
            assert await jobs.drain(PATIENCE) == 0

        asyncio.run(main())
        assert all(jobs.in_flight(f"m{at}") == 0 for at in range(3))
        assert all(jobs.scheduler.depth(f"m{at}") == 0 for at in range(3))
        assert jobs.scheduler.healthy()
        assert not any(share.expected for share in jobs.scheduler._queues._shares.values())
        assert max(ran.requests for ran in jobs.scheduler.ran) > 1
    assert set(counted) == {"right", "poison", "gone"}, counted
