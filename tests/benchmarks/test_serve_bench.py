"""`vlrt bench serve`: its clients, what they count, what samples say, and a small real run."""

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import math
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("psutil", reason="memory is asked of psutil")
pytest.importorskip("scipy", reason="intervals are scipy's")

import fake_server
from PIL import Image

from vlrt import demo
from vlrt.errors import BenchmarkError, OptionError
from vlrt_benchmarks import (
    serve,
    serve_clients,
    serve_http,
    serve_process,
    serve_requests,
    serve_soak,
)
from vlrt_benchmarks import serve_steps as steps
from vlrt_benchmarks import serve_sums as sums
from vlrt_benchmarks.journal import Journal
from vlrt_benchmarks.load_loops import schedule
from vlrt_benchmarks.serve_requests import Request, Served, get
from vlrt_benchmarks.stats import Estimate

HERE = Path(__file__).parent


# --- the client -----------------------------------------------------------------------------------


def asked(*paths, port=None, timeout_s=30.0, leave_after_s=None):
    """What came of requests, one after the other, and the server that was asked."""

    async def all_of_them(server_port):
        connections = serve_http.Connections("127.0.0.1", server_port, timeout_s)
        found = []
        for path in paths:
            try:
                found.append(await connections.ask(get("", path).raw, leave_after_s))
            except serve_http.Failure as failure:
                found.append(str(failure))
        await connections.close()
        return found, connections.opened

    if port is not None:
        return asyncio.run(all_of_them(port))[0], None, None
    with fake_server.fake_server() as server:
        found, opened = asyncio.run(all_of_them(server.port))
        return found, opened, server


@pytest.mark.parametrize(
    ("path", "failure"),
    [
        ("/gone", "connection lost"),
        ("/half", "connection lost"),
        ("/garbage", r"unreadable answer: begins with b'SMTP hello'"),
        ("/endless", "unreadable answer: no Content-Length"),
        ("/odd", "unreadable answer: invalid literal for int"),
    ],
)
def test_what_is_no_answer_has_a_name_and_the_next_request_a_new_connection(path, failure):
    (first, second), opened, server = asked(path, "/ok")
    assert first.startswith(failure)
    assert (second.status, second.body) == (200, b'{"fine": true}')
    assert opened == server.connections == 2
    assert server.asked == [path, "/ok"]  # nothing is asked twice


def test_a_connection_is_kept_unless_the_server_closes_it():
    found, opened, server = asked("/ok", "/busy", "/closing", "/ok", "/broken")
    assert [one.status for one in found] == [200, 503, 200, 200, 500]
    assert [one.retry_after for one in found] == [None, "2", None, None, None]
    assert opened == server.connections == 2


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch):
    monkeypatch.setattr(serve_http, "_IDLE_S", 0.0)
    found, opened, _ = asked("/ok", "/ok", "/ok")
    assert ([one.status for one in found], opened) == ([200] * 3, 3)


def test_silence_is_a_timeout_and_going_away_is_not():
    (found, after), *_ = asked("/silent", "/ok", timeout_s=0.05)
    assert (found, after.status) == ("timed out", 200)
    (found, after), *_ = asked("/silent", "/ok", leave_after_s=0.05)
    assert (found, after.status) == ("left", 200)
    (found,), *_ = asked("/ok", leave_after_s=30.0)
    assert found.status == 200


def test_where_nobody_listens_a_request_is_refused():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (found,), *_ = asked("/ok", port=free.getsockname()[1])
    assert found == "refused"


# --- loops ----------------------------------------------------------------------------------------


def run_step(paths, **told):
    """A step against the fake server, and the server."""
    requests = [get(path, path) for path in paths]
    with fake_server.fake_server() as server:
        told = {"port": server.port, "order": list(range(len(paths))), "timeout_s": 5.0, **told}
        return asyncio.run(serve_clients.step(requests, {}, told)), server


def test_a_closed_loop_asks_in_turn_and_its_window_opens_after_the_first_answers():
    found, server = run_step(["/ok", "/slow"], clients=3, seconds=0.2)
    rows = found["rows"]
    assert len(rows) == len(server.asked)
    assert abs(server.asked.count("/ok") - server.asked.count("/slow")) <= 1
    assert found["connections"] == server.connections == 3
    assert {row[1] for row in rows} == {200}
    assert sum(row[2] < 0 for row in rows) >= 3
    assert all(row[2] <= 0.2 for row in rows)
    assert all(row[4] <= row[3] for row in rows)


