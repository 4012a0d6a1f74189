"""Bounds and defaults of both services: where they listen, what they log, how they stop."""

from typing import Final

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DRAIN",
    "DRAIN_REPORT",
    "FREE_PORT_TRIES",
    "KIB",
    "LOG_INTERVAL",
    "LOG_PAYLOAD",
    "LOG_TEXT",
    "MAX_OUTPUT",
    "MAX_PORT",
    "MIB",
    "SLOW_CALL",
    "TRACEBACK_INTERVAL",
    "TRACEBACK_LINES",
]

KIB: Final = 1024

MIB: Final = 1024 * KIB

DEFAULT_PORT: Final = 12000
"""The port of the lecture's programs; below the ephemeral range of Linux (32768)."""

DEFAULT_HOST: Final = "127.0.0.1"
"""Where a client looks for a server that is not named: the servers' own default is loopback."""

MAX_PORT: Final = 65535
"""Ports are 16 bits wide (RFC 9293 section 3.1, RFC 768)."""

MAX_OUTPUT: Final = 1 * MIB
"""The output of each stage for one message or chunk: 16 times the longest message leaves room for
every sensible expansion and none for a decompression bomb."""

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

LOG_PAYLOAD: Final = 24
"""Bytes of a payload that a line shows: a message of the lecture, and request and reply fit into
one line of a projector."""

TRACEBACK_INTERVAL: Final = 60.0
"""Seconds in which a transform has one traceback per exception type: a function that fails on
every message would otherwise write hundreds of bytes of log for each byte received."""

TRACEBACK_LINES: Final = 60
"""Lines of one traceback, the last ones: twenty frames show what a transform did."""
