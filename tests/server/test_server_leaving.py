"""A request lasts no longer than its client, nor than it may."""

import asyncio

import pytest

pytest.importorskip("fastapi", reason="needs the server extra")

from vlrt.errors import DeadlineError, TextError
from vlrt.server.leaving import GoneError, unless_gone


class Request:
    """A request whose client stays, until it is told to leave."""

    def __init__(self):
        self.leaves = asyncio.Event()

    async def receive(self):
        await self.leaves.wait()
        return {"type": "http.disconnect"}


class Work:
    """Work that takes for ever, and knows that it was stopped."""

    stopped = False

    async def do(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped = True


async def done():
    return 5


async def failing():
    raise TextError("no")


def test_work_that_is_done_gives_its_result():
    async def run():
        return await unless_gone(Request(), done(), 60)

    assert asyncio.run(run()) == 5


def test_work_that_fails_gives_its_error():
    async def run():
        await unless_gone(Request(), failing(), 60)

    with pytest.raises(TextError, match="no"):
        asyncio.run(run())


def test_work_for_a_client_that_leaves_is_stopped():
    work = Work()

    async def run():
        request = Request()
        serving = asyncio.ensure_future(unless_gone(request, work.do(), 60))
        await asyncio.sleep(0)
        request.leaves.set()
        with pytest.raises(GoneError):
            await serving

    asyncio.run(run())
    assert work.stopped


def test_work_that_takes_too_long_is_stopped():
    work = Work()

    async def run():
        with pytest.raises(DeadlineError, match=r"within 0\.01 s; retry"):
            await unless_gone(Request(), work.do(), 0.01)

    asyncio.run(run())
    assert work.stopped


def test_a_server_that_ends_stops_the_work():
    work = Work()

    async def run():
        serving = asyncio.ensure_future(unless_gone(Request(), work.do(), 60))
        await asyncio.sleep(0.01)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    asyncio.run(run())
    assert work.stopped
