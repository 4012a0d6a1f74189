"""What `uppercase ping` knows without a socket: when to send each probe, and what became of it.

A probe is lower-case text that carries its number; the reply that it must have is known before it
is sent. Replies are told apart by their content alone, so any server will do. The terms are those
of the IETF's metrics: loss after a waiting time (RFC 2680), round-trip delay (RFC 2681), reordering
(RFC 4737), duplication (RFC 5560).

Round trips are never halved: the two ways need not take equally long (RFC 2681 section 3.1).

No clock, no socket, no printing here: callers pass the time, in seconds of a monotonic clock.
"""

import itertools
import math
import re
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice, takewhile
from operator import eq
from typing import Final

from uppercase.commands._options import Expect
from uppercase.errors import UserError
from uppercase.limits import MIB

PING_MEMORY: Final = 8 * MIB
"""Bytes that ping spends on remembering settled probes, so that a late reply or a duplicate is told
from a wrong one: four hours of probes at the defaults."""

PING_SAMPLES: Final = 100_000
"""Round trips that percentiles and plots look back on: a day at the default interval."""

PROBE_MIN_SIZE: Final = 16
"""A probe holds a mark of 4 letters, its number of up to 10 digits, a letter and a line ending."""

LONGEST_LINE: Final = MIB
"""Bytes of a stream without a newline that are held; more of them count as a line."""

_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz"
_CANDIDATES: Final = 64  # awaited probes that a wrong reply is compared with
_HEAD: Final = 32  # bytes of each that are compared: the number is among them
_RECORD: Final = 512  # bytes that CPython needs to remember a probe, apart from its reply


def new_mark() -> bytes:
    """Return 4 lower-case letters that tell one run's probes from another's."""
    return bytes(secrets.choice(_LETTERS) for _ in range(4))


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes of one run and the replies that they must have.

    `ending` ends each probe and each reply: a newline on a stream, nothing in a datagram.
    """

    expect: Expect
    size: int
    mark: bytes
    ending: bytes = b""

    def __post_init__(self) -> None:
        if not PROBE_MIN_SIZE <= self.size <= LONGEST_LINE:
            raise UserError(
                f"got a size of {self.size} bytes; a probe that can be told from the others "
                f"has {PROBE_MIN_SIZE} to {LONGEST_LINE}"
            )
        first, second = self.reply(1), self.reply(2)
        if first == second:
            raise UserError(
                "all replies of the expected transform are equal, so they cannot be told apart; "
                "one whose reply depends on the message is needed"
            )
        if self.ending and self.ending in first[: -len(self.ending)]:
            raise UserError(
                "the expected transform's replies have several lines, so they cannot be told apart "
                "on a stream; try it with -u"
            )

    def probe(self, seq: int) -> bytes:
        return self._text(seq) + self.ending

    def reply(self, seq: int) -> bytes:
        """Return the reply that probe `seq` must have."""
        return self.expect(self._text(seq)) + self.ending

    def claimed(self, reply: bytes) -> int:
        """Return the number that an unexpected reply seems to carry, or 0."""
        match = re.search(self.mark + rb"([0-9]{1,10})", reply.lower())
        return int(match[1]) if match else 0

    def _text(self, seq: int) -> bytes:
        length = self.size - len(self.ending)
        head = self.mark + b"%d" % seq
        return (head + _LETTERS * (length // len(_LETTERS) + 1))[:length]


def schedule(interval: float, count: int | None, duration: float | None) -> Iterator[float]:
    """Return when each probe is to be sent, in seconds from the start; replies do not move it."""
    times = (number * interval for number in itertools.count())
    return islice(takewhile(lambda time: duration is None or time < duration, times), count)


class Verdict(StrEnum):
    """What one reply, or its absence, was."""

    REPLY = "reply"
    """The first correct reply to a probe, in time."""
    LATE = "late"
    """The first correct reply to a probe, after the time-out; it is lost no longer."""
    DUPLICATE = "duplicate"
    """A correct reply to a probe that had one already."""
    WRONG = "wrong"
    """A reply that no probe could have."""
    LOST = "lost"
    """Nothing came before the time-out."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One reply, or the absence of one.

    A wrong reply that belongs to no probe has no `seq` and no `rtt` (seconds from the probe to the
    reply). `reordered` is a reply in time that came after a later probe's (RFC 4737). `got` and
    `expected` are of a wrong reply; what it should have been may not be known.
    """

    verdict: Verdict
    seq: int | None
    size: int = 0
    rtt: float | None = None
    reordered: bool = False
    got: bytes = b""
    expected: bytes = b""


class RoundTrips:
    """Takes round trips one by one and sums them up at any time, in bounded memory.

    The percentiles look back on the latest `window` of them, which are `recent`.
    """

    def __init__(self, window: int = PING_SAMPLES) -> None:
        self.count = 0
        self.minimum = math.inf
        self.maximum = 0.0
        self.mean = 0.0
        self.recent: deque[float] = deque(maxlen=window)
        self._squares = 0.0

    def record(self, seconds: float) -> None:
        self.count += 1
        self.minimum = min(self.minimum, seconds)
        self.maximum = max(self.maximum, seconds)
        self.recent.append(seconds)
        # Welford's recurrence: a difference of two large sums would lose the digits that count.
        distance = seconds - self.mean
        self.mean += distance / self.count
        self._squares += distance * (seconds - self.mean)

    @property
    def mdev(self) -> float:
        """The standard deviation of the population, which ping(8) calls mdev."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0

    def percentiles(self, *percents: float) -> list[float]:
        """Return percentiles of the recent round trips, of which there must be one.

        Each is the smallest that at least that many percent do not exceed: one of the samples,
        never a mean of two (nearest rank).
        """
        ordered = sorted(self.recent)
        return [ordered[math.ceil(len(ordered) * percent / 100) - 1] for percent in percents]


