"""How a service ends: what was asked before is answered, within a bounded time, and it does end.

Twisted's own handlers answer a second SIGTERM with `ReactorNotRunning` in the log and nothing
else, and while a transform, or a log that nobody reads, blocks the reactor they do nothing at all;
for SIGHUP, which kills, there is none. Here a second signal ends the process at once, and so does a
stop that hangs.
"""

import atexit
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Collection
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import LogLevel

from uppercase.services.log_format import say

if TYPE_CHECKING:
    from uppercase.tcp.connection import TransformProtocol

_DRAIN_REPORT: Final = 1.0
"""Seconds between the lines that tell how a stop gets on."""

STOP_GRACE: Final = 4.0
"""Seconds beyond the drain time after which a process that still has not ended is ended."""

_LAST_RESORT: Final = 1.0
"""Seconds that it then has to say where it hangs, which takes for ever where nobody reads."""

_SIGHUP: Final[int | None] = getattr(signal, "SIGHUP", None)  # Windows has none.
# Invariant: SIGTERM comes before SIGHUP, which is taken only where the former is.
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *([_SIGHUP] if _SIGHUP else []))

_DRAIN_LOOK: Final = 0.1
"""Seconds between looks at which connections are quiet by now."""

_LAST_WORD: Final = 1.0
"""Seconds that a connection has beyond the drain time if it was busy until then, so that it ends
behind a reply and not within one."""


class Drain:
    """Brings all connections to their end, each when nothing is under way on it.

    Args:
        seconds: how long they have; the rest is aborted then.
        quiet: seconds without traffic after which nothing is taken to be under way.
        connections: the open ones, kept up to date by their owner, who calls `closed` for each.

    Attributes:
        done: fires when no connection is left.
    """

    def __init__(
        self,
        clock: IReactorTime,
        seconds: float,
        quiet: float,
        connections: Collection["TransformProtocol"],
    ) -> None:
        self.done: Deferred[None] = Deferred()
        self._clock = clock
        self._quiet = quiet
        self._connections = connections
        self._drained: set[TransformProtocol] = set()
        self._deadline = clock.seconds() + seconds
        self._ends = [
            clock.callLater(seconds, self._time_is_over),
            clock.callLater(seconds + _LAST_WORD, self._abort),
        ]
        self._loops = [LoopingCall(self._look), LoopingCall(self._report)]
        for loop, interval in zip(self._loops, (_DRAIN_LOOK, _DRAIN_REPORT), strict=True):
            loop.clock = clock
            loop.start(interval, now=interval == _DRAIN_LOOK)
        self.closed()

    def closed(self) -> None:
        """Take note that a connection has ended."""
        if not self._connections and not self.done.called:
            for loop in self._loops:
                loop.stop()
            for call in self._ends:
                if call.active():
                    call.cancel()
            self.done.callback(None)

    def _look(self) -> None:
        """Drain the connections that are quiet by now."""
        now = self._clock.seconds()
        for connection in list(self._connections):
            since = connection.idle_since()
            if (
                connection in self._drained
                or self._quiet == 0
                or (since is not None and now - since >= self._quiet)
            ):
                self._drain(connection)

    def _drain(self, connection: "TransformProtocol") -> None:
        self._drained.add(connection)
        connection.drain()

    def _report(self) -> None:
        left = len(self._connections)
        seconds = max(0.0, self._deadline - self._clock.seconds())
        say(f"{left} connection{'' if left == 1 else 's'} left, {seconds:.0f} s")

    def _time_is_over(self) -> None:
        """Abort what ends by now; what was busy until now has a moment to end."""
        busy = [each for each in self._connections if each not in self._drained]
        self._abort()
        for connection in busy:
            self._drain(connection)

    def _abort(self) -> None:
        left = [each for each in self._connections if each in self._drained]
        if left:
            those = "1 connection is" if len(left) == 1 else f"{len(left)} connections are"
            say(f"the drain time is over: {those} aborted (--drain)", LogLevel.warn)
        for connection in left:
            connection.abort()


def exit_with(status: int) -> None:
    """Have the process end with a status, once the reactor and what runs it have ended.

    `twistd` and `twist` have no say in it: they exit with 0 unless a signal was the reason.
    """

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(end)


class StopSignals:
    """Stands before the reactor's own handlers of SIGINT and SIGTERM while the reactor runs.

    SIGHUP, where nothing is set for it, stops as SIGTERM does: the default kills in silence and
    leaves the pid file. Where the program has handlers of its own, nothing is changed.

    Args:
        reactor: Twisted's.
        seconds: how long a stop may take; five more are added.
    """

    _deadline = 0.0
    """When the process is ended, by the monotonic clock; the latest that any service asks for."""

    _last_resort: ClassVar[Timer | None] = None
    """What ends it then; one for all services."""

    def __init__(self, reactor: Any, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds + STOP_GRACE
        self._signalled = False
        self._before: dict[int, Any] = {}

    def start(self) -> None:
        """Take the signals once the reactor has taken them."""
        self._reactor.callWhenRunning(self._take)

    def stop(self) -> None:
        """Give them back; if one of them is what ends the program, only once the reactor has."""
        if self._signalled:
            self._reactor.addSystemEventTrigger("after", "shutdown", self._give_back)
        else:
            self._give_back()

    def _give_back(self) -> None:
        for number, handler in list(self._before.items()):
            # Where another has been put before it since, it stays and passes signals on.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
                del self._before[number]
        if self._signalled:
            faulthandler.cancel_dump_traceback_later()
            if StopSignals._last_resort is not None:
                StopSignals._last_resort.cancel()

    def _take(self) -> None:
        # In no interface of Twisted's, but its handlers have no other name; a test holds it.
        own = (self._reactor.sigInt, self._reactor.sigTerm)
        for number in _SIGNALS:
            if number in self._before:
                continue
            handler = signal.getsignal(number)
            ours = isinstance(getattr(handler, "__self__", None), StopSignals)
            default = number == _SIGHUP and handler is signal.SIG_DFL
            if handler in own or ours or (default and signal.SIGTERM in self._before):
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            # Ended by the signal itself, so that the parent sees why.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            # The first process of a container is not ended by it: such a one gets no signal that
            # it does not handle.
            os._exit(128 + number)
        self._signalled = True
        now = time.monotonic()
        StopSignals._deadline = max(StopSignals._deadline, now + self._seconds)
        if sys.__stderr__ is not None:
            # The only timer that fires whatever the interpreter is busy with; it says with what.
            faulthandler.dump_traceback_later(
                StopSignals._deadline - now, exit=True, file=sys.__stderr__
            )
        if StopSignals._last_resort is not None:
            StopSignals._last_resort.cancel()
        StopSignals._last_resort = timer = Timer(
            StopSignals._deadline - now + _LAST_RESORT, os._exit, (1,)
        )
        timer.daemon = True
        timer.start()
        handler = self._before[number]
        (self._reactor.sigTerm if handler is signal.SIG_DFL else handler)(number, frame)
