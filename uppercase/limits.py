"""The bounds that several rooms share, and the records of each service's own, with reasons.

A bound with one user stands beside its code, or is the default of its field. Sizes are bytes and
durations are seconds unless the name says otherwise. The one switch between what only some systems
have and what runs everywhere is here too. This module imports nothing of ours.
"""

import os
from dataclasses import dataclass
from typing import Final

KIB: Final = 1024

MIB: Final = 1024 * KIB

DEFAULT_PORT: Final = 12000
"""The port of the lecture's programs; below the ephemeral range of Linux (32768)."""

DEFAULT_HOST: Final = "127.0.0.1"
"""Where a client looks for a server that is not named: the servers' own default is loopback."""

MAX_PORT: Final = 65535
"""Ports are 16 bits wide (RFC 9293 section 3.1, RFC 768)."""

NFS_PORT: Final = 2049
"""The one old well-known service that answers above the low ports: we answer nobody there."""

MAX_OUTPUT: Final = 1 * MIB
"""The output of each stage for one message or chunk: 16 times the longest message leaves room for
every sensible expansion and none for a decompression bomb."""

TURN: Final = 0.005
"""Seconds for which connections, or datagrams, keep the reactor from everything else, unless one
message takes longer. With 1 ms others waited longer, not less, as turns have a price."""

SLOW_CALL: Final = 0.1
"""A call of a transform that blocks the reactor for longer than this is reported by name: nobody
else is served meanwhile, and 100 ms is where people begin to notice."""

DRAIN: Final = 10.0
"""How long a stop waits for what is owed; well below the 90 s after which systemd kills."""

DRAIN_QUIET: Final = 0.5
"""How long a connection must be quiet before a stop ends it: longer than the round trip to the
other side of the world, and shorter than anybody who waits for a restart minds."""

LOG_INTERVAL: Final = 1.0
"""Seconds in which each reason has at most one line in the log: a peer that can cause a line
must not be able to fill a disk."""

MAX_LENGTH: Final = 64 * KIB
"""One message of a framed conversation. Text lines are under 1 KiB; a peer may make us hold this
much while a message is incomplete."""

CLOSE_TIMEOUT: Final = 5.0
"""How long a peer has to close its side once all of our output has been handed to the kernel."""

ASYNC_WINDOW: Final = 64
"""Replies of one connection that may be awaited at once; reading pauses at this number. Enough to
hide a round trip of an asynchronous transform, small enough to bound a pipelining peer."""

OUTPUT_BATCH: Final = 64 * KIB
"""How much of a conversation's output is made before the transport is asked whether it wants more:
one chunk of many small messages with large replies must not grow without bound. The transport's
own high-water mark."""

RECORD_BYTES: Final = 64
"""Bytes of a payload that a record keeps: a message of the lecture."""

RECORD_LIMIT: Final = 100 * MIB
"""Bytes of a record: some 300,000 datagrams and their replies."""

IPV4_MAX_DATAGRAM: Final = 65_507
"""65,535 (the IPv4 total length) less 20 bytes of IP header and 8 of UDP header."""

IPV6_MAX_DATAGRAM: Final = 65_527
"""65,535 (the IPv6 payload length, RFC 8200) less 8 bytes of UDP header."""

UDP_READ_SIZE: Final = 65_536
"""One more than any datagram can be, so that nothing is ever cut (Twisted's default is 8,192)."""

UDP_MAX_REQUEST: Final = 65_535
"""Every datagram passes by default: the length field of UDP is 16 bits wide (RFC 768)."""

CONNECT_TIMEOUT: Final = 5.0
"""How long a client waits for a connection: two retransmissions of a lost SYN (1 s, then 2 s more)
and a round trip to spare."""

PROBE_SIZE: Final = 64
"""Bytes of a probe: what ping(8) sends, 56 bytes and the ICMP header."""

REPLY_TIMEOUT: Final = 10.0
"""How long a TCP client waits while a server that owes it something sends nothing. TCP itself
repeats what is lost, which takes seconds where loss is heavy."""

UDP_TIMEOUT: Final = 1.0
"""The first ask for a reply waits this long (RFC 6298, section 2.1, before an RTT is known);
each repetition waits twice as long."""

UDP_RETRIES: Final = 3
"""Repetitions of a request: at the lab's 36.4 % loss, four asks fail once in 57 requests."""

KIT_LARGE: Final = MAX_LENGTH
"""The largest message that the contract kit tries: the largest that a framed conversation has."""

PORTABLE: Final = bool(os.environ.get("UPPERCASE_PORTABLE"))
"""Whether TCP and UDP go the ways of systems that have neither epoll nor recvmmsg: for comparison,
and for tests that both ways come to the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one TCP service."""

    max_length: int = MAX_LENGTH
    """Bytes in one message of a framed conversation; exactly this many pass."""

    async_window: int = ASYNC_WINDOW
    """Replies of one connection that may be awaited at once."""

    close_timeout: float = CLOSE_TIMEOUT
    """Seconds from our last byte's hand-over to the peer's close."""

    send_timeout: float = 60.0
    """How long a peer may take no byte of what it is owed before the connection is aborted."""

    idle_timeout: float = 600.0
    """How long a connection may neither send nor take anything. A human at nc thinks for minutes;
    what is lost is a descriptor and 3 KiB."""

    max_connections: int = 1000
    """Open ones, over all addresses: five classes of 200, at 256 KiB each (the most that a peer can
    make us hold) a quarter of a GiB."""

    max_per_address: int | None = None
    """Open ones of one IPv4 address or IPv6 /64; None for any number."""

    handshake_timeout: float = 15.0
    """How long a TLS handshake may take, from the connection's acceptance: two or three round trips
    and four retransmissions of a lost segment (1, 2, 4 and 8 s). It also bounds what a mute peer
    costs."""

    proxy_timeout: float = 5.0
    """How long a proxy may take to send its PROXY header. Proxies send it in the first segment; the
    protocol asks receivers to allow for retransmissions, at least 3 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramLimits:
    """The bounds of one UDP service."""

    max_request: int = UDP_MAX_REQUEST
    """Bytes in a request; exactly this many pass, a longer one is dropped, never cut."""

    max_amplification: float = 3.0
    """Bytes of reply per byte of request; `REPLY_SLACK` more than the request are always allowed. A
    forged source address makes us a reflector; QUIC answers an unproven address with at most three
    times what it got (RFC 9000 section 8). `str.upper` in UTF-8 grows a text 3.0 times at most."""

    loop_guard: int = 16
    """Returns of one reply, byte for byte, within `LOOP_WINDOW`, that take it for a loop; the last
    is dropped, and 0 is off. One drop ends a loop; a client that repeats a reply that fast loses
    one datagram in 16."""

    allow_low_ports: bool = False
    """Answer source ports below `LOW_PORTS` and `NFS_PORT`."""

    rate: float = 0.0
    """Datagrams a second of one address; 0 is off."""

    burst: float = 0.0
    """Datagrams that may come at once; 0 stands for `RATE_BURST_FACTOR` times the rate."""

    rate_dry_run: bool = False
    """Count and report what the rate would drop, and answer it."""

    receive_buffer: int = 4 * MIB
    """Bytes to ask the kernel for (SO_RCVBUF), to hold while the server is busy; 0 leaves the
    system's default. The usual 208 KiB hold 256 datagrams of one byte, less than a class of 200
    sends at once. Linux grants up to net.core.rmem_max."""

    max_outstanding: int = 2048
    """Datagrams whose replies may be awaited at once: ten for each of 200 clients. At worst, with
    the longest datagrams, they hold 128 MiB."""
