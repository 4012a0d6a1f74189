"""The framings: exact messages and replies, whatever the cuts; bounded memory and time."""

import re
import sys
import tracemalloc
from ast import literal_eval
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import (
    Int16StringReceiver,
    Int32StringReceiver,
    LineReceiver,
    NetstringReceiver,
)
from zope.interface.verify import verifyObject

from tests.costs import here, spent
from uppercase.core.framing import FRAMINGS, Framer, choose_framing, make_framer
from uppercase.errors import FramingError, MalformedFrame, MessageTooLong, UnknownName, UserError
from uppercase.interfaces import IFramer
from uppercase.limits import KIB, MAX_LENGTH, MIB

SPLITTING = ["line", "netstring", "int16", "int32"]
FRAMERS = [*SPLITTING, "segment"]
EMPTY = {"line": b"\n", "netstring": b"0:,", "int16": bytes(2), "int32": bytes(4)}

Pairs = list[tuple[bytes, bytes]]
Outcome = tuple[Pairs, type[Exception] | None, str]

# The framing is drawn like the rest, not parametrized: pytest-twisted would wrap a law's function
# anew for each parameter, inside the wrapping of the one before.
names = st.sampled_from(SPLITTING)
ENDINGS = [b"\n", b"\r\n"]
# Drawn as bytes, which hypothesis does at once and not number for number: each is a place.
cuts = st.binary(max_size=12)
law = settings(max_examples=200, deadline=None)


