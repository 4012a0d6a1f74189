"""Real programs for system tests: started on free ports, ended by their id, logs looked at."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from tests.system.forked import Forked

ROOT = Path(__file__).parents[2]
"""Where the drop-ins are, for `twistd` to find."""

START_TIMEOUT = 120.0
"""Seconds; like all bounds here for a machine on which twenty other programs want to run."""

PATIENCE = 90.0
"""Seconds for everything else."""

READY = re.compile(r"The server is ready to receive: (\w+) (\S+) \((.*)\)")


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of a server or client of ours."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}


def tool(name: str) -> str:
    """Return the path of a command of this Python's environment."""
    return str(Path(sys.executable).parent / name)


def restore_signals() -> None:
    """Have what is started end with its reader and at Ctrl-C, whatever it would inherit.

    Python ignores SIGPIPE, shells have what they start in the background ignore Ctrl-C, and both
    pass that on.
    """
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


class Server:
    """A server process, from its ready line to its end.

    Args:
        arguments: what comes after `twistd -n`, or after `twist`.
        runner: `twistd` or `twist`.
        addresses: how many ready lines to wait for.
        cwd: where it runs.
        env: more of the environment.
        prepare: called in the process before it runs the program.

    Attributes:
        addresses: the ready lines' pairs of protocol and address, in order.
        statuses: those that it may end with.
        tracebacks: whether its log may show some, because a transform raises on purpose.
    """

    def __init__(
        self,
        *arguments: str,
        runner: str = "twistd",
        addresses: int = 2,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        options = ["-n", "--pidfile="] if runner == "twistd" else ["--log-format=text"]
        self._command = [tool(runner), *options, *arguments]
        self._expected = addresses
        self._cwd = cwd
        self._prepare = prepare
        self._env = environment(**(env or {}))
        self._forked = not prepare and {*(env or {})} <= {"PYTHONPATH"}
        self.addresses: list[tuple[str, str]] = []
        self.statuses = [-signal.SIGTERM, -signal.SIGKILL]
        self.tracebacks = False

    def __enter__(self) -> "Server":
        self._log = tempfile.TemporaryFile("w+")
        self.process = self._start()
        deadline = time.monotonic() + START_TIMEOUT
        while len(self.addresses) < self._expected:
            self.addresses = [(m[1], m[2]) for m in READY.finditer(self.log())]
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                said = self.log()
                self._log.close()
                raise AssertionError(f"{self._command} is not ready:\n{said}")
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        status = self.stop()
        log = self.log()
        self._log.close()
        if error is None:
            assert status in self.statuses, f"ended with {status}:\n{log}"
            assert self.tracebacks or "Traceback" not in log, log
            assert "Unhandled" not in log, log

    def _start(self) -> "Forked | subprocess.Popen[bytes]":
        if self._forked:
            return Forked(self._command, self._env, self._log.fileno(), cwd=self._cwd)
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self._cwd,
            env=self._env,
            preexec_fn=self._begin,
        )

    def _begin(self) -> None:
        """Do what is to be done in the new process before the program."""
        restore_signals()
        if self._prepare is not None:
            self._prepare()

    @property
    def port(self) -> int:
        """The port of the first address."""
        return int(self.addresses[0][1].rpartition(":")[2])

    def log(self) -> str:
        """Return what the process has written so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode(errors="replace")

    def wait_for_log(self, text: str, seconds: float = PATIENCE, times: int = 1) -> str:
        """Wait until the log has a text, so many times; return the log."""
        deadline = time.monotonic() + seconds
        while (log := self.log()).count(text) < times:
            assert time.monotonic() < deadline, f"no {text!r} in:\n{log}"
            time.sleep(0.02)
        return log

    def stop(self, with_signal: int = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """End the process; return its status."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"does not end:\n{self.log()}") from None


def run(
    command: Sequence[str], stdin: bytes = b"", seconds: float = PATIENCE
) -> subprocess.CompletedProcess[bytes]:
    """Run a client to its end."""
    return subprocess.run(
        command, input=stdin, capture_output=True, timeout=seconds, env=environment(), check=False
    )


def ended(command: list[str], cwd: Path | None = None) -> tuple[int, str]:
    """Run a server's command that ends by itself; return its status and what it said."""
    with tempfile.TemporaryFile("w+") as log:
        status = Forked(command, environment(), log.fileno(), cwd=cwd).wait(START_TIMEOUT)
        log.seek(0)
        return status, log.read()


def refused(*arguments: str, runner: str = "twistd", cwd: Path | None = None) -> str:
    """Run a server that must not start; return what it said."""
    options = ["-n", "--pidfile="] if runner == "twistd" else []
    status, said = ended([tool(runner), *options, *arguments], cwd)
    assert status != 0, said
    assert "Traceback" not in said, said
    return said


def memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def half_close(client: socket.socket) -> None:
    """Close the sending side.

    Raises:
        ConnectionError: it was reset, which the system tells at this call as ENOTCONN.
    """
    try:
        client.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        raise ConnectionResetError(*error.args) from error


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    """Connect with a time-out, so that no test waits for ever."""
    return socket.create_connection((host, port), timeout=PATIENCE)


def connect_narrow(port: int) -> socket.socket:
    """Connect with a small window, so that most of what is owed stays with the server."""
    client = socket.socket()
    client.settimeout(PATIENCE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.connect(("127.0.0.1", port))
    return client


def wait_until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for something, for a bounded time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def receive_all(skt: socket.socket) -> bytes:
    """Read to the end of input."""
    chunks = []
    while chunk := skt.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def receive_exactly(skt: socket.socket, count: int) -> bytes:
    """Read so many bytes; fewer if the peer ends before."""
    data = bytearray()
    while len(data) < count and (chunk := skt.recv(count - len(data))):
        data += chunk
    return bytes(data)
