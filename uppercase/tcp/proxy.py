"""The stage that reads PROXY headers: before TLS and framing, and only from declared proxies.

Anybody could send a header; whoever is not declared is cut off before a byte of theirs is looked
at, and whoever is declared must send one (the protocol forbids to guess). What is served has the
connection's own transport: this stage stays in the way of input alone, and hands on half-closes.
"""

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.events import Outcome, RefusalReason
from uppercase.core.proxy_header import ProxyHeader, parse_proxy_header
from uppercase.core.values import DeclaredPeers
from uppercase.errors import ProxyHeaderError
from uppercase.tcp.factory import TransformFactory
from uppercase.tcp.peer import AwaitedPeer, peer_host

__all__ = ["ProxyHeaderFactory", "ProxyHeaderProtocol"]


@implementer(IHalfCloseableProtocol)
class ProxyHeaderProtocol(Protocol):
    """Reads one connection's header, then hands everything on.

    Args:
        factory: knows the bounds.
        peer: what the wrapped protocol was built with.
        wrapped: serves the connection; it is connected at once, so that it counts and is drained
            like any other, and gets input once the header has told who is calling.
    """

    transport: Any

    def __init__(
        self, factory: "ProxyHeaderFactory", peer: AwaitedPeer, wrapped: IProtocol
    ) -> None:
        self._factory = factory
        self._peer = peer
        self._wrapped = wrapped
        self._buffer: bytearray | None = bytearray()
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Wait for the header."""
        served = self._factory.served
        self._deadline = served.clock.callLater(served.limits.proxy_timeout, self._too_late)
        self._wrapped.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Look for the header's end; what is behind it is the client's."""
        if self._buffer is None:
            self._wrapped.dataReceived(data)
            return
        self._buffer += data
        received = bytes(self._buffer)
        try:
            header = parse_proxy_header(received)
        except ProxyHeaderError as error:
            self._refuse(error)
            return
        if header is not None:
            self._begin(header, received[header.length :])

    def readConnectionLost(self) -> None:
        """The other side has ended its output."""
        if self._buffer is None and IHalfCloseableProtocol.providedBy(self._wrapped):
            self._wrapped.readConnectionLost()
            return
        if self._buffer:
            self._refuse(ProxyHeaderError("got the end of input within the PROXY header"))
        # Without a byte it is what a check for an open port looks like; nothing is owed.
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """All of our output is with the kernel."""
        if IHalfCloseableProtocol.providedBy(self._wrapped):
            self._wrapped.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._stop_waiting()
        self._wrapped.connectionLost(reason)

    def _begin(self, header: ProxyHeader, rest: bytes) -> None:
        self._stop_waiting()
        self._buffer = None
        if self._peer.served is not None:
            self._peer.served.identified(_address_of(header) or self.transport.getPeer())
        if rest:
            self._wrapped.dataReceived(rest)

    def _too_late(self) -> None:
        seconds = self._factory.served.limits.proxy_timeout
        self._refuse(
            ProxyHeaderError(f"got no PROXY header within {seconds:g} s (--proxy-timeout)")
        )

    def _refuse(self, error: ProxyHeaderError) -> None:
        if self._peer.served is not None:
            self._peer.served.fail(Outcome.PROXY_HEADER, error)
        self.transport.abortConnection()

    def _stop_waiting(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()


class _Undeclared(Protocol):
    """Closes a connection at once, unread."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.abortConnection()


class ProxyHeaderFactory(ServerFactory):
    """Puts the stage in front of another factory's protocols.

    Args:
        proxies: who must send a header.
        wrapped: the next stage.
        served: the last one: it knows the bounds and whom to tell.
    """

    noisy = False

    def __init__(
        self, proxies: DeclaredPeers, wrapped: IProtocolFactory, served: TransformFactory
    ) -> None:
        self.served = served
        self._proxies = proxies
        self._wrapped = wrapped

    def doStart(self) -> None:
        """Start the next stage too."""
        self._wrapped.doStart()
        super().doStart()

    def doStop(self) -> None:
        """Stop the next stage too."""
        self._wrapped.doStop()
        super().doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Make a connection's stage, or refuse it for where it comes from."""
        host = peer_host(addr)
        if not self._proxies.include(host) or (host is None and not isinstance(addr, UNIXAddress)):
            self.served.refused(
                addr,
                RefusalReason.UNDECLARED,
                "it is none of the proxies that --proxy-from names, and only those are served",
            )
            return _Undeclared()
        peer = AwaitedPeer()
        wrapped = self._wrapped.buildProtocol(peer)
        # Ours never refuse by None, which would leave the connection open and unserved.
        assert wrapped is not None
        return ProxyHeaderProtocol(self, peer, wrapped)


def _address_of(header: ProxyHeader) -> IAddress | None:
    if header.source is None:
        return None
    host, port = header.source
    kind = IPv6Address if ":" in host else IPv4Address
    address: IAddress = kind("TCP", host, port)
    return address
