"""A decorated function or class is a plugin, and stays what it is."""

from __future__ import annotations

import base64
import copy
import inspect
import pickle
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from threading import get_ident
from typing import Any, Literal, cast
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.plugin import IPlugin
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer
from zope.interface.verify import verifyObject

from uppercase import stream_transform, transform
from uppercase.errors import BadArgument, PluginError, TransformError
from uppercase.interfaces import IStreamTransform, ITransform, ITransformPlugin, ITransformStream
from uppercase.plugins import adopt
from uppercase.plugins.declared import DeclaredTransform, Kind


@transform(summary="Shift letters by a fixed distance")
def caesar(text: str, *, shift: int = 13) -> str:
    """Not the summary."""
    return "".join(chr(ord(c) + shift) for c in text)


@transform(streaming=True)
def to_upper(text: str) -> str:
    """Upper case.

    And more.
    """
    return text.upper()


@transform
def flip(data: bytes) -> bytes:
    return data[::-1]


@transform(name="mark", streaming=True)
class Mark:
    """Put a mark after each letter a."""

    def __init__(self, *, mark: Literal["!", "?"] = "!") -> None:
        self.mark = mark

    def __call__(self, text: str) -> str:
        return text.replace("a", f"a{self.mark}")


@stream_transform
class PairSwap:
    """Swap the letters of each pair."""

    def __init__(self, *, end: str = "") -> None:
        if end == "bad":
            raise ValueError("end must not be bad")
        if end == "mute":
            raise ValueError
        self.held = ""
        self.end = end

    def feed(self, text: str) -> str:
        text = self.held + text
        even = len(text) - len(text) % 2
        self.held = text[even:]
        return "".join(text[i + 1] + text[i] for i in range(0, even, 2))

    def finish(self) -> str:
        return self.held + self.end


@stream_transform(name="b64", summary="Base64")
class Base64Encode:
    def __init__(self) -> None:
        self.held = b""

    def feed(self, data: bytes) -> bytes:
        data = self.held + data
        whole = len(data) - len(data) % 3
        self.held = data[whole:]
        return base64.b64encode(data[:whole])

    def finish(self) -> bytes:
        return base64.b64encode(self.held)


# A type checker takes a decorated class for the class alone, and refuses wrong declarations.
mark: Any = Mark
pair_swap: Any = PairSwap
base64_encode: Any = Base64Encode
untyped: Any = transform
untyped_stream: Any = stream_transform


def upper(text: str) -> str:
    return text.upper()


FAST = adopt(upper, name="fast", streaming=True, ascii=bytes.upper)

DECLARED: list[Any] = [caesar, to_upper, flip, Mark, PairSwap, Base64Encode]


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
def test_what_is_declared_is_a_plugin_and_a_transform(declared: Any) -> None:
    assert verifyObject(ITransformPlugin, declared)
    assert verifyObject(IPlugin, declared)
    wanted = IStreamTransform if declared.streaming else ITransform
    assert verifyObject(wanted, declared)
    assert verifyObject(wanted, declared.build())
    assert IStreamTransform.providedBy(declared) == declared.streaming
    if declared.streaming:
        assert verifyObject(ITransformStream, declared.open_stream())


def test_a_decorated_function_stays_callable_as_the_function_it_is() -> None:
    assert caesar("abc", shift=1) == "bcd"
    assert flip(b"ab") == b"ba"
    assert {caesar: "hashable"}[caesar]
    assert caesar.__name__ == "caesar"  # type: ignore[attr-defined]
    assert caesar.__doc__ == "Not the summary."
    assert inspect.unwrap(caesar)("abc", shift=1) == "bcd"


def test_a_decorated_class_stays_callable_as_the_class_it_is() -> None:
    assert Mark(mark="?")("banana") == "ba?na?na?"
    stream = PairSwap(end=".")
    assert stream.feed("abc") + stream.finish() == "bac."


def test_name_summary_kind_and_parameters_come_from_the_function() -> None:
    assert (caesar.name, caesar.summary) == ("caesar", "Shift letters by a fixed distance")
    assert (to_upper.name, to_upper.summary) == ("to-upper", "Upper case.")
    assert (pair_swap.name, base64_encode.name, mark.name) == ("pair-swap", "b64", "mark")
    assert flip.summary == ""
    assert (to_upper.streaming, flip.streaming, pair_swap.streaming) == (True, False, True)
    assert caesar.kind is Kind.TEXT
    assert flip.kind is Kind.BYTES
    assert [parameter.describe() for parameter in caesar.parameters] == [
        "shift: whole number, default 13"
    ]


