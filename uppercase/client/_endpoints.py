"""A target as one of Twisted's client endpoints, and Twisted's failures as our sentences."""

import socket
from typing import Any

from twisted.internet import error as twisted_error
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.internet.protocol import Protocol

from uppercase.client.connecting import explain
from uppercase.client.target import TLS, Target
from uppercase.errors import NetworkError, UserError
from uppercase.limits import CONNECT_TIMEOUT

__all__ = ["Server", "endpoint_for", "name_of", "open_connection"]

Server = Target | IStreamClientEndpoint
"""Whom to ask."""


def name_of(server: Server) -> str:
    """Return what messages call the server."""
    return str(server) if isinstance(server, Target) else "the server"


async def open_connection(server: Server, protocol: Protocol, reactor: Any) -> None:
    """Connect a protocol.

    Raises:
        NetworkError: the server cannot be reached.
        UserError: the target's TLS cannot be had.
    """
    if isinstance(server, Target):
        try:
            await connectProtocol(endpoint_for(server, reactor), protocol)
        except (twisted_error.ConnectError, twisted_error.DNSLookupError) as error:
            raise explain(_as_os_error(error), server, CONNECT_TIMEOUT) from error
    else:
        try:
            await connectProtocol(server, protocol)
        except (twisted_error.ConnectError, twisted_error.DNSLookupError) as error:
            raise NetworkError(f"cannot reach the server: {error}") from error


def endpoint_for(target: Target, reactor: Any) -> IStreamClientEndpoint:
    """Return the endpoint that a stream target means.

    Raises:
        UserError: its TLS cannot be had.
    """
    if target.unix is not None:
        return UNIXClientEndpoint(reactor, target.unix, CONNECT_TIMEOUT)
    makers: dict[int, Any] = {
        socket.AF_INET: TCP4ClientEndpoint,
        socket.AF_INET6: TCP6ClientEndpoint,
    }
    maker = makers.get(target.family, HostnameEndpoint)
    plain: IStreamClientEndpoint = maker(reactor, target.host, target.port, CONNECT_TIMEOUT)
    if target.tls is None:
        return plain
    return wrapClientTLS(_connection_creator(target.host, target.tls), plain)


def _as_os_error(error: Exception) -> OSError:
    """Return what a socket would have raised."""
    if isinstance(error, twisted_error.DNSLookupError):
        return socket.gaierror(0, str(error))
    if isinstance(error, twisted_error.TimeoutError):
        return TimeoutError()
    # OSError makes the subclass that the number means.
    return OSError(getattr(error, "osError", None) or 0, str(error))


def _connection_creator(host: str, tls: TLS) -> IOpenSSLClientConnectionCreator:
    """Return what makes TLS connections that judge certificates as told."""
    try:
        from uppercase.client._tls_trust import TrustAnybody, client_options
    except ImportError as error:
        raise UserError("TLS needs pyOpenSSL; try: pip install 'uppercase[tls]'") from error
    return client_options(host, tls.ca) if tls.verify else TrustAnybody()
