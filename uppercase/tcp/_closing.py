"""What a connection is doing, whose it is, and everything that decides how it ends.

A connection has to end, and nothing that is owed may be lost with it.

`loseConnection` is a request: it never completes while a paused producer is registered, while the
peer does not read, or over TLS while the peer stays mute. And closing a socket with unread input
makes the kernel send a reset, which can destroy replies that the peer has not read yet. So our side
is closed once all output is out, input is read and thrown away until the peer closes too, and each
of these has a deadline: a peer that still takes what it is owed has all the time it needs, one that
takes nothing is aborted after `send_timeout`, and one that has everything but does not close is
aborted after `close_timeout`.

A connection also ends when its peer takes nothing of what it is owed, when the peer is gone while
neither side has anything to say, and when nothing happens at all: the factory looks for these.
"""

from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from uppercase.core.admission import client_key
from uppercase.core.conversation import Conversation
from uppercase.core.events import Closed, Incomplete, Opened, Outcome, TransformFailed
from uppercase.core.values import printable_address, unmapped
from uppercase.errors import TransformError
from uppercase.limits import MIB
from uppercase.tcp.kernel import peer_is_gone, progress_mark, unacknowledged_output, unread_input

if TYPE_CHECKING:
    from uppercase.lab.serving import LabOutlet
    from uppercase.tcp.factory import TransformFactory


class State(Enum):
    """What a connection is doing."""

    # Enum's own is Python code, and each move needs several.
    __hash__ = object.__hash__

    OPENING = auto()
    """It is being made."""
    IDENTIFYING = auto()
    """It counts, and waits for the PROXY header that tells whose it is."""
    SERVING = auto()
    """Its input is answered."""
    DRAINING = auto()
    """The service stops: what had arrived by then is answered, and no more."""
    CLOSING = auto()
    """It comes to its end; input is thrown away."""
    REFUSED = auto()
    """It was not let in, and is aborted."""
    CLOSED = auto()
    """It is lost."""


OPENING, IDENTIFYING, SERVING, DRAINING, CLOSING, REFUSED, CLOSED = State
UNDECIDED: Final = (OPENING, IDENTIFYING)
STOPPED: Final = Outcome.STOPPED
# The names to use in this package: `State.SERVING` takes seven times as long (CPython 3.11).

NEXT_STATES: Final[Mapping[State, tuple[State, ...]]] = {
    OPENING: (IDENTIFYING, SERVING, REFUSED),
    IDENTIFYING: (SERVING, DRAINING, REFUSED, CLOSING, CLOSED),
    SERVING: (DRAINING, CLOSING, CLOSED),
    DRAINING: (CLOSING, CLOSED),
    CLOSING: (CLOSED,),
    REFUSED: (CLOSED,),
    CLOSED: (),
}

OPEN_STATES: Final = (SERVING, DRAINING, IDENTIFYING)

LINGER: Final = 4 * MIB
"""Bytes that a peer may still send after its conversation has ended: what was under way. They are
thrown away so that the last replies reach it. A peer that sends more is not listening."""


class IStreamTransport(ITransport, IConsumer, IPushProducer):
    """What every stream transport of Twisted's has; only some of them can half-close."""

    def loseWriteConnection() -> None:
        """End the output once all of it is sent."""

    def abortConnection() -> None:
        """Close at once; what is not sent is lost."""


class IOrderlyTLSTransport(IStreamTransport):
    """A TLS transport whose `loseWriteConnection` ends TLS's output before TCP's.

    Others hand on the half-close of what they run on, which would cut the TLS.
    """

    wire_received = Attribute("Bytes that came from below and whose content was delivered.")


def ends_at_once(transport: ITransport) -> bool:
    """Whether a connection, once asked to end, ends within this turn."""
    # TLS hands on what the transport below it says, and may have to wait for a goodbye.
    tls = IOrderlyTLSTransport.providedBy(transport) or ISSLTransport.providedBy(transport)
    return getattr(transport, "ends_at_once", False) and not tls


class IUnidentified(Interface):
    """A transport whose `getPeer` gives the client's address only after `identified` was called.

    Its protocol gets no input before that; what may be called on it is `TransformProtocol`'s.
    """


_UNIX_PEERS: Final = count(1)


