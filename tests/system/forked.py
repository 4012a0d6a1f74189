"""Runs commands in a fork of a process that has imported what they import.

Most of a start is imports, and the tests need hundreds of starts. The command's own script runs, in
a process of its own, with its own arguments, environment, streams and end. What depends on the
start of an interpreter needs a real one: variables that a module reads as it is imported, modules
that are found before ours, limits that hold before the start.

So do the workers of a service: see `tests.system.spare`.
"""

import atexit
import fcntl
import gc
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import termios
from contextlib import ExitStack, chdir, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

from tests.system.spare import keep_spare

_ROOT = Path(__file__).parents[2]

_IMPORTED = [
    # What a fork begins with, which would else be imported in each.
    __name__,
    "encodings.idna",
    # Not what is around them, which keeps the arguments that there were as it was imported.
    "twisted.application.twist._options",
    "twisted.application.runner._runner",
    "twisted.internet.endpoints",
    "twisted.internet.epollreactor",
    # The drop-ins that `twistd` looks into.
    "twisted.plugins.twisted_conch",
    "twisted.plugins.twisted_ftp",
    "twisted.plugins.twisted_inet",
    "twisted.plugins.twisted_mail",
    "twisted.plugins.twisted_names",
    "twisted.plugins.twisted_portforward",
    "twisted.plugins.twisted_runner",
    "twisted.plugins.twisted_socks",
    "twisted.plugins.twisted_web",
    "twisted.plugins.twisted_words",
    "twisted.plugins.uppercase_services",
    "twisted.scripts.twistd",
    "uppercase.classroom.exercises",
    "uppercase.client.network",
    "uppercase.client.session",
    "uppercase.commands.classroom",
    "uppercase.commands.send._datagrams",
    "uppercase.commands.send._stream",
    "uppercase.commands.transforms",
    "uppercase.registry.doctor",
    "uppercase.services.supervisor",
    "uppercase.services._tcp",
    "uppercase.services._udp",
    "uppercase.services.worker",
    "uppercase.services.web",
    "uppercase.taps.tcp",
    "uppercase.taps.together",
    "uppercase.taps.udp",
    "uppercase.transforms.codecs",
    "uppercase.transforms.text",
]

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(_IMPORTED)


def _become(
    command: list[str],
    environment: dict[str, str],
    streams: list[Connection],
    cwd: Path,
    session: bool,
) -> None:
    """Run the script of a command, or its module, as if it had just been started."""
    assert "twisted.internet.reactor" not in sys.modules, "the command is the one to choose it"
    # The server is silent about what it does not find.
    assert sys.modules.keys() >= {*_IMPORTED}, {*_IMPORTED} - sys.modules.keys()
    # It stays the object that others may have by now, which takes no pipe for a file.
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(errors="backslashreplace")
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    if session:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(cwd)
    # What was imported beforehand is no garbage; a look for some would copy its pages.
    gc.freeze()
    spawns = any(word.startswith(("--workers", "--config")) for word in command)
    if spawns and sys.platform == "linux":
        command, environment = keep_spare() or (command, environment)
    sys.stdin = open(0)  # noqa: SIM115
    # Of all that PYTHONUNBUFFERED asks for, lines.
    sys.stdout.reconfigure(line_buffering=os.isatty(1) or "PYTHONUNBUFFERED" in environment)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = environment["PYTHONPATH"].split(os.pathsep)
    # What is registered there is run by an interpreter that ends, and not by a fork.
    atexit._clear()
    try:
        if command[1:2] == ["-m"]:
            sys.path[:0] = [os.getcwd(), *found]
            sys.argv = command[2:]
            runpy.run_module(command[2], run_name="__main__", alter_sys=True)
        else:
            # What is spawned is named after its interpreter.
            command = command[command[0] == sys.executable :]
            sys.path[:0] = [os.path.dirname(command[0]), *found]
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()


class Forked:
    """A running command: what the tests use of `subprocess.Popen`.

    Args:
        command: a script and its arguments, or what comes after `python`, from `-m` on.
        environment: all of it.
        stdin: a descriptor; else there is no input.
        stdout: a descriptor.
        stderr: another descriptor for standard error.
        cwd: where it runs.
        session: whether standard input is a terminal that is to be its own, as a shell has it.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        stdout: int,
        *,
        stdin: int | None = None,
        stderr: int | None = None,
        cwd: Path | None = None,
        session: bool = False,
    ) -> None:
        self._command = command
        with ExitStack() as ours, open(os.devnull) as nothing:
            # It gets its own of each, over the socket that starts it.
            streams = [
                ours.enter_context(Connection(os.dup(descriptor)))
                for descriptor in (
                    nothing.fileno() if stdin is None else stdin,
                    stdout,
                    stdout if stderr is None else stderr,
                )
            ]
            # It looks for the tests where it begins.
            with chdir(_ROOT):
                forkserver.ensure_running()
            self._process = _FORKS.Process(
                target=_become,
                args=(command, environment, streams, cwd or Path.cwd(), session),
                daemon=True,
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
        # The server that forks may not have told us yet of its end.
        with suppress(ProcessLookupError):
            if self._process.exitcode is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)
