"""Fetched pictures: from named hosts at public addresses only, bounded, and from nowhere else."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlrt.errors import AddressError, ImageError, LimitError, RequestError, VlrtError
from vlrt.server.addresses import connect, is_public, resolve
from vlrt.server.fetch import fetch

PUBLIC = "93.184.215.14"
HOSTS = ["example.org", "*.pictures.example", "ports.example:8443"]
DATA = bytes(range(256)) * 40
MOST = len(DATA)

INSIDE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255",
    "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255", "169.254.169.254",
    "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8", "100::1", "2001::1",
    "2001:0:7f00:1::", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "2001:db8::1", "2001:10::1",
    "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::", "2002:808:808::1", "3fff::1",
    "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
    "5f00::1", "8000::1", "4000::1", "localhost", "", "1.2.3", "2130706433", "0x7f000001",
    "0177.0.0.1", "127.1", "010.0.0.1", "8.8.8.8 ", "[::1]",
]  # fmt: skip
OUTSIDE = [
    PUBLIC, "8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255",
    "100.128.0.1", "11.0.0.1", "223.255.255.255", "2606:4700::1111", "2a00:1450:4001::1",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_from_inside_is_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_of_ipv4_is_no_more_public_in_other_clothes(address):
    plain, number = is_public(str(address)), int(address)
    assert is_public(f"::ffff:{address}") == plain
    assert is_public(f"64:ff9b::{address}") == plain
    assert not is_public(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1")
    assert not is_public(f"::{address}")


@given(st.text(max_size=60))
def test_any_text_is_public_or_not(text):
    assert is_public(text) in (True, False)


class Net:
    """A resolver, and a way to connect, that remember what they were asked."""

    def __init__(self, addresses=(PUBLIC,), port=None, refused=()):
        self.addresses, self.port, self.refused = list(addresses), port, refused
        self.resolved, self.connected = [], []

    def resolve(self, host, port, timeout_s):
        self.resolved.append((host, port))
        if len(self.resolved) > 1:  # a name that is elsewhere the next time
            return ["127.0.0.1"]
        return self.addresses

    def connect(self, address, port, timeout_s):
        self.connected.append((address, port))
        if address in self.refused:
            raise ConnectionRefusedError
        assert self.port is not None, "a connection was made"
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)

    def fetch(self, url, hosts=HOSTS, timeout_s=20, max_bytes=MOST, **given):
        return fetch(
            url, hosts, timeout_s, max_bytes, resolve=self.resolve, connect=self.connect, **given
        )


@contextlib.contextmanager
def answering(serve, context=None):
    """A server for one connection. It reads a request's head; then `serve(sock)` does what it does.

    Yields:
        Its port, and the heads that it read.
    """
    heads = []
    stop = threading.Event()

    def run():
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(20)
                if context is not None:
                    sock = context.wrap_socket(sock, server_side=True)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    piece = sock.recv(65536)
                    if not piece:
                        return
                    head += piece
                heads.append(head.decode())
                serve(sock, stop)
                sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield SimpleNamespace(port=listener.getsockname()[1], heads=heads)
        finally:
            stop.set()
            with contextlib.suppress(OSError):  # it may wait for somebody still
                socket.create_connection(listener.getsockname(), 1).close()
            thread.join()


def giving(answer):
    return lambda sock, _: sock.sendall(answer)


def whole(data=DATA, status="200 OK", *lines):
    head = "\r\n".join((f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(data)}", "", ""))
    return head.encode() + data


def fetched(answer, url="http://example.org/a.png", **given):
    with answering(giving(answer)) as server:
        net = Net(port=server.port)
        return net.fetch(url, **given), net, server.heads


def test_a_picture_comes_as_it_is():
    data, net, (head,) = fetched(whole(), "HTTP://Example.ORG./a/b.png?c=d&e#f")
    assert data == DATA
    assert net.resolved == [("example.org", 80)]
    assert net.connected == [(PUBLIC, 80)]
    lines = head.split("\r\n")
    assert lines[0] == "GET /a/b.png?c=d&e HTTP/1.1"
    assert "Host: example.org" in lines
    assert "Accept-Encoding: identity" in lines


@pytest.mark.parametrize(
    ("url", "host", "port", "header"),
    [
        ("http://a.pictures.example", "a.pictures.example", 80, "a.pictures.example"),
        ("http://b.a.pictures.example:80/", "b.a.pictures.example", 80, "b.a.pictures.example"),
        ("http://ports.example:8443/", "ports.example", 8443, "ports.example:8443"),
    ],
)
def test_hosts_that_are_named_are_asked(url, host, port, header):
    data, net, (head,) = fetched(whole(), url)
    assert data == DATA
    assert net.resolved == [(host, port)]
    assert f"Host: {header}\r\n" in head
    assert head.startswith("GET / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" + DATA,
        b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + DATA,
        b"HTTP/1.1 100 Continue\r\n\r\n" + whole(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (1024, DATA[at : at + 1024]) for at in range(0, 10240, 1024))
        + b"0\r\n\r\n",
    ],
    ids=["until its end", "HTTP 1.0", "after a pause", "in chunks"],
)
def test_every_way_to_send_a_picture_is_read(answer):
    assert fetched(answer)[0] == DATA


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "file://example.org/etc/passwd", "FILE:///etc/passwd",
        "data:image/png;base64,AAAA", "gopher://example.org/_x", "ftp://example.org/a",
        "jar:http://example.org!/", "javascript:alert(1)", "//example.org/a", "example.org/a",
        "http://other.example/", "http://example.org.evil.example/", "http://xexample.org/",
        "http://pictures.example/", "http://xpictures.example/", "http://a.pictures.example.evil/",
        "http://user@example.org/", "http://user:word@example.org/", "http://@example.org/",
        "http://example.org@127.0.0.1/", "http://example.org:80@127.0.0.1/",
        "http://example.org:81/", "http://example.org:443/", "https://example.org:80/",
        "http://example.org:22/", "http://ports.example/", "https://ports.example/",
        "http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://localhost/",
        "http://localhost./", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/",
        "http://127.1/", "http://169.254.169.254/latest/meta-data/", "http://0/",
    ],
)  # fmt: skip
def test_what_is_not_named_is_not_even_looked_up(url):
    net = Net()
    with pytest.raises(AddressError):
        net.fetch(url)
    assert net.resolved == []


@pytest.mark.parametrize(
    "url",
    [
        "", "http://", "http:///a", "http://:80/", "http://example.org:x/",
        "http://example.org:99999/", "http://example.org:-1/", "http://[::1/", "http://[v1.a]/",
        "http://example.org\\@127.0.0.1/", "http://example.org/a b", "http://example.org/\r\nX: y",
        "http://example.org/\0", "http://exa\tmple.org/", " http://example.org/",
        "http://ex\u0430mple.org/", "http://127\u30020\u30020\u30021/",
        "http://\uff11\uff12\uff17.0.0.1/", "http://example\uff0eorg/", "http://\u24d4xample.org/",
        "http://%65xample.org/", "http://example..org/", "http://.example.org/",
        "http://.pictures.example/", "http://example.org../", "http://*.pictures.example/",
        "http://example.org/\ud800", "http://example.org/" + "a" * 3000, "http://a,b/",
    ],
)  # fmt: skip
def test_what_parsers_could_differ_about_is_no_url(url):
    net = Net()
    with pytest.raises((RequestError, AddressError)) as caught:
        net.fetch(url)
    assert net.resolved == []
    assert len(str(caught.value)) < 400


@given(st.text(max_size=40), st.sampled_from(["", "http://", "https://example.org", "http://["]))
def test_any_text_is_refused_or_asks_a_host_that_is_named(text, before):
    net = Net(["127.0.0.1"])
    with pytest.raises(VlrtError):
        net.fetch(before + text)
    assert {host for host, _ in net.resolved} <= {"example.org"}


def test_without_hosts_there_are_no_urls():
    with pytest.raises(AddressError, match="url_hosts is empty"):
        Net().fetch("http://example.org/", hosts=[])


@pytest.mark.parametrize("address", INSIDE)
def test_a_name_with_an_address_inside_is_not_asked(address, caplog):
    """Neither alone nor beside one that is public, in any order; and the client is not told it."""
    for addresses in ([address], [PUBLIC, address], [address, PUBLIC]):
        net = Net(addresses)
        with pytest.raises(AddressError) as caught:
            net.fetch("https://example.org/")
        assert net.connected == []
        assert len(address) < 4 or address not in str(caught.value)
    assert address in caplog.text


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "017700000001", "127.1", "localhost", "127.0.0.1", "[::1]"]
)
def test_ways_to_write_this_machine_are_refused_though_they_are_named(host):
    """Whatever the system's resolver makes of them."""
    with pytest.raises((AddressError, ImageError)):
        fetch(f"http://{host}/", [host, "localhost"], 20, 100)