@pytest.mark.parametrize("path", ["/gone", "/busy", "/broken"])
def test_a_client_that_was_refused_does_not_spin(path, monkeypatch):
    monkeypatch.setattr(serve_clients, "_AGAIN_S", 0.1)
    found, _ = run_step([path], clients=2, seconds=0.5)
    assert 4 <= len(found["rows"]) <= 2 * 7


def test_in_an_open_loop_every_request_is_asked_once_and_has_a_row():
    told = {"per_second": 200.0, "seconds": 0.5, "seed": 3}
    found, server = run_step(["/ok", "/busy", "/gone"], **told)
    due = schedule(200.0, 0.5, 3)
    rows = sorted(found["rows"], key=lambda row: row[2])
    np.testing.assert_allclose([row[2] for row in rows], due, atol=2e-6)
    assert len(server.asked) == len(due)
    assert [row[0] for row in rows] == [number % 3 for number in range(len(due))]
    outcomes = [200, 503, "connection lost"]
    assert all(row[1] == outcomes[row[0]] for row in rows)
    assert all(row[5] == ("2" if row[1] == 503 else None) for row in rows)
    assert all(row[3] >= row[4] >= 0 for row in rows)


def test_nothing_due_is_nothing_asked():
    found, server = run_step(["/ok"], per_second=0.01, seconds=0.01, seed=0)
    assert (found["rows"], server.asked) == ([], [])


def test_latency_counts_from_when_a_request_was_due():
    async def stalled():
        async def ask(number, due):
            if number == 0:
                serve_clients.time.sleep(0.2)  # nobody else is served meanwhile
            now = serve_clients.time.perf_counter()
            return [0, 200, due, now - due, 0.0, None]

        return await serve_clients.open_loop(ask, [0.0, 0.05, 0.1])

    rows = asyncio.run(stalled())
    assert [round(row[2], 3) for row in rows] == [0.0, 0.05, 0.1]
    # All waited for the first one, though none of them took any time itself.
    assert all(row[3] >= 0.2 - row[2] - 1e-6 for row in rows)


def test_another_answer_to_the_same_request_is_no_answer():
    found, _ = run_step(["/changing", "/ok"], clients=1, seconds=0.1)
    changing = [row[1] for row in found["rows"] if row[0] == 0]
    assert changing[0] == 200
    assert set(changing[1:]) == {serve_clients.OTHER_ANSWER}
    assert {row[1] for row in found["rows"] if row[0] == 1} == {200}


# --- requests -------------------------------------------------------------------------------------


