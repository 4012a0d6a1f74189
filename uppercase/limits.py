"""Every bound of the framework as a named value, each with its reason.

Options and settings take their defaults from here; no other module writes such a number down.
Sizes are bytes and durations are seconds unless the name says otherwise. This module imports
nothing of ours.
"""

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ACCEPT_PAUSE",
    "ACCEPT_PAUSE_MOST",
    "ASYNC_WINDOW",
    "BACKLOG",
    "CLOSE_TIMEOUT",
    "CONNECT_TIMEOUT",
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DRAIN",
    "DRAIN_QUIET",
    "DRAIN_REPORT",
    "EVICT_AFTER",
    "EVICT_BATCH",
    "EVICT_SEARCH_PAUSE",
    "FILTER_CHUNK",
    "FREE_PORT_TRIES",
    "IDLE_PRECISION",
    "IDLE_TIMEOUT",
    "IPV4_MAX_DATAGRAM",
    "IPV6_CLIENT_PREFIX",
    "IPV6_MAX_DATAGRAM",
    "KIB",
    "LAB_CLIENTS",
    "LAB_FORGET",
    "LAB_HELD_BYTES",
    "LAB_HELD_COST",
    "LAB_MAX_DELAY",
    "LAB_MIN_BURST_CHANGE",
    "LAB_PIECES",
    "LAB_PIECE_PAUSE",
    "LAB_REORDER_HOLD",
    "LAB_SEEDS",
    "LEAST_SHARE_OF_DESCRIPTORS",
    "LINE_QUIET_TIME",
    "LOG_INTERVAL",
    "LOG_TEXT",
    "MAX_CONNECTIONS",
    "MAX_LENGTH",
    "MAX_OUTPUT",
    "MAX_PORT",
    "MESSAGE_COST",
    "MIB",
    "OUTPUT_BATCH",
    "PRESSURE_SHARE",
    "PRESSURE_TOTAL",
    "PROGRESS_CHECKS",
    "REPLY_TIMEOUT",
    "SAFE_DATAGRAM",
    "SEND_TIMEOUT",
    "SLOW_CALL",
    "SPARE_DESCRIPTORS",
    "STOP_GRACE",
    "TLS_QUIET_TIME",
    "TRACEBACK_INTERVAL",
    "TRACEBACK_LINES",
    "TURN",
    "UDP_MAX_TIMEOUT",
    "UDP_MAX_WINDOW",
    "UDP_PORT_MEMORY",
    "UDP_READ_SIZE",
    "UDP_RETRIES",
    "UDP_TIMEOUT",
    "UDP_WINDOW",
    "VIGIL",
    "Limits",
]

KIB: Final = 1024
MIB: Final = 1024 * KIB

DEFAULT_PORT: Final = 12000
"""The port of the lecture's programs; below the ephemeral range of Linux (32768)."""

DEFAULT_HOST: Final = "127.0.0.1"
"""Where a client looks for a server that is not named: the servers' own default is loopback."""

MAX_PORT: Final = 65535
"""Ports are 16 bits wide (RFC 9293 section 3.1, RFC 768)."""

MAX_LENGTH: Final = 64 * KIB
"""One message of a framed conversation. Text lines are under 1 KiB; a peer may make us hold this
much while a message is incomplete."""

MAX_OUTPUT: Final = 1 * MIB
"""The output of each stage for one message or chunk: 16 times the longest message leaves room for
every sensible expansion and none for a decompression bomb."""

BACKLOG: Final = 1024
"""Connections that wait to be accepted. With Twisted's 50, a class of 200 that connects while the
server is busy for a second sees 149 of them wait for TCP's retransmission."""

CLOSE_TIMEOUT: Final = 5.0
"""How long a peer has to close its side once all of our output has been handed to the kernel."""

CONNECT_TIMEOUT: Final = 5.0
"""How long a client waits for a connection: two retransmissions of a lost SYN (1 s, then 2 s more)
and a round trip to spare."""

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

VIGIL: Final = 1.0
"""Seconds between looks at a peer from which nothing is read and to which nothing is written: the
reactor would not notice that it is gone, and an awaited reply would not be cancelled."""

STOP_GRACE: Final = 5.0
"""Seconds beyond the drain time after which a process that still has not ended is ended."""

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

SLOW_CALL: Final = 0.1
"""A call of a transform that blocks the reactor for longer than this is reported by name: nobody
else is served meanwhile, and 100 ms is where people begin to notice."""

DRAIN: Final = 10.0
"""How long a stop waits for what is owed; well below the 90 s after which systemd kills."""

DRAIN_REPORT: Final = 1.0
"""Seconds between the lines that tell how a stop gets on."""

FREE_PORT_TRIES: Final = 16
"""How often port 0 is tried anew when the port that one address family gave is taken in another."""

LOG_INTERVAL: Final = 1.0
"""Seconds in which each reason has one line in the log at the most: a peer that can cause a line
must not be able to fill a disk."""

