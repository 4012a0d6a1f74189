"""One typed line after the other over a stream server, with a reply to each.

A stream has no messages: a reply is complete when it ends with a newline, when the server ends the
conversation, or when bytes have come and no more follow. A server that closes after each reply, as
the lecture's does, is connected to again for the next line.
"""

import ssl

from uppercase.client.connecting import connect_tcp, explain
from uppercase.client.target import Target
from uppercase.errors import NetworkError
from uppercase.limits import FILTER_CHUNK, LINE_QUIET_TIME

__all__ = ["LineConversation"]


class LineConversation:
    """A conversation with a stream server; connects at once.

    Args:
        target: the server.
        timeout: seconds to wait for a reply to begin.

    Raises:
        NetworkError: the server cannot be reached.
    """

    def __init__(self, target: Target, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._connection = connect_tcp(target)
        self._fresh = True

    def ask(self, line: bytes) -> bytes:
        """Send a line, with a newline, and give what the server replies.

        What comes of an earlier reply after it seemed complete precedes the next one.

        Raises:
            NetworkError: the server is gone, or says nothing in time.
        """
        late, closed = self._take_late_parts()
        if closed:
            self._connect_again()
        reply = self._exchange(line)
        if not reply and not self._fresh:
            # It closed just when we sent: not this line's fault.
            self._connect_again()
            reply = self._exchange(line)
        if not reply:
            raise NetworkError(f"{self._target} closed the connection without a reply")
        self._fresh = False
        return late + reply

    def close(self) -> None:
        """End the conversation."""
        self._connection.close()

    def _connect_again(self) -> None:
        self._connection.close()
        self._connection = connect_tcp(self._target)
        self._fresh = True

    def _take_late_parts(self) -> tuple[bytes, bool]:
        """Return what came after the last reply seemed complete, and whether the server closed."""
        late = b""
        self._connection.settimeout(0)
        try:
            while data := self._connection.recv(FILTER_CHUNK):
                late += data
        except (BlockingIOError, ssl.SSLWantReadError):
            return late, False
        except OSError:
            pass
        return late, True

    def _exchange(self, line: bytes) -> bytes:
        """Send a line and give the reply, b"" if the server closed or broke off before it."""
        reply = b""
        try:
            self._connection.settimeout(self._timeout)
            self._connection.sendall(line + b"\n")
            while not reply.endswith(b"\n"):
                data = self._connection.recv(FILTER_CHUNK)
                if not data:
                    break
                reply += data
                self._connection.settimeout(LINE_QUIET_TIME)
        except TimeoutError as error:
            if not reply:
                raise explain(error, self._target, self._timeout) from error
        except (ConnectionError, ssl.SSLEOFError):
            pass
        return reply
