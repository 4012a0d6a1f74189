"""A program run against a service, or as one: bounded in time, and killed with all it started.

What students write hangs, forks and floods. A program has a process group of its own, which is
killed when its time is over and again when it has ended. What has left the group is found too: it
has the program's mark in its environment or, where it has hidden that, is a child of ours then
(Linux). Where a program is graded, its processor time, memory, files and processes are limited too,
and its output is cut. A container has to add the rest: a program may read this user's files and
reach the network.
"""

import ctypes
import itertools
import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import Any, ClassVar, Final, Self
from uuid import uuid4

from uppercase.errors import UserError
from uppercase.limits import KIB, MIB

OUTPUT: Final = 64 * KIB
"""Bytes of a graded program's output that are kept, of each of its two streams."""

_MARK: Final = "UPPERCASE_RUN"
"""In the environment of all that a program starts, unless somebody hides it on purpose."""

LIMITS: Final[Mapping[str, int]] = {
    "RLIMIT_CPU": 20,
    "RLIMIT_AS": 2048 * MIB,
    "RLIMIT_FSIZE": 16 * MIB,
    "RLIMIT_NOFILE": 256,
    "RLIMIT_CORE": 0,
}
"""Of each process of a graded program: Java starts within 2 GiB of addresses, nothing needs more
files than that. Processes are limited to 100 more than the user has, unless the user is root."""

_BECOME_REAPER: Final = 36
"""`PR_SET_CHILD_SUBREAPER` of prctl: orphans among what we started become our children."""

_LAUNCH: Final = (
    "import os,resource,sys\n"
    "for pair in sys.argv[1].split(','):\n"
    " name,_,value=pair.partition('=')\n"
    " kind=getattr(resource,name,None)\n"
    " if kind is not None:\n"
    "  hard=resource.getrlimit(kind)[1]\n"
    "  value=int(value) if hard<0 else min(int(value),hard)\n"
    "  resource.setrlimit(kind,(value,value))\n"
    "try: os.execvp(sys.argv[2],sys.argv[2:])\n"
    "except OSError as error: sys.exit(f'cannot run {sys.argv[2]}: {error.strerror}')\n"
)
"""Sets the limits in the new process: Python runs nothing of its own safely between fork and exec
where there are threads."""

_STARTS_WITHIN: Final = 30.0
_POLL: Final = 0.02
_KILLED_WITHIN: Final = 10.0
"""Seconds in which what was killed must be gone: each round finds what forked meanwhile."""


class Overtime(UserError):
    """A program was killed because its time was over."""


def run_in_terminal(command: Sequence[str], host: str, port: int, seconds: float) -> int:
    """Run a program with our own standard streams; return its status as a shell has it.

    Where standard input is a terminal, the program has it, as a shell's job in the foreground does:
    it reads the keyboard, and Ctrl-C is for it. After `seconds` it is killed (`Overtime`).
    """
    try:
        captive = _Captive(command, host, port)
    except OSError as error:
        raise UserError(f"cannot run {command[0]}: {error.strerror}") from error
    with captive:
        with _foreground(captive.process.pid):
            status = captive.wait(seconds)
        if status is None:
            raise Overtime(
                f"the program was killed after {seconds:g} s (--timeout); it did not end"
            )
    return status if status >= 0 else 128 - status


@contextmanager
def _foreground(group: int) -> Iterator[None]:
    """Give a process group the terminal, if there is one and we have it, and take it back."""
    ours, settings = os.getpgrp(), None
    with suppress(OSError, termios.error):
        settings = termios.tcgetattr(0) if os.tcgetpgrp(0) == ours else None
    if settings is None:
        yield
        return
    # Whoever is in the background and takes the terminal is stopped by this signal otherwise.
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        with suppress(OSError):
            os.tcsetpgrp(0, group)
            # It may have read before it had the terminal, and have been stopped for it.
            os.killpg(group, signal.SIGCONT)
        yield
    finally:
        with suppress(OSError, termios.error):
            os.tcsetpgrp(0, ours)
            termios.tcsetattr(0, termios.TCSADRAIN, settings)
        signal.signal(signal.SIGTTOU, before)


