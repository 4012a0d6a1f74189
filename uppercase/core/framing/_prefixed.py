"""The framings `int16` and `int32`: a message follows its length, a big-endian whole number.

As in `twisted.protocols.basic.Int16StringReceiver` and `Int32StringReceiver`.
"""

from collections.abc import Iterator
from struct import Struct
from typing import ClassVar

from uppercase.core.framing._base import Framer, Pair
from uppercase.errors import FramingError, MalformedFrame, MessageTooLong

__all__ = ["Int16Framer", "Int32Framer"]


class _PrefixedFramer(Framer):
    """A length of fixed size, then that many bytes; the limit holds for the declared length."""

    __slots__ = ("_needed",)

    name: ClassVar[str]
    prefix: ClassVar[Struct]

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length)
        self._needed = self.prefix.size
        """How many bytes, from the start of what is held, settle something."""

    def wrap(self, reply: bytes, trailer: bytes) -> bytes:
        """Put the reply's length before it."""
        most = (1 << 8 * self.prefix.size) - 1
        if len(reply) > most:
            raise FramingError(
                f"got a reply of {len(reply)} bytes; {self.name} carries {most} at the most; "
                "--framing=netstring has no such bound"
            )
        return self.prefix.pack(len(reply)) + reply

    def _split(self, data: bytes) -> Iterator[Pair]:
        if len(self._held) + len(data) < self._needed:
            self._held += data
            return
        data = self._take(data)
        size, unpack_from, limit = self.prefix.size, self.prefix.unpack_from, self._limit
        start, total = 0, len(data)
        self._needed = size
        while total - start >= size:
            (length,) = unpack_from(data, start)
            if length > limit:
                raise self._fail(MessageTooLong(limit, length))
            begin = start + size
            end = begin + length
            if end > total:
                self._needed = size + length
                break
            yield data[begin:end], b""
            start = end
        self._held += data[start:]

    def _flush(self) -> Iterator[Pair]:
        held = self.held
        self._end()
        if held:
            what = "length" if self._needed == self.prefix.size else "length and data"
            raise MalformedFrame(
                f"the input ended truncated, with {held} of the {self._needed} bytes of "
                f"an {self.name} frame's {what}; accepted is an end between two frames"
            )
        yield from ()


class Int16Framer(_PrefixedFramer):
    """A length of 2 bytes, then the message."""

    __slots__ = ()

    name = "int16"
    prefix = Struct("!H")


class Int32Framer(_PrefixedFramer):
    """A length of 4 bytes, then the message."""

    __slots__ = ()

    name = "int32"
    prefix = Struct("!I")
