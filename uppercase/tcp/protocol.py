"""One TCP connection: moves bytes between a transport and a conversation.

What is answered is the conversation's matter, and how a connection ends is the close ladder's.
This protocol reads only while the conversation wants input and the peer takes its replies, so a
peer that does not read costs one batch of output and no more.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.awaiting import await_reply
from uppercase.errors import TransformError
from uppercase.events import Closed, IObserver, Opened, Outcome, TransformFailed
from uppercase.limits import Limits
from uppercase.session import AwaitReply, Conversation
from uppercase.tcp.closing import CloseLadder
from uppercase.tcp.peer import AwaitedPeer, peer_name, plain_peer
from uppercase.tcp.progress import SendWatch, unread_input

__all__ = ["OpenConversation", "TransformFactory", "TransformProtocol"]

OpenConversation = Callable[[AwaitReply, Callable[[], None]], Conversation]
"""Makes a connection's conversation, given how to await and whom to tell of an awaited reply."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class TransformProtocol(Protocol):
    """Serves one connection.

    Args:
        factory: knows the service's bounds and all of its connections.
        peer: the other side's address as `buildProtocol` was told it.

    Attributes:
        peer: whom limits and logs go by: the transport's peer, or whom a PROXY header names.

    It is its transport's streaming producer: `pauseProducing` means that the peer is not reading.
    """

    transport: Any

    peer: Any

    _outcome: Outcome | None = None
    _error: Exception | None = None
    _announced = False
    _paused = False
    _reading = True
    _pumping = False
    _peer_ended = False
    _draining = False
    _drain_at = 0
    _received = 0
    _sent = 0

    def __init__(self, factory: "TransformFactory", peer: IAddress | None = None) -> None:
        self._factory = factory
        self.peer = peer

    def connectionMade(self) -> None:
        """Open the conversation."""
        factory = self._factory
        self._ladder = CloseLadder(self.transport, factory.clock, factory.limits, self._stalled)
        self._watch = SendWatch(
            self.transport, factory.clock, factory.limits.send_timeout, self._abort_stalled
        )
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        factory.add(self)
        self.transport.registerProducer(self, True)
        self._conversation = factory.open_conversation(await_reply, self._pump)
        if isinstance(self.peer, AwaitedPeer):
            self.peer.served, self.peer = self, plain_peer(self.transport.getPeer())
        else:
            self.identified(self.peer or self.transport.getPeer())
        self._pump()

    def identified(self, peer: IAddress) -> None:
        """Take note of whom limits and logs go by; input comes after this."""
        self.peer = plain_peer(peer)
        self._announced = True
        self._factory.opened(self.peer)

    def fail(self, outcome: Outcome, error: Exception) -> None:
        """Take note of why a stage before the framing, such as TLS, is closing the connection."""
        self._outcome, self._error = outcome, error

    def dataReceived(self, data: bytes) -> None:
        """Pass a chunk to the conversation and send what it has to say."""
        self._received += len(data)
        if not self._ladder.started:
            self._conversation.receive(data)
            self._pump()
            self.input_taken()

    def readConnectionLost(self) -> None:
        """The peer has closed its sending side: answer what is left, then close ours.

        Twisted may call this twice, when a late write fills the buffer again.
        """
        self._peer_ended = True
        if self._ladder.started:
            self._ladder.peer_ended()
        else:
            self._conversation.end_of_input()
            self._pump()

    def writeConnectionLost(self) -> None:
        """Our side is closed and all is with the kernel."""
        self._ladder.flushed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget everything about this connection."""
        self._watch.stop()
        self._ladder.gone()
        delivered = reason.check(ConnectionDone) and self._conversation.outcome
        self._conversation.cancel()
        outcome = self._outcome or delivered or Outcome.DISCONNECTED
        if not self._announced:
            self.identified(self.peer)
        error = self._error or self._conversation.error
        self._factory.remove(self, outcome, error, self._received, self._sent)

    def pauseProducing(self) -> None:
        """The transport's buffer is full: the peer reads more slowly than it writes."""
        self._paused = True
        self._read(False)
        self._watch.start()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._paused = False
        self._watch.stop()
        self._pump()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""

    def drain(self) -> None:
        """Answer what has arrived, read or not, send what is owed, then close."""
        self._draining = True
        if self._announced:
            self._drain_at = self._taken() + unread_input(self.transport)
            self.input_taken()
        # Else what was sent comes with the PROXY header: it is answered, and no more.

    def input_taken(self) -> None:
        """Stop the conversation if it drains and has what had arrived by then.

        TLS transports call this once they have delivered all of what one read gave them.
        """
        if self._draining and not self._ladder.started and self._taken() >= self._drain_at:
            self._conversation.stop()
            self._pump()

    def _taken(self) -> int:
        """Give how many bytes were read from the system: below TLS they are others than above."""
        taken: int = getattr(self.transport, "wire_received", self._received)
        return taken

    def abort(self) -> None:
        """Close at once; what is owed is lost."""
        self._outcome = Outcome.STOPPED
        self.transport.abortConnection()

    def _pump(self) -> None:
        """Send what the conversation has to say while the peer takes it."""
        if self._pumping or self._ladder.started:
            return
        self._pumping = True
        conversation = self._conversation
        while not self._paused and (output := conversation.replies()):
            self._sent += len(output)
            self.transport.write(output)
        self._pumping = False
        if conversation.outcome is not None:
            self._watch.stop()
            stopped = conversation.outcome is Outcome.STOPPED
            self._ladder.start(linger=not self._peer_ended and not stopped)
        else:
            self._read(not self._paused and conversation.wants_input)

    def _read(self, wanted: bool) -> None:
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _stalled(self) -> None:
        self._outcome = Outcome.STALLED

    def _abort_stalled(self) -> None:
        self._stalled()
        self.transport.abortConnection()


