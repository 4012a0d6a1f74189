"""How a connection is ended so that it does end and nothing that is owed is lost.

`loseConnection` is a request: it never completes while a paused producer is registered, while the
peer does not read, or over TLS while the peer stays mute. And closing a socket with unread input
makes the kernel send a reset, which can destroy replies that the peer has not read yet. So there
is a ladder: our side is closed once all output is out, input is read and thrown away until the
peer closes too, and each rung has a deadline.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableDescriptor,
    IReactorTime,
    ISSLTransport,
)

from uppercase.limits import PROGRESS_CHECKS, Limits
from uppercase.tcp.kernel import progress_mark, unacknowledged_output

__all__ = ["CloseLadder", "IOrderlyTLSTransport"]


class IOrderlyTLSTransport(ISSLTransport):
    """A TLS transport whose `loseWriteConnection` ends TLS's output before TCP's.

    Others hand on the half-close of what they run on, which would cut the TLS.
    """


class CloseLadder:
    """Ends one connection.

    A peer that still takes what it is owed has all the time it needs. One that takes nothing is
    aborted after `send_timeout`, and one that has everything and does not close after
    `close_timeout`.

    Args:
        transport: the connection; anything `registerProducer` was called on.
        clock: the reactor.
        limits: for the two times.
        on_stall: called before a peer that does not take what it is owed is aborted.

    Attributes:
        started: whether the end has begun.
        delivered: whether the peer had everything when it was aborted.
    """

    def __init__(
        self,
        transport: Any,
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
        self.started = False
        self.delivered = False

    def start(self, *, linger: bool) -> None:
        """Begin to close; once begun, a further call does nothing.

        Args:
            linger: more input may come, so wait for the peer to end it.
        """
        if self.started:
            return
        self.started = True
        self._transport.unregisterProducer()
        self._mark, self._since = progress_mark(self._transport), self._clock.seconds()
        self._look_later()
        if linger and self._can_half_close():
            self._transport.resumeProducing()
            self._transport.loseWriteConnection()
        else:
            self._transport.loseConnection()

    def flushed(self) -> None:
        """Take note that all output, and the end of it, is with the kernel."""
        if not self._flushed:
            self._flushed = True
            self._since = self._clock.seconds()

    def peer_ended(self) -> None:
        """Take note that the peer has closed its side too."""
        self._transport.loseConnection()

    def abort(self) -> None:
        """Close at once; what is owed is lost."""
        self.started = True
        self._transport.abortConnection()

    def gone(self) -> None:
        """Take note that the connection is lost: nothing is left to do."""
        self.started = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _can_half_close(self) -> bool:
        if ISSLTransport.providedBy(self._transport):
            return IOrderlyTLSTransport.providedBy(self._transport)
        return IHalfCloseableDescriptor.providedBy(self._transport)

    def _look_later(self) -> None:
        shorter = min(self._limits.close_timeout, self._limits.send_timeout)
        self._call = self._clock.callLater(shorter / PROGRESS_CHECKS, self._look)

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
