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
    "CONNECT_NOTICE",
    "CONNECT_TIMEOUT",
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "FILTER_CHUNK",
    "IPV4_MAX_DATAGRAM",
    "IPV6_MAX_DATAGRAM",
    "KIB",
    "LINE_QUIET_TIME",
    "MAX_LENGTH",
    "MAX_OUTPUT",
    "MAX_PORT",
    "MAX_REPLY",
    "MIB",
    "REPLY_TIMEOUT",
    "SAFE_DATAGRAM",
    "SEND_TIMEOUT",
    "TLS_QUIET_TIME",
    "UDP_MAX_TIMEOUT",
    "UDP_MAX_WINDOW",
    "UDP_PORT_MEMORY",
    "UDP_PORT_TRIES",
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

CONNECT_NOTICE: Final = 0.1
"""When a person is told what is being waited for: what takes less is felt as immediate."""

SEND_TIMEOUT: Final = 60.0
"""How long a peer may take no byte of what it is owed before the connection is aborted."""

ASYNC_WINDOW: Final = 64
"""Replies of one connection that may be awaited at once; reading pauses at this number. Enough to
hide a round trip of an asynchronous transform, small enough to bound a pipelining peer."""

IPV4_MAX_DATAGRAM: Final = 65_507
"""65,535 (the IPv4 total length) less 20 bytes of IP header and 8 of UDP header."""

IPV6_MAX_DATAGRAM: Final = 65_527
"""65,535 (the IPv6 payload length, RFC 8200) less 8 bytes of UDP header."""

UDP_READ_SIZE: Final = 65_536
"""One more than any datagram can be, so that nothing is ever cut (Twisted's default is 8,192)."""

REPLY_TIMEOUT: Final = 10.0
"""How long a TCP client waits while a server that owes it something sends nothing. TCP itself
repeats what is lost, which takes seconds where loss is heavy."""

LINE_QUIET_TIME: Final = 0.3
"""When a reply to a typed line that does not end with a newline counts as complete: after this
silence. More than a round trip round the earth, less than a person minds."""

TLS_QUIET_TIME: Final = 1.0
"""How long a TLS server must have been silent after the end of the input before the client ends the
connection. TLS has no half-close that servers honour, so the client must guess that it has all."""

MAX_REPLY: Final = 16 * MIB
"""What a client's library collects of one reply that only the end of the connection delimits."""

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

UDP_PORT_TRIES: Final = 64
"""So many used ports in a row mean that the system has hardly any others; otherwise the chance of
as many is below 1e-30."""

SAFE_DATAGRAM: Final = 1232
"""Payload that no usual path fragments: IPv6's minimum MTU of 1,280 less 48 bytes of headers (DNS
Flag Day 2020)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one TCP service.

    Attributes:
        max_length: bytes in one message of a framed conversation; exactly this many pass.
        max_output: bytes of each stage's output for one message or chunk.
        async_window: replies of one connection that may be awaited at once.
        close_timeout: seconds from our last byte's hand-over to the peer's close.
        send_timeout: seconds without progress of what a peer is owed.
    """

    max_length: int = MAX_LENGTH
    max_output: int = MAX_OUTPUT
    async_window: int = ASYNC_WINDOW
    close_timeout: float = CLOSE_TIMEOUT
    send_timeout: float = SEND_TIMEOUT