@lru_cache(4096)
def _client(host: str) -> tuple[str, str]:
    """Return how the names of a host's clients begin, and whom they count for."""
    return printable_address(unmapped(host), 0).removesuffix("0"), client_key(host)


def known_as(address: Any) -> tuple[str, str | None]:
    """Return what events call the peer at one of Twisted's addresses, and whom it counts for.

    The peer of a UNIX socket has no address: it has a number, and counts for nobody.
    """
    host: str | None = getattr(address, "host", None)
    if host is None:
        return f"unix:{next(_UNIX_PEERS)}", None
    begin, client = _client(host)
    return f"{begin}{address.port}", client


class EndingProtocol(Protocol):
    """The half of `TransformProtocol` that moves no bytes: its state, and what may end it.

    Attributes:
        name: what events and logs call the peer: the transport's, or whom a PROXY header names.
    """

    transport: IStreamTransport
    name = ""

    # The other half writes these: here they are read, and progress is noted in `_active_at`.
    _factory: "TransformFactory"
    _clock: IReactorTime
    _conversation: Conversation
    _active_at: float
    sent_at: float
    _paused = False
    _reading = True
    _peer_ended = False
    _lab: "LabOutlet | None" = None
    _received = 0
    _sent = 0

    # These are written here, once the other half has made them.
    _state: State
    _taken_at: float
    _mark: object = None
    _told_incomplete = False
    _linger_until: float = inf
    _outcome: Outcome | None = None
    _detail = ""
    _flushed = False
    _delivered = False

    def _move(self, state: State) -> None:
        """Go on to another state."""
        before = self._state
        assert state in NEXT_STATES[before], f"{before} -> {state}"
        # Invariant: a connection that is let in is told of once, before its end: when it is known
        # whose it is, or that this will never be known.
        self._state = state
        if before in UNDECIDED and state not in (IDENTIFYING, REFUSED):
            self._factory.tell(Opened(self.name))

    def idle_since(self) -> float | None:
        """Return the time since which nothing was sent or taken; None while a reply is awaited."""
        if self._state not in OPEN_STATES or self._conversation.awaiting:
            return None
        if self._lab is not None and self._lab.holds_up:
            return None
        # The process may have been busy, or stopped, while it came: it is read before this is said.
        if self._reading and unread_input(self.transport):
            return None
        self._look_at_progress()
        return self._active_at

    def stalled_since(self) -> float | None:
        """Return a time since which the peer has taken nothing; None if it is owed nothing."""
        if self._state in OPEN_STATES and self._look_at_progress():
            return self._taken_at
        return None

    def close_stalled(self) -> None:
        """Abort because the peer takes nothing of what it is owed."""
        self._stalled()
        self._abort()

    def _look_at_progress(self) -> bool:
        """Note what the peer has taken; tell whether it is owed something."""
        owed = unacknowledged_output(self.transport)
        # Where the system cannot tell, what counts is whether Twisted's buffer is empty again.
        is_owed = self._paused if owed is None else owed > 0
        if not is_owed:
            self._taken_at = self._clock.seconds()
        elif (mark := progress_mark(self.transport)) != self._mark:
            self._mark, self._active_at = mark, self._clock.seconds()
            self._taken_at = self._active_at
        return is_owed

    def unproductive_since(self) -> float | None:
        """Return the time since which we sent it nothing; None while it is owed something."""
        since = self.idle_since()
        return since if since is None or unacknowledged_output(self.transport) else self.sent_at

    def incomplete_since(self) -> float | None:
        """Return the time since which it waits with the start of a message, if not yet told."""
        waits = self._conversation.incomplete and not (self._told_incomplete or self._peer_ended)
        return self.idle_since() if waits else None

    def tell_incomplete(self) -> None:
        """Tell of that, once for each connection."""
        self._told_incomplete = True
        self._factory.tell(Incomplete(self.name, self._conversation.incomplete))

    def close_idle(self) -> None:
        """Close because nothing happens."""
        seconds = self._factory.limits.idle_timeout
        self.end_with(Outcome.IDLE, f"nothing came for {seconds:g} s (--idle-timeout)")
        self._close(linger=not self._peer_ended)

    def evict(self) -> None:
        """Close to make room for another connection."""
        self.end_with(Outcome.EVICTED, "it was idle, and all were taken (--max-connections)")
        if self._paused or unacknowledged_output(self.transport):
            # It has taken nothing of what it is owed while it was idle: it would keep its place.
            self._abort()
        else:
            self._close(linger=False)

    def overdue_since(self) -> float | None:
        """Return -inf if its peer is gone, or has had its time since it closes; else None."""
        overdue = False
        if self._state is CLOSING:
            overdue = self._has_had_its_time()
        elif self._state in OPEN_STATES and not self._reading:
            # Otherwise it reads, and the reactor notices the end.
            overdue = peer_is_gone(self.transport)
        return -inf if overdue else None

    def close_overdue(self) -> None:
        """Abort, as nothing else can be done."""
        if self._state is CLOSING and not self._delivered:
            self._stalled()
        self._abort()

    def abort(self) -> None:
        """Close at once; what is owed is lost."""
        self.end_with(Outcome.STOPPED, "the drain time was over (--drain)")
        self._abort()

    def _close(self, *, linger: bool) -> None:
        """Begin to close; `overdue_since` goes on."""
        self._move(CLOSING)
        # To go on asking while the service stops is not wrong: the drain time bounds it.
        if self._conversation.outcome is not STOPPED:
            self._linger_until = self._received + LINGER
        transport = self.transport
        # Invariant: no producer is registered while a transport closes. With a paused one it would
        # wait for more output forever.
        transport.unregisterProducer()
        if linger or not ends_at_once(transport):
            self._mark, self._taken_at = progress_mark(transport), self._clock.seconds()
            self._factory.look_after(self)
        half_closes = IHalfCloseableDescriptor.providedBy(transport)
        if linger and half_closes and not ISSLTransport.providedBy(transport):
            # Invariant: input is read to its end, and thrown away. Closing the socket while the
            # kernel holds some would reset the connection, and destroy replies on their way.
            transport.resumeProducing()
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our side is closed, and the kernel has all output."""
        if not self._flushed:
            self._flushed, self._taken_at = True, self._clock.seconds()

    def _has_had_its_time(self) -> bool:
        """Whether the peer has had all the time it is allowed to take the rest, or to close."""
        mark, now = progress_mark(self.transport), self._clock.seconds()
        if mark != self._mark:
            self._mark, self._taken_at = mark, now
        owed = unacknowledged_output(self.transport)
        has_all = self._flushed if owed is None else owed == 0
        limits = self._factory.limits
        overdue = now - self._taken_at >= (limits.close_timeout if has_all else limits.send_timeout)
        self._delivered = overdue and has_all
        return overdue

    def _abort(self) -> None:
        if self._state in OPEN_STATES:
            self._move(CLOSING)
            # Not at its end: of many that are aborted, that has all of them in one turn, and to
            # cancel what is awaited is the longest part of it.
            self._conversation.cancel()
        self.transport.abortConnection()

    def end_with(self, outcome: Outcome, detail: str) -> None:
        """Settle how this ends, and why, unless that is settled; stages such as TLS do so too."""
        if self._outcome is None:
            self._outcome, self._detail = outcome, detail

    def _stalled(self) -> None:
        """Settle that it ends because the peer takes nothing."""
        seconds = self._factory.limits.send_timeout
        self.end_with(Outcome.STALLED, f"it took nothing for {seconds:g} s (--send-timeout)")

    def _report_end(self, reason: Failure) -> None:
        conversation = self._conversation
        if isinstance(reason.value, MemoryError):
            self.end_with(Outcome.FAILED, "there was no memory for what it sent")
        orderly = isinstance(reason.value, ConnectionDone)
        nothing_owed = orderly or self._delivered or not self._sent
        outcome = self._outcome or (nothing_owed and conversation.outcome) or Outcome.DISCONNECTED
        conversation.cancel()
        error = conversation.error
        if isinstance(error, TransformError):
            self._factory.tell(TransformFailed(error.transform, error))
        detail = self._detail or ("" if error is None else str(error))
        sent = self._sent - (0 if self._lab is None else self._lab.withheld())
        self._factory.tell(Closed(self.name, outcome, detail, self._received, sent))
