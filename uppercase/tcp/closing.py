"""All that decides about a connection's end: the ladder that ends it, and who is watched for what.

A connection has to end, and nothing that is owed may be lost with it.

`loseConnection` is a request: it never completes while a paused producer is registered, while the
peer does not read, or over TLS while the peer stays mute. And closing a socket with unread input
makes the kernel send a reset, which can destroy replies that the peer has not read yet. So there
is a ladder: our side is closed once all output is out, input is read and thrown away until the
peer closes too, and each rung has a deadline.

The watches tell when there is reason to end: a peer takes nothing of what it is owed, is gone
while neither side has anything to say, or nothing happens at all.
"""

from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableDescriptor,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from zope.interface import Attribute

from uppercase.limits import MIB, Limits
from uppercase.tcp.kernel import progress_mark, unacknowledged_output, unread_input

LINGER: Final = 4 * MIB
"""Bytes that a peer may still send after its conversation has ended, and that are thrown away so
that the last replies reach it: what was under way. Whoever sends more is not listening."""

_PROGRESS_CHECKS: Final = 4
"""Looks per time-out at whether a peer takes what it is owed while it is closed: one that stalls is
found at most a quarter of the time-out late."""

STALL_CHECKS: Final = 8
"""Looks per time-out at whether peers take what they are owed: one that stalls is cut off at most a
quarter of the time-out late. A look costs some microseconds a connection."""

_READING_TIME: Final = 0.5
"""Seconds in which what waits unread at the end of a stage's time is read; who drips bytes has no
more than this."""

_IDLE_PRECISION: Final = 1 / 16
"""The share of the idle time-out by which a connection may be closed late: how often all of them
are looked at, at the most."""


class IStreamTransport(ITransport, IConsumer, IPushProducer):
    """What every stream transport of Twisted's has; half-closes only those of some interfaces."""

    def loseWriteConnection() -> None:
        """End the output once all of it is sent."""

    def abortConnection() -> None:
        """Close at once; what is not sent is lost."""


class IOrderlyTLSTransport(IStreamTransport):
    """A TLS transport whose `loseWriteConnection` ends TLS's output before TCP's.

    Others hand on the half-close of what they run on, which would cut the TLS.
    """

    wire_received = Attribute("How many bytes came from below whose content was delivered.")


def ends_at_once(transport: ITransport) -> bool:
    """Whether a connection, once it is asked to, ends within this turn: it needs no ladder."""
    # TLS hands on what the transport below it says, and may have to wait for a goodbye.
    return getattr(transport, "ends_at_once", False) and not ISSLTransport.providedBy(transport)


