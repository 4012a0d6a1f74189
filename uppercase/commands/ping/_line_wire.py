"""Probes as lines on one stream connection: whole lines in and out, and how it ended.

It does not know what the lines mean, and it never connects.
"""

import socket
import ssl
from typing import Final

from uppercase.client.connecting import explain
from uppercase.client.target import Target
from uppercase.errors import NetworkError
from uppercase.limits import MIB, PING_BACKLOG

__all__ = ["LineWire"]

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_READ_SIZE: Final = 256 * 1024
_LONGEST_LINE: Final = MIB


class LineWire:
    """A probe a line, on one stream connection.

    Attributes:
        ended: whether nothing more will come. TLS can end while TCP is still open, and then the
            descriptor does not tell.
    """

    def __init__(self, connection: socket.socket, target: Target) -> None:
        self.ended = False
        self._socket = connection
        self._target = target
        self._outgoing = bytearray()
        self._incoming = bytearray()
        self._lines_sent = 0
        self._replies = 0
        self._error: OSError | None = None

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def send(self, probe: bytes) -> None:
        """Send a line, or keep what does not fit now."""
        self._outgoing += probe
        self._lines_sent += 1
        self.flush()
        if len(self._outgoing) > PING_BACKLOG:
            raise NetworkError(
                f"{self._target} has stopped reading: {len(self._outgoing)} bytes wait to be sent"
            )

    @property
    def unsent(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._outgoing)

    @property
    def ending_after(self) -> str:
        """How much the server has said, in words."""
        return "1 reply" if self._replies == 1 else f"{self._replies} replies"

    @property
    def served(self) -> bool:
        """Whether the server has answered, owes nothing, and has broken nothing off."""
        return 0 < self._replies >= self._lines_sent and self._error is None

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
        """Return the lines that have come, with their endings."""
        try:
            while not self.ended and len(self._incoming) <= _LONGEST_LINE:
                data = self._socket.recv(_READ_SIZE)
                self._incoming += data
                self.ended = not data
        except _WOULD_BLOCK:
            pass
        except OSError as error:
            self._error = self._error or error
            self.ended = True
        replies = self._lines()
        self._replies += len(replies)
        if self.ended and not replies:
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

    def _lines(self) -> list[bytes]:
        """Take the lines out; a rest counts as one where nothing can follow or it is too long."""
        *lines, rest = bytes(self._incoming).split(b"\n")
        replies = [line + b"\n" for line in lines]
        if rest and (self.ended or len(rest) > _LONGEST_LINE):
            replies.append(rest)
            rest = b""
        self._incoming[:] = rest
        return replies

    def _end(self) -> NetworkError:
        """Say how the server ended the connection."""
        if self._error is not None and not isinstance(self._error, ConnectionError):
            return explain(self._error, self._target)
        # A broken pipe is what the end of a closed connection looks like to the next send.
        did = "reset" if isinstance(self._error, ConnectionResetError) else "closed"
        hint = ""
        if self._replies == 1:
            hint = (
                "; one that closes after each reply, like the lecture's, must have closed "
                "before the next probe: try a longer -i"
            )
        return NetworkError(f"{self._target} {did} the connection after {self.ending_after}{hint}")
