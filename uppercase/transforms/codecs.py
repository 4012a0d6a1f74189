"""Bytes as text and back: base64 (RFC 4648 section 4), hexadecimal (section 8, base16), digests.

Encoders take any bytes. Decoders skip white space, as line-wrapped text (RFC 2045 section 6.8)
needs, and accept nothing else outside the alphabet. What a decoder gives before a fault is the
same at every cut: all whole quanta before the offending byte. A chunk that ends in a fault
therefore first gives its output; the error is raised at once if there is none, else by the next
call. Offsets count all bytes of the input, from 0.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from binascii import a2b_base64, b2a_base64, hexlify, unhexlify
from itertools import islice
from typing import ClassVar, Final, Literal

from uppercase.errors import Rejected

_WHITE_SPACE: Final = b" \t\n\r\v\f"

_PADDED_TEXT: Final = re.compile(rb"[^=]+=*")


class Base64Encode:
    """Write bytes as base64, in one line, padded at the end: hello becomes aGVsbG8=."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return their base64 as far as groups of 3 are whole."""
        data = self._rest + data
        whole = len(data) - len(data) % 3
        self._rest = data[whole:]
        return b2a_base64(data[:whole], newline=False)

    def finish(self) -> bytes:
        """End the input; return the last group, padded."""
        rest, self._rest = self._rest, b""
        return b2a_base64(rest, newline=False)


class _Decoder(ABC):
    """What decoders share: quanta over chunks, white space, and faults in their place.

    A subclass says what a quantum is.
    """

    _quanta: ClassVar[re.Pattern[bytes]]
    """Matches all of the whole quanta that a text starts with."""
    _start: ClassVar[re.Pattern[bytes]]
    """Matches the longest part of a text that more input could complete to a quantum."""
    _unfinished: ClassVar[str]
    """Why a text cannot end within a quantum."""

    def __init__(self) -> None:
        self._rest = b""  # of a quantum, without white space
        self._offset = 0
        self._fault: Rejected | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the next text; return the bytes of its whole quanta."""
        if self._fault is not None:
            raise self._fault
        text = self._rest + data.translate(None, _WHITE_SPACE)
        whole = _length(self._quanta, text)
        output = self._decode(text[:whole])
        rest = text[whole:]
        valid = _length(self._start, rest)
        if valid < len(rest):
            places = (place for place, each in enumerate(data) if each not in _WHITE_SPACE)
            offset = self._offset + next(islice(places, whole + valid - len(self._rest), None))
            byte = rest[valid : valid + 1]
            reason = self._explain(rest[:valid], byte)
            self._fault = Rejected(f"got byte {_show(byte)} at offset {offset}: {reason}")
            if not output:
                raise self._fault
        self._offset += len(data)
        self._rest = rest
        return output

    def finish(self) -> bytes:
        """End the input, which must not be within a quantum."""
        if self._fault is not None:
            raise self._fault
        if self._rest:
            raise Rejected(
                f"got an end at offset {self._offset} after {self._rest.decode('ascii')!r}: "
                f"{self._unfinished}"
            )
        return b""

    @staticmethod
    @abstractmethod
    def _decode(quanta: bytes, /) -> bytes:
        """Return the bytes of whole quanta."""

    @abstractmethod
    def _explain(self, before: bytes, byte: bytes) -> str:
        """Say why `byte` cannot follow `before`, the start of a quantum."""


class Base64Decode(_Decoder):
    """Read base64 back into bytes, skipping white space: aGVsbG8= becomes hello.

    Padding ends one encoded text; the next may follow directly, so that texts which were encoded
    one by one are decoded one after another. Unused bits before padding must be zero (RFC 4648
    section 3.5 leaves that to the decoder): each byte string has one encoding.

    Raises:
        Rejected: a byte outside the alphabet, padding out of place, unused bits that are set, or
            an end within a quantum; the text names the byte and its offset.
    """

    # A quantum with padding must leave its unused bits zero: the last letter is one of these.
    # Nothing follows a repetition within: before CPython 3.11.5 a part of a quantum would match
    # (python/cpython#106052).
    _quanta = re.compile(
        rb"(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/][AQgw]=="
        rb"|[A-Za-z0-9+/][A-Za-z0-9+/][AEIMQUYcgkosw048]=)*+"
    )
    _start = re.compile(rb"[A-Za-z0-9+/][AQgw]=|[A-Za-z0-9+/]{0,3}+")
    _unfinished = "base64 comes in groups of 4 characters; it was cut short or its = are missing"

    @staticmethod
    def _decode(quanta: bytes, /) -> bytes:
        """Return the bytes of whole quanta; `a2b_base64` stops after the first padding."""
        if b"=" not in quanta:
            return a2b_base64(quanta)
        return b"".join(map(a2b_base64, _PADDED_TEXT.findall(quanta)))

    def _explain(self, before: bytes, byte: bytes) -> str:
        if before.endswith(b"="):
            return "a second = must follow the first"
        if byte == b"=" and len(before) < 2:
            return "padding stands after 2 or 3 characters of a group of 4"
        if byte == b"=":
            return f"the bits of {_show(before[-1:])} that this padding leaves unused are not zero"
        return "base64 is made of A-Z, a-z, 0-9, + and /, with = as padding"


class HexDecode(_Decoder):
    """Read hexadecimal back into bytes, skipping white space: 68 69 becomes hi.

    Raises:
        Rejected: a byte that is not a digit, or an odd number of digits; the text names the byte
            and its offset.
    """

    _quanta = re.compile(rb"(?:[0-9A-Fa-f]{2})*+")
    _start = re.compile(rb"[0-9A-Fa-f]?")
    _unfinished = "hexadecimal needs two digits a byte"
    _decode = staticmethod(unhexlify)

    def _explain(self, before: bytes, byte: bytes) -> str:
        return "hexadecimal is made of 0-9, a-f and A-F"


def hex_encode(data: bytes) -> bytes:
    """Write each byte as two hexadecimal digits, in lower case: hi becomes 6869."""
    return hexlify(data)


Algorithm = Literal[
    "blake2b", "blake2s", "md5", "sha1", "sha224", "sha256", "sha384",
    "sha3_224", "sha3_256", "sha3_384", "sha3_512", "sha512",
]  # fmt: skip


def digest(data: bytes, *, algorithm: Algorithm = "sha256") -> bytes:
    """Return a message's hash in lower-case hexadecimal.

    Args:
        data: the whole message.
        algorithm: one of those of fixed length that every Python has.
    """
    digest_of = hashlib.new(algorithm, data, usedforsecurity=False)
    return digest_of.hexdigest().encode("ascii")


def _length(pattern: re.Pattern[bytes], text: bytes) -> int:
    """Return how much of the start of `text` a pattern matches; it may match nothing."""
    match = pattern.match(text)
    return match.end() if match else 0


def _show(byte: bytes) -> str:
    """Return a byte as people look it up: its number, and its character if it has one."""
    character = byte.decode("latin-1")
    return f"0x{byte.hex()} ({character})" if "!" <= character <= "~" else f"0x{byte.hex()}"
