"""Whether a peer takes what it is owed.

Twisted tells when its write buffer is empty, which a slow but living peer may never reach. The
kernel knows better: how many bytes the peer has acknowledged.
"""

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITransport

from uppercase.limits import PROGRESS_CHECKS

__all__ = ["SendWatch", "peer_is_gone", "progress_mark", "unacknowledged_output", "unread_input"]

# struct tcp_info (linux/tcp.h): tcpi_bytes_acked is a u64 at offset 120, since Linux 4.1.
_BYTES_ACKED: Final = struct.Struct("=120xQ")
# Its first byte is the connection's state; 7 is TCP_CLOSE (net/tcp_states.h): reset, or timed out.
_STATE: Final = struct.Struct("=B")
_TCP_CLOSE: Final = 7
# ioctl SIOCOUTQ (linux/sockios.h): bytes that wait in the send queue; works on UNIX sockets too.
_SIOCOUTQ: Final = 0x5411
_INT: Final = struct.Struct("=i")


def progress_mark(transport: ITransport) -> object:
    """Return a value that changes when the peer takes something.

    Where the system cannot tell, the mark never changes: such a peer has the time-out for all of
    what it is owed.
    """
    skt = _socket_under(transport)
    if skt is None or sys.platform != "linux":
        return None
    try:
        if skt.family in (socket.AF_INET, socket.AF_INET6):
            info = skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
            return _BYTES_ACKED.unpack(info)[0]
        return fcntl.ioctl(skt.fileno(), _SIOCOUTQ, b"\0" * _INT.size)
    except (OSError, struct.error):
        return None


def unread_input(transport: ITransport) -> int:
    """Return how many bytes the kernel holds for us that were not read yet; 0 if it cannot tell."""
    if sys.platform == "win32":
        return 0
    return _ask_kernel(transport, termios.FIONREAD) or 0


def unacknowledged_output(transport: ITransport) -> int | None:
    """Return how many bytes the kernel still has to bring to the peer; None if it cannot tell.

    The end of the output counts as one byte.
    """
    return _ask_kernel(transport, _SIOCOUTQ) if sys.platform == "linux" else None


def peer_is_gone(transport: ITransport) -> bool:
    """Whether a connection was reset.

    The reactor does not tell while it neither reads nor writes.
    """
    skt = _socket_under(transport)
    if skt is None or sys.platform != "linux" or skt.family == socket.AF_UNIX:
        return False
    try:
        info = skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _STATE.size)
    except OSError:
        return False
    return bool(_STATE.unpack(info)[0] == _TCP_CLOSE)


def _ask_kernel(transport: ITransport, request: int) -> int | None:
    """Return the whole number that an ioctl of the socket answers."""
    skt = _socket_under(transport)
    if skt is None:
        return None
    try:
        answer = fcntl.ioctl(skt.fileno(), request, b"\0" * _INT.size)
    except OSError:
        return None
    count: int = _INT.unpack(answer)[0]
    return count


def _socket_under(transport: Any) -> socket.socket | None:
    """Find the socket below wrappers such as TLS."""
    while transport is not None:
        get_handle = getattr(transport, "getHandle", None)
        handle = get_handle() if get_handle is not None else None
        if isinstance(handle, socket.socket):
            return handle
        transport = getattr(transport, "transport", None)
    return None


class SendWatch:
    """Tells when a peer has taken nothing for a while, between `start` and `stop`.

    Args:
        transport: what is watched.
        clock: the reactor.
        timeout: seconds without progress.
        on_stall: called once when they are over; the watch has stopped then.
    """

    def __init__(
        self,
        transport: ITransport,
        clock: IReactorTime,
        timeout: float,
        on_stall: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._timeout = timeout
        self._on_stall = on_stall
        self._call: IDelayedCall | None = None
        self._mark: object = None
        self._since = 0.0

    def start(self) -> None:
        """Begin to watch; a watch that runs goes on."""
        if self._call is None:
            self._mark = progress_mark(self._transport)
            self._since = self._clock.seconds()
            self._call = self._clock.callLater(self._timeout / PROGRESS_CHECKS, self._check)

    def stop(self) -> None:
        """Stop watching."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _check(self) -> None:
        self._call = None
        mark, now = progress_mark(self._transport), self._clock.seconds()
        if mark != self._mark:
            self._mark, self._since = mark, now
        if now - self._since >= self._timeout:
            self._on_stall()
        else:
            self._call = self._clock.callLater(self._timeout / PROGRESS_CHECKS, self._check)
