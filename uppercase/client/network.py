"""A target in Twisted's reactor: connections over TCP, TLS and UNIX sockets, and datagram sockets.

Twisted's failures become our sentences. TLS is Python's own, which judges the certificate too, over
any stream transport. Twisted's own UDP ports close without a word under epoll when a connected one
is refused (its issues 5377 and 6287), so the datagram sockets are readers of our own.
"""

import errno
import os
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet import endpoints, interfaces
from twisted.internet import error as twisted_error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue, succeed
from twisted.internet.defer import TimeoutError as Silence
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.client.target import Address, Target, explain, reachable, resolve
from uppercase.core.tls import TLSLayer
from uppercase.core.values import family_of
from uppercase.errors import NetworkError, UserError
from uppercase.limits import CONNECT_TIMEOUT, UDP_READ_SIZE


class IReactor(
    interfaces.IReactorFDSet,
    interfaces.IReactorTCP,
    interfaces.IReactorThreads,
    interfaces.IReactorTime,
    interfaces.IReactorUNIX,
):
    """What the client needs of a reactor."""


Server = Target | interfaces.IStreamClientEndpoint
"""Whom to ask."""

_FAMILIES: Final[dict[int, Any]] = {
    socket.AF_INET: endpoints.TCP4ClientEndpoint,
    socket.AF_INET6: endpoints.TCP6ClientEndpoint,
}

_UNIX_PATH_MAX: Final = (108 if sys.platform == "linux" else 104) - 1
"""Bytes of a UNIX socket's path: what <sys/un.h> has room for, less a zero at the end."""

_TURN: Final = 64
"""Datagrams that are read before the reactor has its turn again."""


class ClientProtocol(Protocol):
    """A protocol that `open_connection` connects; one that is a producer waits for `room`."""

    transport: Any
    room: Deferred[None] | None = None
    """Fires when the transport takes more; None while it does."""

    def writeConnectionLost(self) -> None:
        """Hear, if it is an `IHalfCloseableProtocol`, that our side has been ended."""

    def pauseProducing(self) -> None:
        if self.room is None:
            self.room = Deferred(lambda _: None)

    def resumeProducing(self) -> None:
        room, self.room = self.room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """Hear that no more is taken; `connectionLost` says why."""


@implementer(interfaces.IHalfCloseableProtocol)
class Reader(ClientProtocol):
    """A connection whose input is awaited chunk by chunk, b"" last; then `reason` says why."""

    transport: Any = None
    reason: Failure | None = None

    def __init__(self) -> None:
        self.came: DeferredQueue[bytes] = DeferredQueue()

    def dataReceived(self, data: bytes) -> None:
        self.came.put(data)

    def readConnectionLost(self) -> None:
        """Close our side too: all that will come has come."""
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.came.put(b"")


class TLSClient(Protocol):
    """A TLS connection: the protocol of what is below, the transport of what is above.

    What is above is connected once it is certain who the server is; before that it hears nothing.
    Its connection is lost with `ConnectionDone` only if the server has said so itself, by a
    close_notify, with an `ssl.SSLError` if TLS broke, and else with `ConnectionLost`.

    Args:
        above: what is to be connected.
        context: how to judge the server's certificate.
        host: whose it must be.

    Attributes:
        shaken: fires when the handshake is over; fails if the connection is lost before.
        taken: bytes that came from below, of whole records or not.

    Raises:
        ValueError: no server can have such a name.
    """

    transport: Any

    def __init__(self, above: Protocol, context: ssl.SSLContext, host: str) -> None:
        self.shaken: Deferred[None] = Deferred()
        self.taken = 0
        self._above = above
        # A scope is this machine's alone.
        self._layer = TLSLayer(context, host.partition("%")[0])
        self._error: ssl.SSLError | None = None
        self._server_is_done = self._we_are_done = False

    def connectionMade(self) -> None:
        self.dataReceived(b"")

    def dataReceived(self, data: bytes) -> None:
        self.taken += len(data)
        layer, text = self._layer, list[bytes]()
        agreed = layer.agreed
        try:
            self._server_is_done = layer.receive(data, text) or self._server_is_done
        except ssl.SSLError as error:
            self._error = error
        self.transport.write(layer.outgoing.read())
        if layer.agreed is not agreed:
            self._above.makeConnection(self)
            self.shaken.callback(None)
        if text:
            self._above.dataReceived(b"".join(text))
        if self._error is not None or self._server_is_done:
            self.loseConnection()
            # Invariant: no producer is registered while the transport closes, or it may wait for
            # more output forever.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._error is not None:
            reason = Failure(self._error)
        elif reason.check(twisted_error.ConnectionDone) and not self._server_is_done:
            reason = Failure(CONNECTION_LOST)
        if self._layer.agreed:
            self._above.connectionLost(reason)
        else:
            self.shaken.errback(reason)

    # The rest of a transport.

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        if self._we_are_done:
            return
        try:
            self.transport.write(self._layer.encrypt(data))
        except ssl.SSLError as error:
            self._error = error
            self.abortConnection()

    def loseConnection(self) -> None:
        """Say goodbye, and wait for the server's: what crosses ours is still delivered."""
        if not self._we_are_done:
            self._we_are_done = True
            self.transport.write(self._layer.end_output())

    def abortConnection(self) -> None:
        self._we_are_done = True
        self.transport.abortConnection()


