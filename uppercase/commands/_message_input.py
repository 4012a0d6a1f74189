"""Messages from a file descriptor, as they come: lines or chunks.

Nothing is read before it is wanted, and at most one read is held.
"""

import os
from collections.abc import Iterator

from uppercase.errors import FramingError, UserError
from uppercase.interfaces import IFramer
from uppercase.limits import UDP_READ_SIZE

__all__ = ["Chunks", "Input"]


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


class Input:
    """Messages from a descriptor.

    Args:
        source: the descriptor.
        framer: how it is split.
    """

    def __init__(self, source: int, framer: IFramer | Chunks) -> None:
        self.source = source
        self.ended = False
        self.fault: FramingError | None = None
        self._framer = framer
        self._messages: Iterator[tuple[bytes, bytes]] = iter(())

    def read(self) -> None:
        """Read once; call when no message is left and the descriptor is ready."""
        try:
            data = os.read(self.source, UDP_READ_SIZE)
        except OSError as error:
            raise UserError(f"cannot read the input: {error.strerror}") from error
        self.ended = not data
        self._messages = iter(self._framer.feed(data) if data else self._framer.finish())

    def take(self) -> tuple[bytes, bytes] | None:
        """Return the next message that has been read, with its trailer."""
        try:
            return next(self._messages, None)
        except FramingError as error:
            self.fault = error
            self.ended = True
            return None
