"""A worker, and how its supervisor sees it: both ends of the pipes between them.

A worker is a process that serves sockets which its supervisor has opened. From `COMMANDS` it reads
an `Assignment`, then words; the end of that pipe means that the supervisor is gone, and the worker
goes too. Into `REPORTS` it writes objects of JSON, one per line: what it logs, that it is ready,
that it lives and what it has counted, and why it failed.
"""

import faulthandler
import gc
import json
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from itertools import chain, count
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.application.service import MultiService
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ProcessExitedAlready, ReactorNotRunning
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import LogEvent, LogLevel, eventAsText, globalLogBeginner
from twisted.python.failure import Failure
from twisted.python.reflect import namedModule
from twisted.python.usage import UsageError

from uppercase.awaiting import leave_threads, the_reactor
from uppercase.errors import PluginError, UserError
from uppercase.services._stopping import CannotStart
from uppercase.services._tcp import Board, TCPService
from uppercase.services.base import OpenPlace, Repeated, TransformService
from uppercase.services.logs import escape_what_lacks, say
from uppercase.services.metrics import Measurements, Snapshot

if TYPE_CHECKING:
    from uppercase.services.supervisor import Supervisor

REPORTS: Final = 3  # The descriptor that a worker reports to.
COMMANDS: Final = 4  # The descriptor that it is told what to do by.
BOARD: Final = 5  # The descriptor of the `Board` of its generation.
SOCKETS: Final = 6  # The first of those that it inherits.
STOP: Final = b"stop"  # The whole service stops: clients in the accept queue are served too.
RETIRE: Final = b"retire"  # Others go on serving the sockets: answer what was asked, and end.


class Assignment(NamedTuple):
    """What a worker has to know besides its command line, as a line of JSON.

    Attributes:
        number: its place among the workers, from 0.
        beat: seconds between two signs of life.
        measure: whether those carry numbers.
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


# As its supervisor sees it

_LAST_OUTPUT: Final = 0.5
"""Seconds to wait for a worker's last output after its end; a program that it has started may hold
the pipe open forever."""

_DUMP: Final = 0.25
"""Seconds that a hanging worker has to say where; one that was stopped cannot, and has to be gone
before the supervisor's own time to end is over."""

_OUTPUT: Final = {1: LogLevel.info, 2: LogLevel.warn}
"""The levels at which a worker's standard output and error are logged."""

_LINE: Final = 1 << 16
"""Bytes of one line of output that are kept; a longer one is logged in parts."""

_REPORT: Final = 1 << 20
"""Bytes of one report at most: a hundred times what a worker's numbers take."""


class State(Enum):
    """What a worker process is doing."""

    STARTING = auto()
    SERVING = auto()
    ENDING = auto()
    """It was told to finish, or is killed because it hangs."""
    ENDED = auto()


