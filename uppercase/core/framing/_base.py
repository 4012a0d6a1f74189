"""What all framers share: the incomplete message between two chunks, and the end of the input.

A framer scans each byte once. Whole messages are cut out of the chunk in which they end; only the
start of an incomplete one is kept for the next chunk, so neither the rest of a chunk nor a chunk
that was used up is ever copied or held. This module must not know any particular framing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from zope.interface import implementer

from uppercase.errors import FramingError
from uppercase.interfaces import IFramer

Pair = tuple[bytes, bytes]
"""A message and its trailer."""


@implementer(IFramer)
class Framer(ABC):
    """One connection's framing.

    After a fault, or after `finish`, a framer gives nothing more.

    Args:
        max_length: bytes that one message may have; exactly this many pass.
    """

    __slots__ = ("_ended", "_held", "_limit")

    one_message: ClassVar[bool] = False
    """Whether the conversation is over after one message and its reply."""

    def __init__(self, max_length: int) -> None:
        self._limit = max_length
        self._held = bytearray()
        self._ended = False

    @property
    def held(self) -> int:
        """Bytes of an incomplete message that are kept for the next chunk."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[Pair]:
        """Take the next bytes; see `IFramer.feed`."""
        return iter(()) if self._ended else self._split(data)

    def finish(self) -> Iterator[Pair]:
        """End the input; see `IFramer.finish`."""
        return iter(()) if self._ended else self._flush()

    @abstractmethod
    def wrap(self, reply: bytes, trailer: bytes) -> bytes:
        """Return the bytes that carry one reply; see `IFramer.wrap`."""

    @abstractmethod
    def _split(self, data: bytes) -> Iterator[Pair]:
        """Return the messages that end in `data`, and hold what is left of it."""

    @abstractmethod
    def _flush(self) -> Iterator[Pair]:
        """Return the message that the end of the input completes, if any, and `_end`."""

    def _take(self, data: bytes) -> bytes:
        """Return what is held and `data` in one piece, and hold nothing."""
        if not self._held:
            return data
        joined = b"".join((self._held, data))
        self._held.clear()
        return joined

    def _end(self) -> None:
        """Give nothing more from now on, and hold nothing."""
        self._ended = True
        self._held.clear()

    def _fail(self, error: FramingError) -> FramingError:
        """End the input because of a fault; return the error, to be raised."""
        self._end()
        return error
