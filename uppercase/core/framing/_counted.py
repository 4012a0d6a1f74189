"""The framings whose messages follow their length: `netstring`, `int16` and `int32`.

A netstring is `5:hello,` (D. J. Bernstein, https://cr.yp.to/proto/netstrings.txt); the others have
a big-endian whole number. All are as in `twisted.protocols.basic`. The limit holds for the declared
length: what is too long is refused before it has come.

Invariant of all: fewer than `_needed` bytes, from the start of what is held, settle nothing. So a
chunk that does not bring as many is only appended, and a long message that comes byte by byte is
joined once.
"""

from collections.abc import Iterator
from struct import Struct
from typing import ClassVar, Final

from uppercase.core.framing._base import Framer, Pair
from uppercase.errors import FramingError, MalformedFrame, MessageTooLong

_COMMA: Final = ord(",")
_DIGITS: Final = b"0123456789"
_ZERO: Final = ord("0")
_ACCEPTED: Final = (
    "accepted is a netstring: a decimal length without leading zeros, a colon, so many bytes of "
    "data, a comma, such as b'5:hello,'"
)


class NetstringFramer(Framer):
    """Netstrings.

    A fault is decided by the first byte that cannot be right, so it does not depend on cuts.
    """

    __slots__ = ("_digits", "_needed")

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length)
        self._digits = len(str(max_length))
        """The most digits that a length within the limit can have."""
        self._needed = 0

    def wrap(self, reply: bytes, trailer: bytes) -> bytes:
        """Put the reply's length and a colon before it, and a comma behind it."""
        return b"%d:%b," % (len(reply), reply)

    def _split(self, data: bytes) -> Iterator[Pair]:
        if len(self._held) + len(data) < self._needed:
            self._held += data
            return
        data = self._take(data)
        find, header_size, limit = data.find, self._digits + 1, self._limit
        start, total = 0, len(data)
        self._needed = 0
        while start < total:
            colon = find(b":", start, start + header_size)
            digits = data[start:colon]
            if colon < 0 or not digits.isdigit() or (digits[0] == _ZERO and len(digits) > 1):
                self._check_header(data[start : start + header_size])
                break
            length = int(digits)
            if length > limit:
                raise self._fail(MessageTooLong(limit, length))
            end = colon + 1 + length
            if end >= total:
                self._needed = end + 1 - start
                break
            if data[end] != _COMMA:
                raise self._fail(self._no_comma(length, data[end]))
            yield data[colon + 1 : end], b""
            start = end + 1
        self._held += data[start:]

    def _check_header(self, header: bytes) -> None:
        """Raise what is wrong with a header that has no colon yet, or not where it should be."""
        for index, byte in enumerate(header):
            got = header[: index + 1]
            if byte not in _DIGITS:
                raise self._fail(MalformedFrame(f"got {got!r} where a frame starts; {_ACCEPTED}"))
            if index == 1 and header[0] == _ZERO:
                raise self._fail(MalformedFrame(f"got a leading zero in {got!r}; {_ACCEPTED}"))
            if index == self._digits:
                raise self._fail(MessageTooLong(self._limit))

    def _no_comma(self, length: int, byte: int) -> FramingError:
        return MalformedFrame(
            f"got {bytes([byte])!r} after the {length} bytes of a netstring's data; accepted is a "
            "comma; the length counts bytes, not characters"
        )

    def _flush(self) -> Iterator[Pair]:
        held, needed = bytes(self._held[: self._digits + 1]), self._needed
        length = self.held
        self._end()
        if length:
            got = f"{length} of the {needed} bytes of a frame" if needed else repr(held)
            raise MalformedFrame(f"the input ended truncated, after {got}; {_ACCEPTED}")
        yield from ()


class _PrefixedFramer(Framer):
    """A length of fixed size, then that many bytes."""

    __slots__ = ("_needed",)

    name: ClassVar[str]
    prefix: ClassVar[Struct]

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length)
        self._needed = self.prefix.size

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
