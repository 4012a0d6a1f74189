"""The messages of a bench and the replies that they must have, all worked out beforehand.

The messages differ, so that a reply in another's place is noticed, and are sent in turn again and
again.
"""

from functools import cached_property
from itertools import accumulate
from typing import Final

from uppercase.commands._expectation import Expect
from uppercase.errors import UserError
from uppercase.limits import BENCH_BLOCK, BENCH_MAX_MEMORY, BENCH_MIN_SIZE, BENCH_UDP_MESSAGES

__all__ = ["Workload"]

_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz"


class Workload:
    """A cycle of messages.

    Args:
        expect: gives the reply to a message.
        size: bytes of each message.
        number: how many different messages.
        ending: what ends each message and its reply.

    Attributes:
        messages: what to send, one by one.
        replies: what must come back for each.

    Raises:
        UserError: the size is too small, or all of it would take too much memory.
    """

    def __init__(self, expect: Expect, size: int, number: int, ending: bytes) -> None:
        if size < BENCH_MIN_SIZE:
            raise UserError(
                f"got a size of {size} bytes; messages that differ have {BENCH_MIN_SIZE} or more"
            )
        if size * number > BENCH_MAX_MEMORY:
            raise UserError(
                f"got a size of {size} bytes for {number} messages under way, which would take "
                f"over {BENCH_MAX_MEMORY} bytes; a smaller --size, --pipeline or --rate fits"
            )
        self.size = size
        length = size - len(ending)
        padding = _LETTERS * (length // len(_LETTERS) + 1)
        texts = [(b"m%d" % index + padding)[:length] for index in range(number)]
        self.messages = [text + ending for text in texts]
        self.replies = [expect(text) + ending for text in texts]

    @classmethod
    def for_stream(cls, expect: Expect, size: int, pipeline: int) -> "Workload":
        """Return lines, enough of them that one call can move `BENCH_BLOCK` bytes."""
        number = max(2, pipeline, BENCH_BLOCK // max(size, 1))
        return cls(expect, size, number, b"\n")

    @classmethod
    def for_datagrams(cls, expect: Expect, size: int, under_way: int) -> "Workload":
        """Return datagrams, many more than are under way at once, each with a reply of its own."""
        fitting = BENCH_MAX_MEMORY // max(size, 1)
        number = max(2 * under_way, min(BENCH_UDP_MESSAGES, fitting))
        workload = cls(expect, size, number, b"")
        if len(workload.index) < number:
            raise UserError(
                "several messages have the same reply, so datagrams cannot be told apart; "
                "a transform whose reply depends on the message is needed"
            )
        return workload

    @cached_property
    def index(self) -> dict[bytes, int]:
        """The number of the message that has a certain reply."""
        return {reply: number for number, reply in enumerate(self.replies)}

    @cached_property
    def outgoing(self) -> bytes:
        """The cycle twice, so that a whole one can be cut out wherever it begins."""
        return b"".join(self.messages) * 2

    @cached_property
    def incoming(self) -> bytes:
        """The cycle of replies twice."""
        return b"".join(self.replies) * 2

    @cached_property
    def ends(self) -> list[int]:
        """Where each reply of the cycle ends."""
        return list(accumulate(map(len, self.replies)))
