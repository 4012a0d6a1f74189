"""The messages that the contract kit tries: what has broken text and stream code before.

Small ones are drawn and shrunk by hypothesis; it simplifies towards what comes first here.
"""

import random
from collections.abc import Iterator
from typing import Final

from uppercase.limits import KIB, KIT_LARGE

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "the contract kit needs hypothesis; install it with: pip install 'uppercase[testing]'"
    ) from error

__all__ = ["ANY", "CUTS", "INVALID", "NOT_UTF_8", "TEXT", "large_messages"]

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

NOT_UTF_8: Final = (
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

ANY: Final = st.one_of(TEXT, _joined(*_TEXT, *NOT_UTF_8), st.binary(max_size=64))
"""Messages of any bytes."""

INVALID: Final = st.tuples(TEXT, st.sampled_from(NOT_UTF_8), TEXT).map(b"".join)
"""Messages that are not UTF-8, most of them."""

CUTS: Final = st.integers(0, 64)
"""Where to cut, in bytes."""


def large_messages() -> Iterator[bytes]:
    """Give messages of growing length, up to `KIT_LARGE`: repetitions, then random bytes."""
    size = KIB
    while size <= KIT_LARGE:
        for unit in (b"a", b" ", b"a ", "é".encode(), "\u0301".encode(), b"\xff"):
            yield unit * (size // len(unit))
        yield random.Random(size).randbytes(size)
        size *= 4
