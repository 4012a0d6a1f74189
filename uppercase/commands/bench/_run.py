"""The load: what each connection sends and receives, and the loop of one selector and one clock.

It is written for speed: one thread, no object per message. On a stream the bytes of many messages
move with one call and are compared with one: what a message costs here is little compared to what
it costs the server. Each datagram is told from the others by its reply.

In an open loop the last millisecond before a planned time is spent asking the selector again and
again, because its timer is no finer; a message must not be late because of us.
"""

import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from time import monotonic, process_time
from typing import Final

from uppercase.client.target import explain, explain_send
from uppercase.commands.bench._plan import BLOCK, Counts, Plan, Workload
from uppercase.errors import NetworkError, UppercaseError

_TIMER: Final = 0.001
"""Seconds: the resolution of epoll's time-out."""

_TICK: Final = 0.1

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_EXCERPT: Final = 256

_BUFFER: Final = memoryview(bytearray(BLOCK))
"""What a read has brought, of whichever stream: it is looked at before the next one."""


@dataclass(eq=False)
class _Load:
    """One connection under load."""

    connection: socket.socket
    plan: Plan
    workload: Workload
    counts: Counts
    clock: Callable[[], float] = monotonic
    full: bool = field(default=False, init=False)
    """Whether there is more to send than fits."""

    def expire(self, now: float) -> int:
        """Give up what is lost by now; return how many messages that is.

        A stream gives up nothing: it delivers what was sent, if late.
        """
        return 0


@dataclass(eq=False)
class StreamLoad(_Load):
    """A stream: requests cut from a cycle of bytes, replies compared with another.

    Invariant: `_sent` and `_taken` count bytes from the beginning of the connection, `_offered` and
    `_answered` messages.
    """

    def __post_init__(self) -> None:
        self._outgoing = memoryview(self.workload.outgoing)
        self._buffer = _BUFFER[: self.workload.ends[-1]]
        self._planned: deque[tuple[int, float]] = deque()  # (offered up to here, planned for)
        self._offered = 0
        self._answered = 0
        self._sent = 0  # bytes
        self._taken = 0  # bytes
        self._last_wrong = -1

    def offer(self, number: int, planned: float) -> None:
        """Take this many messages, which were planned for that time; `flush` sends them."""
        self._offered += number
        self._planned.append((self._offered, planned))
        self.counts.transmitted += number

    def flush(self) -> bool:
        """Send what fits; tell whether everything has been sent."""
        size = self.workload.size
        cycle = len(self._outgoing) // 2
        try:
            while waiting := self._offered * size - self._sent:
                start = self._sent % cycle
                piece = min(waiting, cycle, BLOCK)
                sent = self.connection.send(self._outgoing[start : start + piece])
                self._sent += sent
                self.counts.sent_bytes += sent
        except _WOULD_BLOCK:
            return False
        except OSError:
            # Reading tells how it ended, after all that was sent before the end.
            return True
        return True

    def receive(self) -> int:
        """Read what has come; return how many messages it answers."""
        try:
            size = self.connection.recv_into(self._buffer)
        except _WOULD_BLOCK:
            return 0
        except OSError as error:
            raise self._end(error) from error
        now = self.clock()
        if not size:
            raise self._end(None)
        got, workload = self._buffer[:size], self.workload
        # Equal to a slice of the expected bytes, without making the slice: one memcmp.
        if not workload.incoming.startswith(got, self._taken % workload.ends[-1]):
            self._compare(got)
        self._taken += size
        self.counts.received_bytes += size
        reached = workload.answered(self._taken)
        if reached > self._offered:
            raise NetworkError(f"{self.plan.target} sent more than it was asked for")
        return self._settle(reached, now)

    def abandon(self) -> None:
        """Count everything that is still awaited as lost, but a reply without its end as wrong.

        Of what lacks more, the rest is on its way, as a slow or lossy network brings it.
        """
        self.counts.lost += self._offered - self._answered
        reply, left = self.workload.next_reply(self._taken)
        if left == 1 < len(reply) and self._answered < self._offered:
            self.counts.note_wrong(reply[:-left], reply)
            self.counts.answered += 1
            self.counts.lost -= 1

    def _settle(self, reached: int, now: float) -> int:
        fresh = reached - self._answered
        latencies = self.counts.latencies.counts
        while self._answered < reached:
            upto, planned = self._planned[0]
            if upto <= reached:
                self._planned.popleft()
            number = min(upto, reached) - self._answered
            self._answered += number
            latency = now - planned
            latencies[int(latency * 1e6)] += number
            if latency > self.plan.timeout:
                self.counts.late += number
        self.counts.answered += fresh
        return fresh

    def _compare(self, got: memoryview) -> None:
        """Find the messages whose replies are wrong; slow, as no good server needs it."""
        number = self.workload.answered(self._taken)
        at = self._taken
        while got:
            reply, left = self.workload.next_reply(at)
            expected = reply[-left:]
            if not expected.startswith(got[:left]) and number != self._last_wrong:
                self._last_wrong = number
                self.counts.note_wrong(bytes(got[:_EXCERPT]), expected[:_EXCERPT])
            got = got[left:]
            at += left
            number += 1

    def _end(self, error: OSError | None) -> UppercaseError:
        if error is not None and not isinstance(error, ConnectionError):
            return explain(error, self.plan.target)
        did = "closed" if error is None or isinstance(error, BrokenPipeError) else "reset"
        if self._answered != 1:
            sentence = f"{did} a connection after {self._answered} replies"
        else:
            sentence = (
                f"{did} a connection after 1 reply; bench needs a server that keeps its "
                "connections, and one that closes after each reply, like the lecture's, does not"
            )
        return NetworkError(f"{self.plan.target} {sentence}")


