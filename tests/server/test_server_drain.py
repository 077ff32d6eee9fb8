"""How a server ends: real processes, real signals."""

import base64
import http.client
import re
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="the server is built on it")
pytest.importorskip("uvicorn", reason="the server runs on it")

from server_process import all_at_once, big_picture, environment, ran, serving, until

SIGNALS = [signal.SIGTERM, signal.SIGINT]
SLOW = {
    "image": base64.b64encode(big_picture(6000)).decode(),
    "labels": ["a red square", "a blue ring"],
}
MANY = 6
DONE = "path=/v1/classify status="
ONE_BY_ONE = ("--demo", "--work-threads", "1")


# A graph that, once it is warm, never comes back.
STUCK = """
import sys
import time

from vlrt import cli
from vlrt.server import serving

def announcement(settings, catalogue, address, real=serving.announcement):
    session = catalogue.get("clip-demo").graphs["vision_model"].session
    session.run = lambda inputs: print("stuck", file=sys.stderr, flush=True) or time.sleep(9999)
    return real(settings, catalogue, address)

serving.announcement = announcement
sys.exit(cli.main(["serve", *sys.argv[1:]]))
"""


def quiet(errors):
    """Whether a log is free of what asyncio and Python say when something went wrong."""
    return not any(word in errors for word in ("Task was destroyed", "Traceback", "never awaited"))


def busy(server):
    """Give a server slow requests, and return, once it has taken them on, what waits for them."""
    wait = all_at_once(server, "/v1/classify", [SLOW] * MANY)
    # A line of the log comes when its job is no longer in flight, so that none counts twice.
    until(lambda: server.errors().count(DONE) + server.in_flight() >= MANY)
    assert server.in_flight() > 0
    return wait


def refuses(server):
    return server.asked("/health/ready").status in (None, 503)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_idle_server_ends_with_0_though_a_connection_is_open(tmp_path, number):
    with serving(tmp_path / "log", "--demo") as server:
        kept = http.client.HTTPConnection(urlsplit(server.url).netloc)
        kept.request("GET", "/health/ready")
        assert kept.getresponse().read() == b'{"status":"ready"}'
        server.told(number)
        status, errors = server.ended()
        kept.close()
    assert status == 0, errors
    assert quiet(errors)
    assert "requests in flight: 0" in errors


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_in_flight_is_answered_and_nothing_more_is_taken(tmp_path, number):
    with serving(tmp_path / "log", *ONE_BY_ONE) as server:
        wait = busy(server)
        server.told(number)
        until(lambda: "requests in flight:" in server.errors())
        assert refuses(server)
        assert server.process.poll() is None
        answers = wait()
        status, errors = server.ended()
    assert [answer.status for answer in answers] == [200] * MANY
    assert status == 0, errors
    assert quiet(errors)
    assert int(re.findall(r"requests in flight: (\d+)", errors)[0]) > 0
    assert errors.count(f"{DONE}200") == MANY


def test_what_takes_too_long_is_answered_503_and_the_log_says_how_many(tmp_path):
    with serving(tmp_path / "log", *ONE_BY_ONE, "--drain-s", "0") as server:
        wait = busy(server)
        server.told(signal.SIGTERM)
        answers = wait()
        status, errors = server.ended()
    cut = [answer for answer in answers if answer.status == 503]
    assert status == 0, errors
    assert len(cut) > 0
    assert {answer.status for answer in answers} <= {200, 503}
    assert {answer.document["error"] for answer in cut} == {"OverloadError"}
    assert f"requests that were left: {len(cut)}" in errors
    assert quiet(errors)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_it_at_once(tmp_path, number):
    with serving(tmp_path / "log", *ONE_BY_ONE) as server:
        wait = busy(server)
        server.told(number)
        until(lambda: "requests in flight:" in server.errors())
        server.told(number)
        status, errors = server.ended()
        answers = wait()
    assert status == 128 + number
    assert None in {answer.status for answer in answers}
    assert quiet(errors)


def test_a_request_that_never_comes_whole_does_not_keep_it(tmp_path):
    with serving(tmp_path / "log", "--demo", "--drain-s", "0.2") as server:
        host, port = urlsplit(server.url).netloc.split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            server.asked("/health/live")  # the other was read before it
            server.told(signal.SIGTERM)
            status, errors = server.ended()
            assert b" 503 " in half.recv(100)
    assert status == 0, errors
    assert "requests that were left: 1" in errors
    assert quiet(errors)


def test_a_graph_that_never_ends_does_not_keep_it(tmp_path):
    command = (sys.executable, "-c", STUCK)
    given = ("--demo", "--drain-s", "0.1")
    with serving(tmp_path / "log", *given, command=command) as server:
        wait = all_at_once(server, "/v1/classify", [SLOW])
        until(lambda: "stuck" in server.errors())
        server.told(signal.SIGTERM)
        status, errors = server.ended()
        assert [answer.status for answer in wait()] == [503]
    assert status == 0, errors
    assert "requests that were left: 1" in errors
    assert quiet(errors)


def test_a_port_that_is_taken_is_one_line_and_status_1():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = ran("--demo", "--port", str(port))
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"vlrt: cannot listen at 127.0.0.1 port {port}: Address already in use")
    assert process.stdout == ""


def test_a_host_that_is_none_is_one_line_and_status_1():
    process = ran("--demo", "--host", "no.such.host.invalid", "--port", "0")
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("vlrt: cannot listen at no.such.host.invalid port 0: ")


# A model that takes for ever to load.
LOADING = """
import sys
import time

from vlrt import cli
from vlrt.server import serving

def build(settings):
    print("loading", file=sys.stderr, flush=True)
    time.sleep(9999)

serving.build = build
sys.exit(cli.main(["serve", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it_while_it_loads(tmp_path, number):
    log = tmp_path / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", LOADING, "--demo", "--port", "0"], env=environment(),
            stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    try:
        until(lambda: "loading" in log.read_text() or process.poll() is not None)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, said) == (0, b"")
    assert "ended before it listened" in log.read_text()
    assert quiet(log.read_text())
