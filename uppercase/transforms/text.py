"""Text: the case of letters and old ciphers; order of characters, white space and Unicode form.

Upper-casing and case folding look at one character at a time, so plain functions stream as they
are. Lower-casing does not: a Greek capital sigma becomes ς at the end of a word and σ elsewhere
(Unicode Standard, section 3.13, Final_Sigma), so what surrounds it decides, however far away a cut
has put it. Title-casing and swapping lower-case some letters, hence the same.

The properties behind the rule, Cased and Case_Ignorable, are not exposed by CPython. They need not
be: `str.lower` itself is asked what it makes of a sigma after, or before, the text in question.

The ciphers are exercises, not protection; all but ASCII letters stay, so UTF-8 text stays UTF-8.

What is about a whole message takes time in proportion to it, whatever it holds.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from itertools import groupby, islice
from string import ascii_letters
from typing import Final, Literal, TypeVar
from unicodedata import combining
from unicodedata import normalize as to_form

import stringzilla

T = TypeVar("T")

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

MAX_LOOKAHEAD: Final = 256
"""How many characters after a sigma may decide it; a sigma still open then counts as final, so that
no input is held back without bound. Real words need a few: text in the Stream-Safe Format (UAX #15
section 13) has no more than 30 marks in a row, and rows of dots end lines."""

_SIGMA: Final = "Σ"
_WINDOW: Final = re.compile(f"{_SIGMA}[^{_SIGMA}]{{{MAX_LOOKAHEAD}}}")

_LOWER, _UPPER = ascii_letters[:26].encode(), ascii_letters[26:].encode()
_TO_UPPER: Final = bytes.maketrans(_LOWER, _UPPER)
_TO_LOWER: Final = bytes.maketrans(_UPPER, _LOWER)

translate: Final[Callable[[bytes, bytes], bytes]] = stringzilla.translate
"""Return bytes with each replaced by its entry in a table of 256. It took 0.8 µs for 64 KiB where
`bytes.translate` and `bytes.upper` took 40 µs, and for a dozen bytes the difference was lost in the
call. No function of ours is around it: that would be a third of what a short message costs."""


def uppercase(text: str) -> str:
    """Turn letters into capitals, by Unicode: straße becomes STRASSE."""
    return text.upper()


def casefold(text: str) -> str:
    """Remove case differences, for comparing: Straße and STRASSE become strasse."""
    return text.casefold()


def ascii_uppercase(data: bytes) -> bytes:
    """Turn a-z into A-Z and keep every other byte, hence the length."""
    return translate(data, _TO_UPPER)


def ascii_lowercase(data: bytes) -> bytes:
    """Turn A-Z into a-z and keep every other byte, hence the length."""
    return translate(data, _TO_LOWER)


def _shortest_context(text: str) -> str:
    """Return the shortest text after which the next character is converted as after `text`.

    Two facts matter to what follows: whether the last character that is not case-ignorable is
    cased (sigma's rule), and whether the very last character is cased (title case's rule).
    """
    width = 16
    while True:
        tail = text[-width:]
        in_word = (tail + _SIGMA).lower().endswith("ς")
        # If an "A" in front changes the answer, the tail is case-ignorable throughout and the
        # text before it decides. Growing by a factor keeps this linear, and without a loop over
        # characters.
        if in_word or width >= len(text) or not ("A" + tail + _SIGMA).lower().endswith("ς"):
            break
        width *= 16
    after_cased = (text[-1:] + "a").title().endswith("a")
    if in_word:
        return "A" if after_cased else "A."
    return "ʰ" if after_cased else ""  # U+02B0 is cased, and case-ignorable too


class _SigmaStream:
    """Convert a text in chunks, with the result of converting it at once.

    A sigma whose fate is open is held back with what follows it, until that decides or
    `MAX_LOOKAHEAD` characters have not; any other text is answered at once. The limit is counted
    in characters from the sigma, so it falls on the same place at every cut.
    """

    _convert: Callable[[str], str]

    def __init__(self) -> None:
        self._context = ""
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next characters; return all output that is decided."""
        text = self._held + text
        self._held = ""
        if _SIGMA not in text:
            return self._settle(text)
        output = []
        start = 0
        for window in _WINDOW.finditer(text):
            # The sigma at its start is decided by now, and there is no other in it.
            output.append(self._settle(text[start : window.end()]))
            start = window.end()
        last = text.rfind(_SIGMA, start)
        if last >= 0:
            output.append(self._settle(text[start:last], ahead=_SIGMA))
            start = last
            held = self._context + text[last:]
            # Whether what comes after it decides.
            if not self._convert(held + "a").startswith(self._convert(held)):
                self._held = text[last:]
                start = len(text)
        output.append(self._settle(text[start:]))
        return "".join(output)

    def finish(self) -> str:
        """End the text; return what was held back."""
        held, self._held = self._held, ""
        return self._settle(held)

    def _settle(self, text: str, ahead: str = "") -> str:
        """Convert `text`, which is followed by `ahead` or by nothing that matters."""
        context = self._context
        # Each context, and a sigma ahead, is as long converted as it is now.
        converted = self._convert(context + text + ahead)
        self._context = _shortest_context(context + text)
        return converted[len(context) : len(converted) - len(ahead)]


class Lowercase(_SigmaStream):
    """Turn capitals into small letters, by Unicode: ΟΔΟΣ becomes οδος."""

    _convert = staticmethod(str.lower)


class Titlecase(_SigmaStream):
    """Begin each word, and only that, with a capital: hello world becomes Hello World."""

    _convert = staticmethod(str.title)


class Swapcase(_SigmaStream):
    """Turn capitals into small letters and small letters into capitals."""

    _convert = staticmethod(str.swapcase)


@cache
def _rotation(places: int) -> bytes:
    """Return the table that moves letters by 0 to 25 places: at most 26 tables."""
    rotated = (letters[places:] + letters[:places] for letters in (_LOWER, _UPPER))
    return bytes.maketrans(_LOWER + _UPPER, b"".join(rotated))


def caesar(data: bytes, *, shift: int = 13) -> bytes:
    """Move each ASCII letter forward in the alphabet, from Z on to A.

    Args:
        data: any bytes; only A-Z and a-z change, and keep their case.
        shift: how many places; negative ones move back, so -3 undoes 3.
    """
    return translate(data, _rotation(shift % 26))


def rot13(data: bytes) -> bytes:
    """Swap the halves of the alphabet: twice gives the text back."""
    return translate(data, _rotation(13))


_DECODED_OR_NOT: Final = re.compile("[^\ud800-\udfff]+|[\ud800-\udfff]+")
_LINE_BREAKS: Final = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # str.splitlines's
_LINE_BREAK: Final = re.compile(f"\r\n|[{_LINE_BREAKS}]")
# Not a space or a line break alone. It begins with one character, which `re` looks for fast.
_UNSQUEEZED: Final = re.compile(rf"\s(?:\s+|(?<=[^ {_LINE_BREAKS}]))")

# All combining marks, and more: those that Unicode counts as letters are named, and bytes that are
# not UTF-8 are not marks. More than 30 in a row do not occur in text (UAX #15 section 13,
# Stream-Safe Text Format).
_LONG_RUN_OF_MARKS: Final = re.compile(r"(?:[^\w\s\x00-\x7f\ud800-\udfff]|[\uff9e\uff9f]){31,}+")

_BATCH: Final = 4096


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
    return _UNSQUEEZED.sub(lambda run: (_LINE_BREAK.search(run[0]) or " ")[0], text)


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


def identity(data: bytes) -> bytes:
    """Return each message back unchanged."""
    return data
