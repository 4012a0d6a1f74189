"""The start of the `uppercase` command; `python -m uppercase` is the same."""

import os
import sys
from collections.abc import Sequence
from signal import SIGINT

from uppercase.commands import INTERRUPTED, die_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Without arguments they are the process's own, and then Ctrl-C ends the process as it ends every
    program: of SIGINT, so that a shell's loop ends too.
    """
    try:
        if any(name.startswith("_UPPERCASE_COMPLETE") for name in os.environ):
            from uppercase.commands.generated import answer_shell

            answer_shell()
        from uppercase.commands.group import run

        status = run(arguments)
        if arguments is None and "uppercase.awaiting" in sys.modules:
            from uppercase.awaiting import leave_threads

            leave_threads(status)
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status == INTERRUPTED and arguments is None:
        die_of(SIGINT)
    return status


if __name__ == "__main__":
    sys.exit(main())
