"""What type checkers see of an author's use of the decorators.

This file is checked by mypy, not run: each line that must not pass carries an ignore with the error
that it must give, and an ignore that is not needed is an error as well.
"""

from collections.abc import Coroutine
from typing import Any, assert_type

from twisted.internet.defer import Deferred

import uppercase.testing
from uppercase import stream_transform, transform


@transform
def caesar(text: str, *, shift: int = 13) -> str:
    return text


@transform(summary="Bytes", streaming=True)
def flip(data: bytes, *, times: int) -> bytes:
    return data * times


@transform
async def later(text: str) -> str:
    return text


@transform(name="deferred")
def deferred(text: str) -> Deferred[str]:
    return Deferred()


@transform
class Repeat:
    def __init__(self, *, times: int = 2) -> None:
        self.times = times

    def __call__(self, text: str) -> str:
        return text * self.times


@transform
class Session:
    async def __call__(self, data: bytes) -> bytes:
        return data


@stream_transform
class Stream:
    def feed(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


assert_type(caesar("abc", shift=1), str)
assert_type(flip(b"abc", times=2), bytes)
assert_type(caesar.name, str)
_ = assert_type(later("abc"), Coroutine[Any, Any, str])
assert_type(deferred("abc"), Deferred[str])
assert_type(Repeat(times=3)("a"), str)
__ = assert_type(Session()(b"a"), Coroutine[Any, Any, bytes])

caesar(b"abc")  # type: ignore[arg-type]
caesar("abc", shift="1")  # type: ignore[arg-type]
caesar("abc", shfit=1)  # type: ignore[call-arg]
flip(b"abc")  # type: ignore[call-arg]


@transform  # type: ignore[arg-type, type-var]
def of_a_number(number: int) -> int:
    return number


@transform()  # type: ignore[arg-type, type-var]
def of_nothing_known(number: int) -> int:
    return number


@transform  # type: ignore[type-var]
def text_to_bytes(text: str) -> bytes:
    return b""


@transform  # type: ignore[type-var]
async def text_to_bytes_later(text: str) -> bytes:
    return b""


@transform(stream=True)  # type: ignore[call-overload, untyped-decorator]
def wrong_option(text: str) -> str:
    return text


class OfANumber:
    async def __call__(self, number: int) -> int:
        return number


transform(OfANumber)  # type: ignore[arg-type, type-var]


class NoFinish:
    def feed(self, text: str) -> str:
        return text


stream_transform(NoFinish)  # type: ignore[type-var]

___ = uppercase.transfrom  # type: ignore[attr-defined]
____ = uppercase.testing.conect  # type: ignore[attr-defined]
