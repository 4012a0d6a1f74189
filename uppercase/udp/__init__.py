"""UDP ports: sockets that are read in batches, and the protocol around a `Responder`.

`ResponderProtocol` carries out a responder's steps with a reactor. It is served by a `Port` in
batches, and just as well by Twisted's own `reactor.listenUDP`, then without what that port cannot
tell: destinations, scopes, truncation.

Why `Port` and not `twisted.internet.udp.Port`: nearly everything that it does had to be replaced,
and two replacements need its private names. It counts bytes rather than datagrams a turn (empty
ones never end), cuts silently what is longer than its buffer, is closed by the reactor for good
after an unexpected errno, strips the scope of IPv6 addresses, and raises from `write`. This is an
`IReadDescriptor` at public seams only, so it works on every reactor with `IReactorFDSet`.
"""

import errno
import socket
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, Final
from weakref import WeakSet

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IPushProducer,
    IReactorTime,
    IReadDescriptor,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.awaiting import await_reply
from uppercase.core.datagram import (
    Answer,
    Delay,
    Destination,
    Origin,
    Part,
    Replies,
    SocketAddress,
    Step,
    Wait,
    scoped,
)
from uppercase.core.responder import Responder
from uppercase.core.values import allow_fragments
from uppercase.errors import TransformError
from uppercase.limits import LOG_INTERVAL, TURN, UDP_READ_SIZE
from uppercase.udp._batches import BATCH, batches_of, send_each
from uppercase.udp.sockets import ask_receive_buffer

DRAIN_BATCHES: Final = 256
"""Batches that a stop reads at most: more datagrams than the receive buffer holds (a small one
takes 830 of its 8 MiB), so a flood cannot hold up the end."""

RECEIVE_PAUSE: Final = 0.1
"""After an unexpected receive error the port rests this long, doubled up to `RECEIVE_PAUSE_MAX`
while errors go on: a socket that stays readable and fails would otherwise hog the processor."""

RECEIVE_PAUSE_MAX: Final = 1.0
"""The longest rest: one try a second costs nothing and soon finds that the fault has passed."""

_log: Final = Logger("uppercase")

Parts = Generator[Part, None, None]

# Whose datagrams give way to all else, of all services: a turn is theirs together.
_busy: Final[WeakSet["ResponderProtocol"]] = WeakSet()


def serve(reactor: Any, sock: socket.socket, responder: Responder) -> "Port":
    """Serve a responder on a bound socket, which the port owns from now on; ports may share one."""
    allow_fragments(sock)
    # One of systemd's may send to broadcast addresses, which a source can be.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 0)
    ask_receive_buffer(sock, responder.limits.receive_buffer)
    port = Port(sock, ResponderProtocol(responder, reactor), reactor)
    port.startListening()
    return port


