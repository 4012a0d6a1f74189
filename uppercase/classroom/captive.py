"""A program, and the service that it is run against: on a free port, with a lab and its record.

Students' programs hang, fork and flood. A program has a process group of its own, which is killed
when its time is over and again when it has ended. What has left the group is found too: it has the
program's mark in its environment or, if it has hidden that, becomes a child of ours (Linux). Where
a program is graded, its processor time, memory, files and processes are limited too, and its output
is cut. A container has to add the rest: a program may read this user's files and reach the network.
"""

import ctypes
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import chain, filterfalse
from tempfile import TemporaryFile
from typing import IO, Any, ClassVar, Final, Self, cast
from uuid import uuid4

from uppercase import lab as labs
from uppercase.awaiting import Waiter, choose_reactor, clock_of, the_reactor
from uppercase.classroom.record import Recorder, Row, read_record
from uppercase.core.framing import AUTO
from uppercase.core.values import printable
from uppercase.errors import CannotListen, UserError
from uppercase.limits import KIB, MIB, RECORD_LIMIT
from uppercase.registry import listing
from uppercase.services import TCPService, TCPSettings, UDPService, UDPSettings
from uppercase.services.base import Repeated

OUTPUT: Final = 64 * KIB
"""Bytes of a graded program's output that are kept, of each of its two streams."""

HOST: Final = "127.0.0.1"

_MARK: Final = "UPPERCASE_RUN"
"""In the environment of all that a program starts, unless somebody hides it on purpose."""

LIMITS: Final[Mapping[str, int]] = {
    "RLIMIT_CPU": 20,
    "RLIMIT_AS": 4096 * MIB,
    "RLIMIT_FSIZE": 16 * MIB,
    "RLIMIT_NOFILE": 256,
    "RLIMIT_CORE": 0,
}
"""Of each process of a graded program: Java reserves half of its addresses for its heap, and 1.25
GiB for classes and code, so it does not start within 2 GiB; nothing needs more files."""

TASKS: Final = 300
TASKS_A_CORE: Final = 16
"""Processes and threads beyond those that the user has, unless the user is root: a Java program has
20 threads and more on more cores, and as many run as checks are made at once."""

_BECOME_REAPER: Final = 36  # linux/prctl.h

NO_INTERPRETER: Final = "the interpreter that it names (#!) is not here"

_LAUNCH: Final = (
    "import os,resource,signal,sys\n"
    "for kind in signal.SIGCHLD,signal.SIGPIPE,signal.SIGXFSZ: signal.signal(kind,signal.SIG_DFL)\n"
    "def limit(name,value,last=True):\n"
    " kind=getattr(resource,name,None)\n"
    " if kind is not None:\n"
    "  hard=resource.getrlimit(kind)[1]\n"
    "  value=value if hard<0 else min(value,hard)\n"
    "  try: resource.setrlimit(kind,(value,value if last else hard))\n"
    "  except ValueError: pass\n"
    "for tasks in (2**n for n in range(6,21)):\n"
    " limit('RLIMIT_NPROC',tasks,False)\n"
    " try: pid=os.fork()\n"
    " except OSError: continue\n"
    " if not pid: os._exit(0)\n"
    " os.waitpid(pid,0)\n"
    " break\n"
    "limit('RLIMIT_NPROC',tasks+int(sys.argv[1]))\n"
    "for pair in sys.argv[2].split(','):\n"
    " name,_,value=pair.partition('=')\n"
    " limit(name,int(value))\n"
    "try: os.execvp(sys.argv[3],sys.argv[3:])\n"
    "except OSError as error:\n"
    " there=error.errno==2 and os.path.exists(sys.argv[3])\n"
    f" why={NO_INTERPRETER!r} if there else error.strerror\n"
    " sys.exit(f'cannot run {sys.argv[3]}: {why}')\n"
)
"""Sets the limits in the new process: Python can run nothing of its own safely between fork and
exec where there are threads. What Python ignores is not ignored by what it becomes. A limit that
the system refuses is not set: macOS refuses RLIMIT_AS, as it gives all more addresses. How many
processes and threads the user has is tried out, as in a container nobody sees those outside."""

