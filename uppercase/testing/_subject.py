"""What the contract kit examines: how to make the transform, and what comes of calling it.

A call has an outcome, whatever happens: this module compares and shows outcomes, it does not judge
them.
"""

import os
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from traceback import extract_tb
from typing import Any, Final, cast

import twisted
from twisted.internet.defer import Deferred

import uppercase
from uppercase import registry
from uppercase.awaiting import Waiter, start
from uppercase.errors import TransformError, WrongResult
from uppercase.interfaces import IStreamTransform, ITransform
from uppercase.limits import KIT_CALL_TIME

KIT_WAIT: Final = 5 * KIT_CALL_TIME
"""How long the contract kit waits for a reply that is awaited. Waiting costs nobody else anything,
so it may be longer than a call; whoever tests does not wait longer than that for one message."""

_SHOWN: Final = 48
"""Bytes of a message that a counter-example shows."""

_LONGEST_UNIT: Final = 8

_NOT_THE_AUTHORS: Final = tuple(
    os.path.join(os.path.dirname(str(package.__file__)), "") for package in (uppercase, twisted)
)


class Unanswered(Exception):
    """A reply was awaited in vain; nothing more can be found out about the transform."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of one message or stream.

    Attributes:
        output: the reply, or what a stream had given before it failed.
        error: what was raised.
        tail: how much of the output `finish` gave.
    """

    output: bytes
    error: BaseException | None = None
    tail: int = 0

    @property
    def refused(self) -> bool:
        """Whether the message was refused as not acceptable, which is no fault.

        A `UnicodeError` is a `ValueError` as well, but an accident and not a refusal.
        """
        return isinstance(self.error, ValueError | TransformError) and not isinstance(
            self.error, UnicodeError | WrongResult
        )

    def same(self, other: "CallResult") -> bool:
        """Whether a client could tell no difference but in the wording of an error."""
        return self.output == other.output and type(self.error) is type(other.error)

    @property
    def place(self) -> str:
        """Where the error was raised, the innermost place in the author's code, or ""."""
        if self.error is None:
            return ""
        for frame in reversed(extract_tb(self.error.__traceback__)):
            if not frame.filename.startswith(("<", *_NOT_THE_AUTHORS)):
                return f"{frame.filename}, line {frame.lineno}"
        return ""

    def __str__(self) -> str:
        if self.error is None:
            return f"gave {show(self.output)}"
        said = " ".join(str(self.error).split())
        raised = f"raised {type(self.error).__name__}{': ' if said else ''}{said}"
        return f"gave {show(self.output)} and {raised}" if self.output else raised


class Subject:
    """One transform under examination.

    Args:
        target: a specification as on a command line, a decorated function or class, a plain one, a
            plugin, or an `ITransform`.

    Attributes:
        make: gives a transform, a new one at each call if the target can be made anew.
        streams: whether it works on an endless stream.
        waiter: waits for replies; it is entered before any is asked for.

    Raises:
        uppercase.errors.UserError: the specification is wrong.
        uppercase.errors.PluginError: the transform cannot be loaded.
    """

    def __init__(self, target: object) -> None:
        self.make = registry.listing().maker(target)
        self.transform = self.make()
        self.streams: bool = IStreamTransform.providedBy(self.transform)
        self.waiter = Waiter([self.transform])
        self._unanswered: Unanswered | None = None

    def reply(self, message: bytes, transform: ITransform | None = None) -> CallResult:
        """Return what comes of one message, awaited if need be.

        Raises:
            Unanswered: a reply was awaited in vain, now or before.
        """
        (result,) = self.replies([message], transform)
        return result

    def replies(
        self, messages: Sequence[bytes], transform: ITransform | None = None
    ) -> list[CallResult]:
        """Return what comes of messages; all are given before the first reply is awaited.

        Raises:
            Unanswered: a reply was awaited in vain, now or before.
        """
        return self._wait(self._begin(messages, transform or self.transform))

    def _begin(
        self, messages: Sequence[bytes], transform: ITransform
    ) -> list[CallResult | Deferred[CallResult]]:
        if self._unanswered is not None:
            raise self._unanswered
        # Invariant: in one call, so that no reply comes before the last message is given.
        return self.waiter.call(lambda: [self._call(transform, message) for message in messages])

    def _wait(self, begun: list[CallResult | Deferred[CallResult]]) -> list[CallResult]:
        return [
            self.waiter.wait_for(came) if isinstance(came, Deferred) else came for came in begun
        ]

    def _call(self, transform: ITransform, message: bytes) -> CallResult | Deferred[CallResult]:
        try:
            result: Any = transform.transform(message)
        except (Exception, SystemExit) as error:
            return CallResult(b"", error)
        return self._start(message, result) if isinstance(result, Awaitable) else _checked(result)

    def _start(self, message: bytes, reply: Awaitable[object]) -> Deferred[CallResult]:
        """Start to await a reply, for so long."""

        async def wait() -> CallResult:
            try:
                return _checked(await reply)
            except (Exception, SystemExit) as error:
                return CallResult(b"", error)

        def give_up(_: object, seconds: float) -> None:
            self._unanswered = Unanswered(
                f"transform({show(message)}) has no reply after {seconds:g} s; see to it that what "
                "it awaits comes to an end"
            )
            raise self._unanswered

        started = start(wait())
        if not started.called:
            from twisted.internet import reactor

            known: Any = reactor
            started.addTimeout(KIT_WAIT, known, give_up)
        return started

    def stream(self, chunks: Iterable[bytes], transform: ITransform | None = None) -> CallResult:
        """Return what comes of one stream, fed with these chunks and then finished."""
        output = b""
        try:
            stream = cast(IStreamTransform, transform or self.transform).open_stream()
            for chunk in chunks:
                output += _bytes(stream.feed(chunk))
            tail = _bytes(stream.finish())
        except (Exception, SystemExit) as error:
            return CallResult(output, error)
        return CallResult(output + tail, tail=len(tail))

    def timed(self, message: bytes) -> tuple[CallResult, float]:
        """Return what comes of one message, and for how many seconds the call blocked."""
        started = perf_counter()
        begun = self._begin([message], self.transform)
        seconds = perf_counter() - started
        (result,) = self._wait(begun)
        return result, seconds


def _checked(result: object) -> CallResult:
    try:
        return CallResult(_bytes(result))
    except WrongResult as error:
        return CallResult(b"", error)


def _bytes(result: object) -> bytes:
    if not isinstance(result, bytes):
        raise WrongResult("?", f"it returned {type(result).__name__}, not bytes")
    return result


def show(message: bytes) -> str:
    """Return a message as Python would write it, a long one in short."""
    if len(message) <= _SHOWN:
        return repr(message)
    for length in range(1, _LONGEST_UNIT + 1):
        unit, count = message[:length], len(message) // length
        if unit * count == message:
            return f"{unit!r} * {count}"
    return f"{message[:_SHOWN]!r}... ({len(message)} bytes)"
