"""Letters: their case, by Unicode's full mappings for text, by table for ASCII; classical ciphers.

Upper-casing and case folding look at one character at a time, so plain functions stream as they
are. Lower-casing does not: a Greek capital sigma becomes ς at the end of a word and σ elsewhere
(Unicode Standard, section 3.13, Final_Sigma), so what surrounds it decides, however far away a cut
has put it. Title-casing and swapping lower-case some letters, hence the same.

The properties behind the rule, Cased and Case_Ignorable, are not exposed by CPython. They need not
be: `str.lower` itself is asked what it makes of a sigma after, or before, the text in question.

The ciphers are exercises, not protection; what is no ASCII letter stays, so UTF-8 text stays UTF-8.
"""

import re
from collections.abc import Callable
from functools import cache
from string import ascii_letters
from typing import Final

import stringzilla

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
            if self._is_open(text[last:]):
                self._held = text[last:]
                start = len(text)
        output.append(self._settle(text[start:]))
        return "".join(output)

    def finish(self) -> str:
        """End the text; return what was held back."""
        held, self._held = self._held, ""
        return self._settle(held)

    def _is_open(self, tail: str) -> bool:
        """Say whether the output for `tail` depends on what comes after it."""
        text = self._context + tail
        return not self._convert(text + "a").startswith(self._convert(text))

    def _settle(self, text: str, ahead: str = "") -> str:
        """Convert `text`, which is followed by `ahead` or by nothing that matters."""
        if not text:
            return ""
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
    """Return the table that moves letters by 0 to 25 places: 26 tables at the most."""
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
