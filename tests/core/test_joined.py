"""Lines that are answered by one call of a transform: the same bytes as by a call for each."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from zope.interface import implementer

from uppercase import transform
from uppercase.core.conversation import MessageConversation
from uppercase.core.framing import make_framer
from uppercase.core.pipeline import Pipeline, Stage
from uppercase.interfaces import ITransform
from uppercase.registry import listing

LISTING = listing()


@transform(streaming=True)
def picky(text: str) -> str:
    """Upper-case, unless there is a q."""
    if "q" in text:
        raise ValueError("q")
    return text.upper()


@transform(streaming=True)
def grows(data: bytes) -> bytes:
    """Write letters three times."""
    return b"".join(bytes([each]) * (3 if each > 32 else 1) for each in data)


@transform(streaming=True)
def spells(text: str) -> str:
    """Name the ends of lines."""
    return text.replace("\n", "LF")


@transform(streaming=True)
def ends_refused(data: bytes) -> bytes:
    """Refuse the ends of lines."""
    if b"\n" in data:
        raise ValueError("a line's end")
    return data


@transform
def whole(text: str) -> str:
    """Upper-case what needs to be whole."""
    return text.upper()


def chain(*transforms: Any, max_output: int = 1 << 20) -> Pipeline:
    built: list[ITransform] = [
        LISTING.find(each) if isinstance(each, str) else each.build() for each in transforms
    ]
    return Pipeline([Stage(str(n), each) for n, each in enumerate(built)], max_output)


def conversation(pipeline: ITransform, limit: int, joined: int) -> MessageConversation:
    return MessageConversation(
        make_framer("line", max_length=limit),
        pipeline,
        await_reply=lambda awaitable, done: lambda: None,
        on_ready=lambda: None,
        joined=joined,
    )


def everything(made: MessageConversation, chunks: list[bytes], ends: bool) -> tuple[object, ...]:
    """Feed all chunks as a shell does; return what is to be seen of it."""
    output = []
    for chunk in chunks:
        if made.outcome is not None:
            break
        assert made.wants_input
        output.append(made.exchange(chunk))
        while part := made.replies():
            output.append(part)
    if ends:
        made.end_of_input()
        while part := made.replies():
            output.append(part)
    return b"".join(output), made.outcome, str(made.error), made.wants_input, made.incomplete


_PIECES = [b"a", b"q", "ß".encode(), "Σ".encode(), b"\r", b"\xc3", b"\x9f", b"\xff"]
_LINE = st.tuples(
    st.lists(st.sampled_from(_PIECES), max_size=3).map(b"".join),
    st.sampled_from([b"\n", b"\n", b"\r\n", b""]),
).map(b"".join)
_CHAINS = [["uppercase"], ["uppercase", "rot13"], [picky], ["uppercase", picky], [grows]]


@given(
    st.lists(st.lists(_LINE, min_size=1, max_size=5).map(b"".join), max_size=5),
    st.sampled_from(_CHAINS),
    st.sampled_from([2, 5, 100]),
    st.sampled_from([6, 20, 1 << 20]),
    st.booleans(),
)
def test_a_call_for_all_lines_comes_to_the_same_as_one_for_each(
    chunks: list[bytes], transforms: list[Any], limit: int, max_output: int, ends: bool
) -> None:
    """Whatever is invalid, too long, fails or has no end."""
    pipeline = chain(*transforms, max_output=max_output)
    assert pipeline.joins_lines
    together = conversation(pipeline, limit, min(limit, 4096))
    assert everything(together, chunks, ends) == everything(
        conversation(pipeline, limit, 0), chunks, ends
    )


def test_the_lines_of_a_chunk_are_one_call() -> None:
    calls = []

    @transform(streaming=True)
    def counted(data: bytes) -> bytes:
        """Note each call."""
        calls.append(data)
        return data

    made = conversation(chain(counted), 100, 100)
    assert made.exchange(b"one\ntwo\r\n\n") == b"one\ntwo\r\n\n"
    assert calls == [b"one\ntwo\r\n\n"]


@pytest.mark.parametrize(
    "transforms",
    [["reverse"], [whole], [spells], [ends_refused], ["uppercase", whole], ["lowercase"]],
)
def test_only_what_is_the_same_in_pieces_and_keeps_lines_ends_may_be_joined(
    transforms: list[Any],
) -> None:
    assert not chain(*transforms).joins_lines


def test_what_is_measured_is_asked_anew() -> None:
    """A stage that is wrapped, such as by one that counts messages, is another stage."""
    pipeline = chain("uppercase")
    assert pipeline.joins_lines
    pipeline.wrap_stages(lambda stage: Stage(stage.name, whole.build()))
    assert not pipeline.joins_lines


@implementer(ITransform)
class Late:
    """Gives some replies late, which it has not said."""

    def transform(self, message: bytes) -> bytes | Deferred[bytes]:
        return Deferred() if b"late" in message else message


def test_no_line_overtakes_one_whose_reply_is_awaited() -> None:
    """Not even where that was not to be expected."""
    made = conversation(Late(), limit=100, joined=100)
    assert made.exchange(b"late\n") == b""
    assert made.exchange(b"soon\n") == b""
    assert made.awaiting
