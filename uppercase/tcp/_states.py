"""What a connection is doing, whose it is, and what is asked of one on which nothing happens."""

from abc import abstractmethod
from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from zope.interface import Interface

from uppercase.core.admission import client_key
from uppercase.core.conversation import Conversation
from uppercase.core.events import Incomplete, Outcome
from uppercase.core.values import printable_address, unmapped
from uppercase.tcp.closing import IStreamTransport
from uppercase.tcp.kernel import progress_mark, unacknowledged_output, unread_input

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


class WaitingProtocol(Protocol):
    """The part of a connection's protocol that others look at while it waits.

    It moves no bytes; what it looks at, the protocol keeps up to date.

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
        self._end_with(Outcome.IDLE, f"nothing came for {seconds:g} s (--idle-timeout)")
        self._close(linger=not self._peer_ended)

    def evict(self) -> None:
        """Close to make room for another connection."""
        self._end_with(Outcome.EVICTED, "it was idle, and all were taken (--max-connections)")
        if self._paused or unacknowledged_output(self.transport):
            # It has not taken what it is owed for as long as it is idle: it would keep its place.
            self._abort()
        else:
            self._close(linger=False)

    @abstractmethod
    def _end_with(self, outcome: Outcome, detail: str) -> None:
        """Settle how this ends, unless it has been ended before."""

    @abstractmethod
    def _close(self, *, linger: bool) -> None:
        """Begin to close."""

    @abstractmethod
    def _abort(self) -> None:
        """Close at once."""

    @abstractmethod
    def _stalled(self) -> None:
        """Settle that it ends because the peer takes nothing."""
