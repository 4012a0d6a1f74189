"""One worker as its supervisor sees it: a process, two pipes, and what it says."""

import json
import math
import signal
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final, Protocol

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import InvalidLogLevelError, LogLevel
from twisted.python.failure import Failure

from uppercase.services._metrics import Snapshot
from uppercase.services._worker import BOARD, COMMANDS, REPORTS, Assignment
from uppercase.services.logs import say

_LAST_OUTPUT: Final = 0.5
"""Seconds after a worker's end in which its last output is waited for; a program that it has
started may hold the pipe open for ever."""

_DUMP: Final = 1.0  # Seconds that a worker that hangs has to say where.

_OUTPUT: Final = {1: LogLevel.info, 2: LogLevel.warn}
"""As what the lines of a worker's standard output and error are logged."""

_LINE: Final = 1 << 16
"""Bytes of one line of output that are kept; a longer one is logged in parts."""

_REPORT: Final = 1 << 20
"""Bytes of one report at the most: a hundred times what the numbers of a worker take."""


class State(Enum):
    STARTING = auto()
    SERVING = auto()
    ENDING = auto()
    """It was told to finish."""
    ENDED = auto()


class Superior(Protocol):
    """Who is told when a worker serves, what each service of it does, and how it has ended."""

    def ready(self, worker: "Worker", served: list[list[str]]) -> None: ...
    def ended(self, worker: "Worker", how: str) -> None: ...


class Worker(ProcessProtocol):
    """A worker process.

    Attributes:
        since: when it has begun to serve.
        silent: looks since its last sign of life.
        numbers: what it has counted so far, where that is asked for.
        not_ready: its own word for why it wants no more clients.
    """

    # What `spawnProcess` gives; which signals and pipes it has is in the interface.
    transport: Any

    def __init__(self, number: int, superior: Superior) -> None:
        self.number = number
        self.state = State.STARTING
        self.pid: int | None = None
        self.since = math.inf
        self.silent = 0
        self.numbers: Snapshot = {}
        self.not_ready = ""
        self._superior = superior
        self._lines = {1: b"", 2: b"", REPORTS: b""}
        self._last_words = ""
        self._garbled = False
        self._status: Any = None

    def __str__(self) -> str:
        return f"worker {self.number + 1} (process {self.pid})"

    def spawn(
        self,
        reactor: Any,
        command: Sequence[str],
        directory: str,
        assignment: Assignment,
        inherited: Sequence[int],
    ) -> None:
        """Start the process, with descriptors: of the board, then of the sockets."""
        self._reactor = reactor
        pipes = {0: "w", 1: "r", 2: "r", REPORTS: "r", COMMANDS: "w"}
        fds = {**pipes, **dict(enumerate(inherited, BOARD))}
        try:
            reactor.spawnProcess(self, command[0], command, env=None, path=directory, childFDs=fds)
        except OSError as error:
            # Such as a Python that the user whom twistd has changed to may not run.
            self._last_words = f"{command[0]} cannot be started: {error.strerror}"
            reactor.callLater(0, self._ended)
        else:
            self.pid = self.transport.pid
            self.transport.closeStdin()
            self._tell(json.dumps(assignment).encode())

    def _tell(self, line: bytes) -> None:
        # What Twisted raises when it has closed the pipe, and will be gone.
        with suppress(KeyError):
            self.transport.writeToChild(COMMANDS, line + b"\n")

    def end(self, word: bytes, seconds: float) -> None:
        """Tell it to finish; if it has not after so many seconds, kill it."""
        if self.state is State.ENDED or self.transport is None:
            return
        self.state = State.ENDING
        self._tell(word)
        self._reactor.callLater(seconds, self.kill)

    def give_up(self) -> None:
        """End it at once where it only begins; if it serves after all, it stops as ever."""
        if self.state is State.STARTING and self.transport is not None:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, after it has said where it is."""
        self._signal(signal.SIGABRT)  # faulthandler's
        self._reactor.callLater(_DUMP, self._signal, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # Nothing is called off: who has ended takes no signal any more.
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N802, N803
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
            except (ValueError, LookupError, TypeError, RecursionError, InvalidLogLevelError):
                self._complain()
        elif line.strip():
            text = line.decode(errors="backslashreplace")
            if descriptor == 2:
                self._last_words = text.strip()
            self._write(_OUTPUT[descriptor], text, {"event": "output"})

    def _complain(self) -> None:
        """Say once that something else than reports comes through their pipe."""
        if not self._garbled:
            self._garbled = True
            say(
                f"{self} has told what is no report, which is left out; does a transform write to "
                "file descriptors that it has not opened?",
                LogLevel.error,
                event="garbled-report",
                worker=self.number + 1,
            )

    def _hear(self, said: dict[str, Any]) -> None:
        self.silent = 0
        match said["report"]:
            case "log":
                facts = {key: each for key, each in said["facts"].items() if each is not None}
                self._write(LogLevel.lookupByName(said["level"]), said["text"], facts)
            case "ready":
                if self.state is State.STARTING:
                    self.state = State.SERVING
                    self._superior.ready(self, said["served"])
            case "beat":
                self.numbers = {tuple(key): number for key, number in said["numbers"]}
                self.not_ready = said["not_ready"]
            case "failed":
                self._last_words = said["text"]
            case other:
                raise ValueError(other)

    def _write(self, level: Any, text: str, facts: dict[str, Any]) -> None:
        number = self.number + 1
        say(f"worker {number}: {text}", level, **{**facts, "worker": number})

    def processExited(self, reason: Failure) -> None:  # noqa: N802
        self._status = reason.value
        self._reactor.callLater(_LAST_OUTPUT, self._ended)

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        self._ended()

    def _ended(self) -> None:
        if self.state is State.ENDED:
            return
        for descriptor in (1, 2):
            self._take(descriptor, self._lines[descriptor])
        self.state = State.ENDED
        how = self._last_words or f"it exited with status {getattr(self._status, 'exitCode', 0)}"
        if number := getattr(self._status, "signal", None):
            how = f"killed by {signal.Signals(number).name}"
        self._superior.ended(self, how)
