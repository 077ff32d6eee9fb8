"""Pictures named by their URLs, through the tasks; the internet is one server of this machine."""

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat

import pytest

pytest.importorskip("fastapi", reason="needs the server extra")

from test_server_api import CLIP, LABELS, OWL, assert_problem, assert_same
from test_server_fetch import PUBLIC, Net, answering, giving, whole

from vlrt.server import tasks
from vlrt.server.fetch import fetch

HOST = "pictures.example"
URL = f"http://{HOST}/scene.jpg?size=1"


class Internet(Net):
    """Every name is at the same public address, and what connects there comes to this machine."""

    def resolve(self, host, port, timeout_s):
        self.resolved.append((host, port))
        return self.addresses


@pytest.fixture
def internet(monkeypatch):
    """Have the server's requests go to a port of this machine."""

    def made(port, **given):
        net = Internet(port=port, **given)
        there = partial(fetch, resolve=net.resolve, connect=net.connect)
        monkeypatch.setattr(tasks, "fetch", there)
        return net

    return made


@pytest.mark.parametrize("source", [URL, {"url": URL}])
def test_a_picture_is_fetched_and_is_the_same_then(
    source, serve, client_of, internet, library, scenes
):
    data = scenes[0].read_bytes()
    with answering(giving(whole(data))) as there:
        net = internet(there.port)
        client = client_of(serve(url_hosts=[HOST]))
        answer = client.post("/v1/classify", json={"labels": LABELS, "image": source})
    assert answer.status_code == 200, answer.text
    expected = library[CLIP].classify(data, LABELS).to_dict()
    assert_same(answer.json()["results"], [{"labels": expected["labels"]}])
    assert net.resolved == [(HOST, 80)]
    assert net.connected == [(PUBLIC, 80)]
    (head,) = there.heads
    assert head.startswith("GET /scene.jpg?size=1 HTTP/1.1\r\n")
    assert f"Host: {HOST}\r\n" in head
    assert "wait;dur=" in answer.headers["server-timing"]


def test_an_example_and_an_input_are_fetched_too(serve, client_of, internet, library, scenes):
    client = client_of(serve(url_hosts=[HOST]))
    data, own = scenes[0].read_bytes(), base64.b64encode(scenes[0].read_bytes()).decode()
    with answering(giving(whole(data))) as there:
        internet(there.port)
        body = {"image": own, "examples": [{"image": URL, "box": [10, 20, 90, 110]}]}
        answer = client.post("/v1/detect", json=body)
    examples = library[OWL].encode_examples([data], names=["example 0"], boxes=[[10, 20, 90, 110]])
    assert_same(answer.json()["results"], [library[OWL].detect_like(data, examples).to_dict()])
    with answering(giving(whole(data))) as there:
        internet(there.port)
        shown = {"type": "image_url", "image_url": {"url": URL}}
        answer = client.post("/v1/embeddings", json={"input": ["a dog", shown]})
    expected = library[CLIP].encode_images([data])[0].tolist()
    assert_same(answer.json()["data"][1]["embedding"], expected)


@pytest.mark.parametrize(
    ("answer", "addresses", "status", "error", "words"),
    [
        (whole(), ["127.0.0.1"], 403, "AddressError", "has an address that is not public"),
        (whole(), [PUBLIC, "169.254.169.254"], 403, "AddressError", "is not public"),
        (whole(b"", "302 Found", "Location: /"), [PUBLIC], 403, "AddressError", "leads elsewhere"),
        (whole(b"", "404 Not Found"), [PUBLIC], 422, "ImageError", "answers 404"),
        (whole(b"x" * 2**16), [PUBLIC], 413, "LimitError", "more than the 32768 bytes"),
        (whole(b"<html>"), [PUBLIC], 422, "ImageError", "is HTML, which"),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_what_cannot_be_fetched_is_told_with_its_position(
    several, answer, addresses, status, error, words, serve, client_of, internet, scenes
):
    own = base64.b64encode(scenes[0].read_bytes()).decode()
    pictures = {"images": [own, URL]} if several else {"image": URL}
    with answering(giving(answer)) as there:
        internet(there.port, addresses=addresses)
        client = client_of(serve(url_hosts=[HOST], max_body_mib=1 / 32))
        response = client.post("/v1/classify", json={"labels": LABELS, **pictures})
    assert_problem(response, status, error, words)
    assert ("picture 1: " in response.json()["detail"]) == several
    assert "127.0.0.1" not in response.text
    assert "169.254" not in response.text


def test_a_slow_host_fills_a_queue_of_its_own(serve, client_of, internet, scenes):
    """Beyond it is refused at once, and who sends pictures along is served all the time."""
    server = serve(url_hosts=[HOST], queue_length=1)
    client, asked, goes_on = client_of(server), threading.Event(), threading.Event()
    data = scenes[0].read_bytes()

    def slowly(sock, _stop):
        asked.set()
        assert goes_on.wait(60)
        sock.sendall(whole(data))

    far = {"labels": LABELS, "image": URL}
    own = {"labels": LABELS, "image": base64.b64encode(data).decode()}
    with answering(slowly) as there, ThreadPoolExecutor(1) as pool:
        internet(there.port)
        first = pool.submit(client.post, "/v1/classify", json=far)
        assert asked.wait(60)
        refused = client.post("/v1/classify", json=far)
        assert_problem(refused, 503, "OverloadError", "fetching pictures has 1 jobs in flight")
        assert int(refused.headers["retry-after"]) >= 1
        for body in repeat(own, 3):
            assert client.post("/v1/classify", json=body).status_code == 200
        goes_on.set()
        assert first.result().status_code == 200
