"""The plugin that a declared function or class is.

`uppercase.plugins.declare` makes these; they hold what it has checked, and it must not check here.
"""

from collections.abc import Awaitable, Callable
from functools import cached_property, update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from twisted.plugin import IPlugin
from zope.interface import implementer

from uppercase.errors import BadArgument
from uppercase.interfaces import (
    IStreamTransform,
    ITransform,
    ITransformPlugin,
    ITransformStream,
)
from uppercase.plugins.adapters import Kind
from uppercase.plugins.parameters import Parameter, require_arguments

__all__ = ["ByteStream", "DeclaredStreamTransform", "DeclaredTransform", "TextStream"]

P = ParamSpec("P")
R = TypeVar("R")


class TextStream(Protocol):
    """What a stream class of text makes."""

    def feed(self, text: str, /) -> str:
        """Take the next text, cut between characters; return all of the output that it settles."""

    def finish(self) -> str:
        """End the input; return the rest of the output."""


class ByteStream(Protocol):
    """What a stream class of bytes makes."""

    def feed(self, data: bytes, /) -> bytes:
        """Take the next bytes; return all of the output that they settle."""

    def finish(self) -> bytes:
        """End the input; return the rest of the output."""


@implementer(ITransformPlugin, IPlugin, ITransform)
class DeclaredTransform(Generic[P, R]):
    """A plugin made of a function or class, which stays callable as what it is.

    It is also the transform itself, with the default of each argument.

    Attributes:
        name: what users type.
        summary: one line for a listing.
        kind: text or bytes.
        streaming: whether what it builds works on an endless stream.
        parameters: its arguments.
    """

    streaming = False

    def __init__(
        self,
        target: Callable[P, R],
        make: Callable[[dict[str, Any]], ITransform],
        *,
        name: str,
        summary: str,
        kind: Kind,
        parameters: tuple[Parameter, ...],
    ) -> None:
        update_wrapper(self, target, updated=())
        self.__wrapped__ = target
        self._make = make
        self.name = name
        self.summary = summary
        self.kind = kind
        self.parameters = parameters

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function or class itself."""
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<transform {self.name!r}: {self.__wrapped__!r}>"

    def build(self, **arguments: Any) -> ITransform:
        """Make the transform.

        Raises:
            BadArgument: an argument is missing, unknown or, to the author's code, not acceptable
                (a ValueError from a class or its call).
        """
        require_arguments(self.parameters, arguments)
        try:
            return self._make(arguments)
        except ValueError as error:
            raise BadArgument(str(error)) from error

    @cached_property
    def _default(self) -> Any:
        return self.build()

    def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
        """Return the reply to one message, with the default of each argument."""
        reply: bytes | Awaitable[bytes] = self._default.transform(message)
        return reply


@implementer(IStreamTransform)
class DeclaredStreamTransform(DeclaredTransform[P, R]):
    """A plugin whose transform also works on an endless stream."""

    streaming = True

    def open_stream(self) -> ITransformStream:
        """Start one stream, with the default of each argument."""
        stream: ITransformStream = self._default.open_stream()
        return stream
