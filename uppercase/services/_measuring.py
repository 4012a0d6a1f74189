"""A transform whose calls are measured, and the histogram of how long they took."""

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator
from inspect import isawaitable
from time import perf_counter
from typing import Any, Final

from zope.interface import alsoProvides, implementer

from uppercase.interfaces import IStreamTransform, ITransform, ITransformStream

BOUNDS: Final = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Upper bounds of the histograms' buckets, in seconds: a table lookup takes 1e-6, a hung transform
any number, and two a decade tell what there is to tell."""


class Histogram:
    """How many values were at most as large as each bound, and their sum."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Take one value."""
        self._counts[bisect_left(BOUNDS, value)] += 1
        self._sum += value

    def numbers(self, *key: str) -> Iterator[tuple[tuple[str, ...], float]]:
        """Return its part of a snapshot."""
        total = 0
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], self._counts, strict=True):
            total += count
            yield (*key, bound), total
        yield (*key, "sum"), self._sum


@implementer(ITransform)
class Measured:
    """A transform whose calls are measured.

    Args:
        inner: the transform.
        took: takes the seconds of each call.

    Attributes:
        messages: calls so far; a stream's end is none.
        received: bytes given to it.
        sent: bytes that it gave.
    """

    def __init__(self, inner: ITransform, took: Histogram) -> None:
        self._inner: Any = inner
        self._took = took
        self.messages = self.received = self.sent = 0
        if IStreamTransform.providedBy(inner):
            alsoProvides(self, IStreamTransform)

    def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
        result: bytes | Awaitable[bytes] = self.call(self._inner.transform, message)
        return result

    def open_stream(self) -> ITransformStream:
        return _MeasuredStream(self._inner.open_stream(), self)

    def call(self, function: Callable[..., Any], *data: bytes) -> Any:
        """Call a function of the transform, or of a stream of it."""
        self.messages += len(data)
        self.received += sum(map(len, data))
        started, awaited = perf_counter(), False
        try:
            result = function(*data)
            awaited = not isinstance(result, bytes) and isawaitable(result)
        finally:
            if not awaited:
                self._took.observe(perf_counter() - started)
        if awaited:
            return self._wait(result, started)
        # What is neither is the chain's matter, which names who gave it.
        self.sent += len(result) if isinstance(result, bytes) else 0
        return result

    async def _wait(self, result: Awaitable[bytes], started: float) -> bytes:
        try:
            reply = await result
        finally:
            self._took.observe(perf_counter() - started)
        self.sent += len(reply) if isinstance(reply, bytes) else 0
        return reply


@implementer(ITransformStream)
class _MeasuredStream:
    def __init__(self, inner: ITransformStream, owner: Measured) -> None:
        self._inner = inner
        self._owner = owner

    def feed(self, data: bytes) -> bytes:
        result: bytes = self._owner.call(self._inner.feed, data)
        return result

    def finish(self) -> bytes:
        result: bytes = self._owner.call(self._inner.finish)
        return result
