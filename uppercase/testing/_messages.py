"""The messages that the contract kit tries: what has broken text and stream code before.

Small ones are drawn and shrunk by hypothesis; it simplifies towards what comes first here.
"""

import random
from collections.abc import Iterator
from itertools import product
from typing import Final

from hypothesis import strategies as st

from uppercase.limits import KIB, KIT_LARGE

_TEXT: Final = tuple(
    text.encode()
    for text in (
        "a", "B", "1", " ", "\n", "\r\n",
        "é",  # two bytes
        "Σ",  # lower case depends on what follows
        "ß", "ŉ", "İ",  # change their length with their case
        "e\u0301",  # a letter and a combining mark
        "ﬁ", "€", "\u2028",
        "👩\u200d👩\u200d👧",  # one character to its reader
        "\0", "=", ":", ",", "aGk=", "6869",
    )
)  # fmt: skip

_NOT_UTF_8: Final = (
    b"\xff",
    b"\xc3",  # the first byte of two
    b"\xa9",  # the second of two
    b"\xf0\x9f\x98",  # three of four
    b"\xc0\x80",  # an overlong NUL
    b"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
)


def _joined(*fragments: bytes) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(fragments), max_size=8).map(b"".join)


TEXT: Final = _joined(*_TEXT)
"""Messages that are UTF-8."""

_FRAGMENTS: Final = (*_TEXT, *_NOT_UTF_8)

CORPUS: Final = tuple(
    sorted((b"", *_FRAGMENTS, *map(b"".join, product(_FRAGMENTS, repeat=2))), key=len)
)
"""Messages that are always tried, short ones first: a fragment, two of them. What is drawn adds
longer ones."""

FEW: Final = (b"", b"a", b"B", b"1", b"\n", "é".encode(), "Σ".encode(), b"=", b"\xff", b"\xc3")
"""Messages that are always tried two by two."""

_BYTES: Final = sorted(
    (bytes([byte]) for byte in range(0x100)), key=lambda byte: (not byte.isalpha(), byte)
)

ANY: Final = st.one_of(
    TEXT,
    _joined(*_FRAGMENTS),
    st.lists(st.sampled_from(_BYTES), max_size=32).map(b"".join),
)
"""Messages of any bytes."""

INVALID: Final = st.tuples(TEXT, st.sampled_from(_NOT_UTF_8), TEXT).map(b"".join)
"""Messages that are not UTF-8, most of them."""

CUTS: Final = st.integers(0, 64)
"""Where to cut, in bytes."""


def large_messages() -> Iterator[bytes]:
    """Return messages of growing length, up to `KIT_LARGE`: repetitions, then random bytes."""
    size = KIB
    while size <= KIT_LARGE:
        for unit in (b"a", b" ", b"a ", "é".encode(), "\u0301".encode(), b"\xff"):
            yield unit * (size // len(unit))
        yield random.Random(size).randbytes(size)
        size *= 4
