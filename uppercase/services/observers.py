"""What a service makes of its events: counts, and sentences with their facts in Twisted's log.

Peers must be able neither to fill the log nor to forge lines in it: whatever comes from a peer is
escaped and cut, and each reason has at most one line a second, which says how many were left out.
"""

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from traceback import TracebackException
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import LogLevel
from zope.interface import implementer

from uppercase.core import events
from uppercase.core.events import Event, IObserver, Outcome, word_of, word_of_name
from uppercase.core.values import printable
from uppercase.limits import LOG_INTERVAL
from uppercase.services.log_format import say

_LOG_PAYLOAD: Final = 24
"""Bytes of a payload that a line shows: a message of the lecture, and request and reply fit into
one line of a projector."""

_LOG_TEXT: Final = 200  # Characters of one line that may come from outside.

_TRACEBACK_INTERVAL: Final = 60.0
"""Seconds in which a transform has one traceback per exception type: a function that fails on
every message would otherwise write hundreds of bytes of log for each byte received."""

_TRACEBACK_LINES: Final = 60  # The last of them; twenty frames show what a transform did.

_UNREMARKABLE: Final = frozenset(
    {Outcome.FINISHED, Outcome.ANSWERED, Outcome.DISCONNECTED, Outcome.STOPPED}
)

_WARNINGS: Final[Mapping[type[Event], tuple[str, str]]] = {
    events.SlowCall: (
        "transform {event.transform}: slow",
        "transform {event.transform!r} blocked the reactor for {ms:.0f} ms; nobody else "
        "was served meanwhile",
    ),
    events.AcceptFailed: (
        "{protocol} connections not accepted: {event.error}",
        "no connection can be accepted for now: {event.detail} ({event.error}); new clients wait",
    ),
    events.Refused: (
        "{protocol} connections refused: {event.reason}",
        "{event.peer} was refused: {event.reason}{because}",
    ),
    events.Incomplete: (
        "{protocol} lines without an end",
        "{event.peer} has sent {event.held} bytes without a line's end and waits; "
        "--framing=segment answers programs that send none",
    ),
    events.Closed: (
        "{protocol} connections closed: {event.outcome}",
        "{event.peer} was closed: {event.outcome}{because}",
    ),
    events.Dropped: (
        "{protocol} datagrams dropped: {event.reason}",
        "a datagram of {event.peer} was dropped: {event.reason}{because}",
    ),
    events.WouldDrop: (
        "{protocol} datagrams answered on a dry run: {event.reason}",
        "a datagram of {event.peer} would have been dropped: {event.reason}",
    ),
    events.KernelDropped: (
        "datagrams dropped by the system",
        "the system dropped {event.count} datagrams for {event.address}, which came faster than "
        "they were read; a larger --rcvbuf holds more, as far as the system allows (Linux: "
        "net.core.rmem_max)",
    ),
}
"""What is warned of: by what such lines are held back together, and the sentence."""


def facts_of(event: Event) -> dict[str, Any]:
    """Return an event as facts: its word, then its attributes by name where they say something.

    Payloads are told by their lengths: what they hold is the peers' own.
    """
    facts: dict[str, Any] = {"event": word_of(event)}
    for name, value in event._asdict().items():
        if isinstance(value, bytes):
            facts[f"{name}_bytes"] = len(value)
        elif value not in ("", ()):
            facts[name] = _plain(value)
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    return value if isinstance(value, int | float) else printable(str(value), _LOG_TEXT)


