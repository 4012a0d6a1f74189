"""The exit statuses that scripts rely on; finer reasons are for messages and for `--json`."""

import os
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OK: Final = 0
NETWORK: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""128 + SIGINT: what shells make of a process that died of it."""

MEANINGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        OK: "Everything was answered as expected.",
        NETWORK: "A network outcome: refused, timed out, too many lost; or a wrong reply.",
        USAGE: "A mistake on the command line, or a local error.",
        INTERRUPTED: "Ctrl-C ended it before there was a result.",
    }
)


def die_of(number: signal.Signals) -> None:
    """End this process as whoever does not catch the signal ends: at once, silently, of it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
