"""The `uppercase` command for the client's tests: here, as a process, in a terminal.

`run` calls the command's function with real descriptors for its standard streams: a start of the
interpreter takes longer than most of what is tested. `run_process` and `terminal` are for signals,
for pipes that close, and for what only a fresh interpreter shows.
"""

import io
import json
import os
import pty
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self, TextIO
from unittest import mock

import pexpect
from pexpect import fdpexpect
from pytest_twisted import blockon  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

import uppercase
from tests.client.in_reactor import reactor
from tests.system.forked import Forked
from uppercase.__main__ import main

__all__ = [
    "Outcome",
    "Piped",
    "Terminal",
    "command_file",
    "command_line",
    "environment",
    "run",
    "run_process",
    "terminal",
]

_TIMEOUT = 120.0
"""Seconds; a bound for a busy machine, not an expectation."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    stdout: bytes
    stderr: str


def command_line(*arguments: str) -> list[str]:
    """Return what starts the command with these arguments."""
    return [sys.executable, "-m", "uppercase", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which the command finds this package and no settings."""
    ours = ("UPPERCASE_", "HYPOTHESIS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    package = Path(uppercase.__file__).parents[1]
    return {**kept, "PYTHONPATH": str(package), "TERM": "dumb", **(extra or {})}


class Piped(Forked):
    """The command as a process, with its standard streams in pipes.

    Args:
        arguments: of the command.
        stdin: a descriptor for its standard input instead of a pipe.
        stdout: one for its standard output.
        stderr: one for its standard error.
        env: more of its environment.
        cwd: where it runs.
    """

    def __init__(
        self,
        *arguments: str,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        with ExitStack() as theirs:

            def end(given: int | None, mode: str) -> tuple[int, IO[bytes]]:
                """Return the process's end of a pipe, which has one of its own then, and ours."""
                if given is not None:
                    return given, io.BytesIO()
                reader, writer = os.pipe()
                its, kept = (writer, reader) if mode == "rb" else (reader, writer)
                theirs.callback(os.close, its)
                return its, open(kept, mode)

            its_in, self.stdin = end(stdin, "wb")
            its_out, self.stdout = end(stdout, "rb")
            its_err, self.stderr = end(stderr, "rb")
            command = command_line(*arguments)
            super().__init__(
                command, environment(env), its_out, stdin=its_in, stderr=its_err, cwd=cwd
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()
        for pipe in (self.stdin, self.stdout, self.stderr):
            with suppress(BrokenPipeError):
                pipe.close()

    def say(self, data: bytes) -> None:
        """Give it input, at once."""
        self.stdin.write(data)
        self.stdin.flush()

    def finish(self, data: bytes = b"") -> Outcome:
        """Give it its last input; return what it still said, and how it ended."""
        last = threading.Thread(target=self._end_input, args=[data])
        last.start()
        with _deadline(), closing(self.stdout), self.stderr:
            said = b"" if self.stdout.closed else self.stdout.read()
            errors = self.stderr.read().decode()
            last.join()
            return Outcome(self.wait(), said, errors)

    def _end_input(self, data: bytes) -> None:
        with suppress(BrokenPipeError), self.stdin:
            self.stdin.write(data)


_ASK = """\
import json, os, socket, sys
asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asked.connect(sys.argv[1])
wish = json.dumps([sys.argv[2:], {**os.environ}, os.getcwd()])
socket.send_fds(asked, [wish.encode()], [0, 1, 2])
sys.exit(int(asked.recv(9)))
"""


@contextmanager
def command_file() -> Iterator[Path]:
    """Make a folder with the command as a program, for shells; it runs in a fork."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
    ):
        place, program = Path(folder, "socket"), Path(folder, "uppercase")
        listening.bind(str(place))
        listening.listen()

        def serve() -> None:
            with suppress(OSError):  # It is over.
                while True:
                    asked, _ = listening.accept()
                    with asked, ExitStack() as stack:
                        wish, streams, _, _ = socket.recv_fds(asked, 1 << 18, 3)
                        for each in streams:
                            stack.callback(os.close, each)
                        arguments, env, cwd = json.loads(wish)
                        stdin, stdout, stderr = streams
                        process = Forked(
                            command_line(*arguments),
                            env,
                            stdout,
                            stdin=stdin,
                            stderr=stderr,
                            cwd=Path(cwd),
                        )
                        asked.send(b"%d" % process.wait(_TIMEOUT))

        words = shlex.join([sys.executable, "-ISc", _ASK, str(place)])
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o700)
        server = threading.Thread(target=serve)
        server.start()
        try:
            yield Path(folder)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            server.join(_TIMEOUT)


def run(*arguments: str, data: bytes = b"", env: Mapping[str, str] | None = None) -> Outcome:
    """Run the command in this process, with its input in a pipe, to its end."""
    with (
        _input_pipe(data) as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        mock.patch.multiple(sys, stdin=stdin, stdout=_text(stdout), stderr=_text(stderr)),
        mock.patch.dict(os.environ, environment(env), clear=True),
        _deadline(),
        _in_the_tests_reactor(),
    ):
        status = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        stdout.seek(0)
        stderr.seek(0)
        return Outcome(status, stdout.read(), stderr.read().decode())


def _text(file: Any) -> TextIO:
    """Return text to be written to a file's descriptor, as the interpreter makes its own."""
    return open(file.fileno(), "w", encoding="utf-8", closefd=False)


@contextmanager
def _input_pipe(data: bytes) -> Iterator[TextIO]:
    """Return the reading end of a pipe that a thread writes the data to."""
    reader, writer = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), open(writer, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with open(reader, encoding="utf-8") as stdin:
            yield stdin
    finally:
        thread.join()


@contextmanager
def _deadline() -> Iterator[None]:
    """Break off a command that blocks this thread."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"the command took more than {_TIMEOUT:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    # What waits for the reactor has a bound of its own, and ends first.
    signal.setitimer(signal.ITIMER_REAL, _TIMEOUT + 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _in_the_tests_reactor() -> Iterator[None]:
    """Have the command use the reactor that pytest-twisted runs, which is there already.

    It runs in a greenlet of this thread, so a command that waits for it gives it the turn.
    """

    def wait(conversation: Coroutine[Any, Any, Any]) -> Any:
        done = Deferred.fromCoroutine(conversation).addTimeout(_TIMEOUT, reactor)
        # What the reactor is in the middle of when it is done is not left undone.
        return blockon(done.addBoth(lambda result: deferLater(reactor, 0, lambda: result)))

    with ExitStack() as patched:
        for command in ("ping", "send"):
            running = f"uppercase.commands.{command}.running"
            patched.enter_context(mock.patch(running, return_value=nullcontext((reactor, wait))))
        yield


@contextmanager
def read_late() -> Iterator[tuple[int, list[bytes]]]:
    """Return the non-blocking end of a pipe that is not read at first, and what is read at last.

    A terminal's descriptor is shared: another program may have changed it for all.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    received: list[bytes] = []

    def read() -> None:
        time.sleep(0.2)  # until the pipe is full, and waited for
        with open(reader, "rb") as pipe:
            received.append(pipe.read())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield writer, received
    finally:
        os.close(writer)
        thread.join()


def run_process(
    *arguments: str,
    data: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    fresh: bool = False,
) -> Outcome:
    """Run the command as a process, with its input in a pipe, to its end.

    Args:
        arguments: of the command.
        data: its input.
        env: more of its environment.
        cwd: where it runs.
        fresh: in an interpreter of its own, for what depends on where modules are found.
    """
    if fresh:
        done = subprocess.run(
            command_line(*arguments),
            input=data,
            capture_output=True,
            timeout=_TIMEOUT,
            env=environment(env),
            cwd=cwd,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode())
    return Piped(*arguments, env=env, cwd=cwd).finish(data)


class Terminal:
    """The command in a pseudo-terminal of its own, and what is seen and typed there.

    Args:
        descriptor: our end of the terminal.
        process: the command.
    """

    def __init__(self, descriptor: int, process: Forked) -> None:
        self._screen: fdpexpect.fdspawn[bytes] = fdpexpect.fdspawn(descriptor, timeout=_TIMEOUT)
        self._process = process

    def see(self, text: str) -> bytes:
        """Wait until the text appears; return what was there before it."""
        self._screen.expect_exact(text)
        return self._screen.before or b""

    def see_end(self) -> bytes:
        """Wait until the command has closed the terminal; return what it said."""
        self._screen.expect(pexpect.EOF)
        return self._screen.before or b""

    def type(self, line: str) -> None:
        """Type a line."""
        self._screen.sendline(line)

    def press(self, key: str) -> None:
        """Type Ctrl and a letter."""
        self._screen.send(chr(ord(key.upper()) - 64))

    def rest(self) -> None:
        """Wait until the command sleeps, if Linux tells: readline misses a Ctrl-C just before."""
        stat, deadline = Path(f"/proc/{self._process.pid}/stat"), time.monotonic() + _TIMEOUT
        while stat.exists() and ") S " not in stat.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def hang_up(self) -> None:
        """Close the terminal, as a window's close button does."""
        self._screen.close()

    def status(self) -> int:
        """Wait for the exit status; negative is the signal that ended it."""
        return self._process.wait(_TIMEOUT)


@contextmanager
def terminal(*arguments: str, stdout: int | None = None) -> Iterator[Terminal]:
    """Start the command in a pseudo-terminal.

    Args:
        *arguments: its arguments.
        stdout: a descriptor for its standard output instead of the terminal.
    """
    ours, theirs = pty.openpty()
    process = Forked(
        command_line(*arguments),
        environment(),
        theirs if stdout is None else stdout,
        stdin=theirs,
        stderr=theirs,
        session=True,
    )
    os.close(theirs)
    session = Terminal(ours, process)
    try:
        yield session
    finally:
        session.hang_up()
        process.kill()
        process.wait(_TIMEOUT)
