"""A TCP service in memory: the protocol under test between a fake transport and a fake clock."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.events import Closed, Event, IObserver
from uppercase.core.pipeline import Pipeline, Stage
from uppercase.interfaces import ITransform
from uppercase.limits import Limits
from uppercase.registry import listing
from uppercase.tcp.connection import TransformProtocol
from uppercase.tcp.factory import TransformFactory

_UPPERCASE = listing().find("uppercase")

HIGH_WATER = 64 * 1024


@implementer(IHalfCloseableDescriptor, ITCPTransport)
class Wire(StringTransport):  # type: ignore[misc]
    """A transport that pauses its producer as Twisted's do, and a peer that tests speak for.

    Attributes:
        write_closed: whether our side's end has been asked for.
        handle: a socket to look at, where a test has put one in.
    """

    protocol: TransformProtocol
    write_closed = False
    no_delay = False
    handle: socket.socket | None = None

    def __init__(self, host: str = "192.0.2.1", port: int = 50000) -> None:
        StringTransport.__init__(self, peerAddress=IPv4Address("TCP", host, port))
        self.producer: Any = None

    def getHandle(self) -> socket.socket | None:
        return self.handle

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def write(self, data: bytes) -> None:
        super().write(data)  # type: ignore[no-untyped-call]
        if self.producer is not None and len(self.sent()) > HIGH_WATER:
            self.producer.pauseProducing()

    def loseWriteConnection(self) -> None:
        self.write_closed = True

    def take(self) -> bytes:
        """Read everything, as a peer; the transport then wants more."""
        data = self.sent()
        self.clear()  # type: ignore[no-untyped-call]
        if self.producer is not None:
            self.producer.resumeProducing()
        if self.write_closed and not self.sent():
            self.protocol.writeConnectionLost()
        return data

    def sent(self) -> bytes:
        """Return what the peer has not read yet."""
        data: bytes = self.value()  # type: ignore[no-untyped-call]
        return data

    def reads(self) -> bool:
        """Whether the protocol wants input."""
        return bool(self.producerState == "producing")

    def state(self) -> str:
        """Return what was asked for last: `open`, `half-closed`, `closing` or `aborted`."""
        if self.disconnected:
            return "aborted"
        if self.disconnecting:
            return "closing"
        return "half-closed" if self.write_closed else "open"

    def lose(self) -> None:
        """Let the connection end as it was asked to."""
        assert self.disconnected or self.disconnecting
        reason = ConnectionAborted() if self.disconnected else ConnectionDone()
        self.protocol.connectionLost(Failure(reason))


@implementer(IObserver)
class Events(list[Event]):
    """Keeps what it was told."""

    def notify(self, event: Event) -> None:
        self.append(event)

    @property
    def closed(self) -> list[Closed]:
        """The ends so far."""
        return [event for event in self if isinstance(event, Closed)]


@implementer(ITransform)
class Function:
    """A transform made of a function of bytes."""

    def __init__(self, function: Callable[[bytes], bytes | Awaitable[bytes]]) -> None:
        self.transform = function


class Service:
    """A factory with its clock and its events.

    Args:
        framing: `stream` or another framing's name.
        function: what answers a message; upper-casing if there is none.
        **limits: fields of `Limits`.
    """

    def __init__(
        self,
        framing: str = "stream",
        function: Callable[[bytes], bytes | Awaitable[bytes]] | None = None,
        **limits: Any,
    ) -> None:
        self.clock = Clock()
        self.events = Events()
        bounds = Limits(**limits)
        transform = _UPPERCASE if function is None else Function(function)
        chain: Any = Pipeline([Stage("test", transform)])
        self.factory = TransformFactory(framing, chain, bounds, self.clock, self.events)

    def connect(self, host: str = "192.0.2.1", port: int = 50000) -> Wire:
        """Let a client connect; return its end of the wire."""
        wire = Wire(host, port)
        wire.protocol = self.factory.buildProtocol(None)
        wire.protocol.makeConnection(wire)  # type: ignore[no-untyped-call]
        return wire

    def end(self, wire: Wire) -> Closed:
        """Let a connection end as asked; return the event of it."""
        wire.lose()
        assert not self.clock.getDelayedCalls() or self.factory.connections
        return self.events.closed[-1]
