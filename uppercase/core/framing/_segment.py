"""The framing `segment`: whatever one read delivered is one message.

Then the conversation is over. This is what the servers of textbooks do (`recv` once, `send` once,
`close`). TCP keeps no message boundaries: where the network cuts a request, part of it is lost.
"""

from collections.abc import Iterator

from uppercase.core.framing._base import Framer, Pair
from uppercase.errors import MessageTooLong

__all__ = ["SegmentFramer"]


class SegmentFramer(Framer):
    """One message a connection; input that comes after it is dropped on purpose."""

    __slots__ = ()

    one_message = True

    def wrap(self, reply: bytes, trailer: bytes) -> bytes:
        """Return the reply as it is."""
        return reply

    def _split(self, data: bytes) -> Iterator[Pair]:
        if not data:
            return
        self._end()
        if len(data) > self._limit:
            raise MessageTooLong(self._limit)
        yield data, b""

    def _flush(self) -> Iterator[Pair]:
        self._end()
        yield from ()
