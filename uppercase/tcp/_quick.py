"""A chunk in, its reply out, in one call: most of what there is to do, while all is in order.

A connection has this instead of `doRead` of its transport. It decides nothing: whatever is out of
the ordinary goes the way of `TransformProtocol`.
"""

from time import monotonic
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from uppercase.tcp._hub import Hub
from uppercase.tcp._prompt import PromptConnection
from uppercase.tcp._states import State

if TYPE_CHECKING:
    from uppercase.tcp.connection import TransformProtocol

TURN_OF_ONE: Final = 0.0005
"""Seconds that one connection may keep the reactor before the others have their turn, unless one
message takes longer: a chunk of short messages is worth a tenth of a second, and with a transform
of 1 ms a minute. A hundred that flood at once have had theirs after 65 ms."""


def read_quickly(connection: "TransformProtocol") -> None:
    """Have each chunk of a connection read, answered and sent in one call, where it can be."""
    transport: Any = connection.transport
    hub, sole = getattr(transport, "reactor", None), connection._conversation.sole
    plain = connection._output is transport and connection._seconds is monotonic
    if sole and plain and isinstance(hub, Hub) and isinstance(transport, PromptConnection):
        # Of the instances, as it takes three times as long to read what is their class's.
        connection._paused, transport.queueing = connection._paused, transport.queueing
        hub.read_by(MethodType(_reader(connection, transport, hub, *sole), transport))


def _reader(connection: "TransformProtocol", transport: Any, hub: Hub, feed: Any, most: int) -> Any:
    """Return what `doRead`, `dataReceived`, `exchange`, `feed` of the chain and `write` are.

    It is half of their calls, and leaves to them what is out of the ordinary.
    """
    recv, send, size = transport.socket.recv, transport.socket.send, transport.bufferSize
    conversation: Any = connection._conversation
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
            connection._state is not serving
            or connection._paused
            or transport.queueing
            or not conversation.wants_input
        ):
            connection.dataReceived(data)
            return None
        connection._received += len(data)
        started = connection._active_at = hub.now
        try:
            output = feed(data)
        except BaseException as error:
            connection._give(conversation.settle(started, None, error), started + TURN_OF_ONE)
            return None
        length = len(output) if type(output) is bytes else 0
        if not 0 < length <= most or seconds() - started > TURN_OF_ONE:
            connection._give(conversation.settle(started, output), started + TURN_OF_ONE)
            return None
        connection._sent_at = started
        connection._sent += length
        try:
            sent = send(output)
        except OSError:
            sent = 0
        if sent != length:
            transport.write(output[sent:])
        return None

    return read
