"""How a probe travels: a datagram each, or a line each on a stream (`stream_wire`).

A wire sends without waiting for the peer and gives whole replies; `NetworkError` says that there
will be no more. It does not know what is in them.
"""

import errno
import select
import socket
from collections.abc import Callable
from typing import Protocol

from uppercase.client.connecting import connect_tcp, connect_udp, explain, reachable
from uppercase.client.target import Target
from uppercase.commands.ping._stream_wire import StreamWire
from uppercase.errors import UserError
from uppercase.limits import CONNECT_TIMEOUT, UDP_READ_SIZE

__all__ = ["DatagramWire", "Wire", "explain_send", "open_wires"]


class Wire(Protocol):
    """What the loop of ping needs of a connection."""

    ending: bytes

    def fileno(self) -> int:
        """Return the descriptor to select on."""

    def send(self, probe: bytes) -> None:
        """Send a probe, or what can be sent of it now; the rest follows during `receive`."""

    def begun(self) -> list[tuple[bytes, float]]:
        """Take out the probes that had to wait for a connection, and when each was sent at last."""

    @property
    def connections(self) -> int | None:
        """How many connections there have been; None where there is no such thing."""

    def receive(self) -> list[bytes]:
        """Return the replies that have come, without waiting."""

    def incomplete(self) -> bytes:
        """Take out what has come of a reply whose end has not."""

    def close(self) -> None:
        """End it."""


def open_wires(
    target: Target, tell: Callable[[str], None], timeout: float = CONNECT_TIMEOUT
) -> list[Wire]:
    """Connect to a target.

    Args:
        target: the server.
        tell: called with a sentence if the probes cannot share a connection.
        timeout: seconds to connect.

    Returns:
        One wire; for UDP one for each address, of which the next is for whoever is refused by the
        one before.

    Raises:
        NetworkError: that failed.
    """
    if target.udp:
        return [DatagramWire(connect_udp(target, each), target) for each in reachable(target)]
    connection = connect_tcp(target, timeout)
    connection.setblocking(False)
    return [StreamWire(connection, target, tell)]


class DatagramWire:
    """A probe a datagram, from one connected socket."""

    ending = b""
    connections = None

    def __init__(self, datagrams: socket.socket, target: Target) -> None:
        self._socket = datagrams
        self._target = target

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def send(self, probe: bytes) -> None:
        """Send one datagram; a full queue of this host is waited for, it is no loss."""
        try:
            try:
                self._socket.send(probe)
            except BlockingIOError:
                select.select([], [self._socket], [])
                self._socket.send(probe)
        except OSError as error:
            raise explain_send(error, self._target, len(probe)) from error

    def begun(self) -> list[tuple[bytes, float]]:
        """Return nothing: a datagram needs no connection."""
        return []

    def receive(self) -> list[bytes]:
        """Return the datagrams that have come."""
        replies: list[bytes] = []
        try:
            while True:
                replies.append(self._socket.recv(UDP_READ_SIZE))
        except BlockingIOError:
            return replies
        except OSError as error:
            if replies:
                return replies
            raise explain(error, self._target) from error

    def incomplete(self) -> bytes:
        """Return nothing: a datagram comes whole or not at all."""
        return b""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def explain_send(error: OSError, target: Target, size: int) -> Exception:
    """Return the sentence for a datagram that could not be sent."""
    if error.errno == errno.EMSGSIZE:
        return UserError(
            f"got a size of {size} bytes, which does not fit into one datagram to {target}; "
            "65507 (IPv4) or 65527 (IPv6) are the most"
        )
    return explain(error, target)
