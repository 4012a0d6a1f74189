"""Which datagram to send when, and which reply is whose turn: a sliding window without sockets.

Time is whatever number of seconds the caller passes; nothing here reads a clock or does I/O.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from uppercase.limits import UDP_MAX_TIMEOUT

__all__ = ["Settled", "Window", "backoff"]


def backoff(timeout: float, attempt: int) -> float:
    """Return the seconds to wait after an attempt: `timeout` first, then twice as long each."""
    # A power beyond any time-out would overflow.
    return max(timeout, min(timeout * 2.0 ** min(attempt - 1, 64), UDP_MAX_TIMEOUT))


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one message.

    Attributes:
        number: 1 for the first message.
        trailer: what was given to `add` with the message.
        reply: its reply, or None if all attempts went unanswered.
    """

    number: int
    trailer: bytes
    reply: bytes | None


@dataclass(slots=True)
class _Entry:
    number: int
    message: bytes
    trailer: bytes
    due: float
    attempts: int = 1
    settled: bool = False
    reply: bytes | None = None


class Window:
    """Messages under way, from the oldest unsettled one on.

    Args:
        size: how many there may be; it bounds the replies that wait for their turn, too.
        attempts: how often a message is sent at the most.
        timeout: seconds to wait for the reply to the first attempt.
    """

    def __init__(self, *, size: int, attempts: int, timeout: float) -> None:
        self._size = size
        self._attempts = attempts
        self._timeout = timeout
        self._entries: deque[_Entry] = deque()
        self._added = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is under way."""
        return not self._entries

    @property
    def has_room(self) -> bool:
        """Whether one more message may be added."""
        return len(self._entries) < self._size

    @property
    def next_due(self) -> float | None:
        """When `due` has something to do, or None."""
        return min((entry.due for entry in self._entries if not entry.settled), default=None)

    def add(self, message: bytes, trailer: bytes, now: float) -> int:
        """Take a message that is sent for the first time now; return its number."""
        self._added += 1
        due = now + backoff(self._timeout, 1)
        self._entries.append(_Entry(self._added, message, trailer, due))
        return self._added

    def due(self, now: float) -> list[tuple[int, bytes]]:
        """Return number and message of what is to be sent again now.

        A message whose last attempt has waited long enough is settled without a reply.
        """
        again = []
        for entry in self._entries:
            if entry.settled or entry.due > now:
                continue
            if entry.attempts >= self._attempts:
                entry.settled = True
                continue
            entry.attempts += 1
            entry.due = now + backoff(self._timeout, entry.attempts)
            again.append((entry.number, entry.message))
        return again

    def answer(self, number: int, reply: bytes) -> None:
        """Take a reply; only the first one to a message counts."""
        for entry in self._entries:
            if entry.number == number and not entry.settled:
                entry.settled = True
                entry.reply = reply

    def restart(self, now: float) -> None:
        """Forget all attempts: everything unanswered is due now, as if for the first time."""
        for entry in self._entries:
            if not entry.settled:
                entry.attempts = 0
                entry.due = now

    def take_settled(self) -> Iterator[Settled]:
        """Give, in the order of the messages, what is settled and has nothing unsettled before."""
        while self._entries and self._entries[0].settled:
            entry = self._entries.popleft()
            yield Settled(entry.number, entry.trailer, entry.reply)
