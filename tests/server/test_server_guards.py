"""What stands before the routes: sizes, slowness, keys, headers, and errors that nobody caught."""

import asyncio
import contextlib
import json
import logging
import shutil
import socket
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="the server is built on it")
httpx = pytest.importorskip("httpx", reason="the tests' client")
uvicorn = pytest.importorskip("uvicorn", reason="the server runs on it")

from fastapi import FastAPI, Request  # noqa: E402
from fastapi.responses import Response, StreamingResponse  # noqa: E402
from pydantic import SecretStr  # noqa: E402

from vlrt.server import bodies, guards, problems  # noqa: E402
from vlrt.server.bodies import BodyLimit  # noqa: E402
from vlrt.server.guards import ApiKeys, LastResort, SecurityHeaders  # noqa: E402
from vlrt.server.metrics import Metrics  # noqa: E402

MOST = 100_000
KEY, OTHER_KEY = "a-key-of-some-length", "another-key-of-some-length"


def routes(seen=None):
    """An application that says how long a body is, and keeps what it saw."""
    app = FastAPI()
    seen = [] if seen is None else seen

    @app.api_route("/size", methods=["GET", "POST"], include_in_schema=False)
    async def size(request: Request):
        body = await request.body()
        seen.append(body)
        return {"size": len(body)}

    @app.post("/early")
    async def early():
        return {"read": False}

    @app.get("/broken")
    async def broken():
        raise KeyError("/srv/secret")

    @app.get("/half")
    async def half():
        async def pieces():
            yield b"one"
            raise KeyError("/srv/secret")

        return StreamingResponse(pieces())

    for path in ("/", "/static/{name}", "/health/live", "/v2/health/ready", "/v2"):
        app.add_api_route(
            path, lambda: {"open": True}, methods=["GET", "POST"], include_in_schema=False
        )
    problems.install(app)
    return app


def asked(app, method, path, **given):
    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **given)

    return asyncio.run(ask())