_WHERE: Final = re.compile(
    r"\s(?! *what)|#\d|[\w/]+\.\S*\(.*\)$|[Ss]tack (back)?trace|CallStack|goroutine |created by |"
    r"\[signal |exit status |==\d+==ABORT|make.*: \*\*\*|note: |Emitted '|[}\"]|\(Use `node|"
    r"(Node\.js|Bun) v"
)
"""A line with which a language's runtime goes on after the one that says what went wrong."""

_OPEN_PORTS: Final = "/proc/net"

_STARTS_WITHIN: Final = 30.0
_POLL: Final = 0.05
KILLED_WITHIN: Final = 10.0
"""Seconds in which what was killed must be gone: each round finds what forked meanwhile."""


class Program:
    """A running program; it and all that it has started, daemons too, end with the `with` block.

    In its command `{host}` and `{port}` are replaced. What has a program's mark is that program's.
    What has hidden it may belong to any program that runs: it goes with the last.

    Args:
        typed: what it reads before the end of its input. None: nothing comes, nor the end, as from
            a keyboard that nobody touches: a server may run until somebody presses Enter.
        limits: of each of its processes, by their names in `resource`, if it is on trial: what it
            prints is kept, in files, which nobody has to empty. None: it has our own standard
            streams.
    """

    _lock: Final = threading.Lock()
    _running: ClassVar[set[str]] = set()
    """The marks of all that run."""
    _before: ClassVar[set[int]] = set()
    """What descended from us before the first of them."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        typed: str | None = None,
        limits: Mapping[str, int] | None = LIMITS,
    ) -> None:
        words = [word.replace("{host}", HOST).replace("{port}", str(port)) for word in command]
        self._held = ExitStack()
        streams: dict[str, Any] = {}
        if limits is not None:
            tasks = str(TASKS + TASKS_A_CORE * (os.cpu_count() or 1))
            pairs = ",".join(f"{name}={value}" for name, value in limits.items())
            words = [sys.executable, "-ISc", _LAUNCH, tasks, pairs, *words]
            files = (TemporaryFile() for _ in range(2))  # noqa: SIM115  (closed at the end)
            out, err = self._said = [*map(self._held.enter_context, files)]
            # No file: asyncio, and others that epoll wakes, wait for pipes and terminals only. And
            # without a buffer, whose lock the thread that types has: it would hold our end up.
            streams = {"stdin": subprocess.PIPE, "bufsize": 0, "stdout": out, "stderr": err}
        self.port = port
        self._mark = uuid4().hex
        with self._lock:
            if not self._running:
                # Orphans among what is started become our children (Linux).
                with suppress(OSError, AttributeError):
                    ctypes.CDLL(None).prctl(_BECOME_REAPER, 1, 0, 0, 0)
                Program._before = _descendants(set())
            self._running.add(self._mark)
            self._held.callback(self._running.discard, self._mark)
        surroundings = {
            **os.environ,
            "UPPERCASE_HOST": HOST,
            "UPPERCASE_PORT": str(port),
            "PYTHONUNBUFFERED": "1",
            # Else the limits have no room for the 64 MiB that glibc reserves for each of Java's
            # threads, nor for the file of 2 TiB in which .NET 7 to 9 keep their code.
            "MALLOC_ARENA_MAX": "2",
            "DOTNET_EnableWriteXorExecute": "0",
            _MARK: self._mark,
        }
        try:
            self.process = subprocess.Popen(words, env=surroundings, process_group=0, **streams)
        except OSError:
            self._held.close()
            raise
        if typed is not None:
            # In a thread: nobody has to read it.
            threading.Thread(target=self._type, args=(typed.encode(),), daemon=True).start()

    def _type(self, text: bytes) -> None:
        # Closed already if it ends at once.
        with suppress(OSError, ValueError), cast(IO[bytes], self.process.stdin) as keyboard:
            keyboard.write(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Kill it, its group, and what has left the group."""
        # Invariant: the process is not reaped, or its group is empty: the number is still its own.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except PermissionError as error:  # On macOS also where all of them have ended.
            if self.wait(KILLED_WITHIN) is None:
                self._held.close()
                raise UserError(
                    f"cannot end process {self.process.pid}, as it is another user's; start all "
                    "of it as that user, such as by sudo -u USER uppercase ..."
                ) from error
        self.process.communicate()  # That is, wait and close what it would have read.
        deadline = time.monotonic() + KILLED_WITHIN
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
        self._held.close()

    def _left(self) -> set[int]:
        needle = f"{_MARK}={self._mark}".encode()
        # Twice: one that has forked since the list was made, and has ended before its turn came, is
        # not seen at first, nor is its child.
        looks = chain(_processes("environ"), _processes("environ"))
        marked = {pid for pid, text in looks if needle in text.split(b"\0")}
        return marked | (set() if self._running else _descendants(self._before))

    def wait(self, seconds: float) -> int | None:
        """Return its exit status, None if it does not end within the seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def output(self, stream: int = 1) -> str:
        """Return what it has printed, up to `OUTPUT` bytes."""
        # By its own position: the one at which the program writes on does not change.
        return os.pread(self._said[stream - 1].fileno(), OUTPUT, 0).decode(errors="replace")

    def complaint(self, stream: int = 2) -> str:
        """Return the last line of its standard error that says more than where it was."""
        said = reversed(self.output(stream).splitlines())
        lines = [line[:200] for line in said if line.strip()]
        return next(chain(filterfalse(_WHERE.match, lines), lines), "").strip()

    def last_words(self) -> str:
        """Return its complaint, else what signal ended it, else its last line.

        Java says on standard output why it does not start.
        """
        status = self.process.poll() or 0
        return (
            self.complaint() or (ending(status) if status < 0 else self.complaint(1)) or "nothing"
        )

    def serves(self, kind: str) -> bool:
        """Wait until somebody listens on its port, while it or what it has started lives."""
        if not os.path.exists(_OPEN_PORTS):
            raise UserError(
                f"got a server to grade, but only Linux tells who listens ({_OPEN_PORTS}); grade "
                "it there, such as in a container"
            )
        # In looks, not by a clock: a machine that has no time for us has none for the program.
        for _ in range(round(_STARTS_WITHIN / _POLL)):
            if not (self.alive or self._left()):
                break
            if listens(self.port, kind):
                return True
            time.sleep(_POLL)
        return False

    def gone(self, kind: str) -> bool:
        """Return whether it has ended, and left nothing behind that listens on its port."""
        return not self.alive and not listens(self.port, kind)

    def interrupt(self) -> None:
        """End it at once, from another thread; its `with` block ends what is left."""
        # Invariant: it is not reaped, else `poll` says so: the number is still its own.
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


def ending(status: int) -> str:
    """Return an exit status, or the signal instead of it, in a shell's words."""
    return str(status) if status >= 0 else signal.strsignal(-status) or str(status)