def test_a_built_transform_has_its_arguments_and_the_object_itself_the_defaults() -> None:
    assert caesar.build(shift=1).transform(b"abc") == b"bcd"
    assert caesar.transform(b"abc") == b"nop"
    assert mark.build(mark="?").transform(b"aba") == b"a?ba?"
    assert pair_swap.build(end=".").transform(b"abc") == b"bac."


@pytest.mark.parametrize("arguments", [{"shfit": 1}, {"shift": 1, "other": 2}])
def test_an_unknown_argument_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(BadArgument):
        caesar.build(**arguments)


def test_a_value_that_the_class_refuses_is_refused_before_any_message() -> None:
    with pytest.raises(BadArgument, match="end must not be bad"):
        pair_swap.build(end="bad")
    with pytest.raises(BadArgument, match=r"^ValueError$"):
        pair_swap.build(end="mute")


def test_an_argument_without_a_default_must_be_given() -> None:
    @transform
    def end(text: str, *, mark: str) -> str:
        return text + mark

    assert end.build(mark="!").transform(b"a") == b"a!"
    with pytest.raises(BadArgument, match="'mark' is missing"):
        end.transform(b"a")


def test_bytes_that_are_not_utf_8_pass_through_text_unchanged() -> None:
    assert to_upper.transform(b"a\xff\xc3b\xed\xa0\x80") == b"A\xff\xc3B\xed\xa0\x80"


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    for start, end in pairwise(edges):
        yield data[start:end]


pieces = st.lists(
    st.sampled_from(["ß", "é", "a", "ŉ", "€", "𐐨", "\ufeff"]).map(str.encode)
    | st.sampled_from([b"\xc3", b"\xe2\x82", b"\xf0\x9f", b"\xed\xa0\x80", b"\xff", b"\x80"])
).map(b"".join)
streaming = st.sampled_from([to_upper, FAST, mark.build(mark="?"), PairSwap, Base64Encode])


@settings(deadline=None)  # The machine may be busy.
@given(subject=streaming, data=pieces, places=st.lists(st.integers(0, 60)))
@example(subject=to_upper, data=b"\xf0\x9f", places=[1])
def test_a_stream_gives_the_same_bytes_wherever_it_is_cut(
    subject: Any, data: bytes, places: list[int]
) -> None:
    stream = subject.open_stream()
    fed = b"".join(stream.feed(piece) for piece in cut(data, places)) + stream.finish()
    assert fed == subject.transform(data)


def test_a_function_may_make_the_streams() -> None:
    declared = untyped_stream(swapping)
    assert declared.name == "swapping"
    assert declared.build(end="!").transform(b"abc") == b"bac!"


def test_streams_share_no_state() -> None:
    first, second = pair_swap.open_stream(), pair_swap.open_stream()
    assert first.feed(b"a") == b""
    assert second.feed(b"bc") == b"cb"
    assert first.finish() + second.finish() == b"a"


def test_text_is_cut_between_characters_and_never_held_longer() -> None:
    seen: list[str] = []

    @transform(streaming=True)
    def note(text: str) -> str:
        seen.append(text)
        return text

    stream = note.open_stream()
    assert [stream.feed(bytes([byte])) for byte in "a€b".encode()] == [
        b"a", b"", b"", "€".encode(), b"b"
    ]  # fmt: skip
    assert stream.feed(b"\xe2\x82") == b""
    assert stream.finish() == b"\xe2\x82"
    assert seen == ["a", "€", "b", "\udce2\udc82"]


