r"""Values as people write them and as sockets need them: addresses, numbers, fields of strings.

Each parser takes the text of one value and returns what it means, or raises `BadValue` with what
was got and what is accepted; the servers' and the client's options use them. A failure to listen
becomes one sentence here.
"""

import errno
import math
import re
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final, NamedTuple

from uppercase.errors import BadValue, CannotListen
from uppercase.limits import KIB, MAX_PORT, MIB

DASHES: Final = ("–", "—", "－")  # Slides, word processors and East Asian keyboards have them.

LOOPBACK: Final = ("127.0.0.1", "::1")
"""Where a service listens unless told otherwise."""

_EVERYWHERE: Final = ("0.0.0.0", "::")

_PATH_MTU: Final = ((socket.IPPROTO_IP, 10), (socket.IPPROTO_IPV6, 23))
"""IP_MTU_DISCOVER and IPV6_MTU_DISCOVER of Linux; the socket module has no names for them."""

_SECONDS: Final = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST: Final = 365 * 24 * 3600.0
"""Seconds of the longest duration: the system's timers do not take any number, and a year is
forever."""

_BYTES: Final = {"": 1, "k": KIB, "m": MIB, "g": KIB * MIB}
_QUANTITY: Final = r"(?a)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([a-z]*)"

_NAME: Final = r"(?a)[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"

# One character, or a backslash and the one after it. A backslash at the very end stands alone.
_CHARACTER: Final = re.compile(r"\\?.", re.DOTALL)


