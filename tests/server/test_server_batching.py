"""Runs that are joined: which, in what order, and that everybody gets what is theirs."""

import dataclasses
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_graphs import (
    PATIENCE,
    Clock,
    Graph,
    Held,
    Timed,
    callers,
    is_of,
    queued,
    results,
    running,
    until,
    x,
)

import vlrt
from vlrt import demo
from vlrt.errors import DeadlineError, InferenceError, OptionError, OverloadError
from vlrt.server.batching import Cancelled, Scheduler, Ticket, current
from vlrt.server.queues import Queues, Run
from vlrt.server.tickets import working_on


def behind(graph, scheduler, pool, runner, several):
    """Queue inputs behind a run that holds the lane, let all go; what they gave."""
    first = pool.submit(runner.run, x(1))
    assert graph.entered.acquire(timeout=PATIENCE)
    futures = [queued(pool, scheduler, runner, inputs) for inputs in several]
    graph.free()
    assert is_of(first.result(PATIENCE), x(1))
    return results(futures)


@pytest.mark.parametrize(
    ("rows", "max_batch", "batches"),
    [
        ([1, 1, 1], 16, [3]),
        ([1, 2, 3], 4, [3, 3]),
        ([2, 2, 2, 2], 4, [4, 4]),
        ([2, 1, 2], 4, [3, 2]),
        ([5], 4, [5]),
        ([3, 5, 1], 4, [3, 5, 1]),
        ([1, 1, 1], 1, [1, 1, 1]),
        ([2, 2], 1, [2, 2]),
    ],
)
def test_runs_are_joined_in_order_up_to_max_batch(rows, max_batch, batches):
    graph = Held()
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=max_batch)
        several = [x(n, start=100 * at) for at, n in enumerate(rows)]
        gave = behind(graph, scheduler, pool, runner, several)
    assert graph.rows[1:] == batches
    assert all(map(is_of, gave, several))
    assert [(ran.rows, ran.error) for ran in scheduler.ran[1:]] == [(n, False) for n in batches]
    assert sum(ran.requests for ran in scheduler.ran) == 1 + len(rows)


def test_only_equal_shapes_and_types_are_joined():
    several = [x(1), x(1, width=3), x(1, dtype=np.float64), x(2), x(1, width=3)]
    graph = Held()
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        gave = behind(graph, scheduler, pool, runner, several)
    assert graph.shapes[1:] == [(3, 2), (2, 3), (1, 2)]
    assert all(map(is_of, gave, several))
    assert [one["double"].dtype for one in gave] == [i["x"].dtype for i in several]


def test_only_runs_of_the_same_graph_are_joined():
    held, others = Held(), [Graph() for _ in range(3)]
    with running() as scheduler, callers() as pool:
        names = [("m", "a"), ("m", "b"), ("n", "a")]
        runners = [
            scheduler.runner(*name, graph, max_batch=9)
            for name, graph in zip(names, others, strict=True)
        ]
        first = pool.submit(scheduler.runner("m", "held", held, max_batch=9).run, x(1))
        held.entered.acquire(timeout=PATIENCE)
        futures = [queued(pool, scheduler, runner, x(1)) for runner in runners * 2]
        held.free()
        assert all(is_of(one, x(1)) for one in results([first, *futures]))
    assert [graph.rows for graph in others] == [[2], [2], [2]]


def test_unjoined_runs_go_alone_at_once():
    graph = Held()
    several = [x(1, start=at) for at in range(4)]
    with running(batching=False, max_delay_s=3600.0) as scheduler, callers() as pool:
        scheduler.expect(Ticket("m"))
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        gave = behind(graph, scheduler, pool, runner, several)
    assert graph.rows == [1] * 5
    assert all(map(is_of, gave, several))


def as_job(ticket, runner, inputs):
    with working_on(ticket):
        return runner.run(inputs)


def test_a_client_alone_never_waits_for_others():
    graph = Graph()
    with running(max_delay_s=3600.0) as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        assert is_of(runner.run(x(1)), x(1))  # of no job at all
        scheduler.expect(Ticket("another model"))
        ticket = Ticket("m")
        scheduler.expect(ticket)
        for _ in range(3):  # it is expected again after each, but not by itself
            future = pool.submit(as_job, ticket, runner, x(1))
            assert is_of(future.result(PATIENCE), x(1))
    assert graph.rows == [1] * 4


