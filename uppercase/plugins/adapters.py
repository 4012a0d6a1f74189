"""The plugin that an author's code becomes, and how that serves messages and streams of bytes.

Text is UTF-8 in which every byte that does not belong to UTF-8 is a surrogate escape (PEP 383), so
that it passes through unchanged. This module wraps callables that `uppercase.plugins` has
checked: it must not read signatures, nor import the reactor except in a call.
"""

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, update_wrapper
from inspect import isawaitable
from types import SimpleNamespace
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar

from twisted.plugin import IPlugin
from zope.interface import alsoProvides, implementer

from uppercase.errors import BadArgument, WrongResult, text_of
from uppercase.interfaces import (
    IPiecewiseTransform,
    IStreamTransform,
    ITransform,
    ITransformPlugin,
    ITransformStream,
)
from uppercase.plugins.parameters import Parameter, require_arguments

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", str, bytes)

_ESCAPE: Final = "surrogateescape"
_Decoder: Final = getincrementaldecoder("utf-8")


class Kind(StrEnum):
    """What an author's code takes and gives."""

    TEXT = "text"
    BYTES = "bytes"

    def from_bytes(self, message: bytes) -> Any:
        return message if self is _BYTES else message.decode("utf-8", _ESCAPE)

    def to_bytes(self, name: str, result: object) -> bytes:
        """Return the bytes of what the author's code returned, or raise `WrongResult`."""
        if self is _BYTES:
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
        expected = "bytes" if self is _BYTES else "str"
        raise WrongResult(name, f"it returned {type(result).__name__}; {expected} is expected")


_BYTES: Final = Kind.BYTES
"""It is read for each message: as a member of the Enum seven times as slowly (CPython 3.11)."""


class Stream(Protocol[T]):
    """What a stream class of text, or of bytes, makes."""

    def feed(self, data: T, /) -> T:
        """Take the next piece, text cut between characters; return all output that it settles."""

    def finish(self) -> T:
        """End the input; return the rest of the output."""


@implementer(ITransformPlugin, IPlugin, ITransform)
@dataclass(eq=False, repr=False)
class DeclaredTransform(Generic[P, R]):
    """A plugin made of a function or class, which stays callable as what it is.

    It is also the transform itself, with the default of each argument; one that streams provides
    `IStreamTransform`. One that `is_async` is a coroutine function, which may await anything of
    asyncio's.
    """

    target: Callable[P, R]
    make: Callable[[dict[str, Any]], ITransform]
    name: str
    summary: str
    kind: Kind
    parameters: tuple[Parameter, ...]
    streaming: bool
    is_async: bool = False

    def __post_init__(self) -> None:
        update_wrapper(self, self.target, updated=())
        if self.streaming:
            alsoProvides(self, IStreamTransform)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.target(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<transform {self.name!r}: {self.target!r}>"

    def build(self, **arguments: Any) -> ITransform:
        """Make the transform; a `ValueError` of the author's code is about the arguments."""
        require_arguments(self.parameters, arguments)
        try:
            return self.make(arguments)
        except ValueError as error:
            raise BadArgument(text_of(error)) from error

    @cached_property
    def _default(self) -> Any:
        return self.build()

    def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
        reply: bytes | Awaitable[bytes] = self._default.transform(message)
        return reply

    def open_stream(self) -> ITransformStream:
        stream: ITransformStream = self._default.open_stream()
        return stream


@implementer(ITransform)
@dataclass(eq=False)
class MessageTransform:
    """A function of a whole message, which gives a result or an awaitable of one.

    `ascii` gives the same bytes, faster, for a message that is pure ASCII.
    """

    name: str
    kind: Kind
    function: Callable[[Any], Any]
    ascii: Callable[[bytes], bytes] | None = None

    def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
        ascii = self.ascii  # else the call of what it holds could not be specialised by CPython
        if ascii is not None and message.isascii():
            return ascii(message)
        result = self.function(self.kind.from_bytes(message))
        if not isinstance(result, (str, bytes)) and isawaitable(result):
            return self._settle(result)
        return self.kind.to_bytes(self.name, result)

    async def _settle(self, result: Awaitable[object]) -> bytes:
        return self.kind.to_bytes(self.name, await result)


class AsyncTransform(MessageTransform):
    """A coroutine function, which is told from other transforms by what it is."""

    async def transform(self, message: bytes) -> bytes:
        if self.ascii is not None and message.isascii():
            return self.ascii(message)
        return await self._settle(self.function(self.kind.from_bytes(message)))


class ThreadedTransform(MessageTransform):
    """A function that blocks: each message is a call in the reactor's thread pool."""

    def transform(self, message: bytes) -> Awaitable[bytes]:
        # Imported here: it installs a reactor, which loading a transform must not.
        from twisted.internet.threads import deferToThread

        return deferToThread(self._call, message)

    def _call(self, message: bytes) -> bytes:
        return self.kind.to_bytes(self.name, self.function(self.kind.from_bytes(message)))


@implementer(IPiecewiseTransform)
class StreamableTransform(MessageTransform):
    """A function f with f(a + b) == f(a) + f(b), on text cut between characters only."""

    def open_stream(self) -> ITransformStream:
        return _open_stream(self.name, self.kind, self._source, self.ascii)

    @cached_property
    def _source(self) -> Any:
        """What every stream is made of: it has no state."""
        nothing = self.kind.from_bytes(b"")
        return SimpleNamespace(feed=self.function, finish=lambda: nothing)


@implementer(IStreamTransform)
@dataclass(eq=False)
class StreamTransform:
    """A transform whose streams have state; `open_source` makes the author's object for one."""

    name: str
    kind: Kind
    open_source: Callable[[], Stream[Any]]

    def transform(self, message: bytes) -> bytes:
        """Return the reply to one message: a stream of its own."""
        stream = self.open_stream()
        return stream.feed(message) + stream.finish()

    def open_stream(self) -> ITransformStream:
        return _open_stream(self.name, self.kind, self.open_source())


@implementer(ITransformStream)
@dataclass(eq=False)
class _ByteStream:
    kind = Kind.BYTES
    name: str
    source: Stream[Any]

    def feed(self, data: bytes) -> bytes:
        return self.kind.to_bytes(self.name, self.source.feed(data))

    def finish(self) -> bytes:
        return self.kind.to_bytes(self.name, self.source.finish())


@dataclass(eq=False)
class _TextStream(_ByteStream):
    """Cuts text between characters: up to 3 bytes of an incomplete one wait for the rest."""

    kind = Kind.TEXT
    ascii: Callable[[bytes], bytes] | None
    decoder: IncrementalDecoder | None = None  # made for the first that is not ASCII
    waiting: bool = False

    def feed(self, data: bytes) -> bytes:
        ascii = self.ascii
        if ascii is not None and not self.waiting and data.isascii():
            return ascii(data)
        if self.decoder is None:
            self.decoder = _Decoder(_ESCAPE)
        text = self.decoder.decode(data)
        self.waiting = bool(self.decoder.getstate()[0])
        return self._feed(text)

    def finish(self) -> bytes:
        rest = b""
        if self.waiting and self.decoder is not None:
            rest = self._feed(self.decoder.decode(b"", final=True))
        return rest + super().finish()

    def _feed(self, text: str) -> bytes:
        return self.kind.to_bytes(self.name, self.source.feed(text)) if text else b""


def _open_stream(
    name: str, kind: Kind, source: Stream[Any], ascii: Callable[[bytes], bytes] | None = None
) -> ITransformStream:
    return _TextStream(name, source, ascii) if kind is Kind.TEXT else _ByteStream(name, source)