class ResponderProtocol(DatagramProtocol):
    """Serves one port with a responder; the ports of one service share the responder.

    Args:
        responder: decides and counts.
        clock: tells when a delay is over.
    """

    noisy = False

    def __init__(self, responder: Responder, clock: IReactorTime) -> None:
        self.responder = responder
        self.on_stopped: Callable[[], None] = lambda: None  # Called when the port has stopped.
        self._clock = clock
        self._send: Callable[[bytes, Origin], OSError | None]
        self._send_replies: Callable[[Replies], Collection[tuple[int, OSError]]]
        self._here: Destination
        # What is awaited or held back, and how to cancel it. Invariant: each step that the
        # responder gave stays in here until it is settled, resumed or abandoned, exactly once.
        self._pending: dict[Wait | Delay, Callable[[], None]] = {}
        self._idle: list[Deferred[None]] = []
        # The transport, if it provides `IPushProducer`.
        self._pausable: Any = None
        # Datagrams that gave way to all else, and their next turn. Invariant: meanwhile the
        # transport is paused, so there is only one such batch.
        self._parts: Parts | None = None
        self._next_turn: IDelayedCall | None = None
        self._quiet_until = 0.0

    def startProtocol(self) -> None:
        transport: Any = self.transport
        if IPushProducer.providedBy(transport):
            self._pausable = transport
        if isinstance(transport, Port):
            batches = transport.batches
            self._send, self._send_replies = batches.send, batches.send_replies
            return
        # In no interface, but the only way to reach a port that somebody else opened: Twisted's own
        # silently cuts at 8,192 bytes.
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
            _busy.discard(self)
        pending, self._pending = self._pending, {}
        for step, cancel in pending.items():
            cancel()
            self.responder.abandon(step)
        self._check_idle()
        self.on_stopped()

    def datagramReceived(self, datagram: bytes, addr: SocketAddress) -> None:
        self.receive_batch([datagram], [Origin.of(addr, self._here)])

    def receive_batch(self, payloads: Sequence[bytes], origins: Sequence[Origin]) -> None:
        """Take the datagrams of one wake-up.

        What is left after a turn gives way to all else, where the transport can be paused.
        """
        self._take_turn(self.responder.exchange(payloads, origins))

    def _take_turn(self, parts: Parts) -> None:
        self._next_turn = None
        _busy.discard(self)
        try:
            if self._carry_on(parts):
                if self._parts is None:
                    self._pausable.pauseProducing()
                self._parts = parts
                _busy.add(self)
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
        until = inf if self._pausable is None else perf_counter() + TURN / (1 + len(_busy))
        for replies, steps in parts:
            if replies.payloads:
                self.responder.exchanged(replies, self._send_replies(replies))
            if steps:
                self._carry_out(steps)
            if self.transport is None:
                parts.close()  # A transform has stopped the port.
            elif perf_counter() > until:
                return True
        return False

    def _fail(self, parts: Parts) -> None:
        """Log a fault, such as an observer's: it costs what is left of a batch, not the port."""
        if self._clock.seconds() >= self._quiet_until:
            self._quiet_until = self._clock.seconds() + LOG_INTERVAL
            _log.failure("a datagram protocol failed")
        # What is left is dropped, of which the observer is told.
        with suppress(Exception):
            parts.close()

    def drain(self) -> Deferred[None]:
        """Answer what has reached the port so far, and read no more.

        Returns:
            What fires when no reply is awaited or held back any more. The port still has to be
            stopped, which cancels whatever is left.
        """
        port: Any = self.transport
        read = port.read_out() if isinstance(port, Port) else succeed(None)
        return read.addCallback(lambda _: self.idle())

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
        if self.transport is None:  # A transform has stopped the port: nothing is awaited any more.
            self.stopProtocol()

    def _resume(self, delay: Delay) -> None:
        del self._pending[delay]
        self._carry_out(self.responder.resume(delay))
        self._check_idle()

    def _await(self, wait: Wait) -> None:
        # The result may come before there is a way to cancel it.
        self._pending[wait] = lambda: None
        cancel = await_reply(wait.awaitable, partial(self._settle, wait))
        if wait in self._pending:
            self._pending[wait] = cancel

    def _settle(self, wait: Wait, result: bytes | TransformError) -> None:
        # A step that was cancelled is no longer pending, and nobody wants its result.
        if self._pending.pop(wait, None) is not None:
            self._carry_out(self.responder.settle(wait, result))
            self._check_idle()

    def _check_idle(self) -> None:
        while self._idle and not self._pending and self._parts is None:
            self._idle.pop().callback(None)


