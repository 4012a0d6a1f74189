"""How a process ends: with a sentence, with a status, by a signal, and in any case.

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
from contextlib import suppress
from threading import Timer
from time import monotonic
from types import FrameType
from typing import Any, Final

from uppercase.core.values import printable

STOP_GRACE: Final = 4.0
"""Seconds beyond the drain time after which a process that still has not ended is ended."""

_LAST_RESORT: Final = 1.0
"""Seconds that it then has to say where it hangs, which takes forever if nobody reads."""

_ONE_SIGNAL: Final = 0.1
"""Seconds in which another signal is the first once more: timeout(1) sends one to its program, and
then to the group that the program is in."""

# Invariant: SIGTERM comes before SIGHUP, which is taken only where the former is.
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class CannotStart(SystemExit, Exception):
    """Ends the program with one sentence instead of a traceback.

    A `SystemExit`, so that the interpreter prints the sentence and ends with status 1; an
    `Exception`, so that twistd notices, removes its pid file and tells the parent of a daemon.
    """

    # Whoever starts a daemon is shown a hundred bytes, which begin with this.
    __module__ = "builtins"

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


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


class _StopSignals:
    """Stands before the reactor's own handlers of SIGINT and SIGTERM, for all services together.

    SIGHUP, where nothing is set for it, stops as SIGTERM does: the default kills silently and
    leaves the pid file. Where the program has handlers of its own, nothing is changed.
    """

    def __init__(self) -> None:
        # The seconds that the stop of each service takes.
        self.running: dict[object, float] = {}
        self._before: dict[int, Any] = {}
        # What ends the process if the stop does not; None until a signal has come.
        self._last_resort: Timer | None = None
        self._came = 0.0

    def take(self, service: object, reactor: Any, seconds: float) -> None:
        """Take the signals once the reactor has taken them."""
        self.running[service] = seconds
        reactor.callWhenRunning(lambda: self._take(service, reactor))

    def _take(self, service: object, reactor: Any) -> None:
        if service not in self.running:
            return  # It has been stopped before the reactor ran.
        # In no interface of Twisted's, but its handlers have no other name; a test holds it.
        names = ("sigInt", "sigTerm")
        # A reactor of an embedder's tests has none.
        own = [getattr(reactor, each) for each in names if hasattr(reactor, each)]
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            default = number == signal.SIGHUP and handler is signal.SIG_DFL
            if handler in own or (default and signal.SIGTERM in self._before):
                self._before[number] = signal.signal(number, self._handle)

    def release(self, service: object, reactor: Any) -> None:
        """Give them back; if one of them is what ends the program, only once the reactor has."""
        self.running.pop(service, None)
        if self._last_resort is None:
            self.give_back()
        else:
            reactor.addSystemEventTrigger("after", "shutdown", self.give_back)

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
            # A terminal that is closed sends SIGHUP twice: by its shell, and by the system.
            if number == signal.SIGHUP or monotonic() - self._came < _ONE_SIGNAL:
                return
            # Ended by the signal itself, so that the parent sees why.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            # The first process of a container gets no signal that it does not handle.
            os._exit(128 + number)
        self._came = monotonic()
        seconds = STOP_GRACE + max(self.running.values(), default=0.0)
        self._last_resort = Timer(seconds + _LAST_RESORT, os._exit, (1,))
        self._last_resort.daemon = True
        # Where the system gives no thread, a stop has no bound, but it is one; and a program may
        # have closed its standard error.
        with suppress(RuntimeError, ValueError):
            self._last_resort.start()
            if sys.__stderr__ is not None:
                # The only timer that fires whatever the interpreter does; it says what that is.
                faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
        handler = self._before[number]
        (self._before[signal.SIGTERM] if handler is signal.SIG_DFL else handler)(number, frame)


STOP_SIGNALS: Final = _StopSignals()
"""The process's."""
