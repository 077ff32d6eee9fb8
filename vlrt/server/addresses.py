"""Addresses of names, and which of them are of the open internet."""

import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

# Addresses of a name, and a connection to one of them; each may take so many seconds.
Resolve: TypeAlias = Callable[[str, int, float], Sequence[str]]
Connect: TypeAlias = Callable[[str, int, float], socket.socket]

# What `ipaddress` calls global in some version of Python, or what leads to an address of IPv4 that
# is told by the operating system and not by us.
_NEVER = tuple(
    map(
        ipaddress.ip_network,
        (
            "100.64.0.0/10",  # of providers, for their own
            "192.0.0.0/24",  # of protocols
            "192.88.99.0/24",  # relays of 6to4
            "2001::/23",  # of protocols, Teredo among them
            "2002::/16",  # 6to4
            "3fff::/20",  # for documentation
        ),
    )
)
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def resolve(host: str, port: int, timeout_s: float) -> list[str]:
    """The addresses of a host. The system's resolver knows no time limit, so a thread asks it.

    Raises:
        OSError: it has none; a TimeoutError after so many seconds.
    """
    found: SimpleQueue[list[Any] | OSError | UnicodeError] = SimpleQueue()

    def ask() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # UnicodeError: a part of a name is too long
            found.put(error)

    threading.Thread(target=ask, name="vlrt-resolve", daemon=True).start()
    try:
        answer = found.get(timeout=max(timeout_s, 0))
    except Empty:
        raise TimeoutError from None
    if isinstance(answer, UnicodeError):
        raise OSError(str(answer)) from answer
    if isinstance(answer, OSError):
        raise answer
    return list(dict.fromkeys(str(one[4][0]) for one in answer))


def connect(address: str, port: int, timeout_s: float) -> socket.socket:
    """A connection to an address.

    Raises:
        OSError: there is none; a TimeoutError after so many seconds.
    """
    return socket.create_connection((address, port), max(timeout_s, 0.001))


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, and leads nowhere else."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return False
        inner = ip.ipv4_mapped
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _UNICAST:
            return False
    special = ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback
    never = any(ip in network for network in _NEVER if network.version == ip.version)
    return ip.is_global and not special and not never