def test_the_connection_goes_to_the_address_that_was_checked():
    data, net, _ = fetched(whole())
    assert data == DATA
    assert len(net.resolved) == 1  # the next answer would have been another
    assert net.connected == [(PUBLIC, 80)]


def test_the_next_address_is_tried_if_one_refuses():
    with answering(giving(whole())) as server:
        net = Net(["2606:4700::1111", PUBLIC], server.port, refused=["2606:4700::1111"])
        assert net.fetch("http://example.org/") == DATA
    assert net.connected == [("2606:4700::1111", 80), (PUBLIC, 80)]


def test_nothing_answers():
    with pytest.raises(ImageError, match="ConnectionRefusedError"):
        Net(refused=[PUBLIC]).fetch("http://example.org/")
    with pytest.raises(ImageError, match="no address"):
        Net([]).fetch("http://example.org/")


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
def test_redirects_are_not_followed(status):
    answer = whole(b"", f"{status} There", "Location: http://example.org/b")
    with pytest.raises(AddressError, match="not followed"):
        fetched(answer)


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (whole(status="404 Not Found"), ImageError, "404"),
        (whole(status="206 Partial"), ImageError, "206"),
        (whole(status="500 No"), ImageError, "500"),
        (whole(b""), ImageError, "nothing"),
        (whole(DATA, "200 OK", "Content-Encoding: gzip"), ImageError, "gzip"),
        (whole()[:-1], ImageError, "before its end"),
        (b"", ImageError, "RemoteDisconnected"),
        (b"SSH-2.0-OpenSSH\r\n", ImageError, "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", ImageError, "HTTPException"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000, ImageError, "LineTooLong"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", ImageError, "Incomplete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab", ImageError, "Incomplete"),
        (whole(DATA + b"x"), LimitError, str(len(DATA))),
        (b"HTTP/1.1 200 OK\r\n\r\n" + DATA + b"x", LimitError, str(len(DATA))),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n" + bytes(2**18),
            LimitError,
            str(len(DATA)),
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", LimitError, str(len(DATA))),
    ],
)
def test_what_is_no_whole_picture_is_refused(answer, kind, told):
    with pytest.raises(kind) as caught:
        fetched(answer)
    assert type(caught.value) is kind
    assert told in str(caught.value)


