"""What the tests of records and of the page share: a service's events, without a service."""

import heapq
import itertools
from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from tests.udp.helpers import answer
from uppercase.core.datagram import Answer, Delay, Destination, Origin, Request
from uppercase.core.events import Event, IObserver
from uppercase.core.pipeline import Pipeline, Stage
from uppercase.core.responder import Responder
from uppercase.lab import Experiment, Lab
from uppercase.registry import listing

PEER = ("127.0.0.1", 50000)

_UPPERCASE = listing().find("uppercase")


def arrows_of(told: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return arrows as the page tells them, but for their numbers, as records have them."""
    ways = ("", "request", "reply")
    return sorted(
        (peer, begin, end, ways[way], number, text, size, tuple(actions), words)
        for _, peer, begin, end, way, number, text, size, actions, words in told["arrows"]
    )


@implementer(IObserver)
class Everybody:
    """Tells several observers."""

    def __init__(self, observers: Sequence[IObserver]) -> None:
        self._observers = observers

    def notify(self, event: Event) -> None:
        for observer in self._observers:
            observer.notify(event)


def exchange(
    experiment: Experiment,
    count: int,
    now: list[float],
    *observers: IObserver,
    pause: float = 1.0,
) -> None:
    """Have a client send so many datagrams, each when all is over of the one before.

    Args:
        experiment: what happens to them.
        count: how many.
        now: the time, which goes on.
        observers: are told.
        pause: seconds between the end of one and the next.
    """
    everybody = Everybody(observers)
    chain = Pipeline([Stage("uppercase", _UPPERCASE)], 1 << 20)
    responder = Responder(
        chain,
        clock=lambda: now[0],
        observer=everybody,
        tell_each=True,
        lab=Lab(experiment, lambda: now[0], everybody),
    )
    order = itertools.count()
    for number in range(1, count + 1):
        origin = Origin.of(PEER, Destination("127.0.0.1", 12000))
        steps: list[Any] = answer(responder, Request(b"<b>&%d" % number, origin))
        held: list[tuple[float, int, Delay]] = []
        while steps or held:
            if not steps:
                now[0], _, delayed = heapq.heappop(held)
                steps = list(responder.resume(delayed))
                continue
            step = steps.pop(0)
            if isinstance(step, Delay):
                heapq.heappush(held, (now[0] + step.passage.delay, next(order), step))
            else:
                assert isinstance(step, Answer)
                responder.sent(step)
        now[0] += pause