def hosts_of(interfaces: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses to listen on, each once, in the order given; `*` covers all others.

    Args:
        interfaces: IP addresses, `localhost` (loopback) or `*` (every address), the latter two in
            both families.

    Raises:
        BadValue: one of them is none of these.
    """
    hosts: dict[str, None] = {}
    for interface in interfaces:
        if interface == "*":
            hosts.update(dict.fromkeys(_EVERYWHERE))
        elif interface == "localhost":
            hosts.update(dict.fromkeys(LOOPBACK))
        else:
            hosts[parse_interface(interface, ", or * for every address")] = None
    everywhere = [host for host in _EVERYWHERE if host in hosts]
    covered = {family_of(host) for host in everywhere}
    return tuple(host for host in hosts if host in everywhere or family_of(host) not in covered)


def parse_interface(text: str, other: str = "") -> str:
    """Return an IP address to listen on, in its one spelling; `other` is what is accepted besides.

    Only the system knows which of a network's addresses is for all of it.
    """
    try:
        plain = ip_address(text.removeprefix("[").removesuffix("]"))
        address = ip_address(unmapped(str(plain)))
    except ValueError:
        why = f"got {text!r}; an interface is an IP address of this machine"
        raise BadValue(f"{why} such as 127.0.0.1 or ::1{other}") from None
    if address.is_multicast or str(address) == "255.255.255.255":
        why = f"got {text!r}, which stands for many machines"
        raise BadValue(f"{why}; an interface is an address of this machine alone{other}")
    return str(address)


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family of an IP address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def allow_fragments(datagrams: socket.socket) -> None:
    """Have a datagram that its path has no room for cut on its way, as all systems but Linux do.

    Linux has it dropped instead, and so all that follow, until an ICMP says how much there is room
    for, which a firewall may hold back; a connected socket then fails with EMSGSIZE.
    """
    if sys.platform == "linux":
        for level, option in _PATH_MTU:
            with suppress(OSError):  # IPv4 has none of IPv6's.
                datagrams.setsockopt(level, option, 0)


def printable(text: str, limit: int | None = None, *, keep: str = "") -> str:
    r"""Return text from elsewhere as a terminal or a log can take it, with `\x1b` for an escape.

    Escape sequences would be obeyed, and line ends would forge lines: these may be kept where a
    text has several. At most `limit` characters are shown, if there is a limit.
    """
    cut = text if limit is None or len(text) <= limit else f"{text[:limit]}…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in cut)


def shortened(sentence: str) -> str:
    """Return a sentence that quotes no more than the start of an endless word."""
    return re.sub(r"(\S{200})\S{100,}", r"\1…", sentence)


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number and its noun: `1 reply`, `2 replies`; the plural ends in -s unless given."""
    return f"1 {one}" if number == 1 else f"{number} {several or f'{one}s'}"


def printable_address(host: str, port: int) -> str:
    """Return an address as people write it: `127.0.0.1:12000`, `[::1]:12000`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Client(NamedTuple):
    """The other side, in the one form that limits, tables and logs use.

    Attributes:
        host: IPv4 in dotted form, never v4-mapped; a scoped IPv6 address has its `%scope`.
        port: the source port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return printable_address(self.host, self.port)


def unmapped(host: str) -> str:
    """Return the IPv4 address that an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) stands for.

    Dual-stack sockets show IPv4 peers like that; limits, lists and logs must not tell them apart.
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
        """Return whether a peer is one of them; one of a UNIX socket has no address."""
        if host is None:
            return self.unix
        address = ip_address(unmapped(host))
        return any(address in network for network in self.networks)


def parse_peers(text: str) -> DeclaredPeers:
    """Return the peers that a list of IP addresses, networks and `unix` names, between commas."""
    entries = [entry.strip() for entry in text.split(",")]
    networks = [_network(entry) for entry in entries if entry != "unix"]
    return DeclaredPeers(tuple(networks), "unix" in entries)


def _network(entry: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(entry)
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
            raise ValueError("an IPv4-mapped address; give it as IPv4")
    except ValueError as error:
        raise BadValue(
            f"got {entry!r} ({error}); accepted are IP addresses and networks such as 192.0.2.1, "
            "10.0.0.0/8 or fd00::/8, and unix for those who connect through a UNIX socket"
        ) from None
    return network


def cannot_listen(protocol: str, address: str, error: OSError) -> CannotListen:
    """Say in one sentence why a TCP, UDP or UNIX address could not be bound, and what helps."""
    got = f"cannot listen on {protocol} {address}: "
    match error.errno:
        case errno.EADDRINUSE:
            # Connections that a TCP server closed keep its port for a minute, from us too if it
            # did not set SO_REUSEADDR, as the lecture's does not.
            or_wait = ", wait a minute if it has just ended," if protocol == "TCP" else ""
            other = "name" if protocol == "UNIX" else "port"
            why = f"another program does already; stop it{or_wait} or choose another {other}"
            if protocol == "UNIX" and Path(address).exists() and not Path(address).is_socket():
                why = "a file that is not a socket has this name; choose another one"
        case errno.EACCES | errno.EPERM if protocol == "UNIX":
            why = "permission denied; choose a folder that you may write to"
        case errno.EACCES | errno.EPERM:
            why = "permission denied; ports below 1024 need privileges, choose another one"
        case errno.ENOENT:
            missing = "its path is missing, as in unix:/run/name"
            why = "there is no such folder" if address else missing
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT | socket.EAI_NONAME:
            why = "this machine has no such address; choose another --interface"
        case errno.EINVAL if address.startswith("[fe80:"):
            why = "a link-local address needs its interface, as in fe80::1%eth0"
        case None if protocol == "UNIX":  # No system call has seen it.
            why = "its path is too long for the system; choose a shorter one"
        case _:
            why = error.strerror or str(error)
    return CannotListen(got + why)


def parse_host_names(text: str) -> tuple[str, ...]:
    """Return the hosts, names or addresses, that a comma-separated list names, in small letters."""
    hosts = [entry.strip().lower().strip("[]") for entry in text.split(",")]
    for host in hosts:
        if not (re.fullmatch(_NAME, host) or host_address(host)):
            raise BadValue(
                f"got {host!r}; accepted are host names and IP addresses without a port, such as "
                "class.example.edu, with a comma between two"
            )
    return tuple(hosts)


def host_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is, without its scope and never v4-mapped; None for a name."""
    with suppress(ValueError):
        return ip_address(unmapped(host.partition("%")[0]))
    return None


def parse_duration(text: str) -> float:
    """Return seconds for `500ms`, `2s`, `5m`, `1h`; a bare number is seconds."""
    match = re.fullmatch(_QUANTITY, text.strip().lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match and match[2] in _SECONDS else math.inf
    if not math.isfinite(seconds):
        raise BadValue(
            f"got {text!r}; a duration is a number of seconds, 0 or more, or has a unit: "
            "500ms, 2s, 5m, 1h"
        )
    if seconds > _LONGEST:
        raise BadValue(f"got {text!r}; a duration is at most a year (8760h)")
    return seconds


def parse_timeout(text: str) -> float:
    """Return seconds as `parse_duration` does, but never 0, which would end what it guards."""
    seconds = parse_duration(text)
    if not seconds:
        raise BadValue(f"got {text!r}; a time-out is longer than 0, such as 500ms, 2s or 5m")
    return seconds


def parse_bound(text: str) -> int:
    """Return bytes as `parse_size` does, but never 0, which would let nothing through."""
    size = parse_size(text)
    if not size:
        raise BadValue(f"got {text!r}; a bound is 1 byte or more, such as 64k or 1M")
    return size


def parse_size(text: str) -> int:
    """Return bytes for `64k`, `1M`, `1G` (powers of 1,024); a bare number is bytes."""
    match = re.fullmatch(r"([0-9]{1,18})([kmg]?)(?:i?b)?", text.strip().lower(), re.ASCII)
    if not match:
        raise BadValue(
            f"got {text!r}; a size is a whole number of bytes, 0 or more, or has a unit: "
            "64k, 1M, 1G"
        )
    return int(match[1]) * _BYTES[match[2]]


def up_to(parse: Callable[[str], int], most: int, why: str) -> Callable[[str], int]:
    """Return a parser that refuses what is over a bound, and ends its sentence with the reason."""

    def parse_bounded(text: str) -> int:
        number = parse(text)
        if number > most:
            raise BadValue(f"got {text!r}; at most {most} is accepted: {why}")
        return number

    return parse_bounded


def parse_count(text: str) -> int:
    """Return a whole number, 0 or more."""
    return _whole(text, "a whole number, 0 or more, is accepted")


def parse_limit(text: str) -> int:
    """Return a whole number, 1 or more."""
    return _whole(text, "a whole number, 1 or more, is accepted", least=1)


def parse_port(text: str) -> int:
    """Return a port number; 0 stands for any free port."""
    accepted = f"a port is a whole number from 0 (any free port) to {MAX_PORT}"
    return _whole(text, accepted, most=MAX_PORT)


def _whole(text: str, accepted: str, *, least: int = 0, most: int = 10**18 - 1) -> int:
    digits = text.strip()
    if re.fullmatch("[0-9]{1,18}", digits, re.ASCII) and least <= int(digits) <= most:
        return int(digits)
    if len(digits) > 18 and digits.isdigit():
        accepted = "a whole number of at most 18 digits is accepted"
    raise BadValue(f"got {text!r}; {accepted}")


def parse_probability(text: str) -> float:
    """Return a number from 0 to 1; `4/11` is one too."""
    numerator, slash, denominator = text.partition("/")
    try:
        value = int(numerator) / int(denominator) if slash else float(text)
    except (ValueError, ArithmeticError):
        value = math.nan
    if not 0 <= value <= 1:
        raise BadValue(f"got {text!r}; a probability is a number from 0 to 1, such as 0.3 or 4/11")
    return value


def parse_factor(text: str) -> float:
    """Return a number that is 1 or more."""
    value = _number(text)
    if not 1 <= value < math.inf:
        raise BadValue(f"got {text!r}; a factor is a number that is 1 or more, such as 3")
    return value


def parse_rate(text: str) -> tuple[float, float]:
    """Return the rate and the burst of `R` or `R:BURST`; a burst of 0 stands for the default."""
    before, colon, after = text.partition(":")
    rate, burst = _number(before), _number(after) if colon else 0.0
    if not (0 < rate < math.inf and 0 <= burst < math.inf):
        raise BadValue(
            f"got {text!r}; a rate is datagrams a second, and may have a burst: 200 or 200:400"
        )
    return rate, burst


def _number(text: str) -> float:
    """Return a number; what is not one is NaN, which lies in no range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def split_escaped(text: str, separator: str = ":") -> list[str]:
    r"""Split at each separator that no backslash stands before; `unescape` each field afterwards.

    The fields are as they were written, backslashes included, so that they can be joined again
    unchanged. A backslash covers the character after it, so `a\\:b` is two fields.
    """
    fields: list[list[str]] = [[]]
    for character in _CHARACTER.findall(text):
        if character == separator:
            fields.append([])
        else:
            fields[-1].append(character)
    return ["".join(field) for field in fields]


_PLACES: Final = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog"),
}
"""The arguments of Twisted's endpoint strings by their places."""


def lacks_argument(description: str, name: str) -> bool:
    """Return whether an endpoint string may have an argument, by its name or place, and has not."""
    kind, *fields = split_escaped(description)
    named = [pair[0] for field in fields if len(pair := split_escaped(field, "=")) > 1]
    left = _PLACES.get(kind.lower(), ())[len(fields) - len(named) :]
    return name in left and name not in named


def unescape(field: str, only: str = "") -> str:
    r"""Return what a field means without its backslashes: `\:` is a colon.

    Args:
        field: as `split_escaped` gave it.
        only: the characters that a backslash is taken off; before others it stays. The default is
            any character, as in Twisted's endpoint strings.
    """
    covered = f"[{re.escape(only)}]" if only else "."
    return re.sub(rf"\\({covered})", r"\1", field, flags=re.DOTALL)
