"""Which datagrams are answered: the rules and guards that decide.

`REQUEST_RULES` and `REPLY_RULES` hold the rules, each a small function, in the order in which they
are asked. `RateLimit` bounds what one address, and one network, may send. Two guards end loops
between servers that answer each other's answers: `LoopGuard` knows our own replies when they come
back, `LockStepGuard` knows the rhythm of a loop whose datagrams differ. Each remembers in a table
of bounded size, because a forged source address costs its sender nothing. Nothing here sends, waits
or reads a clock: the caller says what time it is.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from itertools import islice
from typing import Final

from uppercase.core.datagram import Origin, Request
from uppercase.core.events import DropReason
from uppercase.core.values import Client, unmapped
from uppercase.limits import IPV4_MAX_DATAGRAM, IPV6_MAX_DATAGRAM, NFS_PORT, DatagramLimits

REPLY_SLACK: Final = 64
"""A reply may always be this much longer than its request: a SHA-256 digest in hexadecimal fits,
and with the headers of IP and UDP the traffic still grows less than fourfold."""

LOW_PORTS: Final = 1024
"""Clients send from ports above; below are services that answer (echo, chargen, DNS, NTP), which a
forged source would set against us. NATs keep ephemeral ports there too (RFC 4787)."""

EPHEMERAL_PORTS: Final = 32_768
"""Where Linux starts to hand out ports for clients. A datagram from our own port number below is
from another server like us, not from a client."""


RequestRule = Callable[[Request, DatagramLimits], bool]
ReplyRule = Callable[[bytes, Request, DatagramLimits], bool]


def _is_not_unicast(request: Request, limits: DatagramLimits) -> bool:
    """Return whether it is to many, or from nobody: a reply to `::` would go to our loopback."""
    return not request.origin.destination.is_unicast or request.client.host in ("0.0.0.0", "::")


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
    (DropReason.NOT_UNICAST, _is_not_unicast),
    (DropReason.OWN_PORT, _comes_from_own_port),
    (DropReason.LOW_PORT, _comes_from_low_port),
    (
        DropReason.REQUEST_TOO_LARGE,
        lambda request, limits: len(request.data) > limits.max_request,
    ),
)
"""Asked in this order; the first that holds drops the request. They look at the origin, the length
and whether bytes are missing, so they are asked once of each origin."""


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
"""Addresses, and as many networks, whose rates are remembered; the least recent are forgotten."""


class TokenBuckets:
    """One token bucket per key; the key that was unheard for longest is forgotten first.

    A bucket holds up to `burst` tokens and gains `rate` a second. A key that is forgotten starts
    with a full bucket again, so forgetting only ever allows more, not less.
    """

    def __init__(self, rate: float, burst: float, size: int = RATE_TABLE) -> None:
        self._rate = rate
        self._burst = burst
        self._size = size
        # key -> (tokens, at what time); the one unheard for longest comes first
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


LOOP_WINDOW: Final = 1.0
"""A client that sends the same datagram up to 15 times a second is never touched."""

LOOP_TABLE: Final = 4096
"""Replies that the loop guard remembers at most, and clients that the lock-step guard does."""

LOOP_KEPT: Final = LOOP_TABLE * 3 // 4
"""Replies that are kept when the table was full. A loop renews its entry every round, so it stays
known while fewer other replies than this are sent in one round trip."""

LOCK_STEP: Final = 10_000
"""Datagrams in a row, of which one is dropped. Two of our services in a loop exchange that many in
a second; a student's program rarely sends that many, and repeats what is lost."""

LOCK_STEP_SILENCE: Final = 10.0
"""Seconds for which a client whose loop was multiplied by our lab is not answered, unless it pauses
for `LOOP_WINDOW`: what waits in two receive buffers has passed by then, however slow the other
server. Not longer: a client may send without a pause."""

_LONG_AGO: Final = float("-inf")
_NEVER: Final = (0, _LONG_AGO)


def loop_key(client: Client, data: bytes) -> int:
    """Return what stands for a datagram in the loop guard's table.

    Both are Python's keyed 64-bit hashes, so nobody outside can make two that are equal.
    """
    return hash(client) ^ hash(data)


