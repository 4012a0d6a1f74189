"""Whole messages: order, white space, Unicode forms, digests."""

import hashlib
import random
import re
import tracemalloc
import unicodedata
from collections.abc import Callable
from typing import get_args

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from tests.costs import here, spent
from tests.drawing import CHARACTER
from tests.transforms.scalars import SCALARS
from uppercase.transforms import text as transforms
from uppercase.transforms.codecs import Algorithm, digest
from uppercase.transforms.text import Form, identity, normalize, reverse, squeeze, strip

FORMS: tuple[Form, ...] = get_args(Form)

# A character of each kind that UAX #29 tells apart, but for conjunct linkers: what they join
# changed with Unicode 18.
CLUSTER_KINDS = [
    *"a \r\n\0é漢\u0301\u200c\u200d\ufe0f\u0903\u0600\u00ad\u0e33\u0915\u093c",
    *"\u1100\u1161\u11a8각가\U0001f1e9\U0001f468❤\U0001f3fb",
]


@pytest.mark.parametrize(
    ("text", "reversed_text"),
    [
        ("hello\n", "\nolleh"),
        ("", ""),
        ("a\r\nb", "b\r\na"),
        ("é\r\n\n", "\n\r\né"),
        ("noe\u0308l", "le\u0308on"),
        ("a👨\u200d👩\u200d👧b", "b👨\u200d👩\u200d👧a"),
        ("👍🏽👎", "👎👍🏽"),
        ("🇩🇪🇫🇷🇮", "🇮🇫🇷🇩🇪"),
        ("각\u1100\u1161\u11a8가", "가\u1100\u1161\u11a8각"),
        ("नमस्ते", "स्तेमन"),
        ("\u0301a", "a\u0301"),
        ("a\udcff\u0301b", "b\u0301\udcffa"),
        ("\udca9\udcc3", "\udcc3\udca9"),
    ],
)
def test_reverse_turns_characters_round_and_keeps_each_whole(text: str, reversed_text: str) -> None:
    assert reverse(text) == reversed_text


def test_reverse_keeps_clusters_as_unicode_defines_them() -> None:
    """Another implementation of UAX #29 finds the same characters."""
    chooser = random.Random(29)
    for length in [*range(1, 40), 64, 65, 300, 1000] * 20:
        kinds = chooser.sample(CLUSTER_KINDS, chooser.randint(1, len(CLUSTER_KINDS)))
        text = "".join(chooser.choices(kinds, k=length))
        assert reverse(text) == "".join(reversed(regex.findall(r"\X", text)))


def test_reverse_turns_long_texts_round_as_a_whole() -> None:
    text = "".join(f"é{number}\u0301" for number in range(5000))
    assert reverse(text) == "".join(reversed(regex.findall(r"\X", text)))


@pytest.mark.parametrize(
    ("text", "stripped"),
    [("  a b \r\n", "a b"), ("\u3000a\u2028", "a"), (" \udcff ", "\udcff"), ("\u200ba", "\u200ba")],
)
def test_strip_removes_white_space_at_both_ends(text: str, stripped: str) -> None:
    assert strip(text) == stripped


@pytest.mark.parametrize(
    ("text", "squeezed"),
    [
        ("a  b\t\tc", "a b c"),
        ("a\tb\u3000c", "a b c"),
        ("  a  ", " a "),
        ("a \n\n b", "a\nb"),
        ("a \r\n \n b\r\n", "a\r\nb\r\n"),
        ("a\rb \u2028 c", "a\rb\u2028c"),
        ("\udcff  \udcfe", "\udcff \udcfe"),
        ("", ""),
    ],
)
def test_squeeze_makes_a_run_of_white_space_one(text: str, squeezed: str) -> None:
    """A line stays a line: a run with line breaks becomes the first of them."""
    assert squeeze(text) == squeezed


@given(st.text(CHARACTER) | st.text(" \t\r\na\u2028"))
def test_squeeze_keeps_words_and_what_is_a_line(text: str) -> None:
    squeezed = squeeze(text)
    assert squeezed.split() == text.split()
    assert squeeze(squeezed) == squeezed
    assert [line.split() for line in text.splitlines() if line.split()] == [
        line.split() for line in squeezed.splitlines() if line.split()
    ]


