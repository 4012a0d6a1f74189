"""What a connection is doing, whose it is, why it ends and how that begins."""

from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import Interface

from uppercase.core.admission import client_key
from uppercase.core.conversation import Conversation
from uppercase.core.events import Closed, Incomplete, Opened, Outcome, TransformFailed
from uppercase.core.values import printable_address, unmapped
from uppercase.errors import TransformError
from uppercase.tcp.closing import LINGER, CloseLadder, IStreamTransport, ends_at_once
from uppercase.tcp.kernel import peer_is_gone, progress_mark, unacknowledged_output, unread_input

if TYPE_CHECKING:
    from uppercase.lab.outlet import LabOutlet
    from uppercase.tcp.factory import TransformFactory


class State(Enum):
    """What a connection is doing."""

    # Instead of a hash by Python code: each move asks for several.
    __hash__ = object.__hash__

    OPENING = auto()
    """It is being made."""
    IDENTIFYING = auto()
    """It counts, and waits for the PROXY header that tells whose it is."""
    SERVING = auto()
    """Input is answered."""
    DRAINING = auto()
    """The service stops: what had arrived by then is answered, and no more."""
    CLOSING = auto()
    """The close ladder is at work; input is thrown away."""
    REFUSED = auto()
    """It was not let in, and is aborted."""
    CLOSED = auto()
    """It is lost."""


OPENING, IDENTIFYING, SERVING, DRAINING, CLOSING, REFUSED, CLOSED = State
UNDECIDED: Final = (OPENING, IDENTIFYING)
STOPPED: Final = Outcome.STOPPED
# So they are read in this room: as `State.SERVING` it takes seven times as long (CPython 3.11).

NEXT_STATES: Final[Mapping[State, tuple[State, ...]]] = {
    OPENING: (IDENTIFYING, SERVING, REFUSED),
    IDENTIFYING: (SERVING, DRAINING, REFUSED, CLOSING, CLOSED),
    SERVING: (DRAINING, CLOSING, CLOSED),
    DRAINING: (CLOSING, CLOSED),
    CLOSING: (CLOSED,),
    REFUSED: (CLOSED,),
    CLOSED: (),
}

_DRAIN_QUIET: Final = 1.0
"""A connection without traffic for this long is closed at once when the service stops. On others
more input may be under way, and closing a socket that has some resets the replies before it."""

# A tuple, because members of an Enum are hashed by Python code: this is asked for each chunk.
OPEN_STATES: Final = (SERVING, DRAINING, IDENTIFYING)


class IUnidentified(Interface):
    """A transport whose `getPeer` gives the client's address only after `identified` was called.

    Its protocol gets no input before that; what may be called on it is `TransformProtocol`'s.
    """


@lru_cache(4096)
def _client(host: str) -> tuple[str, str | None]:
    """Return what the names of a host's clients begin with, and whom they count for."""
    return printable_address(unmapped(host), 0).removesuffix("0"), client_key(host)


def known_as(address: Any) -> tuple[str, str | None]:
    """Return what events call who is at one of Twisted's addresses, and whom they count for.

    A peer of a UNIX socket has no address, and counts for nobody.
    """
    host: str | None = getattr(address, "host", None)
    if host is None:
        return "unix", None
    begin, client = _client(host)
    return f"{begin}{address.port}", client