@contextlib.contextmanager
def running(app):
    """The application behind a real port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join()


def limited_by(app, *, max_bytes, max_all_bytes=1 << 30, **options):
    return BodyLimit(app, max_bytes=max_bytes, max_all_bytes=max_all_bytes, **options)


@pytest.fixture(scope="module")
def small():
    """A server that takes small bodies, its address, and what its route saw."""
    seen = []
    with running(limited_by(routes(seen), max_bytes=MOST)) as address:
        yield SimpleNamespace(address=address, seen=seen)


def exchanged(address, *pieces, finish=False):
    """Send pieces as they are, and read the answer until the connection ends or is idle."""
    with socket.create_connection(address, 20) as sock:
        for piece in pieces:
            sock.sendall(piece)
        if finish:
            sock.shutdown(socket.SHUT_WR)
        return answer_of(sock)


def answer_of(sock):
    """Status, headers and document of one answer, and whether the connection was closed after."""
    file = sock.makefile("rb")
    status = int(file.readline().split()[1])
    if status == 100:
        assert file.readline() == b"\r\n"
        return 100, {}, None, False
    lines = iter(file.readline, b"\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.decode().partition(":") for line in lines)
    }
    document = json.loads(file.read(int(headers["content-length"])))
    closed = headers.get("connection") == "close"
    if closed:
        assert file.read() == b""
    return status, headers, document, closed


def head(*lines, path="/size"):
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: test", *lines, "", "")).encode()


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("size", [0, 1, MOST - 1, MOST])
def test_a_body_within_the_limit_arrives_as_it_is(small, size):
    body = bytes(i % 251 for i in range(size))
    lines = head(f"Content-Length: {size}")
    status, _, document, closed = exchanged(small.address, lines, body)
    assert (status, document, closed) == (200, {"size": size}, False)
    assert small.seen[-1] == body
    status, _, document, _ = exchanged(
        small.address, head("Transfer-Encoding: chunked"), *([chunk(body)] if body else []),
        chunk(b""),
    )  # fmt: skip
    assert (status, document) == (200, {"size": size})
    assert small.seen[-1] == body


@pytest.mark.parametrize("size", [MOST + 1, 50 * MOST])
def test_a_body_beyond_the_limit_is_refused_though_all_of_it_is_sent_first(small, size):
    """Its client reads the answer, and no reset."""
    before = len(small.seen)
    lines = head(f"Content-Length: {size}")
    status, _, document, closed = exchanged(small.address, lines, bytes(size))
    assert (status, document["error"], closed) == (413, "LimitError", True)
    assert str(size) in document["detail"]
    assert str(MOST) in document["detail"]
    pieces = [chunk(bytes(10_000))] * (size // 10_000 + 1)
    status, _, document, closed = exchanged(
        small.address, head("Transfer-Encoding: chunked"), *pieces, chunk(b"")
    )
    assert (status, document["error"], closed) == (413, "LimitError", True)
    assert len(small.seen) == before


def test_who_announces_too_much_is_refused_before_sending_it(small):
    status, _, document, _ = exchanged(small.address, head("Content-Length: 999999999"))
    assert (status, document["error"]) == (413, "LimitError")
    status, _, document, _ = exchanged(
        small.address, head("Content-Length: 999999999", "Expect: 100-continue")
    )
    assert (status, document["error"]) == (413, "LimitError")


def test_who_asks_whether_to_go_on_is_told_to(small):
    lines = head("Content-Length: 5", "Expect: 100-continue")
    assert exchanged(small.address, lines)[0] == 100


def test_the_answer_comes_while_the_client_still_sends(small):
    """A chunked body without end: its client hears of it without ever finishing."""
    with socket.create_connection(small.address, 20) as sock:
        sock.sendall(head("Transfer-Encoding: chunked"))
        for _ in range(MOST // 10_000 + 1):
            sock.sendall(chunk(bytes(10_000)))
        # It is still sending, and is read; the answer is here already.
        reader = sock.makefile("rb")
        assert reader.readline().split()[1] == b"413"
        sock.sendall(chunk(bytes(10_000)))


def test_a_client_that_sends_on_for_ever_is_cut_off(monkeypatch, small):
    monkeypatch.setattr(bodies, "DISCARD_BYTES", 5 * MOST)
    most, sent = 10_000 * MOST, 0
    with socket.create_connection(small.address, 20) as sock:
        sock.sendall(head("Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            while sent < most:
                sock.sendall(chunk(bytes(MOST)))
                sent += MOST
    assert sent < most


@pytest.mark.parametrize("name", ["DISCARD_S", "DISCARD_IDLE_S"])
def test_a_client_that_says_nothing_more_is_cut_off(name, monkeypatch, small):
    monkeypatch.setattr(bodies, name, 0.05)
    status, _, _, closed = exchanged(small.address, head("Content-Length: 999999"), b"x")
    assert (status, closed) == (413, True)


@pytest.mark.parametrize("value", ["-1", "+5", "1_0", "0x10", "five", "5, 6", "1.5", "\u0665"])
def test_a_length_that_is_no_number_is_refused(value):
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/size",
        "headers": [(b"content-length", value.encode("utf-8"))],
    }
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(limited_by(routes(), max_bytes=MOST)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"] == "RequestError"


@pytest.mark.parametrize(
    ("lengths", "status"),
    [
        ([b"3", b"4"], 400),
        ([b"3", b"3"], 200),
        ([b"003"], 200),
        ([b"9" * 5000], 413),
        ([b"0" * 5000 + b"3"], 200),
    ],
)
def test_lengths_of_any_length_and_several_of_them(lengths, status):
    headers = [(b"content-length", length) for length in lengths]
    scope = {
        "type": "http", "method": "POST", "path": "/size", "headers": headers,
        "query_string": b"", "root_path": "",
    }  # fmt: skip
    messages = [{"type": "http.request", "body": b"abc", "more_body": False}]
    sent = []

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(limited_by(routes(), max_bytes=MOST)(scope, receive, send))
    assert sent[0]["status"] == status


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: -1",),
        ("Content-Length: x",),
        ("Content-Length: 3", "Content-Length: 4"),
        ("Transfer-Encoding: chunked", "Content-Length: 3", "Transfer-Encoding: gzip"),
    ],
)
def test_nonsense_about_the_length_never_reaches_a_route(small, lines):
    before = len(small.seen)
    with socket.create_connection(small.address, 20) as sock:
        sock.sendall(head(*lines) + b"abcd")
        first = sock.makefile("rb").readline()
    assert first.split()[1] in (b"400", b"501")
    assert len(small.seen) == before


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_of_two_lengths_ends_the_connection(method, small):
    """Where it ends, a proxy before the server may see otherwise, and another request in it."""
    before = len(small.seen)
    lines = ("Transfer-Encoding: chunked", "Content-Length: 5")
    request = head(*lines).replace(b"POST", method.encode(), 1)
    with socket.create_connection(small.address, 20) as sock:
        sock.sendall(request + b"0\r\n\r\n" + head("Content-Length: 0"))
        with sock.makefile("rb") as file:
            told = file.read()
    assert told.startswith(b"HTTP/1.1 400 ")
    assert told.count(b"HTTP/1.1 ") == 1
    assert len(small.seen) == before


@pytest.mark.parametrize(
    ("lines", "sent"),
    [
        (("Content-Length: 1000",), b"x" * 10),
        (("Transfer-Encoding: chunked",), b"5\r\nxx"),
        (("Transfer-Encoding: chunked",), chunk(b"xxxxx")),
    ],
)
def test_who_is_too_slow_is_told_so(lines, sent):
    """Slowly sent bodies, with a length or without, do not hold a route."""
    seen = []
    with running(limited_by(routes(seen), max_bytes=MOST, timeout_s=0.2)) as address:
        status, _, document, closed = exchanged(address, head(*lines), sent)
    assert (status, document["error"], closed) == (408, "SlowBodyError", True)
    assert "0.2 seconds" in document["detail"]
    assert seen == []


def test_bodies_that_do_not_fit_beside_the_others_are_told_to_come_again():
    held = asyncio.Event()
    answers = []

    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        answers.append("served")
        await held.wait()

    limit = limited_by(app, max_bytes=10, max_all_bytes=15)

    async def ask(size):
        body = [{"type": "http.request", "body": b"x" * size, "more_body": False}]
        sent = []

        async def receive():
            return body.pop() if body else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        headers = [(b"content-length", str(size).encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        await limit(scope, receive, send)
        return sent

    async def run():
        first = asyncio.create_task(ask(10))
        await asyncio.sleep(0)
        refused = await ask(6)
        assert refused[0]["status"] == 503
        assert (b"retry-after", b"1") in refused[0]["headers"]
        assert json.loads(refused[1]["body"])["error"] == "OverloadError"
        second = asyncio.create_task(ask(5))
        await asyncio.sleep(0)
        held.set()
        await asyncio.gather(first, second)
        assert answers == ["served"] * 2
        await ask(10)
        assert answers == ["served"] * 3  # what was held is let go of, refused or served

    asyncio.run(run())


def test_drops_of_a_body_do_not_add_time():
    limited = limited_by(routes(), max_bytes=MOST, timeout_s=0.3)
    with running(limited) as address, socket.create_connection(address, 20) as sock:
        sock.sendall(head("Content-Length: 100000"))
        stop = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    sock.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert sock.makefile("rb").readline().split()[1] == b"408"
        finally:
            stop.set()
            dripping.join()


@pytest.mark.parametrize("lines", [("Content-Length: 1000",), ("Transfer-Encoding: chunked",)])
def test_who_leaves_before_the_end_is_no_error(caplog, lines):
    seen = []
    ended = threading.Event()
    limit = limited_by(routes(seen), max_bytes=MOST)

    async def app(scope, receive, send):
        await limit(scope, receive, send)
        ended.set()

    with caplog.at_level(logging.WARNING), running(app) as address:
        with socket.create_connection(address, 20) as sock:
            sock.sendall(head(*lines) + b"3\r\nxxx\r\n")
        assert ended.wait(20)
    assert seen == []
    assert not caplog.records


def test_a_route_still_learns_that_its_client_left():
    """Behind the guard, the channel goes on where the body ended."""
    found = []

    async def app(scope, receive, send):
        found.extend([await receive(), await receive(), await receive()])

    messages = [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "body": b"c", "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return messages.pop(0)

    scope = {"type": "http", "headers": []}
    asyncio.run(limited_by(app, max_bytes=MOST)(scope, receive, None))
    assert found == [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"c", "more_body": False},
        {"type": "http.disconnect"},
    ]


def test_httpx_reads_the_refusal(small):
    host, port = small.address
    answer = httpx.post(f"http://{host}:{port}/size", content=bytes(80 * MOST), timeout=20)
    assert answer.status_code == 413
    assert answer.json()["error"] == "LimitError"


def test_curl_reads_the_refusal(small, tmp_path):
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl here")
    host, port = small.address
    file = tmp_path / "large"
    file.write_bytes(bytes(80 * MOST))
    done = subprocess.run(
        [curl, "-s", "-w", "\n%{http_code}", "--data-binary", f"@{file}",
         f"http://{host}:{port}/size"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    document, status = done.stdout.rsplit("\n", 1)
    assert status == "413"
    assert json.loads(document)["error"] == "LimitError"


def test_a_connection_serves_on_after_a_body(small):
    with socket.create_connection(small.address, 20) as sock:
        for size in (3, 4):
            sock.sendall(head(f"Content-Length: {size}") + b"x" * size)
            assert answer_of(sock)[2] == {"size": size}


OPEN = guards.OPEN_PATHS + guards.PAGE_PATHS


def guarded():
    return ApiKeys(routes(), keys=[KEY, OTHER_KEY], open_paths=OPEN)


@pytest.mark.parametrize(
    ("headers", "valid"),
    [
        ({"Authorization": f"Bearer {KEY}"}, True),
        ({"Authorization": f"bearer   {OTHER_KEY} "}, True),
        ({"X-API-Key": OTHER_KEY}, True),
        ({"X-API-Key": "wrong", "Authorization": f"Bearer {KEY}"}, True),
        ({}, False),
        ({"Authorization": f"Basic {KEY}"}, False),
        ({"Authorization": KEY}, False),
        ({"Authorization": "Bearer"}, False),
        ({"Authorization": "Bearer "}, False),
        ({"X-API-Key": ""}, False),
        ({"X-API-Key": KEY[:-1]}, False),
        ({"X-API-Key": KEY + "x"}, False),
        ({"X-API-Key": KEY.upper()}, False),
        ({"X-API-Key": f"{KEY}, {OTHER_KEY}"}, False),
        ({"Authorization": f"Bearer {KEY} {OTHER_KEY}"}, False),
        ({"Cookie": f"key={KEY}"}, False),
    ],
)
def test_a_key_is_needed_and_has_to_be_a_valid_one(headers, valid):
    for path in ("/size", f"/size?key={KEY}", "/v2", "/nowhere", "/metrics", "/openapi.json"):
        answer = asked(guarded(), "GET", path, headers=headers)
        assert (answer.status_code != 401) == valid
        if not valid:
            assert answer.headers["www-authenticate"].startswith("Bearer ")
            document = answer.json()
            assert document["error"] == "AccessError" or path == "/v2"
            assert KEY not in answer.text
            missing = not any("key" in n.lower() and v for n, v in headers.items())
            assert ("missing" in document["detail"]) == (
                missing and not headers.get("Authorization", "").startswith("Bearer a")
            )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 405),
        ("GET", "/static/script.js", 200),
        ("GET", "/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("POST", "/", 401),
        ("POST", "/health/live", 401),
        ("GET", "/health", 401),
        ("GET", "/healthy", 401),
        ("GET", "/static", 401),
        ("GET", "/%2e%2e/static/x", 401),
    ],
)
def test_only_health_and_the_page_are_open(method, path, status):
    assert asked(guarded(), method, path).status_code == status


@pytest.mark.parametrize(
    "path", ["/static/../size", "/static/%2e%2e/size", "/health/..%2fsize", "/static//size"]
)
def test_no_way_leads_from_what_is_open_to_what_is_not(path):
    """Paths are compared as the routes see them, so what passes here is what is served there."""
    app, sent = guarded(), []
    scope = {
        "type": "http", "method": "GET", "path": path.replace("%2e", ".").replace("%2f", "/"),
        "root_path": "", "query_string": b"", "headers": [],
    }  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 404


def test_a_server_below_a_path_has_the_same_paths_open():
    app, sent = guarded(), []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    for path in ("/below/health/live", "/below/size"):
        scope = {
            "type": "http", "method": "GET", "path": path, "root_path": "/below",
            "query_string": b"", "headers": [],
        }  # fmt: skip
        asyncio.run(app(scope, receive, send))
    assert [one["status"] for one in sent if "status" in one] == [200, 401]


def test_who_has_no_key_is_refused_before_the_body_and_hears_of_it():
    seen = []
    limited = limited_by(routes(seen), max_bytes=100 * MOST)
    with running(ApiKeys(limited, keys=[KEY], open_paths=())) as address:
        size = 50 * MOST
        status, headers, _, closed = exchanged(
            address, head(f"Content-Length: {size}"), bytes(size)
        )
        assert (status, closed) == (401, True)
        assert "www-authenticate" in headers
        status, _, _, closed = exchanged(address, head("Content-Length: 0"))
        assert (status, closed) == (401, False)
    assert seen == []


def test_no_websocket_opens_without_a_key():
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/health/live", "headers": []}
    asyncio.run(guarded()(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("path", ["/", "/size", "/nowhere", "/broken"])
def test_every_answer_says_what_browsers_may_do_with_it(path):
    app = routes()
    app.add_middleware(LastResort)
    answer = asked(SecurityHeaders(app), "GET", path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in str(policy)


def test_what_an_answer_says_itself_stands():
    app = routes()

    @app.get("/own")
    async def own():
        return Response(headers={"Referrer-Policy": "same-origin"})

    answer = asked(SecurityHeaders(app), "GET", "/own")
    assert answer.headers.get_list("referrer-policy") == ["same-origin"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_error_that_nobody_caught_is_a_problem(caplog):
    app = routes()
    app.add_middleware(LastResort)  # within what Starlette has for that
    answer = asked(app, "GET", "/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["id"] in caplog.text


def test_an_answer_that_breaks_off_is_cut_and_logged(caplog):
    app = LastResort(routes())
    broken = pytest.raises(httpx.RemoteProtocolError)
    with caplog.at_level(logging.ERROR), running(app) as (host, port), broken:
        httpx.get(f"http://{host}:{port}/half", timeout=20)
    assert "broke off" in caplog.text
    assert "KeyError" in caplog.text


def installed(**changed):
    app = routes()
    settings = SimpleNamespace(
        **{
            "max_body_mib": 0.1,
            "body_memory_mib": 64,
            "api_keys": [],
            "cors_origins": [],
            "page": True,
            **changed,
        }
    )
    context = SimpleNamespace(settings=settings, metrics=Metrics())
    guards.install(app, context)
    return app, context


def test_all_guards_together():
    app, context = installed(api_keys=[SecretStr(KEY)], cors_origins=["https://one.example"])
    origin = {"Origin": "https://one.example"}
    key = {"X-API-Key": KEY}
    # Browsers ask first, without a key.
    answer = asked(
        app, "OPTIONS", "/size",
        headers={
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-api-key",
        },
    )  # fmt: skip
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://one.example"
    # Every error can be read from there, and has all headers.
    for status, path, headers, content in [
        (401, "/size", {}, b"x"),
        (413, "/size", key, bytes(200_000)),
        (405, "/broken", key, b""),
        (200, "/size", key, b"x"),
    ]:
        answer = asked(app, "POST", path, headers={**origin, **headers}, content=content)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://one.example"
        assert "Server-Timing" in answer.headers["access-control-expose-headers"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    answer = asked(app, "GET", "/broken", headers={**origin, **key})
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == "https://one.example"
    assert answer.headers["x-content-type-options"] == "nosniff"
    counted = context.metrics.render().content.decode()
    for error in ("AccessError", "LimitError", "InternalError"):
        assert f'vlrt_errors_total{{error="{error}"}} 1.0' in counted


def test_other_origins_and_servers_without_any_are_told_nothing():
    for origins in (["https://one.example"], []):
        app, _ = installed(cors_origins=origins)
        answer = asked(app, "GET", "/size", headers={"Origin": "https://two.example"})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


def test_without_keys_everything_is_open_and_without_a_page_its_paths_are_not():
    app, _ = installed()
    assert asked(app, "POST", "/size").status_code == 200
    app, _ = installed(api_keys=[SecretStr(KEY)], page=False)
    assert asked(app, "GET", "/").status_code == 401
    assert asked(app, "GET", "/health/live").status_code == 200