def test_normalize_composes_unless_told_otherwise() -> None:
    assert normalize("e\u0301") == "é"
    assert normalize("é", form="NFD") == "e\u0301"
    assert normalize("ﬁ①", form="NFKC") == "fi1"
    assert normalize("ﬁ\u0301é", form="NFKD") == "fi\u0301e\u0301"


@given(st.text(CHARACTER), st.sampled_from(FORMS))
def test_normalize_follows_unicode(text: str, form: Form) -> None:
    assert normalize(text, form=form) == unicodedata.normalize(form, text)


def test_normalize_follows_unicode_for_long_runs_of_marks() -> None:
    chooser = random.Random(15)
    known = [c for c in SCALARS if unicodedata.combining(c)]
    kinds = [*known, "\u0f73", "\u0344", "\uff9e", "\uff9f", "—", "\udcff"]
    for length in (29, 30, 31, 32, 64, 300) * 8:
        marks = "".join(chooser.choices(kinds, k=length))
        for form, text in ((f, t) for f in FORMS for t in (marks, f"é{marks}a{marks}")):
            assert normalize(text, form=form) == unicodedata.normalize(form, text)


def test_digest_is_lower_case_hexadecimal() -> None:
    assert digest(b"abc") == hashlib.sha256(b"abc").hexdigest().encode()
    assert digest(b"", algorithm="md5") == b"d41d8cd98f00b204e9800998ecf8427e"


def test_digest_offers_every_fixed_length_algorithm_that_all_pythons_have() -> None:
    offered: tuple[Algorithm, ...] = get_args(Algorithm)
    shake = {"shake_128", "shake_256"}  # their length is the caller's choice
    assert set(offered) == hashlib.algorithms_guaranteed - shake
    for algorithm in offered:
        expected = hashlib.new(algorithm, b"abc", usedforsecurity=False).hexdigest()
        assert digest(b"abc", algorithm=algorithm) == expected.encode()


@given(st.binary())
def test_identity_changes_nothing(data: bytes) -> None:
    assert identity(data) == data


@given(st.binary())
def test_bytes_that_are_not_utf8_come_out_unchanged(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    undecodable = re.findall("[\udc80-\udcff]", text)
    for transform in (reverse, strip, squeeze, normalize):
        reply = transform(text)
        reply.encode("utf-8", "surrogateescape")
        kept = re.findall("[\udc80-\udcff]", reply)
        assert (kept[::-1] if transform is reverse else kept) == undecodable


@pytest.mark.parametrize("transform", [reverse, strip, squeeze, normalize])
@pytest.mark.parametrize(
    "unit",
    ["a", " ", "\t\n", "\u0301\u0323", "\uff9e\u0301", "\U0001f1e9", "👨\u200d", "\udcff", "é"],
)
def test_no_text_costs_more_than_linear_time(transform: Callable[[str], str], unit: str) -> None:
    """64 KiB take a few hundredths of a second, and no arrangement of them takes much more."""
    text = unit * (65536 // len(unit.encode("utf-8", "surrogateescape")))
    assert spent(lambda: (transform(text), transform("a" + text))) < here(0.5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("unit", ["\u0301\u0323", "\uff9e\u0301", "\u0f73", "\u0344\u0323"])
def test_no_run_of_marks_costs_more_than_linear_time(form: Form, unit: str) -> None:
    """A kana voicing mark is a letter, and a combining mark once NFKC has replaced it."""
    text = unit * (65536 // len(unit.encode()))
    assert spent(lambda: normalize(text, form=form)) < here(0.2)


@pytest.mark.parametrize(
    "transform", [reverse, squeeze, normalize, lambda text: normalize(text, form="NFD")]
)
@pytest.mark.parametrize("unit", ["\u0301\u0323", "👨\u200d", "a\udcff", "é  ", "\u3000漢", "ab "])
def test_no_text_costs_many_times_its_size_in_memory(
    transform: Callable[[str], str], unit: str
) -> None:
    """One object for each character would be 80 bytes for each of up to a million."""
    size = 1 << 16
    text = unit * (size // len(unit.encode("utf-8", "surrogateescape")))
    tracemalloc.start()
    try:
        transform(text)
        assert tracemalloc.get_traced_memory()[1] < 30 * size
    finally:
        tracemalloc.stop()


def test_transforms_have_a_summary() -> None:
    for function in (digest, transforms.reverse, transforms.strip, transforms.squeeze):
        assert (function.__doc__ or "").splitlines()[0].endswith(".")
