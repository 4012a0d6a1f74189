"""What a client gets does not depend on how its bytes were cut on the way.

The law is tested where users meet it: on the transforms as the registry gives them, and on whole
conversations in every framing.
"""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.scalars import SCALARS
from uppercase.core.conversation import Conversation, MessageConversation, StreamConversation
from uppercase.core.framing import FRAMINGS, make_framer
from uppercase.core.pipeline import Pipeline, Stage
from uppercase.errors import TransformError
from uppercase.interfaces import IStreamTransform, ITransform
from uppercase.limits import MAX_LENGTH
from uppercase.registry import listing

LISTING = listing()
BUILT_INS = sorted(
    name for name, found in LISTING.transforms.items() if "uppercase_transforms" in found.origin
)
STREAMING = [name for name in BUILT_INS if IStreamTransform.providedBy(LISTING.find(name))]
FRAMED = sorted(name for name, framing in FRAMINGS.items() if framing.factory)

# Text that transforms and framings find difficult, between bytes that are no text at all.
PIECES = st.sampled_from(
    [b"", b"a", b"Z", b" ", b"\r", b"\n", b"\r\n", b"3:abc,", b"\0\2hi", b"aGk=", b"6869", b"\xff"]
    + [text.encode() for text in ("ß", "ﬃ", "Σ", "ΟΔΟΣ", "é", "ǆ", "👩‍👩‍👧", "\u0301")]
)
INPUTS = st.one_of(st.lists(PIECES, max_size=12).map(b"".join), st.binary(max_size=60))


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut at these places, as far as there are that many bytes."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def converse(conversation: Conversation, chunks: Iterable[bytes]) -> tuple[bytes, object]:
    """Return all replies of a conversation and how it ended."""
    output = b""
    for chunk in chunks:
        conversation.receive(chunk)
        while reply := conversation.replies():
            output += reply
    conversation.end_of_input()
    while reply := conversation.replies():
        output += reply
    return output, conversation.outcome


def one_shot(transform: ITransform, message: bytes) -> bytes | None:
    """Return the reply, or None for a message that the transform rejects."""
    try:
        reply = transform.transform(message)
    except TransformError:
        return None
    assert isinstance(reply, bytes)
    return reply


def test_all_built_ins_are_there() -> None:
    assert set(BUILT_INS) == {
        "ascii-lowercase", "ascii-uppercase", "base64-decode", "base64-encode", "caesar",
        "casefold", "digest", "hex-decode", "hex-encode", "identity", "lowercase", "normalize",
        "reverse", "rot13", "squeeze", "strip", "swapcase", "titlecase", "uppercase",
    }  # fmt: skip


def test_which_built_ins_stream_is_what_the_documentation_says() -> None:
    assert set(BUILT_INS) - set(STREAMING) == {"digest", "normalize", "reverse", "squeeze", "strip"}


@given(name=st.sampled_from(STREAMING), data=INPUTS, cuts=st.binary(max_size=8))
def test_a_stream_gives_at_any_cut_what_the_whole_message_gives(
    name: str, data: bytes, cuts: bytes
) -> None:
    pipeline = Pipeline([Stage(name, LISTING.find(name))])
    assert IStreamTransform.providedBy(pipeline)
    whole = one_shot(pipeline, data)
    output, _ = converse(StreamConversation(pipeline), cut(data, cuts))
    by_byte, _ = converse(StreamConversation(pipeline), cut(data, range(len(data))))
    assert output == by_byte
    assert whole is None or output == whole


@given(
    name=st.sampled_from(FRAMED),
    transform=st.sampled_from(["uppercase", "strip", "reverse"]),
    data=INPUTS,
    cuts=st.binary(max_size=8),
)
def test_a_framed_conversation_does_not_depend_on_the_cuts(
    name: str, transform: str, data: bytes, cuts: bytes
) -> None:
    """But for `segment`, which is about the cuts: there the first chunk is the message."""
    pipeline = Pipeline([Stage(transform, LISTING.find(transform))])

    def conversation() -> Conversation:
        return MessageConversation(
            make_framer(name, max_length=MAX_LENGTH),
            pipeline,
            await_reply=lambda awaitable, done: lambda: None,
            on_ready=lambda: None,
        )

    chunks = cut(data, cuts)
    whole = chunks[:1] if name == "segment" else [data]
    assert converse(conversation(), chunks) == converse(conversation(), whole)


@pytest.mark.parametrize("name", ["uppercase", "lowercase", "swapcase", "titlecase", "casefold"])
def test_every_code_point_is_mapped_as_python_maps_it(name: str) -> None:
    """All 1,112,064 of them in one message, and those that change cut after every byte."""
    method = {
        "uppercase": str.upper, "lowercase": str.lower, "swapcase": str.swapcase,
        "titlecase": str.title, "casefold": str.casefold,
    }[name]  # fmt: skip
    assert len(SCALARS) == 1_112_064
    expected = method(SCALARS).encode()
    pipeline = Pipeline([Stage(name, LISTING.find(name))], max_output=len(expected))
    assert one_shot(pipeline, SCALARS.encode()) == expected
    assert IStreamTransform.providedBy(pipeline)
    stream = pipeline.open_stream()
    changing = "".join(scalar for scalar in SCALARS if method(scalar) != scalar)
    pieces = [stream.feed(bytes([byte])) for byte in changing.encode()]
    assert b"".join(pieces) + stream.finish() == method(changing).encode()
