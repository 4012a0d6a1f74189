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
    "BENCH_BLOCK",
    "BENCH_CONNECTIONS",
    "BENCH_DURATION",
    "BENCH_MAX_MEMORY",
    "BENCH_MIN_SIZE",
    "BENCH_PIPELINE",
    "BENCH_SAMPLES",
    "BENCH_UDP_MESSAGES",
    "CLOSE_TIMEOUT",
    "CONNECT_NOTICE",
    "CONNECT_TIMEOUT",
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DRAIN",
    "DRAIN_QUIET",
    "DRAIN_REPORT",
    "EPHEMERAL_PORTS",
    "EVICT_AFTER",
    "EVICT_BATCH",
    "EVICT_SEARCH_PAUSE",
    "FATES_COUNT",
    "FILTER_CHUNK",
    "FREE_PORT_TRIES",
    "HANDSHAKE_TIMEOUT",
    "IDLE_PRECISION",
    "IDLE_TIMEOUT",
    "IPV4_MAX_DATAGRAM",
    "IPV6_CLIENT_PREFIX",
    "IPV6_MAX_DATAGRAM",
    "KERNEL_LOOK",
    "KIB",
    "KIT_CALL_TIME",
    "KIT_EXAMPLES",
    "KIT_LARGE",
    "KIT_WAIT",
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
    "LOG_PAYLOAD",
    "LOG_TEXT",
    "LOOP_GUARD",
    "LOOP_TABLE",
    "LOOP_WINDOW",
    "LOW_PORTS",
    "MAX_CONNECTIONS",
    "MAX_LENGTH",
    "MAX_OUTPUT",
    "MAX_PORT",
    "MAX_REPLY",
    "MESSAGE_COST",
    "MIB",
    "NFS_PORT",
    "OUTPUT_BATCH",
    "PING_BACKLOG",
    "PING_CONNECTIONS",
    "PING_INTERVAL",
    "PING_MEMORY",
    "PING_MIN_INTERVAL",
    "PING_SAMPLES",
    "PRESSURE_SHARE",
    "PRESSURE_TOTAL",
    "PROBE_MIN_SIZE",
    "PROBE_SIZE",
    "PROGRESS_CHECKS",
    "PROXY_TIMEOUT",
    "PROXY_V1_MAX",
    "PROXY_V2_MAX",
    "RATE_BURST_FACTOR",
    "RATE_PREFIX_FACTOR",
    "RATE_TABLE",
    "RECEIVE_PAUSE",
    "RECEIVE_PAUSE_MAX",
    "REPLY_TIMEOUT",
    "SAFE_DATAGRAM",
    "SEND_TIMEOUT",
    "SLOW_CALL",
    "SPARE_DESCRIPTORS",
    "STOP_GRACE",
    "TLS_PIECE",
    "TLS_QUIET_TIME",
    "TRACEBACK_INTERVAL",
    "TRACEBACK_LINES",
    "TRY_CHUNK",
    "TURN",
    "UDP_AMPLIFICATION",
    "UDP_BATCH",
    "UDP_DRAIN_BATCHES",
    "UDP_MAX_REQUEST",
    "UDP_MAX_TIMEOUT",
    "UDP_MAX_WINDOW",
    "UDP_OUTSTANDING",
    "UDP_PORT_MEMORY",
    "UDP_PORT_TRIES",
    "UDP_READ_SIZE",
    "UDP_RECEIVE_BUFFER",
    "UDP_REPLY_SLACK",
    "UDP_RETRIES",
    "UDP_TIMEOUT",
    "UDP_WINDOW",
    "VIGIL",
    "DatagramLimits",
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

IPV4_MAX_DATAGRAM: Final = 65_507
"""65,535 (the IPv4 total length) less 20 bytes of IP header and 8 of UDP header."""

IPV6_MAX_DATAGRAM: Final = 65_527
"""65,535 (the IPv6 payload length, RFC 8200) less 8 bytes of UDP header."""

UDP_READ_SIZE: Final = 65_536
"""One more than any datagram can be, so that nothing is ever cut (Twisted's default is 8,192)."""

KERNEL_LOOK: Final = 2.0
"""Seconds between looks at how many datagrams the system had no room for: a line while the class
still wonders, for one system call."""

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

FATES_COUNT: Final = 20
"""Lines of an answer key: what fits on a screen or a sheet of paper."""

BENCH_CONNECTIONS: Final = 8
"""Connections, or datagram sockets, of a bench: enough that a server is never idle between one
client's request and the next, few enough that what it costs is the messages."""

BENCH_PIPELINE: Final = 1
"""Messages that one connection may await at once: request and reply in turn, as most clients do."""

BENCH_DURATION: Final = 10.0
"""Seconds of load: long enough for a stable p99, as in iperf3."""

BENCH_BLOCK: Final = 256 * KIB
"""Bytes that one send or one read of a bench may move: the cost of a call no longer matters."""

BENCH_MIN_SIZE: Final = 8
"""A message of a bench holds its number of up to 6 digits, a letter and a line ending."""

