"""A TCP connection without sockets: what a test sees of a served connection, and does to it."""

import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableDescriptor, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from tests.observing import Notebook
from uppercase.core.events import Closed, Outcome
from uppercase.core.pipeline import Pipeline, Stage
from uppercase.limits import Limits
from uppercase.registry import listing
from uppercase.tcp.factory import TransformFactory

CLIENT = IPv4Address("TCP", "192.0.2.1", 40000)


class Notes(Notebook):
    """Writes all events down."""

    @property
    def closed(self) -> Closed:
        """The one connection's end."""
        (found,) = [event for event in self.events if isinstance(event, Closed)]
        return found

    @property
    def outcomes(self) -> list[Outcome]:
        """All connections' ends."""
        return [event.outcome for event in self.events if isinstance(event, Closed)]

    @property
    def outcome(self) -> Outcome:
        return self.closed.outcome


class Wire(StringTransport):
    """The transport of one connection, and its other end.

    Args:
        factory: makes what is served on it.
        peer: where it seems to come from.

    Attributes:
        handle: a socket to look at, where a test has put one in.
    """

    def __init__(self, factory: Any, peer: IAddress = CLIENT) -> None:
        super().__init__(peerAddress=peer)
        alsoProvides(self, ITCPTransport, IHalfCloseableDescriptor)
        self.handle: socket.socket | None = None
        self._aborted = False
        self.output_ended = False
        self.gone = False
        self.protocol = factory.buildProtocol(peer)
        self.protocol.makeConnection(self)
        self.settle()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def loseWriteConnection(self) -> None:
        self.output_ended = True

    def loseConnection(self) -> None:
        self.disconnecting = True
        if self.output_ended:
            # Twisted does not wait for its next turn here.
            self._lose()

    def abortConnection(self) -> None:
        self._aborted = self.disconnecting = True

    def getHandle(self) -> socket.socket | None:
        return self.handle

    def was_aborted(self) -> bool:
        """Whether the server has cut the connection off."""
        return self._aborted

    def send(self, data: bytes) -> bytes:
        """Let bytes arrive, unless the connection is gone; return what the server sends."""
        if self.gone:
            return b""
        self.protocol.dataReceived(data)
        return self.settle()

    def end(self) -> bytes:
        """Let the other end's FIN arrive, unless it is gone; return what the server sends."""
        if self.gone:
            return b""
        self.protocol.readConnectionLost()
        return self.settle()

    def settle(self) -> bytes:
        """Do what the reactor does next; return what the server sends."""
        if self.output_ended and not self.gone:
            self.protocol.writeConnectionLost()
        if self.disconnecting:
            self._lose()
        sent = self.value()
        self.clear()
        return bytes(sent)

    def _lose(self) -> None:
        if not self.gone:
            self.gone = True
            reason = ConnectionAborted() if self._aborted else ConnectionDone()
            self.protocol.connectionLost(Failure(reason))


class World:
    """A service's factory, with a clock and notes of what happened."""

    def __init__(
        self, transform: str = "uppercase", framing: str = "stream", limits: Limits | None = None
    ) -> None:
        self.clock = Clock()
        self.notes = Notes()
        self.limits = limits or Limits()
        self.chain = Pipeline(
            [Stage(transform, listing().find(transform))], 1 << 20, lambda *_: None
        )
        self.factory = TransformFactory(framing, self.chain, self.limits, self.clock, self.notes)

    def wait(self, seconds: float) -> None:
        """Let time pass in small steps, as it does."""
        self.clock.pump([0.05] * round(seconds / 0.05))

    def check_idle(self) -> None:
        """Fail if a timer was left behind."""
        assert not self.clock.getDelayedCalls()
        assert not self.factory.connections
