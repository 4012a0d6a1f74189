"""The record: what a service did, one object per line, as a file that other programs read.

A line is an event of `uppercase.core.events` in the words of the JSON log, with its time and the
first bytes of what was sent. The first line says what the file is. `docs/reference/record.md` has
the schema. A record must cost nothing when it is off, and never stop the service when it is on.
"""

import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from sys import intern
from typing import Any, BinaryIO, Final

from twisted.logger import LogLevel
from zope.interface import implementer

from uppercase.core.events import Event, IObserver
from uppercase.core.values import printable
from uppercase.errors import UserError
from uppercase.limits import RECORD_BYTES, RECORD_LIMIT
from uppercase.services.base import Repeated
from uppercase.services.logs import facts_of, say

VERSION: Final = 1  # Of the format; a reader of this version accepts no other.

FLUSH: Final = 1.0
"""Seconds between flushes, so that a timeline of a running service lags by no more."""

_to_json: Final = json.JSONEncoder(separators=(",", ":")).encode

Row = Mapping[str, Any]  # One line of a record.


def row_of(event: Event, now: float, head: int) -> Row:
    """Return an event as a row, with no more than `head` bytes of its payload."""
    facts = {name: each for name, each in facts_of(event).items() if not name.endswith("_bytes")}
    data = getattr(event, "data", getattr(event, "request", None))
    if data is not None:
        facts |= {"data": data[:head].decode("latin-1"), "size": len(data)}
    return {"time": round(now, 6), "wall": round(time.time(), 6), **facts}


@implementer(IObserver)
class Recorder:
    """Writes what it is told into a file, up to a limit; a failure ends the record, nothing else.

    Args:
        about: facts for the first line, such as the protocol and the lab's options.
        head: bytes of each payload that are kept.
        limit: bytes of the file.
    """

    def __init__(
        self,
        file: BinaryIO,
        about: Mapping[str, Any],
        *,
        head: int = RECORD_BYTES,
        limit: int = RECORD_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._room = limit
        self._head, self._clock = head, clock
        self.ended = ""
        self._first: Row | None = {"record": VERSION, "wall": time.time(), **about}

    def notify(self, event: Event) -> None:
        if not self.ended:
            self._write(row_of(event, self._clock(), self._head))

    def flush(self) -> None:
        self._begin()
        self._try(self._file.flush)

    def close(self) -> None:
        self.flush()
        self._try(self._file.close)
        self.ended = self.ended or "it is closed"

    def _begin(self) -> None:
        """Begin the file anew, once: not before there is a service, as a start may fail."""
        first, self._first = self._first, None
        if first is not None:
            with suppress(OSError):  # of a pipe
                self._file.truncate()
            self._write(first)

    def _write(self, row: Row) -> None:
        self._begin()
        line = _to_json(row).encode() + b"\n"
        self._room -= len(line)
        if self._room < 0:
            self._end("it is as large as it may be (--record-limit)")
        else:
            self._try(lambda: self._file.write(line))

    def _try(self, do: Callable[[], object]) -> None:
        try:
            do()
        except (OSError, ValueError) as error:
            # A file that is closed after it failed to flush says so with a ValueError.
            self._end(getattr(error, "strerror", None) or str(error))

    def _end(self, why: str) -> None:
        if not self.ended:
            self.ended = why
            say(f"the record ends here: {why}; the service goes on", LogLevel.warn)


def open_record(
    path: str, about: Mapping[str, Any], reactor: Any, *, head: int, limit: int
) -> Recorder:
    """Return a recorder that flushes each second while the reactor runs, and closes at its end."""
    # A pipe is waited for neither when it is opened nor when it is full: a write that had to wait
    # would hold up the service. Like every one that fails, it ends the record.
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "wb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            _lock(file, path)
    # A ValueError says that the name has a null byte.
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"got --record={path}: {why}; a file that can be written is accepted"
        ) from error
    recorder = Recorder(file, about, head=head, limit=limit, clock=reactor.seconds)
    reactor.callWhenRunning(Repeated(recorder.flush, reactor).start, FLUSH)
    # A service may still be told things while it drains.
    reactor.addSystemEventTrigger("after", "shutdown", recorder.close)
    return recorder


def look_for_writer(path: Path) -> None:
    """Refuse a file that a service writes; one that is not there, or is no file, is nobody's."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                _lock(file, path)


def _lock(file: BinaryIO, path: object) -> None:
    """Lock a file for ours, as far as the system can; refuse one that another service writes."""
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(
            f"got --record={path}, which another service writes; name another file"
        ) from None
    except OSError:  # of a file system that knows no locks
        pass


def read_record(lines: Iterable[bytes], name: str = "the record") -> tuple[Row, list[Row], str]:
    """Return the first line, the events, and what was wrong with the rest ("" for nothing).

    What is readable is returned: a service that was killed leaves a line that is cut.
    """
    rows: list[Row] = []
    problem = ""
    for number, line in enumerate(lines, 1):
        row: Any = None
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
        if not _is_row(row, *(("time", "event") if rows else ("record",))):
            if not rows:
                raise UserError(f"{name} is not a record; one that --record=FILE wrote is accepted")
            problem = f"{name}, line {number}: cut or damaged; what is before it is shown"
            break
        # Interned: a record has few words, each of them very often.
        rows.append(shown := {intern(key): value for key, value in row.items()})
        for key, value in shown.items():
            # What a picture or a terminal may have; data is shown, and sent, by its bytes.
            if isinstance(value, str) and key != "data":
                shown[key] = intern(printable(value))
    if not rows:
        raise UserError(f"{name} is empty; one that --record=FILE wrote is accepted")
    if rows[0]["record"] != VERSION:
        raise UserError(
            f"{name} is of version {str(rows[0]['record'])[:20]}; this program reads {VERSION}"
        )
    return rows[0], rows[1:], problem


_MOST: Final = 1e11
"""Of any number in a record: a larger one is neither time nor size, and would break a picture."""

_TYPES: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("time", "wall", "delay"), int | float),
    **dict.fromkeys(("number", "size"), int),
    **dict.fromkeys(("event", "peer", "direction", "data", "fate", "fates"), str),
    "actions": list,
}


def _is_row(row: Any, *needed: str) -> bool:
    """Whether a line has what it needs, as it should be; a record may come from anywhere."""
    return (
        isinstance(row, dict)
        and {*needed} <= row.keys()
        and all(
            isinstance(row[name], kind)
            and (isinstance(row[name], str | list) or 0 <= row[name] < _MOST)
            for name, kind in _TYPES.items()
            if name in row
        )
    )
