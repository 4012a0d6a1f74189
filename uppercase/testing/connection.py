r"""A server and its client in memory: the real protocol, a transport without a socket, a clock.

    connection = connect("caesar:shift=3", framing="line")
    connection.send(b"abc\n")
    connection.receive()  # b"def\n"

Nothing happens by itself: time passes when `advance` is called, and what a transform waits for
comes when the test makes it come. This module needs neither pytest nor hypothesis.
"""

from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.events import Closed, Event, Outcome
from uppercase.core.framing import AUTO, choose_framing
from uppercase.errors import TransformError
from uppercase.limits import MAX_OUTPUT, Limits
from uppercase.services._tcp import conversation_opener
from uppercase.tcp.connection import TransformProtocol
from uppercase.tcp.factory import TransformFactory
from uppercase.testing.memory import CLIENT, SERVER, Recorder, advance, first_error, make_chain

__all__ = ["Connection", "connect"]

_CLIENT: Final = IPv4Address("TCP", *CLIENT)
_SERVER: Final = IPv4Address("TCP", *SERVER)


def connect(
    *transforms: object,
    framing: str = AUTO,
    limits: Limits | None = None,
    max_output: int = MAX_OUTPUT,
) -> "Connection":
    """Serve a chain of transforms and connect to it, in memory.

    Args:
        *transforms: specifications as on a command line, decorated or plain functions and classes,
            plugins, or `ITransform`s; none stands for `uppercase`.
        framing: as for `--framing`.
        limits: the server's bounds; without them, its defaults.
        max_output: bytes that each transform may give for one message or chunk.

    Raises:
        uppercase.errors.UserError: a specification or the framing is wrong.
        uppercase.errors.PluginError: a transform cannot be loaded.
    """
    limits = limits or Limits()
    events: list[Event] = []
    chain = make_chain(transforms, max_output, events)
    chosen = choose_framing(framing, chain.streams)
    clock = Clock()
    factory = TransformFactory(
        conversation_opener(chosen, chain, limits), limits, clock, Recorder(events)
    )
    return Connection(factory.buildProtocol(_CLIENT), clock, events)


class Connection:
    """The client's end of one connection.

    Attributes:
        clock: the server's.
        events: what the server has reported so far.
    """

    def __init__(self, protocol: TransformProtocol, clock: Clock, events: list[Event]) -> None:
        self.clock = clock
        self.events = events
        self._transport = _Transport(protocol, clock)
        protocol.makeConnection(self._transport)  # type: ignore[no-untyped-call]

    def send(self, data: bytes, cuts: Iterable[int] = ()) -> None:
        """Send bytes.

        Args:
            data: what the server gets as one chunk, or as several.
            cuts: where it is cut; a cut beyond the end is none.
        """
        places = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
        self._transport.arrive([data[start:end] for start, end in pairwise(places)])

    def half_close(self) -> None:
        """Send no more, as `nc -N` does at the end of its input; receiving goes on."""
        self._transport.arrive([None])

    def disconnect(self) -> None:
        """Go away at once, as a client that crashes does."""
        self._transport.lose(ConnectionLost())

    def receive(self) -> bytes:
        """Return what has come since the last call."""
        data: bytes = self._transport.value()  # type: ignore[no-untyped-call]
        self._transport.clear()  # type: ignore[no-untyped-call]
        return data

    def advance(self, seconds: float) -> None:
        """Let time pass for the server, from one thing that it has planned to the next."""
        advance(self.clock, seconds)

    @property
    def ended(self) -> bool:
        """Whether the server sends no more."""
        return self._transport.ended

    @property
    def closed(self) -> bool:
        """Whether the connection is closed in both directions."""
        return not self._transport.connected

    @property
    def outcome(self) -> Outcome | None:
        """How the connection ended, as the server's log has it; None before that."""
        return next((event.outcome for event in self.events if isinstance(event, Closed)), None)

    @property
    def error(self) -> TransformError | None:
        """What a transform failed with; None unless that ended the connection."""
        return first_error(self.events)


@implementer(IHalfCloseableDescriptor)
class _Transport(StringTransport):
    """A network without delay: what is written has arrived, what has arrived waits to be read."""

    def __init__(self, protocol: Any, clock: Clock) -> None:
        super().__init__(_SERVER, _CLIENT, lenient=True)  # type: ignore[no-untyped-call]
        self.ended = False
        self._protocol = protocol
        self._clock = clock
        self._unread: deque[bytes | None] = deque()

    def arrive(self, chunks: Iterable[bytes | None]) -> None:
        """Take chunks from the client; None is the end."""
        self._unread.extend(chunks)
        self._soon(self._deliver)

    def lose(self, reason: Exception) -> None:
        """End both directions."""
        if self.connected:
            self.connected = False
            self.ended = True
            self._protocol.connectionLost(Failure(reason))

    def write(self, data: bytes) -> None:
        if not self.ended:
            super().write(data)  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        super().resumeProducing()  # type: ignore[no-untyped-call]
        self._clock.callLater(0, self._deliver)

    def loseWriteConnection(self) -> None:
        self.ended = True
        self._clock.callLater(0, self._protocol.writeConnectionLost)

    def loseConnection(self) -> None:
        self.disconnecting = self.ended = True
        self._clock.callLater(0, self.lose, ConnectionDone())

    def abortConnection(self) -> None:
        self.disconnecting = self.ended = True
        self._clock.callLater(0, self.lose, ConnectionAborted())

    def readConnectionLost(self, reason: Failure) -> None:
        """Part of `IHalfCloseableDescriptor`: reactors call it; there is none here."""

    def writeConnectionLost(self, reason: Failure) -> None:
        """Part of `IHalfCloseableDescriptor`: reactors call it; there is none here."""

    def _soon(self, call: Any) -> None:
        self._clock.callLater(0, call)
        self._clock.advance(0)

    def _deliver(self) -> None:
        """Let the protocol read while it wants to."""
        while self._unread and self.connected and self.producerState == "producing":
            chunk = self._unread.popleft()
            if chunk is None:
                self._protocol.readConnectionLost()
            else:
                self._protocol.dataReceived(chunk)
