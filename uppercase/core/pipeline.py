"""Several transforms as one.

A pipeline is where a transform's faults are caught: whatever a stage raises, and whatever it
returns that is not bytes or is too long, comes out as a `TransformError` that names the stage.
"""

import re
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from functools import cached_property, partial
from inspect import isawaitable, iscoroutine
from signal import SIGINT, default_int_handler, getsignal
from time import perf_counter
from types import coroutine
from typing import Any, Final, NamedTuple, cast

from zope.interface import alsoProvides, implementer

from uppercase.errors import OutputTooLong, TransformError, WrongResult, drop_tracebacks
from uppercase.interfaces import IPiecewiseTransform, IStreamTransform, ITransform, ITransformStream
from uppercase.limits import MAX_OUTPUT, SLOW_CALL

Result = bytes | Awaitable[bytes] | TransformError
"""What a transform gave, its error too."""

SlowCall = Callable[[str, float], None]
"""Told the name of a transform and the seconds for which one call of it blocked."""

_LOOP_MISSING: Final = (
    "(?i)no running event loop|no current event loop|await wasn't used with future"
    "|unknown async library|not currently running on any async"
)
"""What asyncio, sniffio and anyio say where no loop of asyncio's runs."""

_REMEDY: Final = "; serve it with twistd --reactor=asyncio"
"""The end of the sentence about a coroutine that failed for that; short, as logs cut long ones."""


class Stage(NamedTuple):
    """One transform of a chain, with the name that errors and logs use."""

    name: str
    transform: ITransform