def wire(name: str, message: bytes, ending: bytes = b"\n") -> bytes:
    """Return a message as a peer would send it, written without the code under test."""
    match name:
        case "line":
            return message + ending
        case "netstring":
            return str(len(message)).encode() + b":" + message + b","
        case _:
            return len(message).to_bytes(int(name.removeprefix("int")) // 8, "big") + message


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def pieces(data: bytes, places: bytes) -> list[bytes]:
    return cut(data, [place % (len(data) + 1) for place in places])


# One draw for all of them, as each costs as much as a test of them.
several = st.builds(pieces, st.binary(min_size=40, max_size=200), st.binary(max_size=7))


def every_cut(data: bytes) -> Iterator[list[bytes]]:
    for count in range(len(data)):
        for places in combinations(range(1, len(data)), count):
            yield cut(data, places)


def converse(name: str, chunks: Iterable[bytes], max_length: int = MAX_LENGTH) -> Outcome:
    """Return all messages with their trailers, and how the input was refused, if it was."""
    framer = make_framer(name, max_length=max_length)
    pairs: Pairs = []
    try:
        for pair in whole_input(framer, chunks):
            pairs.append(pair)
    except FramingError as error:
        assert [*framer.feed(b"\n0:,\0\0\0\0"), *framer.finish()] == []
        assert framer.held == 0
        return pairs, type(error), str(error)
    return pairs, None, ""


def whole_input(framer: Framer, chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for chunk in chunks:
        yield from framer.feed(chunk)
    yield from framer.finish()


# Names


def test_every_framing_has_a_one_line_summary() -> None:
    """A listing can show every framing, also `stream`, which has no framer."""
    assert set(FRAMINGS) == {"stream", *FRAMERS}
    for framing in FRAMINGS.values():
        assert framing.summary
        assert "\n" not in framing.summary


@pytest.mark.parametrize("name", FRAMERS)
def test_framers_provide_the_interface(name: str) -> None:
    """What `make_framer` gives is an IFramer."""
    assert verifyObject(IFramer, make_framer(name, max_length=1))


def test_only_segment_ends_after_one_message() -> None:
    """A session can tell from the framer that the first reply is the last one."""
    assert [n for n in FRAMERS if make_framer(n, max_length=1).one_message] == ["segment"]


def test_a_mistyped_framing_gets_a_suggestion() -> None:
    """The sentence names the framing that was probably meant."""
    with pytest.raises(UnknownName, match=r"^no framing named 'lines'; did you mean 'line'\?$"):
        choose_framing("lines", streams=True)
    with pytest.raises(UnknownName, match="did you mean 'auto'"):
        choose_framing("atuo", streams=True)
    with pytest.raises(UnknownName, match="did you mean 'netstring'"):
        make_framer("netstrings", max_length=1)


def test_stream_has_no_framer() -> None:
    """Asking for the framer of `stream` is refused with the names of those that exist."""
    with pytest.raises(UnknownName, match=r"known are int16, int32, line, netstring, segment$"):
        make_framer("stream", max_length=1)


def test_auto_streams_where_the_whole_chain_can() -> None:
    """`auto` is `stream` for a chain that streams and `line` for one that does not."""
    assert choose_framing("auto", streams=True) == "stream"
    assert choose_framing("auto", streams=False) == "line"


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("name", FRAMERS)
def test_a_framing_asked_for_is_taken(name: str, streams: bool) -> None:
    """Messages can be framed for any transform."""
    assert choose_framing(name, streams=streams) == name


def test_stream_needs_a_chain_that_streams() -> None:
    """`stream` with a transform that needs whole messages is refused, with a choice that works."""
    assert choose_framing("stream", streams=True) == "stream"
    with pytest.raises(UserError, match=r"'stream'.* --framing=line$"):
        choose_framing("stream", streams=False)


# Messages


@law
@given(names, several, st.integers(0, 255), cuts)
def test_messages_come_out_as_they_went_in_whatever_the_cuts(
    name: str, messages: list[bytes], endings: int, places: bytes
) -> None:
    """Any messages, cut anywhere, come out exact and in order, with their endings."""
    pairs = [(m, ENDINGS[endings >> number & 1]) for number, m in enumerate(messages)]
    if name == "line":
        # What a line cannot carry: a line feed, and a \r before an ending of \n alone.
        pairs = [(m.translate(None, b"\n").rstrip(b"\r"), ending) for m, ending in pairs]
    sent = b"".join(wire(name, *pair) for pair in pairs)
    expected = [(m, ending if name == "line" else b"") for m, ending in pairs]
    assert converse(name, cut(sent, places)) == (expected, None, "")


@law
@given(names, several)
def test_a_reply_can_be_read_back_as_a_message(name: str, drawn: list[bytes]) -> None:
    """What goes out in a framing comes in again in the same framing."""
    replies = [reply.translate(None, b"\r\n") for reply in drawn]
    framer = make_framer(name, max_length=1)
    trailer = b"\r\n" if name == "line" else b""
    sent = b"".join(framer.wrap(reply, trailer) for reply in replies)
    assert converse(name, [sent]) == ([(reply, trailer) for reply in replies], None, "")


TOKENS = [
    b"\r", b"\n", b"\r\n", b"0", b"1", b"3", b"12", b":", b",", b"a", b"\0", b"\0\0\0", b"2:bc,",
]  # fmt: skip


def with_tokens(drawn: bytes) -> bytes:
    """Put a token in the place of most bytes."""
    known = dict(enumerate(TOKENS))
    return b"".join(known.get(each % 16, bytes([each])) for each in drawn)


garbage = st.binary(max_size=30).map(with_tokens)


@law
@given(names, garbage, cuts, st.integers(0, 12))
def test_any_bytes_mean_the_same_whatever_the_cuts(
    name: str, sent: bytes, places: bytes, max_length: int
) -> None:
    """Whole, byte by byte or cut anywhere: the same messages and the same sentence at the end."""
    whole = converse(name, [sent], max_length)
    assert converse(name, [sent[i : i + 1] for i in range(len(sent))], max_length) == whole
    assert converse(name, cut(sent, places), max_length) == whole


@law
@given(garbage, cuts, st.integers(0, 12))
def test_lines_are_those_of_the_definition(sent: bytes, places: bytes, max_length: int) -> None:
    r"""Content up to `\n` or `\r\n`, or to the end; the first over the limit ends it."""
    expected: Pairs = []
    error = None
    for match in re.finditer(rb"([^\n]*?)(\r?\n|\Z)", sent):
        if len(match[1]) > max_length:
            error = MessageTooLong
            break
        if match[0]:
            expected.append((match[1], match[2]))
    assert converse("line", cut(sent, places), max_length)[:2] == (expected, error)


class Received:
    """Mixed into Twisted's receivers: what they received."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def stringReceived(self, string: bytes) -> None:
        self.messages.append(string)

    lineReceived = stringReceived


class TwistedInt16(Received, Int16StringReceiver):
    pass


class TwistedInt32(Received, Int32StringReceiver):
    pass


class TwistedNetstring(Received, NetstringReceiver):
    pass


class TwistedLine(Received, LineReceiver):
    delimiter = b"\n"


RECEIVERS: dict[str, Any] = {
    "line": TwistedLine,
    "netstring": TwistedNetstring,
    "int16": TwistedInt16,
    "int32": TwistedInt32,
}


@law
@given(names, several, cuts)
def test_twisted_reads_the_same_messages(name: str, messages: list[bytes], places: bytes) -> None:
    """Programs written with `twisted.protocols.basic` understand each other with ours."""
    sent = b"".join(wire(name, message) for message in messages)
    protocol = RECEIVERS[name]()
    protocol.makeConnection(StringTransport())
    for chunk in cut(sent, places):
        protocol.dataReceived(chunk)
    ours, error, _ = converse(name, cut(sent, places))
    # Twisted knows one delimiter: with \n, the \r of an ending is content to it.
    assert [message + trailer[:-1] for message, trailer in ours] == protocol.messages
    assert error is None


# Limits


@pytest.mark.parametrize("limit", [0, 1, 2])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", SPLITTING)
def test_exactly_the_limit_passes_at_every_cut(name: str, ending: bytes, limit: int) -> None:
    """N bytes are answered, N+1 refused, and all messages before are answered first."""
    good = wire(name, b"x" * limit, ending)
    bad = wire(name, b"x" * (limit + 1), ending)
    pair = (b"x" * limit, ending if name == "line" else b"")
    for chunks in every_cut(good + bad):
        assert converse(name, chunks, limit)[:2] == ([pair], MessageTooLong)
    assert converse(name, [good, good], limit) == ([pair, pair], None, "")


@pytest.mark.parametrize(
    ("sent", "messages", "error"),
    [
        (b"ab", [(b"ab", b"")], None),
        (b"abc", [], MessageTooLong),
        (b"ab\r", [], MessageTooLong),
        (b"ab\r\n", [(b"ab", b"\r\n")], None),
        (b"ab\r\r\n", [], MessageTooLong),
        (b"a\r\r\n", [(b"a\r", b"\r\n")], None),
        (b"a\r", [(b"a\r", b"")], None),
        (b"ab\rc", [], MessageTooLong),
        (b"\rab\n", [], MessageTooLong),
        (b"", [], None),
        (b"\n", [(b"", b"\n")], None),
    ],
)
def test_a_carriage_return_counts_unless_it_is_half_of_an_ending(
    sent: bytes, messages: Pairs, error: type[Exception] | None
) -> None:
    r"""With a limit of 2: `\r` is content, and counts, unless `\n` follows, at every cut."""
    for chunks in every_cut(sent):
        assert converse("line", chunks, 2)[:2] == (messages, error)


def test_a_line_is_refused_while_it_is_still_incomplete() -> None:
    """A peer that never ends its line is refused at the first byte too many."""
    for start, refused in [(b"abc", b"d"), (b"abc\r", b"d"), (b"ab", b"cd"), (b"abc", b"\r\r")]:
        framer = make_framer("line", max_length=3)
        assert list(framer.feed(start)) == []
        with pytest.raises(MessageTooLong):
            list(framer.feed(refused))


@pytest.mark.parametrize(
    ("name", "header", "declared"),
    [
        ("int16", b"\0\4", "4 bytes"),
        ("int32", b"\xff\xff\xff\xff", "4294967295 bytes"),
        ("netstring", b"4:", "4 bytes"),
        ("netstring", b"10", "a message, over the limit of 3 bytes"),
    ],
)
def test_a_declared_length_is_refused_before_its_data(
    name: str, header: bytes, declared: str
) -> None:
    """A header over the limit is refused at once, also without the rest of a long number."""
    framer = make_framer(name, max_length=3)
    with pytest.raises(MessageTooLong, match=declared):
        list(framer.feed(header))


def test_int16_takes_a_higher_limit_than_it_can_reach() -> None:
    """A limit over 65,535 is no mistake; the longest message passes."""
    longest = b"x" * 65535
    assert converse("int16", [wire("int16", longest)], MIB) == ([(longest, b"")], None, "")


def test_a_reply_that_int16_cannot_carry_is_refused_with_a_way_out() -> None:
    """65,535 bytes are sent; one more is refused with a sentence, not with struct's."""
    framer = make_framer("int16", max_length=MIB)
    assert framer.wrap(bytes(65535), b"") == b"\xff\xff" + bytes(65535)
    with pytest.raises(FramingError, match=r"65536 bytes; int16 .* at most 65535; .*netstring"):
        framer.wrap(bytes(65536), b"")


# Faults


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"x", "got b'x' where"),
        (b":", "got b':' where"),
        (b",", "got b',' where"),
        (b"-1:", "got b'-' where"),
        (b" 1:", "got b' ' where"),
        (b"1_0:", "got b'1_' where"),
        (b"\xb2:", r"got b'\\xb2' where"),
        (b"1a:", "got b'1a' where"),
        (b"00:,", "leading zero in b'00'"),
        (b"01:a,", "leading zero in b'01'"),
        (b"1:ab", "got b'b' after the 1 bytes"),
        (b"0:\n", r"got b'\\n' after the 0 bytes"),
        (b"1", "truncated, after b'1'"),
        (b"1:", "truncated, after 2 of the 4 bytes"),
        (b"1:a", "truncated, after 3 of the 4 bytes"),
    ],
)
def test_a_malformed_netstring_is_refused_with_what_was_got(sent: bytes, words: str) -> None:
    """The sentence shows the bytes that are wrong; what came before is answered."""
    for chunks in every_cut(b"1:k," + sent):
        pairs, error, sentence = converse("netstring", chunks, 99)
        assert (pairs, error) == ([(b"k", b"")], MalformedFrame)
        assert re.search(words, sentence)


