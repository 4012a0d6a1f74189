"""The lab as a stage of a UDP service, and its answer key, which says beforehand what it will do.

Both ask the same `Experiment.fate` and say it in the same words (`describe`), so that the key and
what happens cannot differ. The stage counts each client's datagrams and deals out their fates.

Sans-I/O: the port hands each arriving datagram to `Lab.request`, answers what comes back after its
delay, and hands each reply to `Lab.reply`; it sends what comes back from there, again after its
delay. The stage must own no timer and decide no fate.

Datagrams are counted as they arrive, before any guard: what a guard drops depends on the time and
on others, and a number must not.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Final

from uppercase.core.events import Direction, Dropped, DropReason, Impaired, IObserver
from uppercase.core.guards import Passage
from uppercase.core.values import Client
from uppercase.lab._fates import DELIVERED, Experiment, Fate
from uppercase.limits import KIB, MIB

CLIENTS: Final = 10_000
"""Clients whose datagrams the lab counts. A class of 200 with 50 sockets each fits; at some 300
bytes an entry it is 3 MB. The client that has been silent longest is forgotten first."""

FORGET_AFTER: Final = 60.0
"""A client silent for this long starts again at datagram 1: longer than any time-out of a lab, and
short enough that a program that binds a fixed port meets the same fates a minute later."""

HELD_BYTES: Final = 16 * MIB
"""What the lab holds back at one time, over all clients; more is dropped and reported. It is
16,000 small datagrams: 200 students may have 80 each under way."""

HELD_COST: Final = 1 * KIB
"""What holding one datagram costs besides its bytes: the timer, the addresses, the records."""

_ORDINALS = ("first ", "second ")


def describe(direction: Direction, fate: Fate, copy: int = 0, copies: int = 1) -> str:
    """Say what happens to a datagram: `request lost`, `second reply delayed 240 ms`.

    Replies are told apart where there are several copies of a request, which `copy` counts from 0.
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


class Lab:
    """Follows one experiment for all clients of a service.

    A client is a host and a port, whose datagrams are numbered from 1. One that is silent for
    `FORGET_AFTER` seconds starts again, and so does the one that has been silent longest when there
    are more than `CLIENTS`.

    Args:
        observer: told of every action (`Impaired`), and of what is dropped because the lab
            would hold more than `HELD_BYTES` (`Dropped`).
    """

    def __init__(
        self, experiment: Experiment, clock: Callable[[], float], observer: IObserver | None = None
    ) -> None:
        self._experiment = experiment
        self._clock = clock
        self._observer = observer
        # client -> (last heard, datagrams so far); the longest silent comes first
        self._clients: OrderedDict[Client, tuple[float, int]] = OrderedDict()
        # (when its delay is over, cost) of each passage that the port holds, the next first.
        # Invariant: `_held_bytes` is the sum of the costs; what is over is taken out before the
        # next is held, so a port need not say when it has passed something on.
        self._held: list[tuple[float, int]] = []
        self._held_bytes = 0

    def number(self, client: Client, count: int = 1) -> int:
        """Number so many datagrams that just arrived from a client; return the last one's."""
        now = self._clock()
        seen, number = self._clients.pop(client, (now, 0))
        number = number + count if now - seen < FORGET_AFTER else count
        self._clients[client] = now, number
        if len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        return number

    def request(self, client: Client, data: bytes, number: int | None = None) -> list[Passage]:
        """Take a datagram from a client; return what the service gets of it, none to two copies.

        It gets a number, unless it has one already.
        """
        arrived = Passage(0.0, data, number or self.number(client), 0, 1)
        return self._pass_on(Direction.REQUEST, client, data, arrived)

    def reply(self, client: Client, data: bytes, answered: Passage) -> list[Passage]:
        """Take the reply to a request; return what is sent of it, none to two copies."""
        return self._pass_on(Direction.REPLY, client, data, answered)

    def _pass_on(
        self, direction: Direction, client: Client, data: bytes, of: Passage
    ) -> list[Passage]:
        number, fates = of.number, of.fates
        fate = self._experiment.fate(direction, number, of.copy, host=client[0])
        if not data:
            fate = replace(fate, flip=None)
        if self._observer and fate.actions:
            words = describe(direction, fate, of.copy, of.copies)
            before = fates or describe(Direction.REQUEST, DELIVERED)
            fates = words if direction is Direction.REQUEST else f"{before}; {words}"
            self._observer.notify(
                Impaired(
                    str(client), direction, number, fate.actions, words, data, fates, fate.seconds
                )
            )
        passed = fate.apply(data)
        passages = [
            Passage(fate.seconds, passed, number, each, fate.copies, fates)
            for each in range(fate.copies)
        ]
        return [each for each in passages if not each.delay or self._hold(client, each)]

    def _hold(self, client: Client, passage: Passage) -> bool:
        """Make room for what the port will hold until its delay is over, or drop it."""
        now = self._clock()
        while self._held and self._held[0][0] <= now:
            self._held_bytes -= heappop(self._held)[1]
        cost = len(passage.data) + HELD_COST
        if self._held_bytes + cost > HELD_BYTES:
            if self._observer:
                peer, reason = str(client), DropReason.LAB_FULL
                self._observer.notify(
                    Dropped(peer, reason, "", passage.data, passage.number, passage.fates)
                )
            return False
        self._held_bytes += cost
        heappush(self._held, (now + passage.delay, cost))
        return True
