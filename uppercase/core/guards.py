"""Which datagrams are answered: the records of a datagram's way and the rules that decide.

Each rule is one small function; `REQUEST_RULES` and `REPLY_RULES` hold them in the order in which
they are asked. What remembers, to end loops, is in `uppercase.core.loops`. Nothing here sends,
waits or reads a clock.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from uppercase.core.events import DropReason
from uppercase.core.values import Client, unmapped
from uppercase.limits import IPV4_MAX_DATAGRAM, IPV6_MAX_DATAGRAM, DatagramLimits

REPLY_SLACK: Final = 64
"""A reply may always be this much longer than its request: a SHA-256 digest in hexadecimal fits,
and with the headers of IP and UDP the traffic still grows less than fourfold."""

LOW_PORTS: Final = 1024
"""Clients send from ports above; below live services that answer (echo, chargen, DNS, NTP), which
a forged source would set against us. NATs keep ephemeral ports there too (RFC 4787)."""

NFS_PORT: Final = 2049
"""The one well-known answering service of old above `LOW_PORTS`."""

EPHEMERAL_PORTS: Final = 32_768
"""Where Linux starts to hand out ports for clients. A datagram from our own port number below is
from another server like us, not from a client."""

SocketAddress = tuple[Any, ...]
"""What the socket module gives and takes: (host, port) or (host, port, flowinfo, scope id)."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a datagram was sent to.

    Attributes:
        host: the address in the datagram's header (RFC 1122 section 3.2.1.3: the specific
            destination); the bound address where the system does not tell.
        port: our port.
        local: the unicast address of ours that it stands for; differs for a broadcast.
        interface: the index of the interface that it came in on, 0 if not known.
        is_unicast: whether `host` is neither a broadcast nor a multicast address.
    """

    host: str
    port: int
    local: str = ""
    interface: int = 0
    is_unicast: bool = field(init=False)

    def __post_init__(self) -> None:
        local = self.local or self.host
        unicast = local == self.host and not ip_address(unmapped(self.host)).is_multicast
        object.__setattr__(self, "local", local)
        object.__setattr__(self, "is_unicast", unicast)


class Datagram(NamedTuple):
    """A datagram as it came in.

    Attributes:
        data: its payload.
        source: who sent it, as the socket gave it: a reply goes back to exactly this.
        destination: where it was sent to.
        truncated: whether bytes are missing (MSG_TRUNC).
    """

    data: bytes
    source: SocketAddress
    destination: Destination
    truncated: bool = False


def client_of(source: SocketAddress) -> Client:
    """Return the canonical form of a source address."""
    host = source[0]
    if len(source) > 2:
        # The socket module writes an IPv4-mapped address with dots, and no other has any.
        if source[3]:
            host = f"{host}%{source[3]}"
        elif "." in host:
            host = unmapped(host)
    return Client(host, source[1])


@dataclass(slots=True, eq=False)
class Origin:
    """Where datagrams come from and were sent to; one record serves all that have this in common.

    Attributes:
        source: who sent them, as the socket gave it.
        destination: where to.
        client: the source in its canonical form.
        digest: its hash.
        truncated: whether bytes are missing.
        is_refused: whether a rule drops whatever comes from there; None until they are asked.
        row: what the guard against lock step keeps for it.
        wire: what the port that made it keeps for a reply.
    """

    source: SocketAddress
    destination: Destination
    client: Client
    digest: int
    truncated: bool = False
    is_refused: bool | None = None
    row: Any = None
    wire: Any = None

    @classmethod
    def of(
        cls, source: SocketAddress, destination: Destination, truncated: bool = False
    ) -> "Origin":
        """Return an origin of a source address and a destination."""
        client = client_of(source)
        return cls(source, destination, client, hash(client), truncated)

    def datagram(self, data: bytes) -> Datagram:
        """Return a datagram that came from there."""
        return Datagram(data, self.source, self.destination, self.truncated)


RequestRule = Callable[[Datagram, Client, DatagramLimits], bool]
ReplyRule = Callable[[bytes, Datagram, Client, DatagramLimits], bool]


def _truncated(datagram: Datagram, client: Client, limits: DatagramLimits) -> bool:
    return datagram.truncated


def _source_port_zero(datagram: Datagram, client: Client, limits: DatagramLimits) -> bool:
    return client.port == 0


def _not_unicast(datagram: Datagram, client: Client, limits: DatagramLimits) -> bool:
    return not datagram.destination.is_unicast


def _own_port(datagram: Datagram, client: Client, limits: DatagramLimits) -> bool:
    """Another server of our kind, or we ourselves.

    Below the ephemeral ports no client is given our port number; above, it is by chance, unless
    the address is one of this host.
    """
    host, port = client
    if port != datagram.destination.port:
        return False
    own = unmapped(datagram.destination.local)
    return port < EPHEMERAL_PORTS or host == own or ip_address(host).is_loopback


def _low_port(datagram: Datagram, client: Client, limits: DatagramLimits) -> bool:
    return (client.port < LOW_PORTS or client.port == NFS_PORT) and not limits.allow_low_ports


def _request_too_large(datagram: Datagram, client: Client, limits: DatagramLimits) -> bool:
    return len(datagram.data) > limits.max_request


REQUEST_RULES: Final[tuple[tuple[DropReason, RequestRule], ...]] = (
    (DropReason.TRUNCATED, _truncated),
    (DropReason.SOURCE_PORT_ZERO, _source_port_zero),
    (DropReason.NOT_UNICAST, _not_unicast),
    (DropReason.OWN_PORT, _own_port),
    (DropReason.LOW_PORT, _low_port),
    (DropReason.REQUEST_TOO_LARGE, _request_too_large),
)
"""Asked in this order; the first that holds drops the request. What they look at is the origin, the
length and whether bytes are missing, so they are asked of an origin once."""


def _amplification(
    reply: bytes, datagram: Datagram, client: Client, limits: DatagramLimits
) -> bool:
    got = len(datagram.data)
    return len(reply) > max(limits.max_amplification * got, got + REPLY_SLACK)


def _reply_too_large(
    reply: bytes, datagram: Datagram, client: Client, limits: DatagramLimits
) -> bool:
    return len(reply) > (IPV6_MAX_DATAGRAM if ":" in client.host else IPV4_MAX_DATAGRAM)


REPLY_RULES: Final[tuple[tuple[DropReason, ReplyRule], ...]] = (
    (DropReason.AMPLIFICATION, _amplification),
    (DropReason.REPLY_TOO_LARGE, _reply_too_large),
)
"""Asked in this order; the first that holds drops the reply. None holds for one of up to
`IPV4_MAX_DATAGRAM` bytes that is no more than `REPLY_SLACK` longer than its request."""
