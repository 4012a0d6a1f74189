"""Letter case: what the built-in transforms make of letters, at every cut of a stream."""

import re
from itertools import pairwise, product
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.costs import here, spent
from tests.transforms.scalars import SCALARS
from uppercase.transforms import text as case

# A character of each kind that the rule for a final sigma tells apart, and no more.
KINDS = ["Σ", "a", ".", "ʰ", " "]
LETTERS = ["Σ", "σ", "a", "A", ".", "'", "ʰ", "\u0301", "\u0345", " ", "1", "ǆ", "ß", "ŉ", "\udcff"]


class TextStream(Protocol):
    def feed(self, text: str) -> str: ...
    def finish(self) -> str: ...


class Conversion(Protocol):
    def __call__(self, text: str, /) -> str: ...


def stream(transform: type[TextStream], *chunks: str) -> str:
    """Return all output of one stream for these chunks."""
    opened = transform()
    return "".join([*map(opened.feed, chunks), opened.finish()])


def ways_to_cut(text: str) -> list[list[str]]:
    """Return every way to cut a text into chunks."""
    places = range(1, len(text))
    return [
        [text[a:b] for a, b in pairwise(edges)]
        for chosen in product((False, True), repeat=max(len(text) - 1, 0))
        for edges in [[0, *(p for p, c in zip(places, chosen, strict=True) if c), len(text)]]
    ]


STREAMING: list[tuple[type[TextStream], Conversion]] = [
    (case.Lowercase, str.lower),
    (case.Titlecase, str.title),
    (case.Swapcase, str.swapcase),
]

streaming = pytest.mark.parametrize(
    ("transform", "whole"), STREAMING, ids=["lowercase", "titlecase", "swapcase"]
)


def test_uppercase_is_str_upper_on_every_character() -> None:
    assert len(SCALARS) == 1_112_064
    alone = list(map(case.uppercase, SCALARS))
    assert alone == list(map(str.upper, SCALARS))
    # Together as well as one by one: no character looks at its neighbours.
    assert case.uppercase(SCALARS) == "".join(alone)


@pytest.mark.parametrize(
    ("text", "capitals"),
    [
        ("straße", "STRASSE"),
        ("ﬃ", "FFI"),
        ("ŉ", "ʼN"),
        ("ǆ", "Ǆ"),
        ("ΐ", "\u0399\u0308\u0301"),
        ("ı", "I"),
    ],
)
def test_uppercase_uses_full_mappings(text: str, capitals: str) -> None:
    """One letter may become several."""
    assert case.uppercase(text) == capitals


def test_casefold_makes_spellings_comparable() -> None:
    assert case.casefold("Straße") == case.casefold("STRASSE") == "strasse"
    assert case.casefold("ΣΊΣΥΦΟΣ") == case.casefold("σίσυφος")


@given(st.binary(), st.binary())
def test_uppercase_and_casefold_need_no_context(a: bytes, b: bytes) -> None:
    """Their replies to two texts are the reply to both, hence they stream."""
    for transform in (case.uppercase, case.casefold):
        first, second = (data.decode("utf-8", "surrogateescape") for data in (a, b))
        assert transform(first) + transform(second) == transform(first + second)


@given(st.binary())
def test_ascii_case_keeps_the_length_and_all_other_bytes(data: bytes) -> None:
    assert case.ascii_uppercase(data) == data.upper()
    assert case.ascii_lowercase(data) == data.lower()


@streaming
def test_every_character_is_converted_as_python_does(
    transform: type[TextStream], whole: Conversion
) -> None:
    text = " ".join(SCALARS)
    assert stream(transform, text) == whole(text)
    opened = transform()
    chunks = [text[at : at + 4093] for at in range(0, len(text), 4093)]
    assert "".join([*map(opened.feed, chunks), opened.finish()]) == whole(text)


@streaming
def test_every_short_word_is_the_same_at_every_cut(
    transform: type[TextStream], whole: Conversion
) -> None:
    for alphabet, longest in ((KINDS, 4), (LETTERS, 3)):
        for length in range(1, longest + 1):
            for letters in product(alphabet, repeat=length):
                word = "".join(letters)
                expected = whole(word)
                for chunks in ways_to_cut(word):
                    assert stream(transform, *chunks) == expected, chunks


