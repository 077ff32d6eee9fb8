"""Pictures from elsewhere: only from hosts that the settings name, and never from inside.

Whoever lets a server fetch for strangers lets them ask what only the server can reach. So a name is
looked up once, every address that it has must be public, and the connection goes to one of those
very addresses; redirects are not followed, and one deadline bounds all of it.
"""

import http.client
import io
import logging
import re
import socket
import ssl
import time
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from vlrt.errors import AddressError, ImageError, LimitError, RequestError, VlrtError
from vlrt.server.addresses import Connect, Resolve, connect, is_public, resolve

PORTS = {"http": 80, "https": 443}

_LOG = logging.getLogger("vlrt.server")
_LONGEST = 2048
_PIECE = 2**16
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


class _Place(NamedTuple):
    """What a URL names, taken apart."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def header(self) -> str:
        """The host as requests name it: with its port unless that is the scheme's own."""
        return self.host if self.port == PORTS[self.scheme] else f"{self.host}:{self.port}"


@cache
def tls() -> ssl.SSLContext:
    """How servers are verified: by the system's authorities, for the name in the URL."""
    return ssl.create_default_context()


def fetch(
    url: str,
    hosts: Sequence[str],
    timeout_s: float,
    max_bytes: int,
    *,
    resolve: Resolve = resolve,
    connect: Connect = connect,
    context: ssl.SSLContext | None = None,
) -> bytes:
    """What is at a URL, whatever type the other side says it is.

    Args:
        url: http or https, in ASCII, without a user.
        hosts: that may be fetched from: a name ("example.org"), all names below one
            ("*.example.org"), or either with a port. Without one it is the scheme's own.
        timeout_s: for all of it together.
        max_bytes: of the content.
        resolve, connect: as those of `vlrt.server.addresses`.
        context: what TLS is spoken with; None is `tls()`.

    Raises:
        RequestError: it is not a URL.
        AddressError: its scheme, host or port are not allowed, or an address of its host is not
            public, or it leads elsewhere.
        LimitError: there are more bytes.
        ImageError: there is nothing to be had, or not in time.
    """
    until = time.monotonic() + timeout_s
    place = _allowed(url, hosts)
    what = f"{place.scheme}://{place.header}"
    try:
        addresses = resolve(place.host.strip("[]"), place.port, until - time.monotonic())
        inside = [address for address in addresses if not is_public(address)]
        if inside:
            _LOG.warning("%s was not asked: it is at %s", what, ", ".join(inside))
            raise AddressError(f"{what} has an address that is not public; nothing is fetched")
        if not addresses:
            raise ImageError(f"{what} has no address")
        plain = _connected(addresses, place.port, until, connect)
        with plain:
            if place.scheme == "http":
                return _read(plain, place, until, max_bytes, what)
            plain.settimeout(_left(until))
            secure = context or tls()
            with secure.wrap_socket(plain, server_hostname=place.host.strip("[]")) as wrapped:
                return _read(wrapped, place, until, max_bytes, what)
    except VlrtError:
        raise  # an AddressError is an OSError as well
    except TimeoutError as error:
        raise ImageError(f"{what} did not give its picture in {timeout_s:g} seconds") from error
    except ssl.SSLCertVerificationError as error:
        raise ImageError(f"{what} cannot be trusted: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ImageError(f"{what} did not give its picture: {type(error).__name__}") from error


def _allowed(url: str, hosts: Sequence[str]) -> _Place:
    """A URL taken apart, if the server fetches from there at all."""
    if len(url) > _LONGEST:
        raise RequestError(f"a URL of {len(url)} characters; valid: up to {_LONGEST}")
    # Parsers differ about all of these, and some drop them without a word.
    if not url.isascii() or not url.isprintable() or re.search(r"[\s\\]", url):
        raise RequestError(
            f"{url!a:.80} is no URL: it has a character outside of ASCII, a space or a backslash; "
            "write hosts as xn--... and paths with %"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RequestError(f"{url!r:.80} is no URL: {error}") from error
    scheme, host = parts.scheme.lower(), _host(parts)
    if scheme not in PORTS:
        raise AddressError(f"{url!r:.80} cannot be fetched; valid schemes: {', '.join(PORTS)}")
    if "@" in parts.netloc:
        raise AddressError("a URL with a user or a password is not fetched")
    if not _HOST.fullmatch(host):
        raise RequestError(f"{url!r:.80} names no host")
    port = PORTS[scheme] if port is None else port
    if not any(_fits(scheme, host, port, entry.lower()) for entry in hosts):
        asked = host if port == PORTS[scheme] else f"{host}:{port}"
        valid = ", ".join(hosts) or "none (url_hosts is empty)"
        raise AddressError(f"this server does not fetch from {asked:.80}; valid hosts: {valid}")
    query = f"?{parts.query}" if parts.query else ""
    return _Place(scheme, host, port, (parts.path or "/") + query)


def _host(parts: SplitResult) -> str:
    """The host as certificates have it: in small letters, without the dot that may end a name."""
    host = (parts.hostname or "").removesuffix(".")
    return f"[{host}]" if ":" in host else host


def _fits(scheme: str, host: str, port: int, entry: str) -> bool:
    name, colon, number = entry.rpartition(":")
    if not colon or entry.endswith("]"):  # no port: the colons, if any, are of IPv6
        name, number = entry, str(PORTS[scheme])
    if str(port) != number:
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _connected(
    addresses: Sequence[str], port: int, until: float, connect: Connect
) -> socket.socket:
    """A connection to the first address that takes one."""
    refused: OSError | None = None
    for address in addresses:
        try:
            return connect(address, port, _left(until))
        except TimeoutError:
            raise
        except OSError as error:
            refused = error
    raise refused or OSError("there is no address")


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed(io.RawIOBase):
    """What comes in over a socket, until a point in time: each read is given what is left of it."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._until))
        return self._sock.recv_into(buffer)


class _Connection:
    """As much of a socket as `http.client` needs, with a deadline."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._until))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Timed(self._sock, self._until))

    def close(self) -> None:
        """Whoever made the socket closes it."""


def _read(sock: socket.socket, place: _Place, until: float, max_bytes: int, what: str) -> bytes:
    """Ask for the target over a connection that is there, and read the answer."""
    client = http.client.HTTPConnection(place.host.strip("[]"), place.port)
    client.sock = _Connection(sock, until)
    client.auto_open = 0  # it makes no connection of its own
    headers = {
        "Host": place.header,
        "Accept": "image/*",
        "Accept-Encoding": "identity",
        "User-Agent": "vlrt",
        "Connection": "close",
    }
    client.request("GET", place.target, headers=headers)
    with client.getresponse() as response:
        if 300 <= response.status < 400:
            raise AddressError(f"{what} leads elsewhere ({response.status}), which is not followed")
        if response.status != 200:
            raise ImageError(f"{what} answers {response.status}, not with a picture")
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise ImageError(f"{what} encodes its answer ({encoding!r:.40}), though asked not to")
        over = LimitError(f"{what} has more than the {max_bytes} bytes that this server takes")
        if (response.length or 0) > max_bytes:
            raise over
        content = bytearray()
        while piece := response.read1(_PIECE):
            content += piece
            if len(content) > max_bytes:
                raise over
        if response.length:
            raise ImageError(f"{what} broke off, {response.length} bytes before its end")
    if not content:
        raise ImageError(f"{what} answers with nothing")
    return bytes(content)
