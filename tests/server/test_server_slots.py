"""Slots: how many threads work, and whose turn it is."""

import threading
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_graphs import PATIENCE, callers, results, until

from vlrt.errors import OptionError
from vlrt.server.bells import Bell
from vlrt.server.slots import Slots


def never(_bell) -> None:
    raise AssertionError("it had to wait")


class Line:
    """Threads that wait for slots, one after the other, and what they got when."""

    def __init__(self, slots, pool) -> None:
        self.slots, self.pool = slots, pool
        self.order: list[str] = []
        self.futures = []

    def join(self, name, model, *, resumed=False) -> None:
        """Wait for a slot in a thread of its own; when it has one, note it and give it back."""
        waits = threading.Event()

        def wait(bell) -> None:
            waits.set()
            bell.wait()

        def work() -> None:
            self.slots.acquire(model, resumed=resumed, wait=wait)
            self.order.append(name)
            self.slots.release()

        self.futures.append(self.pool.submit(work))
        assert waits.wait(PATIENCE)

    def end(self) -> list[str]:
        self.slots.release()
        assert results(self.futures) == [None] * len(self.futures)
        return self.order


@pytest.mark.parametrize(
    ("joined", "order"),
    [
        (["a1", "a2", "a3"], ["a1", "a2", "a3"]),
        (["a1", "a2", "a3", "b1"], ["a1", "b1", "a2", "a3"]),
        (["a1", "a2", "b1", "b2", "c1"], ["a1", "b1", "c1", "a2", "b2"]),
        (["a1", "a2", "!a3", "!b1", "b2"], ["!a3", "!b1", "a1", "b2", "a2"]),
        (["!b1", "a1", "!a2"], ["!b1", "!a2", "a1"]),
    ],
)
def test_the_resumed_come_first_then_the_models_in_turn(joined, order):
    slots = Slots(1)
    slots.acquire("x")
    with callers() as pool:
        line = Line(slots, pool)
        for name in joined:
            line.join(name, name.strip("!")[0], resumed=name.startswith("!"))
        assert line.end() == order


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=30),
)
def test_never_more_work_than_there_are_slots(number, jobs):
    slots, lock, working, most = Slots(number), threading.Lock(), 0, 0

    def work(model, resumed) -> None:
        nonlocal working, most
        slots.acquire(model, resumed=resumed)
        with lock:
            working += 1
            most = max(most, working)
        time.sleep(0.0002)
        with lock:
            working -= 1
        slots.release()

    with callers(30) as pool:
        assert results([pool.submit(work, *job) for job in jobs]) == [None] * len(jobs)
    assert 1 <= most <= number
    for _ in range(number):  # all are back
        slots.acquire("x", wait=never)


class GoneError(Exception):
    pass


def test_one_that_waits_no_more_leaves_the_line():
    slots = Slots(1)
    slots.acquire("x")

    def gone(_bell) -> None:
        raise GoneError

    with callers() as pool:
        line = Line(slots, pool)
        for resumed in (False, True):
            with pytest.raises(GoneError):
                slots.acquire("a", resumed=resumed, wait=gone)
        line.join("a1", "a")
        with pytest.raises(GoneError):
            slots.acquire("a", wait=gone)
        line.join("b1", "b")
        assert line.end() == ["a1", "b1"]


def test_a_slot_that_comes_when_its_thread_has_left_is_passed_on():
    slots = Slots(1)
    slots.acquire("x")

    def gone(_bell) -> None:
        slots.release()  # to this very thread
        raise GoneError

    with pytest.raises(GoneError):
        slots.acquire("a", wait=gone)
    with callers() as pool:
        slots.acquire("a")
        line = Line(slots, pool)
        line.join("b1", "b")
        assert line.end() == ["b1"]


def test_a_bell_that_rings_for_nothing_gives_no_slot():
    slots = Slots(1)
    slots.acquire("x")
    bells = []

    def wait(bell) -> None:
        bells.append(bell)
        bell.wait()

    with callers() as pool:
        future = pool.submit(slots.acquire, "a", wait=wait)
        until(lambda: len(bells) == 1)
        bells[0].ring()
        until(lambda: len(bells) == 2)
        assert not future.done()
        slots.release()
        assert future.result(PATIENCE) is None


def test_of_a_model_no_more_begin_than_are_of_use_and_others_go_past():
    slots = Slots(2, {"a": 2, "b": 1}.__getitem__)
    for _ in range(2):
        slots.acquire("a")
        slots.release()  # they wait for a graph
    with callers() as pool:
        line = Line(slots, pool)
        line.join("a3", "a")
        line.join("a4", "a")
        slots.acquire("b", wait=never)
        slots.acquire("a", resumed=True, wait=never)  # one of the two goes on
        slots.release()
        slots.release()
        assert line.order == []
        slots.end("b")
        assert line.order == []
        slots.end("a")
        until(lambda: line.order == ["a3"])  # it has given its slot back, and has not ended
        slots.end("a")
        until(lambda: line.order == ["a3", "a4"])
        assert results(line.futures) == [None, None]


def test_one_that_left_before_it_began_does_not_count_as_begun():
    slots = Slots(1, lambda _model: 1)
    slots.acquire("a")

    def gone(_bell) -> None:
        slots.release()
        slots.end("a")  # from which the turn is this very thread's
        raise GoneError

    with pytest.raises(GoneError):
        slots.acquire("a", wait=gone)
    slots.acquire("a", wait=never)


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), min_size=1, max_size=24),
)
def test_all_have_their_turn_however_few_may_begin(number, most, jobs):
    slots, lock = Slots(number, lambda _model: most), threading.Lock()
    begun, largest = Counter(), Counter()

    def count(model, change) -> None:
        with lock:
            begun[model] += change
            largest[model] = max(largest[model], begun[model])

    def work(model, turns) -> None:
        slots.acquire(model)
        count(model, +1)
        for _ in range(turns):
            slots.release()
            slots.acquire(model, resumed=True)
        count(model, -1)
        slots.release()
        slots.end(model)

    with callers(24) as pool:
        assert results([pool.submit(work, *job) for job in jobs]) == [None] * len(jobs)
    assert max(largest.values()) <= most


@pytest.mark.parametrize("number", [0, -1, 1.5, "2"])
def test_the_number_is_checked(number):
    with pytest.raises(OptionError, match="slots is"):
        Slots(number)


def test_a_bell_that_rang_before_is_not_missed_and_rings_once():
    bell = Bell()
    for _ in range(3):
        bell.ring()
    bell.wait()  # at once
    with callers() as pool:
        future = pool.submit(bell.wait)
        bell.wait(0.0)  # one of the two took nothing
        bell.ring()
        assert future.result(PATIENCE) is None
    bell.wait(-1.0)
