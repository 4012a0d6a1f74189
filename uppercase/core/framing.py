"""From a stream of bytes to messages and back: the framings by name, and their framers.

A framer is a lazy generator over the chunks that it is fed: nobody is called back, so a consumer
pauses by not asking for the next message, and there is nothing to recurse into. It scans each byte
once. Whole messages are cut out of the chunk in which they end; only the start of an incomplete one
is kept for the next chunk, so neither the rest of a chunk nor a chunk that was used up is ever
copied or held. This module knows nothing of transforms.

`netstring`, `int16` and `int32` messages follow their length. A netstring is `5:hello,` (D. J.
Bernstein, https://cr.yp.to/proto/netstrings.txt); the others have a big-endian whole number. All
are as in `twisted.protocols.basic`. The limit holds for the declared length: what is too long is
refused before it has come.

Invariant of these: fewer than `_needed` bytes, from the start of what is held, settle nothing. So a
chunk that does not bring as many is only appended, and a long message that comes byte by byte is
joined once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import BytesIO
from struct import Struct
from typing import ClassVar, Final, NamedTuple

from zope.interface import implementer

from uppercase.errors import (
    FramingError,
    MalformedFrame,
    MessageTooLong,
    UnknownName,
    UserError,
    suggest,
)
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
        """Return the message that the end of the input completes, if any, and `_end`."""
        message = bytes(self._held)
        self._end()
        if len(message) > self._limit:
            raise MessageTooLong(self._limit)
        if message:
            yield message, b""

    def wrap(self, reply: bytes, trailer: bytes) -> bytes:
        """Return the bytes that carry one reply, the trailer of its request at the end."""
        return reply + trailer

    @abstractmethod
    def _split(self, data: bytes) -> Iterator[Pair]:
        """Return the messages that end in `data`, and hold what is left of it."""

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


_CR = 0x0D
_LF = 0x0A


class LineFramer(Framer):
    r"""Lines, each of which ends with `\n` or `\r\n`.

    The ending is the message's trailer, so it comes back as it was sent. A `\r` anywhere else is
    content. A last line without an ending is complete when the input ends. The limit counts a line
    without its ending.
    """

    __slots__ = ()

    def _split(self, data: bytes) -> Iterator[Pair]:
        # Invariant: what is held has no line feed. So nothing is scanned again when it is joined
        # with the chunk that brings one, and until then a chunk is only appended.
        if self._held and b"\n" in data:
            data = self._take(data)
        # BytesIO shares the bytes and cuts one line at a time in C: a third less time for short
        # lines than a loop over bytes.find, and unlike bytes.split no list of all of them.
        for line in BytesIO(data):
            if line[-2:] == b"\r\n":
                message, ending = line[:-2], b"\r\n"
            elif line[-1] == _LF:
                message, ending = line[:-1], b"\n"
            else:
                self._hold(line)
                return
            if len(message) > self._limit:
                raise self._fail(MessageTooLong(self._limit))
            yield message, ending

    def _hold(self, start: bytes) -> None:
        """Keep the start of a line, unless no ending can make it short enough any more."""
        excess = len(self._held) + len(start) - self._limit
        # One byte more may be the first half of an ending.
        if excess > 1 or (excess == 1 and start[-1] != _CR):
            raise self._fail(MessageTooLong(self._limit))
        self._held += start


class SegmentFramer(Framer):
    """Whatever one read delivered is one message; input that comes after it is dropped on purpose.

    This is what the servers of textbooks do (`recv` once, `send` once, `close`). TCP keeps no
    message boundaries: where the network cuts a request, part of it is lost.
    """

    __slots__ = ()

    one_message = True

    def _split(self, data: bytes) -> Iterator[Pair]:
        if not data:
            return
        self._end()
        if len(data) > self._limit:
            raise MessageTooLong(self._limit)
        yield data, b""


class SizeFramer(Framer):
    """Messages of one size, which is the limit, and a last one of the rest; for datagrams."""

    __slots__ = ()

    def _split(self, data: bytes) -> Iterator[Pair]:
        data, size = self._take(data), self._limit
        whole = len(data) - len(data) % size
        self._held += data[whole:]
        for start in range(0, whole, size):
            yield data[start : start + size], b""


_COMMA: Final = ord(",")
_DIGITS: Final = b"0123456789"
_ZERO: Final = ord("0")
_ACCEPTED: Final = (
    "accepted is a netstring: a decimal length without leading zeros, a colon, that many bytes of "
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
        """Put the reply's length and a colon before it, and a comma after it."""
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
                got = f"got {data[end : end + 1]!r} after the {length} bytes of a netstring's data"
                accepted = "accepted is a comma; the length counts bytes, not characters"
                raise self._fail(MalformedFrame(f"{got}; {accepted}"))
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

    def finish(self) -> Iterator[Pair]:
        held, needed = bytes(self._held[: self._digits + 1]), self._needed
        length = self.held
        self._end()
        if length:
            got = f"{length} of the {needed} bytes of a frame" if needed else repr(held)
            raise MalformedFrame(f"the input ended truncated, after {got}; {_ACCEPTED}")
        yield from ()