@implementer(IListeningPort, IReadDescriptor, IPushProducer)
class Port:
    """One bound socket that serves one protocol.

    Args:
        sock: a bound UDP socket; the port owns it from now on.
        protocol: is given the datagrams of each wake-up, in the order of their arrival.
        reactor: provides `IReactorFDSet` and `IReactorTime`.

    Attributes:
        protocol: what is served.
        batches: reads and sends its datagrams.
    """

    def __init__(self, sock: socket.socket, protocol: ResponderProtocol, reactor: Any) -> None:
        self._socket = sock
        # A port on a blocking socket would hang in its second read.
        sock.setblocking(False)
        self.protocol = protocol
        self._reactor = reactor
        self._name: SocketAddress = sock.getsockname()
        self.batches = batches_of(sock)
        self._pause = RECEIVE_PAUSE
        # Invariant: a port that listens is among the reactor's readers unless it rests (`_resting`
        # brings it back), is paused by its protocol, or is being read out; then it reads that many
        # more batches, as soon as it is not paused.
        self._resting: IDelayedCall | None = None
        self._paused = False
        self._batches_left: int | None = None
        self._was_read_out: Deferred[None] = Deferred()
        # Invariant: false means that the socket is closed, or not yet used. A protocol may stop the
        # port from within a batch, so each read checks; what it sends later, the system refuses.
        self._listening = False

    def startListening(self) -> None:
        """Begin to read."""
        # It has what a server's protocol uses of IUDPTransport, and cannot be connected.
        transport: Any = self
        self.protocol.makeConnection(transport)
        self._listening = True
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Close the socket; the result has fired already."""
        if self._listening:
            self._listening = False
            self._reactor.removeReader(self)
            self._stop_resting()
            self._socket.close()
            # Last: a protocol that stops the port once more, or sends, finds it closed.
            self.protocol.doStop()
        return succeed(None)

    def connectionLost(self, reason: Failure) -> None:
        """Close when the reactor shuts down or finds the descriptor gone."""
        self.stopListening()

    def getHost(self) -> IPv4Address | IPv6Address:
        if len(self._name) > 2:
            return IPv6Address("UDP", scoped(self._name), *self._name[1:])
        return IPv4Address("UDP", *self._name)

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once it is closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return f"{type(self.protocol).__name__} (UDP)"

    def doRead(self) -> None:
        self._read_batch()

    def pauseProducing(self) -> None:
        self._paused = True
        self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        self._paused = False
        self._read_on()

    def stopProducing(self) -> None:
        self.stopListening()

    def read_out(self) -> Deferred[None]:
        """Take what has arrived so far, and read no more; return what fires then.

        A service that stops answers what it was sent before; a flood does not hold it up.
        """
        self._stop_resting()
        self._reactor.removeReader(self)
        if self._batches_left is None:
            self._batches_left = DRAIN_BATCHES
            self._read_on()
        return self._was_read_out

    def _read_on(self) -> None:
        """Join the readers again, unless there is a reason not to; or read out what is left."""
        if self._batches_left is None:
            if self._listening and not self._paused and self._resting is None:
                self._reactor.addReader(self)
            return
        while self._batches_left and not self._paused:
            self._batches_left -= 1
            if self._read_batch() < BATCH:
                self._batches_left = 0
        self._stop_resting()
        if not self._paused and not self._was_read_out.called:
            self._was_read_out.callback(None)

    def _read_batch(self) -> int:
        """Read and hand over one batch; return its size."""
        payloads: Sequence[bytes] = ()
        origins: list[Origin] = []
        try:
            if self._listening:
                payloads, origins = self.batches.receive()
            self._pause = RECEIVE_PAUSE
        except (BlockingIOError, InterruptedError, ConnectionError):
            # Nothing more, or an ICMP error about some earlier reply: no fault of the socket.
            self._pause = RECEIVE_PAUSE
        except Exception as error:  # Such as a MemoryError, or one of ctypes for want of memory.
            # Invariant: nothing is raised to the reactor, which would close the port for good.
            self._rest(error)
        if origins:
            self.protocol.receive_batch(payloads, origins)
        return len(origins)

    def _rest(self, error: Exception) -> None:
        """Count an unexpected error and read on a little later."""
        if not isinstance(error, OSError):
            error = OSError(errno.ENOMEM if isinstance(error, MemoryError) else 0, repr(error))
        self.protocol.responder.note_error("receive", error)
        _log.warn(
            "cannot read from UDP port {port}: {error}; trying again in {pause} s",
            port=self._name[1],
            error=error,
            pause=self._pause,
        )
        self._reactor.removeReader(self)
        self._resting = self._reactor.callLater(self._pause, self._wake)
        self._pause = min(2 * self._pause, RECEIVE_PAUSE_MAX)

    def _stop_resting(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _wake(self) -> None:
        self._resting = None
        try:
            self._read_on()
        except (OSError, MemoryError) as error:
            self._rest(error)


def _write(transport: IUDPTransport, data: bytes, origin: Origin) -> OSError | None:
    """Send a reply by a transport of Twisted's; return why the system refuses it."""
    try:
        transport.write(data, origin.source)
    except (OSError, MessageLengthError) as error:
        return error if isinstance(error, OSError) else OSError(str(error))
    return None