@implementer(ITransform)
class Pipeline:
    """A chain of transforms, which is one itself.

    Args:
        stages: at least one, applied in order.
        max_output: bytes that each stage may give for one message or chunk.
        on_slow: called after a call that blocked for longer than `SLOW_CALL`.

    Attributes:
        streams: whether every stage can stream; the chain provides `IStreamTransform` then.
    """

    def __init__(
        self, stages: Sequence[Stage], max_output: int = MAX_OUTPUT, on_slow: SlowCall | None = None
    ) -> None:
        self.max_output = max_output
        self._on_slow = on_slow
        self._take(stages)
        self.streams = all(IStreamTransform.providedBy(stage.transform) for stage in stages)
        if self.streams:
            alsoProvides(self, IStreamTransform)

    def _take(self, stages: Iterable[Stage]) -> None:
        self._stages = tuple(stages)
        self._calls = [(stage.name, stage.transform.transform) for stage in self._stages]
        vars(self).pop("joins_lines", None)  # Other stages are asked anew.

    @property
    def name(self) -> str:
        """The stages' names as users chain them, such as `strip | uppercase`."""
        return " | ".join(stage.name for stage in self._stages)

    def wrap_stages(self, wrap: Callable[[Stage], Stage]) -> None:
        """Replace each stage by what `wrap` makes of it, such as a measured one; before any use."""
        self._take(map(wrap, self._stages))

    @cached_property
    def joins_lines(self) -> bool:
        """Whether the reply to several lines is their replies, with the lines' ends in between."""
        return all(
            IPiecewiseTransform.providedBy(stage.transform) for stage in self._stages
        ) and all(self.outcome(end) == end for end in (b"\r", b"\n"))

    def transform(self, message: bytes, position: int = 0) -> bytes | Awaitable[bytes]:
        """Return the reply of the stages from one on, or an awaitable of it if any gives one.

        Raises:
            TransformError: a stage failed; an awaitable raises it too.
        """
        # `call` and `checked` in one, which halves what a short message costs.
        most = self.max_output
        for name, function in self._calls[position:] if position else self._calls:
            started = perf_counter()
            try:
                result: object = function(message)
                if perf_counter() - started > SLOW_CALL:
                    self.slow(name, started)
                    started = perf_counter()  # It is told of once, whatever follows.
                if type(result) is bytes and len(result) <= most:
                    message = result
                elif isawaitable(result):
                    return self._go_on(position, result)
                else:
                    message = self.checked(name, result)
            except BaseException as error:
                failure = self.failed(name, error, started)
            else:
                position += 1
                continue
            raise failure
        return message

    def outcome(self, message: bytes) -> Result:
        """Return what `transform` gives, or the error that it raises."""
        try:
            return self.transform(message)
        except TransformError as error:
            drop_tracebacks(error)
            return error

    def answer_run(
        self, messages: Sequence[bytes], replies: list[bytes], slack: int, until: float
    ) -> Result | None:
        """Answer messages until a reply is out of the ordinary, or the time is over.

        Args:
            messages: what is to be answered, in order.
            replies: empty, for the replies: bytes, there at once, and at most `slack` longer.
            slack: that many bytes.
            until: when others have their turn, by `time.perf_counter`.

        Returns:
            The outcome of the message after the last reply; None if it was not looked at, or if
            there is none.
        """
        most = self.max_output
        # For one stage, the function itself: a clock reading each, and no call of ours between.
        sole = len(self._calls) == 1
        name, function = self._calls[0] if sole else ("", self.outcome)
        result: object = None
        started = perf_counter()
        try:
            for message, result in zip(messages, map(function, messages), strict=False):
                ended = perf_counter()
                if ended - started > SLOW_CALL and sole:
                    self.slow(name, started)
                started = ended
                if type(result) is not bytes:
                    break
                if len(result) > len(message) + slack or len(result) > most:
                    break
                replies.append(result)
                if ended > until:
                    return None
            else:
                # Fewer if one has raised StopIteration, which `map` takes for its own end.
                answered = len(replies)
                return self.outcome(messages[answered]) if answered < len(messages) else None
            if not sole:
                return result
            if isawaitable(result):
                return self._go_on(0, result)
            return self.checked(name, result)
        except BaseException as error:
            failure = self.failed(name, error, started)
        drop_tracebacks(failure)
        return failure

    async def _go_on(self, position: int, result: Awaitable[bytes]) -> bytes:
        """Await one stage's reply and put it through the stages after it."""
        name, driven = self._stages[position].name, iscoroutine(result)
        try:
            message = await (drive(result, stepped=partial(self.slow, name)) if driven else result)
        except GeneratorExit as error:
            # What awaits this is being closed, or the transform pretends so: it ends either way,
            # and code that takes it for a failure has the name.
            error.transform = name  # type: ignore[attr-defined]
            raise
        except BaseException as error:
            failure = _failure(name, error)
            if driven and _wants_loop(failure):
                failure.reason += _REMEDY
        else:
            reply = self.transform(self.checked(name, message), position + 1)
            return reply if isinstance(reply, bytes) else await reply
        raise failure

    def open_stream(self) -> ITransformStream:
        """Open a stream through all stages, if the chain streams.

        Raises:
            TransformError: a stage failed to open its stream.
        """
        opened = [(name, *self.call(name, _open, each)) for name, each in self._stages]
        return _ChainedStream(opened, self)

    # Whatever a stage does, nothing comes out but bytes within bounds or a `TransformError`.

    def call(self, name: str, function: Callable[..., Any], *data: Any) -> Any:
        """Call a transform's function; report the call if it blocked."""
        started = perf_counter()
        try:
            result = function(*data)
        except BaseException as error:
            failure = self.failed(name, error, started)
        else:
            self.slow(name, started)
            return result
        # Out here the transform's exception is no longer its context.
        raise failure

    def slow(self, name: str, started: float) -> None:
        """Report a call if it has blocked."""
        seconds = perf_counter() - started
        if seconds > SLOW_CALL and self._on_slow is not None:
            self._on_slow(name, seconds)

    def failed(self, name: str, error: BaseException, started: float) -> TransformError:
        """Return an exception as a failure, and report the call if it blocked."""
        self.slow(name, started)
        return _failure(name, error)

    def checked(self, name: str, result: object) -> bytes:
        """Return the result if it is bytes within the limit."""
        # By its type: an object may raise when asked what it is an instance of.
        if not issubclass(type(result), bytes):
            raise WrongResult(name, f"it returned {type(result).__name__}, not bytes")
        # Invariant: what a chain gives is `bytes` itself. A subclass may say that it has another
        # length than the kernel is to send, or that it has no hash.
        reply = b"".join([cast(bytes, result)])
        if len(reply) > self.max_output:
            raise OutputTooLong(name, len(reply), self.max_output)
        return reply


