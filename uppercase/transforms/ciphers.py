"""Classical ciphers on ASCII letters; every other byte stays, so UTF-8 text stays UTF-8.

They are exercises, not protection.
"""

from functools import cache

from uppercase.transforms.tables import LOWER, UPPER, translate


@cache
def _rotation(places: int) -> bytes:
    """Return the table that moves letters by 0 to 25 places: 26 tables at the most."""
    rotated = (letters[places:] + letters[:places] for letters in (LOWER, UPPER))
    return bytes.maketrans(LOWER + UPPER, b"".join(rotated))


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
