"""A stop that does end: a second signal ends the process at once, and so does a stop that hangs.

Twisted's own handlers answer a second SIGTERM with `ReactorNotRunning` in the log and nothing
else, while a transform or a log that nobody reads blocks the reactor they do nothing at all, and
there is none for SIGHUP, which kills.
"""

import faulthandler
import os
import signal
import sys
import time
from threading import Timer
from types import FrameType
from typing import Any, Final

__all__ = ["StopSignals"]

# Not on Windows.
_SIGHUP: Final = getattr(signal, "SIGHUP", None)
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *([_SIGHUP] if _SIGHUP else []))

STOP_GRACE: Final = 4.0
"""Seconds beyond the drain time after which a process that still has not ended is ended."""

LAST_RESORT: Final = 1.0
"""Seconds that it then has to say where it hangs, which takes for ever where nobody reads."""


class StopSignals:
    """Stands before the reactor's own handlers of SIGINT and SIGTERM while the reactor runs.

    SIGHUP, where nothing is set for it, stops as SIGTERM does: the default kills in silence and
    leaves the pid file. Where the program has handlers of its own, nothing is changed.

    Args:
        reactor: Twisted's.
        seconds: how long a stop may take; `STOP_GRACE` is added.
    """

    _deadline = 0.0
    """When the process is ended, by the monotonic clock; the latest that any service asks for."""

    def __init__(self, reactor: Any, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds + STOP_GRACE
        self._signalled = False
        self._last_resort: Timer | None = None
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
        if self._last_resort is not None:
            self._last_resort.cancel()
            faulthandler.cancel_dump_traceback_later()

    def _take(self) -> None:
        own = (self._reactor.sigInt, self._reactor.sigTerm)
        for number in _SIGNALS:
            if number in self._before:
                continue
            handler = signal.getsignal(number)
            ours = isinstance(getattr(handler, "__self__", None), StopSignals)
            unset = (
                number == _SIGHUP and handler is signal.SIG_DFL and signal.SIGTERM in self._before
            )
            if handler in own or ours or unset:
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            # Ended by the signal itself, so that the parent sees why.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._signalled = True
        now = time.monotonic()
        StopSignals._deadline = max(StopSignals._deadline, now + self._seconds)
        if sys.__stderr__ is not None:
            # The only timer that fires whatever the interpreter is busy with; it says with what.
            faulthandler.dump_traceback_later(
                StopSignals._deadline - now, exit=True, file=sys.__stderr__
            )
        self._last_resort = Timer(StopSignals._deadline - now + LAST_RESORT, os._exit, (1,))
        self._last_resort.daemon = True
        self._last_resort.start()
        handler = self._before[number]
        (self._reactor.sigTerm if handler is signal.SIG_DFL else handler)(number, frame)
