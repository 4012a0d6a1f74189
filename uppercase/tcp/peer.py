"""Who is on the other side of a connection: what limits and logs go by.

A peer's address comes from `buildProtocol`, as everywhere in Twisted. Behind a proxy it is not
known until the PROXY header has arrived: there an `AwaitedPeer` is passed in its place.
"""

from typing import Any, Protocol

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from uppercase.core.events import Outcome
from uppercase.core.values import printable_address, unmapped

__all__ = ["AwaitedPeer", "Served", "peer_host", "peer_name", "plain_peer"]


class Served(Protocol):
    """A connection as the stages before its framing see it."""

    def identified(self, peer: IAddress) -> None:
        """Take note of the peer's address: it is known now."""

    def fail(self, outcome: Outcome, error: Exception) -> None:
        """Take note of why the connection is about to be closed by a stage before the framing."""


@implementer(IAddress)
class AwaitedPeer:
    """Stands in for the address of a peer who is not known yet.

    Attributes:
        served: whom to tell; set by the connection that was built with this address.
    """

    served: Served | None = None


def plain_peer(address: Any) -> Any:
    """Return a peer's address with an IPv4-mapped one as the IPv4 address that it stands for."""
    host = peer_host(address)
    if host is None or unmapped(host) == host:
        return address
    return IPv4Address("TCP", unmapped(host), address.port)


def peer_host(address: Any) -> str | None:
    """Return a peer's IP address, or None for a peer of a UNIX socket."""
    host: str | None = getattr(address, "host", None)
    return host


def peer_name(address: Any) -> str:
    """Return a peer's address as people write it; those of UNIX sockets have none."""
    host = peer_host(address)
    return "unix" if host is None else printable_address(host, address.port)
