"""A worker: a process that serves sockets which its supervisor has opened.

It has two pipes. From `COMMANDS` it reads an `Assignment`, then words; the end of that pipe means
that the supervisor is gone, and the worker goes too. Into `REPORTS` it writes objects of JSON, one
a line: what it logs, that it is ready, that it lives and what it has counted, and why it failed.
"""

import faulthandler
import gc
import json
import mmap
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, count
from typing import Any, Final, NamedTuple

from twisted.application.service import MultiService
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.logger import LogEvent, LogLevel, eventAsText, globalLogBeginner
from twisted.python.reflect import namedModule
from twisted.python.usage import UsageError

from uppercase.errors import PluginError, UserError
from uppercase.services._base import CannotStart, TransformService
from uppercase.services._metrics import Measurements
from uppercase.services._tcp import TCPService

REPORTS: Final = 3  # The descriptor that a worker reports to.
COMMANDS: Final = 4  # The descriptor that it is told what to do by.
BOARD: Final = 5  # The descriptor of the `Board` of its generation.
SOCKETS: Final = 6  # The first of those that it inherits.
STOP: Final = b"stop"  # The whole service stops: who waits in the accept queue is served too.
RETIRE: Final = b"retire"  # Others go on serving the sockets: answer what was asked, and end.

_WORD: Final = 0.5
"""Seconds in which the supervisor's word follows a SIGTERM that it had too, as one of the group."""


class Assignment(NamedTuple):
    """What a worker has to know besides its command line, as a line of JSON.

    Attributes:
        number: its place among the workers, from 0.
        beat: seconds between two signs of life.
        measure: whether these have numbers.
        directory: where to run; options are read where the supervisor read its own.
        places: what each service of the supervisor binds.
        sockets: the place of each, by service, in the order of the descriptors.
    """

    number: int
    workers: int
    beat: float
    measure: bool
    reactor: str
    directory: str
    places: list[list[str]]
    sockets: list[list[str]]


def report(kind: str, **facts: Any) -> None:
    """Report to the supervisor; where there is none any more, end."""
    data = json.dumps({"report": kind, **facts}).encode() + b"\n"
    try:
        while data:
            # Invariant: blocks while the supervisor does not read, as writing a log does.
            data = data[os.write(REPORTS, data) :]
    except OSError:
        os._exit(1)


def _report_log(event: LogEvent) -> None:
    level: Any = event.get("log_level", LogLevel.info)
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    if text:
        facts = event.get("facts") or {"event": "log", "from": event.get("log_namespace")}
        report("log", level=level.name, text=text, facts=facts)


def begin() -> Assignment:
    """Make this process a worker: its signals, its reactor and its log."""
    # Unbuffered: not a byte more than that line.
    with open(COMMANDS, "rb", buffering=0, closefd=False) as pipe:
        assignment = Assignment(*json.loads(pipe.readline()))
    faulthandler.enable()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        # A terminal sends them to all of its processes; the supervisor says what they mean.
        signal.signal(number, signal.SIG_IGN)
    namedModule(assignment.reactor).install()
    observer: Any = _report_log
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    return assignment


def run(assignment: Assignment, make: Callable[[], Sequence[TransformService]]) -> int:
    """Serve until told to end, with signs of life; return the status to exit with."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    together = MultiService()
    measured: Measurements | None = None
    try:
        services = make()
        _inherit(services, assignment)
        os.chdir(assignment.directory)
        for service in services:
            service.setServiceParent(together)
        if assignment.measure:
            measured = Measurements(services, reactor)
            measured.setServiceParent(together)
        together.startService()
    except (UsageError, UserError, PluginError, CannotStart, OSError) as error:
        report("failed", text=str(error))
        return 1

    def beat() -> None:
        report(
            "beat",
            numbers=list(measured.snapshot().items()) if measured else [],
            not_ready=measured.not_ready() if measured else "",
        )

    def ready() -> None:
        _await_word(reactor)
        beats.start(assignment.beat)
        gc.freeze()
        report("ready", served=[each.served() for each in services])

    beats = LoopingCall(beat)
    reactor.callWhenRunning(ready)
    reactor.addReader(_Commands(reactor, services))
    reactor.addSystemEventTrigger("before", "shutdown", together.stopService)
    reactor.run()
    # What has happened since the last, up to the end.
    beat()
    return 0


def _await_word(reactor: Any) -> None:
    """Have SIGTERM end this worker, but not before the supervisor could say what it means."""
    end: Any = signal.getsignal(signal.SIGTERM)

    def alone() -> None:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            end(signal.SIGTERM, None)

    def asked(*_: object) -> None:
        reactor.callFromThread(reactor.callLater, _WORD, alone)

    signal.signal(signal.SIGTERM, asked)


def _inherit(services: Sequence[TransformService], assignment: Assignment) -> None:
    wanted = [each.places() for each in services]
    if wanted != assignment.places:
        got, have = (", ".join(chain(*places)) for places in (wanted, assignment.places))
        raise UserError(
            f"got {got} to listen on, but the sockets are {have} and stay; start the service anew "
            "for that"
        )
    numbers = count(SOCKETS)
    for service, places in zip(services, assignment.sockets, strict=True):
        service.inherited = [(place, socket.socket(fileno=next(numbers))) for place in places]
        service.share_limits(assignment.workers)
        # Unless it is said that all stop.
        service.hands_over = True
    board = Board(BOARD, assignment.workers)
    tcp = [each for each in services if isinstance(each, TCPService)]

    def has_more() -> bool:
        return board.has_more(assignment.number, sum(len(each.factory.connections) for each in tcp))

    for each in tcp:
        each.waits = has_more


class _Commands(FileDescriptor):
    """Does what the supervisor says, and ends with it."""

    def __init__(self, reactor: Any, services: Sequence[TransformService]) -> None:
        super().__init__(reactor)
        self._reactor = reactor
        self._services = services
        os.set_blocking(COMMANDS, False)

    def fileno(self) -> int:
        return COMMANDS

    def doRead(self) -> None:
        """Take words; of several, one is enough."""
        try:
            words = os.read(COMMANDS, 4096).split()
        except BlockingIOError:
            return
        if not words:
            os._exit(1)
        for service in self._services:
            service.hands_over = RETIRE in words
        # It may go to the whole group, as from `timeout` or systemd, and must not be this worker's
        # second one.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Where somebody has sent it to this worker before, it is stopping.
        with suppress(ReactorNotRunning):
            self._reactor.stop()


_SIZE: Final = 8
_NOBODY: Final = (1 << 63) - 1

_SLACK: Final = 4  # Connections that a worker may have more than another before it waits.


class Board:
    """How many connections each worker has, in memory that all of them see.

    Of several processes that wait for one socket, the system wakes all, and whoever runs first
    takes the connection: mostly the same one. So a worker that has more than another waits.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self._counts = memoryview(mmap.mmap(descriptor, workers * _SIZE)).cast("q")

    @classmethod
    def make(cls, workers: int) -> "Board":
        """Return a new one, on which nobody has a number yet."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("uppercase-workers")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, workers * _SIZE)
        board = cls(descriptor, workers)
        for number in range(workers):
            board.clear(number)
        return board

    def clear(self, number: int) -> None:
        """Take note that there is no such worker: nobody waits for it."""
        self._counts[number] = _NOBODY

    def has_more(self, number: int, count: int) -> bool:
        """Write a worker's number, and tell whether it has notably more than another."""
        self._counts[number] = count
        return count > min(self._counts) + _SLACK

    def close(self) -> None:
        """Let go of the memory; workers keep theirs."""
        self._counts.release()
        os.close(self.descriptor)
