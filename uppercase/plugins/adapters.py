"""What an author's code works on, text or bytes, and how it serves messages and streams of bytes.

Text is UTF-8 in which every byte that does not belong to UTF-8 is a surrogate escape (PEP 383), so
that it passes through unchanged. This module wraps callables that `uppercase.plugins.declare` has
checked; it must not read signatures, and only a call in a thread imports Twisted.
"""

from codecs import getincrementaldecoder
from collections.abc import Awaitable, Callable
from enum import StrEnum
from inspect import isawaitable
from typing import Any, Final, Protocol

from zope.interface import implementer

from uppercase.errors import WrongResult
from uppercase.interfaces import IStreamTransform, ITransform, ITransformStream

__all__ = [
    "Kind",
    "MessageTransform",
    "Stream",
    "StreamTransform",
    "StreamableTransform",
    "ThreadedTransform",
]

_ESCAPE: Final = "surrogateescape"
_Decoder: Final = getincrementaldecoder("utf-8")


class Kind(StrEnum):
    """What an author's code takes and gives."""

    TEXT = "text"
    BYTES = "bytes"

    def from_bytes(self, message: bytes) -> Any:
        """Return what the author's code takes for a message."""
        return message if self is Kind.BYTES else message.decode("utf-8", _ESCAPE)

    def to_bytes(self, name: str, result: object) -> bytes:
        """Return the bytes of what the author's code returned.

        Raises:
            WrongResult: it is of the wrong type, or text without a UTF-8 form.
        """
        if self is Kind.BYTES:
            if isinstance(result, bytes):
                return result
            if isinstance(result, bytearray | memoryview):
                return bytes(result)
        elif isinstance(result, str):
            try:
                return result.encode("utf-8", _ESCAPE)
            except UnicodeEncodeError as error:
                raise WrongResult(
                    name, f"its result holds {error.object[error.start]!a}, which UTF-8 cannot hold"
                ) from error
        expected = "bytes" if self is Kind.BYTES else "str"
        raise WrongResult(name, f"it returned {type(result).__name__}; {expected} is expected")


class Stream(Protocol):
    """What the call of a declared stream class makes: `feed` takes and gives text or bytes."""

    def feed(self, data: Any, /) -> Any:
        """Take the next piece; return all of the output that it settles."""

    def finish(self) -> Any:
        """End the input; return the rest of the output."""


@implementer(ITransform)
class MessageTransform:
    """A function of a whole message.

    Args:
        name: the transform's name, for its errors.
        kind: what the function takes and gives.
        function: gives a result or an awaitable of one.
        ascii: gives the same bytes, faster, for a message that is pure ASCII.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        function: Callable[[Any], Any],
        ascii: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._name = name
        self._kind = kind
        self._function = function
        self._ascii = ascii

    def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
        """Return the reply to one message, or an awaitable of it."""
        if self._ascii is not None and message.isascii():
            return self._ascii(message)
        result = self._function(self._kind.from_bytes(message))
        if not isinstance(result, (str, bytes)) and isawaitable(result):
            return self._settle(result)
        return self._kind.to_bytes(self._name, result)

    async def _settle(self, result: Awaitable[object]) -> bytes:
        return self._kind.to_bytes(self._name, await result)


@implementer(ITransform)
class ThreadedTransform:
    """A function that blocks: each message is a call in the reactor's thread pool."""

    def __init__(self, name: str, kind: Kind, function: Callable[[Any], Any]) -> None:
        self._name = name
        self._kind = kind
        self._function = function

    def transform(self, message: bytes) -> Awaitable[bytes]:
        """Return an awaitable of the reply to one message."""
        # Imported here: it installs a reactor, which loading a transform must not.
        from twisted.internet.threads import deferToThread

        return deferToThread(self._call, message)

    def _call(self, message: bytes) -> bytes:
        return self._kind.to_bytes(self._name, self._function(self._kind.from_bytes(message)))


@implementer(IStreamTransform)
class StreamableTransform(MessageTransform):
    """A function f with f(a + b) == f(a) + f(b), on text cut between characters only."""

    def open_stream(self) -> ITransformStream:
        """Start one stream."""
        source = _Function(self._function, self._kind.from_bytes(b""))
        if self._kind is Kind.BYTES:
            return _ByteStream(self._name, source)
        return _TextStream(self._name, source, self._ascii)


@implementer(IStreamTransform)
class StreamTransform:
    """A transform whose streams have state.

    Args:
        name: the transform's name, for its errors.
        kind: what a stream takes and gives.
        open_source: makes the author's object for one stream.
    """

    def __init__(self, name: str, kind: Kind, open_source: Callable[[], Stream]) -> None:
        self._name = name
        self._kind = kind
        self._open = open_source

    def transform(self, message: bytes) -> bytes:
        """Return the reply to one message: a stream of its own."""
        stream = self.open_stream()
        return stream.feed(message) + stream.finish()

    def open_stream(self) -> ITransformStream:
        """Start one stream."""
        if self._kind is Kind.BYTES:
            return _ByteStream(self._name, self._open())
        return _TextStream(self._name, self._open())


class _Function:
    """A streaming function as a stream that holds nothing back."""

    def __init__(self, function: Callable[[Any], Any], nothing: Any) -> None:
        self.feed = function
        self._nothing = nothing

    def finish(self) -> Any:
        return self._nothing


@implementer(ITransformStream)
class _ByteStream:
    def __init__(self, name: str, source: Stream) -> None:
        self._name = name
        self._source = source

    def feed(self, data: bytes) -> bytes:
        return Kind.BYTES.to_bytes(self._name, self._source.feed(data))

    def finish(self) -> bytes:
        return Kind.BYTES.to_bytes(self._name, self._source.finish())


@implementer(ITransformStream)
class _TextStream:
    """Cuts text between characters: up to 3 bytes of an incomplete one wait for the rest."""

    def __init__(
        self,
        name: str,
        source: Stream,
        ascii: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._name = name
        self._source = source
        self._ascii = ascii
        self._decoder = _Decoder(_ESCAPE)
        self._waiting = False

    def feed(self, data: bytes) -> bytes:
        if self._ascii is not None and not self._waiting and data.isascii():
            return self._ascii(data)
        text = self._decoder.decode(data)
        self._waiting = bool(self._decoder.getstate()[0])
        return self._feed(text)

    def finish(self) -> bytes:
        rest = self._feed(self._decoder.decode(b"", final=True))
        return rest + Kind.TEXT.to_bytes(self._name, self._source.finish())

    def _feed(self, text: str) -> bytes:
        return Kind.TEXT.to_bytes(self._name, self._source.feed(text)) if text else b""