@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", whole()[:40]]))
def test_whatever_comes_back_is_a_picture_or_our_error(rest, before):
    with contextlib.suppress(VlrtError):
        assert fetched(before + rest)[0]


def silent(sock, stop):
    stop.wait(20)


def dripping(before):
    def serve(sock, stop):
        sock.sendall(before)
        with contextlib.suppress(OSError):
            while not stop.wait(0.02):
                sock.sendall(b"x")

    return serve


@pytest.mark.parametrize(
    "serve",
    [
        silent,
        dripping(b""),
        dripping(b"HTTP/1.1 200 OK\r\nX: "),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"),
        dripping(b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
    ids=["silent", "status", "header", "body", "body without length"],
)
def test_one_deadline_bounds_it_all(serve):
    """Drops add no time: without it, each of these would go on until the test was stopped."""
    with answering(serve) as server, pytest.raises(ImageError, match=r"in 0[.]3 seconds"):
        Net(port=server.port).fetch("http://example.org/", timeout_s=0.3)


def test_a_resolver_that_does_not_answer_is_left(monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(20))
    try:
        with pytest.raises(ImageError, match=r"in 0[.]1 seconds"):
            fetch("http://example.org/", HOSTS, 0.1, 100)
    finally:
        answered.set()


def test_time_that_the_resolver_took_is_gone():
    net = Net()

    def slow(host, port, timeout_s):
        time.sleep(timeout_s + 0.01)
        return [PUBLIC]

    with pytest.raises(ImageError, match=r"in 0[.]05 seconds"):
        fetch("http://example.org/", HOSTS, 0.05, 100, resolve=slow, connect=net.connect)
    assert net.connected == []


def test_the_system_resolves_and_connects():
    assert "127.0.0.1" in resolve("127.0.0.1", 80, 20)
    with pytest.raises(OSError):  # noqa: PT011  a gaierror, or with an old Python a UnicodeError
        resolve("a" * 64 + ".example", 80, 20)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        connect("127.0.0.1", listener.getsockname()[1], 20) as sock,
    ):
        assert sock.gettimeout() == 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority of our own, and what servers say who they are with: certificates by name."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make certificates with")
    root = tmp_path_factory.mktemp("certificates")

    def run(*arguments):
        subprocess.run([openssl, *arguments], cwd=root, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out",
        "ca.pem", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    contexts = {}
    for name in ("example.org", "other.example"):
        (root / "extensions").write_text(f"subjectAltName=DNS:{name}\n")
        run(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "extensions",
            "-out", f"{name}.pem")  # fmt: skip
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[name].load_cert_chain(root / f"{name}.pem", root / f"{name}.key")
    client = ssl.create_default_context(cafile=str(root / "ca.pem"))
    return SimpleNamespace(servers=contexts, client=client)


def test_a_server_is_believed_that_proves_its_name(authority):
    asked = []
    secure = authority.servers["example.org"]
    secure.sni_callback = lambda _, name, __: asked.append(name)
    with answering(giving(whole()), secure) as server:
        net = Net(port=server.port)
        assert net.fetch("https://example.org./a", context=authority.client) == DATA
    assert asked == ["example.org"]
    assert net.connected == [(PUBLIC, 443)]
    assert "Host: example.org\r\n" in server.heads[0]


@pytest.mark.parametrize("name", ["other.example", "example.org"])
def test_a_server_is_not_believed_without(authority, name):
    """One has another's certificate, the other one of an authority that nobody knows."""
    context = authority.client if name == "other.example" else None
    unbelieved = pytest.raises(ImageError, match="cannot be trusted")
    with answering(giving(whole()), authority.servers[name]) as server, unbelieved:
        Net(port=server.port).fetch("https://example.org/", context=context)
    assert server.heads == []


def test_a_server_that_speaks_no_tls_is_left(authority):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        net = Net(port=listener.getsockname()[1])  # it is connected, and never answered
        with pytest.raises(ImageError, match=r"in 0[.]2 seconds"):
            net.fetch("https://example.org/", timeout_s=0.2, context=authority.client)

    def plain():
        sock, _ = listener.accept()
        with sock:
            sock.sendall(whole())
            sock.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=plain)
        thread.start()
        net = Net(port=listener.getsockname()[1])
        with pytest.raises(ImageError, match="SSLError"):
            net.fetch("https://example.org/", context=authority.client)
        thread.join()