class CloseLadder:
    """Ends one connection.

    A peer that still takes what it is owed has all the time it needs. One that takes nothing is
    aborted after `send_timeout`, and one that has everything and does not close after
    `close_timeout`.

    Args:
        transport: the connection, with its producer registered and, as long as nothing was asked
            of the ladder, with its output open.
        on_stall: called before a peer that does not take what it is owed is aborted.

    Attributes:
        delivered: whether the peer had everything when it was aborted.
    """

    def __init__(
        self,
        transport: IStreamTransport,
        clock: IReactorTime,
        limits: Limits,
        on_stall: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._limits = limits
        self._on_stall = on_stall
        self._call: IDelayedCall | None = None
        self._mark: object = None
        self._since = 0.0
        self._flushed = False
        self.delivered = False

    def start(self, *, linger: bool) -> None:
        """Begin to close; called once.

        Args:
            linger: more input may come, so wait for the peer to end it.
        """
        # Invariant: no producer is registered while a transport closes. With a paused one it would
        # wait for more output for ever.
        self._transport.unregisterProducer()
        self._mark, self._since = progress_mark(self._transport), self._clock.seconds()
        self._look_later()
        if linger and self._can_half_close():
            # Invariant: input is read to its end, and thrown away. Closing the socket while the
            # kernel holds some would reset the connection, and with it replies on their way.
            self._transport.resumeProducing()
            self._transport.loseWriteConnection()
        else:
            self._transport.loseConnection()

    def flushed(self) -> None:
        """Take note that all output, and the end of it, is with the kernel."""
        if not self._flushed:
            self._flushed = True
            self._since = self._clock.seconds()

    def gone(self) -> None:
        """Take note that the connection is lost: nothing is left to do."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _can_half_close(self) -> bool:
        transport = self._transport
        return IOrderlyTLSTransport.providedBy(transport) or (
            IHalfCloseableDescriptor.providedBy(transport)
            and not ISSLTransport.providedBy(transport)
        )

    def _look_later(self) -> None:
        shorter = min(self._limits.close_timeout, self._limits.send_timeout)
        self._call = self._clock.callLater(shorter / _PROGRESS_CHECKS, self._look)

    def _look(self) -> None:
        self._call = None
        mark, now = progress_mark(self._transport), self._clock.seconds()
        if mark != self._mark:
            self._mark, self._since = mark, now
        owed = unacknowledged_output(self._transport)
        has_all = self._flushed if owed is None else owed == 0
        patience = self._limits.close_timeout if has_all else self._limits.send_timeout
        if now - self._since < patience:
            self._look_later()
            return
        self.delivered = has_all
        if not has_all:
            self._on_stall()
        self._transport.abortConnection()


class Deadline:
    """Ends a stage that takes too long, such as a handshake.

    The process may have been busy, or stopped, while what the peer sent was waiting: at the end of
    the time that is read first.
    """

    def __init__(
        self, transport: ITransport, clock: IReactorTime, seconds: float, on_end: Callable[[], None]
    ) -> None:
        # Invariant: nothing of it is held once it is over: that would be a cycle.
        self._stage: tuple[ITransport, Callable[[], None]] | None = (transport, on_end)
        self._clock = clock
        self._due = clock.seconds() + seconds
        self._looked_at: float | None = None
        self._call: IDelayedCall | None = clock.callLater(seconds, self._look)

    def stop(self) -> None:
        """Take note that the stage is over."""
        self._stage = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        assert self._stage is not None
        transport, on_end = self._stage
        now = self._clock.seconds()
        if now < self._due:
            # The timer goes by a clock that was set forward.
            self._call = self._clock.callLater(self._due - now, self._look)
            return
        if self._looked_at is None:
            self._looked_at = now
        if unread_input(transport) and now < self._looked_at + _READING_TIME:
            self._call = self._clock.callLater(0, self._look)
        else:
            self._call = self._stage = None
            on_end()


C = TypeVar("C")


class IdleWatch(Generic[C]):
    """Does something about the connections that have waited for too long.

    One timer for all connections of a service: traffic only sets a time stamp, and the timer looks
    at all of them when the first can be due. A thousand connections are looked at in a fraction of
    a millisecond, and a busy service does so about once per time-out.

    Args:
        connections: the open ones, kept up to date by their owner, who calls `opened` and `closed`.
        since: tells the time since which one of them has waited; None if it does not.
        act: called with one that has waited for `timeout`.
        every: seconds between two looks, where what happens is only known by looking; then it may
            have begun to wait any time after the last.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        connections: Collection[C],
        since: Callable[[C], float | None],
        act: Callable[[C], object],
        every: float = 0.0,
    ) -> None:
        self._clock = clock
        self._every = every
        self._timeout = timeout + every
        self._connections = connections
        self._since = since
        self._act = act
        self._call: IDelayedCall | None = None

    def opened(self) -> None:
        """Take note of a connection."""
        if self._call is None:
            self._call = self._clock.callLater(self._pause(0.0), self._look)

    def closed(self) -> None:
        """Take note that one is gone; after the last there is no timer."""
        if self._call is not None and not self._connections:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        now = first = self._clock.seconds()
        for connection in list(self._connections):
            since = self._since(connection)
            if since is None:
                continue
            if now - since >= self._timeout:
                self._act(connection)
            else:
                first = min(first, since)
        if self._connections:
            self._call = self._clock.callLater(self._pause(first - now), self._look)

    def _pause(self, first: float) -> float:
        """Return when to look again, given when the first began to wait, from now."""
        return self._every or max(first + self._timeout, self._timeout * _IDLE_PRECISION)
