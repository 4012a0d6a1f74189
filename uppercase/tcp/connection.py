"""One TCP connection: moves bytes between a transport and a conversation.

What is answered is the conversation's matter, and how a connection ends is the close ladder's.
This protocol reads only while the conversation wants input and the peer takes its replies, so a
peer that does not read costs one batch of output and no more.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.awaiting import await_reply
from uppercase.core.admission import client_key
from uppercase.core.events import (
    Closed,
    Direction,
    Impaired,
    LabAction,
    Outcome,
)
from uppercase.core.session import Conversation
from uppercase.lab import NO_LAB
from uppercase.lab.outlet import LabOutlet
from uppercase.limits import DRAIN_QUIET, PEER_CHECK, TURN
from uppercase.tcp.closing import CloseLadder
from uppercase.tcp.kernel import (
    SendWatch,
    peer_is_gone,
    progress_mark,
    unacknowledged_output,
    unread_input,
)
from uppercase.tcp.peer import AwaitedPeer, peer_host, peer_name, plain_peer

if TYPE_CHECKING:
    from uppercase.tcp.factory import TransformFactory

__all__ = ["TransformProtocol"]


@implementer(IHalfCloseableProtocol, IPushProducer)
class TransformProtocol(Protocol):
    """Serves one connection.

    Args:
        factory: knows the service's bounds and all of its connections.
        peer: the other side's address as `buildProtocol` was told it.

    Attributes:
        peer: whom limits and logs go by: the transport's peer, or whom a PROXY header names.
        client: whom the connection counts for, as `uppercase.core.admission.client_key` gives it.

    It is its transport's streaming producer: `pauseProducing` means that the peer is not reading.
    """

    transport: Any
    client: Hashable = None

    _outcome: Outcome | None = None
    _detail = ""
    _conversation: Conversation | None = None
    _announced = False
    _refused = False
    _paused = False
    _reading = True
    _pumping = False
    _peer_ended = False
    _draining = False
    _drain_at = 0
    _received = 0
    _sent = 0
    _mark: object = None
    _vigil: IDelayedCall | None = None
    _lab: LabOutlet | None = None
    _turn: IDelayedCall | None = None

    def __init__(self, factory: "TransformFactory", peer: IAddress | None = None) -> None:
        self._factory = factory
        self.peer: Any = peer

    def connectionMade(self) -> None:
        """Open the conversation, if the service lets this connection in."""
        factory, limits = self._factory, self._factory.limits
        self._ladder = CloseLadder(self.transport, factory.clock, limits, self._stalled)
        self._watch = SendWatch(
            self.transport, factory.clock, limits.send_timeout, self._abort_stalled
        )
        self._active_at = factory.clock.seconds()
        awaited = self.peer if isinstance(self.peer, AwaitedPeer) else None
        self.peer = plain_peer(self.transport.getPeer() if awaited or not self.peer else self.peer)
        if awaited is None:
            self.client = client_key(peer_host(self.peer))
        if not factory.enter(self):
            self._refused = True
            self._ladder.abort()
            return
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        if factory.lab != NO_LAB:
            self._lab = LabOutlet(
                self.transport,
                factory.clock,
                factory.lab,
                self._pump,
                self._lab_did,
                self._lab_reset,
            )
        self._conversation = factory.open_conversation(await_reply, self._pump)
        if awaited is None:
            self._announce()
        else:
            awaited.served = self
        self._pump()

    def identified(self, peer: IAddress) -> None:
        """Take note of whom limits and logs go by; input comes after this."""
        self.peer = plain_peer(peer)
        self.client = client_key(peer_host(self.peer))
        if self._factory.enter(self):
            self._announce()
        else:
            self._refused, self.client = True, None
            self._ladder.abort()

    def fail(self, outcome: Outcome, error: Exception) -> None:
        """Take note of why a stage before the framing, such as TLS, is closing the connection."""
        self._end_with(outcome, str(error))

    def _announce(self) -> None:
        self._announced = True
        self._factory.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Pass a chunk to the conversation and send what it has to say."""
        self._received += len(data)
        self._active_at = self._factory.clock.seconds()
        if self._conversation is not None and not self._ladder.started:
            self._conversation.receive(data)
            self._pump()
            self.input_taken()

    def readConnectionLost(self) -> None:
        """The peer has closed its sending side: answer what is left, then close ours.

        Twisted may call this twice, when a late write fills the buffer again.
        """
        self._peer_ended = True
        if self._conversation is None or self._ladder.started:
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
        self._keep_vigil(False)
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._lab is not None:
            self._lab.stop()
        conversation = self._conversation
        if conversation is None:
            return
        nothing_owed = reason.check(ConnectionDone) or self._ladder.delivered or not self._sent
        outcome = self._outcome or (nothing_owed and conversation.outcome) or Outcome.DISCONNECTED
        conversation.cancel()
        if not self._refused:
            if not self._announced:
                self._announce()
            detail = self._detail or ("" if conversation.error is None else str(conversation.error))
            end = Closed(peer_name(self.peer), outcome, detail, self._received, self._sent)
            self._factory.ended(end, conversation.error)
        # Last: a stop may be waiting for this, and sums up what it was told.
        self._factory.remove(self)

    def pauseProducing(self) -> None:
        """The transport's buffer is full: the peer reads more slowly than it writes."""
        self._paused = True
        self._read(False)
        self._watch.start()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._paused = False
        self._active_at = self._factory.clock.seconds()
        self._watch.stop()
        self._pump()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""

    def drain(self) -> None:
        """Answer what has arrived, read or not, send what is owed, then close.

        May be called again; what counts is what had arrived the first time. What comes with a
        PROXY header that is still to come is answered, and no more.
        """
        if not self._draining:
            self._draining = True
            unread = unread_input(self.transport) if self._announced else 0
            self._drain_at = self._taken() + unread
        if self._announced:
            self.input_taken()

    def input_taken(self) -> None:
        """Stop the conversation if it drains and has what had arrived by then.

        TLS transports call this once they have delivered all of what one read gave them.
        """
        if self._draining and self._conversation is not None and self._taken() >= self._drain_at:
            self._conversation.stop()
            self._pump()

    def _taken(self) -> int:
        """Return how many bytes were read from the system: below TLS they are others than above."""
        taken: int = getattr(self.transport, "wire_received", self._received)
        return taken

    def abort(self) -> None:
        """Close at once; what is owed is lost."""
        self._end_with(Outcome.STOPPED, "the drain time was over (--drain)")
        self._ladder.abort()

    def idle_since(self) -> float | None:
        """Return the time since which nothing was sent or taken; None while a reply is awaited."""
        conversation = self._conversation
        if conversation is None or self._ladder.started or conversation.awaiting:
            return None
        if self._lab is not None and not self._lab.empty:
            return None
        if unacknowledged_output(self.transport):
            mark = progress_mark(self.transport)
            if mark != self._mark:
                self._mark, self._active_at = mark, self._factory.clock.seconds()
        return self._active_at

    def close_idle(self) -> None:
        """Close because nothing happens."""
        seconds = self._factory.limits.idle_timeout
        self._end_with(Outcome.IDLE, f"nothing came for {seconds:g} s (--idle-timeout)")
        self._ladder.start(linger=not self._peer_ended)

    def evict(self) -> None:
        """Close to make room for another connection."""
        self._end_with(Outcome.EVICTED, "it was idle, and all were taken (--max-connections)")
        if self._paused or unacknowledged_output(self.transport):
            # It has not taken what it is owed for as long as it is idle: it would keep its place.
            self._ladder.abort()
        else:
            self._ladder.start(linger=False)

    def _pump(self) -> None:
        """Send what the conversation has to say while the peer takes it."""
        conversation = self._conversation
        # An awaited reply may come while the conversation is being opened.
        if conversation is None or self._pumping or self._ladder.started:
            return
        lab = self._lab
        write = self.transport.write if lab is None else lab.write
        seconds = self._factory.clock.seconds
        until, over = seconds() + TURN, False
        self._pumping = True
        while not over and self._has_room() and (output := conversation.replies()):
            self._sent += len(output)
            self._active_at = seconds()
            write(output)
            over = self._active_at > until
        self._pumping = False
        if over and conversation.outcome is None:
            self._read(False)
            self._pump_later()
        elif conversation.outcome is not None:
            if lab is not None and not lab.empty:
                return
            self._watch.stop()
            self._keep_vigil(False)
            quiet = conversation.outcome is Outcome.STOPPED and self._is_quiet()
            self._ladder.start(linger=not self._peer_ended and not quiet)
        else:
            self._read(self._has_room() and conversation.wants_input)
            self._keep_vigil(conversation.awaiting and (self._peer_ended or not self._reading))

    def _pump_later(self) -> None:
        """Go on once the others have had their turn."""
        if self._turn is None:
            self._turn = self._factory.clock.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        self._pump()

    def _has_room(self) -> bool:
        """Whether the peer, and the lab, take more output."""
        return not self._paused and (self._lab is None or not self._lab.full)

    def _lab_did(self, action: LabAction, number: int, fate: str) -> None:
        self._factory.tell(Impaired(peer_name(self.peer), Direction.REPLY, number, (action,), fate))

    def _lab_reset(self) -> None:
        self._end_with(Outcome.LAB_RESET, "as asked for (--reset-after)")
        self._ladder.abort()

    def _is_quiet(self) -> bool:
        """Whether no input is likely to be under way, and none of the output is."""
        quiet_for = self._factory.clock.seconds() - self._active_at
        return quiet_for >= DRAIN_QUIET and not unacknowledged_output(self.transport)

    def _read(self, wanted: bool) -> None:
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _keep_vigil(self, wanted: bool) -> None:
        """Look after the peer while only replies are awaited: the reactor would not notice."""
        if wanted and self._vigil is None:
            self._vigil = self._factory.clock.callLater(PEER_CHECK, self._look_after_peer)
        elif not wanted and self._vigil is not None:
            self._vigil.cancel()
            self._vigil = None

    def _look_after_peer(self) -> None:
        self._vigil = None
        if peer_is_gone(self.transport):
            self._ladder.abort()
        else:
            self._keep_vigil(True)

    def _end_with(self, outcome: Outcome, detail: str) -> None:
        """Settle how this ends, unless it has been ended before."""
        if self._outcome is None:
            self._outcome, self._detail = outcome, detail

    def _stalled(self) -> None:
        seconds = self._factory.limits.send_timeout
        self._end_with(Outcome.STALLED, f"it took nothing for {seconds:g} s (--send-timeout)")

    def _abort_stalled(self) -> None:
        self._stalled()
        self._ladder.abort()
