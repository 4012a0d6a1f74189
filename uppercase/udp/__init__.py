"""The UDP shell: sockets, ports, endpoints and the protocol around a `Responder`."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorTime

from uppercase.core.datagram import Responder
from uppercase.udp._endpoints import (
    AdoptedUDPEndpoint,
    IDatagramEndpoint,
    UDPEndpoint,
    datagram_endpoint_from_string,
)
from uppercase.udp.ports import Port
from uppercase.udp.protocol import ResponderProtocol

__all__ = [
    "AdoptedUDPEndpoint",
    "IDatagramEndpoint",
    "Port",
    "ResponderProtocol",
    "UDPEndpoint",
    "datagram_endpoint_from_string",
    "drain",
    "listen",
]


def listen(
    reactor: IReactorTime, endpoint: IDatagramEndpoint, responder: Responder
) -> IListeningPort:
    """Serve a responder on an endpoint; several endpoints may share one responder.

    Raises:
        CannotListen: the address could not be had; nothing is left open.
    """
    port = endpoint.listen(ResponderProtocol(responder, reactor))
    wanted = responder.limits.receive_buffer
    if isinstance(port, Port) and wanted:
        port.ask_receive_buffer(wanted)
    return port


def drain(port: Any) -> Deferred[None]:
    """Read what has reached a port so far, then no more, and answer it.

    Args:
        port: from `listen`.

    Returns:
        What fires when no reply is awaited or held back any more. The port still has to be
        stopped, which calls off whatever is left.
    """
    idle: Callable[[], Deferred[None]] = port.protocol.idle
    return port.read_out().addCallback(lambda _: idle()) if isinstance(port, Port) else idle()
