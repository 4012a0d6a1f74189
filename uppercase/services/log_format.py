"""How lines of the log look, as text or as JSON, for a file, a terminal or the journal of systemd.

Twisted's own formats lack milliseconds and a vocabulary. Here a line carries facts beside its
sentence (`say`): text shows the sentence, JSON both.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final

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

from uppercase.core.values import printable
from uppercase.errors import UnknownName, suggest

_PRIORITIES: Final = dict(zip(LogLevel.iterconstants(), (7, 6, 4, 3, 2), strict=True))
"""What syslog(3) and the journal call the levels of Twisted."""

_UNSEEN: Final = "[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
"""What `json` leaves as it is, and a terminal obeys or a reader takes for the end of a line; lone
surrogates, which no file could take."""

Format = Callable[[LogEvent], str | None]

_log: Final = Logger("uppercase")


def say(text: str, level: Any = LogLevel.info, /, **facts: Any) -> None:
    """Write a line into the log: a sentence for people, and facts for programs."""
    _log.emit(level, "{text}", text=text, facts=facts)


def as_text(event: LogEvent) -> str | None:
    """Return Twisted's classic line, with milliseconds."""
    text = formatEventAsClassicLogText(event, formatTime=_local_time)
    return text and printable(text, keep="\n\t")


def _local_time(when: float | None) -> str:
    if when is None:
        return "-"
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
    facts: Mapping[str, Any] | None = event.get("facts")
    if facts is not None:
        line.update(facts)
    elif event.get("log_namespace") not in ("uppercase", None):
        line["from"] = event["log_namespace"]
    if traceback:
        line["traceback"] = eventAsText(event, includeTimestamp=False, includeSystem=False)
    text = json.dumps(line, ensure_ascii=False)
    # As JSON has them in ASCII.
    return re.sub(_UNSEEN, lambda found: json.dumps(found[0])[1:-1], text) + "\n"


def for_journal(format_: Format) -> Format:
    """Return a format whose lines begin with `<N>`, the priority for the journal."""

    def prefixed(event: LogEvent) -> str | None:
        level: Any = event.get("log_level", LogLevel.info)
        lines = (format_(event) or "").splitlines(keepends=True)
        return "".join(f"<{_PRIORITIES.get(level, 6)}>{line}" for line in lines)

    return prefixed


FORMATS: Final[Mapping[str, Format]] = {"text": as_text, "json": as_json}


def parse_log_format(name: str) -> str:
    """Return the name of a format."""
    if name not in FORMATS:
        raise UnknownName(f"no format named {name!r}{suggest(name, FORMATS)}")
    return name


def goes_to_journal(file: IO[Any]) -> bool:
    """Whether systemd has connected a file to its journal, as JOURNAL_STREAM says."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, AttributeError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def observer_of(file: IO[Any], format_: str) -> FileLogObserver:
    """Return what writes the log into a file, in one of `FORMATS`, or as its reader wants it."""
    if not goes_to_journal(file):
        return FileLogObserver(file, FORMATS[format_])
    # Which adds the time itself.
    untimed: Format = lambda event: (as_text(event) or "").partition(" ")[2]  # noqa: E731
    return FileLogObserver(file, for_journal(untimed if format_ == "text" else as_json))


class WatchedLogFile(LogFile):
    """A log file that is opened anew when logrotate, or anybody else, has renamed or removed it."""

    def __init__(self, name: str, directory: str, **options: Any) -> None:
        super().__init__(name, directory, **options)
        self._ours = self._on_disk()

    def reopen(self) -> None:
        super().reopen()
        self._ours = self._on_disk()

    def rotate(self) -> None:
        super().rotate()
        self._ours = self._on_disk()

    def write(self, data: str | bytes) -> None:
        # Without the right to make a new one, the old one is better than none.
        if self._on_disk() != self._ours and os.access(self.directory, os.W_OK):
            self.reopen()
        super().write(data)

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino
