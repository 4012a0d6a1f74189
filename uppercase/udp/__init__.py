"""The UDP shell: sockets, ports and the protocol around a `Responder`."""

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReactorTime, IReactorUDP

from uppercase.core.datagram import Responder
from uppercase.core.values import cannot_listen, printable_address
from uppercase.limits import UDP_READ_SIZE
from uppercase.udp._ports import Port
from uppercase.udp.protocol import ResponderProtocol
from uppercase.udp.sockets import ask_receive_buffer

__all__ = ["Port", "ResponderProtocol", "drain", "serve"]


def serve(reactor: IReactorTime, sock: socket.socket, responder: Responder) -> IListeningPort:
    """Serve a responder on a bound socket, the port's from then on; several may share a responder.

    Raises:
        CannotListen: the address could not be had; nothing is left open.
    """
    protocol = ResponderProtocol(responder, reactor)
    if IReactorFDSet.providedBy(reactor):
        if responder.limits.receive_buffer:
            ask_receive_buffer(sock, responder.limits.receive_buffer)
        port = Port(sock, protocol, reactor)
        port.startListening()
        return port
    # A reactor without file descriptors takes no sockets, and opens its own kind of port.
    host, number = sock.getsockname()[:2]
    sock.close()
    try:
        return IReactorUDP(reactor).listenUDP(number, protocol, host, UDP_READ_SIZE)
    except CannotListenError as error:
        why = error.socketError
        raise cannot_listen("UDP", printable_address(host, number), why) from why


def drain(port: Any) -> Deferred[None]:
    """Read what has reached a port so far, then no more, and answer it.

    Args:
        port: from `serve`.

    Returns:
        What fires when no reply is awaited or held back any more. The port still has to be
        stopped, which calls off whatever is left.
    """
    idle: Callable[[], Deferred[None]] = port.protocol.idle
    return port.read_out().addCallback(lambda _: idle()) if isinstance(port, Port) else idle()
