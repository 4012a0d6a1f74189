"""How a probe travels: a datagram each, or a line each on one connection.

A wire sends without waiting for the peer and gives whole replies; `NetworkTrouble` says that there
will be no more. It does not know what is in them.
"""

import errno
import select
import socket
import ssl
from typing import Final, Protocol

from uppercase.client.connecting import connect_tcp, connect_udp, explain, reachable
from uppercase.client.target import Target
from uppercase.errors import NetworkTrouble, UserError
from uppercase.limits import CONNECT_TIMEOUT, MIB, PING_BACKLOG, UDP_READ_SIZE

__all__ = ["DatagramWire", "LineWire", "Wire", "explain_send", "open_wires"]

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_READ_SIZE: Final = 256 * 1024
_LONGEST_LINE: Final = MIB


class Wire(Protocol):
    """What the loop of ping needs of a connection."""

    ending: bytes

    def fileno(self) -> int:
        """Give the descriptor to select on."""

    def send(self, probe: bytes) -> None:
        """Send a probe, or what can be sent of it now."""

    @property
    def unsent(self) -> int:
        """How many bytes wait until the descriptor is writable; then call `flush`."""

    def flush(self) -> None:
        """Send what waits."""

    def receive(self) -> list[bytes]:
        """Give the replies that have come, without waiting."""

    def incomplete(self) -> bytes:
        """Take out what has come of a reply whose end has not."""

    def close(self) -> None:
        """End it."""


def open_wires(target: Target, timeout: float = CONNECT_TIMEOUT) -> list[Wire]:
    """Connect to a target.

    Returns:
        One wire; for UDP one for each address, of which the next is for whoever is refused by the
        one before.

    Raises:
        NetworkTrouble: that failed.
    """
    if target.udp:
        return [DatagramWire(connect_udp(target, each), target) for each in reachable(target)]
    connection = connect_tcp(target, timeout)
    connection.setblocking(False)
    return [LineWire(connection, target)]


class DatagramWire:
    """A probe a datagram, from one connected socket."""

    ending = b""
    unsent = 0

    def __init__(self, datagrams: socket.socket, target: Target) -> None:
        self._socket = datagrams
        self._target = target

    def fileno(self) -> int:
        """Give the socket's descriptor."""
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

    def flush(self) -> None:
        """Do nothing: datagrams are sent at once."""

    def receive(self) -> list[bytes]:
        """Give the datagrams that have come."""
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
        """Give nothing: a datagram comes whole or not at all."""
        return b""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class LineWire:
    """A probe a line, on one stream connection."""

    ending = b"\n"

    def __init__(self, connection: socket.socket, target: Target) -> None:
        self._socket = connection
        self._target = target
        self._outgoing = bytearray()
        self._incoming = bytearray()
        self._replies = 0
        self._error: OSError | None = None

    def fileno(self) -> int:
        """Give the socket's descriptor."""
        return self._socket.fileno()

    def send(self, probe: bytes) -> None:
        """Send a line, or keep what does not fit now."""
        self._outgoing += probe
        self.flush()
        if len(self._outgoing) > PING_BACKLOG:
            raise NetworkTrouble(
                f"{self._target} has stopped reading: {len(self._outgoing)} bytes wait to be sent"
            )

    @property
    def unsent(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._outgoing)

    def flush(self) -> None:
        """Send what fits."""
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except _WOULD_BLOCK:
            pass
        except OSError as error:
            # What the server has sent before the end is still to be read: `receive` says the rest.
            self._error = self._error or error
            self._outgoing.clear()

    def receive(self) -> list[bytes]:
        """Give the lines that have come, with their endings."""
        ended = False
        try:
            while not ended and len(self._incoming) <= _LONGEST_LINE:
                data = self._socket.recv(_READ_SIZE)
                self._incoming += data
                ended = not data
        except _WOULD_BLOCK:
            pass
        except OSError as error:
            self._error = self._error or error
            ended = True
        replies = self._lines(ended)
        self._replies += len(replies)
        if ended and not replies:
            raise self._end() from self._error
        return replies

    def incomplete(self) -> bytes:
        """Take out what has come of a line."""
        data = bytes(self._incoming)
        self._incoming.clear()
        return data

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _lines(self, ended: bool) -> list[bytes]:
        """Take the lines out; a rest counts as one where nothing can follow or it is too long."""
        *lines, rest = bytes(self._incoming).split(b"\n")
        replies = [line + b"\n" for line in lines]
        if rest and (ended or len(rest) > _LONGEST_LINE):
            replies.append(rest)
            rest = b""
        self._incoming[:] = rest
        return replies

    def _end(self) -> NetworkTrouble:
        """Say how the server ended the connection."""
        if self._error is not None and not isinstance(self._error, ConnectionError):
            return explain(self._error, self._target)
        # A broken pipe is what the end of a closed connection looks like to the next send.
        did = "reset" if isinstance(self._error, ConnectionResetError) else "closed"
        hint = ""
        if self._replies <= 1:
            hint = (
                "; a server that answers once per connection, like the lecture's, "
                "can be asked with -c 1"
            )
        number = "1 reply" if self._replies == 1 else f"{self._replies} replies"
        return NetworkTrouble(f"{self._target} {did} the connection after {number}{hint}")


def explain_send(error: OSError, target: Target, size: int) -> Exception:
    """Give the sentence for a datagram that could not be sent."""
    if error.errno == errno.EMSGSIZE:
        return UserError(
            f"got a size of {size} bytes, which does not fit into one datagram to {target}; "
            "65507 (IPv4) or 65527 (IPv6) are the most"
        )
    return explain(error, target)
