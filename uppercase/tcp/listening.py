"""Where connections come from: sockets of our own, and Twisted's endpoint strings.

The shorthands (`--port`, `--interface`) bind their own sockets, because Twisted's TCP endpoints
leave IPV6_V6ONLY alone, so that `*` could not mean both families. Everything else is Twisted's:
the sockets are adopted through its public endpoint for that.
"""

import os
import re
import socket
from typing import Any, Final

from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.python.failure import Failure

from uppercase.addresses import cannot_listen, family_of, printable_address
from uppercase.errors import BadValue, CannotListen
from uppercase.limits import BACKLOG, MAX_PORT

__all__ = ["bind", "endpoint_of_socket", "endpoint_of_string", "listen_error", "port_name"]

_TAKES_BACKLOG: Final = re.compile(r"(tcp|tcp6|ssl|unix):(?!.*:backlog=)")


def bind(host: str, port: int) -> socket.socket:
    """Give a listening socket, with our backlog, for one family only.

    Raises:
        CannotListen: one sentence with the likely fix.
    """
    skt = None
    try:
        skt = socket.socket(family_of(host), socket.SOCK_STREAM)
        if os.name == "posix":
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if skt.family == socket.AF_INET6:
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        skt.bind((host, port))
        skt.listen(BACKLOG)
        skt.setblocking(False)
    except OSError as error:
        if skt is not None:
            skt.close()
        raise cannot_listen("TCP", printable_address(host, port), error) from error
    return skt


def endpoint_of_socket(reactor: Any, skt: socket.socket) -> IStreamServerEndpoint:
    """Give an endpoint that takes over a listening socket."""
    return AdoptedStreamServerEndpoint(reactor, skt.detach(), skt.family)


def endpoint_of_string(reactor: Any, description: str) -> IStreamServerEndpoint:
    """Give the endpoint that a Twisted endpoint string describes, with our backlog as its default.

    Raises:
        BadValue: the string is not one, in one sentence.
    """
    if _TAKES_BACKLOG.match(description):
        description = f"{description}:backlog={BACKLOG}"
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    # What the parsers of endpoint strings raise for bad ones; systemd's: IndexError and KeyError.
    except (ValueError, TypeError, LookupError, OSError, ImportError) as error:
        raise BadValue(
            f"got {description!r}, which is not an endpoint string ({error}); "
            "accepted are strings such as tcp:12000:interface=127.0.0.1 or unix:/run/uppercase"
        ) from error
    return endpoint


def listen_error(description: str, failure: Failure) -> CannotListen:
    """Say in one sentence why an endpoint could not listen."""
    error = failure.value
    if isinstance(error, CannotListen):
        return error
    if isinstance(error, CannotListenError):
        address = printable_address(error.interface or "0.0.0.0", error.port)
        if isinstance(error.socketError, OSError):
            if not isinstance(error.port, int):
                return cannot_listen("UNIX", str(error.port), error.socketError)
            return cannot_listen("TCP", address, error.socketError)
    if isinstance(error, OverflowError):
        return CannotListen(
            f"cannot listen on {description}: a port is a whole number from 0 to {MAX_PORT}"
        )
    return CannotListen(f"cannot listen on {description}: {error}")


def port_name(port: IListeningPort) -> str:
    """Give what the ready line calls a listening port: `TCP 127.0.0.1:12000`, `UNIX /run/x`."""
    address: Any = port.getHost()
    if hasattr(address, "host"):
        return f"TCP {printable_address(address.host, address.port)}"
    name = address.name
    return f"UNIX {os.fsdecode(name) if isinstance(name, bytes) else name}"
