"""What a service makes of its events: counts, and sentences with their facts in Twisted's log.

Peers must be able neither to fill the log nor to forge lines in it: whatever comes from a peer is
escaped and cut, and each reason has at most one line a second, which says how many were left out.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from traceback import TracebackException
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from uppercase.core.events import (
    AcceptFailed,
    Closed,
    Dropped,
    Event,
    Impaired,
    Incomplete,
    IObserver,
    KernelDropped,
    LabAction,
    Opened,
    Outcome,
    Refused,
    Replied,
    SlowCall,
    TransformFailed,
    WouldDrop,
    word_of,
    word_of_name,
)
from uppercase.core.values import printable
from uppercase.limits import LOG_INTERVAL

_LOG_PAYLOAD: Final = 24
"""Bytes of a payload that a line shows: a message of the lecture, and request and reply fit into
one line of a projector."""

_LOG_TEXT: Final = 200
"""Characters of one line that may come from outside."""

_TRACEBACK_INTERVAL: Final = 60.0
"""Seconds in which a transform has one traceback per exception type: a function that fails on
every message would otherwise write hundreds of bytes of log for each byte received."""

_TRACEBACK_LINES: Final = 60
"""Lines of one traceback, the last ones: twenty frames show what a transform did."""

_UNREMARKABLE: Final = frozenset(
    {Outcome.FINISHED, Outcome.ANSWERED, Outcome.DISCONNECTED, Outcome.STOPPED}
)


_WARNINGS: Final[Mapping[type[Event], tuple[str, str]]] = {
    SlowCall: (
        "transform {event.transform}: slow",
        "transform {event.transform!r} blocked the reactor for {milliseconds:.0f} ms; nobody else "
        "was served meanwhile",
    ),
    AcceptFailed: (
        "{protocol} connections not accepted: {event.error}",
        "no connection can be accepted for now: {event.detail} ({event.error}); new clients wait",
    ),
    Refused: (
        "{protocol} connections refused: {event.reason}",
        "{event.peer} was refused: {event.reason}{because}",
    ),
    Incomplete: (
        "{protocol} lines without an end",
        "{event.peer} has sent {event.held} bytes without a line's end and waits; "
        "--framing=segment answers programs that send none",
    ),
    Closed: (
        "{protocol} connections closed: {event.outcome}",
        "{event.peer} was closed: {event.outcome}{because}",
    ),
    Dropped: (
        "{protocol} datagrams dropped: {event.reason}",
        "a datagram of {event.peer} was dropped: {event.reason}{because}",
    ),
    WouldDrop: (
        "{protocol} datagrams answered on a dry run: {event.reason}",
        "a datagram of {event.peer} would have been dropped: {event.reason}",
    ),
    KernelDropped: (
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
    for name in event.__match_args__:
        value = getattr(event, name)
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


@dataclass(slots=True)
class _Held:
    """What one key of a throttle has held back since its last line."""

    call: IDelayedCall
    count: int = 0


class Throttle:
    """Lets one line a key through per interval and tells how many it held back.

    Args:
        write: given the key and the number held back, when an interval ends that had any.
    """

    def __init__(
        self, clock: IReactorTime, interval: float, write: Callable[[str, int], None]
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._write = write
        self._held: dict[str, _Held] = {}

    def allows(self, key: str) -> bool:
        """Whether a line may be written now; counts it if not."""
        held = self._held.get(key)
        if held is None:
            self._held[key] = _Held(self._clock.callLater(self._interval, self._end, key))
            return True
        held.count += 1
        return False

    def stop(self) -> None:
        """Tell of everything that is held back, and forget it."""
        for key, held in list(self._held.items()):
            held.call.cancel()
            self._tell(key, self._held.pop(key))

    def _end(self, key: str) -> None:
        held = self._held.pop(key)
        if held.count:
            self._held[key] = _Held(self._clock.callLater(self._interval, self._end, key))
            self._tell(key, held)

    def _tell(self, key: str, held: _Held) -> None:
        if held.count:
            self._write(key, held.count)


@implementer(IObserver)
class LogObserver:
    """Writes what an operator wants to see; with `log_peers`, what a classroom wants to.

    Args:
        log_peers: a line for each connection or datagram.

    Attributes:
        service: the service's name, where one process has several; lines begin with it.
    """

    service = ""

    def __init__(self, protocol: str, clock: IReactorTime, *, log_peers: bool = False) -> None:
        # Of the instance, as one of the class would bear the name of the class, and longer lines.
        self.log = Logger("uppercase")
        self._protocol = protocol
        self._log_peers = log_peers
        self._throttle = Throttle(clock, LOG_INTERVAL, self._more)
        self._tracebacks = Throttle(clock, _TRACEBACK_INTERVAL, self._more)

    def stop(self) -> None:
        """Write what is left to say."""
        self._throttle.stop()
        self._tracebacks.stop()

    def line(self, level: Any, text: str, **facts: Any) -> None:
        """Write a line about this service: a sentence for people, and facts for programs."""
        known = self.service.lower() in ("", self._protocol.lower())
        named = {} if known else {"service": self.service}
        self.log.emit(
            level,
            "{who}: {text}",
            who=self._protocol if known else f"{self._protocol} {self.service}",
            text=text,
            facts={"protocol": self._protocol, **named, **facts},
        )

    def notify(self, event: Event) -> None:
        kind = type(event)
        if isinstance(event, TransformFailed):
            self._transform_failed(event)
        elif kind in _WARNINGS and not self._is_told_otherwise(event):
            words = {
                "event": event,
                "protocol": self._protocol,
                "because": _because(getattr(event, "detail", "")),
                "milliseconds": getattr(event, "seconds", 0.0) * 1000,
            }
            key, text = (each.format(**words) for each in _WARNINGS[kind])
            if self._throttle.allows(key):
                self.line(LogLevel.warn, printable(text, _LOG_TEXT), **facts_of(event))
        elif self._log_peers and (text := _peer_line(event)):
            self.line(LogLevel.info, printable(text, _LOG_TEXT), **facts_of(event))

    def _is_told_otherwise(self, event: Event) -> bool:
        """Whether an end is as it should be, or has a line of its own in a classroom's log."""
        if isinstance(event, Closed):
            return self._log_peers or event.outcome in _UNREMARKABLE
        return self._log_peers and isinstance(event, Dropped)

    def _transform_failed(self, event: TransformFailed) -> None:
        """Show one traceback per transform and exception type in a while."""
        trace, cause = event.error.traceback, event.error.__cause__
        if trace is None:
            return
        if self._tracebacks.allows(f"transform {event.transform}: {type(cause).__name__}"):
            lines = "\n".join(_traceback_lines(trace))
            text = f"transform {event.transform!r} raised:\n{lines}"
            self.line(LogLevel.error, text, **facts_of(event))

    def _more(self, key: str, count: int) -> None:
        self.log.warn(
            "{key}: {count} more since the last line",
            key=printable(key, _LOG_TEXT),
            count=count,
            facts={"event": "more", "like": printable(key, _LOG_TEXT), "count": count},
        )


