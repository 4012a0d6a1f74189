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

from uppercase.limits import Limits
from uppercase.tcp.progress import SendWatch

__all__ = ["CloseLadder", "IOrderlyTLSTransport"]


class IOrderlyTLSTransport(ISSLTransport):
    """A TLS transport whose `loseWriteConnection` ends TLS's output before TCP's.

    Others hand on the half-close of what they run on, which would cut the TLS.
    """


class CloseLadder:
    """Ends one connection.

    Args:
        transport: the connection; anything `registerProducer` was called on.
        clock: the reactor.
        limits: its `send_timeout` bounds the flush, its `close_timeout` the wait for the peer.
        on_stall: called when a deadline has passed, before the connection is aborted.
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
        self._flush = SendWatch(transport, clock, limits.send_timeout, self._abort)
        self._deadline: IDelayedCall | None = None
        self.started = False

    def start(self, *, linger: bool) -> None:
        """Begin to close; once begun, a further call does nothing.

        Args:
            linger: more input may come, so wait for the peer to end it.
        """
        if self.started:
            return
        self.started = True
        self._transport.unregisterProducer()
        self._flush.start()
        if linger and self._can_half_close():
            self._transport.resumeProducing()
            self._transport.loseWriteConnection()
        else:
            self._transport.loseConnection()

    def flushed(self) -> None:
        """Take note that all output, and the end of it, is with the kernel."""
        self._flush.stop()
        if self._deadline is None:
            self._deadline = self._clock.callLater(self._limits.close_timeout, self._abort)

    def peer_ended(self) -> None:
        """Take note that the peer has closed its side too."""
        self._transport.loseConnection()

    def gone(self) -> None:
        """Take note that the connection is lost: nothing is left to do."""
        self.started = True
        self._flush.stop()
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _can_half_close(self) -> bool:
        if ISSLTransport.providedBy(self._transport):
            return IOrderlyTLSTransport.providedBy(self._transport)
        return IHalfCloseableDescriptor.providedBy(self._transport)

    def _abort(self) -> None:
        self._on_stall()
        self._transport.abortConnection()