class Worker(ProcessProtocol):
    """A worker process.

    Attributes:
        since: when it has begun to serve.
        silent: seconds since its last sign of life.
        numbers: what it has counted so far, where that is asked for.
        not_ready: its own reason for wanting no more clients.
    """

    # What `spawnProcess` gives; which signals and pipes it has is in the interface.
    transport: Any

    def __init__(self, number: int, supervisor: "Supervisor") -> None:
        self.number = number
        self.state = State.STARTING
        self.pid: int | None = None
        self.since = math.inf
        self.silent = 0.0
        self.numbers: Snapshot = {}
        self.not_ready = ""
        self._supervisor = supervisor
        self._lines = {1: b"", 2: b"", REPORTS: b""}
        self._last_words = ""
        self._garbled = False
        self._status: Any = None

    def __str__(self) -> str:
        process = f" (process {self.pid})" if self.pid else ""  # It could not be started.
        return f"worker {self.number + 1}{process}"

    def spawn(self, assignment: Assignment, inherited: Sequence[int]) -> None:
        """Start the process, with descriptors: of the board, then of the sockets."""
        ours = self._supervisor
        command = [*ours.program, str(os.getpid()), *ours.words]
        pipes = {0: "w", 1: "r", 2: "r", REPORTS: "r", COMMANDS: "w"}
        fds = {**pipes, **dict(enumerate(inherited, BOARD))}
        try:
            ours.reactor.spawnProcess(
                self, command[0], command, env=None, path=ours.directory, childFDs=fds
            )
            self.pid = self.transport.pid
            searched = [each for each in sys.path if isinstance(each, str)]  # As Python does.
            self.transport.write(json.dumps([sys.hexversion >> 16, *searched]).encode())
            self.transport.closeStdin()
            self._tell(json.dumps(assignment).encode())
        except OSError as error:
            # Such as a Python that this user may not run, a folder that is gone, or no memory to
            # watch its pipes.
            where = f"{command[0]} cannot be started in {ours.directory}"
            self._last_words = f"{where}: {error.strerror}"
            if self.transport is not None:
                self._signal(signal.SIGKILL)
            ours.reactor.callLater(0, self._ended)

    def _tell(self, line: bytes) -> None:
        # What Twisted raises when it has closed the pipe: the worker will be gone.
        with suppress(KeyError):
            self.transport.writeToChild(COMMANDS, line + b"\n")

    def end(self, word: bytes) -> None:
        """Tell it to finish; if it has not within the supervisor's patience, kill it."""
        if self.state is State.ENDED or self.transport is None:
            return
        self.state = State.ENDING
        with suppress(OSError):  # No memory to watch the pipe: the rest is up to `kill`.
            self._tell(word)
        self._supervisor.reactor.callLater(self._supervisor.patience, self.kill)

    def give_up(self) -> None:
        """End it at once if it is only starting; if it serves after all, it stops as usual."""
        if self.state is State.STARTING and self.transport is not None:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, after it has said where it is."""
        self._signal(signal.SIGABRT)  # faulthandler's
        self._supervisor.reactor.callLater(_DUMP, self._signal, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # Nothing was cancelled: a process that has ended takes no more signals.
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._lines[childFD] + data).split(b"\n")
        if len(rest) > (_REPORT if childFD == REPORTS else _LINE):
            lines, rest = [*lines, rest], b""
        self._lines[childFD] = rest
        for line in lines:
            self._take(childFD, line)

    def _take(self, descriptor: int, line: bytes) -> None:
        if descriptor == REPORTS:
            try:
                self._hear(json.loads(line))
            except Exception:  # Whatever it is: nothing but a report is understood.
                self._complain()
        elif line.strip():
            text = line.decode(errors="backslashreplace")
            if descriptor == 2:
                self._last_words = text.strip()
            self._write(_OUTPUT[descriptor], text, {"event": "output"})

    def _complain(self) -> None:
        """Say once that something other than reports comes through their pipe."""
        if not self._garbled:
            self._garbled = True
            say(
                f"{self} has sent something that is not a report, which is left out; "
                "does a transform write to file descriptors that it has not opened?",
                LogLevel.error,
                event="garbled-report",
                worker=self.number + 1,
            )

    def _hear(self, said: dict[str, Any]) -> None:
        self.silent = 0.0
        match said["report"]:
            case "log":
                facts = {key: each for key, each in said["facts"].items() if each is not None}
                self._write(LogLevel.lookupByName(said["level"]), said["text"], facts)
            case "ready":
                if self.state is State.STARTING:
                    self.state = State.SERVING
                    self._supervisor.ready(self, said["served"])
            case "beat":
                self.numbers = {tuple(key): number for key, number in said["numbers"]}
                self.not_ready = said["not_ready"]
            case "failed":
                self._last_words = said["text"]
            case other:
                raise ValueError(other)

    def _write(self, level: Any, text: str, facts: dict[str, Any]) -> None:
        say(f"worker {self.number + 1}: {text}", level, **{**facts, "worker": self.number + 1})

    def processExited(self, reason: Failure) -> None:
        self._status = reason.value
        self._supervisor.reactor.callLater(_LAST_OUTPUT, self._ended)

    def processEnded(self, reason: Failure) -> None:
        self._ended()

    def _ended(self) -> None:
        if self.state is State.ENDED:
            return
        for descriptor in (1, 2):
            self._take(descriptor, self._lines[descriptor])
        self.state = State.ENDED
        how = self._last_words or f"it exited with status {getattr(self._status, 'exitCode', 0)}"
        if number := getattr(self._status, "signal", None):
            how = f"killed by signal {number}"
            with suppress(ValueError):  # Those for real time have no names.
                how = f"killed by {signal.Signals(number).name}"
        self._supervisor.ended(self, how)


# The process itself

_WORD: Final = 0.5
"""Seconds within which the supervisor's word follows a SIGTERM that the whole group was sent."""