@pytest.mark.parametrize(("name", "size"), [("int16", 2), ("int32", 4)])
def test_an_input_that_ends_inside_a_frame_is_refused(name: str, size: int) -> None:
    """Nothing is lost silently: what came of a frame is counted in the sentence."""
    frame = wire(name, b"ab")
    for end in range(1, len(frame)):
        pairs, error, sentence = converse(name, [frame + frame[:end]])
        assert (pairs, error) == ([(b"ab", b"")], MalformedFrame)
        assert f"truncated, with {end} of the {size if end < size else size + 2} " in sentence


@pytest.mark.parametrize("name", [*SPLITTING, "segment"])
def test_after_the_end_of_the_input_nothing_is_read(name: str) -> None:
    """Bytes that come after the end are not taken for messages."""
    framer = make_framer(name, max_length=9)
    assert list(framer.finish()) == []
    late = b"late" if name == "segment" else wire(name, b"late")
    assert [*framer.feed(late), *framer.finish()] == []


# Segment


def test_a_segment_is_one_message_and_the_last() -> None:
    """What the first read delivered is the message, as it is; later reads give nothing."""
    framer = make_framer("segment", max_length=99)
    chunk = b"a\nsentence "
    [(message, trailer)] = framer.feed(chunk)
    assert message is chunk
    assert framer.wrap(message.upper(), trailer) == b"A\nSENTENCE "
    assert [*framer.feed(b"cut in two"), *framer.finish()] == []


