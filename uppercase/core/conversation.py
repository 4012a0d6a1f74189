"""One TCP conversation without its transport: bytes in, replies and an outcome out.

A shell feeds a conversation with what arrives, takes the replies when it can send them, and closes
when there is an outcome. If it stops reading while `wants_input` is false, a conversation keeps
little: chunks whose replies were not taken, at most `Limits.async_window` replies that are still
awaited, and whatever the framer holds.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum, auto
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final

from uppercase.core.events import Outcome
from uppercase.errors import (
    FramingError,
    MalformedFrame,
    MessageTooLong,
    TransformError,
    drop_tracebacks,
)
from uppercase.interfaces import IFramer, IStreamTransform, ITransform
from uppercase.limits import ASYNC_WINDOW, OUTPUT_BATCH

_MESSAGE_COST: Final = 256
"""What a message counts in a batch besides its reply's bytes, so that a batch has at most 256: a
chunk of 64 KiB may hold 65,536 empty ones."""

JOINED_LINES: Final = 4096
"""Bytes of whole lines that one call of a transform may answer: many short lines, but few enough
bytes that a transform that is slow with them holds up nobody for long."""

Clock = Callable[[], float]
Done = Callable[[bytes | TransformError], None]
Cancel = Callable[[], None]
AwaitReply = Callable[[Awaitable[bytes], Done], Cancel]
"""How a shell awaits: starts the awaitable, calls back once with its result, returns a cancel."""


class Input(Enum):
    """How far a conversation's input has come.

        OPEN -> ENDED -> FLUSHED
        OPEN -> STOPPED -> ENDED -> FLUSHED

    An end of input outranks a stop: what it completes is still answered.
    """

    OPEN = auto()
    """More may come."""
    STOPPED = auto()
    """The service ends: nothing more is taken."""
    ENDED = auto()
    """The peer sends no more; what is held back for its next bytes is still to be answered."""
    FLUSHED = auto()
    """Nothing is held back any more either."""


# Read for each chunk: by the Enum's name it takes seven times as long (CPython 3.11).
_OPEN, _STOPPED, _ENDED, _FLUSHED = Input
_FINISHED: Final = Outcome.FINISHED

_VERDICTS: Final = {MessageTooLong: Outcome.TOO_LONG, MalformedFrame: Outcome.MALFORMED}


class Conversation(ABC):
    """What a shell sees, whatever the framing.

    Attributes:
        outcome: how the conversation ended, once it is decided and every reply has been taken.
        error: what ended it, if something went wrong.
        wants_input: more input could be used now, and there is nothing else to do: `replies` has
            nothing until input comes, or a reply that is awaited.
        incomplete: bytes of a message whose end has not come.
        awaiting: a reply is still awaited, so the peer has every reason to be silent.
    """

    incomplete = 0
    awaiting = False

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.wants_input = True
        self._chunks: deque[bytes] = deque()
        self._input = _OPEN

    def receive(self, data: bytes) -> None:
        """Take a chunk of input."""
        self._chunks.append(data)
        self.wants_input = False

    @abstractmethod
    def exchange(self, data: bytes, until: float = inf, seconds: Clock = monotonic) -> bytes:
        """Take a chunk and return the next bytes to send, as `receive` and `replies` do.

        Only while `wants_input`: there is nothing to reply before it then, nor to decide.
        """

    def end_of_input(self) -> None:
        """Note that the peer sends no more. May be called twice."""
        if self._input is not _FLUSHED:
            self._input = _ENDED
            self.wants_input = False

    def stop(self) -> None:
        """Note that the service ends: what was received is answered, and no more."""
        if self._input is _OPEN:
            self._input = _STOPPED
            self.wants_input = False

    @abstractmethod
    def replies(self, until: float = inf, seconds: Clock = monotonic) -> bytes:
        """Return the next bytes to send, about a batch at most.

        Args:
            until: when the shell wants to do something else; there are fewer bytes then.
            seconds: the clock of that.

        Returns:
            The bytes; b"" if there are none now, or none yet.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Give up: the peer is gone."""


class StreamConversation(Conversation):
    """Every chunk is answered at once; there are no messages.

    Args:
        transform: opens the stream; it and its stream raise only `TransformError`.
    """

    def __init__(self, transform: IStreamTransform) -> None:
        super().__init__()
        try:
            self._stream = transform.open_stream()
        except TransformError as error:
            self._fail(error)

    @property
    def sole(self) -> tuple[Callable[[bytes], object], int] | None:
        """What answers a chunk while input is wanted, where that is one call, and its most bytes.

        A shell that calls it in place of `exchange` hands `settle` any result that is not a reply.
        """
        return getattr(self._stream, "sole", None)

    def exchange(self, data: bytes, until: float = inf, seconds: Clock = monotonic) -> bytes:
        # As `receive` and `replies` do where no chunk is left and the input is open.
        try:
            return self._stream.feed(data)
        except TransformError as error:
            return self._fail(error)

    def settle(self, started: float, result: object, error: BaseException | None = None) -> bytes:
        """Return the bytes to send after a call of `sole`; it may be the end."""
        stream: Any = self._stream
        output: bytes | TransformError = stream.settle(started, result, error)
        return output if isinstance(output, bytes) else self._fail(output)

    def replies(self, until: float = inf, seconds: Clock = monotonic) -> bytes:
        if self.outcome is not None:
            return b""
        try:
            while self._chunks:
                if output := self._stream.feed(self._chunks.popleft()):
                    return output
            if self._input is _ENDED:
                output = self._stream.finish()
                self._end(_FINISHED)
                return output
            if self._input is _STOPPED:
                self._end(Outcome.STOPPED)
            else:
                self.wants_input = True
        except TransformError as error:
            return self._fail(error)
        return b""

    def cancel(self) -> None:
        if self.outcome is None:
            self._end(Outcome.DISCONNECTED)

    def _fail(self, error: TransformError) -> bytes:
        """End, and return the bytes that a failed call yields: none."""
        # It is kept until the connection is gone; its frames, with what they hold, must not be.
        drop_tracebacks(error)
        self._end(Outcome.FAILED, error)
        return b""

    def _end(self, outcome: Outcome, error: Exception | None = None) -> None:
        self.outcome, self.error = outcome, error
        self.wants_input = False


class _Awaited:
    """The place in the queue of one reply, in request order."""

    __slots__ = ("cancel", "result", "trailer", "void")

    def __init__(self, trailer: bytes, result: bytes | TransformError | None = None) -> None:
        self.trailer = trailer
        self.result = result
        self.cancel: Cancel | None = None
        self.void = False


class MessageConversation(Conversation):
    """A framer splits the input into messages; each is answered, in order.

    Args:
        transform: answers a message with bytes or an awaitable; raises only `TransformError`.
        on_ready: called when an awaited reply has come, so that `replies` may have some.
        window: replies that may be awaited at once.
        joined: bytes of whole lines that one call may answer, because the reply to all of them is
            the same as theirs together. 0 if it is not, or if the messages are not lines.
    """

    def __init__(
        self,
        framer: IFramer,
        transform: ITransform,
        *,
        await_reply: AwaitReply,
        on_ready: Callable[[], None],
        window: int = ASYNC_WINDOW,
        joined: int = 0,
    ) -> None:
        super().__init__()
        self._framer = framer
        self._transform = transform.transform
        self._await_reply = await_reply
        self._on_ready = on_ready
        self._window = window
        self._joined = joined
        self._messages: Iterator[tuple[bytes, bytes]] | None = None
        # The replies from the first awaited one on. Invariant: as long as it is not empty, every
        # reply goes through it, and so all are in request order.
        self._queue: deque[_Awaited] = deque()
        # How it ends, once that is settled: no more messages are taken. It becomes the outcome once
        # the replies that are owed have been taken.
        self._verdict: Outcome | None = None
        # Invariant: `replies` is not entered again. An awaitable that has its result at once, or is
        # cancelled, calls back while it runs; `replies` itself finds the result then.
        self._replying = False

    @property
    def incomplete(self) -> int:  # type: ignore[override] # nobody writes it
        return self._framer.held

    @property
    def awaiting(self) -> bool:  # type: ignore[override]
        return any(place.result is None for place in self._queue)

    def exchange(self, data: bytes, until: float = inf, seconds: Clock = monotonic) -> bytes:
        whole = len(data) <= self._joined and data.endswith(b"\n")
        if whole and not (self._framer.held or self._queue):
            try:
                output = self._transform(data)
                if isinstance(output, bytes):
                    return output
            except TransformError as error:
                # The replies before the line that failed are owed: once more, one by one.
                drop_tracebacks(error)
        self._chunks.append(data)
        return self.replies(until, seconds)

    def replies(self, until: float = inf, seconds: Clock = monotonic) -> bytes:
        output: list[bytes] = []
        self._replying = True
        try:
            self._answer(output, self._take_awaited(output), until, seconds)
            # An awaitable may have had its result at once.
            while not output and self._has_reply():
                self._answer(output, self._take_awaited(output), until, seconds)
        except (FramingError, TransformError) as error:
            # The replies after a failed one can never be sent: they are in order or not at all. So
            # this failure counts, even where messages after it have settled on another end.
            self._abandon()
            self._verdict = None
            self._fail(error)
        finally:
            self._replying = False
        if not self._queue:
            self.outcome = self._verdict
        self.wants_input = (
            self._verdict is None
            and self._input is _OPEN
            and self._messages is None
            and not self._chunks
            and not self._has_reply()
        )
        return b"".join(output)

    def cancel(self) -> None:
        self._abandon()
        self._decide(Outcome.DISCONNECTED)
        self.outcome = self._verdict
        self.wants_input = False

    def _has_reply(self) -> bool:
        """Whether the next awaited reply has come."""
        return bool(self._queue) and self._queue[0].result is not None

    def _abandon(self) -> None:
        """Cancel whatever is still awaited."""
        while self._queue:
            place = self._queue.pop()
            place.void = True
            if place.cancel is not None:
                place.cancel()

    def _decide(self, verdict: Outcome) -> None:
        """Settle how this ends; the first verdict stands, and no more messages are taken."""
        if self._verdict is None:
            self._verdict = verdict
            self._messages = None
            self._chunks.clear()

    def _fail(self, error: FramingError | TransformError) -> None:
        """Settle on an end with an error; the replies before it are still sent."""
        # It is kept until the connection is gone; its frames, with what they hold, must not be.
        drop_tracebacks(error)
        self.error = error
        self._decide(_VERDICTS.get(type(error), Outcome.FAILED))

    def _take_awaited(self, output: list[bytes]) -> int:
        """Move what has come, in order, from the queue to the output; return its size."""
        size = 0
        while self._has_reply() and size < OUTPUT_BATCH:
            first = self._queue.popleft()
            if isinstance(first.result, TransformError):
                raise first.result
            assert first.result is not None
            output.append(self._framer.wrap(first.result, first.trailer))
            size += len(output[-1])
        return size

    def _answer(self, output: list[bytes], size: int, until: float, seconds: Clock) -> None:
        """Answer messages until a batch or the window is full, or time or input is used up."""
        try:
            while size < OUTPUT_BATCH and len(self._queue) < self._window and self._has_messages():
                size = self._answer_chunk(output, size, until, seconds)
                if seconds() > until:
                    return
        except (FramingError, TransformError) as error:
            self._fail(error)

    def _answer_chunk(self, output: list[bytes], size: int, until: float, seconds: Clock) -> int:
        """Answer the messages of one chunk, as far as there is room; return the output's size."""
        wrap, transform, queue = self._framer.wrap, self._transform, self._queue
        assert self._messages is not None
        for message, trailer in self._messages:
            reply = transform(message)
            if isinstance(reply, bytes) and not queue:
                # A reply of no bytes does not count: a batch is over only if it has something.
                if wrapped := wrap(reply, trailer):
                    output.append(wrapped)
                    size += len(wrapped) + _MESSAGE_COST
            else:
                self._enqueue(reply, trailer)
            if self._framer.one_message:
                self._decide(Outcome.ANSWERED)
                return size
            # The clock is asked for each message: nobody knows what the next one costs.
            if size >= OUTPUT_BATCH or len(queue) >= self._window or seconds() > until:
                return size
        self._messages = None
        return size

    def _has_messages(self) -> bool:
        """Find where the next messages come from; settle the outcome after the last ones."""
        if self._messages is None and self._verdict is None:
            if self._chunks:
                self._messages = iter(self._framer.feed(self._chunks.popleft()))
            elif self._input is _ENDED:
                self._input = _FLUSHED
                self._messages = iter(self._framer.finish())
            elif self._input is _FLUSHED:
                self._decide(_FINISHED)
            elif self._input is _STOPPED:
                self._decide(Outcome.STOPPED)
        return self._messages is not None

    def _enqueue(self, reply: bytes | Awaitable[bytes], trailer: bytes) -> None:
        """Put a reply in its place after those that are still awaited."""
        if isinstance(reply, bytes):
            self._queue.append(_Awaited(trailer, reply))
            return
        place = _Awaited(trailer)
        self._queue.append(place)
        cancel = self._await_reply(reply, partial(self._settle, place))
        if place.result is None:
            place.cancel = cancel

    def _settle(self, place: _Awaited, result: bytes | TransformError) -> None:
        """Take what an awaitable gave, or the error that it raised."""
        place.cancel, place.result = None, result
        if not place.void and not self._replying:
            self._on_ready()