class _Captive:
    """A running program, which ends with the `with` block and all that it has started, daemons too.

    In the words of its command `{host}` and `{port}` are replaced.

    What has a program's mark is that program's. What has hidden it may be any program's that runs:
    it goes with the last of them.
    """

    _lock: Final = threading.Lock()
    _running: ClassVar[set[str]] = set()
    """The marks of all that run."""
    _before: ClassVar[set[int]] = set()
    """What descended from us before the first of them."""

    def __init__(self, command: Sequence[str], host: str, port: int, **pipes: Any) -> None:
        words = [word.replace("{host}", host).replace("{port}", str(port)) for word in command]
        self._mark = uuid4().hex
        with self._lock:
            if not self._running:
                _adopt_orphans()
                _Captive._before = _descendants(set())
            self._running.add(self._mark)
        surroundings = {
            **os.environ,
            "UPPERCASE_HOST": host,
            "UPPERCASE_PORT": str(port),
            "PYTHONUNBUFFERED": "1",
            _MARK: self._mark,
        }
        try:
            self.process = subprocess.Popen(words, env=surroundings, process_group=0, **pipes)
        except OSError:
            with self._lock:
                self._running.remove(self._mark)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Kill it, its group, and what has left the group."""
        # Invariant: the process is not reaped, or its group is empty: the number is still its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + _KILLED_WITHIN
        dying: set[int] = set()
        # Nothing starts meanwhile, so that what has no mark is nobody's but the last one's.
        with self._lock:
            self._running.discard(self._mark)
            while (dying := self._left() | dying) and time.monotonic() < deadline:
                for pid in dying:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(_POLL)
                dying = set(filter(_unreaped, dying))

    def _left(self) -> set[int]:
        needle = f"{_MARK}={self._mark}".encode()
        marked = {pid for pid, text in _processes("environ") if needle in text.split(b"\0")}
        return marked | (set() if self._running else _descendants(self._before))

    def wait(self, seconds: float) -> int | None:
        """Return its exit status, None if it does not end within the seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class Program(_Captive):
    """A student's program on trial: limited, what it prints kept up to a bound.

    It reads and writes files, so that nobody has to take what it prints, or to give it more: it
    reads what is typed, and then the end. The limits are of each of its processes.
    """

    def __init__(
        self,
        command: Sequence[str],
        host: str,
        port: int,
        typed: str = "",
        limits: Mapping[str, int] = LIMITS,
    ) -> None:
        limits = {"RLIMIT_NPROC": _count_tasks() + 100, **limits}
        words = ",".join(f"{name}={value}" for name, value in limits.items())
        self._files = [TemporaryFile() for _ in range(3)]  # noqa: SIM115  (closed at the end)
        stdin, stdout, stderr = self._files
        stdin.write(typed.encode())
        stdin.seek(0)
        launch = [sys.executable, "-ISc", _LAUNCH, words, *command]
        super().__init__(launch, host, port, stdin=stdin, stdout=stdout, stderr=stderr)

    def __exit__(self, *raised: object) -> None:
        super().__exit__()
        for file in self._files:
            file.close()

    def output(self) -> str:
        """Return what it has printed, up to `OUTPUT` bytes."""
        return self._text(1)

    def complaint(self) -> str:
        lines = self._text(2).strip().splitlines()
        return lines[-1][:200] if lines else ""

    def _text(self, number: int) -> str:
        # At a place of its own: where the program writes on does not change.
        return os.pread(self._files[number].fileno(), OUTPUT, 0).decode(errors="replace")

    def serves(self, port: int, kind: str) -> bool:
        """Wait until somebody listens on a port; whether that happens while the program lives."""
        deadline = time.monotonic() + _STARTS_WITHIN
        while time.monotonic() < deadline and self.alive:
            if _listens(port, kind):
                return True
            time.sleep(_POLL)
        return False

    def gone(self, port: int, kind: str) -> bool:
        """Return whether it has ended, and left nobody behind who listens on a port."""
        return not self.alive and not _listens(port, kind)

    def interrupt(self) -> None:
        """End it at once, from another thread; its `with` block ends what is left."""
        # Invariant: it is not reaped, else `poll` says so: the number is still its own.
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def _adopt_orphans() -> None:
    """Become the parent of what is orphaned from now on (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_BECOME_REAPER, 1, 0, 0, 0)


def _processes(file: str) -> Iterator[tuple[int, bytes]]:
    """Return all processes, and what a file of `/proc` says of each (Linux; elsewhere none)."""
    with suppress(OSError):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{pid}/{file}", "rb") as about:
                yield int(pid), about.read()


def _descendants(others: set[int]) -> set[int]:
    """Return our children that are not among some, and all that descends from them (Linux)."""
    children: dict[int, list[int]] = {}
    for pid, text in _processes("stat"):
        # The name in brackets may hold anything, brackets as well.
        parent = int(text.rpartition(b")")[2].split()[1])
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    wanted = {os.getpid()}
    while wanted:
        wanted = {child for pid in wanted for child in children.get(pid, ())} - others - found
        found |= wanted
    return found


def _unreaped(pid: int) -> bool:
    """Return whether a process is a child of ours that lives; one that has ended is reaped."""
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


def _count_tasks() -> int:
    """Return how many processes and threads this user has (Linux; elsewhere a guess)."""
    texts = (text for _, text in _processes("status"))
    found = (re.search(rb"\nUid:\t(\d+)(?s:.*)\nThreads:\t(\d+)", text) for text in texts)
    return sum(int(each[2]) for each in found if each and int(each[1]) == os.getuid()) or 1000


def _listens(port: int, kind: str) -> bool:
    """Whether somebody has a port of this machine open; nothing is sent to find out."""
    state = {"tcp": "0A", "udp": "07"}[kind]
    for name in (kind, f"{kind}6"):
        with suppress(OSError), open(f"/proc/net/{name}") as file:
            for line in itertools.islice(file, 1, None):
                words = line.split()
                if words[1].endswith(f":{port:04X}") and words[3] == state:
                    return True
                # Those that listen come first, before thousands of connections.
                if kind == "tcp" and words[3] != state:
                    break
    return False