async def open_connection(
    server: Server, protocol: ClientProtocol, reactor: IReactor, peer: Target | None = None
) -> None:
    """Connect a protocol, and with TLS make sure of the server.

    `peer` is the same server at the address that it had last time; it saves the look-up.

    Raises:
        NetworkError: the server cannot be reached or shows no good certificate.
        UserError: the target's TLS cannot be set up, or the system gives no socket.
    """
    if not isinstance(server, Target):
        try:
            await _connect(server, protocol)
        except (twisted_error.ConnectError, twisted_error.DNSLookupError) as error:
            raise NetworkError(f"cannot reach the server: {error}") from error
        return
    if server.udp:
        raise UserError(f"got {server}; a session or an exchange needs TCP")
    if peer is None and (server.family or ":" in server.host):
        # Twisted goes by the address alone; here one of the other family is no address. Nor is one
        # whose scope this machine does not have.
        await addresses_of(server, reactor)
    lowest: ClientProtocol | TLSClient = protocol
    try:
        if server.tls is not None:
            lowest = TLSClient(protocol, server.tls.context(), server.host)
        await _connect(endpoint_for(peer or server, reactor), lowest)
    except (twisted_error.DNSLookupError, ValueError) as error:
        # The system's resolver says what is wrong, which Twisted's failure does not.
        await addresses_of(server, reactor)
        raise explain(socket.gaierror(0, str(error)), server) from error
    except twisted_error.ConnectError as error:
        said = _said_of(error, server)
        raise explain(said, server, CONNECT_TIMEOUT) from said
    if interfaces.ITCPTransport.providedBy(lowest.transport):
        # A line typed must not wait for the acknowledgement of the line before.
        with suppress(OSError):  # what Twisted 24.7 makes of UNIX sockets
            lowest.transport.setTcpNoDelay(True)
    if isinstance(lowest, TLSClient):
        await _shake_hands(server, lowest, reactor)


def _said_of(error: twisted_error.ConnectError, server: Target) -> OSError:
    """Return what the system has said of a connection that could not be made."""
    if isinstance(error, twisted_error.TimeoutError):
        return TimeoutError()
    # Under epoll Twisted has no number for an ICMP that is there at once, as of this machine's own
    # firewall, nor where the queue of a UNIX socket is full.
    unsaid = 0 if server.unix is None else errno.EAGAIN
    number = getattr(error, "osError", None) or unsaid
    # OSError makes the subclass that the number means.
    return OSError(number, os.strerror(number) if number else "refused by a firewall or a router")


async def _connect(endpoint: interfaces.IStreamClientEndpoint, protocol: Protocol) -> None:
    def cancel(_: object) -> None:
        # First: what Twisted makes of it depends on how far it has come.
        connected.errback(CancelledError())
        connecting.cancel()

    def end(result: Any) -> None:
        if not connected.called:
            connected.callback(result)

    connected: Deferred[Any] = Deferred(cancel)
    connecting: Deferred[Any] = endpoints.connectProtocol(endpoint, protocol)
    connecting.addBoth(end)
    transport = (await connected).transport
    if isinstance(protocol, ClientProtocol) and transport.getHost() == transport.getPeer():
        # Where nobody listens, the system may give us that very port, and connect us to ourselves.
        transport.abortConnection()
        raise twisted_error.ConnectionRefusedError(errno.ECONNREFUSED)


