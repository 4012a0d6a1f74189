"""Where a datagram was sent to, and sending from there: IP_PKTINFO and IPV6_PKTINFO.

A socket that is bound to a wildcard address is told the destination of each datagram and names the
source of each reply (RFC 1122 section 4.1.3.5, RFC 3542 section 6). Linux has both options;
elsewhere only IPv6 may have them. Nothing here reads or writes.
"""

import socket
import struct
import sys
from functools import lru_cache
from typing import Any, Final

from uppercase.core.guards import Destination

__all__ = ["ANCILLARY_SPACE", "Ancillary", "enable", "parse", "reply_ancillary"]

Ancillary = list[tuple[int, int, Any]]

# The socket module names it from Python 3.14 on; the number is the same on all of Linux.
_IP_PKTINFO: Final[int | None] = (
    getattr(socket, "IP_PKTINFO", 8) if sys.platform == "linux" else None
)
_IPV6_RECVPKTINFO: Final[int | None] = getattr(socket, "IPV6_RECVPKTINFO", None)
_IPV6_PKTINFO: Final[int | None] = getattr(socket, "IPV6_PKTINFO", None)

_IN_PKTINFO: Final = struct.Struct("@i4s4s")  # interface, local address, header's address
_IN6_PKTINFO: Final = struct.Struct("@16sI")  # header's address, interface

ANCILLARY_SPACE: Final = 128
"""Bytes for the ancillary data of one datagram: both records with their headers need 72."""

_DESTINATIONS: Final = 256  # parsed records kept; a host has few addresses


def enable(sock: socket.socket) -> bool:
    """Ask for the destination of each datagram; tell whether the system gives it."""
    wanted = []
    if sock.family == socket.AF_INET6:
        wanted.append((socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO))
    if sock.family == socket.AF_INET or _is_dual_stack(sock):
        wanted.append((socket.IPPROTO_IP, _IP_PKTINFO))
    try:
        for level, option in wanted:
            if option is None:
                return False
            sock.setsockopt(level, option, 1)
    except OSError:
        return False
    return hasattr(sock, "recvmsg")


def parse(ancillary: Ancillary, port: int) -> Destination | None:
    """Return the destination that came with a datagram, None if there is none."""
    found = None
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            # On a dual-stack socket both records come; only this one shows a broadcast.
            return _parse_ipv4(data, port)
        if level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            found = _parse_ipv6(data, port)
    return found


@lru_cache(_DESTINATIONS)
def _parse_ipv4(data: bytes, port: int) -> Destination:
    interface, local, host = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
    return Destination(socket.inet_ntoa(host), port, socket.inet_ntoa(local), interface)


@lru_cache(_DESTINATIONS)
def _parse_ipv6(data: bytes, port: int) -> Destination:
    host, interface = _IN6_PKTINFO.unpack(data[: _IN6_PKTINFO.size])
    return Destination(socket.inet_ntop(socket.AF_INET6, host), port, interface=interface)


@lru_cache(_DESTINATIONS)
def reply_ancillary(source: Destination) -> tuple[tuple[int, int, bytes], ...]:
    """Return the ancillary data that makes a datagram come from an address of ours.

    The interface is left to the routing table, as a reply need not leave where the request came
    in; only a link-local address means nothing without its interface.
    """
    if ":" not in source.local:
        local = socket.inet_aton(source.local)
        return ((socket.IPPROTO_IP, _IP_PKTINFO or 0, _IN_PKTINFO.pack(0, local, bytes(4))),)
    packed = socket.inet_pton(socket.AF_INET6, source.local)
    interface = source.interface if source.local.startswith("fe80:") else 0
    record = _IN6_PKTINFO.pack(packed, interface)
    return ((socket.IPPROTO_IPV6, _IPV6_PKTINFO or 0, record),)


def _is_dual_stack(sock: socket.socket) -> bool:
    return not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
