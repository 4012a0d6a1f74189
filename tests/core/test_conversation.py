"""One TCP conversation, fed by hand: order, endings, faults and bounds."""

from collections.abc import Awaitable, Generator, Iterator

import pytest
from zope.interface import implementer

from uppercase.core.conversation import Cancel, Done, MessageConversation, StreamConversation
from uppercase.core.events import Outcome
from uppercase.errors import FramingError, MalformedFrame, MessageTooLong, TransformError
from uppercase.interfaces import IFramer, IStreamTransform, ITransform, ITransformStream
from uppercase.limits import OUTPUT_BATCH


@implementer(IFramer)
class Letters:
    """A framing for tests: each byte is a message; `!` is malformed, `+` is too long."""

    def __init__(self, one_message: bool = False) -> None:
        self.one_message = one_message
        self.held = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        for value in data:
            if value == ord("!"):
                raise MalformedFrame("got '!', expected a letter")
            if value == ord("+"):
                raise MessageTooLong(1)
            yield bytes([value]), b"."

    def finish(self) -> Iterator[tuple[bytes, bytes]]:
        yield b"e", b""

    def wrap(self, reply: bytes, trailer: bytes) -> bytes:
        return reply + trailer


@implementer(ITransform)
class Uppercase:
    def transform(self, message: bytes) -> bytes:
        if message == b"x":
            raise TransformError("uppercase", "x is not accepted")
        return message.upper()


@implementer(ITransform)
class Later:
    """Lower-case letters are answered when a test says so, capitals at once."""

    def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
        return message if message.isupper() else Promise(message.upper())