class Throttle:
    """Lets one line a key through per interval, and then tells how many were held back since."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # The end of the interval, and how many it has held back, by key.
        self._intervals: dict[str, IDelayedCall] = {}
        self._held: Counter[str] = Counter()

    def allows(self, key: str, interval: float) -> bool:
        """Whether a line may be written now; counts it if not."""
        if key in self._intervals:
            self._held[key] += 1
            return False
        self._intervals[key] = self._clock.callLater(interval, self._end, key, interval)
        return True

    def stop(self) -> None:
        """Tell of all that is held back."""
        for key in list(self._intervals):
            self._intervals.pop(key).cancel()
            self._tell(key)

    def _end(self, key: str, interval: float) -> None:
        del self._intervals[key]
        if key in self._held:
            self.allows(key, interval)
            self._tell(key)

    def _tell(self, key: str) -> None:
        if count := self._held.pop(key, 0):
            like = printable(key, _LOG_TEXT)
            text = f"{like}: {count} more since the last line"
            say(text, LogLevel.warn, event="more", like=like, count=count)


@implementer(IObserver)
class LogObserver:
    """Writes what an operator wants to see; with `log_peers`, what a classroom wants to."""

    # Its name, where one process has several; lines begin with it.
    service = ""

    def __init__(self, protocol: str, clock: IReactorTime, *, log_peers: bool = False) -> None:
        self._protocol = protocol
        self._log_peers = log_peers
        self._throttle = Throttle(clock)
        self.stop = self._throttle.stop

    def line(self, level: Any, text: str, **facts: Any) -> None:
        """Write a line about this service: a sentence for people, and facts for programs."""
        known = self.service.lower() in ("", self._protocol.lower())
        named = {} if known else {"service": self.service}
        who = self._protocol if known else f"{self._protocol} {self.service}"
        say(f"{who}: {text}", level, protocol=self._protocol, **named, **facts)

    def notify(self, event: Event) -> None:
        # A classroom's log has a line of its own for each end.
        in_class = self._log_peers and isinstance(event, events.Closed | events.Dropped)
        if isinstance(event, events.TransformFailed):
            self._transform_failed(event)
        elif (texts := _WARNINGS.get(type(event))) and not in_class:
            if getattr(event, "outcome", None) in _UNREMARKABLE:
                return
            more = {"because": _because(event), "ms": 1000 * getattr(event, "seconds", 0.0)}
            key, text = (
                each.format(event=event, protocol=self._protocol, **more) for each in texts
            )
            if self._throttle.allows(key, LOG_INTERVAL):
                self.line(LogLevel.warn, printable(text, _LOG_TEXT), **facts_of(event))
        elif self._log_peers and (text := _peer_line(event)):
            self.line(LogLevel.info, printable(text, _LOG_TEXT), **facts_of(event))

    def _transform_failed(self, event: events.TransformFailed) -> None:
        trace, key = event.error.traceback, f"transform {event.transform}"
        key += f": {type(event.error.__cause__).__name__}"
        if trace is not None and self._throttle.allows(key, _TRACEBACK_INTERVAL):
            lines = "\n".join(_traceback_lines(trace))
            text = f"transform {event.transform!r} raised:\n{lines}"
            self.line(LogLevel.error, text, **facts_of(event))


def _traceback_lines(trace: TracebackException) -> list[str]:
    """Return a traceback's lines. What the exceptions say is one line each: it may be a peer's."""
    lines: list[str] = []
    for part in trace.format():
        whole = part.strip("\n")
        frame = whole.startswith("  File ")
        lines += [printable(line, _LOG_TEXT) for line in (whole.split("\n") if frame else [whole])]
    return lines if len(lines) <= _TRACEBACK_LINES else ["...", *lines[-_TRACEBACK_LINES:]]


def _because(event: Any) -> str:
    detail: str = getattr(event, "detail", "")
    return f": {detail}" if detail else ""


def _peer_line(event: Event) -> str:
    match event:
        case events.Opened():
            return f"{event.peer} connected"
        case events.Closed():
            return (
                f"{event.peer} closed: {event.outcome}, {event.received} bytes in, "
                f"{event.sent} bytes out{_because(event)}"
            )
        case events.Replied():
            return f"{_datagram(event)}: {_payload(event.request)} -> {_payload(event.data)}"
        case events.Dropped():
            reason = f"{event.reason}{_because(event)}"
            return f"{_datagram(event)}: no reply ({reason}) to {_payload(event.request)}"
        case events.Impaired() if not event.fates:
            number = f" {event.number}" if event.number else ""
            return f"{event.peer}{number}: {event.fate}"
        case events.Impaired() if events.LabAction.LOST in event.actions:
            return f"{_datagram(event)}: {_payload(event.data)}"
    # A datagram has one line, which says how it ended: the rest is told by that.
    return ""


def _datagram(event: events.Replied | events.Dropped | events.Impaired) -> str:
    """Name a datagram, with its line of the answer key where there is a lab."""
    if not event.number:
        return event.peer
    return f"{event.peer} {event.number:>3}  {event.fates or 'delivered'}"


def _payload(data: bytes) -> str:
    return f"{len(data)} byte{'' if len(data) == 1 else 's'} {data[:_LOG_PAYLOAD]!r}"


_APART: Final = ("outcome", "reason", "transform", "error")
"""Attributes, of which the first that an event has tells it from others of its kind."""

_COUNTED: Final[Mapping[type[Event], tuple[str, str]]] = {
    kind: (
        word_of_name(kind.__name__),
        next((name for name in _APART if name in kind._fields), ""),
    )
    for kind in (*_WARNINGS, events.Opened, events.TransformFailed)
}
"""What is counted: by which word, and which attribute. Requests and replies are not counted here:
they are told only where somebody watches, and the responder counts all of them."""


@implementer(IObserver)
class Counters:
    """Counts events by kind and, where there is one, by outcome, reason or transform.

    Keys are such as ("closed", "finished"), ("transform-failed", "caesar") and ("opened", "").
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def notify(self, event: Event) -> None:
        if isinstance(event, events.KernelDropped):
            self.counts["dropped", "by-the-kernel"] += event.count
        elif isinstance(event, events.Impaired):
            for action in event.actions:
                self.counts[f"lab-{event.direction.value}", action.value] += 1
        elif known := _COUNTED.get(type(event)):
            word, attribute = known
            self.counts[word, str(getattr(event, attribute)) if attribute else ""] += 1

    def by_name(self) -> dict[str, int]:
        """Return the counts by names such as `closed finished` and `opened`."""
        return {" ".join(filter(None, key)): self.counts[key] for key in sorted(self.counts)}
