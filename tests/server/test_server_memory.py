"""Memory of a real `vlrt serve` after some thousand requests: no more than after the first ones.

How it goes over minutes, with several models at once, `vlrt bench serve --soak` measures.
"""

import sys

import pytest

pytest.importorskip("psutil", reason="memory is asked of psutil")
pytest.importorskip("fastapi", reason="needs the server extra")

from vlrt import demo
from vlrt_benchmarks import serve_process, serve_requests, serve_sums

CLIENTS, EVERY_S, WINDOWS, MOST_MIB = 4, 5.0, 4, 16.0
MODEL = serve_requests.Served("c", "classify")


@pytest.mark.skipif(sys.platform != "linux", reason="the heaps of other systems are not glibc's")
def test_memory_does_not_grow_with_requests(tmp_path, monkeypatch):
    # Of many heaps, one a thread, each keeps what its largest picture took; that is no leak, and
    # takes minutes to settle.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    requests = [one for one in serve_requests.mixed([MODEL]) if "4000x3000" not in one.name]
    serve_requests.keep(requests, tmp_path)
    order, found, answered = list(range(len(requests))), [], 0
    with (
        serve_process.serving("a server", {"c": demo.bundle("clip")}, []) as server,
        serve_process.clients(tmp_path) as clients,
    ):
        told = {"port": server.port, "order": order, "timeout_s": 60.0, "clients": CLIENTS}
        for _ in range(WINDOWS):
            rows = clients.step({**told, "seconds": EVERY_S})["rows"]
            found.append(server.rss_mib())
            counted = serve_sums.counted(rows, requests)
            assert counted["failures"] == {}
            answered += sum(counted["answers"].values())
    assert server.exit_code == 0
    assert answered > 50  # however slow the machine is
    growth = found[-1] - found[0]
    print(f"{answered} answers; MiB: {found}")
    assert growth < MOST_MIB, found
