"""The `uppercase` command, on top of the client library: modules and folders of sub-commands.

Here it is a process: its exit status, signals, terminal and standard output. This module imports
next to nothing, so that Ctrl-C is caught while the rest loads (`uppercase.__main__`).
"""

import gc
import os
import select
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

OK: Final = 0
NETWORK: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""128 + SIGINT: what shells make of a process that died of it."""

CHUNK: Final = 64 * 1024
"""Bytes of one read: what a pipe holds, and what Twisted reads from a connection, so that the work
for a chunk is bounded as in a server."""

MEANINGS: Final = {
    OK: "Everything was answered as expected.",
    NETWORK: "A network outcome: refused, timed out, too many lost; or a wrong reply.",
    USAGE: "A mistake on the command line, or a local error.",
    INTERRUPTED: "Ctrl-C ended it before there was a result.",
}


def die_of(number: signal.Signals) -> None:
    """End this process as if the signal had not been caught: at once and silently."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # The first process of a container gets no signal that it does not handle.
    os._exit(128 + number)


def signals(stop: Callable[[], None], look: Callable[[], None]) -> AbstractContextManager[None]:
    r"""Have Ctrl-C call `stop` and Ctrl-\ call `look` inside a `with` block of the main thread.

    A second Ctrl-C ends the process at once, as if nobody had caught it.
    """

    def interrupted(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, lambda number, frame: die_of(signal.SIGINT))
        stop()

    handlers: dict[int, Any] = {signal.SIGINT: interrupted}
    if hasattr(signal, "SIGQUIT"):  # Windows has none.
        handlers[signal.SIGQUIT] = lambda number, frame: look()
    return _handling(handlers)


@contextmanager
def _handling(handlers: Mapping[int, Any]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def foreground(group: int) -> Iterator[None]:
    """Give a process group the terminal, if there is one, whenever we have it, and take it back.

    Ctrl-Z stops the group alone: then we stop as well, so that the shell goes on.
    """
    import termios

    if not os.isatty(0):
        yield
        return
    ours = os.getpgrp()
    settings: list[Any] = []

    def give() -> None:
        with suppress(OSError, termios.error):
            if os.tcgetpgrp(0) == ours:
                settings[:] = termios.tcgetattr(0)
                os.tcsetpgrp(0, group)
        # It may have read before it had the terminal, and have been stopped for it.
        with suppress(OSError):
            os.killpg(group, signal.SIGCONT)

    def take_back() -> None:
        with suppress(OSError, termios.error):
            if os.tcgetpgrp(0) == group:
                os.tcsetpgrp(0, ours)
                termios.tcsetattr(0, termios.TCSADRAIN, settings)

    def follow(*_: object) -> None:
        # On macOS Python has it from 3.13 on.
        with suppress(OSError, AttributeError):
            if os.waitid(os.P_PID, group, os.WSTOPPED | os.WNOHANG) is not None:
                # If it is ours, we came to the foreground, and the group has read without it.
                if os.tcgetpgrp(0) != ours:
                    take_back()
                    os.killpg(ours, signal.SIGTSTP)  # Returns when the shell has us go on.
                give()

    # Otherwise the first stops a process in the background that takes the terminal.
    with _handling({signal.SIGTTOU: signal.SIG_IGN, signal.SIGCHLD: follow}):
        try:
            give()
            yield
        finally:
            take_back()


def look_up(find: Callable[[Any], _T], target: Any) -> _T:
    """Return what is found of a target's name, in a thread, so that Ctrl-C is seen meanwhile."""
    from concurrent.futures import ThreadPoolExecutor

    # Here it would be seen once the system has answered: late, where no server of names does.
    return ThreadPoolExecutor(1).submit(find, target).result()


@contextmanager
def running() -> Iterator[tuple[Any, Callable[[Coroutine[Any, Any, Any]], Any]]]:
    """Run Twisted's reactor beside a command, in a thread of its own, inside a `with` block.

    It yields the reactor and a function that runs a coroutine there, and returns its result or
    raises. The main thread stays the command's: it reads the keyboard, gets Ctrl-C and waits.
    Twisted is imported here, not before.
    """
    from uppercase.awaiting import Waiter, the_reactor, use_monotonic_time

    reactor = the_reactor()
    use_monotonic_time()
    # A full collection of what was imported stops everything for 40 ms, and for seconds where
    # twenty others want the processor: students' programs and `ping` would measure it.
    gc.freeze()
    with Waiter(()) as waiter:
        yield reactor, waiter.wait_for


def write_some(sink: int, data: Any) -> int:
    """Write some bytes, waiting for room; return how many.

    Another program that shares a terminal or a pipe may have made it non-blocking.
    """
    while True:
        try:
            return os.write(sink, data)
        except BlockingIOError:
            select.select([], [sink], [])


def write_all(data: bytes) -> None:
    """Write everything to standard output; raise `BrokenPipeError` if nobody reads it."""
    sink = sys.stdout.fileno()
    left = memoryview(data)
    try:
        while left:
            left = left[write_some(sink, left) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        from uppercase.errors import UserError

        raise UserError(f"cannot write the output: {error.strerror}") from error
