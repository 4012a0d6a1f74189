"""A target in Twisted's reactor: an endpoint for streams, sockets of ours for datagrams.

Twisted's failures become our sentences. Every message over UDP has a socket of its own, unless one
is wanted for all, connected to the server from a port that no recent message had. So the kernel
keeps out what others send, and a late duplicate of one reply finds its port closed instead of
passing for the reply to another message. Twisted's own UDP ports close without a word under epoll
when a connected one is refused (its issues 5377 and 6287), so the sockets are readers of our own.
"""

import errno
import os
import socket
import ssl
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final, cast

from twisted.internet import endpoints, interfaces
from twisted.internet import error as twisted_error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue, succeed
from twisted.internet.defer import TimeoutError as Silence
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.client._tls import TLSClient
from uppercase.client.target import Address, Target, connect_udp, explain, reachable, resolve
from uppercase.core.values import counted, family_of
from uppercase.errors import ConnectionRefused, NetworkError, NoReply, UserError
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

_MAX_TIMEOUT: Final = 60.0
"""No repetition waits longer (RFC 6298 section 2.5)."""

PORT_MEMORY: Final = 4096
"""A source port is not used again for this many requests, lest a late duplicate of one reply be
taken for another. A seventh of Linux's ephemeral ports, so a fresh one is quickly found."""

_PORT_TRIES: Final = 64
"""This many used ports in a row mean that the system has hardly any others; otherwise the chance of
it is below 1e-30."""

_UNIX_PATH_MAX: Final = (108 if sys.platform == "linux" else 104) - 1
"""Bytes of a UNIX socket's path: what <sys/un.h> has room for, less a zero at the end."""

_TURN: Final = 64
"""Datagrams that are read before the reactor has its turn again."""


class ClientProtocol(TimeoutMixin, Protocol):
    """A protocol that `open_connection` connects.

    Those that time something out have a `clock`; those that are a producer wait for `room`.
    """

    transport: Any
    clock: interfaces.IReactorTime
    room: Deferred[None] | None = None
    """Fires when the transport takes more; None while it does."""

    def callLater(self, period: float, func: Callable[[], None]) -> interfaces.IDelayedCall:  # noqa: N802
        return self.clock.callLater(period, func)

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
        # OSError makes the subclass that the number means.
        said = OSError(getattr(error, "osError", None) or 0, str(error))
        silent = isinstance(error, twisted_error.TimeoutError)
        raise explain(TimeoutError() if silent else said, server, CONNECT_TIMEOUT) from error
    if interfaces.ITCPTransport.providedBy(lowest.transport):
        # A line typed must not wait for the acknowledgement of the line before.
        with suppress(OSError):  # what Twisted 24.7 makes of UNIX sockets
            lowest.transport.setTcpNoDelay(True)
    if isinstance(lowest, TLSClient):
        await _shake_hands(server, lowest, reactor)


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
    await connected


async def _shake_hands(server: Target, tls: TLSClient, reactor: IReactor) -> None:
    try:
        await tls.shaken.addTimeout(CONNECT_TIMEOUT, reactor)
    except CancelledError:
        tls.abortConnection()
        raise
    except Silence as error:
        tls.abortConnection()
        raise explain(TimeoutError(), server, CONNECT_TIMEOUT) from error
    except Exception as error:
        raise explain_loss(server, error) from error


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
    maker = _FAMILIES.get(target.family, endpoints.HostnameEndpoint)
    return maker(reactor, target.host, target.port, CONNECT_TIMEOUT)  # type: ignore[no-any-return]


def addresses_of(target: Target, reactor: IReactor) -> Deferred[list[Address]]:
    """Look up the addresses of a target, in a thread, since that may take a while."""
    look_up = reachable if target.udp else resolve
    if isIPAddress(target.host) or isIPv6Address(target.host):
        return succeed(look_up(target))
    return deferToThreadPool(reactor, reactor.getThreadPool(), look_up, target)


def at_peer(target: Target, address: Any) -> Target:
    """Return the target by the address that its connection has led to."""
    if target.unix is not None:
        return target
    # The family spares it Twisted's search among addresses, which takes 0.3 s to be refused.
    return replace(target, host=address.host, family=family_of(address.host))


def explain_loss(server: Target, error: BaseException | None) -> NetworkError | UserError:
    """Return the sentence for a connection that has been lost before its end."""
    if isinstance(error, ssl.SSLError):
        return explain(error, server)
    return explain(ConnectionResetError() if server.tls is None else ssl.SSLEOFError(), server)


