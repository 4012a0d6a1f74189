"""What only the kernel knows of a connection, and which connections it lets the process have.

Twisted tells when its write buffer is empty, which it may never be with a slow but living peer. The
kernel knows better: how many bytes the peer has acknowledged, how many of its own wait to be read,
and whether it is gone. Each function says what it returns where the system cannot tell.
"""

import errno
import fcntl
import resource
import socket
import struct
import sys
import termios
from contextlib import suppress
from ipaddress import ip_address
from math import inf
from typing import Any, Final

from twisted.internet.interfaces import ITransport

from uppercase.core.values import family_of

_SPARE_DESCRIPTORS: Final = 64
"""File descriptors that connections leave to the rest of the process: standard streams, listening
ports, the log, the reactor's own, and whatever a transform opens."""

_LEAST_SHARE: Final = 0.5
"""The share of connections where there are fewer descriptors than twice the spare ones."""

# struct tcp_info (linux/tcp.h): tcpi_bytes_acked is a u64 at offset 120, since Linux 4.1.
_BYTES_ACKED: Final = struct.Struct("=120xQ")
# Its first byte is the connection's state; 7 is TCP_CLOSE (net/tcp_states.h): reset, or timed out.
_STATE: Final = struct.Struct("=B")
_TCP_CLOSE: Final = 7
_INT: Final = struct.Struct("=i")

_LEAST_HOPS: Final = (
    (socket.IPPROTO_IP, 21),  # IP_MINTTL (linux/in.h)
    (socket.IPPROTO_IPV6, 73),  # IPV6_MINHOPCOUNT (linux/in6.h)
)


def progress_mark(transport: ITransport) -> object:
    """Return a value that changes when the peer takes something.

    Where the system cannot tell, it never changes: such a peer has one time-out for all that it is
    owed.
    """
    taken = _tcp_info(transport, _BYTES_ACKED)
    return unacknowledged_output(transport) if taken is None else taken


def unread_input(transport: ITransport) -> int:
    """Return how many bytes the kernel holds that we have not read; 0 if it cannot tell."""
    return _ask_kernel(transport, termios.FIONREAD) or 0


def unacknowledged_output(transport: ITransport) -> int | None:
    """Return how many bytes the kernel still has to deliver; None if it cannot tell.

    The end of the output counts as one byte.
    """
    # It is SIOCOUTQ of linux/sockios.h, whose number differs by architecture.
    return _ask_kernel(transport, termios.TIOCOUTQ) if sys.platform == "linux" else None


def peer_is_gone(transport: ITransport) -> bool:
    """Whether a connection was reset.

    The reactor does not tell while the connection is neither read nor written.
    """
    return _tcp_info(transport, _STATE) == _TCP_CLOSE


def end_if_gone(transport: ITransport, seconds: float) -> None:
    """Have the kernel end a connection whose peer acknowledges nothing for so long, if it can."""
    skt = _socket_under(transport)
    if skt is not None and sys.platform == "linux":
        with suppress(OSError):  # A UNIX socket's peer is never gone like that.
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1e3))


def acknowledge(transport: ITransport) -> None:
    """Tell the peer at once that what it sent has come, if the kernel can put that off."""
    skt = _socket_under(transport)
    if skt is not None and sys.platform == "linux":
        with suppress(OSError):  # A UNIX socket puts off nothing.
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def refuse_group(host: str) -> None:
    """Refuse a broadcast or multicast address: one can listen there, and nobody can connect.

    Raises:
        OSError: it is one.
    """
    with socket.socket(family_of(host), socket.SOCK_DGRAM) as probe:
        # It sends nothing, and only a broadcast address needs a permission for it.
        is_broadcast = probe.connect_ex((host, 1)) == errno.EACCES
    if is_broadcast or ip_address(host).is_multicast:
        why = "it stands for many machines; choose an address of this one as --interface"
        raise OSError(errno.EINVAL, why)


def _tcp_info(transport: ITransport, part: struct.Struct) -> int | None:
    """Return one number that the kernel knows of a TCP connection; None if it cannot tell."""
    skt = _socket_under(transport)
    if skt is None or sys.platform != "linux" or skt.family == socket.AF_UNIX:
        return None
    with suppress(OSError, struct.error):
        return int(part.unpack(skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, part.size))[0])
    return None


def _ask_kernel(transport: ITransport, request: int) -> int | None:
    """Return the whole number with which an ioctl of the socket answers."""
    skt = _socket_under(transport)
    if skt is None:
        return None
    with suppress(OSError):
        return int(_INT.unpack(fcntl.ioctl(skt.fileno(), request, b"\0" * _INT.size))[0])
    return None


def _socket_under(transport: Any) -> socket.socket | None:
    """Find the socket below wrappers such as TLS."""
    while transport is not None:
        get_handle = getattr(transport, "getHandle", None)
        handle = get_handle() if get_handle is not None else None
        if isinstance(handle, socket.socket):
            return handle
        transport = getattr(transport, "transport", None)
    return None


def admit_nobody(skt: socket.socket) -> None:
    """Let nobody else in at a listening socket, in any process that shares it.

    A client between the last `accept` and the end of the socket would be reset. Over TCP, one that
    comes now gets no answer, tries again after a second, and finds nobody listening, or somebody
    else; handshakes under way go on, see `admit`. At a UNIX socket it is refused. Those that wait
    can still be accepted. Where the system cannot do this, nothing happens.
    """
    if sys.platform != "linux":
        return
    if skt.family == socket.AF_UNIX:
        with suppress(OSError):
            skt.shutdown(socket.SHUT_RD)
    else:
        # As many as there can be (RFC 5082), and systems begin with 64 or 128. A packet filter
        # would do better, but for TCP it is root's alone since 2026 (Linux 5d39580f68e6).
        _set_least_hops(skt, 255)


def admit(transport: ITransport) -> None:
    """Take a client's packets, if its handshake was under way when nobody was to come in."""
    skt = _socket_under(transport)
    if skt is not None and sys.platform == "linux" and skt.family != socket.AF_UNIX:
        _set_least_hops(skt, 0)


def _set_least_hops(skt: socket.socket, hops: int) -> None:
    """Have packets dropped that may have come by fewer remaining hops than that."""
    for level, option in _LEAST_HOPS:
        with suppress(OSError):  # IPv4 has none of IPv6's.
            skt.setsockopt(level, option, hops)


def raise_descriptor_limit(needed: int) -> float:
    """Raise the soft limit of descriptors to the hard one if it is too low; return what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says that there is no hard limit, but refuses that as a soft one.
    for more in (hard, needed):
        if soft == resource.RLIM_INFINITY or soft >= needed:
            break
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return inf if soft == resource.RLIM_INFINITY else soft


def connections_possible(wanted: int) -> int:
    """Return how many of the wanted connections the process can have, with its limit raised."""
    limit = raise_descriptor_limit(wanted + _SPARE_DESCRIPTORS)
    return int(min(wanted, max(limit - _SPARE_DESCRIPTORS, limit * _LEAST_SHARE)))
