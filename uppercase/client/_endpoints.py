"""A target as one of Twisted's client endpoints, and Twisted's failures as our sentences."""

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import endpoints, interfaces
from twisted.internet import error as twisted_error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from uppercase.client.target import (
    TLS,
    Address,
    Target,
    explain,
    reachable,
    refuse_more_files,
    resolve,
)
from uppercase.errors import NetworkError, UserError, install
from uppercase.limits import CONNECT_TIMEOUT

if TYPE_CHECKING:
    from uppercase.client._tls_trust import Trust


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


class Conversation(TimeoutMixin, Protocol):
    """A protocol that `open_connection` connects; subclasses have `lost` for `connectionLost`.

    What only some of them need to hear of their transport they may leave out. Those that time
    something out have a `clock`.
    """

    transport: Any
    clock: interfaces.IReactorTime
    shaking_hands: "Deferred[None] | None" = None
    """Fires when TLS has made sure of the server; None without TLS, and when that is over."""

    def callLater(self, period: float, func: Callable[[], None]) -> interfaces.IDelayedCall:  # noqa: N802
        return self.clock.callLater(period, func)

    def handshakeCompleted(self) -> None:
        """Begin: the server's certificate is good."""
        waiting, self.shaking_hands = self.shaking_hands, None
        if waiting is not None:
            waiting.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever waits for the handshake, and otherwise the subclass."""
        waiting, self.shaking_hands = self.shaking_hands, None
        if waiting is None:
            self.lost(reason)
        else:
            waiting.errback(reason)

    def lost(self, reason: Failure) -> None:
        """Hear that an open conversation has ended."""

    def writeConnectionLost(self) -> None:
        """Hear, if it is an `IHalfCloseableProtocol`, that our side has been ended."""

    def stopProducing(self) -> None:
        """Hear, if it is the transport's producer, that no more is taken; `lost` says why."""


def name_of(server: Server) -> str:
    return str(server) if isinstance(server, Target) else "the server"


async def open_connection(
    server: Server, protocol: Conversation, reactor: IReactor, peer: Target | None = None
) -> None:
    """Connect a protocol, and with TLS make sure of the server.

    `peer` is the same server by the address that it had the last time; it saves the look-up.

    Raises:
        NetworkError: the server cannot be reached or shows no certificate that is good.
        UserError: the target's TLS cannot be had, or the system gives no socket.
    """
    if not isinstance(server, Target):
        try:
            await endpoints.connectProtocol(server, protocol)
        except (twisted_error.ConnectError, twisted_error.DNSLookupError) as error:
            raise NetworkError(f"cannot reach the server: {error}") from error
        return
    trust = None if server.tls is None else _trust(server.host, server.tls)
    endpoint = endpoint_for(peer or server, reactor)
    if trust is not None:
        endpoint = endpoints.wrapClientTLS(trust, endpoint)
        # Invariant: not for plain TCP, where Twisted's endpoints forget that a protocol hears of
        # half-closes as soon as it hears of handshakes too.
        alsoProvides(protocol, interfaces.IHandshakeListener)
        protocol.shaking_hands = Deferred()
    try:
        await endpoints.connectProtocol(endpoint, protocol)
    except (twisted_error.DNSLookupError, ValueError) as error:
        # The system's resolver says what is wrong, which Twisted's failure does not.
        await addresses_of(server, reactor)
        raise explain(socket.gaierror(0, str(error)), server) from error
    except twisted_error.ConnectError as error:
        failure = _as_os_error(error)
        refuse_more_files(failure)
        raise explain(failure, server, CONNECT_TIMEOUT) from error
    if interfaces.ITCPTransport.providedBy(protocol.transport):
        # A line typed must not wait for the acknowledgement of the line before.
        with suppress(OSError):  # what Twisted 24.7 makes of UNIX sockets
            protocol.transport.setTcpNoDelay(True)
    if trust is not None and protocol.shaking_hands is not None:
        await _shake_hands(server, protocol, trust, reactor)


async def _shake_hands(
    server: Target, protocol: Conversation, trust: "Trust", reactor: IReactor
) -> None:
    shaken = protocol.shaking_hands
    assert shaken is not None
    too_long = reactor.callLater(CONNECT_TIMEOUT, protocol.transport.abortConnection)
    try:
        await shaken
        # Invariant: nothing has been sent or taken yet, this goes on inside `handshakeCompleted`.
        if not trust.name_fits():
            protocol.shaking_hands = shaken = Deferred()
            protocol.transport.abortConnection()
            await shaken
    except CancelledError:
        protocol.transport.abortConnection()
        raise
    except Exception as error:
        failure = trust.as_ssl_error(error) if too_long.active() else TimeoutError()
        raise explain(failure, server, CONNECT_TIMEOUT) from error
    finally:
        if too_long.active():
            too_long.cancel()


def endpoint_for(target: Target, reactor: IReactor) -> interfaces.IStreamClientEndpoint:
    """Return the endpoint that a stream target means, without its TLS."""
    if target.unix is not None:
        return endpoints.UNIXClientEndpoint(reactor, target.unix, CONNECT_TIMEOUT)
    maker = _FAMILIES.get(target.family, endpoints.HostnameEndpoint)
    return maker(reactor, target.host, target.port, CONNECT_TIMEOUT)  # type: ignore[no-any-return]


def addresses_of(target: Target, reactor: IReactor) -> Deferred[list[Address]]:
    """Look the addresses of a target up as `reachable`, for datagrams, and `resolve` do.

    In a thread, since that may take its time.
    """
    look_up = reachable if target.udp else resolve
    if isIPAddress(target.host) or isIPv6Address(target.host):
        return succeed(look_up(target))
    return deferToThreadPool(reactor, reactor.getThreadPool(), look_up, target)


def at_peer(target: Target, address: Any) -> Target:
    """Return the target by the address that its connection has led to."""
    if target.unix is not None:
        return target
    # The family spares it Twisted's search among addresses, which takes 0.3 s to be refused.
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return replace(target, host=address.host, family=family)


def _as_os_error(error: twisted_error.ConnectError) -> OSError:
    if isinstance(error, twisted_error.TimeoutError):
        return TimeoutError()
    # OSError makes the subclass that the number means.
    return OSError(getattr(error, "osError", None) or 0, str(error))


def explain_loss(server: Target, reason: Failure) -> NetworkError:
    """Return the sentence for a connection that has been lost in the middle of a conversation."""
    if server.tls is not None:
        return explain(_trust(server.host, TLS(verify=False)).as_ssl_error(reason.value), server)
    return explain(ConnectionResetError(), server)


def _trust(host: str, tls: TLS) -> "Trust":
    """Return what makes TLS connections that judge certificates as told."""
    try:
        from uppercase.client._tls_trust import Trust
    except ImportError as error:
        raise UserError(f"TLS needs pyOpenSSL; try: {install('tls')}") from error
    return Trust(host, tls)