def _processes(file: str) -> Iterator[tuple[int, bytes]]:
    """Return all processes, and what a file of `/proc` says of each (Linux; elsewhere none)."""
    with suppress(OSError):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{pid}/{file}", "rb") as about:
                yield int(pid), about.read()


def _descendants(others: set[int]) -> set[int]:
    """Return our children except the others, and all their descendants (Linux)."""
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


def listens(port: int, kind: str) -> bool:
    """Whether somebody has a port of this machine open; nothing is sent to find out (Linux)."""
    state = {"tcp": "0A", "udp": "07"}[kind]
    found = (words[3] for words in _sockets(kind, state) if words[1].endswith(f":{port:04X}"))
    return state in found


def has_let_go(port: int, client: int) -> bool:
    """Whether the server at a port has closed its socket of a client's port, not only a side."""
    ends = [f":{port:04X}", f":{client:04X}"]
    found = (words[9] for words in _sockets("tcp") if [end[-5:] for end in words[1:3]] == ends)
    return "0" in found  # No inode: nobody has it.


def _sockets(kind: str, listening: str = "") -> Iterator[list[str]]:
    """Return what the system says of each of this machine's sockets, or of those that listen."""
    for name in (kind, f"{kind}6"):
        with suppress(OSError), open(f"{_OPEN_PORTS}/{name}") as file:
            for words in map(str.split, itertools.islice(file, 1, None)):
                # They come first, before thousands of connections.
                if kind == "tcp" and listening not in ("", words[3]):
                    break
                yield words