class Promise:
    """Awaitable in name only: the shell of these tests looks at its value."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    def __await__(self) -> Generator[None, None, bytes]:
        yield
        return self.value


class Shell:
    """Awaits by hand and notes what a real shell would do."""

    def __init__(
        self,
        transform: ITransform,
        *,
        window: int = 3,
        framer: Letters | None = None,
    ) -> None:
        self.sent = b""
        self.largest = 0
        self.promises: dict[bytes, Done] = {}
        self.cancelled: list[bytes] = []
        self.conversation = MessageConversation(
            framer or Letters(),
            transform,
            await_reply=self._await,
            on_ready=self.pump,
            window=window,
        )

    def _await(self, awaitable: Awaitable[bytes], done: Done) -> Cancel:
        assert isinstance(awaitable, Promise)
        value = awaitable.value
        self.promises[value] = done

        def cancel() -> None:
            self.cancelled.append(value)
            del self.promises[value]

        return cancel

    def keep(self, value: bytes, result: bytes | TransformError | None = None) -> None:
        self.promises.pop(value)(value if result is None else result)

    def receive(self, data: bytes) -> None:
        self.conversation.receive(data)
        self.pump()

    def end_of_input(self) -> None:
        self.conversation.end_of_input()
        self.pump()

    def ended(self) -> Outcome | None:
        return self.conversation.outcome

    def pump(self) -> None:
        while output := self.conversation.replies():
            self.sent += output
            self.largest = max(self.largest, len(output))
            if self.conversation.wants_input:
                break


def test_messages_are_answered_in_order_with_their_trailers() -> None:
    shell = Shell(Uppercase())
    shell.receive(b"ab")
    shell.receive(b"c")
    assert shell.sent == b"A.B.C."
    assert shell.conversation.wants_input


def test_the_end_of_input_is_answered_and_ends_the_conversation() -> None:
    shell = Shell(Uppercase())
    shell.receive(b"a")
    shell.end_of_input()
    shell.end_of_input()
    assert shell.sent == b"A.E"
    assert shell.ended() is Outcome.FINISHED
    assert not shell.conversation.wants_input


@pytest.mark.parametrize(
    ("data", "outcome", "text"),
    [
        (b"ab!cd", Outcome.MALFORMED, "got '!', expected a letter"),
        (b"ab+cd", Outcome.TOO_LONG, "got a message, over the limit of 1 bytes (--max-length)"),
        (b"abxcd", Outcome.FAILED, "transform 'uppercase' failed: x is not accepted"),
    ],
)
def test_a_fault_ends_the_conversation_after_the_replies_before_it(
    data: bytes, outcome: Outcome, text: str
) -> None:
    shell = Shell(Uppercase())
    shell.receive(data)
    shell.receive(b"later")
    assert shell.sent == b"A.B."
    shell.conversation.cancel()
    assert shell.ended() is outcome
    assert str(shell.conversation.error) == text


def test_a_conversation_that_failed_keeps_no_frames() -> None:
    """They would hold its input, in a cycle, for as long as nobody collects garbage."""
    for letters in (b"a!", b"a+", b"ax"):
        shell = Shell(Uppercase())
        shell.receive(letters)
        assert shell.conversation.error is not None
        assert shell.conversation.error.__traceback__ is None


def test_one_message_conversations_are_over_after_the_first() -> None:
    shell = Shell(Uppercase(), framer=Letters(one_message=True))
    shell.receive(b"abc")
    assert shell.sent == b"A."
    assert shell.ended() is Outcome.ANSWERED


@pytest.mark.parametrize("streams", [False, True])
def test_an_end_of_input_outranks_a_stop(streams: bool) -> None:
    """What it completes is still answered."""
    conversation = StreamConversation(Stream()) if streams else Shell(Uppercase()).conversation
    conversation.receive(b"a")
    conversation.end_of_input()
    conversation.stop()
    assert not conversation.wants_input
    sent = b""
    while output := conversation.replies():
        sent += output
    assert sent == (b"AEND" if streams else b"A.E")
    assert conversation.outcome is Outcome.FINISHED


def test_a_stop_answers_what_was_received_and_no_more() -> None:
    for conversation in (StreamConversation(Stream()), Shell(Uppercase()).conversation):
        conversation.receive(b"a")
        conversation.stop()
        assert not conversation.wants_input
        assert conversation.replies().startswith(b"A")
        assert conversation.replies() == b""
        assert conversation.outcome is Outcome.STOPPED


def test_what_there_is_no_time_for_is_answered_later_before_more_is_wanted() -> None:
    conversation = Shell(Uppercase()).conversation
    conversation.receive(b"a")
    conversation.receive(b"b")
    for output in (b"A.", b"", b"B."):
        assert conversation.replies(0.0, lambda: 1.0) == output
        assert not conversation.wants_input
    conversation.end_of_input()
    assert conversation.replies(0.0, lambda: 1.0) == b""
    assert not conversation.wants_input
    assert conversation.replies() == b"E"


def test_awaited_replies_come_in_request_order_whatever_their_own() -> None:
    shell = Shell(Later(), window=5)
    shell.receive(b"aBcD")
    assert shell.sent == b""
    shell.keep(b"C")
    assert shell.sent == b""
    shell.keep(b"A")
    assert shell.sent == b"A.B.C.D."


def test_replies_that_come_at_once_need_no_further_input() -> None:
    """An asynchronous transform that does not wait for anything is served like any other."""
    sent = b""

    def at_once(awaitable: Awaitable[bytes], done: Done) -> Cancel:
        assert isinstance(awaitable, Promise)
        done(awaitable.value)
        return lambda: None

    def ready() -> None:
        raise AssertionError("whoever asks for replies has this one at once")

    conversation = MessageConversation(
        Letters(), Later(), await_reply=at_once, on_ready=ready, window=2
    )
    conversation.receive(b"abCd")
    while output := conversation.replies():
        sent += output
    assert sent == b"A.B.C.D."
    assert conversation.wants_input


def test_input_is_not_wanted_while_too_many_replies_are_awaited() -> None:
    """And no message behind them is begun."""
    shell = Shell(Later(), window=3)
    shell.receive(b"abcdefg")
    assert set(shell.promises) == {b"A", b"B", b"C"}
    assert not shell.conversation.wants_input
    shell.keep(b"A")
    assert set(shell.promises) == {b"B", b"C", b"D"}
    for value in (b"B", b"C", b"D", b"E", b"F", b"G"):
        shell.keep(value)
    assert shell.sent == b"A.B.C.D.E.F.G."
    assert shell.conversation.wants_input


def test_the_end_of_input_waits_for_what_is_awaited() -> None:
    shell = Shell(Later())
    shell.receive(b"a")
    shell.end_of_input()
    assert shell.ended() is None
    shell.keep(b"A")
    shell.keep(b"E")
    assert shell.sent == b"A.E"
    assert shell.ended() is Outcome.FINISHED


def test_a_fault_waits_for_the_replies_before_it() -> None:
    shell = Shell(Later())
    shell.receive(b"ab!")
    assert shell.ended() is None
    shell.keep(b"A")
    shell.keep(b"B")
    assert shell.sent == b"A.B."
    assert shell.ended() is Outcome.MALFORMED


def test_a_failed_reply_cancels_those_behind_it() -> None:
    shell = Shell(Later())
    shell.receive(b"abc")
    shell.keep(b"A")
    shell.keep(b"B", TransformError("later", "it is too late"))
    assert shell.sent == b"A."
    assert shell.cancelled == [b"C"]
    assert shell.ended() is Outcome.FAILED
    assert str(shell.conversation.error) == "transform 'later' failed: it is too late"


def test_a_failed_reply_counts_although_a_fault_comes_after_it() -> None:
    shell = Shell(Later())
    shell.receive(b"a!")
    shell.keep(b"A", TransformError("later", "it is too late"))
    assert shell.ended() is Outcome.FAILED
    assert str(shell.conversation.error) == "transform 'later' failed: it is too late"


def test_an_awaited_reply_that_the_framing_cannot_carry_ends_the_conversation() -> None:
    class Narrow(Letters):
        def wrap(self, reply: bytes, trailer: bytes) -> bytes:
            raise FramingError("it is too long")

    shell = Shell(Later(), framer=Narrow())
    shell.receive(b"ab")
    shell.keep(b"A")
    assert shell.cancelled == [b"B"]
    assert shell.ended() is Outcome.FAILED
    assert str(shell.conversation.error) == "it is too long"


def test_a_peer_that_leaves_cancels_what_is_awaited() -> None:
    shell = Shell(Later())
    shell.receive(b"aCb")
    shell.conversation.cancel()
    assert sorted(shell.cancelled) == [b"A", b"B"]
    assert shell.ended() is Outcome.DISCONNECTED
    assert not shell.conversation.wants_input


def test_output_is_made_in_batches() -> None:
    """Small messages with large replies do not fill the memory at once."""

    @implementer(ITransform)
    class Large:
        def transform(self, message: bytes) -> bytes:
            return message * OUTPUT_BATCH

    shell = Shell(Large())
    shell.conversation.receive(b"abc")
    assert len(shell.conversation.replies()) == OUTPUT_BATCH + 1
    assert not shell.conversation.wants_input
    assert len(shell.conversation.replies()) == OUTPUT_BATCH + 1
    assert len(shell.conversation.replies()) == OUTPUT_BATCH + 1
    assert shell.conversation.replies() == b""
    assert shell.conversation.wants_input


def test_what_was_awaited_leaves_in_batches_too() -> None:
    class Large(Later):
        def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
            return message * OUTPUT_BATCH if message.isupper() else super().transform(message)

    shell = Shell(Large(), window=9)
    shell.receive(b"aBCD")
    shell.keep(b"A")
    assert len(shell.sent) == len(b"A.") + 3 * (OUTPUT_BATCH + 1)
    assert shell.largest == len(b"A.") + OUTPUT_BATCH + 1


@implementer(IStreamTransform, ITransformStream)
class Stream:
    """Upper-cases; gives an ending; fails on x, and holds y back."""

    def transform(self, message: bytes) -> bytes:
        return self.feed(message) + self.finish()

    def open_stream(self) -> ITransformStream:
        return self

    def feed(self, data: bytes) -> bytes:
        if b"x" in data:
            raise TransformError("stream", "x is not accepted")
        return data.replace(b"y", b"").upper()

    def finish(self) -> bytes:
        return b"END"


def test_a_stream_answers_each_chunk_and_its_end() -> None:
    conversation = StreamConversation(Stream())
    assert conversation.wants_input
    conversation.receive(b"ab")
    assert conversation.replies() == b"AB"
    conversation.receive(b"y")
    conversation.receive(b"c")
    assert conversation.replies() == b"C", "what gives nothing yet holds up nothing"
    assert conversation.replies() == b""
    assert conversation.wants_input
    conversation.end_of_input()
    assert conversation.replies() == b"END"
    assert conversation.outcome is Outcome.FINISHED


def test_a_stream_that_fails_ends_the_conversation() -> None:
    conversation = StreamConversation(Stream())
    conversation.receive(b"ab")
    conversation.receive(b"x")
    assert conversation.replies() == b"AB"
    assert conversation.replies() == b""
    conversation.cancel()
    assert conversation.outcome is Outcome.FAILED
    assert isinstance(conversation.error, TransformError)


def test_a_peer_that_leaves_ends_a_stream() -> None:
    conversation = StreamConversation(Stream())
    conversation.receive(b"ab")
    conversation.cancel()
    assert conversation.replies() == b""
    assert conversation.outcome is Outcome.DISCONNECTED


def test_a_stream_that_cannot_be_opened_is_over_at_once() -> None:
    class Unopenable(Stream):
        def open_stream(self) -> ITransformStream:
            raise TransformError("stream", "no memory")

    conversation = StreamConversation(Unopenable())
    assert not conversation.wants_input
    assert conversation.outcome is Outcome.FAILED
