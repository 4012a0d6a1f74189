"""UDP sockets: opening, adopting and asking them; every refusal is one sentence.

A socket from here does not block, and an IPv6 one serves IPv6 only: systems differ in what `::`
includes, and with one socket a family each address appears in its native form. Whoever wants both
families opens two.
"""

import os
import socket
import struct
import sys
from errno import EACCES, EINVAL
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from uppercase.core.values import cannot_listen, printable_address
from uppercase.errors import BadValue, CannotListen

__all__ = [
    "adopt_socket",
    "ask_receive_buffer",
    "check_interface",
    "kernel_drops",
    "open_socket",
]

_SO_MEMINFO: Final = 55  # since Linux 4.12; on all of its architectures but two
_MEMINFO: Final = struct.Struct("@9I")
_MEMINFO_DROPS: Final = 8


def check_interface(host: str) -> IPv4Address | IPv6Address:
    """Return the address that a host names; "" is every IPv4 address.

    Raises:
        BadValue: it is no address.
    """
    try:
        return ip_address(host or "0.0.0.0")
    except ValueError:
        raise BadValue(
            f"got {host!r} as the interface; an IPv4 or IPv6 address is accepted, "
            "such as 127.0.0.1 or ::1"
        ) from None


def open_socket(host: str, port: int) -> socket.socket:
    """Open a UDP socket on one address.

    Args:
        host: an IPv4 or IPv6 address, which may have a `%scope`; "" is every IPv4 address.
        port: 0 is any free one.

    Raises:
        BadValue: the host is no address.
        CannotListen: the address could not be had; nothing is left open.
    """
    address = check_interface(host)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    sock = None
    try:
        # resolves a scope's name, nothing else
        where = socket.getaddrinfo(
            str(address), port, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0][4]
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        if _is_shared(sock):
            raise OSError(EINVAL, "it is a broadcast or multicast address; those are not answered")
    except OSError as error:
        if sock is not None:
            sock.close()
        raise cannot_listen("UDP", printable_address(str(address), port), error) from error
    sock.setblocking(False)
    return sock


def _is_shared(sock: socket.socket) -> bool:
    """Return whether a socket is bound to a broadcast or multicast address."""
    address = sock.getsockname()
    if ip_address(address[0].partition("%")[0]).is_multicast:
        return True
    with socket.socket(sock.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(address)
        except OSError as error:
            # What connect(2) says of a broadcast address; it sends nothing.
            return error.errno == EACCES
    return False


def adopt_socket(descriptor: int) -> socket.socket:
    """Take over an open, bound UDP socket, for example from systemd; it stops blocking.

    A port on a blocking socket would hang in its second read.

    Raises:
        CannotListen: the descriptor is no such socket; it is left as it was.
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
    os.close(descriptor)
    sock.setblocking(False)
    return sock


def ask_receive_buffer(sock: socket.socket, size: int) -> int:
    """Ask the kernel to hold so many bytes; return what was granted, as the kernel counts.

    Linux grants up to net.core.rmem_max and counts its own records in, twice the bytes of payload
    by its reckoning; others refuse what is too much, so less is asked until it is granted.
    """
    while size > 0:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            break
        except OSError:
            size //= 2
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def kernel_drops(sock: socket.socket) -> int | None:
    """Return how many datagrams the kernel dropped on a full buffer; None if it does not tell.

    Linux counts them per socket, as the `drops` of /proc/net/udp, and tells the owner by
    SO_MEMINFO.
    """
    if sys.platform != "linux":
        return None
    try:
        counters = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return None
    return int(_MEMINFO.unpack(counters)[_MEMINFO_DROPS])