def test_runs_wait_for_those_who_are_on_their_way():
    graph = Graph()
    with running(max_delay_s=3600.0) as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        tickets = [Ticket("m") for _ in range(3)]
        for ticket in tickets:
            scheduler.expect(ticket)
        futures = []
        for at, ticket in enumerate(tickets):
            assert graph.rows == []
            futures.append(pool.submit(as_job, ticket, runner, x(1, start=at)))
            until(lambda at=at: scheduler.depth("m") == (at + 1) % 3)
        for at, future in enumerate(futures):
            assert is_of(future.result(PATIENCE), x(1, start=at))
    assert graph.rows == [3]


@pytest.mark.parametrize("how", ["forgotten", "full", "delay", "closed"])
def test_runs_wait_no_longer_than_they_must(how):
    graph = Graph()
    scheduler = Scheduler(max_delay_s=0.01 if how == "delay" else 3600.0)
    scheduler.start()
    with callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=2)
        here, coming = Ticket("m"), Ticket("m")
        scheduler.expect(here)
        scheduler.expect(coming)
        future = pool.submit(as_job, here, runner, x(1))
        if how != "delay":
            until(lambda: scheduler.depth("m") == 1)
            assert graph.rows == []
        if how == "forgotten":
            scheduler.forget(coming)
        elif how == "full":
            assert is_of(runner.run(x(1)), x(1))
        elif how == "closed":
            scheduler.close()
        assert is_of(future.result(PATIENCE), x(1))
    scheduler.close()
    assert graph.rows == [2 if how == "full" else 1]


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.booleans()),
        min_size=1,
        max_size=24,
    ),
    st.integers(1, 6),
    st.integers(1, 3),
    st.booleans(),
)
def test_everybody_gets_their_own_rows(wanted, max_batch, lanes, batching):
    graphs = [Graph() for _ in range(3)]
    options = {"lanes": lanes, "batching": batching, "max_delay_s": 0.001}
    with running(**options) as scheduler, callers(24) as pool:
        runners = [
            scheduler.runner(f"m{at % 2}", f"c{at}", graph, max_batch=max_batch)
            for at, graph in enumerate(graphs)
        ]
        several = [
            x(rows, width, start=1000 * at, dtype=np.float64 if double else np.float32)
            for at, (rows, width, _, double) in enumerate(wanted)
        ]
        futures = []
        for inputs, (*_, graph, _double) in zip(several, wanted, strict=True):
            ticket = Ticket(runners[graph].model)
            scheduler.expect(ticket)
            futures.append(pool.submit(as_job, ticket, runners[graph], inputs))
        gave = results(futures)
    assert all(map(is_of, gave, several))
    assert sum(sum(graph.rows) for graph in graphs) == sum(rows for rows, *_ in wanted)
    largest = max(max_batch, *(rows for rows, *_ in wanted))
    assert max(max(graph.rows, default=0) for graph in graphs) <= largest
    assert sum(ran.requests for ran in scheduler.ran) == len(wanted)


def test_a_slow_and_a_fast_model_have_the_same_time():
    clock, notes = Clock(), []
    seconds = {"slow": 1.0, "fast": 0.125}
    with running(start=False, batching=False, clock=clock) as scheduler, callers() as pool:
        futures = []
        for name, number in (("slow", 6), ("fast", 48)):
            graph = Timed(clock, seconds[name], notes, name)
            runner = scheduler.runner(name, "c", graph, max_batch=1)
            futures += [queued(pool, scheduler, runner, x(1)) for _ in range(number)]
        scheduler.start()
        assert all(is_of(one, x(1)) for one in results(futures))
    had = dict.fromkeys(seconds, 0.0)
    assert len(notes) == 54
    for at, name in enumerate(notes):
        had[name] += seconds[name]
        if {"slow", "fast"} <= set(notes[at + 1 :]):  # both still wait
            assert abs(had["slow"] - had["fast"]) <= 1.0


class Name:
    """As much of a graph as queues need."""

    def __init__(self, model, component="c", max_batch=1) -> None:
        self.model, self.component, self.max_batch = model, component, max_batch


