"""Where services listen, as people write it and as sockets need it.

The shorthands of the command line (`--port`, `--interface`) become hosts here, and a failure to
listen becomes one sentence. This module opens no socket and never imports Twisted.
"""

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from uppercase.errors import BadValue, CannotListen

__all__ = [
    "LOOPBACK",
    "DeclaredPeers",
    "address_is_missing",
    "cannot_listen",
    "family_of",
    "hosts_of",
    "in_use",
    "parse_peers",
    "printable_address",
    "unmapped",
]

LOOPBACK: Final = ("127.0.0.1", "::1")
"""Where a service listens unless told otherwise."""

EVERYWHERE: Final = ("0.0.0.0", "::")


def hosts_of(interfaces: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses to listen on, each once, in the order given.

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
    """Return the address family of an IP address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def printable_address(host: str, port: int) -> str:
    """Return an address as people write it: `127.0.0.1:12000`, `[::1]:12000`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unmapped(host: str) -> str:
    """Return the IPv4 address that an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) stands for.

    A socket of both families shows IPv4 peers so; limits, lists and logs must not tell them apart.
    """
    if not host.lower().startswith("::ffff:"):
        return host
    mapped = IPv6Address(host).ipv4_mapped
    return host if mapped is None else str(mapped)


@dataclass(frozen=True, slots=True)
class DeclaredPeers:
    """Peers that somebody has declared to be of a kind, such as proxies.

    Attributes:
        networks: they are in one of these,
        unix: or they connect through a UNIX socket, whose file's permissions say who can.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    def include(self, host: str | None) -> bool:
        """Whether a peer is one of them.

        Args:
            host: its IP address, or None for a peer of a UNIX socket.
        """
        if host is None:
            return self.unix
        address = ip_address(unmapped(host))
        return any(address in network for network in self.networks)


def parse_peers(text: str) -> DeclaredPeers:
    """Return the peers that a comma-separated list names.

    Args:
        text: IP addresses, networks as address/prefix length, and `unix`.

    Raises:
        BadValue: an entry is none of these.
    """
    entries = [entry.strip() for entry in text.split(",")]
    networks = [_network(entry) for entry in entries if entry != "unix"]
    return DeclaredPeers(tuple(networks), "unix" in entries)


def _network(entry: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(entry)
        if network.version == 6 and network.network_address.ipv4_mapped:
            raise ValueError("an IPv4-mapped address; give it as IPv4")
    except ValueError as error:
        raise BadValue(
            f"got {entry!r} ({error}); accepted are IP addresses and networks such as 192.0.2.1, "
            "10.0.0.0/8 or fd00::/8, and unix for those who connect through a UNIX socket"
        ) from None
    return network


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
