"""The two ends of a filter: a descriptor that is read when more is wanted, and one that is written.

Nothing is read before it is wanted, at most one read is held, and a reader of the output that takes
its time holds nobody else up.
"""

import os
import select
from collections.abc import Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.errors import UserError
from uppercase.limits import KIB

CHUNK: Final = 64 * KIB
"""Bytes that are read at once: what a pipe holds and what Twisted reads at once from a socket."""


@implementer(IReadDescriptor)
class Input:
    """Bytes from a descriptor of any kind, which stays as it is: never made non-blocking.

    Args:
        reactor: an `IReactorFDSet`; Twisted's epoll reactor takes regular files, too.
        source: the descriptor.
    """

    def __init__(self, reactor: Any, source: int) -> None:
        self._reactor = reactor
        self._source = source
        self._wanted: Deferred[bytes] | None = None

    def read(self) -> Deferred[bytes]:
        """Return the next bytes, b"" at the end; one read at a time.

        Returns:
            Fails with `UserError` if it cannot be read; when it is cancelled, nothing was read.
        """
        self._wanted = Deferred(self._unwanted)
        self._reactor.addReader(self)
        return self._wanted

    def at_end(self) -> bool:
        """Return whether the input ends here, without waiting for it."""
        readable, _, _ = select.select([self._source], [], [], 0)
        return bool(readable) and not os.read(self._source, 1)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._source

    def logPrefix(self) -> str:
        """Return what the reactor's log calls it."""
        return "input"

    def doRead(self) -> None:
        """Read once, which does not block: the descriptor is ready."""
        wanted = self._take_wanted()
        try:
            data = os.read(self._source, CHUNK)
        except OSError as error:
            wanted.errback(UserError(f"cannot read the input: {error.strerror}"))
        else:
            wanted.callback(data)

    def connectionLost(self, reason: Failure) -> None:
        """Hear of the end under epoll, which tells it apart from something to read."""
        if self._wanted is not None:
            self.doRead()

    def _unwanted(self, wanted: Deferred[bytes]) -> None:
        self._take_wanted()

    def _take_wanted(self) -> Deferred[bytes]:
        self._reactor.removeReader(self)
        wanted, self._wanted = self._wanted, None
        assert wanted is not None
        return wanted


async def write(reactor: Any, sink: int, data: bytes) -> None:
    """Write everything to a descriptor, in a thread: see `write_all`."""
    await deferToThreadPool(reactor, reactor.getThreadPool(), write_all, sink, data)


def write_all(sink: int, data: bytes) -> None:
    """Write everything to a descriptor.

    Raises:
        UserError: the output cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:  # Whoever shares the output made it so.
            select.select([], [sink], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"cannot write the output: {error.strerror}") from error


class Chunks:
    """Cuts a stream into messages of one size, the last one shorter; a framer without framing.

    Args:
        size: bytes of a message.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Take the next bytes; see `IFramer.feed`."""
        data = self._held + data
        whole = len(data) - len(data) % self._size
        self._held = data[whole:]
        for start in range(0, whole, self._size):
            yield data[start : start + self._size], b""

    def finish(self) -> Iterator[tuple[bytes, bytes]]:
        """End the input; see `IFramer.finish`."""
        if self._held:
            yield self._held, b""
