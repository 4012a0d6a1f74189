"""The connections of one TCP service: lets them in, knows which are open, tells what happens.

What one connection does is up to its protocol; this module moves no bytes. One timer for many tells
which have waited too long (`Deadlines`), another whose turn it is (`Turns`). What comes before the
framing is a `ConnectionStage`. A watched connection tells of its chunks too, for a record; others
do not pay for that.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import inf
from operator import methodcaller
from typing import Any, Final, Generic, TypeVar, cast

from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from uppercase.awaiting import await_reply
from uppercase.core.admission import Admission
from uppercase.core.conversation import (
    JOINED_LINES,
    Conversation,
    MessageConversation,
    StreamConversation,
)
from uppercase.core.events import Chunk, Direction, Event, HalfClosed, IObserver, Refused
from uppercase.core.framing import make_framer
from uppercase.core.pipeline import Pipeline
from uppercase.interfaces import IStreamTransform
from uppercase.lab import NO_LAB, TCPLab
from uppercase.limits import TURN, Limits
from uppercase.tcp._closing import REFUSED, EndingProtocol
from uppercase.tcp.connection import TransformProtocol
from uppercase.tcp.kernel import unread_input

_PROGRESS_CHECKS: Final = 4
"""Looks per time-out at whether a peer takes what it is owed while we close: one that stalls is
found at most a quarter of the time-out late."""

_LEAST_PAUSE: Final = 0.01
"""The fewest seconds between two of these looks: a time-out of next to nothing would keep the
processor busy with nothing else."""

_STALL_CHECKS: Final = 8
"""Looks per time-out at whether peers take what they are owed: one that stalls is cut off at most a
quarter of the time-out late. A look costs some microseconds a connection."""

_READING_TIME: Final = 0.5
"""Seconds in which what waits unread at the end of a stage's time is read; a peer that drips bytes
has no more than this."""

_PEER_CHECK: Final = 1.0
"""Seconds between looks at peers that are neither read from nor written to."""

INCOMPLETE_TIME: Final = 3.0
"""Seconds that a peer waits with the start of a message before somebody is told: by then a person
wonders, and no program that is still writing its line pauses that long."""

_PRECISION: Final = 1 / 16
"""The share of a time-out by which it may be late: all connections are looked at this often at
most."""

C = TypeVar("C")


@dataclass(eq=False)
class Deadlines(Generic[C]):
    """Acts on the connections that have waited too long, for whatever `since` says they wait.

    Traffic only sets a time stamp, and the timer looks at all of them when the first can be due. To
    look at a thousand takes four milliseconds, and a busy service does so about once per time-out.
    Others have their turn every `TURN` seconds, also where many end at once.

    Attributes:
        connections: kept up to date by their owner, which calls `opened` and `closed`.
        since: returns the time since which one of them has waited; None if it does not.
        act: called with one that has waited for `timeout`.
        every: seconds between two looks, where only a look tells that one waits; it may then have
            begun to wait at any time after the last.
    """

    clock: IReactorTime
    timeout: float
    connections: Collection[C]
    since: Callable[[C], float | None]
    act: Callable[[C], object]
    every: float = 0.0
    _call: IDelayedCall | None = field(default=None, init=False)

    def opened(self) -> None:
        """Watch, from the first connection on."""
        if self._call is None:
            self._call = self.clock.callLater(self._pause(0.0), self._look)

    def closed(self) -> None:
        """Note that a connection is gone; after the last one there is no timer."""
        if self._call is not None and not self.connections:
            self._call.cancel()
            self._call = None

    def _look(self, left: list[C] | None = None, first: float = inf) -> None:
        """Look at those that are left, or at all; the rest wait while others have their turn."""
        self._call = None
        now = self.clock.seconds()
        left, first = left or list(self.connections), min(first, now)
        while left and self.clock.seconds() - now <= TURN:
            connection = left.pop()
            # It may be gone by now.
            since = self.since(connection) if connection in self.connections else None
            if since is None:
                continue
            if now - since >= self.timeout + self.every:
                self.act(connection)
            else:
                first = min(first, since)
        if left:
            self._call = self.clock.callLater(0, self._look, left, first)
        elif self.connections:
            self._call = self.clock.callLater(self._pause(first - now), self._look)

    def _pause(self, first: float) -> float:
        """Return in how many seconds to look again, given since when the first waits, from now."""
        return self.every or max(first + self.timeout, self.timeout * _PRECISION)


class Turns:
    """Lets the connections that have more to do go on, one after the other, a little at a time.

    Together they have `TURN` seconds of each turn of the reactor, so that a peer that sends
    something new waits no longer than that, however many others keep the service busy.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # A dictionary, as an ordered set: the one that has waited longest comes first.
        self._waiting: dict[TransformProtocol, None] = {}
        self._call: IDelayedCall | None = None

    def take_later(self, connection: TransformProtocol) -> None:
        """Let a connection go on once those that already wait have had their turn."""
        self._waiting[connection] = None
        if self._call is None:
            self._call = self._clock.callLater(0, self._go_round)

    def forget(self, connection: TransformProtocol) -> None:
        """Let a connection that is gone have no more turns."""
        self._waiting.pop(connection, None)
        if self._call is not None and not self._waiting:
            self._call.cancel()
            self._call = None

    def _go_round(self) -> None:
        self._call = None
        until = self._clock.seconds() + TURN
        for connection in list(self._waiting):
            # It may be gone by now.
            if connection in self._waiting:
                del self._waiting[connection]
                connection.pump()
            if self._clock.seconds() > until:
                break
        if self._waiting and self._call is None:
            self._call = self._clock.callLater(0, self._go_round)


