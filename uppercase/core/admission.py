"""Which connections are let in: counts and shares, no sockets.

A connection that is not let in is aborted by its protocol once it is made, because a factory that
returns no protocol leaves an open socket behind under TLS and every other wrapper.
"""

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Final, Protocol

from uppercase.core.events import RefusalReason
from uppercase.core.values import unmapped

_EVICT_AFTER: Final = 30.0
"""How long a connection must have been sent nothing before it makes room for a newcomer when all
are taken: no busy program pauses for that long, somebody at nc misses it least, and a client that
sends a byte now and then and never completes a message must not keep its place."""

_EVICT_BATCH: Final = 32
"""Idle connections that one search finds, longest idle first (nginx takes that many at a time)."""

_EVICT_SEARCH_PAUSE: Final = 0.1
"""Seconds without another search after one that found no idle connection: refusing a flood of
newcomers must not cost a look at every connection for each of them."""

_IPV6_CLIENT_PREFIX: Final = 64
"""A client of IPv6 has a network of this prefix length to itself (RFC 6177, RFC 7934), so counting
its single addresses would count nothing."""

_PRESSURE_TOTAL: Final = 0.8
"""The share of all connections beyond which an address that has too many gets no more."""

_PRESSURE_SHARE: Final = 0.5
"""The share that is too many for one address then: a class of 200 has a fifth."""


class Evictable(Protocol):
    """An open connection.

    Attributes:
        client: whom it counts for, as `client_key` gives it.
        sent_at: when it was last sent something.
    """

    client: Hashable
    sent_at: float

    def unproductive_since(self) -> float | None:
        """Return when it was last sent something; None while it is owed something, or has ended."""

    def evict(self) -> None:
        """Close it to make room."""


def client_key(host: str) -> str:
    """Return whom an IP address, perhaps with a scope, counts for: IPv4 itself, IPv6 its /64."""
    try:
        address = ip_address(unmapped(host))
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), _IPV6_CLIENT_PREFIX), strict=False))
    return str(address)


@dataclass(eq=False)
class Admission:
    """Decides about each new connection of one service.

    Attributes:
        max_connections: may be lowered to what the process can have, or to its share.
        max_per_address: may be lowered as well; None for any number.
        connections: the open ones, kept up to date by their owner, without the one in question.
    """

    max_connections: int
    max_per_address: int | None
    connections: Collection[Evictable]
    now: Callable[[], float]

    def __post_init__(self) -> None:
        self._of_client: dict[Hashable, int] = {}
        self._candidates: list[tuple[float, Evictable]] = []
        self._no_search_before = 0.0

    def enter(self, client: Hashable) -> tuple[RefusalReason, str] | None:
        """Let a connection in and count it, or say why not, in a word and a sentence."""
        refusal = self._refusal(client)
        if refusal is None and client is not None:
            self._of_client[client] = self._of_client.get(client, 0) + 1
        return refusal

    def leave(self, client: Hashable) -> None:
        """Note that a connection that was let in has ended."""
        if client is not None:
            left = self._of_client.pop(client) - 1
            if left:
                self._of_client[client] = left

    def _refusal(self, client: Hashable) -> tuple[RefusalReason, str] | None:
        total, most = len(self.connections), self.max_connections
        of_client = self._of_client.get(client, 0)
        if self.max_per_address is not None and of_client >= self.max_per_address:
            return (
                RefusalReason.ADDRESS_FULL,
                f"{client} has {of_client} connections (--max-per-address)",
            )
        pressing = total >= _PRESSURE_TOTAL * most and of_client > _PRESSURE_SHARE * most
        has_room = not pressing and total < most
        if has_room or self._evict(lambda each: not pressing or each.client == client):
            return None
        if total >= most:
            return (RefusalReason.FULL, f"all {most} connections are taken (--max-connections)")
        return (
            RefusalReason.PRESSURE,
            f"{client} alone has {of_client} of {most} connections, and the rest is for others "
            "(--max-connections)",
        )

    def _evict(self, suits: Callable[[Evictable], bool]) -> bool:
        """Close the one that suits and was idle longest; return False if none was idle for long."""
        for may_search in (self.now() >= self._no_search_before, False):
            for since, connection in self._candidates:
                # It may have become busy, or ended, since the search.
                if suits(connection) and connection.unproductive_since() == since:
                    connection.evict()
                    return True
            if not may_search:
                break
            self._search(suits)
        return False

    def _search(self, suits: Callable[[Evictable], bool]) -> None:
        """Find the connections that have been idle longest; others too, for the next newcomer."""
        latest = self.now() - _EVICT_AFTER
        idle: dict[bool, list[tuple[float, Evictable]]] = {True: [], False: []}
        silent = (each for each in self.connections if each.sent_at <= latest)
        for connection in sorted(silent, key=attrgetter("sent_at")):
            found = idle[suits(connection)]
            # To ask takes ten times as long as all else here.
            since = connection.unproductive_since() if len(found) < _EVICT_BATCH else None
            if since is not None and since <= latest:
                found.append((since, connection))
        self._candidates = sorted(chain(*idle.values()), key=itemgetter(0))
        if not idle[True]:
            self._no_search_before = self.now() + _EVICT_SEARCH_PAUSE
