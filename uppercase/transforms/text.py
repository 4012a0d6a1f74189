"""Whole messages: the order of their characters, white space, Unicode form, digest.

Each takes time in proportion to the message, whatever it holds.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from itertools import groupby, islice
from typing import Final, Literal, TypeVar
from unicodedata import combining
from unicodedata import normalize as to_form

import stringzilla

_DECODED_OR_NOT: Final = re.compile("[^\ud800-\udfff]+|[\ud800-\udfff]+")
_LINE_BREAKS: Final = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # str.splitlines's
_LINE_BREAK: Final = re.compile(f"\r\n|[{_LINE_BREAKS}]")
# Not a space or a line break alone. It begins with one character, which `re` looks for fast.
_UNSQUEEZED: Final = re.compile(rf"\s(?:\s+|(?<=[^ {_LINE_BREAKS}]))")

# All combining marks, and more: those that Unicode counts as letters are named, and bytes that are
# not UTF-8 are none. More than 30 in a row do not occur in text (UAX #15 section 13, Stream-Safe
# Text Format).
_LONG_RUN_OF_MARKS: Final = re.compile(r"(?:[^\w\s\x00-\x7f\ud800-\udfff]|[\uff9e\uff9f]){31,}+")

_BATCH: Final = 4096

T = TypeVar("T")

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
Algorithm = Literal[
    "blake2b",
    "blake2s",
    "md5",
    "sha1",
    "sha224",
    "sha256",
    "sha384",
    "sha3_224",
    "sha3_256",
    "sha3_384",
    "sha3_512",
    "sha512",
]


def reverse(text: str) -> str:
    """Turn the order of the characters round, accents and emoji sequences kept whole.

    A character is an extended grapheme cluster (UAX #29); CR LF is one. A byte that is not UTF-8
    is one too, whatever follows it.
    """
    if text.isascii() and "\r\n" not in text:
        return text[::-1]
    # stringzilla would attach a mark to an undecodable byte, so it is given none.
    runs = (run[0] for run in _DECODED_OR_NOT.finditer(text))
    return _join_backwards(runs, lambda batch: "".join(map(_reverse_clusters, batch)))


def _reverse_clusters(text: str) -> str:
    if len(text) == 1 or "\ud800" <= text[0] <= "\udfff":
        return text[::-1]
    return _join_backwards(stringzilla.utf8_graphemes(text), lambda batch: b"".join(batch).decode())


def _join_backwards(parts: Iterable[T], join: Callable[[list[T]], str]) -> str:
    """Join parts last to first; as objects, 80 bytes a character, only a batch exists at once."""
    source, joined = iter(parts), list[str]()
    while batch := list(islice(source, _BATCH)):
        batch.reverse()
        joined.append(join(batch))
    joined.reverse()
    return "".join(joined)


def strip(text: str) -> str:
    """Remove white space, line breaks included, from both ends."""
    return text.strip()


def squeeze(text: str) -> str:
    """Turn each run of white space into one space, or into its first line break if it has one.

    Line breaks come out as sent, CR LF whole. A run at an end is squeezed too, not removed.
    """
    return _UNSQUEEZED.sub(_squeeze_run, text)


def _squeeze_run(run: re.Match[str]) -> str:
    line_break = _LINE_BREAK.search(run[0])
    return line_break[0] if line_break else " "


def normalize(text: str, *, form: Form = "NFC") -> str:
    """Bring equal-looking text to equal code points: e + combining acute becomes é.

    Args:
        text: any text.
        form: NFC composes, NFD decomposes; NFKC and NFKD also replace compatibility characters, ﬁ
            by fi (UAX #15).
    """
    if text.isascii():
        return text
    decomposition: Form = "NFKD" if "K" in form else "NFD"

    def put_in_order(run: re.Match[str]) -> str:
        # By way of these each character is one object, however often it occurs.
        decomposed = {character: to_form(decomposition, character) for character in set(run[0])}
        marks = "".join(map(decomposed.__getitem__, run[0]))
        shared = {character: character for character in set(marks)}
        ordered: list[str] = []
        for _, group in groupby(map(shared.__getitem__, marks), lambda mark: combining(mark) > 0):
            ordered += sorted(group, key=combining)
        return "".join(ordered)

    # CPython before its issue 149079 was solved (2026) sorts marks in quadratic time, half a second
    # for 64 KiB of them. What is sorted already, it only walks through.
    return to_form(form, _LONG_RUN_OF_MARKS.sub(put_in_order, text))


def digest(data: bytes, *, algorithm: Algorithm = "sha256") -> bytes:
    """Return a message's hash in lower-case hexadecimal.

    Args:
        data: the whole message.
        algorithm: one of those of fixed length that every Python has.
    """
    digest_of = hashlib.new(algorithm, data, usedforsecurity=False)
    return digest_of.hexdigest().encode("ascii")


def identity(data: bytes) -> bytes:
    """Return each message back unchanged."""
    return data
