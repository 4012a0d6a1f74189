"""What a bench has before its load begins: a plan, messages, connections, counters at zero.

The messages and the replies that they must have are worked out beforehand. They differ, so that a
reply in another's place is noticed, and are sent in turn, over and over.

Bench alone has raw sockets, because a load generator must not be the bottleneck: everything else
that talks to a server does it with `uppercase.client`.
"""

import socket
import ssl
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from itertools import accumulate
from typing import Any, Final

from uppercase.client.target import Address, Target, connect_udp, explain, reachable, resolve
from uppercase.commands import look_up
from uppercase.commands._options import Expect
from uppercase.core.values import counted
from uppercase.errors import ConnectionRefused, NetworkError, NoReply, UserError, install
from uppercase.limits import CONNECT_TIMEOUT, KIB, MIB

BLOCK: Final = 256 * KIB
"""Bytes that one send or one read of a stream may move: the cost of a call no longer matters."""

MIN_SIZE: Final = 8
"""A message holds its number of up to 6 digits, a letter and a line ending."""

_MAX_MEMORY: Final = 64 * MIB
"""Bytes of the prepared messages; they and their replies are kept, each twice."""

_UDP_MESSAGES: Final = 16_384
"""Different datagrams that are sent in turn: a reply is told from the others until as many have
followed."""

_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a server is to be loaded.

    With a `rate`, messages a second over all connections, each is planned whatever comes back (open
    loop). Without one, each reply is followed by the next message, and `pipeline` are awaited on
    each connection (closed loop).
    """

    target: Target
    connections: int
    size: int
    pipeline: int
    rate: int | None
    duration: float
    timeout: float

    def due(self, elapsed: float) -> int:
        """Return how many messages of an open loop are planned by now, the first at 0 s."""
        assert self.rate is not None
        return int(min(elapsed, self.duration) * self.rate) + (elapsed < self.duration)

    def planned(self, number: int) -> float:
        """Return when message `number`, from 0, is planned: seconds from the start."""
        assert self.rate is not None
        return number / self.rate

    def __str__(self) -> str:
        loop = (
            f"closed loop, pipeline {self.pipeline}"
            if self.rate is None
            else f"open loop, {self.rate:g} messages/s"
        )
        connections = counted(self.connections, "connection")
        return f"{loop}, {connections}, {self.size}-byte messages, {self.duration:g} s"


class Workload:
    """A cycle of messages, each ended by `ending`, and the replies that they must have."""

    def __init__(self, expect: Expect, size: int, number: int, ending: bytes) -> None:
        if size < MIN_SIZE:
            raise UserError(
                f"got a size of {size} bytes; messages that differ have {MIN_SIZE} or more"
            )
        if size * number > _MAX_MEMORY:
            raise UserError(
                f"got a size of {size} bytes for {number} messages under way, which would take "
                f"over {_MAX_MEMORY} bytes; a smaller --size, --pipeline or --rate fits"
            )
        self.size = size
        length = size - len(ending)
        padding = _LETTERS * (length // len(_LETTERS) + 1)
        texts = [(b"m%d" % index + padding)[:length] for index in range(number)]
        self.messages = [text + ending for text in texts]
        self.replies = [expect(text) + ending for text in texts]

    @classmethod
    def of(cls, plan: Plan, expect: Expect) -> "Workload":
        """Return what each connection sends.

        Lines on a stream, enough of them that one call can move `BLOCK` bytes; else datagrams, many
        more than are under way at once, each with a reply of its own.
        """
        size = max(plan.size, 1)
        if not plan.target.udp:
            return cls(expect, plan.size, max(2, plan.pipeline, BLOCK // size), b"\n")
        under_way = plan.pipeline
        if plan.rate is not None:
            under_way = int(plan.rate * plan.timeout / plan.connections) + 1
        number = max(2 * under_way, min(_UDP_MESSAGES, _MAX_MEMORY // size))
        workload = cls(expect, plan.size, number, b"")
        if len(workload.index) < number:
            raise UserError(
                "several messages have the same reply, so datagrams cannot be told apart; "
                "a transform whose reply depends on the message is needed"
            )
        return workload

    @cached_property
    def index(self) -> dict[bytes, int]:
        """The number of the message that has a certain reply."""
        return {reply: number for number, reply in enumerate(self.replies)}

    @cached_property
    def outgoing(self) -> bytes:
        """The cycle twice, so that a whole one can be cut out wherever it begins."""
        return b"".join(self.messages) * 2

    @cached_property
    def incoming(self) -> bytes:
        """The cycle of replies twice."""
        return b"".join(self.replies) * 2

    @cached_property
    def ends(self) -> list[int]:
        """Where each reply of the cycle ends; the last end is the cycle's length."""
        return list(accumulate(map(len, self.replies)))

    def answered(self, taken: int) -> int:
        """Return how many replies are complete in this many bytes of one cycle after another."""
        cycles, phase = divmod(taken, self.ends[-1])
        return cycles * len(self.ends) + bisect_right(self.ends, phase)

    def next_reply(self, taken: int) -> tuple[bytes, int]:
        """Return the reply that is not complete by then, and how much of it is left."""
        phase = taken % self.ends[-1]
        place = bisect_right(self.ends, phase)
        return self.replies[place], self.ends[place] - phase


_HOUR: Final = 3_600_000_000
_DIGITS: Final = 3
_GATHERED: Final = 100_000
"""Different latencies that are gathered before they are put into the histogram."""


