"""Which server is meant: an address as people write it, the environment, and what is left out.

Nothing here touches the network; `uppercase.client.connecting` does.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from uppercase.core.values import parse_port
from uppercase.errors import BadValue
from uppercase.limits import DEFAULT_HOST, DEFAULT_PORT, MAX_PORT

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "UPPERCASE_HOST": f"The server's host where none is given, instead of {DEFAULT_HOST}.",
        "UPPERCASE_PORT": f"The server's port where none is given, instead of {DEFAULT_PORT}.",
    }
)
"""The environment variables that name a server, and what each is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How a server's certificate is judged.

    Attributes:
        ca: a PEM file of the authorities to trust; without it the system's are trusted.
        verify: whether the certificate and its name are checked at all.
    """

    ca: str | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """The server to talk to.

    Attributes:
        host: a name or an address.
        port: 1 to 65535.
        udp: whether datagrams are sent; else it is a stream.
        tls: how to judge the certificate, or None for no TLS.
        unix: the path of a Unix stream socket; host and port then mean nothing.
        family: `AF_INET` or `AF_INET6` to use one family only.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    udp: bool = False
    tls: TLS | None = None
    unix: str | None = None
    family: socket.AddressFamily = socket.AF_UNSPEC

    def __str__(self) -> str:
        if self.unix is not None:
            return f"Unix socket {self.unix}"
        protocol = "UDP" if self.udp else "TLS" if self.tls else "TCP"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{protocol} {host}:{self.port}"


def parse_target(
    text: str | None,
    *,
    udp: bool = False,
    tls: TLS | None = None,
    unix: str | None = None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """Return the target that an address on the command line and the environment name.

    Args:
        text: `HOST`, `HOST:PORT`, `:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address. What it
            leaves out comes from `UPPERCASE_HOST` and `UPPERCASE_PORT`, else from the defaults.
        udp: see `Target`, as for the other arguments.
        tls: as above.
        unix: as above.
        family: as above.
        environment: the environment variables.

    Raises:
        BadValue: the address or the environment cannot be used.
    """
    host, port = _split(text or "")
    if not host:
        host = environment.get("UPPERCASE_HOST") or DEFAULT_HOST
    if port:
        number = _parse_port(port, "the port")
    elif environment.get("UPPERCASE_PORT"):
        number = _parse_port(environment["UPPERCASE_PORT"], "UPPERCASE_PORT")
    else:
        number = DEFAULT_PORT
    return Target(host, number, udp, tls, unix, family)


def _split(text: str) -> tuple[str, str]:
    """Return host and port, each "" where it is left out."""
    head, bracket, rest = text.partition("]")
    if bracket and head.startswith("[") and (not rest or rest[0] == ":"):
        host, colon, port = head[1:], rest[:1], rest[1:]
    elif text.count(":") > 1 and not bracket:
        host, colon, port = text, "", ""
    else:
        host, colon, port = text.partition(":")
    if set("[] ") & set(host) or (colon and not port):
        raise BadValue(
            f"got the address {text!r}; accepted are HOST, HOST:PORT, :PORT and [IPV6]:PORT"
        )
    return host, port


def _parse_port(text: str, what: str) -> int:
    try:
        port = parse_port(text)
    except BadValue:
        port = 0
    if not port:
        raise BadValue(f"got {text!r} for {what}; a whole number from 1 to {MAX_PORT} is accepted")
    return port
