"""Which datagrams are answered: the records of a datagram's way and the rules that decide.

`REQUEST_RULES` and `REPLY_RULES` hold the rules, each a small function, in the order in which
they are asked. How much one address, and one network, may send is in token buckets, in tables of
bounded size. What remembers, to end loops, is in `uppercase.core._loops`. Nothing here sends, waits
or reads a clock: the caller says what time it is.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, NamedTuple, Protocol

from uppercase.core.events import Direction, DropReason
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
        source: who sent them, as the socket gave it: a reply goes back to exactly this.
        destination: where to.
        client: the source in its canonical form.
        digest: its hash.
        truncated: whether bytes are missing (MSG_TRUNC).
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


class Passage(NamedTuple):
    """One copy of a datagram that a lab passes on.

    Attributes:
        delay: seconds from now; 0 is at once.
        data: its bytes.
        number: the request's number among its client's, from 1.
        copy: which copy it is, from 0.
        copies: how many there are.
        fates: what has happened to it so far, in the answer key's words; "" if nothing.
    """

    delay: float
    data: bytes
    number: int
    copy: int
    copies: int
    fates: str = ""


class LabStage(Protocol):
    """What a responder asks of a lab; it owns no timer, so the shell holds back what is delayed."""

    def request(self, client: Client, data: bytes, number: int) -> list[Passage]:
        """Take a datagram from a client; return what the service gets of it."""

    def reply(self, client: Client, data: bytes, answered: Passage) -> list[Passage]:
        """Take the reply to a request that `request` gave; return what is sent of it."""


class Request(NamedTuple):
    """A datagram on its way through the responder; without a lab it has no passage."""

    data: bytes
    origin: Origin
    passage: Passage | None = None

    @property
    def client(self) -> Client:
        return self.origin.client


class Answer(NamedTuple):
    """A reply to send now, from the address that was asked; a lab may have made a passage of it."""

    data: bytes
    request: Request
    passage: Passage | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """A reply that is not ready: wait for it, then call `Responder.settle`.

    The shell owns it from here on and ends it exactly once, by `settle` or by `abandon`: until then
    it counts as outstanding.
    """

    awaitable: Awaitable[bytes]
    request: Request


@dataclass(frozen=True, slots=True, eq=False)
class Delay:
    """What the lab holds back: call `Responder.resume` when the passage's delay is over.

    The shell owns it from here on and ends it exactly once, by `resume` or by `abandon`.
    """

    passage: Passage
    direction: Direction
    request: Request


Step = Answer | Wait | Delay


class Replies(NamedTuple):
    """Replies to send now, where nothing is out of the ordinary: in columns, as a batch is.

    A record for each would cost more than all the rules.
    """

    payloads: Sequence[bytes]
    origins: Sequence[Origin]
    requests: Sequence[bytes]


Part = tuple[Replies, list[Step]]
"""What a responder gives of a batch at a time: replies to send, and what is to be done after."""


def fates_of(passage: Passage | None) -> tuple[int, str]:
    """Return a passage's number and fates, as events tell them."""
    return (0, "") if passage is None else (passage.number, passage.fates)


RequestRule = Callable[[Request, DatagramLimits], bool]
ReplyRule = Callable[[bytes, Request, DatagramLimits], bool]


def _comes_from_own_port(request: Request, limits: DatagramLimits) -> bool:
    """Return whether it is from another server of our kind, or from ourselves.

    Below the ephemeral ports no client is given our port number; above, it is by chance, unless
    the address is one of this host.
    """
    (host, port), ours = request.client, request.origin.destination
    if port != ours.port:
        return False
    return port < EPHEMERAL_PORTS or host == unmapped(ours.local) or ip_address(host).is_loopback


def _comes_from_low_port(request: Request, limits: DatagramLimits) -> bool:
    port = request.client.port
    return (port < LOW_PORTS or port == NFS_PORT) and not limits.allow_low_ports


REQUEST_RULES: Final[tuple[tuple[DropReason, RequestRule], ...]] = (
    (DropReason.TRUNCATED, lambda request, _: request.origin.truncated),
    (DropReason.SOURCE_PORT_ZERO, lambda request, _: request.client.port == 0),
    (DropReason.NOT_UNICAST, lambda request, _: not request.origin.destination.is_unicast),
    (DropReason.OWN_PORT, _comes_from_own_port),
    (DropReason.LOW_PORT, _comes_from_low_port),
    (
        DropReason.REQUEST_TOO_LARGE,
        lambda request, limits: len(request.data) > limits.max_request,
    ),
)
"""Asked in this order; the first that holds drops the request. What they look at is the origin, the
length and whether bytes are missing, so they are asked of an origin once."""


def _amplifies(reply: bytes, request: Request, limits: DatagramLimits) -> bool:
    got = len(request.data)
    return len(reply) > max(limits.max_amplification * got, got + REPLY_SLACK)


