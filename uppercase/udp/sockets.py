r"""UDP sockets: opening, adopting and querying them; every refusal is one sentence.

They are described by strings in the grammar of `twisted.internet.endpoints`, which has strings for
streams only:

    udp:12000                               every IPv4 address
    udp:12000:interface=127.0.0.1           one address
    udp:0:interface=\:\:1                 any free port; a colon in a value is written \:
    systemd:domain=INET:index=0             a datagram socket that systemd opened, by position
    systemd:domain=INET6:name=upper         or by its FileDescriptorName

An IPv6 socket from here serves IPv6 only: systems differ in what `::` includes, and with one socket
a family each address appears in its native form. For both families, open two.

A socket that is bound to a wildcard address is told the destination of each datagram and names the
source of each reply: IP_PKTINFO and IPV6_PKTINFO (RFC 1122 section 4.1.3.5, RFC 3542 section 6).
Linux has both options; elsewhere only IPv6 may have them.
"""

import os
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from errno import EACCES, EINVAL
from functools import lru_cache, partial
from typing import Any, Final

from uppercase.core.datagram import Destination
from uppercase.core.values import (
    cannot_listen,
    family_of,
    parse_interface,
    parse_port,
    printable_address,
    split_escaped,
    unescape,
)
from uppercase.errors import BadValue, CannotListen, suggest

Opener = Callable[[int], list[socket.socket]]
"""Opens an address for a number of processes to serve: a socket for each, or one for all."""

_EVERYWHERE: Final = "0.0.0.0"

_SO_MEMINFO: Final = 55  # since Linux 4.12; on all of its architectures but two
_MEMINFO: Final = struct.Struct("@9I")  # The last counts drops.


def open_socket(host: str, port: int, *, one_of_several: bool = False) -> socket.socket:
    """Open a UDP socket on one address.

    Args:
        host: an IPv4 or IPv6 address, which may have a `%scope`; "" is every IPv4 address.
        port: 0 is any free one.
        one_of_several: others of this process may have the address as well (SO_REUSEPORT); the
            kernel gives all datagrams of one client to one of them.

    Raises:
        BadValue: the host is no address.
        CannotListen: the address could not be bound; nothing is left open.
    """
    address = parse_interface(host or _EVERYWHERE)
    family = family_of(address)
    try:
        # resolves a scope's name, nothing else
        where = socket.getaddrinfo(
            address.encode(), port, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0][4]
        with ExitStack() as opened:
            sock = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if one_of_several:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(where)
            if _is_broadcast(sock):
                raise OSError(EINVAL, "it is a broadcast address, which is not answered")
            opened.pop_all()
    except OSError as error:
        raise cannot_listen("UDP", printable_address(address, port), error) from error
    return sock


def open_for_each(host: str, port: int, workers: int) -> list[socket.socket]:
    """Open an address for a number of processes: a socket for each, or one for all.

    With one for each, all datagrams of a client's port reach one process, and its guards. Only
    Linux distributes them so.

    Raises:
        BadValue, CannotListen: as for `open_socket`; nothing is left open.
    """
    # Alone first: that reveals another program that has the address and would share it.
    first = open_socket(host, port)
    if workers == 1 or sys.platform != "linux":
        return [first]
    number = int(first.getsockname()[1])
    first.close()
    with ExitStack() as opened:
        several = [
            opened.enter_context(open_socket(host, number, one_of_several=True))
            for _ in range(workers)
        ]
        opened.pop_all()
    return several


def _is_broadcast(sock: socket.socket) -> bool:
    """Return whether a socket is bound to a broadcast address."""
    with socket.socket(sock.family, socket.SOCK_DGRAM) as probe:
        # What connect(2) says of a broadcast address; it sends nothing.
        return probe.connect_ex(sock.getsockname()) == EACCES


def adopt_socket(descriptor: int) -> socket.socket:
    """Take over an open, bound UDP socket, for example from systemd.

    Raises:
        CannotListen: the descriptor is not such a socket; it is left as it was.
    """
    try:
        sock = socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        raise CannotListen(
            f"got file descriptor {descriptor}, an open UDP socket is needed: {error.strerror}"
        ) from error
    if sock.type != socket.SOCK_DGRAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        found = f"{sock.family.name} {sock.type.name}"
        sock.close()
        raise CannotListen(
            f"got file descriptor {descriptor} with {found}; a datagram socket of INET or INET6 "
            "is needed: use ListenDatagram= in a systemd socket unit"
        )
    if _is_broadcast(sock):
        sock.close()
        raise CannotListen(
            f"got file descriptor {descriptor} of a broadcast address, which is not answered; name "
            "an address of this machine as ListenDatagram="
        )
    os.close(descriptor)
    return sock


def opener_of_string(description: str) -> Opener:
    """Return what opens the sockets that a string describes.

    Raises:
        BadValue: it describes none; the text says what is accepted.
    """
    kind, *fields = _fields(description)
    if kind == ("", "udp"):
        return _parse_udp(description, fields)
    if kind == ("", "systemd"):
        return _parse_systemd(description)
    known = suggest(kind[1], ["udp", "systemd"])
    raise BadValue(f"got {description!r}; no datagram endpoint has the type {kind[1]!r}{known}")