def serve(queues, now, seconds):
    """Run the next batch of queues; whose it was, and when it ended."""
    batch = queues.choose(now)
    queues.begin(batch)
    queues.finish(batch, now + seconds[batch.graph.model])
    return batch.graph.model, now + seconds[batch.graph.model]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_idle_models_save_nothing_up_and_owe_nothing(order):
    """One that ran alone for long is not kept waiting when another comes, whoever comes first."""
    queues, now, seconds = Queues(0.0, batching=True), 0.0, {"a": 1.0, "b": 1.0}
    for _ in range(100):
        queues.add(Run(Name("a"), x(1), None, now))
        _, now = serve(queues, now, seconds)
    for _ in range(10):
        for model in order:
            queues.add(Run(Name(model), x(1), None, now))
    served = []
    for _ in range(20):
        model, now = serve(queues, now, seconds)
        served.append(model)
    assert all(set(served[at : at + 2]) == {"a", "b"} for at in range(0, 20, 2))
    assert queues.empty


@given(st.lists(st.sampled_from([0.01, 0.1, 1.0, 5.0]), min_size=2, max_size=5), st.data())
def test_no_model_starves(costs, data):
    """Whoever has work gets within one longest run of everybody else, however others come."""
    seconds = {f"m{at}": cost for at, cost in enumerate(costs)}
    queues, now, had = Queues(0.0, batching=True), 0.0, dict.fromkeys(seconds, 0.0)
    queues.add(Run(Name("m0"), x(1), None, now))
    for model in seconds:
        for _ in range(60):
            queues.add(Run(Name(model), x(1), None, now))
    for _ in range(60):
        model, now = serve(queues, now, seconds)
        had[model] += seconds[model]
        queues.add(Run(Name(data.draw(st.sampled_from(list(seconds)))), x(1), None, now))
        assert max(had.values()) - min(had.values()) <= max(costs) + 1e-9


def test_of_a_model_whose_run_waits_longest_comes_first():
    queues = Queues(0.0, batching=True)
    for since, component in [(3.0, "c"), (1.0, "a"), (2.0, "b"), (4.0, "a")]:
        queues.add(Run(Name("m", component, 16), x(1), None, since))
    order = []
    while batch := queues.choose(5.0):
        queues.begin(batch)
        order.append((batch.graph.component, batch.rows))
        queues.finish(batch, 5.0)
    assert order == [("a", 2), ("b", 1), ("c", 1)]


def test_queues_know_when_the_next_run_is_ready():
    queues = Queues(2.0, batching=True)
    assert queues.seconds_left(0.0) is None
    coming = Ticket("m")
    queues.expect(coming)
    queues.add(Run(Name("m", "a", 4), x(1), None, 10.0))
    queues.add(Run(Name("m", "b", 4), x(1), None, 11.0))
    assert queues.choose(11.5) is None
    assert queues.seconds_left(11.5) == 0.5
    assert queues.choose(12.0).graph.component == "a"
    queues.forget(coming)
    assert queues.choose(11.5).graph.component == "a"


def test_two_lanes_count_what_still_runs():
    """A model that has a lane for long leaves the other lane to others."""
    queues = Queues(0.0, batching=True)
    for model in ("slow", "fast", "slow", "fast", "fast"):
        queues.add(Run(Name(model), x(1), None, 0.0))
    long = queues.choose(0.0)
    assert long.graph.model == "slow"
    queues.begin(long)
    now = 0.5
    for _ in range(3):
        model, now = serve(queues, now, {"fast": 0.1, "slow": 5.0})
        assert model == "fast"


def test_a_cancelled_run_is_never_computed():
    graph = Held()
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        first = pool.submit(runner.run, x(1))
        graph.entered.acquire(timeout=PATIENCE)
        ticket = Ticket("m")
        future = pool.submit(as_job, ticket, runner, x(1, start=7))
        until(lambda: scheduler.depth("m") == 1)
        stays = queued(pool, scheduler, runner, x(1, start=9))
        ticket.cancel()
        with pytest.raises(Cancelled):  # while the lane is still held
            future.result(PATIENCE)
        assert scheduler.depth("m") == 1
        with pytest.raises(Cancelled):
            as_job(ticket, runner, x(1))
        graph.free()
        assert is_of(first.result(PATIENCE), x(1))
        assert is_of(stays.result(PATIENCE), x(1, start=9))
    assert graph.rows == [1, 1]


