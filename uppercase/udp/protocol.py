"""The `DatagramProtocol` around a `Responder`: carries out its steps with a reactor.

It is served by `uppercase.udp._ports.Port` in batches, and just as well by Twisted's own
`reactor.listenUDP`, then without what that port cannot tell: destinations, scopes, truncation.
"""

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from zope.interface import Interface

from uppercase.awaiting import await_reply
from uppercase.core.datagram import Responder
from uppercase.core.guards import (
    Answer,
    Delay,
    Destination,
    Origin,
    Replies,
    SocketAddress,
    Step,
    Wait,
)
from uppercase.errors import TransformError
from uppercase.limits import LOG_INTERVAL, TURN, UDP_READ_SIZE
from uppercase.udp._batches import send_each

Parts = Generator[tuple[Replies, list[Step]], None, None]
"""What `Responder.exchange` gives."""


class IBatchTransport(Interface):
    """A datagram transport that sends replies together."""

    def send(data: bytes, origin: Origin) -> OSError | None:
        """Send a reply, at once or not at all; return why the system refuses it, if it does."""

    def send_replies(replies: Replies) -> Sequence[tuple[int, OSError]]:
        """Do the same for replies to a batch of this transport's; return what was refused."""


class ResponderProtocol(DatagramProtocol):
    """Serves one port with a responder; the ports of one service share the responder.

    Args:
        responder: decides and counts.
        clock: tells when a delay is over.
    """

    noisy = False
    _log = Logger("uppercase")

    def __init__(self, responder: Responder, clock: IReactorTime) -> None:
        self.responder = responder
        self._clock = clock
        self._send: Callable[[bytes, Origin], OSError | None]
        self._send_replies: Callable[[Replies], Collection[tuple[int, OSError]]]
        self._here = Destination("0.0.0.0", 0)
        # What is awaited or held back, and how to call it off. Invariant: each step that the
        # responder gave is in here until it is settled, resumed or abandoned, and leaves once.
        self._pending: dict[Wait | Delay, Callable[[], None]] = {}
        self._idle: list[Deferred[None]] = []
        # The transport, if it provides `IPushProducer`.
        self._pausable: Any = None
        # Datagrams that gave way to all else, and their next turn. Invariant: meanwhile the
        # transport is paused, so that there is one batch of them.
        self._parts: Parts | None = None
        self._next_turn: IDelayedCall | None = None
        self._quiet_until = 0.0

    def startProtocol(self) -> None:
        transport: Any = self.transport
        if IPushProducer.providedBy(transport):
            self._pausable = transport
        if IBatchTransport.providedBy(transport):
            self._send, self._send_replies = transport.send, transport.send_replies
            return
        # In no interface, but the only way to reach a port that somebody else has opened:
        # Twisted's own cuts silently at 8,192 bytes.
        transport.maxPacketSize = UDP_READ_SIZE
        self._send = partial(_write, transport)
        self._send_replies = partial(send_each, self._send)
        host = transport.getHost()
        self._here = Destination(host.host.partition("%")[0], host.port)

    def stopProtocol(self) -> None:
        if self._parts is not None and self._next_turn is not None:
            self._next_turn.cancel()
            self._parts.close()
            self._parts = None
        pending, self._pending = self._pending, {}
        for step, cancel in pending.items():
            cancel()
            self.responder.abandon(step)
        self._check_idle()

    def datagramReceived(self, datagram: bytes, addr: SocketAddress) -> None:
        self.receive_batch([datagram], [Origin.of(addr, self._here)])

    def receive_batch(self, payloads: Sequence[bytes], origins: Sequence[Origin]) -> None:
        """Take the datagrams of one wake-up.

        What is left after a turn gives way to all else, where the transport can be paused.
        """
        self._take_turn(self.responder.exchange(payloads, origins))

    def _take_turn(self, parts: Parts) -> None:
        self._next_turn = None
        try:
            if self._carry_on(parts):
                if self._parts is None:
                    self._pausable.pauseProducing()
                self._parts = parts
                self._next_turn = self._clock.callLater(0, self._take_turn, parts)
                return
        except Exception:
            self._fail(parts)
        if self._parts is not None:
            self._parts = None
            self._pausable.resumeProducing()
            self._check_idle()

    def _carry_on(self, parts: Parts) -> bool:
        """Carry out parts until none is left or a turn is over; return whether it is."""
        until = inf if self._pausable is None else perf_counter() + TURN
        for replies, steps in parts:
            if replies.payloads:
                self.responder.exchanged(replies, self._send_replies(replies))
            if steps:
                self._carry_out(steps)
            if perf_counter() > until:
                if self.transport is not None:
                    return True
                parts.close()  # A transform has stopped the port.
        return False

    def _fail(self, parts: Parts) -> None:
        """Log a fault, such as an observer's: it costs what is left of a batch, not the port."""
        if self._clock.seconds() >= self._quiet_until:
            self._quiet_until = self._clock.seconds() + LOG_INTERVAL
            self._log.failure("a datagram protocol failed")
        # What is left is dropped, of which the observer is told.
        with suppress(Exception):
            parts.close()

    def idle(self) -> Deferred[None]:
        """Return what fires when no reply is awaited or held back any more."""
        if not self._pending and self._parts is None:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._idle.remove)
        self._idle.append(waiting)
        return waiting

    def _carry_out(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Answer):
                self.responder.sent(step, self._send(step.data, step.request.origin))
            elif isinstance(step, Delay):
                call = self._clock.callLater(step.passage.delay, self._resume, step)
                self._pending[step] = call.cancel
            else:
                self._await(step)

    def _resume(self, delay: Delay) -> None:
        del self._pending[delay]
        self._carry_out(self.responder.resume(delay))
        self._check_idle()

    def _await(self, wait: Wait) -> None:
        # The result may come before there is a way to call it off.
        self._pending[wait] = _nothing
        cancel = await_reply(wait.awaitable, partial(self._settle, wait))
        if wait in self._pending:
            self._pending[wait] = cancel

    def _settle(self, wait: Wait, result: bytes | TransformError) -> None:
        # A step that was called off is no longer pending, and nobody wants its result.
        if self._pending.pop(wait, None) is not None:
            self._carry_out(self.responder.settle(wait, result))
            self._check_idle()

    def _check_idle(self) -> None:
        while self._idle and not self._pending and self._parts is None:
            self._idle.pop().callback(None)


def _write(transport: IUDPTransport, data: bytes, origin: Origin) -> OSError | None:
    """Send a reply by a transport of Twisted's; return why the system refuses it."""
    try:
        transport.write(data, origin.source)
    except OSError as error:
        return error
    except MessageLengthError as error:
        return OSError(str(error))
    return None


def _nothing() -> None:
    """Call nothing off."""