def test_pure_ascii_takes_the_faster_way_unless_a_character_is_incomplete() -> None:
    def ascii_way(data: bytes, *, mark: str) -> bytes:
        assert data.isascii()
        return b"<" + data + mark.encode()

    @transform(streaming=True, ascii=ascii_way)
    def tag(text: str, *, mark: str) -> str:
        return text + mark

    built: Any = tag.build(mark="!")
    assert built.transform(b"a") == b"<a!"
    assert built.transform("é".encode()) == "é!".encode()
    stream = built.open_stream()
    assert stream.feed(b"a") == b"<a!"
    assert stream.feed(b"\xc3") == b""
    assert stream.feed(b"a") == b"\xc3a!"
    assert stream.feed(b"a") == b"<a!"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (b"abc", "transform 'wrong' failed: it returned bytes; str is expected"),
        (None, "transform 'wrong' failed: it returned NoneType; str is expected"),
        ("\ud800", "transform 'wrong' failed: its result holds '\\ud800', which UTF-8 cannot hold"),
    ],
)
def test_a_wrong_result_is_named(result: Any, said: str) -> None:
    @transform(streaming=True)
    def wrong(text: str) -> str:
        return result  # type: ignore[no-any-return]

    with pytest.raises(TransformError) as caught:
        wrong.transform(b"a")
    assert str(caught.value) == said
    with pytest.raises(TransformError):
        wrong.open_stream().feed(b"a")


@pytest.mark.parametrize("made", [bytes, bytearray, memoryview])
def test_any_buffer_is_bytes(made: Callable[[bytes], Any]) -> None:
    @transform
    def copy(data: bytes) -> bytes:
        return made(data)  # type: ignore[no-any-return]

    reply = copy.transform(b"a\xff")
    assert reply == b"a\xff"
    assert type(reply) is bytes


def test_what_a_stream_returns_is_checked() -> None:
    @untyped_stream
    class Wrong:
        def feed(self, data: bytes) -> str:
            return "a"

        def finish(self) -> None: ...

    wrong = cast(Any, Wrong)
    with pytest.raises(TransformError, match="it returned str; bytes is expected"):
        wrong.open_stream().feed(b"a")
    with pytest.raises(TransformError, match="it returned NoneType; bytes is expected"):
        wrong.open_stream().finish()


def awaited(reply: bytes | Awaitable[bytes]) -> Deferred[bytes]:
    assert not isinstance(reply, bytes)

    async def wait() -> bytes:
        return await reply

    return ensureDeferred(wait())


async def test_an_async_function_gives_an_awaitable_of_bytes() -> None:
    waiting: Deferred[str] = Deferred()

    @transform
    async def slow(text: str) -> str:
        return text + await waiting

    reply = awaited(slow.transform(b"a\xff"))
    assert not reply.called
    waiting.callback("!")
    assert await reply == b"a\xff!"


async def test_an_async_function_may_have_a_faster_way_too() -> None:
    @untyped(ascii=bytes.lower)  # type: ignore[untyped-decorator]
    async def slow(text: str) -> str:
        return text.upper()

    replies = [await awaited(slow.transform(data)) for data in (b"A", b"A\xff")]
    assert replies == [b"a", b"A\xff"]


async def test_a_function_may_return_a_deferred() -> None:
    @transform
    def later(text: str) -> Deferred[str]:
        return succeed(text.upper())

    assert await awaited(later.transform(b"a")) == b"A"


def test_an_object_with_an_async_call_may_await_anything_of_asyncio() -> None:
    class Lookup:
        async def __call__(self, text: str) -> str:
            return text

    lookup = untyped(Lookup())
    assert lookup.is_async
    assert inspect.iscoroutinefunction(lookup.build().transform)


def test_what_is_decorated_can_be_sent_to_a_pool_of_processes() -> None:
    for declared in (caesar, Mark, pair_swap):
        assert pickle.loads(pickle.dumps(declared)) is declared
        assert copy.deepcopy(declared) is declared


def test_what_has_no_name_has_that_of_what_it_is_made_of() -> None:
    class LoudCall:
        """Say it loud."""

        def __call__(self, text: str) -> str:
            return text.upper()

    made = [adopt(LoudCall()), adopt(partial(caesar, shift=1)), adopt(partial(upper))]
    assert [(each.name, each.summary) for each in made] == [
        ("loud-call", "Say it loud."),
        ("caesar", "Not the summary."),
        ("upper", ""),
    ]
    assert made[1].build().transform(b"a") == b"b"


async def test_a_wrong_result_of_an_async_function_is_named() -> None:
    @untyped  # type: ignore[untyped-decorator]
    async def wrong(text: str) -> bytes:
        return b"a"

    with pytest.raises(TransformError, match="it returned bytes; str is expected"):
        await awaited(wrong.transform(b"a"))


async def test_a_blocking_function_runs_in_another_thread() -> None:
    threads: list[int] = []

    @transform(blocking=True)
    def slow(text: str, *, mark: str = "!") -> str:
        threads.append(get_ident())
        return text + mark

    assert await awaited(slow.transform(b"a\xff")) == b"a\xff!"
    assert threads != [get_ident()]


