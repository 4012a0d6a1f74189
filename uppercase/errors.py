"""What can go wrong, as one tree.

It is::

    UppercaseError
        UserError           UnknownName, BadArgument, BadValue
        PluginError         NameClash
        TransformError      OutputTooLong, WrongResult
        FramingError        MessageTooLong, MalformedFrame
        NetworkError        ConnectionRefused, NoReply
        Rejected, ProxyHeaderError, CannotListen

Each text says what was got, what is accepted and, where there is one, the likely fix, in one
sentence. This module imports nothing of ours.
"""

from collections.abc import Iterable
from traceback import TracebackException
from typing import Final, Self


class UppercaseError(Exception):
    """The root of what this package raises on purpose."""


class UserError(UppercaseError):
    """A mistake that its author can correct; shown as one sentence, without a traceback."""


class UnknownName(UserError):
    """Nothing is registered under this name."""


class BadArgument(UserError):
    """A transform's argument is missing, unknown or not acceptable."""


class BadValue(UserError):
    """A number, duration, size or address that cannot be used."""


class PluginError(UppercaseError):
    """A transform's code cannot be loaded or breaks its contract; the text names file and fix."""


class NameClash(PluginError):
    """Two plugins claim one name; the text names both places."""


class Rejected(UppercaseError, ValueError):
    """A transform's word for a message that it does not accept.

    It costs the message what any other exception of a transform costs it, but it is the peer's
    fault and not the transform's: no traceback is logged.
    """


LONGEST_REASON: Final = 1000
"""Characters that are kept of what an exception says, five times what a log shows. It may quote a
whole message, and is copied into what is told of it."""


class TransformError(UppercaseError):
    """A transform failed on one message.

    Attributes:
        transform: the name of the transform that failed.
        reason: what went wrong, for a log.
        traceback: where the exception that the transform raised came from, if it raised one.

    The exception that the transform raised, if any, is `__cause__`; it no longer has a traceback,
    because a traceback keeps frames, and frames keep whatever a peer has sent.
    """

    transform = "?"
    traceback: TracebackException | None = None

    def __new__(cls, *arguments: object, **_: object) -> Self:
        # An author's subclass may have an `__init__` that does not call ours.
        self = super().__new__(cls, *arguments)
        self.reason = next((each for each in arguments if isinstance(each, str)), cls.__name__)
        return self

    def __init__(self, transform: str, reason: str) -> None:
        super().__init__(transform, reason)
        self.transform = transform
        self.reason = reason

    @classmethod
    def caused_by(cls, transform: str, error: BaseException) -> Self:
        """Return the failure of a transform that raised an exception, whatever that is.

        A `Rejected` needs neither its type nor a traceback: it is the peer's fault.
        """
        try:
            return cls._describing(transform, error)
        except Exception as broken:
            # Even an attribute of it may fail: that is told instead.
            broken.__context__ = None
            return cls._describing(transform, broken)

    @classmethod
    def _describing(cls, transform: str, error: BaseException) -> Self:
        said, shown = text_of(error), error
        kind = type(error).__name__  # All that TimeoutError, for one, usually says.
        if len(said) > LONGEST_REASON:
            said = f"{said[:LONGEST_REASON]}…"
            shown = _saying(said, error)
        if isinstance(error, Rejected):
            failure = cls(transform, said or kind)
        else:
            failure = cls(transform, f"{kind}: {said}" if said else kind)
            failure.traceback = TracebackException(
                type(error), shown, error.__traceback__, lookup_lines=False
            )
        failure.__cause__ = error
        drop_tracebacks(error)
        return failure

    def __str__(self) -> str:
        return f"transform {self.transform!r} failed: {self.reason}"


def text_of(error: BaseException) -> str:
    """Return what an exception of somebody else's says; even that may fail."""
    try:
        return str(error)
    except BaseException as broken:
        return f"(its text cannot be had: {type(broken).__name__})"


def line_of(error: BaseException) -> str:
    """Return the same in one line."""
    return " ".join(text_of(error).split())


def kind_of(error: BaseException) -> str:
    """Return the same after its type, which is all that an `AssertionError`, for one, may say."""
    said = line_of(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _saying(text: str, error: BaseException) -> BaseException:
    """Return what stands for an exception in its traceback, and says less."""
    if isinstance(error, SyntaxError):  # Tracebacks ask it for a file and a line.
        return error
    shown = Exception(text)
    shown.__cause__, shown.__context__ = error.__cause__, error.__context__
    shown.__suppress_context__ = error.__suppress_context__
    return shown


class OutputTooLong(TransformError):
    """A transform's output for one message or chunk is over the limit."""

    def __init__(self, transform: str, length: int, limit: int) -> None:
        super().__init__(
            transform, f"its output of {length} bytes is over the limit of {limit} (--max-output)"
        )


class WrongResult(TransformError):
    """What a transform gave is not a reply: not bytes, or text without a UTF-8 form.

    A fault of its code, whatever the message was.
    """


class FramingError(UppercaseError):
    """The peer's bytes do not follow the framing, or a reply cannot be expressed in it."""


class MessageTooLong(FramingError):
    """A message is, or declares itself, longer than the limit."""

    def __init__(self, limit: int, declared: int | None = None) -> None:
        got = "a message" if declared is None else f"a message declared with {declared} bytes"
        super().__init__(f"got {got}, over the limit of {limit} bytes (--max-length)")


class MalformedFrame(FramingError):
    """A header or terminator is not what the framing asks for."""


class ProxyHeaderError(UppercaseError):
    """What has come cannot become a PROXY header."""


class CannotListen(UppercaseError):
    """An address could not be bound."""

    @property
    def errno(self) -> int | None:
        """Why, by the system's number, if it was the system that refused."""
        return getattr(self.__cause__, "errno", None)


class NetworkError(UppercaseError):
    """A server could not be reached, or did not do what was asked of it."""


class ConnectionRefused(NetworkError):
    """Nothing listens there; the text names the command that starts a server."""


class NoReply(NetworkError):
    """No reply came in time; whether the server saw the request is not known."""


def drop_tracebacks(error: BaseException) -> None:
    """Take the tracebacks from an exception, and from those behind it or, in a group, within it.

    To be called where an exception is kept: a traceback keeps frames, frames keep what was in their
    variables, and an exception that one of these names is in a cycle, which is freed late.
    """
    chain: list[BaseException | None] = [error]
    seen = set()
    while chain:
        each = chain.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            chain += (each.__cause__, each.__context__)
            if isinstance(each, BaseExceptionGroup):
                chain += each.exceptions


DISTRIBUTION: Final = "twisted-uppercase"
"""What pip calls the package; `uppercase` on PyPI is somebody else's."""


def install(extra: str) -> str:
    """Return the command that installs what an extra needs, for the end of a sentence."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that helps with a mistyped name.

    Returns:
        `; did you mean 'x'?` where something known is close, else the list of what is known.
    """
    # Imported here: mistakes are few.
    from difflib import get_close_matches

    names = sorted(known)
    folded = {each.casefold(): each for each in names}
    close = get_close_matches(name.casefold(), folded)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    return f"; known are {', '.join(names)}" if names else "; none is known"
