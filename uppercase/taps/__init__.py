"""The command lines of the twistd plugins: options in, a service out, nothing else."""

import gc
import os
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

_UNNAMED = "unknown"  # What sd_listen_fds_with_names(3) calls a socket without a name.


def name_sockets(environ: MutableMapping[str, str]) -> int:
    """Give names to the sockets that systemd has passed without any; return how many it has passed.

    Twisted wants a name for each; systemd-socket-activate and others need not give any.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return 0
    text = environ.get("LISTEN_FDNAMES", "")
    names = [name or _UNNAMED for name in text.split(":")] if text else []
    # More than a process can have open is a mistake, which Twisted finds.
    passed = min(int(count), os.sysconf("SC_OPEN_MAX"))
    environ["LISTEN_FDNAMES"] = ":".join([*names, *[_UNNAMED] * (passed - len(names))])
    return passed


# Invariant: before anything imports Twisted's endpoints, which look for the sockets then, forget
# those that have no names, and clear the environment.
PASSED: Final = name_sockets(os.environ)

# Invariant: before a reactor opens descriptors. If one had the number of a closed standard stream,
# twistd would replace it as it becomes a daemon, and the event loop would fail forever.
with suppress(OSError):  # Of the file; a chroot may have none.
    while (_free := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(_free)

# Nothing that Twisted has imported is garbage, and looking for some takes a tenth of our start.
gc.freeze()
