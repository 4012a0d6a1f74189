"""The bounds of the TCP service."""

from dataclasses import dataclass
from typing import Final

from uppercase.limits.shared import KIB

__all__ = [
    "ACCEPT_PAUSE",
    "ACCEPT_PAUSE_MOST",
    "ASYNC_WINDOW",
    "BACKLOG",
    "CLOSE_TIMEOUT",
    "DRAIN_QUIET",
    "EVICT_AFTER",
    "EVICT_BATCH",
    "EVICT_SEARCH_PAUSE",
    "HANDSHAKE_TIMEOUT",
    "IDLE_PRECISION",
    "IDLE_TIMEOUT",
    "IPV6_CLIENT_PREFIX",
    "LAB_PIECES",
    "LAB_PIECE_PAUSE",
    "LEAST_SHARE_OF_DESCRIPTORS",
    "MAX_CONNECTIONS",
    "MAX_LENGTH",
    "MESSAGE_COST",
    "OUTPUT_BATCH",
    "PEER_CHECK",
    "PRESSURE_SHARE",
    "PRESSURE_TOTAL",
    "PROGRESS_CHECKS",
    "PROXY_TIMEOUT",
    "PROXY_V1_MAX",
    "PROXY_V2_MAX",
    "SEND_TIMEOUT",
    "SPARE_DESCRIPTORS",
    "TLS_PIECE",
    "TURN",
    "Limits",
]

MAX_LENGTH: Final = 64 * KIB
"""One message of a framed conversation. Text lines are under 1 KiB; a peer may make us hold this
much while a message is incomplete."""

BACKLOG: Final = 1024
"""Connections that wait to be accepted. With Twisted's 50, a class of 200 that connects while the
server is busy for a second sees 149 of them wait for TCP's retransmission."""

CLOSE_TIMEOUT: Final = 5.0
"""How long a peer has to close its side once all of our output has been handed to the kernel."""

SEND_TIMEOUT: Final = 60.0
"""How long a peer may take no byte of what it is owed before the connection is aborted."""

PROGRESS_CHECKS: Final = 4
"""Looks per time-out at whether a peer takes what it is owed: one that stalls is found at most a
quarter of the time-out late."""

IDLE_TIMEOUT: Final = 600.0
"""How long a connection may neither send nor take anything. A human at nc thinks for minutes; what
is lost is a descriptor and 3 KiB."""

IDLE_PRECISION: Final = 1 / 16
"""The share of the idle time-out by which a connection may be closed late: how often all of them
are looked at, at the most."""

MAX_CONNECTIONS: Final = 1000
"""Connections at one time: five classes of 200, at 256 KiB each (the most that a peer can make us
hold) a quarter of a GiB."""

SPARE_DESCRIPTORS: Final = 64
"""File descriptors that connections leave to the rest of the process: standard streams, listening
ports, the log, the reactor's own, whatever a transform opens."""

ACCEPT_PAUSE: Final = 0.1
"""Seconds that a port rests when the system has no descriptor or memory for a new connection; it
doubles as long as that goes on."""

ACCEPT_PAUSE_MOST: Final = 1.0
"""The longest rest of a port: clients that wait in its queue do not notice a second."""

LEAST_SHARE_OF_DESCRIPTORS: Final = 0.5
"""What connections get where there are fewer descriptors than twice the spare ones."""

EVICT_AFTER: Final = 30.0
"""How long a connection must have been idle before it makes room for a newcomer when all are
taken: no program that is at work pauses for so long, and at nc it is the one least missed."""

EVICT_BATCH: Final = 32
"""Idle connections that one search finds, longest idle first (nginx takes as many at a time)."""

EVICT_SEARCH_PAUSE: Final = 0.1
"""Seconds after a search that found no idle connection in which there is no other: refusing a
flood of newcomers must not cost a look at every connection for each of them."""

PRESSURE_TOTAL: Final = 0.8
"""The share of all connections from which on an address that has too many gets no more."""

PRESSURE_SHARE: Final = 0.5
"""The share that is too many for one address then: a class of 200 has a fifth."""

IPV6_CLIENT_PREFIX: Final = 64
"""A client of IPv6 has a network of this prefix length to itself (RFC 6177, RFC 7934), so counting
its single addresses would count nothing."""

DRAIN_QUIET: Final = 1.0
"""A connection without traffic for this long is closed at once when the service stops. On others
more input may be under way, and closing a socket that has some resets the replies before it."""

PEER_CHECK: Final = 1.0
"""Seconds between looks at a peer from which nothing is read and to which nothing is written: the
reactor would not notice that it is gone, and an awaited reply would not be cancelled."""

HANDSHAKE_TIMEOUT: Final = 15.0
"""How long a TLS handshake may take, from the connection's acceptance: two or three round trips and
four retransmissions of a lost segment (1, 2, 4 and 8 s). It also bounds what a mute peer costs."""

TLS_PIECE: Final = 16 * KIB
"""How much is given to OpenSSL at once: its buffer for input grows to the largest piece and never
shrinks. The most that one TLS record carries (RFC 8446 section 5.1)."""

PROXY_TIMEOUT: Final = 5.0
"""How long a proxy may take to send its PROXY header. Proxies send it in the first segment; the
protocol asks receivers to allow for retransmissions, at least 3 s."""

PROXY_V1_MAX: Final = 107
"""Bytes of a PROXY header of version 1, its CRLF included: the longest that the protocol allows."""

PROXY_V2_MAX: Final = 2 * KIB
"""Bytes of a PROXY header of version 2. The protocol can declare 64 KiB; addresses take 52 bytes,
and HAProxy's additions (certificate names, unique IDs) some hundred."""

ASYNC_WINDOW: Final = 64
"""Replies of one connection that may be awaited at once; reading pauses at this number. Enough to
hide a round trip of an asynchronous transform, small enough to bound a pipelining peer."""

OUTPUT_BATCH: Final = 64 * KIB
"""How much of a conversation's output is made before the transport is asked whether it wants more:
one chunk of many small messages with large replies must not grow without bound. The transport's
own high-water mark."""

MESSAGE_COST: Final = 256
"""What a message counts in a batch besides its reply's bytes, so that a batch has 256 at the most:
a chunk of 64 KiB may hold 65,536 empty ones, and the clock is looked at between batches. That costs
a flood of empty messages 5 % (batches of 64: 60 %)."""

TURN: Final = 0.05
"""How long one connection may keep the reactor before the others have their turn: a transform of
1 ms would otherwise keep it for a minute with one chunk of short messages."""

LAB_PIECE_PAUSE: Final = 0.01
"""Seconds between the pieces of a reply that is cut: long enough for a client that waits in `recv`
to be woken by the first, and a line of 80 letters still comes within a second."""

LAB_PIECES: Final = 256
"""Pieces into which one reply is cut at the most, so that it comes within 3 s and 200 students who
send much do not keep the server busy; longer replies are cut into larger pieces."""


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
