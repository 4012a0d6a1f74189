"""The log, and what a service makes of its events: sentences with facts, and counts.

Twisted's own formats lack milliseconds and a vocabulary. Here a line carries facts beside its
sentence (`say`): text shows the sentence, JSON both. Peers must be able neither to fill the log nor
to forge lines in it: whatever comes from a peer is escaped and cut, and each reason has at most one
line a second, which says how many were left out.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from traceback import TracebackException
from typing import IO, Any, Final, get_args

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import (
    FileLogObserver,
    LogEvent,
    Logger,
    LogLevel,
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from uppercase.core import events
from uppercase.core.events import Event, IObserver, Outcome, word_of
from uppercase.core.values import counted, printable
from uppercase.errors import UnknownName, suggest
from uppercase.limits import LOG_INTERVAL

# How lines look, for a file, a terminal or the journal of systemd

_PRIORITIES: Final = dict(zip(LogLevel.iterconstants(), (7, 6, 4, 3, 2), strict=True))
"""What syslog(3) and the journal call the levels of Twisted."""

_UNSEEN: Final = "[\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
"""What `json` leaves as it is but a terminal obeys or a reader takes for the end of a line."""

_log: Final = Logger("uppercase")


def say(text: str, level: Any = LogLevel.info, /, **facts: Any) -> None:
    """Write a line into the log: a sentence for people, and facts for programs."""
    _log.emit(level, "{text}", text=text, facts=facts)


def as_text(event: LogEvent) -> str | None:
    """Return Twisted's classic line, with milliseconds."""
    text = formatEventAsClassicLogText(event, formatTime=_local_time)
    return text and printable(text, keep="\n\t")


