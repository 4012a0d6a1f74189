"""One TCP conversation without its transport: bytes in, replies and an outcome out.

A shell feeds a conversation with what arrives, takes the replies when it can send them, and closes
when there is an outcome and nothing is left to take. This module does no I/O, holds no clock and
never imports Twisted.

Bounds: a conversation keeps the chunks it was given until their replies are taken, at most
`Limits.async_window` replies that are still awaited, and whatever the framer holds. A shell that
stops reading while `wants_input` is false keeps all of that small.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from uppercase.core.events import Outcome
from uppercase.errors import (
    FramingError,
    MalformedFrame,
    MessageTooLong,
    TransformError,
    let_go,
)
from uppercase.interfaces import IFramer, IStreamTransform, ITransform
from uppercase.limits import ASYNC_WINDOW, MESSAGE_COST, OUTPUT_BATCH

__all__ = [
    "AwaitReply",
    "Cancel",
    "Conversation",
    "Done",
    "MessageConversation",
    "StreamConversation",
]

Done = Callable[["bytes | TransformError"], None]
Cancel = Callable[[], None]
AwaitReply = Callable[[Awaitable[bytes], Done], Cancel]
"""How a shell awaits: starts the awaitable, calls back once with its result, gives a cancel."""


class Conversation(Protocol):
    """What a shell sees.

    Attributes:
        outcome: how the conversation ended, once it is decided and every reply has been taken.
        error: what ended it, where something went wrong.
    """

    outcome: Outcome | None
    error: Exception | None

    @property
    def wants_input(self) -> bool:
        """Whether more input could be used now; a shell stops reading while it is false."""

    @property
    def awaiting(self) -> bool:
        """Whether a reply is still awaited: the peer has every reason to be silent."""

    def receive(self, data: bytes) -> None:
        """Take a chunk of input."""

    def end_of_input(self) -> None:
        """Take note that the peer sends no more. May be called twice."""

    def stop(self) -> None:
        """Take note that the service ends: what was received is answered, and no more."""

    def replies(self) -> bytes:
        """Return the next bytes to send, about a batch at the most; b"" if there are none now."""

    def cancel(self) -> None:
        """Give up: the peer is gone."""


class StreamConversation:
    """Every chunk is answered at once; there are no messages.

    Args:
        transform: opens the stream; it and its stream raise only `TransformError`.
    """

    def __init__(self, transform: IStreamTransform) -> None:
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._stopped = False
        try:
            self._stream = transform.open_stream()
        except TransformError as error:
            self.outcome, self.error = Outcome.FAILED, error

    @property
    def wants_input(self) -> bool:
        return not (self._chunks or self._ended or self._stopped) and self.outcome is None

    @property
    def awaiting(self) -> bool:
        return False

    def receive(self, data: bytes) -> None:
        self._chunks.append(data)

    def end_of_input(self) -> None:
        self._ended = True

    def stop(self) -> None:
        self._stopped = True

    def replies(self) -> bytes:
        if self.outcome is not None:
            return b""
        try:
            while self._chunks:
                output = self._stream.feed(self._chunks.popleft())
                if output:
                    return output
            if self._ended:
                output = self._stream.finish()
                self.outcome = Outcome.FINISHED
                return output
            if self._stopped:
                self.outcome = Outcome.STOPPED
        except TransformError as error:
            let_go(error)
            self.outcome, self.error = Outcome.FAILED, error
        return b""

    def cancel(self) -> None:
        self._chunks.clear()
        self.outcome = self.outcome or Outcome.DISCONNECTED


class _Awaited:
    """The place in the queue of one reply, in request order."""

    __slots__ = ("cancel", "result", "trailer", "void")

    def __init__(self, trailer: bytes, result: bytes | TransformError | None = None) -> None:
        self.trailer = trailer
        self.result = result
        self.cancel: Cancel | None = None
        self.void = False


class MessageConversation:
    """A framer splits the input into messages; each is answered, in order.

    Args:
        framer: this connection's framing.
        transform: answers a message with bytes or an awaitable; raises only `TransformError`.
        await_reply: how the shell awaits.
        on_ready: called when an awaited reply has come, so that `replies` may have some.
        window: replies that may be awaited at once.
    """

    def __init__(
        self,
        framer: IFramer,
        transform: ITransform,
        *,
        await_reply: AwaitReply,
        on_ready: Callable[[], None],
        window: int = ASYNC_WINDOW,
    ) -> None:
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self._framer = framer
        self._transform = transform.transform
        self._await_reply = await_reply
        self._on_ready = on_ready
        self._window = window
        self._chunks: deque[bytes] = deque()
        self._messages: Iterator[tuple[bytes, bytes]] | None = None
        self._queue: deque[_Awaited] = deque()
        self._ended = False
        self._stopped = False
        self._flushed = False
        self._busy = False
        # What will be the outcome when the queue is empty; no message is taken any more.
        self._verdict: Outcome | None = None

    @property
    def wants_input(self) -> bool:
        return (
            self._messages is None
            and not self._chunks
            and not self._ended
            and not self._stopped
            and self._verdict is None
            and len(self._queue) < self._window
        )

    @property
    def awaiting(self) -> bool:
        return any(place.result is None for place in self._queue)

    def receive(self, data: bytes) -> None:
        if self._verdict is None:
            self._chunks.append(data)

    def end_of_input(self) -> None:
        self._ended = True

    def stop(self) -> None:
        self._stopped = True

    def replies(self) -> bytes:
        output: list[bytes] = []
        self._busy = True
        try:
            self._answer(output, self._take_awaited(output))
            # An awaitable may have had its result at once.
            while not output and self._queue and self._queue[0].result is not None:
                self._answer(output, self._take_awaited(output))
        except (FramingError, TransformError) as error:
            # The replies behind a failed one can never be sent: they are in order or not at all.
            self._abandon()
            self._verdict = None
            self._fail(error)
        finally:
            self._busy = False
        if self._verdict is not None and not self._queue:
            self.outcome = self._verdict
        return b"".join(output)

    def cancel(self) -> None:
        self._abandon()
        self._decide(Outcome.DISCONNECTED)
        self.outcome = self._verdict

    def _abandon(self) -> None:
        """Cancel whatever is still awaited."""
        while self._queue:
            place = self._queue.pop()
            place.void = True
            if place.cancel is not None:
                place.cancel()

    def _decide(self, verdict: Outcome) -> None:
        """Settle how this ends; the first verdict stands, and no further message is taken."""
        if self._verdict is None:
            self._verdict = verdict
            self._messages = None
            self._chunks.clear()

    def _fail(self, error: FramingError | TransformError) -> None:
        """Settle on an end with an error; the replies before it are still sent."""
        # Kept until the connection is gone: its frames, with what they hold, must not be.
        let_go(error)
        if self._verdict is None:
            self.error = error
        if isinstance(error, MessageTooLong):
            self._decide(Outcome.TOO_LONG)
        elif isinstance(error, MalformedFrame):
            self._decide(Outcome.MALFORMED)
        else:
            self._decide(Outcome.FAILED)

    def _take_awaited(self, output: list[bytes]) -> int:
        """Move what has come, in order, from the queue into the output; return its size."""
        size = 0
        while self._queue and self._queue[0].result is not None and size < OUTPUT_BATCH:
            first = self._queue.popleft()
            if isinstance(first.result, TransformError):
                raise first.result
            assert first.result is not None
            output.append(self._framer.wrap(first.result, first.trailer))
            size += len(output[-1])
        return size

    def _answer(self, output: list[bytes], size: int) -> None:
        """Answer messages until a batch is full, the window is, or the input is used up."""
        try:
            while size < OUTPUT_BATCH and len(self._queue) < self._window and self._has_messages():
                size = self._answer_chunk(output, size)
        except (FramingError, TransformError) as error:
            self._fail(error)

    def _answer_chunk(self, output: list[bytes], size: int) -> int:
        """Answer the messages of one chunk, as far as there is room; return the output's size."""
        wrap, transform, queue = self._framer.wrap, self._transform, self._queue
        assert self._messages is not None
        for message, trailer in self._messages:
            reply = transform(message)
            if isinstance(reply, bytes) and not queue:
                # A reply of no bytes does not count: a batch is over only if it has something.
                if wrapped := wrap(reply, trailer):
                    output.append(wrapped)
                    size += len(wrapped) + MESSAGE_COST
            else:
                self._enqueue(reply, trailer)
            if self._framer.one_message:
                self._decide(Outcome.ANSWERED)
                return size
            if size >= OUTPUT_BATCH or len(queue) >= self._window:
                return size
        self._messages = None
        return size

    def _has_messages(self) -> bool:
        """Find where the next messages come from; settles the outcome behind the last ones."""
        if self._messages is None and self._verdict is None:
            if self._chunks:
                self._messages = iter(self._framer.feed(self._chunks.popleft()))
            elif self._ended and not self._flushed:
                self._flushed = True
                self._messages = iter(self._framer.finish())
            elif self._ended:
                self._decide(Outcome.FINISHED)
            elif self._stopped:
                self._decide(Outcome.STOPPED)
        return self._messages is not None

    def _enqueue(self, reply: bytes | Awaitable[bytes], trailer: bytes) -> None:
        """Return a reply its place behind those that are still awaited."""
        if isinstance(reply, bytes):
            self._queue.append(_Awaited(trailer, reply))
            return
        place = _Awaited(trailer)
        self._queue.append(place)

        def done(result: bytes | TransformError) -> None:
            place.cancel, place.result = None, result
            if not place.void and not self._busy:
                self._on_ready()

        cancel = self._await_reply(reply, done)
        if place.result is None:
            place.cancel = cancel