def _traceback_lines(trace: TracebackException) -> list[str]:
    """Return a traceback's lines. What the exceptions say is one line each: it may be a peer's."""
    lines: list[str] = []
    for part in trace.format():
        whole = part.strip("\n")
        frame = whole.startswith("  File ")
        lines += [printable(line, _LOG_TEXT) for line in (whole.split("\n") if frame else [whole])]
    return lines if len(lines) <= _TRACEBACK_LINES else ["...", *lines[-_TRACEBACK_LINES:]]


def _because(detail: str) -> str:
    return f": {detail}" if detail else ""


def _peer_line(event: Event) -> str:
    """Return the line of a classroom's log for one event."""
    match event:
        case Opened():
            return f"{event.peer} connected"
        case Closed():
            return (
                f"{event.peer} closed: {event.outcome}, {event.received} bytes in, "
                f"{event.sent} bytes out{_because(event.detail)}"
            )
        case Replied():
            return f"{_datagram(event)}: {_payload(event.request)} -> {_payload(event.data)}"
        case Dropped():
            reason = f"{event.reason}{_because(event.detail)}"
            return f"{_datagram(event)}: no reply ({reason}) to {_payload(event.request)}"
        case Impaired() if not event.fates:
            number = f" {event.number}" if event.number else ""
            return f"{event.peer}{number}: {event.fate}"
        case Impaired() if LabAction.LOST in event.actions:
            return f"{_datagram(event)}: {_payload(event.data)}"
    # A datagram has one line, which says how it ended: the rest is told by that.
    return ""


def _datagram(event: Replied | Dropped | Impaired) -> str:
    """Name a datagram, with its line of the answer key where there is a lab."""
    if not event.number:
        return event.peer
    return f"{event.peer} {event.number:>3}  {event.fates or 'delivered'}"


def _payload(data: bytes) -> str:
    return f"{len(data)} byte{'' if len(data) == 1 else 's'} {data[:_LOG_PAYLOAD]!r}"


_SAYS_MORE: Final[Mapping[type[Event], tuple[str, str]]] = {
    kind: (word_of_name(kind.__name__), attribute)
    for kind, attribute in (
        (Opened, ""),
        (Closed, "outcome"),
        (AcceptFailed, "error"),
        (Refused, "reason"),
        (Incomplete, ""),
        (Dropped, "reason"),
        (WouldDrop, "reason"),
        (TransformFailed, "transform"),
        (SlowCall, "transform"),
    )
}
"""What is counted: by which word, and which attribute says more of it. Requests and replies are not
counted here: they are told only where somebody watches, and the responder counts all of them."""


@implementer(IObserver)
class Counters:
    """Counts events by kind and, where there is one, by outcome, reason or transform.

    Attributes:
        counts: keys are pairs such as ("closed", "finished"), ("dropped", "failed"),
            ("transform-failed", "caesar") and ("opened", "").
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def notify(self, event: Event) -> None:
        # First what each connection has: patterns are tried one after the other.
        if known := _SAYS_MORE.get(type(event)):
            word, attribute = known
            self.counts[word, str(getattr(event, attribute)) if attribute else ""] += 1
            return
        match event:
            case KernelDropped(count=count):
                self.counts["dropped", "by-the-kernel"] += count
            case Impaired(direction=direction, actions=actions):
                for action in actions:
                    self.counts[f"lab-{direction.value}", action.value] += 1

    def by_name(self) -> dict[str, int]:
        """Return the counts by names such as `closed finished` and `opened`."""
        return {" ".join(filter(None, key)): self.counts[key] for key in sorted(self.counts)}
