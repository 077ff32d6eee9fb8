"""Graphs, clocks and threads for the tests of the server's core."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from vlrt.server.batching import Ran, Scheduler
from vlrt.session import Tensor

PATIENCE = 20  # seconds after which a test gives up; none waits for them to pass


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.0005)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Graph:
    """Doubles `x` and sums its rows, and records the shapes that it was run on.

    Rows that begin with a negative number are poison: the error says which.
    """

    def __init__(self, names: Sequence[str] = ("x",), poison: type[BaseException] = ValueError):
        self.inputs = {name: Tensor(np.dtype(np.float32), (None, None)) for name in names}
        self.outputs = {"double": Tensor(np.dtype(np.float32), (None, None))}
        self.input_shapes = {name: tensor.shape for name, tensor in self.inputs.items()}
        self.poison = poison
        self.shapes: list[tuple[int, ...]] = []
        self.given: list[list[str]] = []

    def run(self, inputs):
        self.given.append(sorted(inputs))
        x = inputs["x"]
        self.shapes.append(x.shape)
        first = x.reshape(len(x), -1)[:, 0]
        if (first < 0).any():
            raise self.poison(f"poison {first.min():g}")
        return {"double": x * 2, "sum": x.reshape(len(x), -1).sum(axis=1)}

    @property
    def rows(self) -> list[int]:
        return [shape[0] for shape in self.shapes]


class Held(Graph):
    """One that does not go on before it may, run by run."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.entered = threading.Semaphore(0)
        self.may = threading.Semaphore(0)

    def run(self, inputs):
        self.entered.release()
        assert self.may.acquire(timeout=PATIENCE)
        return super().run(inputs)

    def free(self) -> None:
        """Let it go on from now on."""
        self.may.release(10_000)


class Timed(Graph):
    """One whose runs move a clock, and are noted in a list."""

    def __init__(self, clock: Clock, seconds: float, notes: list[str], name: str) -> None:
        super().__init__()
        self.clock, self.seconds, self.notes, self.name = clock, seconds, notes, name

    def run(self, inputs):
        self.clock.now += self.seconds
        self.notes.append(self.name)
        return super().run(inputs)


def x(rows: int, width: int = 2, start: float = 0.0, dtype=np.float32):
    """Inputs whose numbers are all different."""
    return {"x": np.arange(start, start + rows * width).astype(dtype).reshape(rows, width)}


def is_of(outputs, inputs) -> bool:
    """Whether outputs are those of the inputs, to the bit."""
    own = Graph().run(inputs)
    return outputs.keys() == own.keys() and all(np.array_equal(outputs[n], own[n]) for n in own)


@contextmanager
def running(start: bool = True, **options):
    """A scheduler with what it observes as `ran`, closed at the end."""
    ran: list[Ran] = []
    scheduler = Scheduler(**{"observe": ran.append, "max_delay_s": 0.0, **options})
    scheduler.ran = ran
    if start:
        scheduler.start()
    try:
        yield scheduler
    finally:
        scheduler.close()


@contextmanager
def callers(number: int = 80):
    """A pool of threads; all have ended at the end."""
    with ThreadPoolExecutor(number) as pool:
        yield pool


def queued(pool, scheduler, runner, inputs) -> Future:
    """Call a runner in a thread, and wait until it waits."""
    before = scheduler.depth(runner.model)
    future = pool.submit(runner.run, inputs)
    until(lambda: scheduler.depth(runner.model) > before or future.done())
    return future


def results(futures):
    """What futures gave, errors too."""
    return [f.exception(PATIENCE) or f.result(PATIENCE) for f in futures]
