"""Ciphers on ASCII letters."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uppercase.transforms.text import caesar, rot13


@pytest.mark.parametrize(
    ("shift", "text", "secret"),
    [
        (3, b"xyz XYZ", b"abc ABC"),
        (-3, b"abc ABC", b"xyz XYZ"),
        (0, b"same", b"same"),
        (26, b"same", b"same"),
        (26 * 10**30 + 1, b"a", b"b"),
        (1, "aé1!\n".encode(), "bé1!\n".encode()),
        (5, bytes(range(0x80, 0x100)), bytes(range(0x80, 0x100))),
    ],
)
def test_caesar_moves_letters_only(shift: int, text: bytes, secret: bytes) -> None:
    assert caesar(text, shift=shift) == secret


def test_caesar_shifts_by_13_unless_told_otherwise() -> None:
    assert caesar(b"Hello") == b"Uryyb"


@given(st.binary(), st.integers(), st.integers())
def test_shifts_add_up(data: bytes, first: int, second: int) -> None:
    """In particular the opposite shift gives the text back."""
    assert caesar(caesar(data, shift=first), shift=second) == caesar(data, shift=first + second)
    assert caesar(caesar(data, shift=first), shift=-first) == data


@given(st.binary())
def test_rot13_twice_gives_the_text_back(data: bytes) -> None:
    assert rot13(rot13(data)) == data
    assert rot13(data) == caesar(data, shift=13)


def test_rot13_swaps_the_halves_of_the_alphabet() -> None:
    letters = string.ascii_letters.encode()
    assert rot13(letters) == b"nopqrstuvwxyzabcdefghijklmNOPQRSTUVWXYZABCDEFGHIJKLM"


@given(st.binary(), st.binary(), st.integers())
def test_ciphers_stream(a: bytes, b: bytes, shift: int) -> None:
    assert caesar(a, shift=shift) + caesar(b, shift=shift) == caesar(a + b, shift=shift)
    assert rot13(a) + rot13(b) == rot13(a + b)
