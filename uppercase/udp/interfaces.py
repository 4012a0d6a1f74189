"""What datagram transports, protocols and endpoints owe each other, where Twisted has no word yet.

This module declares; it must not implement.
"""

from collections.abc import Sequence

from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import AbstractDatagramProtocol
from zope.interface import Interface

from uppercase.core.datagram import Answer, Datagram

__all__ = ["IBatchProtocol", "IBatchTransport", "IDatagramEndpoint"]


class IBatchTransport(Interface):
    """A datagram transport that sends replies together."""

    def send_batch(answers: Sequence[Answer]) -> Sequence[tuple[Answer, OSError]]:
        """Send each reply, at once or not at all; return those that the system refused, and why."""


class IBatchProtocol(Interface):
    """A datagram protocol that is given all that one wake-up brought."""

    def receive_batch(batch: Sequence[Datagram]) -> None:
        """Take datagrams in the order of their arrival."""


class IDatagramEndpoint(Interface):
    """An address on which datagrams can be received, as `IStreamServerEndpoint` is for streams.

    Binding a datagram socket never waits, so `listen` gives the port rather than a Deferred of
    it: a service that is about to drop its privileges knows at once whether it has its address.
    """

    def listen(protocol: AbstractDatagramProtocol) -> IListeningPort:
        """Serve a protocol on this address.

        Raises:
            uppercase.errors.CannotListen: the address could not be had; nothing is left open.
        """