def parsed(raw):
    """A request's first line, its Content-Type and its body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["Content-Length"]) == len(body)
    return first, headers["Content-Type"], body


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("classify", {"labels": ["a", "b c"]}),
        ("detect", {"labels": ["a", "b c"]}),
        ("ask", {"question": serve_requests.QUESTION}),
    ],
)
def test_a_request_says_the_same_as_json_and_as_a_form(method, told):
    import base64
    import email

    model = Served("m", method)
    one, other = (
        parsed(
            serve_requests.post("", model, b"\x00\r\n--\xff", body=body, labels=["a", "b c"]).raw
        )
        for body in ("json", "multipart")
    )
    assert one[0] == other[0] == f"POST /v1/{method} HTTP/1.1"
    content = json.loads(one[2])
    assert base64.b64decode(content.pop("image")) == b"\x00\r\n--\xff"
    assert content == {"model": "m", **told}
    form = email.message_from_bytes(f"Content-Type: {other[1]}\r\n\r\n".encode() + other[2])
    parts = [
        (part.get_param("name", header="content-disposition"), part.get_payload(decode=True))
        for part in form.get_payload()
    ]
    assert parts.pop() == ("image", b"\x00\r\n--\xff")
    said = [value.encode() for value in next(iter(told.values()))] if "labels" in told else None
    key = next(iter(told))
    assert parts == [
        ("model", b"m"),
        *((key, one) for one in (said or [told[key].encode()])),
    ]


def test_requests_are_kept_as_they_are(tmp_path):
    requests = [
        get("one", "/a"),
        Request("two", b"\x00\xff", expected=422, repeats=False, leave_after_s=0.5, weight=0.25),
    ]
    serve_requests.keep(requests, tmp_path)
    assert serve_requests.kept(tmp_path) == requests


def test_a_drawn_photograph_weighs_what_a_photograph_does():
    first, again, other = (serve_requests.jpeg((640, 480), seed) for seed in (0, 0, 1))
    assert first == again != other
    with Image.open(io.BytesIO(first)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (640, 480))
    assert 40_000 < len(first) < 250_000


def test_a_vast_picture_is_a_small_file():
    file = serve_requests.vast_png(9000)
    assert len(file) < 200
    with Image.open(io.BytesIO(file)) as opened:
        assert opened.size == (9000, 9000)


def test_a_mixture_holds_every_kind_and_more_of_what_weighs_more():
    models = [Served("c", "classify"), Served("o", "detect"), Served("v", "ask")]
    requests = serve_requests.mixed(models)
    statuses = {one.expected for one in requests}
    assert statuses == {200, 400, 404, 413, 422}
    assert any(one.leave_after_s for one in requests)
    order = serve_soak.mixture(requests, 0)
    assert order == serve_soak.mixture(requests, 0) != serve_soak.mixture(requests, 1)
    times = np.bincount(order, minlength=len(requests))
    assert (times > 0).all()
    weights = np.array([one.weight for one in requests])
    assert np.corrcoef(times, weights)[0, 1] > 0.9
    bad = sum(times[at] for at, one in enumerate(requests) if one.expected != 200)
    assert 0.03 < bad / len(order) < 0.35


# --- what rows say --------------------------------------------------------------------------------

KINDS = [get("good", "/"), get("bad", "/", expected=422), get("leaver", "/", leave_after_s=1)]


def row(at, outcome, due=0.0, latency=0.1, late=0.0, again=None):
    return [at, outcome, due, latency, late, again]


@pytest.mark.parametrize(
    ("rows", "answers", "left", "failures"),
    [
        ([], {}, 0, {}),
        ([row(0, 200), row(0, 503), row(1, 422)], {"200": 1, "422": 1, "503": 1}, 0, {}),
        ([row(1, 503), row(2, 503)], {"503": 2}, 0, {}),
        ([row(0, 422), row(1, 200)], {}, 0, {"422 to good": 1, "200 to bad": 1}),
        ([row(0, 500), row(0, 500)], {}, 0, {"500 to good": 2}),
        ([row(0, "refused"), row(0, "timed out"), row(1, "refused")], {}, 0,
         {"refused": 2, "timed out": 1}),
        ([row(2, "left"), row(2, 200), row(2, "connection lost")], {"200": 1}, 1,
         {"connection lost": 1}),
    ],
)  # fmt: skip
def test_every_request_is_counted_once(rows, answers, left, failures):
    found = sums.counted(rows, KINDS)
    assert found == {"asked": len(rows), "answers": answers, "left": left, "failures": failures}


OUTCOMES = st.sampled_from([200, 422, 500, 503, "refused", "left", "timed out"])


@given(st.lists(st.tuples(st.integers(0, 2), OUTCOMES)))
def test_counts_add_up(pairs):
    found = sums.counted([row(*pair) for pair in pairs], KINDS)
    counted = sum(found["answers"].values()) + found["left"] + sum(found["failures"].values())
    assert counted == found["asked"] == len(pairs)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], 0.0),
        ([row(0, 200, 0.0, 0.5), row(0, 200, -0.2, 0.1), row(0, 200, -0.2, 0.3)], 1.0),
        ([row(0, 200, 1.9, 0.1), row(0, 200, 1.9, 0.2)], 0.5),
        ([row(0, 503), row(0, "refused"), row(1, 200), row(1, 422)], 0.5),
    ],
)
def test_right_answers_within_the_window_are_throughput(rows, expected):
    assert sums.per_second(rows, KINDS, 2.0) == expected


def test_a_loop_without_a_right_answer_says_what_came():
    with pytest.raises(BenchmarkError, match=r"a step: no right answer .* \{'503': 2\}; take"):
        sums.throughput([row(0, 503), row(0, 503)], KINDS, 1.0, "a step")


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=300))
def test_percentiles_are_the_samples_own(latencies):
    found = sums.percentiles(latencies)
    low, high = min(latencies) * 1e3, max(latencies) * 1e3
    ranked = [low, found["p50_ms"], found["p95_ms"], found["p99_ms"], found["max_ms"]]
    assert all(a <= b or math.isclose(a, b) for a, b in itertools.pairwise(ranked))
    assert found["max_ms"] == pytest.approx(high)
    assert found["runs"] == len(latencies)
    for key, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        below = sum(one * 1e3 <= found[key] * (1 + 1e-9) for one in latencies)
        assert below >= math.floor(share * (len(latencies) - 1)) + 1


def test_no_latencies_have_no_percentiles():
    assert sums.percentiles([]) == {"runs": 0}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], {"missing": 0, "least_s": None, "most_s": None}),
        (["1", "30", "2"], {"missing": 0, "least_s": 1, "most_s": 30}),
        ([None, "soon", "1.5", "-1", "4"], {"missing": 4, "least_s": 4, "most_s": 4}),
    ],
)
def test_when_to_come_again(said, expected):
    rows = [row(0, 503, again=one) for one in said]
    assert sums.retry_after([*rows, row(0, 200), row(0, "refused")]) == expected


# --- memory ---------------------------------------------------------------------------------------

LINES = st.tuples(st.floats(-10, 10), st.floats(-1000, 1000))


@given(
    LINES, st.lists(st.floats(0, 1000), min_size=4, max_size=50, unique_by=lambda x: round(x, 2))
)
def test_a_straight_line_has_its_own_slope(line, times):
    rise, begin = line
    found = sums.slope(sorted(times), [begin + rise * at for at in sorted(times)])
    assert found.value == pytest.approx(rise, rel=1e-6, abs=1e-6)
    assert found.low <= found.value <= found.high
    assert found.high - found.low == pytest.approx(0, abs=1e-4)


@given(st.integers(0, 100), st.floats(-5, 5), st.floats(0.1, 10))
def test_a_slope_goes_with_its_units(seed, shift, scale):
    rng = np.random.default_rng(seed)
    times, values = np.arange(30.0), rng.normal(size=30)
    plain = sums.slope(times, values)
    moved = sums.slope(times + 7, shift + scale * values)
    for key in ("value", "low", "high"):
        assert getattr(moved, key) == pytest.approx(scale * getattr(plain, key), abs=1e-9)


@pytest.mark.parametrize(("alike", "least"), [(0.0, 0.90), (0.5, 0.85), (0.8, 0.75)])
def test_the_interval_of_a_slope_holds_the_truth(alike, least):
    """Least squares alone would hold it in 95, 72 and 48 of 100 cases."""
    rng = np.random.default_rng(5)
    held, times = 0, np.arange(30.0)
    for _ in range(400):
        noise = rng.normal(size=130)
        for at in range(1, 130):
            noise[at] += alike * noise[at - 1]
        found = sums.slope(times, 0.3 * times + noise[100:])
        held += found.low <= 0.3 <= found.high
    assert held / 400 >= least


def test_few_samples_have_no_interval_and_one_time_no_slope():
    found = sums.slope([0, 1, 2], [0, 1, 2])
    assert (found.value, found.low, found.high) == (1, -math.inf, math.inf)
    with pytest.raises(BenchmarkError, match="two times"):
        sums.slope([3, 3], [1, 2])


def test_the_floor_is_the_least_of_each_block():
    samples = [(0.0, 5.0), (0.9, 3.0), (1.0, 7.0), (3.5, 4.0), (3.6, 4.0)]
    assert sums.floor(samples, 1.0).tolist() == [[0.9, 3.0], [1.0, 7.0], [3.5, 4.0]]


@pytest.mark.parametrize(
    ("low", "value", "high", "expected"),
    [
        (-1, 0, 1, "flat"),
        (-90, -50, -10, "flat"),  # what falls does not grow
        (0.1, 0.5, 0.9, "flat"),  # surely less than 1 % an hour
        (0.1, 3, 6, "grows"),
        (20, 30, 40, "grows"),
        (-5, 1, 9.9, "flat"),
        (-5, 1, 10.1, "too noisy"),
        (-math.inf, 0, math.inf, "too noisy"),
    ],
)
def test_a_verdict_of_memory(low, value, high, expected):
    assert sums.verdict(Estimate(value, low, high), 100.0) == expected


def memory(leak_mib_per_hour, noise=1.0, seconds=600, peaks=True):
    rng = np.random.default_rng(1)
    times = np.arange(0.0, seconds + 1)
    warming = 80 * np.exp(-times / 40)  # the first half does not count
    mib = 500 - warming + leak_mib_per_hour * times / 3600 + rng.normal(size=len(times)) * noise
    mib += peaks * 60 * (rng.random(len(times)) < 0.2)  # large pictures, for a moment
    return [(float(at), float(one)) for at, one in zip(times, mib, strict=True)]


@pytest.mark.parametrize(
    ("leak", "noise", "expected"),
    [(0, 0.5, "flat"), (60, 0.5, "grows"), (400, 5, "grows"), (0, 40, "too noisy")],
)
def test_growth_of_memory(leak, noise, expected):
    found = sums.growth(memory(leak, noise))
    assert found["verdict"] == expected
    if noise < 1:
        assert found["mib_per_hour"]["value"] == pytest.approx(leak, abs=15)
        assert found["begin_mib"] == pytest.approx(500 + leak / 12, abs=3)


# --- sections against a fake server ---------------------------------------------------------------


@contextlib.contextmanager
def fake_serving(name, bundles, flags):
    """The fake server as `serve_process.serving` gives the real one."""
    started.append((name, tuple(flags)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "fake_server.py"), str(port)]
    with subprocess.Popen(command) as running:
        try:
            server = serve_process.Server(name, port, running)
            serve_process._await_ready(server)
            yield server
            server.exit_code = serve_process._ended(server)
        finally:
            running.kill()


started = []


@pytest.fixture
def faked(monkeypatch):
    started.clear()
    monkeypatch.setattr(steps, "serving", fake_serving)


def options(*arguments):
    parser = argparse.ArgumentParser()
    serve.add(parser.add_subparsers())
    return parser.parse_args(["serve", *map(str, arguments)])


def documented(tmp_path, *arguments):
    out = tmp_path / "serve.json"
    given = options(*arguments, "-o", out)
    assert serve.run(given) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "serve.html", "serve.json", "serve.md",
    ]  # fmt: skip
    return json.loads(out.read_text())


def test_all_sections_of_a_fake_server(tmp_path, faked, capsys):
    clip = demo.bundle("clip")
    found = documented(
        tmp_path, f"c={clip}", "--compare-batching", "--half-load", "--overload", "--soak",
        "--seconds", 0.4, "--soak-seconds", 1, "--clients", 1, 3, "--rounds", 3, "--busy", 4,
        "--server-flags", "--lanes 2",
    )  # fmt: skip
    body = found["body"]
    assert list(body) == ["compare_batching", "half_load", "overload", "soak"]
    names = ["batching", "no batching", "half load", "overload", "soak"]
    assert [name for name, _ in started] == names
    assert {flags[:2] for _, flags in started} == {("--lanes", "2")}
    assert [flags[-1] for _, flags in started][:2] == ["64", "--no-batching"]

    rows = body["compare_batching"]["rows"]
    assert [one["clients"] for one in rows] == [1, 3]
    for one in rows:
        assert {len(rounds) for rounds in one["per_second"].values()} == {3}
        assert one["ratio"]["low"] <= one["ratio"]["value"] <= one["ratio"]["high"]
        assert one["failures"] == {"batching": {}, "no batching": {}}

    half = body["half_load"]
    assert len(half["rounds"]) == 3
    assert half["rounds"][0]["offered_per_s"] == pytest.approx(half["capacity_per_s"] / 2)
    assert half["summary"]["runs"] == sum(one["answers"]["200"] for one in half["rounds"])
    assert half["failures"] == {}

    over = body["overload"]
    assert over["asked"] == len(schedule(4 * over["capacity_per_s"], 0.4, 0))
    assert over["failures"] == {}
    assert over["answers"]["200"] + over["answers"]["503"] == over["asked"]
    assert over["answers"]["503"] > 0
    assert over["retry_after"] == {"missing": 0, "least_s": 2, "most_s": 2}
    assert over["memory"]["before_mib"] > 1
    assert over["memory"]["peak_mib"] >= over["memory"]["samples"][0][1]
    assert (over["ready_after"], over["exit_code"]) == (200, 0)

    soak = body["soak"]
    # It takes whatever comes for a good picture, and knows no mistakes.
    assert soak["kinds"]["c, cut off"]["failures"].keys() <= {"200 to c, cut off"}
    assert sum(one["asked"] for one in soak["kinds"].values()) == soak["asked"]
    assert "c" not in soak["kinds"]  # which the other sections ask
    assert soak["memory"]["verdict"] in ("flat", "grows", "too noisy")
    assert soak["exit_code"] == 0

    assert found["model"]["name"] == found["title"] == "c"
    assert found["settings"]["asked"] == {"c": "classify"}
    assert capsys.readouterr().out == (tmp_path / "serve.md").read_text() + "\n"
    page = (tmp_path / "serve.html").read_text()
    for text in ("Throughput by clients", "Memory under overload", "Memory in the soak"):
        assert text in page


class Told:
    """A generator that answers at once."""

    def __init__(self, cut_off_after=None):
        self.steps, self.left = [], cut_off_after

    def step(self, told):
        if self.left == len(self.steps):
            raise KeyboardInterrupt
        self.steps.append(told)
        return {
            "rows": [[0, 200, 0.01, 0.02, 0.0, None]] * 5,
            "cpu_share": 0.1,
            "connections": 1,
        }


def comparison(path, generator, monkeypatch, rounds=3):
    ports = {"batching": 1, "no batching": 2}

    @contextlib.contextmanager
    def serving(name, bundles, flags):
        yield serve_process.Server(name, ports[name], None)

    monkeypatch.setattr(steps, "serving", serving)
    with Journal(path, {}) as journal:
        bench = steps.Bench({}, [], generator, KINDS, [0], journal, 1.0, rounds, [1, 8], 2, 0.5)
        return steps.comparison(bench)


def test_servers_take_turns_in_another_order_every_round(tmp_path, monkeypatch):
    told = Told()
    found = comparison(tmp_path / "x", told, monkeypatch)
    turns = [(one["clients"], one["port"]) for one in told.steps[2:]]  # after both warmed up
    assert turns == [
        (1, 1), (1, 2), (8, 1), (8, 2),
        (1, 2), (1, 1), (8, 2), (8, 1),
        (1, 1), (1, 2), (8, 1), (8, 2),
    ]  # fmt: skip
    assert [one["ratio"]["value"] for one in found["rows"]] == [1, 1]
    assert found["rows"][0]["per_second"] == {"batching": [5.0] * 3, "no batching": [5.0] * 3}


@pytest.mark.parametrize("cut_off_after", [2, 3, 13])
def test_an_interrupted_comparison_goes_on(tmp_path, monkeypatch, cut_off_after):
    expected = comparison(tmp_path / "whole", Told(), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        comparison(tmp_path / "cut", Told(cut_off_after), monkeypatch)
    rest = Told()
    assert comparison(tmp_path / "cut", rest, monkeypatch) == expected
    assert len(rest.steps) == 2 + 12 - (cut_off_after - 2)
    again = Told()
    assert comparison(tmp_path / "cut", again, monkeypatch) == expected
    assert again.steps == []


def test_throughput_that_doubles_is_a_ratio_of_two(tmp_path, monkeypatch):
    class Doubled(Told):
        def step(self, told):
            found = super().step(told)
            return {**found, "rows": found["rows"] * (2 if told["port"] == 1 else 1)}

    (first, _) = comparison(tmp_path / "x", Doubled(), monkeypatch)["rows"]
    assert first["ratio"] == {"value": 2, "low": 2, "high": 2}


# --- processes ------------------------------------------------------------------------------------


def test_a_server_that_cannot_start_says_why():
    with (
        pytest.raises(BenchmarkError, match=r"(?s)a server ended with exit code \d.*no-such-flag"),
        serve_process.serving("a server", {"c": demo.bundle("clip")}, ["--no-such-flag"]),
    ):
        pytest.fail("it is not ready")


def test_memory_of_a_server_that_has_ended_is_an_error():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        server = serve_process.Server("a server", 1, running)
        with serve_process.Watch(server, 0.01) as watch:
            serve_process.time.sleep(0.1)
        assert len(watch.samples) >= 3
        assert [at for at, _ in watch.samples] == sorted(at for at, _ in watch.samples)
        assert all(mib > 0 for _, mib in watch.samples)
        running.communicate(b"\n")
        with pytest.raises(BenchmarkError, match="a server has ended"):
            server.rss_mib()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_server_that_ignores_sigterm_is_an_error(monkeypatch):
    monkeypatch.setattr(serve_process, "_END_S", 0.2)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as running:
        try:
            running.stdout.readline()
            with pytest.raises(BenchmarkError, match="a server did not end"):
                serve_process._ended(serve_process.Server("a server", 1, running))
        finally:
            running.send_signal(signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_benchmark_that_is_ended_ends_its_server(monkeypatch):
    monkeypatch.setattr(serve_process, "_await_ready", lambda server: None)
    before = signal.getsignal(signal.SIGTERM)
    held = []

    def ended():
        serving = serve_process.serving("a server", {"c": demo.bundle("clip")}, [])
        with serve_process.sigterm_unwinds(), serving as server:
            held.append(server)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit, match="143"):
        ended()
    assert held[0].running.poll() is not None
    assert signal.getsignal(signal.SIGTERM) is before


def test_settings_of_another_server_are_not_taken_over(monkeypatch):
    monkeypatch.setenv("VLRT_SERVE_PORT", "1")
    assert "VLRT_SERVE_PORT" not in serve_process._own_environment()


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing is asked for; valid: one or more of --compare-batching, --half-load"),
        (
            ["--compare-batching", "--rounds", "2"],
            "--rounds is 2; valid with --compare-batching: 3",
        ),
        (["--soak", "-o", "x.txt"], "ends in .json"),
        ([f"clip={demo.bundle('owlvit')}", "--soak"], "two bundles are named 'clip'"),
    ],
)
def test_wrong_options_are_named(arguments, message):
    with pytest.raises(OptionError, match=message):
        serve.run(options(demo.bundle("clip"), *arguments))


NOTED = {"too_noisy": False, "capacity_per_s": 9.0, "again_per_s": 9.0, "exit_code": 0,
         "summary": {"runs": 100}}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "rounds", "expected"),
    [
        ({"compare_batching": {"rows": []}}, 5, []),
        ({"compare_batching": {"rows": []}}, 3, ["Intervals over 3 rounds"]),
        ({"half_load": NOTED}, 3, []),
        ({"half_load": {**NOTED, "summary": {"runs": 99}}}, 5, ["Of half load, less than 100"]),
        ({"overload": {**NOTED, "too_noisy": True}}, 5, ["Too noisy: of overload"]),
        ({"overload": NOTED, "soak": {"exit_code": 143}}, 5, ["The server of soak ended"]),
    ],
)  # fmt: skip
def test_notes(body, rounds, expected):
    found = serve.notes(body, rounds)
    assert len(found) == len(expected)
    assert all(note.startswith(start) for note, start in zip(found, expected, strict=True))


# --- the real server ------------------------------------------------------------------------------


def test_a_real_server_under_load(tmp_path):
    pytest.importorskip("fastapi", reason="needs the server extra")
    found = documented(
        tmp_path, f"c={demo.bundle('clip')}", "--compare-batching", "--overload", "--seconds", 0.5,
        "--clients", 2, "--rounds", 3, "--busy", 4,
        "--server-flags", "--queue-length 8",
    )  # fmt: skip
    (row,) = found["body"]["compare_batching"]["rows"]
    assert row["failures"] == {"batching": {}, "no batching": {}}
    assert row["refused"] == {"batching": 0, "no batching": 0}
    over = found["body"]["overload"]
    assert over["failures"] == {}
    assert sum(over["answers"].values()) == over["asked"] > 0
    assert over["retry_after"]["missing"] == 0
    assert (over["exit_code"], over["ready_after"]) == (0, 200)


def test_a_real_server_in_a_mixture(tmp_path):
    pytest.importorskip("fastapi", reason="needs the server extra")
    models = [f"{family}={demo.bundle(family)}" for family in ("clip", "owlvit", "vilt")]
    found = documented(
        tmp_path, *models, "--soak", "--seconds", 1, "--soak-seconds", 4, "--body", "json"
    )
    soak = found["body"]["soak"]
    assert soak["failures"] == {}
    assert soak["retry_after"]["missing"] == 0
    answered = sum(soak["answers"].values())
    assert (
        answered + soak["left"] == soak["asked"] == sum(k["asked"] for k in soak["kinds"].values())
    )
    assert len(soak["answers"]) >= 3  # some were good, and some of the bad ones were refused
    assert (soak["exit_code"], soak["ready_after"]) == (0, 200)
