"""The answer key: what the lab does to a client's datagrams, known beforehand.

The server asks the same `Experiment.fate` and reports in the same words, so that the key and what
happens cannot differ. This module must decide nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from uppercase.core.events import Direction
from uppercase.lab._fates import DELIVERED, Experiment, Fate

__all__ = ["Row", "answer_key", "describe"]

_ORDINALS = ("first ", "second ")


def describe(direction: Direction, fate: Fate, copy: int = 0, copies: int = 1) -> str:
    """Say what happens to a datagram: `request lost`, `second reply delayed 240 ms`.

    Args:
        direction: which way it goes.
        fate: what happens to it.
        copy: which copy of the request it answers, from 0.
        copies: how many copies of that request there are; above 1, the replies are told apart.
    """
    return f"{_ORDINALS[copy] if copies > 1 else ''}{direction} {fate.words}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the key.

    Attributes:
        number: the datagram's number among its client's, from 1.
        request: what happens to the request.
        replies: what happens to the reply to each copy that arrives; none if the request is lost.
    """

    number: int
    request: Fate
    replies: tuple[Fate, ...]

    @property
    def events(self) -> tuple[str, ...]:
        """What the server reports for this datagram, in the order of the copies."""
        copies = len(self.replies)
        fates = [(Direction.REQUEST, self.request, 0, 1)]
        fates += [(Direction.REPLY, fate, copy, copies) for copy, fate in enumerate(self.replies)]
        return tuple(describe(*each) for each in fates if each[1].actions)

    def __str__(self) -> str:
        """Return one line, readable on a projector: `  7  request lost`."""
        parts = list(self.events)
        if parts and self.request == DELIVERED:
            parts.insert(0, describe(Direction.REQUEST, DELIVERED))
        return f"{self.number:>3}  {'; '.join(parts) or 'delivered'}"


def answer_key(experiment: Experiment, count: int, *, host: str = "") -> Iterator[Row]:
    """Return what happens to datagrams 1 to `count` of a client, one row each.

    The key takes each datagram to have at least one byte and to be answered.

    Args:
        experiment: what the server was started with.
        count: how many rows.
        host: the client's address, where the experiment is `per_client`.

    Raises:
        BadValue: the experiment is `per_client` and there is no host.
    """
    for number in range(1, count + 1):
        request = experiment.fate(Direction.REQUEST, number, host=host)
        replies = (
            experiment.fate(Direction.REPLY, number, copy, host=host)
            for copy in range(request.copies)
        )
        yield Row(number, request, tuple(replies))
