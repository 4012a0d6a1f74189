"""Stream transports that write at once: what the kernel takes now does not wait for the reactor.

Twisted's queue what is written until the reactor's next turn has found the socket writable: two
system calls and a turn for each reply. These send first, and only what the kernel does not take
goes Twisted's way, with its back-pressure and its errors.

While all is in order, a chunk comes in and its reply goes out in one call, which a connection has
instead of its transport's `doRead` (`read_quickly`). It decides nothing: whatever is out of the
ordinary goes the way of `TransformProtocol`.
"""

import sys
from collections.abc import Callable
from functools import cache
from time import monotonic
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.python import log
from twisted.python.failure import Failure

from uppercase.limits import PORTABLE
from uppercase.tcp._closing import SERVING
from uppercase.tcp._hub import ENDS, Hub

if TYPE_CHECKING:
    from uppercase.tcp.connection import TransformProtocol

TURN_OF_ONE: Final = 0.0005
"""Seconds that one connection may keep the reactor before the others have their turn, unless one
message takes longer: a chunk of short messages is worth a tenth of a second, and with a transform
of 1 ms a minute. A hundred that flood at once have had theirs after 65 ms."""


class PromptConnection(Connection):
    """What comes before the class of a transport; see `prompt`."""

    # Invariant: as long as this is true the transport has, or may have, bytes in its queue, and
    # everything goes through that, in order.
    queueing = False
    sends_small_at_once = sys.platform == "linux"
    """Whether it has been told so (TCP_NODELAY): what a port accepts has it from the port."""
    _aborted = False
    _input_ends = False

    def doRead(  # type: ignore[override] # one of two bases says that it gives nothing
        self,
    ) -> ConnectionDone | ConnectionLost | None:
        """Hand on what has come; return why there will be no more, if so."""
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        """Hand on that the peer sends no more, and end at once if that ends the connection."""
        self._input_ends = True
        if IHalfCloseableProtocol.providedBy(self.protocol):
            # As Twisted's does, which makes sure by way of an adapter: that takes longer.
            try:
                self.protocol.readConnectionLost()
            except BaseException:
                log.err()
                self.connectionLost(Failure())
        else:
            super().readConnectionLost(reason)
        self._input_ends = False
        if self.disconnecting and self.connected and not self.queueing:
            self.connectionLost(ENDS[ConnectionDone])

    @property
    def ends_at_once(self) -> bool:
        """Whether the connection, once asked to, ends before the reactor has its next turn."""
        return self._input_ends and not self.queueing

    def loseConnection(self) -> None:
        if self._input_ends and self.connected:
            # `readConnectionLost` goes on when this protocol is done, or `doWrite` once nothing is
            # queued: no need to wait for a socket that can be written.
            self.disconnecting = True
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def startWriting(self) -> None:  # noqa: N802 (Twisted's name)
        self.queueing = True
        super().startWriting()  # type: ignore[no-untyped-call]

    def stopWriting(self) -> None:  # noqa: N802 (Twisted's name)
        if self.queueing:
            self.queueing = False
            super().stopWriting()  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:
        # An aborted transport waits for its end with nothing queued, and TLS says goodbye on it.
        self._aborted = True
        super().abortConnection()  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        """Send what the kernel takes, queue the rest."""
        if self._aborted:
            return
        if not (self.queueing or self.TLS) and self.connected:
            try:
                sent = self.socket.send(data)
            except OSError:
                # No room, or an error; Twisted's next try finds that again, and does about it what
                # has to be done, outside of whoever is writing.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)  # type: ignore[no-untyped-call]


@cache
def prompt(transport: type[Connection]) -> Callable[..., Connection]:
    """Return the class of transports that are like those of `transport`, and write at once."""
    if PORTABLE:
        return cast(Callable[..., Connection], transport)
    name = f"Prompt{transport.__name__}"
    return cast(Callable[..., Connection], type(name, (PromptConnection, transport), {}))


def read_quickly(connection: "TransformProtocol") -> None:
    """Have each chunk of a connection read, answered and sent in one call, where it can be."""
    transport: Any = connection.transport
    hub, sole = getattr(transport, "reactor", None), connection._conversation.sole
    plain = connection._output is transport and connection._seconds is monotonic
    if sole and plain and isinstance(hub, Hub) and isinstance(transport, PromptConnection):
        # Of the instances, as it takes three times as long to read what is their class's.
        connection._paused, transport.queueing = connection._paused, transport.queueing
        hub.read_by(MethodType(_reader(connection, transport, hub, *sole), transport))


def _reader(connection: "TransformProtocol", transport: Any, hub: Hub, feed: Any, most: int) -> Any:
    """Return what `doRead`, `dataReceived`, `exchange` and `feed` of the chain are; the hub sends.

    It is half of their calls, and leaves to them what is out of the ordinary.
    """
    recv, send, size = transport.socket.recv, transport.socket.send, transport.bufferSize
    conversation: Any = connection._conversation
    seconds, replies = monotonic, hub.replies

    def read(transport: PromptConnection) -> ConnectionDone | ConnectionLost | None:
        try:
            data = recv(size)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        if (
            connection._state is not SERVING
            or connection._paused
            or transport.queueing
            or not conversation.wants_input
        ):
            connection.dataReceived(data)
            return None
        connection._received += len(data)
        started = connection._active_at = hub.now
        try:
            output = feed(data)
        except BaseException as error:
            connection._give(conversation.settle(started, None, error), started + TURN_OF_ONE)
            return None
        length = len(output) if type(output) is bytes else 0
        if not 0 < length <= most or seconds() - started > TURN_OF_ONE:
            connection._give(conversation.settle(started, output), started + TURN_OF_ONE)
            return None
        connection._sent_at = started
        connection._sent += length
        replies.append((transport, send, output))
        return None

    return read
