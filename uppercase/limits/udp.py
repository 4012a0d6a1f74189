"""The bounds of the UDP service."""

from dataclasses import dataclass
from typing import Final

from uppercase.limits.shared import MIB

__all__ = [
    "IPV4_MAX_DATAGRAM",
    "IPV6_MAX_DATAGRAM",
    "LOOP_GUARD",
    "UDP_AMPLIFICATION",
    "UDP_MAX_REQUEST",
    "UDP_OUTSTANDING",
    "UDP_READ_SIZE",
    "UDP_RECEIVE_BUFFER",
    "DatagramLimits",
]

IPV4_MAX_DATAGRAM: Final = 65_507
"""65,535 (the IPv4 total length) less 20 bytes of IP header and 8 of UDP header."""

IPV6_MAX_DATAGRAM: Final = 65_527
"""65,535 (the IPv6 payload length, RFC 8200) less 8 bytes of UDP header."""

UDP_READ_SIZE: Final = 65_536
"""One more than any datagram can be, so that nothing is ever cut (Twisted's default is 8,192)."""

UDP_MAX_REQUEST: Final = 65_535
"""Every datagram passes by default: the length field of UDP is 16 bits wide (RFC 768)."""

UDP_AMPLIFICATION: Final = 3.0
"""A forged source address makes us a reflector; QUIC answers an unproven address with at most three
times what it got (RFC 9000 section 8). `str.upper` in UTF-8 grows a text 3.0 times at the most."""

UDP_RECEIVE_BUFFER: Final = 4 * MIB
"""What we ask the kernel to hold while the server is busy. The usual 208 KiB hold 256 datagrams of
one byte, less than a class of 200 sends at once. Linux grants up to net.core.rmem_max."""

UDP_OUTSTANDING: Final = 2048
"""Datagrams of one service whose replies may be awaited at once: ten for each of 200 clients. At
worst, with the longest datagrams, they hold 128 MiB."""

LOOP_GUARD: Final = 16
"""Returns of one reply, byte for byte, within `LOOP_WINDOW`, of which the last is dropped. One drop
ends a loop; a client that repeats a reply that fast loses one datagram in 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramLimits:
    """The bounds of one UDP service.

    Attributes:
        max_request: bytes in a request; exactly this many pass, a longer one is dropped, never cut.
        max_amplification: bytes of reply per byte of request; `REPLY_SLACK` more than the request
            are always allowed.
        loop_guard: returns of one reply within `LOOP_WINDOW` that take it for a loop; 0 is off.
        allow_low_ports: answer source ports below `LOW_PORTS` and `NFS_PORT`.
        rate: datagrams a second of one address; 0 is off.
        burst: datagrams that may come at once; 0 stands for `RATE_BURST_FACTOR` times the rate.
        rate_dry_run: count and report what the rate would drop, and answer it.
        receive_buffer: bytes to ask the kernel for (SO_RCVBUF); 0 leaves the system's default.
        max_outstanding: datagrams whose replies may be awaited at once.
    """

    max_request: int = UDP_MAX_REQUEST
    max_amplification: float = UDP_AMPLIFICATION
    loop_guard: int = LOOP_GUARD
    allow_low_ports: bool = False
    rate: float = 0.0
    burst: float = 0.0
    rate_dry_run: bool = False
    receive_buffer: int = UDP_RECEIVE_BUFFER
    max_outstanding: int = UDP_OUTSTANDING