async def test_a_blocking_function_for_which_there_is_no_thread_fails_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the end of the reactor's pool waits for no thread that never began."""

    @transform(blocking=True)
    def slow(text: str) -> str:
        return text

    pool = ThreadPool(minthreads=0)
    pool.start()
    monkeypatch.setattr(reactor, "getThreadPool", lambda: pool)
    with monkeypatch.context() as patch:
        none = mock.Mock(side_effect=RuntimeError("can't start new thread"))
        patch.setattr(threading.Thread, "start", none)
        with pytest.raises(TransformError, match="'slow' failed: can't start new thread"):
            slow.transform(b"a")
    assert await awaited(slow.transform(b"a")) == b"a"
    pool.stop()


async def test_what_nobody_waits_for_any_more_has_no_turn_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients that ask much of what blocks, and go away, keep nobody else waiting."""
    begun, go_on = [], threading.Event()

    @transform(blocking=True)
    def slow(text: str) -> str:
        begun.append(text)
        go_on.wait(30)
        return text.upper()

    pool = ThreadPool(0, 1)
    pool.start()
    monkeypatch.setattr(reactor, "getThreadPool", lambda: pool)
    replies: list[Any] = [slow.transform(text) for text in (b"first", b"gone", b"last")]
    replies[1].addErrback(lambda failure: failure.trap(CancelledError))
    replies[1].cancel()
    go_on.set()
    came = [await awaited(replies[number]) for number in (0, 2)]
    pool.stop()
    assert (came, begun) == ([b"FIRST", b"LAST"], ["first", "last"])


def unannotated(text) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return ""


def wrongly_annotated(text: int) -> str:
    return ""


def no_parameter() -> str:
    return ""


def by_position(text: str, shift: int = 13) -> str:
    return ""


async def coroutine(text: str) -> str:
    return ""


def of_bytes(data: bytes, /) -> bytes:
    return data


def swapping(*, end: str = ".") -> pair_swap.__wrapped__:
    return PairSwap(end=end)


class Uncallable:
    pass


class NoFinish:
    def feed(self, text: str) -> str:
        return text


class NoFeed:
    def finish(self) -> str:
        return ""


class AsyncFinish(NoFinish):
    async def finish(self) -> str:
        return ""


class ByPosition(PairSwap.__wrapped__):  # type: ignore[misc, name-defined]
    def __init__(self, end: str = "") -> None: ...

    def __call__(self, text: str, shift: int) -> str:
        return text


class UnannotatedFeed:
    def feed(self, text):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
        return text

    def finish(self) -> str:
        return ""


class AsyncFeed:
    async def feed(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


@dataclass
class Positional:
    times: int

    def __call__(self, text: str) -> str:
        return text * self.times


WITHOUT_A_NAME = lambda text: text  # noqa: E731
WITHOUT_A_NAME.__annotations__ = {"text": str}


class ArgumentsOfItsOwn:
    def __call__(self, text: str, *, mark: str = "!") -> str:
        return text + mark


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: untyped(unannotated), "the message of unannotated has no annotation"),
        (lambda: untyped(wrongly_annotated), "is annotated int; annotate it `str` for text or"),
        (lambda: untyped(no_parameter), "no_parameter takes no message; give it one"),
        (
            lambda: untyped(by_position),
            "by position; arguments are keyword-only: write `*, shift: int",
        ),
        (lambda: untyped(Positional), "write `*, times: int`, or kw_only=True for a dataclass"),
        (lambda: untyped(lambda text: text), "has no annotation"),
        (lambda: untyped(of_bytes, name="Of Bytes"), "the name 'Of Bytes'; lower-case letters"),
        (lambda: untyped(WITHOUT_A_NAME), "has the name '<lambda>'; lower-case letters"),
        (lambda: untyped(coroutine, streaming=True), "is async and cannot be streaming"),
        (lambda: untyped(coroutine, blocking=True), "is async and cannot be blocking"),
        (
            lambda: untyped(of_bytes, streaming=True, blocking=True),
            "is blocking and cannot be streaming",
        ),
        (lambda: untyped(of_bytes, ascii=of_bytes), "of_bytes has ascii=, which is for text"),
        (lambda: untyped(Uncallable), "Uncallable has no __call__"),
        (lambda: untyped_stream(NoFinish), "NoFinish makes nothing with both feed and finish"),
        (lambda: untyped_stream(of_bytes), "of_bytes makes nothing with both feed and finish"),
        (lambda: untyped_stream(UnannotatedFeed), "the message of UnannotatedFeed.feed has no"),
        (lambda: untyped_stream(AsyncFeed), "AsyncFeed has async methods, and a stream cannot"),
        (lambda: untyped_stream(AsyncFinish), "AsyncFinish has async methods, and a stream"),
        (lambda: untyped_stream(NoFeed), "NoFeed makes nothing with both feed and finish"),
        (lambda: untyped_stream(ByPosition), "ByPosition takes 'end' by position"),
        (lambda: untyped(ByPosition), "ByPosition.__call__ takes 'shift' by position"),
        (lambda: adopt(pair_swap.__wrapped__()), "is not a transform; point at a function"),
        (lambda: untyped(upper, blocking=True, ascii=of_bytes), "upper has ascii=, which is for"),
        (lambda: untyped(ArgumentsOfItsOwn), "__call__ has arguments of its own; move them to"),
        (lambda: untyped(dict), "dict has no signature that can be read; wrap it in a function"),
        (lambda: untyped("shout"), "declare one of these; a name is given as name='shout'"),
        (lambda: untyped(3), "3 is neither a function nor a class; declare one of these"),
        (lambda: adopt(DeclaredTransform), "is a class, and an instance is the plugin; use"),
        (lambda: adopt(NoFinish, streaming=True), "is a stream class, which needs neither"),
        (lambda: adopt(NoFinish, ascii=of_bytes), "is a stream class, which needs neither"),
        (lambda: adopt(3), "3 is not a transform; point at a function"),
    ],
)
def test_a_wrong_declaration_says_what_to_write(declare: Callable[[], Any], said: str) -> None:
    with pytest.raises(PluginError) as caught:
        declare()
    assert said in str(caught.value)


@implementer(ITransform)
class ByHand:
    """Made by hand."""

    def __init__(self, *, times: int = 2) -> None:
        self.times = times

    def transform(self, message: bytes) -> bytes:
        return message * self.times


@implementer(IStreamTransform)
class StreamByHand(ByHand):
    def open_stream(self) -> ITransformStream:
        return cast(ITransformStream, PairSwap())


@implementer(ITransform)
class LaterByHand:
    async def transform(self, message: bytes) -> bytes:
        return message


def test_what_is_made_by_hand_streams_or_waits_as_it_says() -> None:
    for target in (ByHand, ByHand(), LaterByHand, LaterByHand(), StreamByHand, StreamByHand()):
        adopted: Any = adopt(target)
        is_stream = "Stream" in adopted.__name__
        assert IStreamTransform.providedBy(adopted) is is_stream
        assert IStreamTransform.providedBy(adopted.build()) is is_stream
        assert adopted.is_async is ("Later" in adopted.__name__)


def test_a_name_and_a_summary_that_are_given_are_taken() -> None:
    given: Any = {"name": "other", "summary": "Said here."}
    makers: list[Callable[..., Any]] = [transform(**given), partial(adopt, **given)]
    for made in [maker(of_bytes) for maker in makers] + [
        stream_transform(**given)(pair_swap.__wrapped__),
        adopt(pair_swap.__wrapped__, **given),
        adopt(ByHand, **given),
    ]:
        assert (made.name, made.summary) == ("other", "Said here.")


def test_adopting_makes_the_same_plugin_of_what_has_no_decorator() -> None:
    assert adopt(caesar, name="other") is cast(Any, caesar)
    assert adopt(of_bytes).name == "of-bytes"
    fast: Any = adopt(upper, ascii=lambda data: data.lower())
    assert [fast.transform(data) for data in (b"A", b"A\xff")] == [b"a", b"A\xff"]
    assert adopt(ByHand).build(times=3).transform(b"a") == b"aaa"
    assert adopt(ByHand).summary == "Made by hand."
    assert adopt(ByHand(times=1), name="once").build().transform(b"a") == b"a"
    stream_class = pair_swap.__wrapped__
    adopted: Any = adopt(stream_class, name="pairs")
    assert adopted.name == "pairs"
    assert adopted.open_stream().feed(b"ab") == b"ba"
    assert verifyObject(ITransformPlugin, adopt(ByHand))
