"""A chunk in, its reply out, in as few calls as can be.

Most of the time there is nothing to decide about a connection: it is served, the peer takes its
replies, and each chunk has its reply at once. What there is beside that, a protocol's other parts
do.
"""

from abc import abstractmethod
from math import inf
from time import monotonic
from types import MethodType
from typing import Any, Final

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from uppercase.tcp._hub import Hub
from uppercase.tcp._prompt import PromptConnection
from uppercase.tcp._states import OPEN_STATES, State
from uppercase.tcp._waiting import WaitingProtocol

TURN_OF_ONE: Final = 0.0005
"""Seconds that one connection may keep the reactor before the others have their turn, unless one
message takes longer: a chunk of short messages is worth a tenth of a second, and with a transform
of 1 ms a minute. A hundred that flood at once have had theirs after 65 ms."""


class AnsweringProtocol(WaitingProtocol):
    """The part of a connection's protocol that takes input."""

    _output: IConsumer
    _seconds: Any

    _received = 0
    _sent = 0
    _linger_until: float = inf
    _may_hurry = True

    def dataReceived(self, data: bytes) -> None:
        """Pass a chunk to the conversation and send what it has to say."""
        self._received += len(data)
        now = self._active_at = self._seconds()
        if self._state is State.SERVING and not self._paused and self._conversation.wants_input:
            # Nothing is out of the ordinary: what `receive` and `_pump` come to, in one call.
            until = now + TURN_OF_ONE
            self._give(self._conversation.exchange(data, until, self._seconds), until)
            if self._may_hurry and self._received > len(data):
                self._may_hurry = False
                self._hurry()
        elif self._state in OPEN_STATES:
            self._conversation.receive(data)
            self._pump()
            if self._state is State.DRAINING:
                self.input_taken()
        elif self._state is State.CLOSING and self._received > self._linger_until:
            if self._conversation.outcome is not None:
                self._end_with(self._conversation.outcome, "")
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
            self._pump()

    def _hurry(self) -> None:
        """From its second chunk on, read, answer and send in one call, where that is possible."""
        transport: Any = self.transport
        hub, sole = getattr(transport, "reactor", None), self._conversation.sole
        plain = self._output is transport and self._seconds is monotonic
        if sole and plain and isinstance(hub, Hub) and isinstance(transport, PromptConnection):
            # Of the instances, as it takes three times as long to read what is their class's.
            self._paused, transport.queueing = self._paused, transport.queueing
            hub.read_by(MethodType(self._reader(transport, hub, *sole), transport))

    def _reader(self, transport: Any, hub: Hub, feed: Any, most: int) -> Any:
        """Return what `doRead`, `dataReceived`, `exchange`, `feed` of the chain and `write` are.

        It is half of their calls, and leaves to them what is out of the ordinary.
        """
        recv, send, size = transport.socket.recv, transport.socket.send, transport.bufferSize
        conversation: Any = self._conversation
        serving, seconds = State.SERVING, monotonic

        def read(transport: PromptConnection) -> ConnectionDone | ConnectionLost | None:
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
                self._give(conversation.settle(started, None, error), started + TURN_OF_ONE)
                return None
            length = len(output) if type(output) is bytes else 0
            if not 0 < length <= most or seconds() - started > TURN_OF_ONE:
                self._give(conversation.settle(started, output), started + TURN_OF_ONE)
                return None
            self._sent_at = started
            self._sent += length
            try:
                sent = send(output)
            except OSError:
                sent = 0
            if sent != length:
                transport.write(output[sent:])
            return None

        return read

    @abstractmethod
    def _pump(self) -> None:
        """Send what the conversation has to say while the peer takes it."""

    @abstractmethod
    def _yield_turn(self) -> None:
        """Let the others have their turn, and read no more before."""

    @abstractmethod
    def input_taken(self) -> None:
        """Stop the conversation if it drains and has what had arrived by then."""
