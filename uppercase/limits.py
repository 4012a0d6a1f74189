"""Every bound of the framework as a named value, each with its reason.

Options and settings take their defaults from here; no other module writes such a number down.
Sizes are bytes and durations are seconds unless the name says otherwise. This module imports
nothing of ours.
"""

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ASYNC_WINDOW",
    "BACKLOG",
    "CLOSE_TIMEOUT",
    "CONNECT_TIMEOUT",
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DRAIN",
    "DRAIN_REPORT",
    "FILTER_CHUNK",
    "FREE_PORT_TRIES",
    "HANDSHAKE_TIMEOUT",
    "IPV4_MAX_DATAGRAM",
    "IPV6_MAX_DATAGRAM",
    "KIB",
    "LAB_CLIENTS",
    "LAB_FORGET",
    "LAB_HELD_BYTES",
    "LAB_HELD_COST",
    "LAB_MAX_DELAY",
    "LAB_MIN_BURST_CHANGE",
    "LAB_REORDER_HOLD",
    "LAB_SEEDS",
    "LINE_QUIET_TIME",
    "LOG_INTERVAL",
    "LOG_TEXT",
    "MAX_LENGTH",
    "MAX_OUTPUT",
    "MAX_PORT",
    "MIB",
    "OUTPUT_BATCH",
    "PROXY_TIMEOUT",
    "PROXY_V1_MAX",
    "PROXY_V2_MAX",
    "REPLY_TIMEOUT",
    "SAFE_DATAGRAM",
    "SEND_TIMEOUT",
    "SLOW_CALL",
    "TLS_PIECE",
    "TLS_QUIET_TIME",
    "TRACEBACK_INTERVAL",
    "UDP_MAX_TIMEOUT",
    "UDP_MAX_WINDOW",
    "UDP_PORT_MEMORY",
    "UDP_READ_SIZE",
    "UDP_RETRIES",
    "UDP_TIMEOUT",
    "UDP_WINDOW",
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
        handshake_timeout: seconds that a TLS handshake may take.
        proxy_timeout: seconds that a proxy may take for its PROXY header.
    """

    max_length: int = MAX_LENGTH
    async_window: int = ASYNC_WINDOW
    close_timeout: float = CLOSE_TIMEOUT
    send_timeout: float = SEND_TIMEOUT
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    proxy_timeout: float = PROXY_TIMEOUT
