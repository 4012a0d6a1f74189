"""The stage that reads PROXY headers: before TLS and framing, and only from declared proxies.

Anybody could send a header. A peer that is not declared is cut off before we look at a byte of it,
and one that is declared must send one (the protocol forbids guessing). What is above is connected
at once, so that it counts and is drained like any other connection; it gets input once the header
has told who is calling.
"""

from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from uppercase.core.events import Outcome, RefusalReason, Refused
from uppercase.core.proxy_header import ProxyHeader, parse_proxy_header
from uppercase.core.values import DeclaredPeers
from uppercase.errors import ProxyHeaderError
from uppercase.tcp._closing import IUnidentified, known_as
from uppercase.tcp.factory import ConnectionStage, StageFactory, TransformFactory


@implementer(IHalfCloseableProtocol, IUnidentified)
class ProxyHeaderProtocol(ConnectionStage):
    """Reads one connection's header, then hands everything on.

    It is the transport of what is above, which learns by `getPeer` who is calling.

    Args:
        wrapped: serves the connection, or is the TLS before what does.
    """

    def __init__(self, factory: Any, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        # The part of the header that has come; None once it is complete.
        self._buffer: bytearray | None = bytearray()
        self._source: IAddress | None = None

    def getPeer(self) -> IAddress:
        """Return whom the header names; before that, and where it names nobody, the proxy."""
        return cast(IAddress, self._source or self.transport.getPeer())

    def dataReceived(self, data: bytes) -> None:
        """Look for the header's end; what follows it is the client's."""
        if self._buffer is None:
            self.wrappedProtocol.dataReceived(data)
            return
        self._buffer += data
        received = bytes(self._buffer)
        try:
            header = parse_proxy_header(received)
        except ProxyHeaderError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self.done()
            self._buffer, self._source = None, _address_of(header)
            self.wrappedProtocol.identified()
            if rest := received[header.length :]:
                self.wrappedProtocol.dataReceived(rest)

    def readConnectionLost(self) -> None:
        if self._buffer is None:
            self.wrappedProtocol.readConnectionLost()
            return
        if self._buffer:
            self._refuse("got the end of input within the PROXY header")
        # Without a byte it was a check for an open port; nothing is owed.
        self.transport.loseConnection()

    def too_late(self) -> None:
        self._refuse(f"got no PROXY header within {self.factory.seconds:g} s (--proxy-timeout)")

    def _refuse(self, why: str) -> None:
        self.wrappedProtocol.end_with(Outcome.PROXY_HEADER, why)
        self.transport.abortConnection()


class _Undeclared(Protocol):
    """Closes a connection at once, unread."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.abortConnection()


class ProxyHeaderFactory(StageFactory):
    """Puts the stage before those that the declared proxies connect."""

    protocol = ProxyHeaderProtocol

    def __init__(
        self, proxies: DeclaredPeers, wrapped: IProtocolFactory, served: TransformFactory
    ) -> None:
        super().__init__(wrapped, served, served.limits.proxy_timeout)
        self._proxies = proxies

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make a connection's stage, or refuse it for where it comes from."""
        host: str | None = getattr(addr, "host", None)
        known = host is not None or isinstance(addr, UNIXAddress)
        if not (known and self._proxies.include(host)):
            why = "it is not one of the proxies that --proxy-from names, and only those are served"
            self.served.tell(Refused(known_as(addr)[0], RefusalReason.UNDECLARED, why))
            return _Undeclared()
        # Invariant: what is wrapped is a protocol. Ours never refuse by None, which a wrapper would
        # leave open and unserved.
        return super().buildProtocol(addr)


def _address_of(header: ProxyHeader) -> IAddress | None:
    if header.source is None:
        return None
    host, port = header.source
    kind = IPv6Address if ":" in host else IPv4Address
    return cast(IAddress, kind("TCP", host, port))