class TransformFactory(ServerFactory):
    """Makes the protocols of one service and their conversations, and knows which are open.

    Args:
        framing: a name of `uppercase.core.framing.FRAMINGS`; `stream` needs a chain that streams.
        chain: answers the messages.
        observer: told of openings, refusals, closings and failures.
        lab: what happens to each connection on purpose.

    Attributes:
        connections: the open ones.
        admission: decides which are let in.
        turns: lets those that have more to do go on.
        on_closed: called after each end.
        on_stopped: called when no port listens any more.
        tell: tells the observer of an event.
    """

    noisy = False

    def __init__(
        self,
        framing: str,
        chain: Pipeline,
        limits: Limits,
        clock: IReactorTime,
        observer: IObserver,
        lab: TCPLab = NO_LAB,
    ) -> None:
        self._framing = framing
        self._chain = chain
        self.limits = limits
        self.clock = clock
        self.lab = None if lab == NO_LAB else lab
        if self.lab is not None:
            # Not with the first connection: its file may be another version's by then, or gone.
            import uppercase.lab.serving  # noqa: F401
        self.connections: set[TransformProtocol] = set()
        self.admission = Admission(
            limits.max_connections, limits.max_per_address, self.connections, clock.seconds
        )
        self.turns = Turns(clock)
        self.on_closed: Callable[[], None] = lambda: None
        self.on_stopped: Callable[[], None] = lambda: None
        idle = EndingProtocol.idle_since, EndingProtocol.close_idle
        stalled = EndingProtocol.stalled_since, EndingProtocol.close_stalled
        every = max(limits.send_timeout / _STALL_CHECKS, _LEAST_PAUSE)
        self._watches: list[Deadlines[EndingProtocol]] = [
            Deadlines(clock, limits.idle_timeout, self.connections, *idle),
            Deadlines(clock, limits.send_timeout, self.connections, *stalled, every),
        ]
        if framing == "line":
            incomplete = EndingProtocol.incomplete_since, EndingProtocol.tell_incomplete
            self._watches.append(Deadlines(clock, INCOMPLETE_TIME, self.connections, *incomplete))
        overdue = EndingProtocol.overdue_since, EndingProtocol.close_overdue
        every = min(limits.close_timeout, limits.send_timeout) / _PROGRESS_CHECKS
        every = min(max(every, _LEAST_PAUSE), _PEER_CHECK)
        self._looked_after: set[EndingProtocol] = set()
        self._overdue = Deadlines(clock, 0.0, self._looked_after, *overdue, every)
        self.tell: Callable[[Event], object] = observer.notify

    def stopFactory(self) -> None:
        """No port listens any more: there are timers only while there are connections."""
        self._end_watches()
        self.on_stopped()

    def open_conversation(self, on_ready: Callable[[], None]) -> Conversation:
        """Return a connection's conversation, which calls back when an awaited reply has come."""
        framing, chain, limits = self._framing, self._chain, self.limits
        if framing == "stream":
            return StreamConversation(cast(IStreamTransform, chain))
        joins = framing == "line" and chain.joins_lines
        return MessageConversation(
            make_framer(framing, max_length=limits.max_length),
            chain,
            await_reply=await_reply,
            on_ready=on_ready,
            window=limits.async_window,
            joined=min(JOINED_LINES, limits.max_length) if joins else 0,
        )

    def look_after(self, connection: EndingProtocol) -> None:
        """Look from now on whether it closes in time, or its peer is gone while it is not read.

        The reactor would not notice that, and nobody would cancel the reply that is not wanted.
        """
        self._looked_after.add(connection)
        self._overdue.opened()

    def buildProtocol(self, addr: IAddress | None) -> TransformProtocol:
        return TransformProtocol(self, addr)

    def enter(self, connection: TransformProtocol) -> bool:
        """Let a connection in, or not: when it is made, and again once it is known whose it is."""
        if known := connection in self.connections:
            # Invariant: admission decides without the connection in question.
            self.connections.remove(connection)
        refusal = self.admission.enter(connection.client)
        if known or refusal is None:
            self.connections.add(connection)
        if refusal is not None:
            self.tell(Refused(connection.name, *refusal))
        elif not known:
            for watch in self._watches:
                watch.opened()
        return refusal is None

    def remove(self, connection: TransformProtocol) -> None:
        """Forget a connection that is gone, if it was ever let in."""
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        self._looked_after.discard(connection)
        self.admission.leave(connection.client)
        # While a port listens, each of several clients in a row would create and cancel the timers.
        if not self.numPorts:
            self._end_watches()
        self.on_closed()

    def _end_watches(self) -> None:
        for watch in (*self._watches, self._overdue):
            watch.closed()