async def _shake_hands(server: Target, tls: TLSClient, reactor: IReactor) -> None:
    try:
        await tls.shaken.addTimeout(CONNECT_TIMEOUT, reactor)
    except CancelledError:
        tls.abortConnection()
        raise
    except Silence as error:
        tls.abortConnection()
        raise explain(TimeoutError("handshake"), server, CONNECT_TIMEOUT) from error
    except Exception as error:
        # Nothing was sent that could have been cut short.
        lost = error if isinstance(error, ssl.SSLError) else ConnectionResetError()
        raise explain(lost, server) from error


def endpoint_for(target: Target, reactor: IReactor) -> interfaces.IStreamClientEndpoint:
    """Return the endpoint that a stream target means, without its TLS."""
    if target.unix is not None:
        # Twisted would not notice, and wait for nothing.
        if (length := len(os.fsencode(target.unix))) > _UNIX_PATH_MAX:
            raise UserError(
                f"got a path of {length} bytes for a UNIX socket, which the system limits to "
                f"{_UNIX_PATH_MAX}; change to its folder and name it from there"
            )
        return endpoints.UNIXClientEndpoint(reactor, target.unix, CONNECT_TIMEOUT)
    # A look-up would lose the scope of an address, and take a thread and 0.3 s to be refused.
    literal = ":" in target.host or isIPAddress(target.host)
    family = family_of(target.host) if literal else target.family
    maker = _FAMILIES.get(family, endpoints.HostnameEndpoint)
    return maker(reactor, target.host, target.port, CONNECT_TIMEOUT)  # type: ignore[no-any-return]


def addresses_of(target: Target, reactor: IReactor) -> Deferred[list[Address]]:
    """Look up the addresses of a target, in a thread, since that may take a while."""
    look_up = reachable if target.udp else resolve
    if isIPAddress(target.host) or isIPv6Address(target.host):
        return succeed(look_up(target))
    return deferToThreadPool(reactor, reactor.getThreadPool(), look_up, target)


def explain_loss(server: Target, error: BaseException | None) -> NetworkError | UserError:
    """Return the sentence for a connection that has been lost before its end."""
    if isinstance(error, ssl.SSLError):
        return explain(error, server)
    return explain(ConnectionResetError() if server.tls is None else ssl.SSLEOFError(), server)


@implementer(interfaces.IReadWriteDescriptor)
@dataclass(eq=False)
class DatagramSocket:
    """A target's datagram socket (see `connect_udp`) in the reactor, open until it is closed."""

    reactor: IReactor
    target: Target
    datagrams: socket.socket
    received: Callable[[bytes], None]
    failed: Callable[[Exception], None]
    _open: bool = field(default=True, init=False)
    _go_on: Callable[[], None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.reactor.addReader(self)

    def when_writable(self, go_on: Callable[[], None]) -> None:
        """Call this once, when this host's own queue, which is full, has room again."""
        self._go_on = go_on
        self.reactor.addWriter(self)

    def fileno(self) -> int:
        return self.datagrams.fileno()

    def logPrefix(self) -> str:
        return type(self).__name__

    def doRead(self) -> None:
        for _ in range(_TURN):
            if not self._open:
                return
            try:
                datagram = self.datagrams.recv(UDP_READ_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                self.failed(explain(error, self.target))
                return
            self.received(datagram)

    def doWrite(self) -> None:
        self.reactor.removeWriter(self)
        go_on, self._go_on = self._go_on, None
        if go_on is not None:
            go_on()

    def connectionLost(self, reason: Failure) -> None:
        """Hear of an error under epoll: it drops the descriptor, and the socket says what it is."""
        self.doRead()
        if self._open:
            self.reactor.addReader(self)
            if self._go_on is not None:
                self.reactor.addWriter(self)

    def close(self) -> None:
        """Close the socket; nothing is called any more."""
        if self._open:
            self._open = False
            # Invariant: the reactor lets go first, since a closed socket has no descriptor to name.
            self.reactor.removeReader(self)
            self.reactor.removeWriter(self)
            self.datagrams.close()
