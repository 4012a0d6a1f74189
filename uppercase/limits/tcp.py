"""The bounds of the TCP service."""

from dataclasses import dataclass
from typing import Final

from uppercase.limits.shared import KIB

__all__ = [
    "ASYNC_WINDOW",
    "CLOSE_TIMEOUT",
    "HANDSHAKE_TIMEOUT",
    "IDLE_TIMEOUT",
    "MAX_CONNECTIONS",
    "MAX_LENGTH",
    "OUTPUT_BATCH",
    "PROXY_TIMEOUT",
    "SEND_TIMEOUT",
    "Limits",
]

MAX_LENGTH: Final = 64 * KIB
"""One message of a framed conversation. Text lines are under 1 KiB; a peer may make us hold this
much while a message is incomplete."""

CLOSE_TIMEOUT: Final = 5.0
"""How long a peer has to close its side once all of our output has been handed to the kernel."""

SEND_TIMEOUT: Final = 60.0
"""How long a peer may take no byte of what it is owed before the connection is aborted."""

IDLE_TIMEOUT: Final = 600.0
"""How long a connection may neither send nor take anything. A human at nc thinks for minutes; what
is lost is a descriptor and 3 KiB."""

MAX_CONNECTIONS: Final = 1000
"""Connections at one time: five classes of 200, at 256 KiB each (the most that a peer can make us
hold) a quarter of a GiB."""

HANDSHAKE_TIMEOUT: Final = 15.0
"""How long a TLS handshake may take, from the connection's acceptance: two or three round trips and
four retransmissions of a lost segment (1, 2, 4 and 8 s). It also bounds what a mute peer costs."""

PROXY_TIMEOUT: Final = 5.0
"""How long a proxy may take to send its PROXY header. Proxies send it in the first segment; the
protocol asks receivers to allow for retransmissions, at least 3 s."""

ASYNC_WINDOW: Final = 64
"""Replies of one connection that may be awaited at once; reading pauses at this number. Enough to
hide a round trip of an asynchronous transform, small enough to bound a pipelining peer."""

OUTPUT_BATCH: Final = 64 * KIB
"""How much of a conversation's output is made before the transport is asked whether it wants more:
one chunk of many small messages with large replies must not grow without bound. The transport's
own high-water mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one TCP service.

    Attributes:
        max_length: bytes in one message of a framed conversation; exactly this many pass.
        async_window: replies of one connection that may be awaited at once.
        close_timeout: seconds from our last byte's hand-over to the peer's close.
        send_timeout: seconds without progress of what a peer is owed.
        idle_timeout: seconds without anything sent or taken.
        max_connections: open ones, over all addresses.
        max_per_address: open ones of one IPv4 address or IPv6 /64; None for any number.
        handshake_timeout: seconds that a TLS handshake may take.
        proxy_timeout: seconds that a proxy may take for its PROXY header.
    """

    max_length: int = MAX_LENGTH
    async_window: int = ASYNC_WINDOW
    close_timeout: float = CLOSE_TIMEOUT
    send_timeout: float = SEND_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT
    max_connections: int = MAX_CONNECTIONS
    max_per_address: int | None = None
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    proxy_timeout: float = PROXY_TIMEOUT