class EndingProtocol(Protocol):
    """The part of a connection's protocol that moves no bytes: its state, and what may end it.

    Attributes:
        name: what events and logs call the peer: the transport's, or whom a PROXY header names.
    """

    transport: IStreamTransport
    name = ""

    _factory: "TransformFactory"
    _clock: IReactorTime
    _conversation: Conversation
    _state: State
    _active_at: float
    _sent_at: float
    _taken_at: float

    _paused = False
    _reading = True
    _peer_ended = False
    _lab: "LabOutlet | None" = None
    _mark: object = None
    _told_incomplete = False

    _received = 0
    _sent = 0
    _linger_until: float = inf
    _outcome: Outcome | None = None
    _detail = ""
    _ladder: CloseLadder | None = None

    def _move(self, state: State) -> None:
        """Go on to another state."""
        before = self._state
        assert state in NEXT_STATES[before], f"{before} -> {state}"
        # Invariant: a connection that is let in is told of once, and before its end: when it is
        # known whose it is, or that this will never be known.
        self._state = state
        if before in UNDECIDED and state not in (IDENTIFYING, REFUSED):
            self._factory.tell(Opened(self.name))

    def idle_since(self) -> float | None:
        """Return the time since which nothing was sent or taken; None while a reply is awaited."""
        if self._state not in OPEN_STATES or self._conversation.awaiting:
            return None
        if self._lab is not None and not self._lab.empty:
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
        """Take note of what the peer has taken; tell whether it is owed something."""
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
        """Return the time since which it was sent nothing; None while it is owed something."""
        since = self.idle_since()
        return since if since is None or unacknowledged_output(self.transport) else self._sent_at

    def incomplete_since(self) -> float | None:
        """Return the time since which it waits with the start of a message, if nobody knows yet."""
        if self._told_incomplete or self._peer_ended:
            return None
        since = self.idle_since()
        return since if since is not None and self._conversation.incomplete else None

    def tell_incomplete(self) -> None:
        """Tell of it, once a connection."""
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
            # It has not taken what it is owed for as long as it is idle: it would keep its place.
            self._abort()
        else:
            self._close(linger=False)

    def gone_since(self) -> float | None:
        """Return -inf if the peer is gone and the reactor would not notice; else None."""
        unread = self._state in OPEN_STATES and not self._reading and self._conversation.awaiting
        return -inf if unread and peer_is_gone(self.transport) else None

    def close_gone(self) -> None:
        """Abort because the peer is gone."""
        self._abort()

    def abort(self) -> None:
        """Close at once; what is owed is lost."""
        self.end_with(Outcome.STOPPED, "the drain time was over (--drain)")
        self._abort()

    def _close(self, *, linger: bool) -> None:
        """Begin to close; what happens from now on is the ladder's matter."""
        self._move(CLOSING)
        # Who goes on asking while the service stops does no wrong; the drain time bounds that.
        if self._conversation.outcome is not STOPPED:
            self._linger_until = self._received + LINGER
        if not linger and ends_at_once(self.transport):
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            return
        limits = self._factory.limits
        self._ladder = CloseLadder(self.transport, self._clock, limits, self._stalled)
        self._ladder.start(linger=linger)

    def _abort(self) -> None:
        if self._state in OPEN_STATES:
            self._move(CLOSING)
        self.transport.abortConnection()

    def end_with(self, outcome: Outcome, detail: str) -> None:
        """Settle how this ends, and why, unless that is settled; stages such as TLS do, too."""
        if self._outcome is None:
            self._outcome, self._detail = outcome, detail

    def _stalled(self) -> None:
        """Settle that it ends because the peer takes nothing."""
        seconds = self._factory.limits.send_timeout
        self.end_with(Outcome.STALLED, f"it took nothing for {seconds:g} s (--send-timeout)")

    def _is_quiet(self) -> bool:
        """Whether no input is likely to be under way, and none of the output is."""
        quiet_for = self._clock.seconds() - self._active_at
        return quiet_for >= _DRAIN_QUIET and not unacknowledged_output(self.transport)

    def _report_end(self, reason: Failure) -> None:
        conversation = self._conversation
        delivered = self._ladder is not None and self._ladder.delivered
        orderly = isinstance(reason.value, ConnectionDone)
        nothing_owed = orderly or delivered or not self._sent
        outcome = self._outcome or (nothing_owed and conversation.outcome) or Outcome.DISCONNECTED
        conversation.cancel()
        error = conversation.error
        if isinstance(error, TransformError):
            self._factory.tell(TransformFailed(error.transform, error))
        detail = self._detail or ("" if error is None else str(error))
        sent = self._sent - (0 if self._lab is None else self._lab.withheld())
        self._factory.tell(Closed(self.name, outcome, detail, self._received, sent))