LOG_TEXT: Final = 200
"""Characters of one line that may come from outside."""

TRACEBACK_INTERVAL: Final = 60.0
"""Seconds in which a transform has one traceback per exception type: a function that fails on
every message would otherwise write hundreds of bytes of log for each byte received."""

TRACEBACK_LINES: Final = 60
"""Lines of one traceback, the last ones: twenty frames show what a transform did."""

IPV4_MAX_DATAGRAM: Final = 65_507
"""65,535 (the IPv4 total length) less 20 bytes of IP header and 8 of UDP header."""

IPV6_MAX_DATAGRAM: Final = 65_527
"""65,535 (the IPv6 payload length, RFC 8200) less 8 bytes of UDP header."""

UDP_READ_SIZE: Final = 65_536
"""One more than any datagram can be, so that nothing is ever cut (Twisted's default is 8,192)."""

LAB_CLIENTS: Final = 10_000
"""Clients whose datagrams the lab counts. A class of 200 with 50 sockets each fits; at some 300
bytes an entry it is 3 MB. The client that has been silent longest is forgotten first."""

LAB_FORGET: Final = 60.0
"""A client silent for this long starts again at datagram 1: longer than any time-out of a lab, and
short enough that a program that binds a fixed port meets the same fates a minute later."""

LAB_MAX_DELAY: Final = 60.0
"""The longest delay and the widest jitter of the lab: what is delayed is held in memory."""

LAB_HELD_BYTES: Final = 16 * MIB
"""What the lab holds back at one time, over all clients; more is dropped and reported. It is
16,000 small datagrams: 200 students may have 80 each under way."""

LAB_HELD_COST: Final = 1 * KIB
"""What holding one datagram costs besides its bytes: the timer, the addresses, the records."""

LAB_REORDER_HOLD: Final = 0.25
"""How long a reordered datagram is held. A client with several under way sends the next one within
milliseconds, so that it overtakes; labs time out after a second, so that it is not taken for
lost."""

LAB_MIN_BURST_CHANGE: Final = 0.01
"""The least sum of a burst's two transition probabilities. The state is found by looking back over
1 / sum datagrams on average: 100 hashes, 0.3 ms."""

LAB_SEEDS: Final = 1_000_000
"""Random seeds are below this: six digits can be read from a projector and typed."""

LAB_PIECE_PAUSE: Final = 0.01
"""Seconds between the pieces of a reply that is cut: long enough for a client that waits in `recv`
to be woken by the first, and a line of 80 letters still comes within a second."""

LAB_PIECES: Final = 256
"""Pieces into which one reply is cut at the most, so that it comes within 3 s and 200 students who
send much do not keep the server busy; longer replies are cut into larger pieces."""

REPLY_TIMEOUT: Final = 10.0
"""How long a TCP client waits while a server that owes it something sends nothing. TCP itself
repeats what is lost, which takes seconds where loss is heavy."""

LINE_QUIET_TIME: Final = 0.3
"""When a reply to a typed line that does not end with a newline counts as complete: after this
silence. More than a round trip round the earth, less than a person minds."""

TLS_QUIET_TIME: Final = 1.0
"""How long a TLS server must have been silent after the end of the input before the client ends the
connection. TLS has no half-close that servers honour, so the client must guess that it has all."""

FILTER_CHUNK: Final = 256 * KIB
"""Bytes that the client's filter reads at once: larger chunks are no faster."""

UDP_TIMEOUT: Final = 1.0
"""How long the first ask for a reply waits (RFC 6298 section 2.1: 1 second until an RTT is known);
each repetition waits twice as long."""

UDP_MAX_TIMEOUT: Final = 60.0
"""No repetition waits longer (RFC 6298 section 2.5)."""

UDP_RETRIES: Final = 3
"""Repetitions of a request: at the lab's 36.4 % loss, four asks fail once in 57 requests."""

UDP_WINDOW: Final = 16
"""Requests that a client has under way: their datagrams of 1,232 bytes fit many times into Linux's
default receive buffer (208 KiB), and 16 a round trip is no burden for a network."""

UDP_MAX_WINDOW: Final = 512
"""Each request under way has a socket of its own; Linux gives a process 1,024 descriptors."""

UDP_PORT_MEMORY: Final = 4096
"""A source port is not used again for so many requests, lest a late duplicate of one reply be
taken for another. A seventh of Linux's ephemeral ports, so a fresh one is quickly found."""

SAFE_DATAGRAM: Final = 1232
"""Payload that no usual path fragments: IPv6's minimum MTU of 1,280 less 48 bytes of headers (DNS
Flag Day 2020)."""


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
    """

    max_length: int = MAX_LENGTH
    async_window: int = ASYNC_WINDOW
    close_timeout: float = CLOSE_TIMEOUT
    send_timeout: float = SEND_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT
    max_connections: int = MAX_CONNECTIONS
    max_per_address: int | None = None
