"""The raw sockets of `uppercase bench`, and the loop that loads them: one selector, one clock.

Bench alone has such sockets, because a load generator must not be the bottleneck: everything else
that talks to a server does it with `uppercase.client`.

It is written for speed: one thread, no object a message. In an open loop the last millisecond
before a planned time is spent asking the selector again and again, because its timer is no finer;
a message must not be late because of us.
"""

import selectors
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, process_time
from typing import Final

from uppercase.client.target import (
    TLS,
    Target,
    connect_udp,
    explain,
    open_socket,
    reachable,
    resolve,
    unusable_authorities,
)
from uppercase.commands.bench._loads import Load
from uppercase.commands.bench._workload import Counts, Plan
from uppercase.errors import NetworkError, NoReply, UppercaseError
from uppercase.limits import CONNECT_TIMEOUT

_TIMER: Final = 0.001
"""Seconds: the resolution of epoll's time-out."""

_TICK: Final = 0.1


def connect(target: Target, connections: int) -> Iterator[list[socket.socket]]:
    """Return the connections, non-blocking; over UDP those to each of the addresses in turn."""
    if target.udp:
        for address in reachable(target):
            yield [connect_udp(target, address) for _ in range(connections)]
        return
    streams: list[socket.socket] = []
    try:
        while len(streams) < connections:
            streams.append(_connect_stream(target))
    except UppercaseError as error:
        for stream in streams:
            stream.close()
        if not streams or not isinstance(error, NoReply):
            raise
        raise NoReply(
            f"{target} let {len(streams)} of {connections} connections in and no more within "
            f"{CONNECT_TIMEOUT:g} s; one that serves a client at a time and closes after each "
            "reply, like the lecture's, cannot be loaded: bench needs a server that keeps its "
            "connections"
        ) from error
    yield streams


def _connect_stream(target: Target) -> socket.socket:
    """Return a stream socket, an `ssl.SSLSocket` if the target asks for TLS.

    Each address of the target is tried in turn, within `CONNECT_TIMEOUT` for all of them.
    """
    context = _tls_context(target.tls) if target.tls else None
    deadline = monotonic() + CONNECT_TIMEOUT
    last_error = OSError("no address")
    for address in resolve(target):
        try:
            connection = open_socket(address.family, socket.SOCK_STREAM)
        except OSError as error:
            last_error = error
            continue
        try:
            # Invariant: never 0, which would mean "do not block" and fail at once.
            connection.settimeout(max(deadline - monotonic(), 0.001))
            connection.connect(address.sockaddr)
            if address.family != socket.AF_UNIX:
                # A message must not wait for the acknowledgement of the one before.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                # An end without TLS's own goodbye is an error: what came may have been cut short.
                connection = context.wrap_socket(
                    connection, server_hostname=target.host, suppress_ragged_eofs=False
                )
            connection.setblocking(False)
        except OSError as error:
            connection.close()
            last_error = error
        else:
            return connection
    raise explain(last_error, target, CONNECT_TIMEOUT) from last_error


def _tls_context(tls: TLS) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        raise unusable_authorities(tls.ca, error.strerror or str(error)) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Bench:
    """One run; `tick` is called with the seconds since its start, every `_TICK` seconds."""

    def __init__(
        self, loads: Sequence[Load], plan: Plan, counts: Counts, tick: Callable[[float], None]
    ) -> None:
        self._alive = list(loads)
        self._plan = plan
        self._counts = counts
        self._tick = tick
        self._stopped = False
        self._start = 0.0
        self._planned = 0
        self._blocked: set[Load] = set()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Load for the planned time, then wait for the last replies."""
        counts, plan = self._counts, self._plan
        with self._selector:
            for load in self._alive:
                self._selector.register(load, selectors.EVENT_READ, load)
            self._start = monotonic()
            processor = process_time()
            if plan.rate is None:
                for load in list(self._alive):
                    if load in self._alive:  # not refused meanwhile
                        self._give(load, plan.pipeline, self._start)
            self._serve_until(self._start + plan.duration, offering=True)
            counts.elapsed = monotonic() - self._start
            counts.processor = process_time() - processor
            counts.in_time = counts.answered
            if not counts.refused:
                self._tick(counts.elapsed)
            self._serve_until(monotonic() + plan.timeout, offering=False)
            if not self._stopped:
                for load in self._alive:
                    load.abandon()

    def stop(self) -> None:
        """End it without waiting for the last replies; a signal's handler may call it.

        Invariant: no wait of the selector is longer than `_TICK`.
        """
        self._stopped = True

    def _serve_until(self, end: float, *, offering: bool) -> None:
        """Offer messages, or only wait for what is pending."""
        planned = offering and self._plan.rate is not None
        refill = offering and not planned
        next_tick = monotonic() + _TICK
        while self._alive and not self._stopped and (offering or self._counts.pending > 0):
            now = monotonic()
            if now >= end:
                break
            if now >= next_tick:
                self._expire(now, refill)
                if offering:
                    self._tick(now - self._start)
                next_tick = max(next_tick + _TICK, now)
            wake = min(next_tick, end)
            if planned:
                self._offer_due(now)
                wake = min(wake, self._start + self._plan.planned(self._planned))
            # epoll rounds up to whole milliseconds: wait for less, then ask without waiting.
            self._serve(max(0.0, wake - now - _TIMER), refill)
        if planned:
            self._offer_due(end)

    def _serve(self, wait: float, refill: bool) -> None:
        """Wait for something to happen; read, and send what follows."""
        for key, mask in self._selector.select(wait):
            load: Load = key.data
            try:
                answered = load.receive() if mask & selectors.EVENT_READ else 0
            except NetworkError as error:
                self._drop(load, error)
                continue
            if answered and refill:
                self._give(load, answered, monotonic())
            elif mask & selectors.EVENT_WRITE:
                self._flush(load)

    def _offer_due(self, now: float) -> None:
        """Offer the messages of an open loop that are planned by now, to one after the other."""
        due = self._plan.due(now - self._start)
        touched: dict[Load, None] = {}
        while self._planned < due and self._alive:
            planned = self._start + self._plan.planned(self._planned)
            load = self._alive[self._planned % len(self._alive)]
            load.offer(1, planned)
            touched[load] = None
            self._counts.lag = max(self._counts.lag, now - planned)
            self._planned += 1
        for load in touched:
            self._flush(load)

    def _expire(self, now: float, refill: bool) -> None:
        for load in list(self._alive):
            gone = load.expire(now)
            if gone and refill:
                self._give(load, gone, now)

    def _give(self, load: Load, number: int, planned: float) -> None:
        load.offer(number, planned)
        self._flush(load)

    def _flush(self, load: Load) -> None:
        try:
            done = load.flush()
        except NetworkError as error:
            self._drop(load, error)
            return
        if done is (load in self._blocked):
            # It has just begun, or ceased, to be full.
            wanted = selectors.EVENT_READ if done else selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(load, wanted, load)
            (self._blocked.discard if done else self._blocked.add)(load)

    def _drop(self, load: Load, error: NetworkError) -> None:
        """Go on without a connection that has ended."""
        if load not in self._alive:
            return  # It was among the others, below.
        self._counts.errors.append(error)
        self._retire(load)
        while self._counts.refused and self._alive:
            # The others would hear it too, but only when they send.
            self._retire(self._alive[0])

    def _retire(self, load: Load) -> None:
        self._selector.unregister(load)
        self._blocked.discard(load)
        self._alive.remove(load)
        load.abandon()
        load.close()