def backoff(timeout: float, attempt: int) -> float:
    """Return the seconds to wait after an attempt: `timeout` first, then twice as long each."""
    # A power beyond any time-out would overflow.
    return max(timeout, min(timeout * 2.0 ** min(attempt - 1, 64), _MAX_TIMEOUT))


@implementer(interfaces.IReadWriteDescriptor)
@dataclass(eq=False)
class DatagramSocket:
    """A connected datagram socket (see `connect_udp`) in the reactor, open until it is closed."""

    reactor: IReactor
    datagrams: socket.socket
    received: Callable[[bytes], None]
    failed: Callable[[OSError], None]
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
                self.failed(error)
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


@dataclass(eq=False)
class Datagrams:
    """Asks a datagram server, any number of messages at a time, or one with `one_socket`.

    If its first address refuses before there was any reply, the next one is asked. `timeout` is for
    the first datagram of a message; each repetition waits twice as long.
    """

    reactor: IReactor
    target: Target
    addresses: list[Address]
    timeout: float
    retries: int
    one_socket: bool = False
    _answered: bool = field(default=False, init=False)
    _shared: dict[Address, socket.socket] = field(default_factory=dict, init=False)
    _under_way: set[DeferredQueue[Any]] = field(default_factory=set, init=False)
    _recent_ports: OrderedDict[int, None] = field(default_factory=OrderedDict, init=False)

    async def ask(
        self, message: bytes, again: Callable[[str], None] = lambda attempt: None
    ) -> bytes:
        """Return the reply to a message; `again` is told of each further attempt, in words."""
        while True:
            address = self.addresses[0]
            try:
                reply = await self._ask(address, message, again)
            except ConnectionRefused as error:
                if address is self.addresses[0]:
                    self._refused(error)
            else:
                self._answered = True
                return reply

    async def _ask(self, address: Address, message: bytes, again: Callable[[str], None]) -> bytes:
        """Ask one address, again and again, until there is a reply or no more patience."""
        came: DeferredQueue[Any] = DeferredQueue()

        def failed(error: OSError) -> None:
            came.put(Failure(explain(error, self.target)))

        datagrams = self._share_socket(address) if self.one_socket else self._open_socket(address)
        port = DatagramSocket(self.reactor, datagrams, came.put, failed)
        self._under_way.add(came)
        most = self.retries + 1
        try:
            for attempt in range(1, most + 1):
                if attempt > 1:
                    again(f"attempt {attempt} of {most}")
                self._send(datagrams, message)
                wait = backoff(self.timeout, attempt)
                try:
                    return cast(bytes, await came.get().addTimeout(wait, self.reactor))
                except Silence:
                    # When the program was held up, timers run before sockets: it may have come.
                    port.doRead()
                    if came.pending:
                        return cast(bytes, await came.get())
        finally:
            self._under_way.discard(came)
            port.close()
        attempts = counted(most, "attempt")
        raise NoReply(f"{self.target} did not reply to {attempts}")

    def _send(self, datagrams: socket.socket, message: bytes) -> None:
        """Send a datagram; no room in the kernel is a loss like any other."""
        try:
            datagrams.send(message)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                sentence = f"got {len(message)} bytes, too many for a datagram; use TCP"
                raise UserError(sentence) from error
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                raise explain(error, self.target) from error

    def close(self) -> None:
        self._give_up(CancelledError())
        while self._shared:
            self._shared.popitem()[1].close()

    def _give_up(self, error: Exception) -> None:
        for came in list(self._under_way):
            came.put(Failure(error))

    def _refused(self, error: NetworkError) -> None:
        """Go on to the next address with all that is under way, or give all of it up."""
        last = self._answered or len(self.addresses) == 1
        if not last:
            self.addresses = self.addresses[1:]
        self._give_up(error)
        if last:
            raise error

    def _share_socket(self, address: Address) -> socket.socket:
        """Return a duplicate of the one socket, for one request to close."""
        if address not in self._shared:
            self._shared[address] = connect_udp(self.target, address)
        shared = self._shared[address]
        # What comes late must not pass for the next reply; a refusal is heard again.
        with suppress(OSError):
            while True:
                shared.recv(UDP_READ_SIZE)
        return shared.dup()

    def _open_socket(self, address: Address) -> socket.socket:
        """Open a socket whose port no recent message had."""
        for refused in count(1):
            fresh = connect_udp(self.target, address)
            port = fresh.getsockname()[1]
            if port not in self._recent_ports:
                break
            fresh.close()
            # Remember less where the system has few ports to give.
            if refused % _PORT_TRIES == 0:
                self._recent_ports.popitem(last=False)
        self._recent_ports[port] = None
        if len(self._recent_ports) > PORT_MEMORY:
            self._recent_ports.popitem(last=False)
        return fresh
