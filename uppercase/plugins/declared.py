"""A declared transform: its arguments as users write them, and how it serves messages and streams.

A user's mistake in an argument raises `BadArgument`. Text is UTF-8 in which every byte that does
not belong to UTF-8 is a surrogate escape (PEP 383), so that it passes through unchanged. This
module wraps callables that `uppercase.plugins` has checked: it must not read signatures, nor import
the reactor except in a call.
"""

import math
import re
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import cached_property, update_wrapper
from inspect import Signature, isawaitable
from types import SimpleNamespace
from typing import Any, Final, Generic, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from twisted.plugin import IPlugin
from zope.interface import alsoProvides, implementer

from uppercase.errors import BadArgument, TransformError, WrongResult, kind_of, line_of
from uppercase.interfaces import (
    IPiecewiseTransform,
    IStreamTransform,
    ITransform,
    ITransformPlugin,
    ITransformStream,
)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", str, bytes)

_ESCAPE: Final = "surrogateescape"
_Decoder: Final = getincrementaldecoder("utf-8")

REQUIRED: Final[Any] = Signature.empty
"""The default of a parameter that has none."""

_BOOLEANS: Final = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip
ACCEPTED: Final = {int: "whole number", float: "number", str: "text", bool: "true or false"}


class Parameter(NamedTuple):
    """One argument of a transform; users write its name before the `=`.

    Its type is int, float, bool, str, an Enum class, or object for a Literal; these two have
    `choices`, the value for each accepted text. Without a default it is `REQUIRED`.
    """

    name: str
    type: type
    default: Any = REQUIRED
    choices: Mapping[str, Any] | None = None

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def accepts(self) -> str:
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}"
        return ACCEPTED[self.type]

    @property
    def _phrase(self) -> str:
        return f"a {self.accepts}" if self.accepts.endswith("number") else self.accepts

    def describe(self) -> str:
        """Return one line for help, such as `shift: whole number, default 13`."""
        return f"{self.name}: {self.accepts}, {self._describe_default()}"

    def _describe_default(self) -> str:
        if self.required:
            return "required"
        if self.default is None:
            return "optional"
        for text, value in (self.choices or {}).items():
            if type(value) is type(self.default) and value == self.default:
                return f"default {text}"
        if isinstance(self.default, bool):
            return f"default {str(self.default).lower()}"
        return f"default {self.default!r}"

    def convert(self, text: str) -> Any:
        """Return the value that a text stands for."""
        with suppress(ValueError, KeyError):
            if self.choices is not None:
                return self.choices[text]
            if self.type is bool:
                return _BOOLEANS[text.lower()]
            if self.type is str:
                return text
            if self.type is int and re.fullmatch(r"[+-]?[0-9]+", text):
                return int(text)
            if self.type is float and math.isfinite(number := float(text)):
                return number
        raise BadArgument(f"argument {self.name!r}: got {text!r}; accepted is {self._phrase}")


def convert_arguments(
    parameters: Sequence[Parameter], given: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """Convert what a user wrote; hyphens in a name stand for underscores."""
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Any] = {}
    for written, text in given:
        name = written.replace("-", "_")
        if name not in known:
            raise _unknown(written, parameters)
        if name in values:
            raise BadArgument(f"argument {name!r} is given twice; give it once")
        values[name] = known[name].convert(text)
    require_arguments(parameters, values)
    return values


def require_arguments(parameters: Sequence[Parameter], values: Mapping[str, Any]) -> None:
    """Check that values by name are for known arguments and none is missing."""
    known = {parameter.name for parameter in parameters}
    for name in values:
        if name not in known:
            raise _unknown(name, parameters)
    for parameter in parameters:
        if parameter.required and parameter.name not in values:
            raise BadArgument(
                f"argument {parameter.name!r} is missing; write {parameter.name}=VALUE, where "
                f"VALUE is {parameter._phrase}"
            )


def _unknown(name: str, parameters: Sequence[Parameter]) -> BadArgument:
    if not parameters:
        return BadArgument(f"got argument {name!r}; no arguments are accepted")
    accepted = "; ".join(parameter.describe() for parameter in parameters)
    close = get_close_matches(name, [parameter.name for parameter in parameters])
    if close:
        return BadArgument(f"no argument named {name!r}; did you mean {close[0]!r}? ({accepted})")
    return BadArgument(f"no argument named {name!r}; accepted are {accepted}")


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
@dataclass(eq=False)
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

    def __reduce__(self) -> str:
        """Pickle it by its name, as functions and classes are: for a pool of processes."""
        return self.target.__qualname__

    def build(self, **arguments: Any) -> ITransform:
        """Make the transform; a `ValueError` of the author's code is about the arguments."""
        require_arguments(self.parameters, arguments)
        try:
            return self.make(arguments)
        except ValueError as error:
            raise BadArgument(line_of(error) or kind_of(error)) from error

    @cached_property
    def _default(self) -> Any:
        return self.build()

    def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
        reply: bytes | Awaitable[bytes] = self._default.transform(message)
        return reply

    def open_stream(self) -> ITransformStream:
        return cast(ITransformStream, self._default.open_stream())


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
        reply = super().transform(message)
        return reply if isinstance(reply, bytes) else await reply


class ThreadedTransform(MessageTransform):
    """A function that blocks: each message is a call in the reactor's thread pool."""

    def transform(self, message: bytes) -> Awaitable[bytes]:
        # Imported here: it installs a reactor, which loading a transform must not.
        from twisted.internet.threads import deferToThread

        # Taken when it is its turn, or when it is cancelled, as whoever has asked is gone.
        asked = iter([message])
        try:
            reply = deferToThread(self._call, asked)
        except RuntimeError as error:
            # The system gives no thread. The pool would wait for the one that never began.
            from uppercase.awaiting import the_reactor

            threads = the_reactor().getThreadPool().threads
            threads[:] = [each for each in threads if each.ident is not None]
            raise TransformError(self.name, str(error)) from None

        def leave_out(failure: Any) -> Any:
            next(asked, None)
            return failure

        return reply.addErrback(leave_out)

    def _call(self, asked: Iterator[bytes]) -> bytes:
        if (message := next(asked, None)) is None:
            return b""
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
        if self.decoder is not None:
            rest = self._feed(self.decoder.decode(b"", final=True))
        return rest + super().finish()

    def _feed(self, text: str) -> bytes:
        return self.kind.to_bytes(self.name, self.source.feed(text)) if text else b""


def _open_stream(
    name: str, kind: Kind, source: Stream[Any], ascii: Callable[[bytes], bytes] | None = None
) -> ITransformStream:
    return _TextStream(name, source, ascii) if kind is Kind.TEXT else _ByteStream(name, source)
