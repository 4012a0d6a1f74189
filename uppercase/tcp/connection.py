"""One TCP connection: moves bytes between a transport and a conversation.

What is answered is the conversation's matter, and how a connection ends that of `_closing`.
A connection reads only while the conversation wants input and the peer takes its replies, so a
peer that does not read costs one batch of output and no more.
"""

from collections.abc import Hashable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.awaiting import await_reply
from uppercase.core.events import Direction, Impaired, LabAction, Outcome
from uppercase.tcp import _closing as states
from uppercase.tcp._closing import EndingProtocol, IOrderlyTLSTransport, IUnidentified, known_as
from uppercase.tcp._prompt import TURN_OF_ONE, read_quickly
from uppercase.tcp.kernel import unacknowledged_output, unread_input

if TYPE_CHECKING:
    from uppercase.tcp.factory import TransformFactory


_DRAIN_QUIET: Final = 1.0
"""A connection without traffic for this long is closed at once when the service stops. On others
more input may be under way, and closing a socket that has some resets the replies before it."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class TransformProtocol(EndingProtocol):
    """Serves one connection.

    It is its transport's streaming producer: `pauseProducing` means that the peer is not reading.
    Whose the connection is, the transport's `getPeer` tells; where a PROXY header has to come
    first, the transport is `IUnidentified` until the stage that reads it calls `identified`.

    Args:
        address: whose the connection is, if that is known before there is a transport.

    Attributes:
        client: whom the connection counts for, as `uppercase.core.admission.client_key` gives it.
    """

    client: Hashable = None

    _output: IConsumer

    _pumping = False
    _may_hurry = True
    _drain_at: int | None = None

    def __init__(self, factory: "TransformFactory", address: IAddress | None = None) -> None:
        self._state = states.OPENING
        self._factory = factory
        self._address = address
        self._clock = factory.clock
        self._seconds = factory.clock.seconds

    def connectionMade(self) -> None:
        """Open the conversation, if the service lets this connection in."""
        factory, transport, clock = self._factory, self.transport, self._clock
        self._active_at = self._sent_at = self._taken_at = clock.seconds()
        unidentified = IUnidentified.providedBy(transport)
        self.name, self.client = known_as(self._address or transport.getPeer())
        if unidentified:
            self.client = None
        if not factory.enter(self):
            self._refuse()
            return
        told = getattr(transport, "sends_small_at_once", False)
        if not told and ITCPTransport.providedBy(transport):
            with suppress(OSError):  # what Twisted 24.7 makes of UNIX sockets
                transport.setTcpNoDelay(True)
        self._output = transport
        if factory.lab is not None:
            from uppercase.lab.serving import LabOutlet

            unsent = partial(unacknowledged_output, transport)
            self._output = self._lab = LabOutlet(
                transport, clock, factory.lab, unsent, self._lab_did, self._lab_reset
            )
        self._output.registerProducer(self, True)
        # In this state an awaited reply that comes at once does not find the conversation missing.
        self._conversation = factory.open_conversation(await_reply, self.pump)
        self._move(states.IDENTIFYING if unidentified else states.SERVING)
        if not self._conversation.wants_input:
            self.pump()

    def identified(self) -> None:
        """Take note of whom limits and logs go by; input comes after this."""
        if self._state is not states.IDENTIFYING:
            return  # It closes already, and stays what the log has called it.
        self.name, self.client = known_as(self.transport.getPeer())
        if self._factory.enter(self):
            self._move(states.SERVING if self._drain_at is None else states.DRAINING)
        else:
            self._refuse()

    def _refuse(self) -> None:
        # Invariant: it is counted for nobody, so that `remove` takes it off nobody's count.
        self.client = None
        self._move(states.REFUSED)
        self.transport.abortConnection()

    def break_off(self, outcome: Outcome, detail: str) -> None:
        """Close because a stage before the framing cannot go on; its last words reach the peer."""
        self.end_with(outcome, detail)
        if self._state in states.OPEN_STATES:
            self._conversation.cancel()
            self._close(linger=True)

    def dataReceived(self, data: bytes) -> None:
        """Pass a chunk to the conversation and send what it has to say."""
        self._received += len(data)
        now = self._active_at = self._seconds()
        if self._state is states.SERVING and not self._paused and self._conversation.wants_input:
            # Nothing is out of the ordinary: what `receive` and `pump` come to, in one call.
            until = now + TURN_OF_ONE
            self._give(self._conversation.exchange(data, until, self._seconds), until)
            if self._may_hurry and self._received > len(data):
                # From the second chunk on: who asks once does without.
                self._may_hurry = False
                read_quickly(self)
        elif self._state in states.OPEN_STATES:
            self._conversation.receive(data)
            self.pump()
            if self._state is states.DRAINING:
                self.input_taken()
        elif self._state is states.CLOSING and self._received > self._linger_until:
            if self._conversation.outcome is not None:
                self.end_with(self._conversation.outcome, "")
            self.transport.abortConnection()

    def _give(self, output: bytes, until: float) -> None:
        """Send what an exchange has given, and go on with what is out of the ordinary."""
        conversation = self._conversation
        if output:
            self._sent += len(output)
            self._output.write(output)
            self._active_at = self._sent_at = self._seconds()
        if conversation.outcome is None and self._seconds() > until:
            self._yield_turn()
        elif self._paused or not conversation.wants_input or conversation.awaiting:
            self.pump()

    def readConnectionLost(self) -> None:
        """The peer has closed its sending side: answer what is left, then close ours.

        Twisted may call this twice, when a late write fills the buffer again.
        """
        self._peer_ended = True
        if self._state in states.OPEN_STATES:
            self._conversation.end_of_input()
            self.pump()
        else:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget everything about this connection."""
        if self._state is states.OPENING:
            # A fault while it was made: nobody has heard of it.
            self._move(states.REFUSED)
        refused = self._state is states.REFUSED
        self._move(states.CLOSED)
        self._factory.turns.forget(self)
        if self._lab is not None:
            self._lab.stop()
        if not refused:
            self._report_end(reason)
        # Last: a stop may be waiting for this, and sums up what it was told.
        self._factory.remove(self)
        # Invariant: a closed connection is in no cycle, and its memory is had back at once. These
        # hold methods of ours; left to the collector, which comes by rarely, they would pin 25 KiB
        # of heap each between the buffers of the connections that follow.
        self._lab = None
        self._conversation = self._output = None  # type: ignore[assignment] # nothing is asked now

    def pauseProducing(self) -> None:
        """There is no room: the peer reads more slowly than it writes, or the lab holds replies."""
        self._paused = True
        self._read(False)

    def resumeProducing(self) -> None:
        """There is room again, or nothing is left of what was written."""
        self._paused = False
        self._active_at = self._clock.seconds()
        self.pump()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""

    def drain(self) -> None:
        """Answer what has arrived, read or not, send what is owed, then close.

        May be called again; what counts is what had arrived the first time. What comes with a
        PROXY header that is still to come is answered, and no more.
        """
        if self._drain_at is None:
            identified = self._state is not states.IDENTIFYING
            self._drain_at = self._taken() + (unread_input(self.transport) if identified else 0)
            if self._state is states.SERVING:
                self._move(states.DRAINING)
        self.input_taken()

    def input_taken(self) -> None:
        """Stop the conversation if it drains and has what had arrived by then.

        TLS transports call this once they have delivered all of what one read gave them.
        """
        if self._state is not states.DRAINING:
            return
        assert self._drain_at is not None
        if self._taken() >= self._drain_at:
            self._conversation.stop()
            self.pump()

    def _taken(self) -> int:
        """Return how many bytes were read from the system: below TLS they are others than above."""
        if IOrderlyTLSTransport.providedBy(self.transport):
            return cast(int, self.transport.wire_received)
        return self._received

    def _yield_turn(self) -> None:
        """Let the others have their turn, and read no more before."""
        self._read(False)
        self._factory.turns.take_later(self)

    def pump(self) -> None:
        """Send what the conversation has to say while the peer takes it."""
        # Invariant: this is not entered again. Writing may pause or resume us, and an awaited reply
        # may come, while it runs; the loop finds either.
        if self._pumping or self._state not in states.OPEN_STATES:
            return
        conversation, seconds = self._conversation, self._seconds
        until, over = seconds() + TURN_OF_ONE, False
        self._pumping = True
        while not (over or self._paused) and (output := conversation.replies(until, seconds)):
            self._sent += len(output)
            self._active_at = self._sent_at = seconds()
            self._output.write(output)
            if conversation.wants_input:
                break
            over = self._active_at > until
        self._pumping = False
        if conversation.outcome is not None:
            self._finish(conversation.outcome)
        elif over or seconds() > until:
            self._yield_turn()
        else:
            wanted = conversation.wants_input and not self._paused
            if wanted is not self._reading:
                self._read(wanted)
            if not wanted and conversation.awaiting:
                self._factory.look_after(self)

    def _finish(self, outcome: Outcome) -> None:
        """Begin to close, once the lab has passed everything on: then it resumes us."""
        if self._lab is None or self._lab.empty:
            # No input is likely to be under way then, and none of the output is.
            quiet = (
                outcome is states.STOPPED
                and self._seconds() - self._active_at >= _DRAIN_QUIET
                and not unacknowledged_output(self.transport)
            )
            self._close(linger=not self._peer_ended and not quiet)

    def _read(self, wanted: bool) -> None:
        if wanted is self._reading:
            return
        self._reading = wanted
        if wanted:
            self._may_hurry = True
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def _lab_did(self, action: LabAction, number: int, fate: str) -> None:
        self._factory.tell(Impaired(self.name, Direction.REPLY, number, (action,), fate))

    def _lab_reset(self) -> None:
        self.end_with(Outcome.LAB_RESET, "as asked for (--reset-after)")
        self._abort()