def test_a_cancelled_run_in_a_graph_leaves_at_once_and_the_others_stay():
    graph = Held()
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        ticket = Ticket("m")
        scheduler.expect(ticket)
        future = pool.submit(as_job, ticket, runner, x(1))
        graph.entered.acquire(timeout=PATIENCE)
        ticket.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        graph.free()
        assert is_of(runner.run(x(1)), x(1))


def test_a_run_past_its_deadline_is_never_computed():
    graph = Held()
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        first = pool.submit(runner.run, x(1))
        graph.entered.acquire(timeout=PATIENCE)
        ticket = Ticket("m", time.monotonic() + 0.02)
        with pytest.raises(DeadlineError, match="m was not done within"):
            pool.submit(as_job, ticket, runner, x(1)).result(PATIENCE)
        assert scheduler.depth("m") == 0
        graph.free()
        first.result(PATIENCE)
    assert graph.rows == [1]


@pytest.mark.parametrize("how", ["late", "cancelled", "left"])
def test_lanes_drop_what_nobody_waits_for(how):
    clock = Clock()
    queues, ticket = Queues(0.0, batching=True), Ticket("m", 5.0, clock=clock)
    run, other = (Run(Name("m", max_batch=9), x(1), t, 0.0) for t in (ticket, None))
    queues.add(run)
    queues.add(other)
    queues.drop()
    assert queues.depth("m") == 2
    if how == "late":
        clock.now = 5.0
    elif how == "cancelled":
        ticket.cancel()
    else:
        run.left = True
    queues.drop()
    assert queues.depth("m") == 1
    assert queues.choose(0.0).runs == [other]


def test_only_jobs_that_were_expected_are_expected_again():
    """Otherwise one that has ended could be waited for, for ever."""
    queues = Queues(1.0, batching=True)
    expected, unexpected, gone = (Ticket("m") for _ in range(3))
    for ticket in (expected, gone):
        queues.expect(ticket)
    runs = [Run(Name("m"), x(1), ticket, 0.0) for ticket in (unexpected, gone, expected)]
    for run in runs:
        queues.add(run)
    gone.cancel()
    for run in runs[:2]:
        queues.come_back(run)
    queues.remove(runs)
    queues.add(Run(Name("m", max_batch=9), x(1), None, 0.0))
    assert queues.seconds_left(0.0) == -np.inf
    queues.come_back(runs[2])
    assert queues.seconds_left(0.0) == 1.0


@pytest.mark.parametrize("shape", [(), (3,), (1, 2), (4, 2)])
def test_outputs_must_have_the_rows_of_the_inputs(shape):
    class Wrong(Graph):
        def run(self, inputs):
            return {"fine": inputs["x"], "logits": np.zeros(shape, np.float32)}

    with running() as scheduler:
        runner = scheduler.runner("m", "vision", Wrong(), max_batch=16)
        with pytest.raises(InferenceError, match=r"m\.vision gave logits of .* for 2 rows"):
            runner.run(x(2))
        assert [ran.error for ran in scheduler.ran] == [True]


def test_inputs_without_rows_are_refused():
    with running() as scheduler:
        runner = scheduler.runner("m", "c", Graph(), max_batch=16)
        with pytest.raises(InferenceError, match=r"m\.c: inputs without rows"):
            runner.run(x(0))
    assert scheduler.ran == []


def test_inputs_of_different_rows_go_alone_as_they_are():
    """Such as the labels and the picture of a foreign detector."""

    class Odd(Held):
        def run(self, inputs):
            super().run({"x": inputs["x"]})
            return {"logits": np.zeros((1, len(inputs["ids"])))}

    graph = Odd(names=("x", "ids"))
    inputs = {**x(1), "ids": np.zeros((3, 4))}
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        futures = [pool.submit(runner.run, inputs) for _ in range(3)]
        graph.entered.acquire(timeout=PATIENCE)
        until(lambda: scheduler.depth("m") == 2)
        graph.free()
        assert [one["logits"].shape for one in results(futures)] == [(1, 3)] * 3
    assert graph.rows == [1] * 3


