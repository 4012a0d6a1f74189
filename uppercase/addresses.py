"""Where services listen, as people write it and as sockets need it.

The shorthands of the command line (`--port`, `--interface`) become hosts here, and a failure to
listen becomes one sentence. This module opens no socket and never imports Twisted.
"""

import errno
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from uppercase.errors import BadValue, CannotListen

__all__ = [
    "LOOPBACK",
    "address_is_missing",
    "cannot_listen",
    "family_of",
    "hosts_of",
    "in_use",
    "printable_address",
]

LOOPBACK: Final = ("127.0.0.1", "::1")
"""Where a service listens unless told otherwise."""

EVERYWHERE: Final = ("0.0.0.0", "::")


def hosts_of(interfaces: Iterable[str]) -> tuple[str, ...]:
    """Give the addresses to listen on, each once, in the order given.

    Args:
        interfaces: IP addresses, `localhost` (loopback) or `*` (every address), the latter two in
            both families.

    Raises:
        BadValue: one of them is none of these.
    """
    hosts: dict[str, None] = {}
    for interface in interfaces:
        if interface == "*":
            hosts.update(dict.fromkeys(EVERYWHERE))
        elif interface == "localhost":
            hosts.update(dict.fromkeys(LOOPBACK))
        else:
            hosts[_checked(interface)] = None
    return tuple(hosts)


def _checked(interface: str) -> str:
    host = interface.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
    except ValueError:
        raise BadValue(
            f"got {interface!r}; an interface is an IP address of this machine such as 127.0.0.1 "
            "or ::1, or * for every address"
        ) from None
    return host


def family_of(host: str) -> socket.AddressFamily:
    """Give the address family of an IP address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def printable_address(host: str, port: int) -> str:
    """Give an address as people write it: `127.0.0.1:12000`, `[::1]:12000`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(protocol: str, address: str, error: OSError) -> CannotListen:
    """Say in one sentence why an address could not be had, and what helps.

    Args:
        protocol: `TCP`, `UDP` or `UNIX`.
        address: as printed.
        error: what the system said.
    """
    got = f"cannot listen on {protocol} {address}: "
    match error.errno:
        case errno.EADDRINUSE:
            why = "another program does already; stop it or choose another --port"
        case errno.EACCES | errno.EPERM:
            why = "permission denied; ports below 1024 need privileges, choose another --port"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            why = "this machine has no such address; choose another --interface"
        case _:
            why = error.strerror or str(error)
    return CannotListen(got + why)


def in_use(error: CannotListen) -> bool:
    """Whether an address could not be had because somebody else has it."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


def address_is_missing(error: CannotListen) -> bool:
    """Whether an address could not be had because this machine has none of the kind."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
    )
