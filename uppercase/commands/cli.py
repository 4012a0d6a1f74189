"""The `uppercase` command as a process: what the script and `python -m uppercase` call.

It imports next to nothing, so that Ctrl-C is caught while the rest loads.
"""

import os
import signal
from collections.abc import Mapping, Sequence
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows the program's name; without it, the process's own, and then Ctrl-C
            ends the process as it ends every program: of SIGINT, so that a shell's loop ends too.

    Returns:
        The exit status.
    """
    try:
        from uppercase.commands._group import run

        status = run(arguments)
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status == INTERRUPTED and arguments is None:
        die_of(signal.SIGINT)
    return status
