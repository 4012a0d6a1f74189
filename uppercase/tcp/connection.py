"""One TCP connection: moves bytes between a transport and a conversation.

The conversation decides what to answer, and `_closing` how a connection ends. A connection reads
only while the conversation wants input and the peer takes its replies, so a peer that does not read
costs one batch of output and no more.
"""

from collections.abc import Hashable
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.conversation import StreamConversation
from uppercase.core.events import Direction, Impaired, LabAction, Outcome
from uppercase.tcp import _closing as states
from uppercase.tcp._closing import EndingProtocol, IOrderlyTLSTransport, IUnidentified, known_as
from uppercase.tcp._quick import Hub, PromptConnection
from uppercase.tcp.kernel import acknowledge, unacknowledged_output, unread_input

if TYPE_CHECKING:
    from uppercase.tcp.factory import TransformFactory


_TURN_OF_ONE: Final = 0.0005
"""Seconds that one connection may keep the reactor before the others have their turn, unless one
message takes longer: a chunk of short messages can take a tenth of a second, and a minute with a
transform of 1 ms. A hundred that flood at once have all had theirs after 65 ms."""

_NO_LINGER_AFTER: Final = 1.0
"""A connection without traffic for this long is closed at once when the service stops. On others
more input may be under way, and closing a socket that has some destroys the replies before it."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class TransformProtocol(EndingProtocol):
    """Serves one connection.

    It is its transport's streaming producer: `pauseProducing` means that the peer is not reading.
    The transport's `getPeer` tells whose the connection is. Where a PROXY header has to come first,
    the transport is `IUnidentified`: the stage that reads the header calls `identified` after it.

    Args:
        address: whose the connection is, if that is known before there is a transport.

    Attributes:
        client: whom the connection counts for, as `uppercase.core.admission.client_key` returns it.
    """

    client: Hashable = None

    _output: IConsumer

    _pumping = False
    _may_hurry = True
    _drain_at: float = inf

    def __init__(self, factory: "TransformFactory", address: IAddress | None = None) -> None:
        self._state = states.OPENING
        self._factory = factory
        self._address = address
        self._clock = factory.clock
        self._seconds = factory.clock.seconds

    def connectionMade(self) -> None:
        """Open the conversation, if the service lets this connection in."""
        factory, transport, clock = self._factory, self.transport, self._clock
        self._active_at = self.sent_at = self._taken_at = clock.seconds()
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
        # In this state an awaited reply that comes at once does not look for the conversation.
        self._conversation = factory.open_conversation(self.pump)
        self._move(states.IDENTIFYING if unidentified else states.SERVING)
        if self._lab is not None and not unidentified:
            self._lab.begin()
        if not self._conversation.wants_input:
            self.pump()

    def identified(self) -> None:
        """Note the client that limits and logs go by; input comes after this."""
        if self._state is not states.IDENTIFYING:
            return  # It already closes, under the name that the log knows.
        self.name, self.client = known_as(self.transport.getPeer())
        if self._factory.enter(self):
            self._move(states.SERVING if self._drain_at == inf else states.DRAINING)
            if self._lab is not None:
                self._lab.begin()
        else:
            self._refuse()

    def _refuse(self) -> None:
        # Invariant: it counts for nobody, so that `remove` takes it off nobody's count.
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
            # Nothing is out of the ordinary: this does what `receive` and `pump` do, in one call.
            until = now + _TURN_OF_ONE
            self._give(self._conversation.exchange(data, until, self._seconds), until)
            if self._may_hurry and self._received > len(data):
                # From the second chunk on: a client that asks once does without.
                self._may_hurry = False
                self._read_quickly()
        elif self._state in states.OPEN_STATES:
            self._conversation.receive(data)
            self.pump()
            if self._state is states.DRAINING:
                self.input_taken()
        elif self._received > self._linger_until:
            if self._conversation.outcome is not None:
                self.end_with(self._conversation.outcome, "")
            self.transport.abortConnection()

    def _give(self, output: bytes, until: float) -> None:
        """Send what an exchange returned, and go on with what is out of the ordinary."""
        conversation = self._conversation
        if output:
            self._sent += len(output)
            self._output.write(output)
            self._active_at = self.sent_at = self._seconds()
        elif conversation.wants_input:
            # Without a reply that says so, a peer may hold the rest of its message back for 40 ms.
            acknowledge(self.transport)
        if conversation.outcome is None and self._seconds() > until:
            self._yield_turn()
        elif not conversation.wants_input or conversation.awaiting:
            self.pump()

    def _read_quickly(self) -> None:
        """Have each chunk read, answered and sent in one call, where it can be."""
        transport: Any = self.transport
        hub, conversation = getattr(transport, "reactor", None), self._conversation
        sole = conversation.sole if isinstance(conversation, StreamConversation) else None
        plain = self._output is transport and self._seconds is monotonic
        if sole and plain and isinstance(hub, Hub) and isinstance(transport, PromptConnection):
            # As attributes of the instances: those of a class take three times as long to read.
            self._paused, transport.queueing = self._paused, transport.queueing
            hub.read_by(MethodType(self._quick_reader(transport, hub, *sole), transport))

    def _quick_reader(self, transport: Any, hub: Hub, feed: Any, most: int) -> Any:
        """Return `doRead`, `dataReceived`, `exchange` and the chain's `feed` as one function.

        It decides nothing: whatever is out of the ordinary goes their way.
        """
        recv, send, size = transport.socket.recv, transport.socket.send, transport.bufferSize
        conversation: Any = self._conversation
        seconds, serving = monotonic, states.SERVING

        # In quotes: else each connection would make the type anew, and keep it.
        def read(transport: PromptConnection) -> "ConnectionDone | ConnectionLost | None":
            try:
                data = recv(size)
            except BlockingIOError:
                return None
            except OSError:
                return CONNECTION_LOST
            if not data:
                return CONNECTION_DONE
            if (
                self._state is not serving
                or self._paused
                or transport.queueing
                or not conversation.wants_input
            ):
                self.dataReceived(data)
                return None
            self._received += len(data)
            started = self._active_at = hub.now
            try:
                output = feed(data)
            except BaseException as error:
                self._give(conversation.settle(started, None, error), started + _TURN_OF_ONE)
                return None
            length = len(output) if type(output) is bytes else 0
            if not 0 < length <= most or seconds() - started > _TURN_OF_ONE:
                self._give(conversation.settle(started, output), started + _TURN_OF_ONE)
                return None
            self.sent_at = started
            self._sent += length
            try:
                sent = send(output)
            except OSError:
                sent = 0
            if sent != length:
                transport.write(output[sent:])
            return None

        return read

    def readConnectionLost(self) -> None:
        """The peer has closed its sending side: answer what is left, then close ours.

        Twisted may call this twice, where a late write fills the buffer again.
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
            # A fault while it was made: nobody was told of it.
            self._move(states.REFUSED)
        refused = self._state is states.REFUSED
        self._move(states.CLOSED)
        self._factory.turns.forget(self)
        if self._lab is not None:
            self._lab.stop()
        try:
            if not refused:
                self._report_end(reason)
        finally:
            # Last, whatever was raised: a stop may be waiting for this, and then sums up.
            self._factory.remove(self)
            # Invariant: a closed connection is in no cycle, and its memory is free at once. These
            # hold methods of ours; left to the collector, which rarely comes by, each would pin
            # 25 KiB of heap between the buffers of the connections that follow.
            self._lab = None
            self._conversation = self._output = None  # type: ignore[assignment] # nothing asks now

    def pauseProducing(self) -> None:
        """There is no room: the peer reads more slowly than it writes, or the lab holds replies."""
        self._paused = True
        self._read(False)

    def resumeProducing(self) -> None:
        """There is room again, or all that was written has gone."""
        self._paused = False
        self._active_at = self._clock.seconds()
        self.pump()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""

    def drain(self) -> None:
        """Answer what has arrived, read or not, send what is owed, then close.

        May be called again; what had arrived the first time counts. Where a PROXY header is still
        to come, what comes with it is answered, and no more.
        """
        if self._drain_at == inf:
            identified = self._state is not states.IDENTIFYING
            self._drain_at = self._taken() + (unread_input(self.transport) if identified else 0)
            if self._state is states.SERVING:
                self._move(states.DRAINING)
        self.input_taken()

    def input_taken(self) -> None:
        """Stop the conversation if it drains and has all that had arrived by then.

        TLS transports call this once they have delivered all that one read gave them.
        """
        if self._state is states.SERVING:
            # A slow peer is not silent while a record comes, of which we are given nothing yet.
            self._active_at = self._seconds()
        elif self._state is states.DRAINING and self._taken() >= self._drain_at:
            self._conversation.stop()
            self.pump()

    def _taken(self) -> int:
        """Return how many bytes were read from the system: below TLS, not those it delivers."""
        if IOrderlyTLSTransport.providedBy(self.transport):
            return cast(int, self.transport.wire_received)
        return self._received

    def _yield_turn(self) -> None:
        """Let the others have their turn, and read nothing until then."""
        self._read(False)
        self._factory.turns.take_later(self)

    def pump(self) -> None:
        """Send what the conversation has to say while the peer takes it."""
        # Invariant: this is not entered again. While it runs, writing may pause or resume us, and
        # an awaited reply may come; the loop sees either.
        if self._pumping or self._state not in states.OPEN_STATES:
            return
        conversation, seconds = self._conversation, self._seconds
        until, over = seconds() + _TURN_OF_ONE, False
        self._pumping = True
        while not (over or self._paused) and (output := conversation.replies(until, seconds)):
            self._sent += len(output)
            self._active_at = self.sent_at = seconds()
            self._output.write(output)
            if conversation.wants_input:
                break
            over = self._active_at > until
        self._pumping = False
        # Not before the lab has passed everything on; it resumes us then, and nothing is read.
        if conversation.outcome is not None and (self._lab is None or self._lab.empty):
            self._finish(conversation.outcome)
        elif seconds() > until:
            self._yield_turn()
        else:
            self._read(conversation.wants_input and not self._paused)

    def _finish(self, outcome: Outcome) -> None:
        """Begin to close."""
        # Then hardly any input can be under way, and no output is.
        quiet = (
            outcome is states.STOPPED
            and self._seconds() - self._active_at >= _NO_LINGER_AFTER
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
            self._factory.look_after(self)

    def _lab_did(self, action: LabAction, number: int, fate: str) -> None:
        self._factory.tell(Impaired(self.name, Direction.REPLY, number, (action,), fate))

    def _lab_reset(self) -> None:
        self.end_with(Outcome.LAB_RESET, "as asked for (--reset-after)")
        self._abort()