_reporting: Final = RLock()  # Transforms log in threads, and the pipe takes a part of a report.


def report(kind: str, **facts: Any) -> None:
    """Report to the supervisor; if there is none any more, end."""
    data = json.dumps({"report": kind, **facts}).encode() + b"\n"
    try:
        with _reporting:
            while data:
                # Invariant: blocks while the supervisor does not read, as writing a log does.
                data = data[os.write(REPORTS, data) :]
    except OSError:
        os._exit(1)


def _report_log(event: LogEvent) -> None:
    level: Any = event.get("log_level", LogLevel.info)
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    if text:
        told = {"event": "log", "from": event.get("log_namespace")}
        told |= {"traceback": text} if "log_failure" in event else {}
        ours = told["from"] == "uppercase" and event.get("facts")
        report("log", level=level.name, text=text, facts=ours or told)


def begin() -> Assignment:
    """Make this process a worker: its reactor and its log."""
    # Unbuffered: not a byte beyond that line.
    with open(COMMANDS, "rb", buffering=0, closefd=False) as pipe:
        told = json.loads(pipe.readline())
    try:
        assignment = Assignment(*told)
    except TypeError:
        sys.exit("uppercase has another version by now; restart the service")
    faulthandler.enable()
    for file in (sys.stdout, sys.stderr):
        escape_what_lacks(file, "utf-8")  # As the supervisor reads them.
    namedModule(assignment.reactor).install()
    observer: Any = _report_log
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    return assignment


def run(assignment: Assignment, make: Callable[[], Sequence[TransformService]]) -> int:
    """Serve until told to end, with signs of life; return the status to exit with."""
    reactor = the_reactor()
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
        leave_threads(1)  # The supervisor waits for the end.
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

    beats = Repeated(beat, reactor)
    reactor.callWhenRunning(ready)
    reactor.addReader(_Commands(reactor, services))
    reactor.addSystemEventTrigger("before", "shutdown", together.stopService)
    reactor.addSystemEventTrigger("after", "shutdown", leave_threads)
    reactor.run()
    # What has happened since the last, up to the end.
    beat()
    return 0


def _await_word(reactor: Any) -> None:
    """Have SIGTERM end this worker, but not before the supervisor can say what it means."""
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
            f"got {got} to listen on, but the sockets are {have} and stay; restart the service "
            "for that"
        )
    numbers = count(SOCKETS)
    for service, places in zip(services, assignment.sockets, strict=True):
        for place in places:
            skt = socket.socket(fileno=next(numbers))
            service.opened.append(OpenPlace(place, [skt]))
        service.share_limits(assignment.workers)
        # Unless the word is that all stop.
        service.hands_over = True
    board = Board(BOARD, assignment.workers)
    tcp = [each for each in services if isinstance(each, TCPService)]

    def has_more() -> bool:
        return board.has_more(assignment.number, sum(len(each.factory.connections) for each in tcp))

    for each in tcp:
        each.waits = has_more


class _Commands(FileDescriptor):
    """Does what the supervisor says, and ends when it does."""

    def __init__(self, reactor: Any, services: Sequence[TransformService]) -> None:
        super().__init__(reactor)
        self._reactor = reactor
        self._services = services

    def fileno(self) -> int:
        return COMMANDS

    def doRead(self) -> None:
        """Take words; one of several is enough."""
        words = os.read(COMMANDS, 4096).split()
        if not words:
            os._exit(1)
        for service in self._services:
            service.hands_over = RETIRE in words
        # It may be sent to the whole group, as by `timeout` or systemd, and must not count as a
        # second one.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # If somebody sent it to this worker before, it is stopping already.
        with suppress(ReactorNotRunning):
            self._reactor.stop()
