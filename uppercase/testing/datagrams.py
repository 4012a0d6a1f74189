r"""A UDP server and its client in memory: the real protocol and guards, no socket, a clock.

    client = connect_udp("strip", "uppercase")
    client.send(b" hello ")
    client.receive()  # [b"HELLO"]

As in `uppercase.testing.connection`, nothing happens by itself; it needs neither pytest nor
hypothesis.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from zope.interface import implementer

from uppercase.core.datagram import Answer, Datagram, Destination, Responder
from uppercase.core.events import DropReason, Event
from uppercase.errors import TransformError
from uppercase.limits import MAX_OUTPUT, DatagramLimits
from uppercase.testing.memory import CLIENT, SERVER, Recorder, advance, first_error, make_chain
from uppercase.udp.ports import IBatchTransport
from uppercase.udp.protocol import ResponderProtocol

__all__ = ["UDPClient", "connect_udp"]


def connect_udp(
    *transforms: object, limits: DatagramLimits | None = None, max_output: int = MAX_OUTPUT
) -> "UDPClient":
    """Serve a chain of transforms over UDP, in memory, for one client.

    Args:
        *transforms: as for `uppercase.testing.connect`.
        limits: the server's bounds; without them, its defaults.
        max_output: bytes that each transform may give for one message.

    Raises:
        uppercase.errors.UserError: a specification is wrong.
        uppercase.errors.PluginError: a transform cannot be loaded.
    """
    events: list[Event] = []
    clock = Clock()
    responder = Responder(
        make_chain(transforms, max_output, events),
        limits,
        clock=clock.seconds,
        observer=Recorder(events),
    )
    return UDPClient(responder, clock, events)


class UDPClient:
    """A client whose datagrams all arrive, in order.

    Attributes:
        clock: the server's.
        events: what the server has reported so far.
    """

    def __init__(self, responder: Responder, clock: Clock, events: list[Event]) -> None:
        self.clock = clock
        self.events = events
        self._responder = responder
        self._replies: list[bytes] = []
        self._protocol = ResponderProtocol(responder, clock)
        transport: Any = _Transport(self._replies)
        self._protocol.makeConnection(transport)

    def send(self, *messages: bytes) -> None:
        """Send datagrams, which reach the server together."""
        here = Destination(*SERVER)
        self._protocol.receive_batch([Datagram(message, CLIENT, here) for message in messages])

    def receive(self) -> list[bytes]:
        """Return the replies that have come since the last call, in the order of their arrival."""
        came = self._replies[:]
        self._replies.clear()
        return came

    def advance(self, seconds: float) -> None:
        """Let time pass for the server, from one thing that it has planned to the next."""
        advance(self.clock, seconds)

    @property
    def drops(self) -> Counter[DropReason]:
        """How many datagrams got no reply, by reason."""
        return self._responder.drops

    @property
    def error(self) -> TransformError | None:
        """What a transform failed with first; None unless one did."""
        return first_error(self.events)


@implementer(IBatchTransport)
class _Transport:
    """A network without loss."""

    def __init__(self, replies: list[bytes]) -> None:
        self._replies = replies

    def send_batch(self, answers: Sequence[Answer]) -> Sequence[tuple[Answer, OSError]]:
        self._replies += [answer.data for answer in answers]
        return ()