def _fields(description: str) -> list[tuple[str, str]]:
    """Split at colons into (name, value); the name is "" where none is given."""
    backslashes = len(description) - len(description.rstrip("\\"))
    if backslashes % 2:
        raise BadValue(f"got {description!r}; nothing follows its last backslash")
    fields = []
    for field in split_escaped(description):
        before, *after = split_escaped(field, "=")
        name, value = (before, "=".join(after)) if after else ("", before)
        fields.append((unescape(name), unescape(value)))
    return fields


def _parse_udp(description: str, fields: list[tuple[str, str]]) -> Opener:
    """Take `udp:PORT[:interface=ADDRESS]`; both may be named or go by position."""
    accepted = r"udp:PORT[:interface=ADDRESS] is accepted, with \: for each colon in the address"
    given: dict[str, str] = {}
    positions = iter(("port", "interface"))
    for name, value in fields:
        key = name or next(positions, "more")
        if key not in ("port", "interface") or key in given:
            raise BadValue(f"got {description!r}; {accepted}")
        given[key] = value
    if "port" not in given:
        raise BadValue(f"got {description!r} without a port; {accepted}")
    try:
        port = parse_port(given["port"])
        host = parse_interface(given.get("interface") or _EVERYWHERE)
    except BadValue as error:
        raise BadValue(f"in {description!r}: {error}") from None
    return partial(open_for_each, host, port)


def _parse_systemd(description: str) -> Opener:
    """Take `systemd:domain=FAMILY:index=N` or `:name=NAME`.

    Twisted's own endpoint finds the descriptor: it read and cleared the environment when it was
    imported, so only it knows.
    """
    # Imported here: it brings in all of TLS, which a service of one port does not need.
    from twisted.internet.endpoints import serverFromString

    accepted = (
        f"got {description!r}; systemd:domain=INET:index=N, counted from 0, or "
        "systemd:domain=INET:name=NAME is accepted, with a socket that systemd passed on: "
        "start the service through a .socket unit that has ListenDatagram="
    )

    def refuse(_: int) -> list[socket.socket]:
        raise CannotListen(accepted)

    # `fileno` is in no interface, but a second look at the environment finds nothing.
    try:
        endpoint: Any = serverFromString(None, description)
    except LookupError:
        # Not before it is to be opened: a check of the options has none of systemd's sockets.
        return refuse
    except (ValueError, TypeError, AttributeError) as error:
        raise BadValue(accepted) from error
    return lambda _: [adopt_socket(endpoint.fileno)]


def ask_receive_buffer(sock: socket.socket, size: int) -> None:
    """Ask the kernel to hold that many bytes.

    Linux grants up to net.core.rmem_max; others refuse what is too much, so we ask for less until
    it is granted.
    """
    while size > 0:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            return
        size //= 2


def receive_buffer(sock: socket.socket) -> int:
    """Return how many bytes the kernel has granted; Linux doubles them for its own records."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >> (sys.platform == "linux")


def kernel_drops(sock: socket.socket) -> int | None:
    """Return how many datagrams the kernel dropped, damaged ones too; None if it does not tell.

    Linux counts them per socket, as the `drops` of /proc/net/udp, and tells the owner by
    SO_MEMINFO.
    """
    if sys.platform == "linux":
        with suppress(OSError, struct.error):  # An emulator may give less.
            counters = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
            return int(_MEMINFO.unpack(counters)[-1])
    return None


# Where a datagram was sent to, and sending from there

Ancillary = list[tuple[int, int, Any]]

# The socket module names it from Python 3.14 on; the number is the same on all of Linux.
_IP_PKTINFO: Final[int | None] = (
    getattr(socket, "IP_PKTINFO", 8) if sys.platform == "linux" else None
)
_IPV6_FREEBIND: Final = 78  # since Linux 4.15
_IPV6_RECVPKTINFO: Final[int | None] = getattr(socket, "IPV6_RECVPKTINFO", None)
_IPV6_PKTINFO: Final[int | None] = getattr(socket, "IPV6_PKTINFO", None)

_IN_PKTINFO: Final = struct.Struct("@i4s4s")  # interface, local address, header's address
_IN6_PKTINFO: Final = struct.Struct("@16sI")  # header's address, interface

ANCILLARY_SPACE: Final = 128
"""Bytes for the ancillary data of one datagram: both records with their headers need 72."""

_DESTINATIONS: Final = 256  # parsed records kept; a host has few addresses


def enable_destinations(sock: socket.socket) -> bool:
    """Ask for the destination of each datagram; return whether the system provides it."""
    wanted = []
    if sock.family == socket.AF_INET6:
        wanted.append((socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO))
        if sys.platform == "linux":
            # Whole networks may be this machine's by a route, without an address on an interface.
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    if sock.family == socket.AF_INET or not sock.getsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    ):
        wanted.append((socket.IPPROTO_IP, _IP_PKTINFO))
    try:
        for level, option in wanted:
            if option is None:
                return False
            sock.setsockopt(level, option, 1)
    except OSError:
        return False
    return True


def parse_destination(ancillary: Ancillary, port: int) -> Destination | None:
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
    if not any(local):
        # It came before the system was asked, to a socket of systemd's. If the header's address is
        # a broadcast, the system refuses a reply that is to come from it.
        local = host
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