class TransformFactory(ServerFactory):
    """Makes the protocols of one service and knows which connections are open.

    Args:
        open_conversation: called once per connection.
        limits: the service's bounds.
        clock: the reactor, or a test's clock.
        observer: told of openings, closings and failures.

    Attributes:
        connections: the open ones.
        on_closed: called after one has been closed, if somebody set it.
    """

    noisy = False

    def __init__(
        self,
        open_conversation: OpenConversation,
        limits: Limits,
        clock: IReactorTime,
        observer: IObserver | None = None,
    ) -> None:
        self.open_conversation = open_conversation
        self.limits = limits
        self.clock = clock
        self.connections: set[TransformProtocol] = set()
        self.on_closed: Callable[[], None] | None = None
        self._observer = observer

    def buildProtocol(self, addr: IAddress | None) -> TransformProtocol:
        """Make a connection's protocol."""
        return TransformProtocol(self, addr)

    def add(self, protocol: TransformProtocol) -> None:
        """Take note of a new connection; whose it is may not be known yet."""
        self.connections.add(protocol)

    def opened(self, peer: IAddress) -> None:
        """Take note of whose a new connection is."""
        if self._observer is not None:
            self._observer.notify(Opened(peer_name(peer)))

    def refused(self, peer: IAddress | None, outcome: Outcome, why: str) -> None:
        """Take note of a connection that was closed before anything was read from it."""
        if self._observer is not None:
            name = peer_name(plain_peer(peer))
            self._observer.notify(Opened(name))
            self._observer.notify(Closed(name, outcome, why, 0, 0))

    def remove(
        self,
        protocol: TransformProtocol,
        outcome: Outcome,
        error: Exception | None,
        received: int,
        sent: int,
    ) -> None:
        """Take note of a connection's end."""
        self.connections.discard(protocol)
        if self.on_closed is not None:
            self.on_closed()
        if self._observer is None:
            return
        if isinstance(error, TransformError):
            self._observer.notify(TransformFailed(error.transform, error))
        detail = "" if error is None else str(error)
        self._observer.notify(Closed(peer_name(protocol.peer), outcome, detail, received, sent))
