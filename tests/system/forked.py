"""Runs commands in a fork of a process that has imported what they import.

Most of a start is imports, and the tests need hundreds of starts. The command's own script runs, in
a process of its own, with its own arguments, environment, streams and end. What depends on the
start of an interpreter needs a real one: variables that a module reads as it is imported, modules
that are found before ours, limits that hold before the start.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        # Not what is around them, which keeps the arguments that there were as it was imported.
        "twisted.application.twist._options",
        "twisted.application.runner._runner",
        "twisted.internet.epollreactor",
        "twisted.scripts.twistd",
        "uppercase.classroom.exercises",
        "uppercase.commands.classroom",
        "uppercase.commands.cli",
        "uppercase.services._tcp",
        "uppercase.services._udp",
        "uppercase.taps.tcp",
        "uppercase.taps.udp",
        "uppercase.transforms.case",
    ]
)


def _become(
    command: list[str], environment: dict[str, str], streams: tuple[str, str, str], cwd: Path
) -> None:
    """Run the script of a command, or its module, as if it had just been started."""
    assert "twisted.internet.reactor" not in sys.modules, "the command is the one to choose it"
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY), number)
    sys.stdin = open(0)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = environment["PYTHONPATH"].split(os.pathsep)
    if command[1] == "-m":
        sys.path[:0] = [str(cwd), *found]
        sys.argv = command[2:]
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    else:
        sys.path[:0] = [os.path.dirname(command[0]), *found]
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


class Forked:
    """A running command: what the tests use of `subprocess.Popen`.

    Args:
        command: a script and its arguments, or what comes after `python`, from `-m` on.
        environment: all of it.
        stdout: an open file; standard error too, unless there is another for it.
        stderr: an open file.
        stdin: a descriptor, open until the process has ended; else there is no input.
        cwd: where it runs.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        stdout: IO[Any],
        *,
        stderr: IO[Any] | None = None,
        stdin: int | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._command = command
        # Who opens them from there has the files themselves, which have no names.
        ours = f"/proc/{os.getpid()}/fd"
        streams = (
            os.devnull if stdin is None else f"{ours}/{stdin}",
            f"{ours}/{stdout.fileno()}",
            f"{ours}/{(stderr or stdout).fileno()}",
        )
        self._process = _FORKS.Process(
            target=_become, args=(command, environment, streams, cwd or Path.cwd()), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its status, or minus the number of the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return its status, if it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return its status when it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)
