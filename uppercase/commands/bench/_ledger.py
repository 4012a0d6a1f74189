"""What a bench counts, and how it is paced; shared by streams and datagrams. No socket here."""

from dataclasses import dataclass, field
from typing import Protocol

from uppercase.commands.bench._latencies import Latencies
from uppercase.errors import ConnectionRefused, NetworkError

__all__ = ["Ledger", "Load", "Pace"]


@dataclass(slots=True)
class Ledger:
    """What there was so far, over all connections.

    Each message is one of answered (correctly, in time or late, or wrongly), lost or pending.

    Attributes:
        transmitted: messages handed over, or waiting to be because a connection is full.
        answered: replies to them, of whatever content.
        wrong: replies that were not as expected.
        stray: those of `wrong` that answered nothing, because nothing was awaited.
        late: those of `answered` that came after the time-out.
        lost: messages with no reply.
        duplicates: further correct replies; a stream has none.
        sent_bytes: bytes that the kernel took.
        received_bytes: bytes that came.
        lag: the longest time from when a message was planned to when it was offered.
        latencies: of `answered`.
        first_wrong: the first wrong reply, and what it should have been.
        errors: what connections ended of.
    """

    latencies: Latencies
    transmitted: int = 0
    answered: int = 0
    wrong: int = 0
    stray: int = 0
    late: int = 0
    lost: int = 0
    duplicates: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    lag: float = 0.0
    first_wrong: tuple[bytes, bytes] | None = None
    errors: list[NetworkError] = field(default_factory=list)

    @property
    def pending(self) -> int:
        """Messages whose time-out has not come yet."""
        return self.transmitted - self.answered - self.lost

    @property
    def received(self) -> int:
        """Messages answered correctly in time."""
        return self.answered - (self.wrong - self.stray) - self.late

    @property
    def refused(self) -> bool:
        """Whether nothing listens there, as far as can be told: no reply ever came."""
        refusals = (error for error in self.errors if isinstance(error, ConnectionRefused))
        return not self.answered and any(refusals)

    def note_wrong(self, got: bytes, expected: bytes) -> None:
        """Take a wrong reply."""
        self.wrong += 1
        if self.first_wrong is None:
            self.first_wrong = (got, expected)

    def acceptable(self, max_loss: float) -> bool:
        """Return whether all was answered as expected but for what may be lost or late."""
        settled = self.transmitted - self.pending
        missed = self.lost + self.late
        answered = self.received > 0 or max_loss == 1
        return not self.wrong and not self.errors and answered and missed <= max_loss * settled


@dataclass(frozen=True, slots=True)
class Pace:
    """When messages are offered.

    Attributes:
        duration: seconds of load.
        rate: messages a second over all connections, planned whatever comes back (open loop); or
            None: each reply is followed by the next message (closed loop).
        pipeline: in the closed loop, messages that each connection awaits at once.
    """

    duration: float
    rate: float | None
    pipeline: int

    def due(self, elapsed: float) -> int:
        """Return how many messages of an open loop are planned by now, the first at 0 s."""
        assert self.rate is not None
        return int(min(elapsed, self.duration) * self.rate) + (elapsed < self.duration)

    def planned(self, number: int) -> float:
        """Return when message `number`, from 0, is planned: seconds from the start."""
        assert self.rate is not None
        return number / self.rate


class Load(Protocol):
    """One connection under load."""

    def fileno(self) -> int:
        """Return the descriptor to select on."""

    def offer(self, number: int, planned: float) -> None:
        """Take so many messages that were planned for that time; `flush` sends them."""

    def flush(self) -> bool:
        """Send what fits; tell whether everything has been sent."""

    def receive(self) -> int:
        """Read what has come; return how many messages it answers.

        Raises:
            NetworkError: there will be no more.
        """

    def expire(self, now: float) -> int:
        """Give up what is lost by now; return how many messages that is."""

    def abandon(self) -> None:
        """Count everything that is still awaited as lost."""

    def close(self) -> None:
        """End the connection."""