def _local_time(when: float | None) -> str:
    cut = formatTime(when, "%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return cut + formatTime(when, "%z")


def as_json(event: LogEvent) -> str | None:
    """Return one object on one line: time, level and text, then the facts of the event."""
    traceback = "log_failure" in event
    text = formatEvent(event)
    if not (text or traceback):
        return None
    level: Any = event.get("log_level", LogLevel.info)
    when = datetime.fromtimestamp(event["log_time"], UTC)
    line: dict[str, Any] = {
        "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name,
        "text": text,
        "event": "log",
    }
    # Others may call something of theirs facts.
    if (name := event.get("log_namespace")) is not None:
        line |= event.get("facts", {}) if name == "uppercase" else {"from": name}
    if traceback:
        line["traceback"] = eventAsText(event, includeTimestamp=False, includeSystem=False)
    text = json.dumps(line, ensure_ascii=False)
    # A byte of a name that is no text, whose escape strict readers refuse, as text shows it.
    text = re.sub("[\ud800-\udfff]", lambda found: rf"\\u{ord(found[0]):x}", text)
    # As JSON writes them in ASCII.
    return re.sub(_UNSEEN, lambda found: json.dumps(found[0])[1:-1], text) + "\n"


FORMATS: Final[Mapping[str, Callable[[LogEvent], str | None]]] = {"text": as_text, "json": as_json}


def parse_log_format(name: str) -> str:
    """Return the name of a format."""
    if name not in FORMATS:
        raise UnknownName(f"no format named {name!r}{suggest(name, FORMATS)}")
    return name


def goes_to_journal(file: IO[Any]) -> bool:
    """Whether systemd has connected a file to its journal, as JOURNAL_STREAM says."""
    with suppress(OSError, AttributeError, ValueError):
        status = os.fstat(file.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


def escape_what_lacks(file: Any, encoding: str | None = None) -> None:
    """Have a standard stream hold no line back, nor lose one for what its encoding lacks."""
    # It is no such stream, or has become a pipe since, so that it has no position.
    with suppress(AttributeError, OSError):
        file.reconfigure(encoding=encoding, errors="backslashreplace", line_buffering=True)


def observer_of(file: IO[Any], format_: str) -> FileLogObserver:
    """Return what writes the log into a file, in one of `FORMATS` or as the journal wants it."""
    escape_what_lacks(file, "utf-8" if format_ == "json" else None)
    if not goes_to_journal(file):
        return FileLogObserver(file, FORMATS[format_])

    def prefixed(event: LogEvent) -> str:
        text = FORMATS[format_](event) or ""
        if format_ == "text":
            # The journal adds the time itself.
            text = text.partition(" ")[2]
        level: Any = event.get("log_level", LogLevel.info)
        lines = text.splitlines(keepends=True)
        return "".join(f"<{_PRIORITIES.get(level, 6)}>{line}" for line in lines)

    return FileLogObserver(file, prefixed)


class WatchedLogFile(LogFile):
    """A log file that is reopened when logrotate, or anybody else, has renamed or removed it."""

    def __init__(self, name: str, directory: str, **options: Any) -> None:
        super().__init__(name, directory, **options)
        self._ours = self._on_disk()

    def write(self, data: str | bytes) -> None:
        if self._on_disk() != self._ours:
            # Or it was rotated, and is open already.
            before = self._file
            # Without permission to make or to open a new one, the old one is better than none.
            with suppress(OSError):
                self._openFile()
                before.close()
                self._ours = self._on_disk()
        # Its end may be another: logrotate's copytruncate empties it.
        self.size = self._file.seek(0, os.SEEK_END)
        super().write(data)

    def rotate(self) -> None:
        try:
            super().rotate()
        except OSError:
            # One that may not be renamed, as by AppArmor or a sticky folder, only grows.
            self._openFile()

    def _on_disk(self) -> tuple[int, int] | None:
        with suppress(OSError):  # It is gone, or in a folder that only root may enter.
            found = os.stat(self.path)
            return found.st_dev, found.st_ino
        return None


# What a service tells

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

_UNCOUNTED: Final = frozenset(
    {events.Received, events.Replied, events.Several, events.Chunk, events.HalfClosed}
)
"""Told only where somebody watches each; the responder counts all datagrams."""

_QUIET: Final = {events.Opened, events.Impaired, *_UNCOUNTED}
"""None of them is a warning."""


def _warning(event: Event) -> tuple[str, str] | None:
    """Return a warning's kind, of which there is one per interval, and its sentence."""
    because = _because(event)
    match event:
        case events.Closed(peer, outcome):
            return f"connections closed: {outcome}", f"{peer} was closed: {outcome}{because}"
        case events.Refused(peer, reason):
            return f"connections refused: {reason}", f"{peer} was refused: {reason}{because}"
        case events.Dropped(peer, reason):
            why = f"a datagram from {peer} was dropped: {reason}{because}"
            return f"datagrams dropped: {reason}", why
        case events.WouldDrop(peer, reason):
            why = f"a datagram from {peer} would have been dropped: {reason}"
            return f"datagrams answered on a dry run: {reason}", why
        case events.Incomplete(peer, held):
            return (
                "lines without an end",
                f"{peer} has sent {counted(held, 'byte')} without a line's end and waits; "
                "--framing=segment answers programs that send none",
            )
        case events.SlowCall(transform, seconds):
            return (
                f"transform {transform}: slow",
                f"transform {transform!r} blocked the reactor for {1000 * seconds:.0f} ms; "
                "nobody else was served meanwhile",
            )
        case events.AcceptFailed(error):
            why = f"no connection can be accepted for now{because} ({error}); new clients wait"
            return f"connections not accepted: {error}", why
        case events.KernelDropped(address, count):
            return (
                "datagrams that the system dropped",
                f"the system dropped {counted(count, 'datagram')} for {address}: too many at once "
                "(a larger --rcvbuf holds more, up to net.core.rmem_max) or damaged "
                "(nstat -az '*CsumErrors')",
            )
    return None


def facts_of(event: Event) -> dict[str, Any]:
    """Return an event as facts: its word, then its attributes by name where they say something.

    Payloads are told by their lengths: what they hold is the peers' own.
    """
    facts: dict[str, Any] = {"event": word_of(type(event).__name__)}
    for name, value in event._asdict().items():
        if isinstance(value, bytes):
            facts[f"{name}_bytes"] = len(value)
        elif value not in ("", ()):
            facts[name] = _plain(value)
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, int | float) else printable(str(value), _LOG_TEXT)


@implementer(IObserver)
class LogObserver:
    """Writes what an operator wants to see; with `log_peers`, what a classroom wants to.

    Of each kind of warning there is one line per interval; then it tells how many were held back.
    """

    # Its name, where one process has several; lines begin with it.
    service = ""

    def __init__(self, protocol: str, clock: IReactorTime, *, log_peers: bool = False) -> None:
        self._protocol = protocol
        self._log_peers = log_peers
        self._clock = clock
        # When the interval of each kind ends; of those that have held some back, how many, and what
        # tells of them then. Invariant: without any there is no timer.
        self._ends: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        self._calls: dict[str, IDelayedCall] = {}

    def stop(self) -> None:
        """Tell how many of each kind are held back."""
        self._ends.clear()
        for kind in list(self._calls):
            self._calls[kind].cancel()
            self._tell(kind)

    def _allows(self, kind: str, interval: float) -> bool:
        """Whether a line may be written now; counts it if not."""
        now = self._clock.seconds()
        left = self._ends.get(kind, now) - now
        if left > 0:
            self._held[kind] += 1
            if kind not in self._calls:
                self._calls[kind] = self._clock.callLater(left, self._end, kind, interval)
            return False
        self._ends = {each: end for each, end in self._ends.items() if end > now}
        self._ends[kind] = now + interval
        return True

    def _end(self, kind: str, interval: float) -> None:
        self._ends[kind] = self._clock.seconds() + interval
        self._tell(kind)

    def _tell(self, kind: str) -> None:
        del self._calls[kind]
        count, like = self._held.pop(kind), printable(kind, _LOG_TEXT)
        text = f"{like}: {count} more since the last line"
        self.say(text, LogLevel.warn, event="more", like=like, count=count)

    def say(
        self, text: str, level: Any = LogLevel.info, /, *, named: bool = True, **facts: Any
    ) -> None:
        """Write a line about this service: a sentence for people, and facts for programs.

        It begins with the service's name, unless scripts look for it as it is.
        """
        known = self.service.lower() in ("", self._protocol.lower())
        about = {"protocol": self._protocol, **({} if known else {"service": self.service})}
        say(f"{' '.join(about.values())}: {text}" if named else text, level, **about, **facts)

    def notify(self, event: Event) -> None:
        quiet = type(event) in _QUIET or getattr(event, "outcome", None) in _UNREMARKABLE
        if quiet and not self._log_peers:
            return
        # With `log_peers` each end has a line of its own.
        in_class = self._log_peers and isinstance(event, events.Closed | events.Dropped)
        if isinstance(event, events.TransformFailed):
            if event.error.traceback is not None:
                kind = f"transform {event.transform}: {type(event.error.__cause__).__name__}"
                who = f"transform {event.transform!r}"
                self._raised(kind, who, event.error.traceback, **facts_of(event))
        elif not in_class and (warning := _warning(event)):
            kind, text = warning
            if self._allows(kind, LOG_INTERVAL):
                self.say(printable(text, _LOG_TEXT), LogLevel.warn, **facts_of(event))
        elif self._log_peers and (text := _peer_line(event)):
            self.say(printable(text, _LOG_TEXT), **facts_of(event))

    def observer_failed(self, observer: object, error: Exception) -> None:
        """Log what another observer has raised about an event."""
        who = f"observer {type(observer).__name__}"
        trace = TracebackException.from_exception(error)
        self._raised(f"{who}: {type(error).__name__}", who, trace, event="observer-failed")

    def _raised(self, kind: str, who: str, trace: TracebackException, **facts: Any) -> None:
        if self._allows(kind, _TRACEBACK_INTERVAL):
            lines = "\n".join(_traceback_lines(trace))
            self.say(f"{who} raised:\n{lines}", LogLevel.error, **facts)


def _traceback_lines(trace: TracebackException) -> list[str]:
    """Return a traceback's lines. What an exception says is one line: it may be a peer's."""
    lines: list[str] = []
    try:
        parts = list(trace.format())
    except Exception as broken:  # A SyntaxError may have anything for its place.
        parts = [*trace.stack.format(), f"(its text cannot be had: {type(broken).__name__})"]
    for part in parts:
        whole = part.strip("\n")
        frame = re.match(" *([|] )?  File ", whole)  # Also of a group.
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
                f"{event.peer} closed: {event.outcome}, {counted(event.received, 'byte')} in, "
                f"{counted(event.sent, 'byte')} out{_because(event)}"
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
    return f"{counted(len(data), 'byte')} {data[:_LOG_PAYLOAD]!r}"


_APART: Final = ("outcome", "reason", "transform", "error")
"""Attributes; the first that an event has tells it from others of its kind."""

_COUNTED: Final[Mapping[type[Event], tuple[str, str]]] = {
    kind: (word_of(kind.__name__), next((name for name in _APART if name in kind._fields), ""))
    for kind in get_args(Event)
    if kind not in {*_UNCOUNTED, events.Impaired, events.KernelDropped}
}


@implementer(IObserver)
class Counters(Counter[tuple[str, str]]):
    """Counts events by kind and, where there is one, by outcome, reason or transform.

    Keys are such as ("closed", "finished"), ("transform-failed", "caesar") and ("opened", "").
    """

    def notify(self, event: Event) -> None:
        if (known := _COUNTED.get(type(event))) is not None:
            word, attribute = known
            self[word, getattr(event, attribute) if attribute else ""] += 1
        elif isinstance(event, events.KernelDropped):
            self["kernel-dropped", ""] += event.count
        elif isinstance(event, events.Impaired):
            for action in event.actions:
                self[f"lab-{event.direction.value}", action.value] += 1

    def by_name(self) -> dict[str, int]:
        """Return the counts by names such as `closed finished` and `opened`."""
        return {" ".join(filter(None, key)): self[key] for key in sorted(self)}
