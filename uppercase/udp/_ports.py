"""A UDP port of the reactor that reads in batches and never dies of an error.

Why not `twisted.internet.udp.Port`: nearly everything that it does had to be replaced, and two
replacements need its private names. It counts bytes rather than datagrams a turn (empty ones never
end), cuts silently what is longer than its buffer, is closed by the reactor for good after an
unexpected errno, strips the scope of IPv6 addresses, and raises from `write`. This is an
`IReadDescriptor` at public seams only, so it works on every reactor with `IReactorFDSet`; it
serves a `ResponderProtocol`. Where a reactor lacks that interface (IOCP), `uppercase.udp.serve`
falls back to `reactor.listenUDP`, with what it lacks.
"""

import socket
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IPushProducer,
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.guards import Origin, Replies, SocketAddress
from uppercase.udp._batches import BATCH, batches_of
from uppercase.udp.protocol import IBatchTransport, ResponderProtocol

DRAIN_BATCHES: Final = 256
"""Batches that a stop reads at the most: more datagrams than the receive buffer holds (a small one
takes 830 of its 8 MiB), so a flood cannot hold up the end."""

RECEIVE_PAUSE: Final = 0.1
"""After an unexpected receive error the port rests this long, doubled up to `RECEIVE_PAUSE_MAX`
while errors go on: a socket that stays readable and fails would otherwise take the processor."""

RECEIVE_PAUSE_MAX: Final = 1.0
"""The longest rest: one try a second costs nothing and finds out soon that the fault has passed."""


@implementer(IListeningPort, IReadDescriptor, IPushProducer, IBatchTransport)
class Port:
    """One bound socket that serves one protocol.

    Args:
        sock: a bound UDP socket; the port owns it from now on.
        protocol: is given the datagrams of each wake-up, in the order of their arrival.
        reactor: provides `IReactorFDSet` too.

    Attributes:
        protocol: what is served.
    """

    _log = Logger("uppercase")

    def __init__(
        self,
        sock: socket.socket,
        protocol: ResponderProtocol,
        reactor: IReactorTime,
    ) -> None:
        self._socket = sock
        # A port on a blocking socket would hang in its second read.
        sock.setblocking(False)
        self.protocol = protocol
        self._clock = reactor
        self._readers = IReactorFDSet(reactor)
        self._name: SocketAddress = sock.getsockname()
        self._batches = batches_of(sock)
        self._pause = RECEIVE_PAUSE
        # Invariant: a port that listens is among the reactor's readers unless it rests (`_resting`
        # brings it back), is paused by its protocol, or is read out; then it reads so many batches
        # more, as soon as it is not paused.
        self._resting: IDelayedCall | None = None
        self._paused = False
        self._batches_left: int | None = None
        self._was_read_out: Deferred[None] = Deferred()
        # Invariant: false means that the socket is closed, or not yet used. Protocols may stop the
        # port from within a batch, so whoever reads asks; what they send later, the system refuses.
        self._listening = False

    def startListening(self) -> None:
        """Begin to read; a protocol that fails to start leaves nothing open."""
        # Of IUDPTransport it has what a server's protocol uses; it cannot be connected.
        transport: Any = self
        try:
            self.protocol.makeConnection(transport)
        except BaseException:
            self._socket.close()
            raise
        self._listening = True
        self._readers.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Close the socket; the result has fired already."""
        if self._listening:
            self._listening = False
            self._readers.removeReader(self)
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
            return IPv6Address("UDP", *self._name)
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
        self._readers.removeReader(self)

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
        self._readers.removeReader(self)
        if self._batches_left is None:
            self._batches_left = DRAIN_BATCHES
            self._read_on()
        return self._was_read_out

    def _read_on(self) -> None:
        """Be among the readers again, unless there is a reason not to be; or read out."""
        if self._batches_left is None:
            if self._listening and not self._paused and self._resting is None:
                self._readers.addReader(self)
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
                payloads, origins = self._batches.receive()
            self._pause = RECEIVE_PAUSE
        except (BlockingIOError, InterruptedError, ConnectionError):
            # Nothing more, or an ICMP error about some earlier reply: no fault of the socket.
            self._pause = RECEIVE_PAUSE
        except OSError as error:
            self._rest(error)
        if origins:
            self.protocol.receive_batch(payloads, origins)
        return len(origins)

    def send(self, data: bytes, origin: Origin) -> OSError | None:
        return self._batches.send(data, origin)

    def send_replies(self, replies: Replies) -> list[tuple[int, OSError]]:
        return self._batches.send_replies(replies)

    def _rest(self, error: OSError) -> None:
        """Count an unexpected error and read on a little later."""
        self.protocol.responder.note_error("receive", error)
        self._log.warn(
            "cannot read from UDP port {port}: {error}; trying again in {pause} s",
            port=self._name[1],
            error=error,
            pause=self._pause,
        )
        self._readers.removeReader(self)
        self._resting = self._clock.callLater(self._pause, self._wake)
        self._pause = min(2 * self._pause, RECEIVE_PAUSE_MAX)

    def _stop_resting(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _wake(self) -> None:
        self._resting = None
        self._read_on()
