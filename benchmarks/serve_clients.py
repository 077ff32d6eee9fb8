"""The load generator of `vlrt bench serve`, one process: many clients, of whom each is little work.

    python -m vlrt_benchmarks.serve_clients FOLDER

FOLDER holds `requests.json`, as `serve_requests.keep` writes it, and the requests themselves. The
first line printed is {"requests": N}. Then each line read is a step, and a line of JSON tells what
it found. All steps have `port`, `order` (numbers of requests, which are asked in turn, over and
over) and `timeout_s`; a closed loop has `clients` and `seconds`, an open one `per_second`,
`seconds` and `seed`. It ends with its input.

What is found: `rows`, one a request, in the order in which they ended:

    [request, outcome, due_s, latency_s, late_s, retry_after]

`outcome` is the status of HTTP, or the name of what came in its place. `due_s` counts from the
window's opening. In an open loop it is when the request was due, and `latency_s` counts from there
(no "coordinated omission"); `late_s` is how long after that it was sent. Then `cpu_share`, how much
of one processor the generator used, and `connections`, how many it made.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .load_loops import schedule
from .serve_http import Connections, Failure
from .serve_requests import Request, kept

Row = list[Any]
# Asks for the request with this number of the step, which is due at this reading of the clock.
Ask = Callable[[int, float], Awaitable[Row]]
OTHER_ANSWER = "another answer than before"
# A client that was refused asks again after so long; at once it would only burn time.
_AGAIN_S = 0.05
_DIGITS = 6
_OK, _REFUSED = 200, 500


class Asking:
    """Asks a server for requests, and says what came of each.

    Args:
        requests: those that can be asked.
        known: the first good answer to each, by number; filled in here, and shared by all steps.
        connections: to the server.
        order: which of the requests is asked, in turn.
    """

    def __init__(
        self,
        requests: list[Request],
        known: dict[int, bytes],
        connections: Connections,
        order: list[int],
    ) -> None:
        self._requests, self._known = requests, known
        self._connections, self._order = connections, order

    async def __call__(self, number: int, due: float) -> Row:
        """Ask.

        Args:
            number: of the step's requests.
            due: reading of `time.perf_counter`.

        Returns:
            A row, whose `due_s` is still the clock's reading.
        """
        at = self._order[number % len(self._order)]
        request = self._requests[at]
        sent, outcome, retry_after = time.perf_counter(), None, None
        try:
            answer = await self._connections.ask(request.raw, request.leave_after_s)
        except Failure as failure:
            outcome = str(failure)
        else:
            outcome, retry_after = answer.status, answer.retry_after
            same = request.repeats and outcome == _OK
            if same and self._known.setdefault(at, answer.body) != answer.body:
                outcome = OTHER_ANSWER
        ended = time.perf_counter()
        return [at, outcome, due, round(ended - due, _DIGITS), round(sent - due, _DIGITS),
                retry_after]  # fmt: skip


async def closed(ask: Ask, clients: int, seconds: float) -> list[Row]:
    """Clients that each ask again as soon as they have their answer.

    The window opens when each of them has had one answer. What is under way when it closes is
    waited for; its row shows that it ended too late to count.
    """
    rows: list[Row] = []
    numbers = iter(range(sys.maxsize))
    ready, over = asyncio.Semaphore(0), asyncio.Event()

    async def client() -> None:
        first = True
        while not over.is_set():
            row = await ask(next(numbers), time.perf_counter())
            rows.append(row)
            if first:
                first = False
                ready.release()
            if not isinstance(row[1], int) or row[1] >= _REFUSED:
                await asyncio.sleep(_AGAIN_S)

    running = [asyncio.create_task(client()) for _ in range(clients)]
    for _ in range(clients):
        await ready.acquire()
    opened = time.perf_counter()
    await asyncio.sleep(seconds)
    over.set()
    await asyncio.gather(*running)
    return _since(rows, opened)


async def open_loop(ask: Ask, due: list[float]) -> list[Row]:
    """Requests that are sent when they are due, whether others were answered or not.

    All of them are waited for: each ends with an answer or with a failure.

    Args:
        ask: see above.
        due: seconds since the window opens, rising.
    """
    rows: list[Row] = []
    running: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks but weakly

    async def one(number: int, at: float) -> None:
        rows.append(await ask(number, at))

    opened = time.perf_counter()
    for number, offset in enumerate(due):
        # Also where it is late it lets others go on, or answers would wait for the last request.
        await asyncio.sleep(max(0.0, opened + offset - time.perf_counter()))
        task = asyncio.create_task(one(number, opened + offset))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return _since(rows, opened)


async def step(requests: list[Request], known: dict[int, bytes], told: dict[str, Any]) -> Any:
    """Do one step; what it found."""
    connections = Connections("127.0.0.1", told["port"], told["timeout_s"])
    ask = Asking(requests, known, connections, told["order"])
    started, used = time.perf_counter(), time.process_time()
    if "clients" in told:
        rows = await closed(ask, told["clients"], told["seconds"])
    else:
        due = schedule(told["per_second"], told["seconds"], told["seed"])
        rows = await open_loop(ask, [float(one) for one in due])
    share = (time.process_time() - used) / (time.perf_counter() - started)
    await connections.close()
    return {"rows": rows, "cpu_share": round(share, 4), "connections": connections.opened}


def _since(rows: list[Row], opened: float) -> list[Row]:
    """The same with `due_s` since the window's opening."""
    return [[at, what, round(due - opened, _DIGITS), *rest] for at, what, due, *rest in rows]


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets this process have."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows, which has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Generate load as the lines read say."""
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _raise_file_limit()
    requests = kept(Path(sys.argv[1]))
    known: dict[int, bytes] = {}
    print(json.dumps({"requests": len(requests)}), file=answers, flush=True)
    for line in sys.stdin:
        gc.collect()
        gc.disable()  # a collection in the middle of a step would be latency
        found = asyncio.run(step(requests, known, json.loads(line)))
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
