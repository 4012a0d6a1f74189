"""The framing `netstring`: `5:hello,`.

D. J. Bernstein, "Netstrings", https://cr.yp.to/proto/netstrings.txt; as in
`twisted.protocols.basic.NetstringReceiver`.
"""

from collections.abc import Iterator
from typing import Final

from uppercase.core.framing._base import Framer, Pair
from uppercase.errors import FramingError, MalformedFrame, MessageTooLong

__all__ = ["NetstringFramer"]

_COMMA: Final = ord(",")
_DIGITS: Final = b"0123456789"
_ZERO: Final = ord("0")
_ACCEPTED: Final = (
    "accepted is a netstring: a decimal length without leading zeros, a colon, so many bytes of "
    "data, a comma, such as b'5:hello,'"
)


class NetstringFramer(Framer):
    """Netstrings; the limit holds for the declared length.

    A fault is decided by the first byte that cannot be right, so it does not depend on cuts.
    """

    __slots__ = ("_digits", "_needed")

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length)
        self._digits = len(str(max_length))
        """The most digits that a length within the limit can have."""
        self._needed = 0
        """How many bytes, from the start of what is held, settle something."""

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
