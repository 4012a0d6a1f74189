"""Bounds and defaults of both services: where they listen, what they log, how they stop."""

from typing import Final

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DRAIN",
    "KIB",
    "LOG_INTERVAL",
    "MAX_OUTPUT",
    "MAX_PORT",
    "MIB",
    "SLOW_CALL",
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

LOG_INTERVAL: Final = 1.0
"""Seconds in which each reason has one line in the log at the most: a peer that can cause a line
must not be able to fill a disk."""