@dataclass(slots=True)
class Totals:
    """What has happened so far.

    Each probe is one of received, late, lost, wrong only, or pending; `Verdict` says what that is.
    `wrong` counts replies, so that a probe with a wrong and a correct reply counts under both;
    `reordered` are some of the `received`, whose round trips are `rtt`.
    """

    transmitted: int = 0
    received: int = 0
    late: int = 0
    lost: int = 0
    wrong: int = 0
    duplicates: int = 0
    reordered: int = 0
    pending: int = 0
    rtt: RoundTrips = field(default_factory=RoundTrips)

    @property
    def untouched(self) -> bool:
        """Whether nothing has been found out about any probe."""
        return self.pending == self.transmitted and not self.wrong

    @property
    def settled(self) -> int:
        """The probes whose outcome is known."""
        return self.transmitted - self.pending

    @property
    def loss(self) -> float:
        """The part of the settled probes that was lost, 0 to 1."""
        return self.lost / (self.settled or 1)


@dataclass(slots=True)
class _Probe:
    """A probe and what became of it: a `REPLY` in time or not, `WRONG`, `LOST`, or None yet."""

    seq: int
    sent: float
    expected: bytes
    became: Verdict | None = None


class Tracker:
    """Knows each probe that was sent and finds what became of it."""

    def __init__(self, probes: Probes, timeout: float) -> None:
        self.totals = Totals()
        self._probes = probes
        self._timeout = timeout
        self._known: OrderedDict[int, _Probe] = OrderedDict()
        self._waiting: OrderedDict[int, _Probe] = OrderedDict()
        self._by_reply: dict[bytes, _Probe] = {}
        self._memory = max(1, PING_MEMORY // (probes.size + _RECORD))
        self._highest = 0

    def send(self, now: float) -> bytes:
        self.totals.transmitted += 1
        seq = self.totals.transmitted
        probe = _Probe(seq, now, self._probes.reply(seq))
        self._known[seq] = self._waiting[seq] = self._by_reply[probe.expected] = probe
        self.totals.pending += 1
        self._forget()
        return self._probes.probe(seq)

    def restart(self, probe: bytes, now: float) -> None:
        """Count a probe's time from now: it had to wait for a connection, which is not its delay.

        One that is lost already stays so: its reply will be late.
        """
        waiting = self._waiting.get(self._probes.claimed(probe))
        if waiting is not None:
            waiting.sent = now
            self._waiting.move_to_end(waiting.seq)  # they are in the order of their expiry

    def receive(self, reply: bytes, now: float) -> Finding:
        probe = self._by_reply.get(reply)
        if probe is None:
            return self._wrong(reply, now)
        rtt = now - probe.sent
        verdict = Verdict.LATE if rtt > self._timeout else Verdict.REPLY
        if probe.became is Verdict.REPLY:
            self.totals.duplicates += 1
            return Finding(Verdict.DUPLICATE, probe.seq, len(reply), rtt)
        self._settle(probe, Verdict.REPLY)
        reordered = verdict is Verdict.REPLY and probe.seq < self._highest
        self._highest = max(self._highest, probe.seq)
        if verdict is Verdict.LATE:
            self.totals.late += 1
        else:
            self.totals.received += 1
            self.totals.reordered += reordered
            self.totals.rtt.record(rtt)
        return Finding(verdict, probe.seq, len(reply), rtt, reordered)

    def begins(self, seq: int, part: bytes) -> bool:
        """Return whether a probe's correct reply begins so, and lacks more than its ending.

        A slow or lossy network brings a stream's reply in pieces.
        """
        probe = self._known.get(seq)
        whole = b"" if probe is None else probe.expected.removesuffix(self._probes.ending)
        return len(part) < len(whole) and whole.startswith(part)

    def expire(self, now: float) -> list[Finding]:
        lost = []
        while self.next_expiry <= now:
            probe = next(iter(self._waiting.values()))
            self._settle(probe, Verdict.LOST)
            self.totals.lost += 1
            lost.append(Finding(Verdict.LOST, probe.seq))
        return lost

    @property
    def next_expiry(self) -> float:
        """The time at which the next probe will be lost, infinite if none is awaited."""
        oldest = next(iter(self._waiting.values()), None)
        return math.inf if oldest is None else oldest.sent + self._timeout

    def _wrong(self, reply: bytes, now: float) -> Finding:
        """Take a reply that no probe expects; it counts for the one that it names or resembles."""
        self.totals.wrong += 1
        probe = self._known.get(self._probes.claimed(reply)) or self._most_alike(reply)
        # A server that speaks first had not been asked.
        if probe is None or now < probe.sent:
            return Finding(Verdict.WRONG, None, len(reply), got=reply)
        if probe.became is not Verdict.REPLY:
            self._settle(probe, Verdict.WRONG)
        rtt = now - probe.sent
        return Finding(
            Verdict.WRONG, probe.seq, len(reply), rtt, got=reply, expected=probe.expected
        )

    def _most_alike(self, reply: bytes) -> _Probe | None:
        """Return the awaited probe whose reply has most bytes in common, the oldest of equals."""
        return max(
            islice(self._waiting.values(), _CANDIDATES),
            key=lambda probe: sum(map(eq, probe.expected[:_HEAD], reply)),
            default=None,
        )

    def _settle(self, probe: _Probe, became: Verdict) -> None:
        if self._waiting.pop(probe.seq, None):
            self.totals.pending -= 1
        elif probe.became is Verdict.LOST:
            self.totals.lost -= 1
        probe.became = became

    def _forget(self) -> None:
        """Keep memory bounded: drop the oldest probes that nothing is expected for any more."""
        while len(self._known) > self._memory:
            probe = next(iter(self._known.values()))
            if probe.became is None:
                break
            del self._known[probe.seq], self._by_reply[probe.expected]