class ConnectionStage(ProtocolWrapper):
    """What comes before the framing on a connection; until it is `done` it may become `too_late`.

    It is the transport of what is above, and hands on half-closes, which Twisted's wrappers do not.
    """

    factory: "StageFactory"
    wrappedProtocol: Any
    transport: Any

    def makeConnection(self, transport: Any) -> None:
        factory = self.factory
        self._began, self._has_waited = factory.served.clock.seconds(), False
        factory.unfinished.add(self)
        factory.watch.opened()
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def done(self) -> None:
        """Note that there is nothing left to wait for."""
        self.factory.unfinished.discard(self)
        self.factory.watch.closed()

    def unfinished_since(self) -> float:
        """Return when it began; once, a later time, if something is unread when its time is over.

        The process may have been busy, or stopped, while that came.
        """
        now, seconds = self.factory.served.clock.seconds(), self.factory.seconds
        if now - self._began >= seconds and not self._has_waited and unread_input(self.transport):
            self._has_waited = True
            self._began = now - seconds + _READING_TIME
        return self._began

    def writeConnectionLost(self) -> None:
        self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class StageFactory(WrappingFactory):
    """Puts a stage in front of another factory's protocols.

    Args:
        wrapped: the next stage.
        served: the last factory: it knows the bounds and whom to tell.
        seconds: how long each may take.
    """

    noisy = False

    def __init__(self, wrapped: IProtocolFactory, served: TransformFactory, seconds: float) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.served = served
        self.seconds = seconds
        self.unfinished: set[ConnectionStage] = set()
        late = ConnectionStage.unfinished_since, methodcaller("too_late")
        self.watch = Deadlines(served.clock, seconds, self.unfinished, *late)


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
        """Tell of the end of input, once."""
        if not self._ended:
            self._ended = True
            self.tell(HalfClosed(self.name))
        super().readConnectionLost()

    def tell(self, event: Chunk | HalfClosed) -> None:
        """Tell the service's observer, unless it has heard that the connection is refused."""
        if self._state is not REFUSED:
            self._factory.tell(event)


class _Outgoing:
    """A transport whose writes are told of before they are made; all else is its own."""

    def __init__(self, transport: Any, connection: _WatchedProtocol) -> None:
        self._transport = transport
        self._connection = connection
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._connection.tell(Chunk(self._connection.name, Direction.REPLY, bytes(data)))
        self._transport.write(data)