def words(data: bytes) -> str:
    """Read letters that matter to their neighbours from bytes, and now and then any character.

    Hypothesis draws bytes at once, and text character by character, which took most of the time.
    """
    return "".join(
        LETTERS[byte % len(LETTERS)]
        if byte < 192
        else SCALARS[int.from_bytes(data[at : at + 3]) % len(SCALARS)]
        for at, byte in enumerate(data)
    )


@given(st.lists(st.binary(max_size=12).map(words)))
def test_any_text_is_the_same_at_any_cut(chunks: list[str]) -> None:
    for transform, whole in STREAMING:
        assert stream(transform, *chunks) == whole("".join(chunks))


@given(st.binary())
def test_bytes_that_are_not_utf8_stay_in_place(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    parts = re.split("([\udc80-\udcff])", text)
    for convert in (case.uppercase, case.casefold):
        in_parts = [part if part in parts[1::2] else convert(part) for part in parts]
        assert convert(text) == "".join(in_parts)
    for transform, whole in STREAMING:
        reply = stream(transform, *text)
        assert reply.encode("utf-8", "surrogateescape") == whole(text).encode(
            "utf-8", "surrogateescape"
        )
        assert re.findall("[\udc80-\udcff]", reply) == parts[1::2]


@streaming
@pytest.mark.parametrize("before", ["a", " ", "a ", " a", "1", ""])
@pytest.mark.parametrize("ignorable", [".", "ʰ", "\u0301"])
def test_what_precedes_a_sigma_counts_from_any_distance(
    transform: type[TextStream], whole: Conversion, before: str, ignorable: str
) -> None:
    for distance in (15, 16, 17, 255, 256, 257, 5000):
        text = before + ignorable * distance + "Σ"
        assert stream(transform, text[:-1], "Σ") == whole(text)
        assert stream(transform, text[:-2], text[-2], "Σ") == whole(text)
        assert stream(transform, before, text[len(before) :]) == whole(text)


@streaming
def test_text_without_an_open_sigma_is_answered_at_once(
    transform: type[TextStream], whole: Conversion
) -> None:
    for text in ("Hello", "hello.", "ΟΔΟΣ ", "ΟΔΟΣ.a", "Σ", " .Σ", "ʰΣ", "...", "aʰ\u0301"):
        assert transform().feed(text) == whole(text)


@streaming
def test_only_an_open_sigma_and_what_follows_it_is_held_back(
    transform: type[TextStream], whole: Conversion
) -> None:
    opened = transform()
    assert opened.feed("ΟΔΟΣ.'") == whole("ΟΔΟΑ")[:-1]
    assert opened.feed("\u0301") == ""
    assert opened.feed(" Α") == whole("ΟΔΟΣ.'\u0301 Α")[3:]


@streaming
def test_a_sigma_is_final_after_256_undecided_characters(
    transform: type[TextStream], whole: Conversion
) -> None:
    """The one difference from Python, so that nothing is held back for ever."""
    assert case.MAX_LOOKAHEAD == 256
    near = "aΣ" + "." * 255 + "bΣ"
    assert stream(transform, near) == stream(transform, *near) == whole(near)
    far = "aΣ" + "." * 256 + "b" + "Σ." * 300
    assert whole(far).startswith(whole("aΣa")[:2])
    # Up to the limit as if the text ended there; from there on as ever.
    expected = whole("aΣ") + whole(far)[2:]
    assert expected != whole(far)
    for size in (1, 2, 3, 100, 256, 257, 258, 259, len(far)):
        chunks = [far[at : at + size] for at in range(0, len(far), size)]
        assert stream(transform, *chunks) == expected
    opened = transform()
    opened.feed("aΣ" + "." * 255)
    assert opened.feed(".") == "ς" + "." * 256


@streaming
@pytest.mark.parametrize("text", ["Hello wo", "aΣ......", "ΟΔΥΣΣΕΥΣ", "........", "ʰʰʰʰʰʰʰΣ"])
def test_single_characters_cost_linear_time(
    transform: type[TextStream], whole: Conversion, text: str
) -> None:
    """32 KiB take well under half a second even one character at a time."""
    text *= 32768 // len(text.encode())
    streamed: list[str] = []
    assert spent(lambda: streamed.append(stream(transform, *text))) < here(1)
    assert streamed == [whole(text)]
