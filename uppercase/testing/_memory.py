"""Servers and their clients in memory: the real protocols and guards, no socket, a clock.

Nothing happens by itself: time passes when `advance` is called, and what a transform waits for
comes when the test makes it come. This module needs neither pytest nor hypothesis.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.datagram import Destination, Origin
from uppercase.core.events import (
    Closed,
    DropReason,
    Event,
    IObserver,
    Outcome,
    SlowCall,
    TransformFailed,
)
from uppercase.core.framing import AUTO, choose_framing
from uppercase.core.pipeline import Pipeline
from uppercase.core.responder import Responder
from uppercase.errors import TransformError
from uppercase.limits import DEFAULT_PORT, MAX_OUTPUT, DatagramLimits, Limits
from uppercase.registry import listing
from uppercase.tcp.connection import TransformProtocol
from uppercase.tcp.factory import TransformFactory
from uppercase.udp import ResponderProtocol

# RFC 5737 gives these addresses to examples.
_CLIENT: Final = ("192.0.2.1", 49152)
_SERVER: Final = ("192.0.2.2", DEFAULT_PORT)
_TCP_CLIENT: Final = IPv4Address("TCP", *_CLIENT)
_TCP_SERVER: Final = IPv4Address("TCP", *_SERVER)


def connect(
    *transforms: object,
    framing: str = AUTO,
    limits: Limits | None = None,
    max_output: int = MAX_OUTPUT,
) -> "Connection":
    """Serve a chain of transforms and connect to it, in memory.

    They are specifications as on a command line, decorated or plain functions and classes, plugins,
    or `ITransform`s; none stands for `uppercase`. The rest is as for the service's options.

    Raises:
        uppercase.errors.UserError: a specification or the framing is wrong.
        uppercase.errors.PluginError: a transform cannot be loaded.
    """
    limits = limits or Limits()
    events = _Events()
    chain = _make_chain(transforms, max_output, events)
    chosen = choose_framing(framing, chain.streams)
    clock = Clock()
    factory = TransformFactory(chosen, chain, limits, clock, events)
    return Connection(factory.buildProtocol(_TCP_CLIENT), clock, events)


def connect_udp(
    *transforms: object, limits: DatagramLimits | None = None, max_output: int = MAX_OUTPUT
) -> "UDPClient":
    """Serve a chain of transforms over UDP, in memory, for one client; see `connect`."""
    events = _Events()
    clock = Clock()
    chain = _make_chain(transforms, max_output, events)
    responder = Responder(chain, limits, clock=clock.seconds, observer=events)
    return UDPClient(responder, clock, events)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return bytes cut at these places; one beyond the end does not count."""
    places = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


class _Client:
    def __init__(self, clock: Clock, events: list[Event]) -> None:
        self.clock = clock
        self.events = events

    def advance(self, seconds: float) -> None:
        """Let time pass for the server, from one thing that it has planned to the next."""
        clock = self.clock
        end = clock.seconds() + seconds
        while planned := [
            call.getTime() for call in clock.getDelayedCalls() if call.getTime() <= end
        ]:
            clock.advance(max(0.0, min(planned) - clock.seconds()))
        clock.advance(end - clock.seconds())

    @property
    def error(self) -> TransformError | None:
        """What a transform failed with first; None unless one did.

        Over TCP it is told at the end, when the client has closed its side, too, or gone.
        """
        failed = (event.error for event in self.events if isinstance(event, TransformFailed))
        error = next(failed, None)
        return error if isinstance(error, TransformError) else None


class Connection(_Client):
    """The client's end of one connection; `clock` is the server's, `events` what it reported."""

    def __init__(self, protocol: TransformProtocol, clock: Clock, events: list[Event]) -> None:
        super().__init__(clock, events)
        self._transport = _TCPTransport(protocol, clock)
        protocol.makeConnection(self._transport)  # type: ignore[no-untyped-call]

    def send(self, data: bytes, cuts: Iterable[int] = ()) -> None:
        """Send bytes, as one chunk or cut at these places; one beyond the end does not count."""
        self._transport.arrive(pieces(data, cuts))

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

    @property
    def ended(self) -> bool:
        """Whether the server has ended its side."""
        return self._transport.ended

    @property
    def closed(self) -> bool:
        """Whether the connection is closed in both directions."""
        return not self._transport.connected

    @property
    def outcome(self) -> Outcome | None:
        """How the connection ended, as the server's log has it; None before that."""
        return next((event.outcome for event in self.events if isinstance(event, Closed)), None)


@implementer(IHalfCloseableDescriptor)
class _TCPTransport(StringTransport):
    """A network without delay: what is written has arrived, what has arrived waits to be read."""

    def __init__(self, protocol: Any, clock: Clock) -> None:
        super().__init__(_TCP_SERVER, _TCP_CLIENT, lenient=True)  # type: ignore[no-untyped-call]
        self.ended = False
        self._protocol = protocol
        self._clock = clock
        self._unread: deque[bytes | None] = deque()

    def arrive(self, chunks: Iterable[bytes | None]) -> None:
        """Take chunks from the client; None is the end."""
        self._unread.extend(chunks)
        self._clock.callLater(0, self._deliver)
        self._clock.advance(0)

    def lose(self, reason: Exception) -> None:
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

    writeConnectionLost = readConnectionLost

    def _deliver(self) -> None:
        while self._unread and self.connected and self.producerState == "producing":
            chunk = self._unread.popleft()
            if chunk is None:
                self._protocol.readConnectionLost()
            else:
                self._protocol.dataReceived(chunk)


class UDPClient(_Client):
    """A client whose datagrams all arrive, in order; `clock` and `events` are the server's."""

    def __init__(self, responder: Responder, clock: Clock, events: list[Event]) -> None:
        super().__init__(clock, events)
        self._responder = responder
        self._replies: list[bytes] = []
        self._protocol = ResponderProtocol(responder, clock)
        transport: Any = _UDPTransport(self._replies)
        self._protocol.makeConnection(transport)

    def send(self, *messages: bytes) -> None:
        """Send datagrams, which reach the server together."""
        origin = Origin.of(_CLIENT, Destination(*_SERVER))
        self._protocol.receive_batch(messages, [origin] * len(messages))

    def receive(self) -> list[bytes]:
        """Return the replies that have come since the last call, in the order of their arrival."""
        came, self._replies[:] = self._replies[:], []
        return came

    @property
    def drops(self) -> Counter[DropReason]:
        """How many datagrams got no reply, by reason."""
        return self._responder.drops


class _UDPTransport:
    """A network without loss."""

    def __init__(self, replies: list[bytes]) -> None:
        self._replies = replies

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", *_SERVER)

    def write(self, data: bytes, address: object) -> None:
        self._replies.append(data)


def _make_chain(transforms: Sequence[object], max_output: int, events: list[Event]) -> Pipeline:
    """Chain transforms, `uppercase` where there are none; slow calls go to the events."""
    return Pipeline(
        listing().stages(transforms or ("uppercase",)),
        max_output,
        lambda name, seconds: events.append(SlowCall(name, seconds)),
    )


@implementer(IObserver)
class _Events(list[Event]):
    """What an observer has been told."""

    def notify(self, event: Event) -> None:
        self.append(event)
