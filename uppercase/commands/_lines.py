"""One typed line after the other over a stream server, with a reply to each.

A stream has no messages: a reply is complete when it ends with a newline, when the server ends the
conversation, or when bytes have come and no more follow. A server that closes after each reply, as
the lecture's does, is connected to again for the next line.
"""

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Silence
from twisted.python.failure import Failure

from uppercase.client._endpoints import Conversation, open_connection
from uppercase.client.connecting import explain
from uppercase.client.target import Target
from uppercase.errors import NetworkError

LINE_QUIET_TIME: Final = 0.3
"""When a reply to a typed line that does not end with a newline counts as complete: after this
silence. More than a round trip round the earth, less than a person minds."""


class LineConversation:
    """A conversation with a stream server.

    Args:
        reactor: the reactor.
        target: the server.
        timeout: seconds to wait for a reply to begin.
    """

    def __init__(self, reactor: Any, target: Target, timeout: float) -> None:
        self._reactor = reactor
        self._target = target
        self._timeout = timeout
        self._connection = _Connection()
        self._fresh = True

    async def connect(self) -> None:
        """Connect to the server, for the first time or again; see `open_connection`."""
        self.close()
        self._connection = _Connection()
        await open_connection(self._target, self._connection, self._reactor)
        self._fresh = True

    async def ask(self, line: bytes) -> bytes:
        """Send a line, with a newline, and return what the server replies.

        What comes of an earlier reply after it seemed complete precedes the next one.

        Raises:
            NetworkError: the server is gone, or says nothing in time.
        """
        late = self._connection.take()
        if self._connection.ended:
            await self.connect()
        reply = await self._exchange(line)
        if not reply and not self._fresh:
            # It closed just when we sent: not this line's fault.
            await self.connect()
            reply = await self._exchange(line)
        if not reply:
            raise NetworkError(f"{self._target} closed the connection without a reply")
        self._fresh = False
        return late + reply

    def close(self) -> None:
        """End the conversation."""
        if self._connection.transport is not None:
            self._connection.transport.abortConnection()

    async def _exchange(self, line: bytes) -> bytes:
        """Send a line and return the reply, b"" if the server closed or broke off before it."""
        reply = b""
        self._connection.transport.write(line + b"\n")
        patience = self._timeout
        try:
            while not reply.endswith(b"\n"):
                data = await self._connection.receive().addTimeout(patience, self._reactor)
                if not data:
                    break
                reply += data
                patience = LINE_QUIET_TIME
        except Silence as error:
            if not reply:
                raise explain(TimeoutError(), self._target, self._timeout) from error
        return reply


class _Connection(Conversation):
    """Keeps what has come until it is asked for."""

    transport: Any = None

    def __init__(self) -> None:
        self.ended = False
        self._received = b""
        self._wanted: Deferred[None] | None = None

    async def _wait(self) -> bytes:
        if not (self._received or self.ended):
            self._wanted = Deferred()
            await self._wanted
        return self.take()

    def receive(self) -> Deferred[bytes]:
        """Return what has come, at least a byte, or b"" at the end."""
        return Deferred.fromCoroutine(self._wait())

    def take(self) -> bytes:
        """Take out what has come."""
        data, self._received = self._received, b""
        return data

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self._received += data
        self._tell()

    def lost(self, reason: Failure) -> None:
        """Know that no more comes."""
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None and not wanted.called:
            wanted.callback(None)
