"""Transforms that each break one law and keep the others."""

import itertools
import time
from typing import ClassVar

from zope.interface import implementer

from uppercase import IStreamTransform, ITransform, ITransformStream, stream_transform, transform


@implementer(ITransform)
class GivesText:
    """What comes out is no bytes."""

    def transform(self, message: bytes) -> bytes:
        return message.decode("utf-8", "replace") if b"B" in message else message  # type: ignore[return-value]


@transform
def half_a_pair(text: str) -> str:
    """Text comes out that UTF-8 cannot hold."""
    return text.replace("€", "\ud83d")


@transform
def first_letter(text: str) -> str:
    """The empty message was not thought of."""
    return text[0] + text


@transform
def strictly_utf_8(data: bytes) -> bytes:
    """Bytes that are not UTF-8 were not thought of."""
    return data.decode().upper().encode()


_numbers = itertools.count()


@transform
def numbered(data: bytes) -> bytes:
    """No two replies are the same."""
    return b"%d %s" % (next(_numbers), data)


@transform
class CountsItsCalls:
    """A call leaves something behind in the instance."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, data: bytes) -> bytes:
        self.calls += 1
        return b"%d %s" % (self.calls, data)


@stream_transform
class SharedRest:
    """What one stream holds back is in a variable of all."""

    rest: ClassVar[bytes] = b""

    def __init__(self) -> None:
        type(self).rest = b""

    def feed(self, data: bytes) -> bytes:
        data = self.rest + data
        whole = len(data) - len(data) % 2
        type(self).rest = data[whole:]
        return data[:whole]

    def finish(self) -> bytes:
        return self.rest


@stream_transform
class DecodesChunks:
    """A chunk is taken for whole characters."""

    def feed(self, data: bytes) -> bytes:
        return data.decode("utf-8", "replace").encode()

    def finish(self) -> bytes:
        return b""


@transform(streaming=True)
def title(text: str) -> str:
    """Declared to stream, but each chunk begins with a capital."""
    return text.title()


@implementer(IStreamTransform)
class TwoMinds:
    """A stream does something else than a message."""

    def transform(self, message: bytes) -> bytes:
        return message.upper()

    def open_stream(self) -> ITransformStream:
        return Unchanged()


@implementer(IStreamTransform)
class NumbersMessages(TwoMinds):
    """No two replies are the same, but those of a stream."""

    def transform(self, message: bytes) -> bytes:
        return b"%d %s" % (next(_numbers), message)


@implementer(ITransformStream)
class Unchanged:
    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


@stream_transform
class NeedsInput:
    """A stream that ends before its first byte was not thought of."""

    def feed(self, data: bytes) -> bytes:
        self.fed = True
        return data

    def finish(self) -> bytes:
        return b"." if self.fed else b""


@stream_transform
class TakesOver:
    """What a stream holds back when its client goes away is given to the next one."""

    left: ClassVar[bytes] = b""

    def __init__(self) -> None:
        self.rest = self.left

    def feed(self, data: bytes) -> bytes:
        data = self.rest + data
        whole = len(data) - len(data) % 2
        self.rest = type(self).left = data[whole:]
        return data[:whole]

    def finish(self) -> bytes:
        type(self).left = b""
        return self.rest


@transform
def hundredfold(data: bytes) -> bytes:
    """The output has no bound."""
    return data * 100


@transform
def quadratic(data: bytes) -> bytes:
    """Everybody else waits: 1.1 s at 16 KiB would be 18 s at 64 KiB, which nobody tries."""
    time.sleep(1.1 * (len(data) / 16384) ** 2)
    return data
