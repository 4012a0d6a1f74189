"""The `uppercase` command as a process: what the script and `python -m uppercase` call.

It imports next to nothing, so that Ctrl-C is caught while the rest loads.
"""

import signal
from collections.abc import Sequence

from uppercase.commands.exit_status import INTERRUPTED, die_of


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
