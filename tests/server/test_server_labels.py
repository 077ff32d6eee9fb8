"""The cache of labels: bounded, one encoding for all who wait, nobody hurt by who leaves."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the server extra")

from vlrt.errors import LabelError
from vlrt.results import LabelSet
from vlrt.server.jobs import Done
from vlrt.server.labels import LabelCache

WIDTH = 8


class Model:
    """Encodes labels to zeros, when it is let to."""

    methods = ("detect", "encode_labels")

    def __init__(self):
        self.calls = []
        self.gate = threading.Event()
        self.gate.set()

    def encode_labels(self, labels, *, templates=None, truncate=False):
        self.calls.append((tuple(labels), templates, truncate))
        assert self.gate.wait(10)
        if "" in labels:
            raise LabelError("label 0 is empty")
        return LabelSet(tuple(labels), np.zeros((len(labels), WIDTH), np.float32), "a model")


class Jobs:
    """Runs every job in a thread of its own, with no bound."""

    async def run(self, model, work):
        return Done(await asyncio.to_thread(work), {})


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def served(model):
    return SimpleNamespace(name="owl", model=model)


def cache(max_bytes=1 << 20):
    return LabelCache(Jobs(), max_bytes)


def test_labels_are_encoded_once(served, model):
    async def run():
        kept = cache()
        first = await kept.encoded(served, ["a", "b"])
        assert await kept.encoded(served, ["a", "b"]) is first
        assert (kept.hits, kept.misses) == (1, 1)
        assert first.labels == ("a", "b")

    asyncio.run(run())
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (["b", "a"], {}),
        (["a"], {}),
        (["a", "b"], {"truncate": True}),
        (["a", "b"], {"templates": ["a {}"]}),
        (["a", "b"], {"templates": {"a": ["{}"], "b": ["one {}"]}}),
    ],
)
def test_what_differs_is_encoded_anew(served, model, labels, options):
    async def run():
        kept = cache()
        await kept.encoded(served, ["a", "b"])
        await kept.encoded(served, labels, **options)
        assert (kept.hits, kept.misses) == (0, 2)

    asyncio.run(run())
    wanted = (tuple(labels), options.get("templates"), options.get("truncate", False))
    assert model.calls[1] == wanted


def test_two_models_do_not_share_labels(served, model):
    other = SimpleNamespace(name="clip", model=Model())

    async def run():
        kept = cache()
        await kept.encoded(served, ["a"])
        await kept.encoded(other, ["a"])
        assert kept.misses == 2

    asyncio.run(run())


def test_those_who_want_the_same_wait_for_one_encoding(served, model):
    model.gate.clear()

    async def run():
        kept = cache()
        tasks = [asyncio.create_task(kept.encoded(served, ["a"])) for _ in range(5)]
        await asyncio.sleep(0.05)
        tasks[0].cancel()  # the one that began it
        await asyncio.sleep(0)
        model.gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert all(each is done[1] for each in done[1:])
        assert isinstance(done[1], LabelSet)

    asyncio.run(run())
    assert len(model.calls) == 1


def test_an_encoding_that_nobody_waits_for_ends(served, model):
    """And whoever wants the same set after that does not get the end of it."""
    model.gate.clear()

    async def run():
        ended = []

        class Watched(Jobs):
            async def run(self, model, work):
                try:
                    return await super().run(model, work)
                except asyncio.CancelledError:
                    ended.append(model)
                    raise

        kept = LabelCache(Watched(), 1 << 20)
        tasks = [asyncio.create_task(kept.encoded(served, ["a"])) for _ in range(2)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        await asyncio.sleep(0.02)
        assert ended == []
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        later = asyncio.create_task(kept.encoded(served, ["a"]))
        await asyncio.sleep(0.02)
        assert ended == ["owl"]
        joined = asyncio.create_task(kept.encoded(served, ["a"]))
        await asyncio.sleep(0.02)
        model.gate.set()
        assert await later is await joined
        assert (kept.hits, kept.misses) == (2, 2)

    asyncio.run(run())
    assert len(model.calls) == 2


def test_a_failure_reaches_all_who_wait_and_is_not_kept(served, model):
    async def run():
        kept = cache()
        tasks = [kept.encoded(served, [""]) for _ in range(3)]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, LabelError) for each in done)
        assert kept.bytes == 0
        with pytest.raises(LabelError):
            await kept.encoded(served, [""])

    asyncio.run(run())
    assert len(model.calls) == 2


def test_memory_is_bounded_and_the_oldest_goes_first(served, model):
    async def run():
        one = cache()
        await one.encoded(served, ["a0"])
        kept = cache(max_bytes=3 * one.bytes)
        for name in ("a0", "a1", "a2"):
            await kept.encoded(served, [name])
        await kept.encoded(served, ["a0"])  # used again
        await kept.encoded(served, ["a3"])  # a1 goes
        assert kept.bytes == 3 * one.bytes
        before = kept.misses
        for name in ("a0", "a2", "a3"):
            await kept.encoded(served, [name])
        assert kept.misses == before
        await kept.encoded(served, ["a1"])
        assert kept.misses == before + 1

    asyncio.run(run())


@pytest.mark.parametrize("max_bytes", [0, 10])
def test_a_set_larger_than_the_bound_is_given_and_not_kept(served, model, max_bytes):
    async def run():
        kept = cache(max_bytes)
        for _ in range(2):
            assert len(await kept.encoded(served, ["a"])) == 1
        assert (kept.bytes, kept.misses) == (0, 2)

    asyncio.run(run())


def test_a_detector_of_one_graph_gets_its_labels_as_they_are(served, model):
    model.methods = ("detect",)
    labels = ["a", "b"]
    assert asyncio.run(cache().encoded(served, labels)) is labels
    assert model.calls == []