class Latencies:
    """Takes latencies and gives their distribution, by HdrHistogram (`hdrhistogram`).

    Its memory is fixed: 3 significant digits from a microsecond to an hour. Recording into it costs
    0.7 microseconds a call, so equal latencies are gathered in a dictionary first: `counts` says
    how often each number of microseconds occurred; hot loops write into it, and call `fold` now and
    then.
    """

    def __init__(self) -> None:
        if find_spec("hdrh") is None:
            raise UserError(f"bench needs the hdrhistogram library; install it: {install('bench')}")
        from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

        self.counts: defaultdict[int, int] = defaultdict(int)
        self._histogram: Any = HdrHistogram(1, _HOUR, _DIGITS)

    def fold(self, least: int = _GATHERED) -> None:
        """Move what has been gathered into the histogram, if it is at least `least`."""
        if len(self.counts) >= least:
            for microseconds, times in self.counts.items():
                # Invariant: within the histogram's range, or it would drop the value silently.
                self._histogram.record_value(min(max(microseconds, 1), _HOUR), times)
            self.counts.clear()

    def summary_ms(self, percents: Sequence[float]) -> dict[str, float] | None:
        """Return minimum, mean, maximum and percentiles in milliseconds; None if there are none."""
        self.fold(0)
        if not self._histogram.get_total_count():
            return None
        values = {
            "min": self._histogram.get_min_value(),
            "avg": self._histogram.get_mean_value(),
            "max": self._histogram.get_max_value(),
        }
        for percent in percents:
            key = f"p{percent:g}".replace(".", "_")
            values[key] = self._histogram.get_value_at_percentile(percent)
        return {name: round(value / 1e3, 3) for name, value in values.items()}

    def distribution(self) -> dict[float, int]:
        """Return how often each latency, in seconds, occurred."""
        self.fold(0)
        return {
            step.value_iterated_to / 1e6: step.count_added_in_this_iter_step
            for step in self._histogram.get_recorded_iterator()
        }


@dataclass(slots=True)
class Counts:
    """What has happened so far, over all connections.

    Each message is one of answered (correctly, in time or late, or wrongly), lost or pending; one
    is transmitted when it is handed over, or waits to be because a connection is full. `late` and
    `latencies` are of the answered. `wrong` and `duplicates` are replies; a `stray` is a wrong one
    that answered nothing, because nothing was awaited. `lag` is the longest time from when one was
    planned to when it was offered. Once the load is over, there are the seconds that it took,
    `elapsed` and of our `processor` time, and what was answered `in_time`.
    """

    latencies: Latencies
    transmitted: int = 0
    answered: int = 0
    wrong: int = 0
    stray: int = 0
    late: int = 0
    lost: int = 0
    duplicates: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    lag: float = 0.0
    first_wrong: tuple[bytes, bytes] | None = None
    errors: list[NetworkError] = field(default_factory=list)
    elapsed: float = 0.0
    in_time: int = 0
    processor: float = 0.0

    @property
    def pending(self) -> int:
        """Messages whose time-out has not come yet."""
        return self.transmitted - self.answered - self.lost

    @property
    def received(self) -> int:
        """Messages answered correctly in time."""
        return self.answered - (self.wrong - self.stray) - self.late

    @property
    def refused(self) -> bool:
        """Whether nothing listens there, as far as can be told: no reply ever came."""
        refusals = (error for error in self.errors if isinstance(error, ConnectionRefused))
        return not self.answered and any(refusals)

    def note_wrong(self, got: bytes, expected: bytes) -> None:
        self.wrong += 1
        if self.first_wrong is None:
            self.first_wrong = (got, expected)


def connect(target: Target, connections: int) -> Iterator[list[socket.socket]]:
    """Return the connections, non-blocking; over UDP those to each of the addresses in turn."""
    if target.udp:
        for address in look_up(reachable, target):
            yield [connect_udp(target, address) for _ in range(connections)]
        return
    streams: list[socket.socket] = []
    addresses = look_up(resolve, target)
    context = target.tls.context() if target.tls else None
    try:
        while len(streams) < connections:
            streams.append(_connect_stream(target, addresses, context))
    except (NetworkError, UserError) as error:
        for stream in streams:
            stream.close()
        if not streams or not isinstance(error, NoReply):
            raise
        raise NoReply(
            f"{target} let {len(streams)} of {connections} connections in and no more within "
            f"{CONNECT_TIMEOUT:g} s; one that serves one client at a time and closes after each "
            "reply, like the lecture's, cannot be loaded: bench needs a server that keeps its "
            "connections"
        ) from error
    yield streams


def _connect_stream(target: Target, addresses: list[Address], context: Any) -> socket.socket:
    """Return a stream socket, an `ssl.SSLSocket` if there is a context.

    Each address is tried in turn, within `CONNECT_TIMEOUT` for all of them; the one that lets us in
    is the only one left.
    """
    last_error = OSError("no address")
    for address in addresses:
        try:
            with ExitStack() as opened:
                connection = opened.enter_context(socket.socket(address.family))
                connection.settimeout(CONNECT_TIMEOUT / len(addresses))
                connection.connect(address.sockaddr)
                if address.family != socket.AF_UNIX:
                    # A message must not wait for the acknowledgement of the one before.
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is not None:
                    # An end without TLS's own goodbye is an error: what came may be cut short.
                    # A scope is this machine's alone.
                    host = target.host.partition("%")[0]
                    connection = context.wrap_socket(
                        connection, server_hostname=host, suppress_ragged_eofs=False
                    )
                connection.setblocking(False)
                opened.pop_all()
                addresses[:] = [address]
                return connection
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):  # As in Debian 12.
            # Within the handshake nothing was sent that could have been cut short.
            last_error = ConnectionResetError()
        except OSError as error:
            last_error = error
    raise explain(last_error, target, CONNECT_TIMEOUT) from last_error
