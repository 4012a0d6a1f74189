"""How a service ends: what was asked before is answered, within a bounded time, and it does end.

Twisted's own handlers answer a second SIGTERM with `ReactorNotRunning` in the log and nothing else,
and while a transform, or a log that nobody reads, blocks the reactor they do nothing at all; there
is none for SIGHUP, which kills. Here a second signal ends the process at once, and so does a stop
that hangs.
"""

import atexit
import faulthandler
import os
import signal
import sys
from dataclasses import dataclass
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogLevel

from uppercase.core.values import counted
from uppercase.services.logs import say

if TYPE_CHECKING:
    from uppercase.tcp.connection import TransformProtocol
    from uppercase.tcp.factory import TransformFactory

_DRAIN_REPORT: Final = 1.0  # Seconds between the lines that report a stop's progress.

STOP_GRACE: Final = 4.0
"""Seconds beyond the drain time after which a process that still has not ended is ended."""

_LAST_RESORT: Final = 1.0
"""Seconds that it then has to say where it hangs, which takes forever if nobody reads."""

_SIGHUP: Final[int | None] = getattr(signal, "SIGHUP", None)  # Windows has none.
# Invariant: SIGTERM comes before SIGHUP, which is taken only where the former is.
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *([_SIGHUP] if _SIGHUP else []))

_DRAIN_LOOK: Final = 0.1  # Seconds between looks at which connections are quiet by now.

LAST_WORD: Final = 1.0
"""Seconds that a connection has beyond the drain time if it was busy until then, so that it ends
after a reply and not within one."""


async def drain(
    factory: "TransformFactory", clock: IReactorTime, seconds: float, quiet: float
) -> None:
    """Bring all connections to their end, each when nothing is under way on it.

    Args:
        factory: has the open ones, and tells when one has been closed.
        clock: says what time it is.
        seconds: how long they have; the rest is aborted then.
        quiet: seconds without traffic after which nothing is taken to be under way.
    """
    connections = factory.connections
    drained: set[TransformProtocol] = set()
    pause: Deferred[None]

    def closed() -> None:
        if not (connections or pause.called):
            pause.callback(None)

    factory.on_closed = closed
    now = clock.seconds()
    deadline = next_abort = now + seconds
    next_report = now + _DRAIN_REPORT
    while connections:
        pause = Deferred()
        now = clock.seconds()
        is_over = now >= next_abort
        if is_over:
            next_abort = now + LAST_WORD
            _abort([each for each in connections if each in drained])
        elif now >= next_report:
            next_report += _DRAIN_REPORT
            time = max(0.0, deadline - now)
            say(f"{counted(len(connections), 'connection')} left, {time:.0f} s")
        for connection in list(connections):
            since = connection.idle_since()
            is_quiet = quiet == 0 or (since is not None and now - since >= quiet)
            if is_over or is_quiet or connection in drained:
                drained.add(connection)
                connection.drain()
        await pause.addTimeout(_DRAIN_LOOK, clock, lambda *_: None)
    factory.on_closed = None


def _abort(late: list["TransformProtocol"]) -> None:
    """End those that could have ended; what was busy until now has a moment more."""
    if late:
        aborted = counted(len(late), "connection")
        say(f"the drain time is over: {aborted} aborted (--drain)", LogLevel.warn)
    for connection in late:
        connection.abort()


def exit_with(status: int) -> None:
    """Have the process end with a status, once the reactor and what runs it have ended.

    `twistd` and `twist` have no say in it: they exit with 0 unless a signal was the reason.
    """

    def end() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # even if nobody reads them any more
            os._exit(status)

    atexit.register(end)


@dataclass(eq=False)
class StopSignals:
    """One service's part in how its program ends by a signal; its stop takes these seconds."""

    reactor: Any
    seconds: float

    def start(self) -> None:
        """Take the signals once the reactor has taken them."""
        HANDLERS.running.append(self)
        self.reactor.callWhenRunning(lambda: HANDLERS.take(self))

    def stop(self) -> None:
        """Give them back; if one of them is what ends the program, only once the reactor has."""
        HANDLERS.release(self)


class _Handlers:
    """Stands before the reactor's own handlers of SIGINT and SIGTERM, for all services together.

    SIGHUP, where nothing is set for it, stops as SIGTERM does: the default kills silently and
    leaves the pid file. Where the program has handlers of its own, nothing is changed.
    """

    def __init__(self) -> None:
        self.running: list[StopSignals] = []
        self._before: dict[int, Any] = {}
        # What ends the process if the stop does not; None until a signal has come.
        self._last_resort: Timer | None = None

    def take(self, service: StopSignals) -> None:
        if service not in self.running:
            return  # It has been stopped before the reactor ran.
        # In no interface of Twisted's, but its handlers have no other name; a test holds it.
        names = ("sigInt", "sigTerm")
        # A reactor of an embedder's tests has none.
        own = [getattr(service.reactor, each) for each in names if hasattr(service.reactor, each)]
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            default = number == _SIGHUP and handler is signal.SIG_DFL
            if handler in own or (default and signal.SIGTERM in self._before):
                self._before[number] = signal.signal(number, self._handle)

    def release(self, service: StopSignals) -> None:
        if service in self.running:
            self.running.remove(service)
        if self._last_resort is None:
            self.give_back()
        else:
            service.reactor.addSystemEventTrigger("after", "shutdown", self.give_back)

    def give_back(self) -> None:
        if self.running:
            return
        for number, handler in list(self._before.items()):
            # Where another has been put before it since, it stays and passes signals on.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
                del self._before[number]
        if self._last_resort is not None:
            faulthandler.cancel_dump_traceback_later()
            self._last_resort.cancel()
            self._last_resort = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._last_resort is not None:
            # Ended by the signal itself, so that the parent sees why.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            # The first process of a container gets no signal that it does not handle.
            os._exit(128 + number)
        seconds = STOP_GRACE + max((each.seconds for each in self.running), default=0.0)
        if sys.__stderr__ is not None:
            # The only timer that fires whatever the interpreter is busy with; it says with what.
            faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
        self._last_resort = Timer(seconds + _LAST_RESORT, os._exit, (1,))
        self._last_resort.daemon = True
        self._last_resort.start()
        handler = self._before[number]
        (self._before[signal.SIGTERM] if handler is signal.SIG_DFL else handler)(number, frame)


HANDLERS: Final = _Handlers()
"""The process's."""
