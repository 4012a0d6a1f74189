"""The `DatagramProtocol` around a `Responder`: carries out its steps with a reactor.

It is served by `uppercase.udp.ports.Port` in batches, and just as well by Twisted's own
`reactor.listenUDP`, then without what that port cannot tell: destinations, scopes, truncation.
"""

from asyncio import isfuture
from collections.abc import Awaitable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.datagram import (
    Answer,
    Datagram,
    Delay,
    Destination,
    Responder,
    SocketAddress,
    Step,
    Wait,
)
from uppercase.limits import UDP_READ_SIZE
from uppercase.udp.interfaces import IBatchProtocol, IBatchTransport

__all__ = ["ResponderProtocol"]


@implementer(IBatchProtocol)
class ResponderProtocol(DatagramProtocol):
    """Serves one port with a responder; ports of one service share the responder.

    Args:
        responder: decides and counts.
        reactor: provides `IReactorTime`.
    """

    noisy = False

    def __init__(self, responder: Responder, reactor: Any) -> None:
        self.responder = responder
        self._reactor = reactor
        self._transport: Any = None
        self._batches = False
        self._here = Destination("0.0.0.0", 0)
        # what is awaited or held back, and how to call it off
        self._pending: dict[Wait | Delay, Any] = {}

    def startProtocol(self) -> None:
        """Get to know the transport."""
        self._transport = self.transport
        self._batches = IBatchTransport.providedBy(self._transport)
        if not self._batches:
            self._transport.maxPacketSize = UDP_READ_SIZE  # Twisted's default cuts at 8,192
            host = self._transport.getHost()
            self._here = Destination(host.host.partition("%")[0], host.port)

    def stopProtocol(self) -> None:
        """Call off everything that is still to come."""
        pending, self._pending = self._pending, {}
        for step, call in pending.items():
            call.cancel()
            self.responder.abandon(step)

    def datagramReceived(self, datagram: bytes, addr: SocketAddress) -> None:
        """Take a datagram from a transport of Twisted."""
        self.receive_batch([Datagram(datagram, addr, self._here)])

    def receive_batch(self, batch: Sequence[Datagram]) -> None:
        """Take the datagrams of one wake-up."""
        self._carry_out(self.responder.answer_batch(batch))

    def _carry_out(self, steps: Sequence[Step]) -> None:
        answers = []
        for step in steps:
            if isinstance(step, Answer):
                answers.append(step)
            elif isinstance(step, Delay):
                self._pending[step] = self._reactor.callLater(step.seconds, self._resume, step)
            else:
                self._await(step)
        if answers:
            self.responder.sent(answers, self._send(answers))

    def _send(self, answers: Sequence[Answer]) -> list[tuple[Answer, OSError]]:
        if self._batches:
            refused: list[tuple[Answer, OSError]] = self._transport.send_batch(answers)
            return refused
        refused = []
        for answer in answers:
            try:
                self._transport.write(answer.data, answer.peer)
            except OSError as error:
                refused.append((answer, error))
            except MessageLengthError as error:
                refused.append((answer, OSError(str(error))))
        return refused

    def _resume(self, delay: Delay) -> None:
        del self._pending[delay]
        self._carry_out(self.responder.resume(delay))

    def _await(self, wait: Wait) -> None:
        result = _deferred(wait.awaitable)
        self._pending[wait] = result
        result.addCallbacks(lambda reply: reply, _exception)
        result.addCallback(self._settle, wait)

    def _settle(self, reply: Any, wait: Wait) -> None:
        # A step that was called off is no longer pending: its result is of no use.
        if self._pending.pop(wait, None) is not None:
            self._carry_out(self.responder.settle(wait, reply))


def _deferred(awaitable: Awaitable[bytes]) -> Deferred[Any]:
    """Start an awaitable; futures belong to an asyncio reactor."""
    if isfuture(awaitable):
        return Deferred.fromFuture(awaitable)

    async def wait() -> bytes:
        return await awaitable

    return Deferred.fromCoroutine(wait())


def _exception(failure: Failure) -> Exception:
    """Give what was raised as a value; cancellation and the like end the wait as an error too."""
    error = failure.value
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
