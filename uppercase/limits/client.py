"""The defaults and bounds of the `uppercase` command and the client library."""

from typing import Final

from uppercase.limits.shared import MIB

__all__ = [
    "CONNECT_TIMEOUT",
    "MAX_REPLY",
    "PING_BACKLOG",
    "PING_CONNECTIONS",
    "PING_INTERVAL",
    "PING_MEMORY",
    "PING_MIN_INTERVAL",
    "PING_SAMPLES",
    "PROBE_MIN_SIZE",
    "PROBE_SIZE",
    "REPLY_TIMEOUT",
    "UDP_MAX_WINDOW",
    "UDP_RETRIES",
    "UDP_TIMEOUT",
    "UDP_WINDOW",
]

CONNECT_TIMEOUT: Final = 5.0
"""How long a client waits for a connection: two retransmissions of a lost SYN (1 s, then 2 s more)
and a round trip to spare."""

PROBE_SIZE: Final = 64
"""Bytes of a probe: what ping(8) sends, 56 bytes and the ICMP header."""

PROBE_MIN_SIZE: Final = 16
"""A probe holds a mark of 4 letters, its number of up to 10 digits, a letter and a line ending."""

PING_INTERVAL: Final = 1.0
"""Seconds between probes, as in ping(8)."""

PING_MIN_INTERVAL: Final = 0.001
"""A process's timers are good for about a millisecond; more load than this is bench's affair."""

PING_MEMORY: Final = 8 * MIB
"""Bytes that ping spends on remembering settled probes, so that a late reply or a duplicate is told
from a wrong one: four hours of probes at the defaults."""

PING_SAMPLES: Final = 100_000
"""Round trips that percentiles and plots look back on: a day at the default interval."""

PING_BACKLOG: Final = 16 * MIB
"""Bytes that wait because a server has stopped reading, before ping says so and ends."""

PING_CONNECTIONS: Final = 256
"""Connections of one probe each that ping keeps open at once, for replies that are still to come;
beyond it the oldest is given up. A quarter of the 1,024 descriptors that a process usually has."""

REPLY_TIMEOUT: Final = 10.0
"""How long a TCP client waits while a server that owes it something sends nothing. TCP itself
repeats what is lost, which takes seconds where loss is heavy."""

MAX_REPLY: Final = 16 * MIB
"""What a client's library collects of one reply that only the end of the connection delimits."""

UDP_TIMEOUT: Final = 1.0
"""How long the first ask for a reply waits (RFC 6298 section 2.1: 1 second until an RTT is known);
each repetition waits twice as long."""

UDP_RETRIES: Final = 3
"""Repetitions of a request: at the lab's 36.4 % loss, four asks fail once in 57 requests."""

UDP_WINDOW: Final = 16
"""Requests that a client has under way: their datagrams of 1,232 bytes fit many times into Linux's
default receive buffer (208 KiB), and 16 a round trip is no burden for a network."""

UDP_MAX_WINDOW: Final = 512
"""Each request under way has a socket of its own; Linux gives a process 1,024 descriptors."""