def test_a_peer_that_sends_nothing_is_no_message() -> None:
    """An empty connection, such as a port check's, gets no reply."""
    assert converse("segment", []) == ([], None, "")
    assert converse("segment", [b""]) == ([], None, "")
    assert converse("segment", [b"", b"x"]) == ([(b"x", b"")], None, "")


def test_a_segment_has_the_same_limit() -> None:
    """N bytes pass, N+1 do not."""
    assert converse("segment", [b"abc"], 3) == ([(b"abc", b"")], None, "")
    assert converse("segment", [b"abcd"], 3)[:2] == ([], MessageTooLong)


# Pauses, memory and time


@pytest.mark.parametrize("name", SPLITTING)
def test_a_consumer_may_pause_between_two_messages(name: str) -> None:
    """Messages wait until they are asked for; none is split off before."""
    framer = make_framer(name, max_length=9)
    assert list(framer.feed(wire(name, b"one")[:2])) == []
    waiting = iter(framer.feed(wire(name, b"one")[2:] + wire(name, b"two") + wire(name, b"x" * 10)))
    assert next(waiting)[0] == b"one"
    assert next(waiting)[0] == b"two"
    with pytest.raises(MessageTooLong):
        next(waiting)
    assert list(waiting) == []


@pytest.mark.parametrize("name", SPLITTING)
def test_a_paused_consumer_costs_its_chunk_and_no_more(name: str) -> None:
    """64 KiB of empty messages that nobody takes yet are not turned into objects."""
    framer = make_framer(name, max_length=MAX_LENGTH)
    chunk = EMPTY[name] * (64 * KIB // len(EMPTY[name]))
    tracemalloc.start()
    try:
        waiting = iter(framer.feed(chunk))
        for _ in range(10):
            next(waiting)
        assert tracemalloc.get_traced_memory()[1] < 8 * KIB
    finally:
        tracemalloc.stop()
    del waiting


@pytest.mark.parametrize("name", SPLITTING)
def test_memory_is_bounded_by_one_message_and_one_chunk(name: str) -> None:
    """A longest message, then whole ones in every chunk: never more than both are held."""
    limit, chunk_size = 60 * KIB, 4 * KIB
    framer = make_framer(name, max_length=limit)
    sent = (wire(name, b"x" * limit) + wire(name, b"y" * 3000) * 20) * 3
    chunks = cut(sent, range(0, len(sent), chunk_size))
    tracemalloc.start()
    try:
        for chunk in chunks:
            for _ in framer.feed(chunk):
                pass
            assert framer.held <= limit + 10
        # A joined message, its copy for the consumer, and a bytearray's spare eighth.
        assert tracemalloc.get_traced_memory()[1] < 3 * limit + 2 * chunk_size
        assert list(framer.finish()) == []
        assert tracemalloc.get_traced_memory()[0] < 4 * KIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", SPLITTING)
def test_a_chunk_is_let_go_once_it_is_used_up(name: str) -> None:
    """What is kept of a chunk is a copy of the incomplete message at its end, and no more."""
    framer = make_framer(name, max_length=MAX_LENGTH)
    chunk = wire(name, b"x" * 1000) * 3 + wire(name, b"start")[:-1]
    before = sys.getrefcount(chunk)
    assert len(list(framer.feed(chunk))) == 3
    assert framer.held == len(wire(name, b"start")) - 1
    assert sys.getrefcount(chunk) == before


def test_an_endless_line_costs_no_memory_beyond_the_limit() -> None:
    """A peer that sends zeros for ever is refused and its bytes are let go."""
    framer = make_framer("line", max_length=MAX_LENGTH)
    assert list(framer.feed(bytes(MAX_LENGTH))) == []
    assert framer.held == MAX_LENGTH
    with pytest.raises(MessageTooLong):
        list(framer.feed(bytes(1)))
    assert framer.held == 0


def count_all(framer: Framer, chunks: Iterable[bytes]) -> int:
    return sum(1 for chunk in chunks for _ in framer.feed(chunk))


@pytest.mark.parametrize("name", SPLITTING)
def test_a_mib_of_empty_messages_costs_a_second(name: str) -> None:
    """The smallest messages there are, as many as fit: of a quarter it is seen."""
    size = MIB // 4
    count = size // len(EMPTY[name])
    chunks = cut(EMPTY[name] * count, range(64 * KIB, size, 64 * KIB))
    framer, found = make_framer(name, max_length=MAX_LENGTH), []
    assert spent(lambda: found.append(count_all(framer, chunks))) < here(1.5) / 4
    assert found == [count]


@pytest.mark.parametrize("name", SPLITTING)
def test_64_kib_in_segments_of_1_byte_cost_less_than_2_seconds(name: str) -> None:
    """A peer that sends byte by byte does not cost more than its bytes."""
    count = 64 * KIB // len(EMPTY[name])
    chunks = [EMPTY[name][i : i + 1] for i in range(len(EMPTY[name]))] * count
    framer, found = make_framer(name, max_length=MAX_LENGTH), []
    assert spent(lambda: found.append(count_all(framer, chunks))) < here(2)
    assert found == [count]


@pytest.mark.parametrize("name", ["line", "netstring", "int32"])
def test_a_long_message_in_segments_of_1_byte_is_not_scanned_again(name: str) -> None:
    """Each byte costs the same, however many came before."""

    def last(count: int, *, before: int) -> float:
        """Return what the last bytes of a message cost."""
        framer = make_framer(name, max_length=MIB)
        *sent, end = cut(wire(name, b"x" * (before + count)), range(before, before + count))
        assert count_all(framer, sent[:1]) == 0
        cost = spent(lambda: count_all(framer, sent[1:]))
        assert count_all(framer, [end]) == 1
        return cost

    # Whatever disturbs a look makes it dearer: one of several is enough.
    assert any(last(5000, before=900_000) < 4 * last(5000, before=10) for _ in range(5))


# The reference page


def rows(section: str) -> list[list[str]]:
    """Return the cells of the table in one section of the page."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "framings.md"
    [text] = re.findall(rf"^## {section}$(.*?)(?:^## |\Z)", page.read_text("utf-8"), re.M | re.S)
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]


@pytest.mark.parametrize(("name", "sent", "messages", "received"), rows("On the wire"))
def test_the_examples_of_the_reference_are_true(
    name: str, sent: str, messages: str, received: str
) -> None:
    """Each conversation on the page happens as it says."""
    pairs, error, _ = converse(name, [literal_eval(sent)])
    framer = make_framer(name, max_length=1)
    assert error is None
    assert [message for message, _ in pairs] == literal_eval(messages)
    replies = b"".join(framer.wrap(message.upper(), trailer) for message, trailer in pairs)
    assert replies == literal_eval(received)


@pytest.mark.parametrize(("name", "limit", "sent", "sentence"), rows("Faults"))
def test_the_sentences_of_the_reference_are_true(
    name: str, limit: str, sent: str, sentence: str
) -> None:
    """Each fault on the page is told in these words."""
    assert converse(name, [literal_eval(sent)], int(limit))[2] == sentence


def test_the_reference_lists_every_framing() -> None:
    """No framing is missing from the page, and both kinds of examples are there."""
    assert {row[0] for row in rows("On the wire")} == set(FRAMERS)
    assert len(rows("Faults")) >= 10