class PrefixedFramer(Framer):
    """A length in the form of a prefix, then that many bytes."""

    __slots__ = ("_needed", "_prefix")

    def __init__(self, prefix: Struct, max_length: int) -> None:
        super().__init__(max_length)
        self._prefix = prefix
        self._needed = prefix.size

    def wrap(self, reply: bytes, trailer: bytes) -> bytes:
        """Put the reply's length before it."""
        bits = 8 * self._prefix.size
        most = (1 << bits) - 1
        if len(reply) > most:
            raise FramingError(
                f"got a reply of {len(reply)} bytes; int{bits} carries at most {most}; "
                "--framing=netstring has no such bound"
            )
        return self._prefix.pack(len(reply)) + reply

    def _split(self, data: bytes) -> Iterator[Pair]:
        if len(self._held) + len(data) < self._needed:
            self._held += data
            return
        data = self._take(data)
        size, unpack_from, limit = self._prefix.size, self._prefix.unpack_from, self._limit
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

    def finish(self) -> Iterator[Pair]:
        held = self.held
        self._end()
        if held:
            what = "length" if self._needed == self._prefix.size else "length and data"
            raise MalformedFrame(
                f"the input ended truncated, with {held} of the {self._needed} bytes of "
                f"an int{8 * self._prefix.size} frame's {what}; accepted is an end between two "
                "frames"
            )
        yield from ()


AUTO: Final = "auto"
"""Stands for `stream` if the whole chain can stream, else for `line`."""


class Framing(NamedTuple):
    """A choice of framing: a line for a listing, and what makes the framer of one connection.

    That takes the bytes that a message may have; for `stream`, the absence of framing, it is None.
    """

    summary: str
    factory: Callable[[int], Framer] | None


FRAMINGS: Final[Mapping[str, Framing]] = {
    "stream": Framing("no messages: each chunk is answered at once", None),
    "line": Framing(r"a message ends with \n or \r\n, which comes back as sent", LineFramer),
    "netstring": Framing("a message is sent as <length>:<data>,", NetstringFramer),
    "int16": Framing(
        "a message follows its length in 2 bytes, big-endian",
        partial(PrefixedFramer, Struct("!H")),
    ),
    "int32": Framing(
        "a message follows its length in 4 bytes, big-endian",
        partial(PrefixedFramer, Struct("!I")),
    ),
    "segment": Framing(
        "whatever one read delivered is one message; then the connection is closed", SegmentFramer
    ),
}
"""Every framing by its name; `auto` is not one, see `choose_framing`."""


def framing_summaries() -> Mapping[str, str]:
    """Return all that a user can name, each with what it means."""
    auto = {AUTO: "stream if the whole chain can stream, else line"}
    return {**auto, **{name: framing.summary for name, framing in FRAMINGS.items()}}


def choose_framing(name: str, streams: bool) -> str:
    """Return the name in `FRAMINGS` that a name stands for with a chain that streams, or does not.

    Raises:
        uppercase.errors.UnknownName: there is no such framing.
        uppercase.errors.UserError: the framing is `stream` and the chain cannot stream.
    """
    if name == AUTO:
        return "stream" if streams else "line"
    if name not in FRAMINGS:
        raise _unknown(name, [AUTO, *FRAMINGS])
    if name == "stream" and not streams:
        raise UserError(
            "got the framing 'stream' with a transform that needs whole messages; "
            "choose one that gives it messages, such as --framing=line"
        )
    return name


def make_framer(name: str, *, max_length: int) -> Framer:
    """Make the framer of one connection.

    Raises:
        uppercase.errors.UnknownName: no framer has this name.
    """
    factory = FRAMINGS[name].factory if name in FRAMINGS else None
    if factory is None:
        raise _unknown(name, [known for known, framing in FRAMINGS.items() if framing.factory])
    return factory(max_length)


def _unknown(name: str, known: list[str]) -> UnknownName:
    return UnknownName(f"no framing named {name!r}{suggest(name, known)}")