@implementer(ITransformStream)
class _ChainedStream:
    """One connection's way through the stages."""

    def __init__(self, streams: list[tuple[str, Any, Any]], chain: Pipeline) -> None:
        self._streams = streams  # with the calls that feed and that finish them
        self._chain = chain

    def feed(self, data: bytes, position: int = 0) -> bytes:
        chain = self._chain
        for name, feed, _ in self._streams[position:] if position else self._streams:
            result = chain.call(name, feed, data)
            # Nearly all are; `checked` comes to the same.
            plain = type(result) is bytes and len(result) <= chain.max_output
            data = result if plain else chain.checked(name, result)
        return data

    @property
    def sole(self) -> tuple[Callable[[bytes], Any], int] | None:
        """The one stage's own call, and the most bytes that it may give; None if there are several.

        A caller that uses it instead of `feed` hands to `settle` what is out of the ordinary.
        """
        return (self._streams[0][1], self._chain.max_output) if len(self._streams) == 1 else None

    def settle(
        self, started: float, result: object, error: BaseException | None
    ) -> bytes | TransformError:
        """Return what the sole stage's call comes to, and report it if it blocked."""
        chain, ((name, _, _),) = self._chain, self._streams
        if error is not None:
            return chain.failed(name, error, started)
        chain.slow(name, started)
        try:
            return chain.checked(name, result)
        except TransformError as failure:
            return failure

    def finish(self) -> bytes:
        """End every stage in turn: what one gives at its end is input for those after it."""
        output = b""
        for position, (name, _, finish) in enumerate(self._streams):
            tail = self._chain.checked(name, self._chain.call(name, finish))
            if tail:
                output += self.feed(tail, position + 1)
        return output


@coroutine
def drive(
    steps: Any,
    wait: Callable[[Any], Any] | None = None,
    stepped: Callable[[float], object] = lambda _: None,
) -> Generator[Any, Any, Any]:
    """Await a coroutine, by `wait` if it awaits what others cannot; `stepped` has each start."""
    value: Any = None
    error: BaseException | None = None
    while True:
        started = perf_counter()
        try:
            waited = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            # Its traceback has this frame: kept here, it would be in a cycle.
            value = error = None
            stepped(started)
        try:
            value = (yield waited) if wait is None else (yield from wait(waited))
        except BaseException as thrown:
            error = thrown


def _open(transform: Any) -> tuple[Any, Any]:
    """Open a stream, and look at once for all that it must have."""
    stream = transform.open_stream()
    return stream.feed, stream.finish


def _failure(name: str, error: BaseException) -> TransformError:
    """Return a transform's exception as a failure, or raise it if it is not the transform's.

    A transform that exits, or raises what stands for Ctrl-C or a generator's end, is broken; that
    is no reason to stop a server.
    """
    # By its type, as in `checked`.
    if issubclass(type(error), TransformError):
        # It has the name in its code; users may have written another.
        failure = cast(TransformError, error)
        failure.transform = name
        return failure
    if issubclass(type(error), KeyboardInterrupt) and getsignal(SIGINT) is default_int_handler:
        # In a command, which has no reactor to tell it of Ctrl-C.
        raise error
    return TransformError.caused_by(name, error)


def _wants_loop(failure: TransformError) -> bool:
    """Return whether a coroutine failed because no asyncio loop runs where it is driven."""
    # Imported here: the core needs it only for a sentence.
    from asyncio import get_running_loop

    cause = failure.__cause__
    if not (isinstance(cause, RuntimeError) and re.search(_LOOP_MISSING, failure.reason)):
        return False
    try:
        get_running_loop()
    except RuntimeError:
        return True
    return False