BENCH_MAX_MEMORY: Final = 64 * MIB
"""Bytes of the messages that a bench prepares; it keeps them, their replies, and each twice."""

BENCH_UDP_MESSAGES: Final = 16_384
"""Different datagrams that a bench sends in turn: one that comes back is told from the others until
as many have followed it."""

BENCH_SAMPLES: Final = 100_000
"""Different latencies, in microseconds, that are counted before they are put into the histogram."""

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
UDP_MAX_REQUEST: Final = 65_535
"""Every datagram passes by default: the length field of UDP is 16 bits wide (RFC 768)."""

UDP_AMPLIFICATION: Final = 3.0
"""A forged source address makes us a reflector; QUIC answers an unproven address with at most three
times what it got (RFC 9000 section 8). `str.upper` in UTF-8 grows a text 3.0 times at the most."""

UDP_REPLY_SLACK: Final = 64
"""A reply may always be this much longer than its request: a SHA-256 digest in hexadecimal fits,
and with the headers of IP and UDP the traffic still grows less than fourfold."""

UDP_BATCH: Final = 64
"""Datagrams read in one wake-up of the reactor. Counted in datagrams, because empty ones have no
bytes to count: timers, signals and other sockets get their turn under any flood."""

UDP_RECEIVE_BUFFER: Final = 4 * MIB
"""What we ask the kernel to hold while the server is busy. The usual 208 KiB hold 256 datagrams of
one byte, less than a class of 200 sends at once. Linux grants up to net.core.rmem_max."""

UDP_OUTSTANDING: Final = 2048
"""Datagrams of one service whose replies may be awaited at once: ten for each of 200 clients. At
worst, with the longest datagrams, they hold 128 MiB."""

UDP_DRAIN_BATCHES: Final = 256
"""Batches that a stop reads at the most: more datagrams than the receive buffer holds (a small one
takes 830 of its 8 MiB), so a flood cannot hold up the end."""

LOOP_GUARD: Final = 16
"""Returns of one reply, byte for byte, within `LOOP_WINDOW`, of which the last is dropped. One drop
ends a loop; a client that repeats a reply that fast loses one datagram in 16."""

LOOP_WINDOW: Final = 1.0
"""A client that sends the same datagram up to 15 times a second is never touched."""

LOOP_TABLE: Final = 4096
"""Replies remembered for the loop guard. A loop renews its entry every round, so it stays known
while fewer other replies than this are sent in one round trip."""

LOW_PORTS: Final = 1024
"""Clients send from ports above; below live services that answer (echo, chargen, DNS, NTP), which
a forged source would set against us. NATs keep ephemeral ports there too (RFC 4787)."""

NFS_PORT: Final = 2049
"""The one well-known answering service of old above `LOW_PORTS`."""

EPHEMERAL_PORTS: Final = 32_768
"""Where Linux starts to hand out ports for clients. A datagram from our own port number below is
from another server like us, not from a client."""

RATE_BURST_FACTOR: Final = 2
"""Seconds' worth of datagrams that may come at once where no burst is given."""

RATE_PREFIX_FACTOR: Final = 32
"""What a network (IPv4 /24, IPv6 /48) may send, as a multiple of one address's rate."""

RATE_TABLE: Final = 4096
"""Addresses, and as many networks, whose rate is remembered; the longest unheard is forgotten."""

RECEIVE_PAUSE: Final = 0.1
"""After an unexpected receive error the port rests this long, doubled up to `RECEIVE_PAUSE_MAX`
while errors go on: a socket that stays readable and fails would otherwise take the processor."""

RECEIVE_PAUSE_MAX: Final = 1.0
"""The longest rest: one try a second costs nothing and finds out soon that the fault has passed."""


TRY_CHUNK: Final = 64 * KIB
"""What `transforms try` reads at once: what Twisted reads at once from a connection, so that the
output for a chunk is bounded as it is in a server."""

KIT_EXAMPLES: Final = 60
"""Messages that the contract kit tries for each law beside those that it always tries: the nine
laws take well under 5 seconds, and a law that is broken at all is rarely kept by so many."""

KIT_LARGE: Final = MAX_LENGTH
"""The largest message that the contract kit tries: the largest that a framed conversation has."""

KIT_CALL_TIME: Final = 10 * SLOW_CALL
"""What one call may take in the contract kit: ten times what a server reports as slow, so that a
busy machine breaks no law. A function that is quadratic in its message takes longer."""

KIT_WAIT: Final = 5 * KIT_CALL_TIME
"""How long the contract kit waits for a reply that is awaited. Waiting costs nobody else anything,
so it may be longer than a call; whoever tests does not wait longer than that for one message."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramLimits:
    """The bounds of one UDP service.

    Attributes:
        max_request: bytes in a request; exactly this many pass, a longer one is dropped, never cut.
        max_amplification: bytes of reply per byte of request; `UDP_REPLY_SLACK` more than the
            request are always allowed.
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
