"""A connection whose chunks are told of, for a record; others do not pay for it."""

from typing import Any

from twisted.internet.interfaces import IAddress
from zope.interface import directlyProvides, providedBy

from uppercase.core.events import Chunk, Direction, HalfClosed
from uppercase.tcp.connection import TransformProtocol
from uppercase.tcp.factory import TransformFactory


class WatchedFactory(TransformFactory):
    """A factory that tells its observer of each chunk too."""

    def buildProtocol(self, addr: IAddress | None) -> TransformProtocol:
        """Make a connection's protocol."""
        return _WatchedProtocol(self, addr)


class _WatchedProtocol(TransformProtocol):
    _ended = False

    def makeConnection(self, transport: Any) -> None:
        """Stand between the connection and what it writes to."""
        super().makeConnection(_Outgoing(transport, self))  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Tell of a chunk, and take it."""
        self.tell(Chunk(self.name, Direction.REQUEST, data))
        super().dataReceived(data)

    def readConnectionLost(self) -> None:
        """Tell of the end of input, once, and take note of it."""
        if not self._ended:
            self._ended = True
            self.tell(HalfClosed(self.name))
        super().readConnectionLost()

    def tell(self, event: Chunk | HalfClosed) -> None:
        """Tell the service's observer."""
        self._factory.tell(event)


class _Outgoing:
    """A transport that is told of before it is written to; all else is the transport's own."""

    def __init__(self, transport: Any, connection: _WatchedProtocol) -> None:
        self._transport = transport
        self._connection = connection
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Tell of a chunk, and pass it on."""
        self._connection.tell(Chunk(self._connection.name, Direction.REPLY, bytes(data)))
        self._transport.write(data)
