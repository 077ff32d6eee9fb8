"""A server that does what a path says, for the clients of `vlrt bench serve`; a program as well.

    python fake_server.py PORT

Paths are `/<what>` or `/<what>/...`: see `_ANSWERS` and `_MISBEHAVIOURS`. A POST to /v1/... takes
one of `PLACES` and a little time, and is refused with 503 if there is none.
"""

import asyncio
import contextlib
import signal
import sys
import threading

PLACES, WORK_S = 4, 0.004


def answer(status, body=b"{}", *headers):
    lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


_ANSWERS = {
    "ok": answer(200, b'{"fine": true}'),
    "health": answer(200),
    "busy": answer(503, b"{}", "Retry-After: 2"),
    "rude": answer(503),
    "broken": answer(500, b"oh"),
    "closing": answer(200, b"bye", "Connection: close"),
    "garbage": b"SMTP hello\r\n\r\n",
    "endless": b"HTTP/1.1 200 OK\r\n\r\nwithout an end",
    "odd": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
}


class FakeServer:
    """Counts what it is asked; `port` once `started`."""

    def __init__(self):
        self.port, self.asked, self.connections, self.taken = None, [], 0, 0

    async def serve(self, port=0):
        server = await asyncio.start_server(self.client, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def client(self, reader, writer):
        self.connections += 1
        try:
            with contextlib.suppress(OSError, EOFError):
                while await self.one(reader, writer):
                    pass
        finally:
            writer.close()  # after what is written

    async def one(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        _, path, *_ = head.decode().split()
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-len")]
        if lengths:
            await reader.readexactly(int(lengths[0].split(b":")[1]))
        what = path.split("/")[1]
        self.asked.append(path)
        if what == "gone":
            return False
        if what == "half":
            writer.write(answer(200, b"x" * 1000)[:-10])
            await writer.drain()
            return False
        if what == "silent":
            await asyncio.sleep(3600)
        if what == "slow":
            await asyncio.sleep(0.05)
            writer.write(_ANSWERS["ok"])
        elif what == "changing":
            writer.write(answer(200, str(len(self.asked)).encode()))
        elif what == "v1":
            writer.write(await self.worked())
        else:
            writer.write(_ANSWERS.get(what, answer(404)))
        await writer.drain()
        return what not in ("closing", "garbage", "endless", "odd")

    async def worked(self):
        if self.taken == PLACES:
            return _ANSWERS["busy"]
        self.taken += 1
        await asyncio.sleep(WORK_S)
        self.taken -= 1
        return _ANSWERS["ok"]


@contextlib.contextmanager
def fake_server():
    """A server in a thread of its own."""
    server, loop, ready = FakeServer(), asyncio.new_event_loop(), threading.Event()
    over = asyncio.Event()

    async def live():
        listening = await server.serve()
        ready.set()
        await over.wait()
        listening.close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # what is closed ends in the loop's next turns

    thread = threading.Thread(target=loop.run_until_complete, args=[live()])
    thread.start()
    try:
        assert ready.wait(60)
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    async def live():
        await FakeServer().serve(int(sys.argv[1]))
        await asyncio.sleep(3600)

    asyncio.run(live())


if __name__ == "__main__":
    main()