class LoopGuard:
    """Ends the loop that one forged datagram starts between two servers.

    Each server answers the other's answer forever (CVE-1999-0103, CVE-2024-2169). What tells a loop
    from a client is that our own reply comes back, byte for byte, as often as it is sent. Every
    reply is remembered by client and digest, so that several datagrams may circle at once and each
    is found; what came back `threshold` times within `LOOP_WINDOW` seconds is dropped once, which
    ends its loop. A loop slower than that goes on, as slowly.
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        # key -> (returns, time of the first); the longest unused comes first
        self._sent: dict[int, tuple[int, float]] = {}

    def remember(self, keys: Collection[int]) -> None:
        """Remember replies by their keys."""
        sent = self._sent
        if sent.keys().isdisjoint(keys):
            sent.update(dict.fromkeys(keys, _NEVER))
        else:
            for key in keys:
                sent[key] = sent.pop(key, _NEVER)
        if len(sent) > LOOP_TABLE:
            # Many at once: a dictionary finds its first key only after all those deleted before it.
            for key in list(islice(sent, len(sent) - LOOP_KEPT)):
                del sent[key]

    def knows(self, keys: Collection[int]) -> Set[int]:
        """Return those keys that belong to replies of ours."""
        return set() if self._sent.keys().isdisjoint(keys) else self._sent.keys() & keys

    def is_loop(self, client: Client, request: bytes, now: float) -> bool:
        """Return whether our own reply has come back too often; count it if it is ours."""
        key, sent = loop_key(client, request), self._sent
        entry = sent.get(key)
        if entry is None:
            return False
        returns, since = entry
        if now - since > LOOP_WINDOW:
            returns, since = 0, now
        if returns + 1 >= self._threshold:
            del sent[key]
            return True
        sent[key] = (returns + 1, since)
        return False


@dataclass(slots=True)
class _Row:
    """What a client has sent without a pause: how much, how much is unanswered, and when."""

    length: int = 0
    balance: int = 0
    last: float = 0.0
    silent_until: float = 0.0


class LockStepGuard:
    """Ends loops that never bring back what was sent, such as between `reverse` and `reverse`.

    Two servers that answer each other are in lock step, as is a client that sends its next request
    as soon as it has a reply: whatever comes follows what was sent, and nothing else is under way.
    One lost datagram ends such a loop and costs such a client one retransmission, so of `LOCK_STEP`
    datagrams in such a row one is dropped. Several datagrams under way at once end a row; but where
    our lab has multiplied replies, so may be what comes back, which is ended sooner, by dropping
    all of it until `LOOP_WINDOW` seconds bring none.

    Invariant: a client's balance is the requests that came less the replies that were sent, since
    its row began; above 1 there was a request that no reply of ours had caused.
    """

    def __init__(self) -> None:
        # client -> its row; the one that began first comes first
        self._rows: OrderedDict[Client, _Row] = OrderedDict()

    def _row(self, client: Client, now: float) -> _Row:
        """Return a client's row, a new one after a pause."""
        rows = self._rows
        row = rows.get(client)
        if row is None or now - row.last > LOOP_WINDOW:
            rows.pop(client, None)
            row = rows[client] = _Row()
            if len(rows) > LOOP_TABLE:
                rows.popitem(last=False)[1].last = _LONG_AGO
        return row

    def suspects(self, arrived: Mapping[Origin, int], now: float) -> list[Origin]:
        """Note the datagrams of one wake-up by their origins, before any is answered.

        Returns:
            Those origins for which `is_loop` has to be asked; for all others it is false.
        """
        found = []
        for origin, count in arrived.items():
            # Invariant: an origin's row is its client's in the table, or its last time is more than
            # a window ago: rows are replaced after a pause, and those forgotten are long ago.
            row = origin.row
            if row is None or now - row.last > LOOP_WINDOW:
                row = origin.row = self._row(origin.client, now)
            row.last = now
            row.length += count
            balance = row.balance = row.balance + count
            if now < row.silent_until:
                found.append(origin)
            elif balance > 1:
                row.length = 1
            elif row.length >= (LOCK_STEP // 4 if balance < count else LOCK_STEP):
                found.append(origin)
        return found

    def replied(self, replies: Mapping[Origin, int]) -> None:
        """Note replies to what `suspects` was told of."""
        for origin, count in replies.items():
            origin.row.balance -= count

    def is_loop(self, client: Client, now: float) -> bool:
        """Return whether a datagram that has arrived is to be dropped to end what may be a loop."""
        row = self._rows.get(client)
        if row is None:
            return False
        if now < row.silent_until:
            return True
        # Where the balance is above 1, `suspects` has begun the row anew.
        multiplied = row.balance < 0
        if row.length < (LOCK_STEP // 4 if multiplied else LOCK_STEP):
            return False
        if multiplied:
            row.silent_until = now + LOCK_STEP_SILENCE
        row.balance, row.length = 0, 0
        return True
