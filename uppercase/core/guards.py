"""Which datagrams are answered: the records of a datagram's way and the rules that decide.

Each rule is one small function; `REQUEST_RULES` and `REPLY_RULES` hold them in the order in which
they are asked. `LoopGuard` and `LockStepGuard` remember, each in a table of bounded
size, because a forged source address costs its sender nothing. Nothing here sends, waits or reads a
clock: the caller says what time it is.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import islice
from typing import Any, Final, NamedTuple

from uppercase.core.events import DropReason
from uppercase.core.values import Client, unmapped
from uppercase.limits import IPV4_MAX_DATAGRAM, IPV6_MAX_DATAGRAM, DatagramLimits

REPLY_SLACK: Final = 64
"""A reply may always be this much longer than its request: a SHA-256 digest in hexadecimal fits,
and with the headers of IP and UDP the traffic still grows less than fourfold."""

LOOP_WINDOW: Final = 1.0
"""A client that sends the same datagram up to 15 times a second is never touched."""

LOOP_TABLE: Final = 4096
"""Replies remembered for the loop guard at the most."""

LOOP_KEPT: Final = LOOP_TABLE * 3 // 4
"""Replies that are still remembered when the table has been full. A loop renews its entry every
round, so it stays known while fewer other replies than this are sent in one round trip."""

LOW_PORTS: Final = 1024
"""Clients send from ports above; below live services that answer (echo, chargen, DNS, NTP), which
a forged source would set against us. NATs keep ephemeral ports there too (RFC 4787)."""

NFS_PORT: Final = 2049
"""The one well-known answering service of old above `LOW_PORTS`."""

EPHEMERAL_PORTS: Final = 32_768
"""Where Linux starts to hand out ports for clients. A datagram from our own port number below is
from another server like us, not from a client."""

LOCK_STEP: Final = 10_000
"""Datagrams of a row of which one is dropped. A loop of two of our services has as many of each
behind it after a second; a student's program rarely sends so many, and repeats what is lost."""

LOCK_STEP_SILENCE: Final = 1.0
"""Seconds in which nothing of a client is answered whose loop our lab has multiplied: what waits in
two receive buffers has passed by then."""

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
        wire: what the port that made it keeps for a reply.
    """

    source: SocketAddress
    destination: Destination
    client: Client
    digest: int
    truncated: bool = False
    is_refused: bool | None = None
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


Packet = tuple[bytes, Origin]
"""A datagram's payload and where it came from: a record of its own for each would cost more than
all the rules."""

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


_NEVER: Final = (0, 0.0)


def loop_key(client: Client, data: bytes) -> int:
    """Return what stands for a datagram in the loop guard's table.

    Both are Python's keyed 64-bit hashes, so nobody outside can make two that are equal.
    """
    return hash(client) ^ hash(data)


class LoopGuard:
    """Ends the loop that one forged datagram starts between two servers.

    Each server answers the other's answer for ever (CVE-1999-0103, CVE-2024-2169). What tells a
    loop from a client is that our own reply comes back, byte for byte, as often as it is sent.
    Every reply is remembered by client and digest, so that several datagrams may circle at once
    and each is found; what came back `threshold` times within `LOOP_WINDOW` seconds is dropped
    once, which ends its loop. A loop slower than that goes on, as slowly.
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        # key -> (returns, time of the first); the longest unused comes first
        self._sent: dict[int, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def remember(self, client: Client, reply: bytes) -> None:
        """Take note of a reply that is sent."""
        self.remember_all([loop_key(client, reply)])

    def remember_all(self, keys: Collection[int]) -> None:
        """Take note of replies by their keys."""
        sent = self._sent
        if sent.keys().isdisjoint(keys):
            sent.update(dict.fromkeys(keys, _NEVER))
        else:
            for key in keys:
                sent[key] = sent.pop(key, _NEVER)
        if len(sent) > LOOP_TABLE:
            # Many at once: the first key of a dictionary is found behind all that were deleted.
            for key in list(islice(sent, len(sent) - LOOP_KEPT)):
                del sent[key]

    def knows(self, keys: Collection[int]) -> Set[int]:
        """Return those keys that are of replies of ours."""
        return set() if self._sent.keys().isdisjoint(keys) else self._sent.keys() & keys

    def is_loop(self, client: Client, request: bytes, now: float) -> bool:
        """Return whether a request is our reply come back too often; count it if it is ours."""
        key = loop_key(client, request)
        entry = self._sent.get(key)
        if entry is None:
            return False
        returns, since = entry
        if returns == 0 or now - since > LOOP_WINDOW:
            returns, since = 0, now
        if returns + 1 >= self._threshold:
            del self._sent[key]
            return True
        self._sent[key] = (returns + 1, since)
        return False


@dataclass(slots=True)
class _Row:
    """What a client has sent without a pause: how much, how much of it unanswered, and when."""

    length: int = 0
    balance: int = 0
    last: float = 0.0
    silent_until: float = 0.0


class LockStepGuard:
    """Ends loops that never bring back what was sent, such as between `reverse` and `reverse`.

    What two servers that answer each other have in common with a client that sends its next
    request as soon as it has a reply is lock step: whatever comes follows what was sent, and
    nothing else is under way. One lost datagram ends such a loop and costs such a client one
    retransmission, so of `LOCK_STEP` datagrams in such a row one is dropped. Several datagrams
    under way at once end a row; but where our lab has multiplied replies, so may be what comes
    back, which is ended sooner, by dropping all of it for `LOCK_STEP_SILENCE` seconds.

    Invariant: a client's balance is the requests that came less the replies that were sent, since
    its row began; above 1 there was a request that no reply of ours had caused.
    """

    def __init__(self) -> None:
        # client -> its row; the one that began first comes first
        self._rows: OrderedDict[Client, _Row] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def arrived(self, clients: Iterable[Client], now: float) -> None:
        """Take note of the datagrams of one wake-up, before any of them is answered."""
        for client in clients:
            self._row(client, 1, now)

    def _row(self, client: Client, count: int, now: float) -> _Row:
        """Take note of so many datagrams that have arrived together; return their client's row."""
        rows = self._rows
        row = rows.get(client)
        if row is None or now - row.last > LOOP_WINDOW:
            rows.pop(client, None)
            row = rows[client] = _Row()
            if len(rows) > LOOP_TABLE:
                rows.popitem(last=False)
        row.last = now
        row.balance += count
        row.length += count
        return row

    def may_loop(self, client: Client, count: int, now: float) -> bool:
        """Take note of so many datagrams that have arrived together, before one is answered.

        Returns:
            Whether `is_loop` has to be asked about each; else it is true of none of them.
        """
        row = self._row(client, count, now)
        if row.balance > 1 and now >= row.silent_until:
            row.length = 1
            return False
        multiplied = row.balance < count
        return now < row.silent_until or row.length >= (LOCK_STEP // 4 if multiplied else LOCK_STEP)

    def replied(self, client: Client, count: int = 1) -> None:
        """Take note of replies that are sent."""
        row = self._rows.get(client)
        if row is not None:
            row.balance -= count

    def is_loop(self, client: Client, now: float) -> bool:
        """Return whether a datagram that has arrived is to be dropped to end what may be a loop."""
        row = self._rows.get(client)
        if row is None:
            return False
        if now < row.silent_until:
            return True
        if row.balance > 1:
            row.length = 1
        multiplied = row.balance < 0
        if row.length < (LOCK_STEP // 4 if multiplied else LOCK_STEP):
            return False
        if multiplied:
            row.silent_until = now + LOCK_STEP_SILENCE
        row.balance, row.length = 0, 0
        return True
