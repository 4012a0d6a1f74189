"""A spare process, whose forks become the programs that a server in a fork spawns: its workers.

A worker is to begin as fresh as in an interpreter of its own, so the spare one is forked before the
server has run anything. What is needed of Linux: to be a child of the server, as a supervisor has
it, a worker is made an orphan that the system gives to the server.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

NAME = "spare"
"""Its name, as the system shows it."""

_PDEATHSIG, _SET_NAME, _SUBREAPER = 1, 15, 36  # linux/prctl.h

Wish = tuple[list[str], dict[str, str]]
"""A command and its environment."""


def keep_spare() -> Wish | None:
    """Have forks of this process, as it is now, be what it spawns from now on.

    Return None here, and in each such fork what it is to become.
    """
    process = os.getpid()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        return _become(theirs, process)
    theirs.close()

    def spawn(
        executable: str,
        arguments: Sequence[bytes],
        environment: Mapping[str, str],
        *,
        file_actions: Sequence[tuple[Any, ...]],
        setsigdef: object,
    ) -> int:
        given = _after(file_actions)
        wish = [[*map(os.fsdecode, arguments)], {**environment}, [*given]]
        socket.send_fds(ours, [json.dumps(wish).encode()], [*given.values()])
        return int(ours.recv(100))

    os.posix_spawnp = spawn  # type: ignore[assignment]
    return None


def _after(file_actions: Sequence[tuple[Any, ...]]) -> dict[int, int]:
    """Return which descriptor a spawned program has for which of ours."""
    ours = [int(name) for name in os.listdir("/proc/self/fd")]
    given = {each: each for each in ours if _is_inherited(each)}
    for action, number, *place in file_actions:
        if action == os.POSIX_SPAWN_DUP2:
            given[place[0]] = given.get(number, number)
        else:
            given.pop(number, None)
    return given


def _is_inherited(descriptor: int) -> bool:
    """Return whether a program has a descriptor, which may be closed by now."""
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


def _become(asked: socket.socket, process: int) -> Wish:
    """Be the spare process, until its owner ends; return, in a fork of it, what that becomes."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_SET_NAME, NAME.encode())
    with open(os.devnull, "r+") as nothing:
        for number in range(3):
            os.dup2(nothing.fileno(), number)
    while True:
        wish, descriptors, _, _ = socket.recv_fds(asked, 1 << 18, 64)
        if not wish:
            os._exit(0)
        parent = os.fork()
        if not parent:
            break
        os.waitpid(parent, 0)
        for descriptor in descriptors:
            os.close(descriptor)
    if os.fork():
        os._exit(0)
    libc.prctl(_SET_NAME, b"python")
    while os.getppid() != process:
        time.sleep(0.001)
    asked.send(b"%d" % os.getpid())
    asked.close()
    command, environment, numbers = json.loads(wish)
    # Out of the way of the numbers that they are to have.
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, 1000) for each in descriptors]
    for each in descriptors:
        os.close(each)
    for number, each in zip(numbers, high, strict=True):
        os.dup2(each, number)
        os.close(each)
    return command, environment