# The service

_HEAD: Final = KIB
"""Bytes of a payload that are recorded: a student's checksums may stand before the text."""

_BEAT: Final = 0.05  # Seconds between two looks at how late the event loop is.

_BUSY: Final = 30.0  # Seconds for a service to begin or to end: two, but machines are busy.


def _wait_for(step: Awaitable[None]) -> None:
    try:
        Waiter(()).wait_for(step, _BUSY)
    except TimeoutError as error:
        raise UserError(f"a transform hangs: it has not returned for {_BUSY:g} s") from error


class ObservedService:
    """A service on loopback while the `with` block lasts, and all that it saw.

    The block is not in the reactor's thread.

    Attributes:
        late: seconds by which a reply was late at worst, because the machine had other work.
    """

    def __init__(
        self,
        *,
        udp: bool,
        transforms: Sequence[str] = ("uppercase",),
        port: int = 0,
        lab: str | None = None,
        options: Mapping[str, str] | None = None,
        seed: int | None = None,
        limit: int = RECORD_LIMIT,
    ) -> None:
        found = listing()
        choose_reactor(any(map(found.is_async, transforms)))
        reactor = the_reactor()
        self.port = port
        self.late = 0.0
        self._file = io.BytesIO()
        self._beat = Repeated(self._look, reactor)
        presets = labs.UDP_PRESETS if udp else labs.TCP_PRESETS
        texts = labs.merge_settings(lab, options or {}, presets)
        if seed is None:
            seed = labs.new_seed()
        elif not (udp and texts):
            raise UserError("got --seed where nothing is random; add a lab, such as -u --loss=0.3")
        about = {
            "protocol": "UDP" if udp else "TCP",
            "transform": printable("|".join(transforms)),
            "lab": labs.command_line(texts, seed=seed if udp and texts else None),
        }
        clock = clock_of(reactor).seconds
        self._recorder = Recorder(self._file, about, head=_HEAD, limit=limit, clock=clock)
        shared: dict[str, Any] = {
            "transforms": tuple(transforms),
            "found": found,
            "port": port,
            "drain": 1.0,
            "observers": (self._recorder,),
        }
        self._service: UDPService | TCPService
        if udp:
            experiment = labs.make_experiment(texts, seed=seed) if texts else None
            shared |= {"lab": experiment, "by_host": True}  # All its sockets are one client.
            self._service = UDPService(UDPSettings(**shared), reactor)
        else:
            shared["framing"] = texts.pop("framing", AUTO)
            shared["lab"] = labs.make_tcp_lab(texts)
            self._service = TCPService(TCPSettings(**shared), reactor)

    def __enter__(self) -> Self:
        _wait_for(self._start())
        return self

    def __exit__(self, *raised: object) -> None:
        _wait_for(self._stop())

    async def _start(self) -> None:
        try:
            self._service.listen()
        except CannotListen as error:
            raise UserError(str(error)) from error
        self.port = int(self._service.served()[0].rpartition(":")[2])
        self._due = time.monotonic()
        self._beat.start(_BEAT)

    def _look(self) -> None:
        now = time.monotonic()
        self.late, self._due = max(self.late, now - self._due), now + _BEAT

    async def _stop(self) -> None:
        """Stop listening and end all connections within a second."""
        self._look()
        self._beat.end()
        await self._service.end()

    @property
    def recorded(self) -> int:
        """How large the record is by now: what does not grow is silent."""
        return self._file.tell()

    @property
    def full(self) -> bool:
        """Whether nothing more is recorded, as the record is as large as it may be."""
        return bool(self._recorder.ended)

    def record(self) -> bytes:
        self._recorder.flush()  # One of which nothing has been told begins here.
        return self._file.getvalue()

    def seen(self) -> tuple[Row, list[Row]]:
        return read_record(self.record().splitlines(keepends=True))[:2]