@dataclass(eq=False)
class DatagramLoad(_Load):
    """A datagram socket: each message is in at most one of `_awaited`, `_expired` and `_blamed`.

    Invariant: `_awaited` is in the order of sending, so the oldest stands first.
    """

    def __post_init__(self) -> None:
        # One byte more than any, so that a longer reply is not cut down to a correct one.
        self._read_size = max(map(len, self.workload.replies)) + 1
        self._unsent: deque[float] = deque()
        self._next = 0
        self._awaited: dict[int, float] = {}  # number: when it was planned
        self._expired: dict[int, float] = {}
        self._blamed: dict[int, float] = {}  # those that a wrong reply was blamed on

    def offer(self, number: int, planned: float) -> None:
        self._unsent.extend([planned] * number)
        self.counts.transmitted += number

    def flush(self) -> bool:
        send, messages = self.connection.send, self.workload.messages
        awaited, unsent = self._awaited, self._unsent
        try:
            while unsent:
                number = self._next
                self.counts.sent_bytes += send(messages[number])
                if number in awaited:
                    self._lose(number)
                self._expired.pop(number, None)
                self._blamed.pop(number, None)
                awaited[number] = unsent.popleft()
                self._next = number + 1 if number + 1 < len(messages) else 0
        except BlockingIOError:
            return False
        except OSError as error:
            raise explain_send(error, self.plan.target, len(messages[self._next])) from error
        return True

    def receive(self) -> int:
        counts, awaited, recv = self.counts, self._awaited, self.connection.recv
        timeout, index = self.plan.timeout, self.workload.index
        latencies = counts.latencies.counts
        answered = 0
        try:
            while True:
                reply = recv(self._read_size)
                now = self.clock()
                counts.received_bytes += len(reply)
                planned = awaited.pop(index.get(reply, -1), None)
                if planned is None:
                    answered += self._judge(reply, now)
                    continue
                latency = now - planned
                latencies[int(latency * 1e6)] += 1
                if latency > timeout:
                    counts.late += 1
                answered += 1
                if not awaited:
                    break  # saves asking in vain; if there is more, the selector says so
        except BlockingIOError:
            pass
        except OSError as error:
            raise explain(error, self.plan.target) from error
        counts.answered += answered
        return answered

    def expire(self, now: float) -> int:
        overdue = now - self.plan.timeout
        in_time = takewhile(lambda each: each[1] <= overdue, self._awaited.items())
        gone = [number for number, _ in in_time]
        for number in gone:
            self._lose(number)
        return len(gone)

    def abandon(self) -> None:
        for number in list(self._awaited):
            self._lose(number)
        self.counts.lost += len(self._unsent)
        self._unsent.clear()

    def _lose(self, number: int) -> None:
        self._expired[number] = self._awaited.pop(number)
        self.counts.lost += 1

    def _judge(self, reply: bytes, now: float) -> int:
        """Take a reply that nothing awaits; return how many messages it answers."""
        number = self.workload.index.get(reply, -1)
        if number in self._expired:
            self.counts.latencies.counts[int((now - self._expired.pop(number)) * 1e6)] += 1
            self.counts.lost -= 1
            self.counts.late += 1
            # It was given up before, and the next one sent.
            self.counts.answered += 1
            return 0
        if number in self._blamed:
            # So the wrong reply was for another one.
            self.counts.latencies.counts[int((now - self._blamed.pop(number)) * 1e6)] += 1
            return self._blame() is not None
        if number >= 0:
            self.counts.duplicates += 1
            return 0
        blamed = self._blame()
        self.counts.note_wrong(reply, b"" if blamed is None else self.workload.replies[blamed])
        return blamed is not None

    def _blame(self) -> int | None:
        """Put a wrong reply down to the message that has waited longest, if there is one."""
        oldest = next(iter(self._awaited), None)
        if oldest is None:
            self.counts.stray += 1
        else:
            self._blamed[oldest] = self._awaited.pop(oldest)
        return oldest


