"""The program of a worker: `python uppercase/taps/_worker.py SUPERVISOR SERVICE OPTION...`.

Only a supervisor starts it, by its process number, and writes its Python's version and its own
`sys.path` to standard input, in JSON; see `uppercase.services.worker`.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def make_services(tap: str, words: list[str]) -> Any:
    from twisted.python.reflect import namedModule

    options: Any = namedModule(tap).Options()
    options.in_worker = True
    options.parseOptions(words)
    return options.services


if __name__ == "__main__":
    supervisor, tap, *words = sys.argv[1:]
    # Before the imports, which take seconds on a busy machine: it has the sockets, and a terminal
    # sends these to all of its processes; the supervisor says what they mean.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # The system kills this process when the supervisor ends, however hung either is.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(supervisor):
        os._exit(1)
    try:
        python, *searched = json.load(sys.stdin)
    except (ValueError, TypeError):
        sys.exit("uppercase has another version by now; restart the service")
    if python != sys.hexversion >> 16:
        sys.exit("Python has another version by now; restart the service")
    # First where the supervisor looks: what has started it may have brought its packages along. Not
    # in the current folder, unless Python would: twistd searches it first, but after it has loaded
    # this package. Then where Python looks by now, but for this script's folder.
    own = sys.path if sys.flags.safe_path else sys.path[1:]
    here = {os.getcwd(), ""}.difference(own)
    sys.path[:] = [*(each for each in searched if each not in here), *own]
    from uppercase.services.worker import begin, run

    assignment = begin()
    sys.exit(run(assignment, lambda: make_services(tap, words)))
