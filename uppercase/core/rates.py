"""How much one address, and one network, may send: token buckets in tables of bounded size.

Nothing here sends, waits or reads a clock: the caller says what time it is.
"""

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import IPv6Address
from typing import Final

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

    Args:
        rate: tokens a second.
        burst: tokens in a full bucket, where each key starts.
        size: keys that are remembered.
    """

    def __init__(self, rate: float, burst: float, size: int = RATE_TABLE) -> None:
        self._rate = rate
        self._burst = burst
        self._size = size
        # key -> (tokens, when there were so many); the longest unheard comes first
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

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