Load = StreamLoad | DatagramLoad


@dataclass(eq=False)
class Bench:
    """One run; `tick` is called with the seconds since its start, every `_TICK` seconds."""

    alive: list[Load]
    plan: Plan
    counts: Counts
    tick: Callable[[float], None]
    _stopped = False
    _planned = 0

    def run(self) -> None:
        """Load for the planned time, then wait for the last replies."""
        counts, plan = self.counts, self.plan
        with selectors.DefaultSelector() as self._selector:
            for load in self.alive:
                self._selector.register(load.connection, selectors.EVENT_READ, load)
            self._start = monotonic()
            processor = process_time()
            if plan.rate is None:
                for load in list(self.alive):
                    if load in self.alive:  # not refused meanwhile
                        self._advance(load, plan.pipeline, self._start)
            self._serve_until(self._start + plan.duration, offering=True)
            counts.elapsed = monotonic() - self._start
            counts.processor = process_time() - processor
            counts.in_time = counts.answered
            if not counts.refused:
                self.tick(counts.elapsed)
            self._serve_until(monotonic() + plan.timeout, offering=False)
            if not self._stopped:
                for load in self.alive:
                    load.abandon()

    def stop(self) -> None:
        """End it without waiting for the last replies; a signal's handler may call it.

        Invariant: no wait of the selector is longer than `_TICK`.
        """
        self._stopped = True

    def _serve_until(self, end: float, *, offering: bool) -> None:
        """Offer messages, or only wait for what is pending."""
        planned = offering and self.plan.rate is not None
        refill = offering and not planned
        next_tick = monotonic() + _TICK
        while self.alive and not self._stopped and (offering or self.counts.pending > 0):
            now = monotonic()
            if now >= end:
                break
            if now >= next_tick:
                self._expire(now, refill)
                if offering:
                    self.tick(now - self._start)
                next_tick = max(next_tick + _TICK, now)
            wake = min(next_tick, end)
            if planned:
                self._offer_due(now)
                wake = min(wake, self._start + self.plan.planned(self._planned))
            # epoll rounds up to whole milliseconds: wait for less, then ask without waiting.
            self._serve(max(0.0, wake - now - _TIMER), refill)
        if planned and not self._stopped:
            self._offer_due(end)

    def _serve(self, wait: float, refill: bool) -> None:
        for key, mask in self._selector.select(wait):
            load: Load = key.data
            try:
                answered = load.receive() if mask & selectors.EVENT_READ else 0
            except NetworkError as error:
                self._drop(load, error)
                continue
            if (answered and refill) or mask & selectors.EVENT_WRITE:
                self._advance(load, answered if refill else 0, monotonic())

    def _offer_due(self, now: float) -> None:
        """Offer the messages of an open loop that are due by now, connection by connection."""
        due = self.plan.due(now - self._start)
        touched: dict[Load, None] = {}
        while self._planned < due and self.alive:
            planned = self._start + self.plan.planned(self._planned)
            load = self.alive[self._planned % len(self.alive)]
            load.offer(1, planned)
            touched[load] = None
            self.counts.lag = max(self.counts.lag, now - planned)
            self._planned += 1
        for load in touched:
            self._advance(load)

    def _expire(self, now: float, refill: bool) -> None:
        for load in list(self.alive):
            gone = load.expire(now)
            if gone and refill:
                self._advance(load, gone, now)

    def _advance(self, load: Load, number: int = 0, planned: float = 0.0) -> None:
        """Offer a load this many more messages, and have it send what fits."""
        try:
            if number:
                load.offer(number, planned)
            done = load.flush()
        except NetworkError as error:
            self._drop(load, error)
            return
        if done is load.full:
            load.full = not done
            wanted = selectors.EVENT_READ if done else selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(load.connection, wanted, load)

    def _drop(self, load: Load, error: NetworkError) -> None:
        """Go on without a connection that has ended."""
        if load not in self.alive:
            return  # It was among the others, below.
        self.counts.errors.append(error)
        # Where nothing listens the others would be told too, but only when they send.
        for each in [*self.alive] if self.counts.refused else [load]:
            self._selector.unregister(each.connection)
            each.full = False  # Invariant: the selector is not asked about it any more.
            self.alive.remove(each)
            each.abandon()
            each.connection.close()
