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
from errno import EBADF
from functools import lru_cache
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

from uppercase.core.guards import Destination, Origin, Replies, SocketAddress
from uppercase.limits import LOG_INTERVAL, UDP_READ_SIZE
from uppercase.udp._batches import ORIGINS, Batches, has_batches
from uppercase.udp.protocol import IBatchTransport, ResponderProtocol, send_each
from uppercase.udp.sockets import (
    ANCILLARY_SPACE,
    enable_destinations,
    parse_destination,
    reply_ancillary,
)

BATCH: Final = 64
"""Datagrams read in one wake-up of the reactor. Counted in datagrams, because empty ones have no
bytes to count: timers, signals and other sockets get their turn under any flood."""

DRAIN_BATCHES: Final = 256
"""Batches that a stop reads at the most: more datagrams than the receive buffer holds (a small one
takes 830 of its 8 MiB), so a flood cannot hold up the end."""

RECEIVE_PAUSE: Final = 0.1
"""After an unexpected receive error the port rests this long, doubled up to `RECEIVE_PAUSE_MAX`
while errors go on: a socket that stays readable and fails would otherwise take the processor."""

RECEIVE_PAUSE_MAX: Final = 1.0
"""The longest rest: one try a second costs nothing and finds out soon that the fault has passed."""

_MSG_TRUNC: Final[int] = getattr(socket, "MSG_TRUNC", 0)


@implementer(IListeningPort, IReadDescriptor, IPushProducer, IBatchTransport)
class Port:
    """One bound socket that serves one protocol.

    Args:
        sock: a bound UDP socket; the port owns it from now on.
        protocol: is given the datagrams of each wake-up, in the order of their arrival.
        reactor: provides `IReactorFDSet` too.
        batch_size: datagrams read in one wake-up.
        read_size: bytes of a datagram that are read; longer ones count as truncated.

    Attributes:
        protocol: what is served.
        tells_destinations: whether the system says where each datagram was sent to, so that
            broadcasts are told apart and replies leave from the address that was asked. A socket
            on one address needs no telling.
    """

    _log = Logger("uppercase")

    def __init__(
        self,
        sock: socket.socket,
        protocol: ResponderProtocol,
        reactor: IReactorTime,
        *,
        batch_size: int = BATCH,
        read_size: int = UDP_READ_SIZE,
    ) -> None:
        self._socket = sock
        # A port on a blocking socket would hang in its second read.
        sock.setblocking(False)
        self.protocol = protocol
        self._clock = reactor
        self._readers = IReactorFDSet(reactor)
        self._batch_size = batch_size
        # Invariant: a part of a datagram never passes for a whole one. Where the system marks what
        # it cuts (MSG_TRUNC) any size will do; elsewhere only one that no datagram reaches.
        self._read_size = read_size
        self._name: SocketAddress = sock.getsockname()
        self._bound = Destination(self._name[0].partition("%")[0], self._name[1])
        self._is_wildcard = self._bound.host in ("0.0.0.0", "::")
        self.tells_destinations = not self._is_wildcard or enable_destinations(sock)
        self._parses = self._is_wildcard and self.tells_destinations
        self._batches = (
            Batches(sock, batch_size, read_size, self._bound, self._parses)
            if has_batches(sock)
            else None
        )
        self._receive = self._receive_message if hasattr(sock, "recvmsg") else self._receive_plain
        self._origin_of = lru_cache(ORIGINS)(Origin.of)
        self._quiet_until = 0.0
        self._pause = RECEIVE_PAUSE
        # Invariant: a port that listens is among the reactor's readers unless it rests (`_resting`
        # brings it back), is paused by its protocol, or is read out; then it reads so many batches
        # more, as soon as it is not paused.
        self._resting: IDelayedCall | None = None
        self._paused = False
        self._batches_left: int | None = None
        self._was_read_out: Deferred[None] = Deferred()
        # Invariant: false means that the socket is closed, or not yet used. Protocols may stop the
        # port from within a batch or answer after its end, so whatever touches the socket asks.
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
            if self._read_batch() < self._batch_size:
                self._batches_left = 0
        self._stop_resting()
        if not self._paused and not self._was_read_out.called:
            self._was_read_out.callback(None)

    def _read_batch(self) -> int:
        """Read and hand over one batch; return its size.

        What was read before an error is handed over all the same, and after `_rest`: a protocol
        that stops the port on this batch calls the rest off.
        """
        payloads: Sequence[bytes] = ()
        origins: list[Origin] = []
        try:
            if self._batches is None:
                payloads = found = []
                for _ in range(self._batch_size if self._listening else 0):
                    data, origin = self._receive()
                    found.append(data)
                    origins.append(origin)
            elif self._listening:
                payloads, origins = self._batches.receive()
            self._pause = RECEIVE_PAUSE
        except (BlockingIOError, InterruptedError, ConnectionError):
            # Nothing more, or an ICMP error about some earlier reply: no fault of the socket.
            self._pause = RECEIVE_PAUSE
        except OSError as error:
            self._rest(error)
        if origins:
            self._deliver(payloads, origins)
        return len(origins)

    def send_replies(self, replies: Replies) -> list[tuple[int, OSError]]:
        """Send replies to a batch of this port's; return the positions of those refused, and why.

        UDP may lose datagrams, and waiting for a full network would only fill it further.
        """
        if self._batches is None or not self._listening:
            return send_each(self.send, replies)
        return self._batches.send(replies.payloads, replies.origins)

    def send(self, data: bytes, origin: Origin) -> OSError | None:
        """Send one from the address that was asked; never raise, wait or try again."""
        source = origin.destination
        try:
            if not self._listening:
                raise OSError(EBADF, "the port is closed")
            # `_bound` is the object itself wherever the system named no destination; a wildcard is
            # no address to answer from, so the system chooses one.
            if self._parses and source is not self._bound:
                self._socket.sendmsg([data], reply_ancillary(source), 0, origin.source)
            else:
                self._socket.sendto(data, origin.source)
        except OSError as error:
            return error
        return None

    # Invariant of both: the socket does not block, so the read after the last datagram raises
    # BlockingIOError, which ends the batch.

    def _receive_message(self) -> tuple[bytes, Origin]:
        data, ancillary, flags, source = self._socket.recvmsg(self._read_size, ANCILLARY_SPACE)
        destination = parse_destination(ancillary, self._bound.port) if self._parses else None
        truncated = bool(flags & _MSG_TRUNC)
        return data, self._origin_of(source, destination or self._bound, truncated)

    def _receive_plain(self) -> tuple[bytes, Origin]:
        data, source = self._socket.recvfrom(self._read_size)
        return data, self._origin_of(source, self._bound)

    def _deliver(self, payloads: Sequence[bytes], origins: Sequence[Origin]) -> None:
        """Hand datagrams over; a fault of the protocol costs this batch, not the port."""
        try:
            self.protocol.receive_batch(payloads, origins)
        except Exception:
            if self._clock.seconds() >= self._quiet_until:
                self._quiet_until = self._clock.seconds() + LOG_INTERVAL
                self._log.failure("a datagram protocol failed")

    def _rest(self, error: OSError) -> None:
        """Count an unexpected error and read on a little later."""
        self.protocol.responder.note_error("receive", error)
        self._log.warn(
            "cannot read from UDP port {port}: {error}; trying again in {pause} s",
            port=self._bound.port,
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
