"""The `uppercase` command as a process, in a pipe or in a terminal, for the client's tests."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pexpect
from pexpect import fdpexpect

import uppercase

__all__ = ["Outcome", "Terminal", "command_line", "environment", "run", "terminal"]

_TIMEOUT = 30.0
"""Seconds; a bound for a busy machine, not an expectation."""

_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
"""Makes standard input the controlling terminal, as a shell does, so that Ctrl-C is a signal."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    stdout: bytes
    stderr: str


def command_line(*arguments: str) -> list[str]:
    """Give what starts the command with these arguments."""
    return [sys.executable, "-m", "uppercase", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give an environment in which the command finds this package and no settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPPERCASE_")}
    package = Path(uppercase.__file__).parents[1]
    return {**kept, "PYTHONPATH": str(package), "TERM": "dumb", **(extra or {})}


def run(*arguments: str, data: bytes = b"", env: Mapping[str, str] | None = None) -> Outcome:
    """Run the command in a pipe, with this input, to its end."""
    process = subprocess.run(
        command_line(*arguments),
        input=data,
        capture_output=True,
        timeout=_TIMEOUT,
        env=environment(env),
        check=False,
    )
    return Outcome(process.returncode, process.stdout, process.stderr.decode())


class Terminal:
    """The command in a pseudo-terminal of its own, and what is seen and typed there.

    Args:
        descriptor: our end of the terminal.
        process: the command.
    """

    def __init__(self, descriptor: int, process: "subprocess.Popen[bytes]") -> None:
        self._screen: fdpexpect.fdspawn[bytes] = fdpexpect.fdspawn(descriptor, timeout=_TIMEOUT)
        self._process = process

    def see(self, text: str) -> bytes:
        """Wait until the text appears; give what was there before it."""
        self._screen.expect_exact(text)
        return self._screen.before or b""

    def see_end(self) -> bytes:
        """Wait until the command has closed the terminal; give what it said."""
        self._screen.expect(pexpect.EOF)
        return self._screen.before or b""

    def type(self, line: str) -> None:
        """Type a line."""
        self._screen.sendline(line)

    def press(self, key: str) -> None:
        """Type Ctrl and a letter."""
        self._screen.send(chr(ord(key.upper()) - 64))

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
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE_TERMINAL, *command_line(*arguments)[1:]],
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env=environment(),
        start_new_session=True,
    )
    os.close(theirs)
    session = Terminal(ours, process)
    try:
        yield session
    finally:
        session.hang_up()
        if process.poll() is None:
            process.kill()
        process.wait(_TIMEOUT)
