"""Has `twistd` and `twist` write the log in our formats, by public options of theirs."""

import signal
import sys
from typing import Any

from twisted.logger import FileLogObserver

from uppercase.errors import UserError
from uppercase.services.log_format import WatchedLogFile, observer_of

_twistd: Any = None
"""The options of `twistd`, which calls `observer_for_twistd` without arguments."""

_format = "text"


def choose(runner: Any, format_: str | None) -> None:
    """Settle how the log will look.

    Args:
        runner: the options of `twistd` or `twist`; None if neither runs.
        format_: what the user asked for, if anything.

    Raises:
        UserError: the log goes where a format has no say.
    """
    global _twistd, _format
    if runner is None:
        return
    if "fileLogObserverFactory" in runner:
        # twist has formats of its own; without a word from the user, its JSON stays.
        if format_ is not None or runner["logFormat"] == "text":
            runner["fileLogObserverFactory"] = lambda file: observer_of(file, format_ or "text")
        return
    for name in ("logger", "syslog"):
        if runner.get(name):
            if format_ is not None:
                raise UserError(
                    f"got --log-format={format_} beside twistd's --{name}, which has a format of "
                    "its own; leave out one of them"
                )
            return
    _twistd, _format = runner, format_ or "text"
    runner["logger"] = f"{__name__}.{observer_for_twistd.__name__}"


def observer_for_twistd() -> FileLogObserver:
    """Return what writes the log where twistd's options say: the places are those of twistd."""
    name, stays = _twistd["logfile"], _twistd.get("nodaemon", True)
    if name == "-" and not stays:
        sys.exit("Daemons cannot log to stdout, exiting!")
    if name == "-" or (stays and not name):
        return observer_of(sys.stdout, _format)
    file: Any = WatchedLogFile.fromFullPath(name or "twistd.log")
    _rotate_by_signal(file)
    return observer_of(file, _format)


def _rotate_by_signal(file: WatchedLogFile) -> None:
    """Do at SIGUSR1 what twistd's own log does: who uses it must not end the service by it."""
    number = getattr(signal, "SIGUSR1", None)
    if number is not None and signal.getsignal(number) is signal.SIG_DFL:
        from twisted.internet import reactor

        known: Any = reactor
        signal.signal(number, lambda *_: known.callFromThread(file.rotate))