def test_a_graph_is_given_what_it_declares():
    graph = Graph(names=("x", "y"))
    with running() as scheduler:
        runner = scheduler.runner("m", "c", graph, max_batch=16)
        runner.run({**x(2), "y": [[1.0], [2.0]], "more": np.zeros(7)})
        runner.run(x(2))  # what is missing is for the session to say
    assert graph.given == [["x", "y"], ["x"]]
    assert runner.inputs is graph.inputs
    assert runner.outputs is graph.outputs
    assert runner.input_shapes is graph.input_shapes


def test_outside_of_jobs_there_is_no_ticket():
    ticket = Ticket("m")
    with working_on(ticket):
        assert current() is ticket
        seen = []
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen == [None]
    assert current() is None


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_counts_are_checked(value):
    with pytest.raises(OptionError, match="lanes is"):
        Scheduler(lanes=value)
    with pytest.raises(OptionError, match="max_batch is"):
        Scheduler().runner("m", "c", Graph(), max_batch=value)


def test_closing_runs_what_waits_and_refuses_the_rest():
    graph = Held()
    with running() as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", graph, max_batch=1)
        futures = [pool.submit(runner.run, x(1)) for _ in range(5)]
        until(lambda: scheduler.depth("m") == 4)
        assert scheduler.healthy()
        closing = threading.Thread(target=scheduler.close)
        closing.start()

        refusals = []

        def refused() -> bool:
            graph.may.release()
            try:
                runner.run(x(1))
            except OverloadError as error:
                refusals.append(error)
            return bool(refusals)

        until(refused)
        assert "stopping" in str(refusals[0])
        assert refusals[0].retry_after > 0
        graph.free()
        closing.join(PATIENCE)
        assert not closing.is_alive()
        assert not scheduler.healthy()
        assert all(is_of(one, x(1)) for one in results(futures))
        scheduler.close()  # as often as one likes


def test_closing_without_lanes_leaves_nobody_waiting():
    with running(start=False) as scheduler, callers() as pool:
        runner = scheduler.runner("m", "c", Graph(), max_batch=1)
        future = queued(pool, scheduler, runner, x(1))
        assert not scheduler.healthy()
        scheduler.close()
        with pytest.raises(OverloadError, match="stopping"):
            future.result(PATIENCE)


def pictures(pattern):
    return sorted((demo.ROOT / "pictures").glob(pattern))


ASKED = {
    "clip": (
        "shape-*.jpg",
        lambda model, path: (
            model.classify(path, ["a red circle", "a blue square"]),
            model.encode_images([path]),
            model.encode_texts(["a red circle", "the second text is longer than that"]),
        ),
    ),
    "owlvit": (
        "shape-*.jpg",
        lambda model, path: model.detect(path, ["a red circle", "a square"], threshold=0.0),
    ),
    "vilt": (
        "scene-*.jpg",
        lambda model, path: model.ask(path, ["what colour is it?", "how many are there?"]),
    ),
}


def plain(value):
    """What a value is made of, to be compared to the bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        return {name: plain(one) for name, one in vars(value).items()}
    return value


@pytest.mark.parametrize("family", ASKED)
def test_models_give_the_same_from_many_threads(family):
    pattern, ask = ASKED[family]
    paths = pictures(pattern) * 6
    alone = vlrt.load(demo.bundle(family))
    expected = [plain(ask(alone, path)) for path in paths[: len(paths) // 6]]
    with running(max_delay_s=0.002) as scheduler, callers(24) as pool:
        model = vlrt.load(
            demo.bundle(family),
            wrap=lambda component, session: scheduler.runner(
                family, component, session, max_batch=16
            ),
        )

        def job(path):
            ticket = Ticket(family)
            scheduler.expect(ticket)
            try:
                with working_on(ticket):
                    return plain(ask(model, path))
            finally:
                scheduler.forget(ticket)

        assert list(pool.map(job, paths)) == expected * 6
    assert max(ran.requests for ran in scheduler.ran) > 1
    assert not any(ran.error for ran in scheduler.ran)