def _is_too_large(reply: bytes, request: Request, limits: DatagramLimits) -> bool:
    most = IPV6_MAX_DATAGRAM if ":" in request.client.host else IPV4_MAX_DATAGRAM
    return len(reply) > most


REPLY_RULES: Final[tuple[tuple[DropReason, ReplyRule], ...]] = (
    (DropReason.AMPLIFICATION, _amplifies),
    (DropReason.REPLY_TOO_LARGE, _is_too_large),
)
"""Asked in this order; the first that holds drops the reply. None holds for one of up to
`IPV4_MAX_DATAGRAM` bytes that is no more than `REPLY_SLACK` longer than its request."""


RATE_BURST_FACTOR: Final = 2
"""Seconds' worth of datagrams that may come at once where no burst is given."""

RATE_PREFIX_FACTOR: Final = 32
"""What a network (IPv4 /24, IPv6 /48) may send, as a multiple of one address's rate."""

RATE_TABLE: Final = 4096
"""Addresses, and as many networks, whose rate is remembered; the longest unheard is forgotten."""


class TokenBuckets:
    """One token bucket per key; the key that was longest unheard is forgotten first.

    A bucket holds up to `burst` tokens and gains `rate` a second. A key that is forgotten starts
    with a full bucket again, so what is forgotten is only ever answered more, not less.
    """

    def __init__(self, rate: float, burst: float, size: int = RATE_TABLE) -> None:
        self._rate = rate
        self._burst = burst
        self._size = size
        # key -> (tokens, when there were so many); the longest unheard comes first
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def level(self, key: Hashable, now: float) -> float:
        """Return the tokens in a key's bucket."""
        tokens, since = self._buckets.get(key, (self._burst, now))
        return min(self._burst, tokens + (now - since) * self._rate)

    def take(self, key: Hashable, level: float, now: float) -> None:
        """Take one token from a bucket whose level is known."""
        self._buckets[key] = (level - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._size:
            self._buckets.popitem(last=False)

    def allow(self, key: Hashable, now: float) -> bool:
        """Return whether there is a token in a key's bucket, and take it if there is."""
        level = self.level(key, now)
        if level < 1:
            return False
        self.take(key, level, now)
        return True


NUMBERED: Final = 10_000
"""Clients whose datagrams are numbered. A class of 200 with 50 sockets each fits; at some 300 bytes
an entry it is 3 MB."""

FORGET_AFTER: Final = 60.0
"""A client silent for this long starts again at datagram 1: longer than any time-out of a lab, and
short enough that a program that binds a fixed port meets the same fates a minute later."""


class Numbers:
    """Numbers the datagrams of each client, a host and a port, from 1.

    One that is silent for `FORGET_AFTER` seconds starts again, and so does the one that has been
    silent longest when there are more than `NUMBERED`.
    """

    def __init__(self) -> None:
        # client -> (last heard, datagrams so far); the longest silent comes first
        self._clients: OrderedDict[Client, tuple[float, int]] = OrderedDict()

    def take(self, client: Client, now: float, count: int = 1) -> int:
        """Number so many datagrams that have just come from a client; return the last one's."""
        heard, number = self._clients.pop(client, (now, 0))
        number = number + count if now - heard < FORGET_AFTER else count
        self._clients[client] = now, number
        if len(self._clients) > NUMBERED:
            self._clients.popitem(last=False)
        return number


class RateLimit:
    """Bounds what one address (IPv4 /32, IPv6 /56) and one network (/24, /48) may send.

    A datagram takes a token of its address's bucket and one of its network's, which is
    `RATE_PREFIX_FACTOR` times as large. An IPv6 customer is given a /56 or more (RFC 6177), so
    single addresses say nothing there.

    Args:
        rate: datagrams a second of one address.
        burst: datagrams that may come at once; 0 stands for `RATE_BURST_FACTOR` times the rate.
    """

    def __init__(self, rate: float, burst: float = 0.0) -> None:
        burst = max(1.0, burst or RATE_BURST_FACTOR * rate)
        self._addresses = TokenBuckets(rate, burst)
        self._networks = TokenBuckets(rate * RATE_PREFIX_FACTOR, burst * RATE_PREFIX_FACTOR)

    def allow(self, host: str, now: float) -> bool:
        """Return whether a datagram of this address is within the rate, and count it if it is."""
        address: Hashable
        network: Hashable
        if ":" in host:
            packed = IPv6Address(host).packed
            address, network = packed[:7], packed[:6]
        else:
            address, network = host, host.rpartition(".")[0]
        own, shared = self._addresses.level(address, now), self._networks.level(network, now)
        # Invariant: both buckets lose a token or neither does, so that an address that is over its
        # own rate does not use up what its neighbours may send.
        if own < 1 or shared < 1:
            return False
        self._addresses.take(address, own, now)
        self._networks.take(network, shared, now)
        return True
