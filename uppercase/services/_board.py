"""How many connections each worker has, in memory that all of them see.

Of several processes that wait for one socket, the system wakes all, and whoever runs first takes
the connection: mostly the same one. So a worker that has more than another waits for a moment.
"""

import mmap
import os
import tempfile
from typing import Final

_SIZE: Final = 8
_NOBODY: Final = (1 << 63) - 1

_SLACK: Final = 4
"""Connections that a worker may have more than another before it waits."""


class Board:
    """A number for each worker, in shared memory.

    Args:
        descriptor: of the memory; stays open.
        workers: how many.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, workers * _SIZE)
        self._counts = memoryview(self._memory).cast("q")

    @classmethod
    def make(cls, workers: int) -> "Board":
        """Return a new one, on which nobody has a number yet."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("uppercase-workers")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, workers * _SIZE)
        board = cls(descriptor, workers)
        for number in range(workers):
            board.clear(number)
        return board

    def clear(self, number: int) -> None:
        """Take note that there is no such worker: nobody waits for it."""
        self._counts[number] = _NOBODY

    def has_more(self, number: int, count: int) -> bool:
        """Write a worker's number, and tell whether it has notably more than another."""
        self._counts[number] = count
        return count > min(self._counts) + _SLACK

    def close(self) -> None:
        """Let go of the memory; workers keep theirs."""
        self._counts.release()
        self._memory.close()
        os.close(self.descriptor)
