"""The connections of one TCP service: lets them in, knows which are open, tells what happens.

What one connection does is its protocol's matter; this module moves no bytes. A watched connection
tells of its chunks too, for a record; others do not pay for it.
"""

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory
from zope.interface import directlyProvides, providedBy

from uppercase.core.admission import Admission
from uppercase.core.conversation import AwaitReply, Conversation
from uppercase.core.events import (
    Chunk,
    Direction,
    Event,
    HalfClosed,
    IObserver,
    RefusalReason,
    Refused,
)
from uppercase.lab import NO_LAB, TCPLab
from uppercase.limits import Limits
from uppercase.tcp._states import known_as
from uppercase.tcp.closing import STALL_CHECKS, IdleWatch
from uppercase.tcp.connection import TransformProtocol

_ROUND: Final = 0.005
"""Seconds of each turn of the reactor in which connections go on that have had a turn before."""

_PEER_CHECK: Final = 1.0
"""Seconds between looks at peers from which nothing is read and to which nothing is written."""

INCOMPLETE_TIME: Final = 3.0
"""Seconds that a peer waits with the start of a message before somebody is told: by then a person
wonders, and no program that is still writing its line has paused for so long."""

OpenConversation = Callable[[AwaitReply, Callable[[], None]], Conversation]
"""Makes a connection's conversation, given how to await and whom to tell of an awaited reply."""


class Turns:
    """Lets the connections that have more to do go on, one after the other, a little at a time.

    All of them together have `_ROUND` seconds of each turn of the reactor, so that whoever sends
    something new waits for no more than that, however many others keep the service busy.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # A dictionary, as an ordered set: whoever has waited longest comes first.
        self._waiting: dict[TransformProtocol, None] = {}
        self._call: IDelayedCall | None = None

    def take_later(self, connection: TransformProtocol) -> None:
        """Let a connection go on once those that wait already have had their turn."""
        self._waiting[connection] = None
        if self._call is None:
            self._call = self._clock.callLater(0, self._go_round)

    def forget(self, connection: TransformProtocol) -> None:
        """Take note that a connection is gone."""
        self._waiting.pop(connection, None)
        if self._call is not None and not self._waiting:
            self._call.cancel()
            self._call = None

    def _go_round(self) -> None:
        self._call = None
        until = self._clock.seconds() + _ROUND
        for connection in list(self._waiting):
            # It may be gone since.
            if connection in self._waiting:
                del self._waiting[connection]
                connection.take_turn()
            if self._clock.seconds() > until:
                break
        if self._waiting and self._call is None:
            self._call = self._clock.callLater(0, self._go_round)


class TransformFactory(ServerFactory):
    """Makes the protocols of one service and knows which connections are open.

    Args:
        open_conversation: called once per connection.
        observer: told of openings, refusals, closings and failures.
        lab: what happens to each connection on purpose.

    Attributes:
        connections: the open ones.
        admission: decides which are let in.
        turns: lets those that have more to do go on.
        on_closed: called after one has been closed, if somebody set it.
        tell: tells the observer of an event.
    """

    noisy = False

    def __init__(
        self,
        open_conversation: OpenConversation,
        limits: Limits,
        clock: IReactorTime,
        observer: IObserver | None = None,
        lab: TCPLab = NO_LAB,
    ) -> None:
        self.open_conversation = open_conversation
        self.limits = limits
        self.clock = clock
        self.lab = None if lab == NO_LAB else lab
        self.connections: set[TransformProtocol] = set()
        self.admission = Admission(
            limits.max_connections, limits.max_per_address, self.connections, clock.seconds
        )
        self.turns = Turns(clock)
        self.on_closed: Callable[[], None] | None = None
        idle = TransformProtocol.idle_since, TransformProtocol.close_idle
        stalled = TransformProtocol.stalled_since, TransformProtocol.close_stalled
        every = limits.send_timeout / STALL_CHECKS
        self._watches = [
            IdleWatch(clock, limits.idle_timeout, self.connections, *idle),
            IdleWatch(clock, limits.send_timeout, self.connections, *stalled, every),
        ]
        gone = TransformProtocol.gone_since, TransformProtocol.close_gone
        self._unread: set[TransformProtocol] = set()
        self._peers = IdleWatch(clock, 0.0, self._unread, *gone, _PEER_CHECK)
        self._listening = False
        self.tell: Callable[[Event], object] = (
            (lambda _: None) if observer is None else observer.notify
        )

    def startFactory(self) -> None:
        """The first port listens: the watches' timers outlast the last connection."""
        self._listening = True

    def stopFactory(self) -> None:
        """No port listens any more: there are timers only while there are connections."""
        self._listening = False
        self._end_watches()

    def watch_incomplete(self) -> None:
        """From now on tell of connections that wait with the start of a message."""
        incomplete = TransformProtocol.incomplete_since, TransformProtocol.tell_incomplete
        self._watches.append(IdleWatch(self.clock, INCOMPLETE_TIME, self.connections, *incomplete))

    def watch_peer(self, connection: TransformProtocol) -> None:
        """Look from now on whether the peer is gone while a reply is awaited and nothing is read.

        The reactor would not notice, and the reply that nobody waits for would not be cancelled.
        """
        self._unread.add(connection)
        self._peers.opened()

    def buildProtocol(self, addr: IAddress | None) -> TransformProtocol:
        return TransformProtocol(self, addr)

    def enter(self, connection: TransformProtocol) -> bool:
        """Let a connection in, or not: when it is made, and again when it is known whose it is."""
        known = connection in self.connections
        # Invariant: admission decides without the connection in question.
        self.connections.discard(connection)
        refusal = self.admission.enter(connection.client)
        if known or refusal is None:
            self.connections.add(connection)
        if not known and refusal is None:
            for watch in self._watches:
                watch.opened()
        if refusal is not None:
            self.tell(Refused(connection.name, *refusal))
        return refusal is None

    def remove(self, connection: TransformProtocol) -> None:
        """Take note that a connection is gone; one that was never let in is none."""
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        self._unread.discard(connection)
        self._peers.closed()
        self.admission.leave(connection.client)
        # One client after another would have them made and cancelled for each.
        if not self._listening:
            self._end_watches()
        if self.on_closed is not None:
            self.on_closed()

    def _end_watches(self) -> None:
        for watch in self._watches:
            watch.closed()

    def refused(self, peer: IAddress | None, reason: RefusalReason, why: str) -> None:
        """Take note of a connection that was closed before anything was read from it."""
        self.tell(Refused(known_as(peer)[0], reason, why))


class WatchedFactory(TransformFactory):
    """A factory that tells its observer of each chunk too."""

    def buildProtocol(self, addr: IAddress | None) -> TransformProtocol:
        return _WatchedProtocol(self, addr)


class _WatchedProtocol(TransformProtocol):
    _ended = False

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(_Outgoing(transport, self))  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
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
        self._connection.tell(Chunk(self._connection.name, Direction.REPLY, bytes(data)))
        self._transport.write(data)
