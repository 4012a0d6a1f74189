"""What the page knows of one service: each client's counters, and arrows of what happened last.

Counters are of everything. Arrows are of a sample where more happens than anybody can look at:
whole exchanges are left out, never parts of one. All of it has a bound, whoever sends how much.
"""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from zope.interface import implementer

from uppercase.classroom.record import RowMaker
from uppercase.classroom.timeline import Arrow, ClientArrows
from uppercase.core.events import (
    Chunk,
    Closed,
    Direction,
    Dropped,
    Event,
    Impaired,
    ISampler,
    Opened,
    Received,
    Refused,
    Replied,
    Several,
)
from uppercase.core.guards import TokenBuckets

SHOWN_RATE: Final = 100.0
"""Exchanges a second that are drawn where there are more: ten times what an eye follows, and the
hall's wireless network carries it to 200 phones."""

SHOWN_BURST: Final = 250.0
"""Exchanges that are drawn at once: a class of 200 that sends at one word is drawn whole."""

HISTORY: Final = 600
"""Arrows that are kept, for those who come later: a burst, with its replies and lost copies."""

CLIENTS: Final = 500
"""Clients whose counters are kept, at some 500 bytes each: a class of 200 in both protocols. The
client that was silent longest makes room, so an invented address costs nothing for long."""

CLIENTS_TOLD: Final = 100
"""Clients of whom one frame tells; more wait for the next, so that a frame stays small."""

_FOLLOWED: Final = 4096
"""Exchanges in which more may happen: those of 40 s at that rate."""

_PAYLOAD: Final = 64
"""Bytes of a payload that are looked at; an arrow shows fewer."""

DIRECTIONS: Final = {"": 0, "request": 1, "reply": 2}

COUNTS: Final = (
    "received",
    "answered",
    "lost",
    "duplicated",
    "corrupted",
    "delayed",
    "reordered",
    "dropped",
)
"""What is counted of a client, in the order in which browsers are told. Over TCP `received` and
`answered` are chunks."""

_PLACES: Final = {name: place for place, name in enumerate(COUNTS)}
_RECEIVED, _ANSWERED, _DROPPED = (_PLACES[name] for name in ("received", "answered", "dropped"))


class _Client:
    """One client: its number among all, its counters, its arrows, and how its connection ended."""

    __slots__ = ("arrows", "counts", "serial", "state")

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.arrows = ClientArrows()
        self.counts = [0] * len(COUNTS)
        self.state = ""

    def count(self, event: Event) -> None:
        """Take note of an event, the most frequent first."""
        counts = self.counts
        match event:
            case Received() | Chunk(direction="request"):
                counts[_RECEIVED] += 1
            case Replied() | Chunk():
                counts[_ANSWERED] += 1
            case Impaired(actions=actions):
                for action in actions:
                    if action.value in _PLACES:
                        counts[_PLACES[action.value]] += 1
            case Dropped():
                counts[_DROPPED] += 1
            case Opened():
                self.state = "open"
            case Closed(outcome=outcome):
                self.state = outcome.value
            case Refused():
                self.state = "refused"


@implementer(ISampler)
class Audience:
    """Observes one service for those who look at the page.

    Args:
        about: what the service is, as the first line of a record says it.

    Attributes:
        seen: exchanges so far; over TCP, events.
        shown: how many of them are drawn.
        met: clients so far.
        began: when it began to look.
    """

    def __init__(self, about: Mapping[str, Any], clock: Callable[[], float]) -> None:
        self.about = about
        self.seen = self.shown = self.met = 0
        self.began = clock()
        self._clock = clock
        self._rows = RowMaker(clock, _PAYLOAD)
        self._serials = itertools.count(1)
        self._bucket = TokenBuckets(SHOWN_RATE, SHOWN_BURST, 1)
        self._by_event = about.get("protocol") == "TCP"
        # Invariants: the longest silent client comes first, the oldest arrow and exchange too; what
        # has changed is a part of what is kept.
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._changed_clients: dict[str, None] = {}
        self._gone: list[int] = []
        self._history: dict[int, tuple[str, Arrow]] = {}
        self._changed: dict[int, None] = {}
        self._followed: dict[tuple[str, int], None] = {}

    def notify(self, event: Event) -> None:
        number = self._rows.number(event)
        if isinstance(event, Several):
            self._take_several(event)
            return
        peer: str = getattr(event, "peer", "")
        if not peer:
            return
        client = self._client(peer)
        client.count(event)
        if self._is_shown(event, (peer, number)):
            for arrow in client.arrows.take(self._rows.row(event, number)):
                self._keep(peer, arrow)
            client.arrows.arrows.clear()

    def wants(self, count: int) -> bool:
        """Whether there is room for drawing so many datagrams that came together."""
        return self._bucket.level("", self._clock()) >= min(count, SHOWN_BURST)

    def _take_several(self, event: Several) -> None:
        """Count what is not drawn."""
        place = _RECEIVED if event.direction is Direction.REQUEST else _ANSWERED
        for peer, count in event.counts.items():
            self._client(peer).counts[place] += count
        if place == _RECEIVED:
            self.seen += sum(event.counts.values())

    def snapshot(self) -> dict[str, Any]:
        """Return all that is kept, for somebody who comes now."""
        return self._told(self._clients, self._history, [])

    def changes(self) -> dict[str, Any]:
        """Return what has changed since the last call, or a part of it."""
        clients = list(self._changed_clients)[:CLIENTS_TOLD]
        for peer in clients:
            del self._changed_clients[peer]
        arrows, self._changed = self._changed, {}
        gone, self._gone = self._gone, []
        return self._told(clients, arrows, gone)

    def host_of(self, serial: int) -> str:
        """Return a client's address without its port; "" for one that is not known."""
        found = [peer for peer, client in self._clients.items() if client.serial == serial]
        return found[0].rpartition(":")[0].strip("[]") if found else ""

    def _client(self, peer: str) -> _Client:
        client = self._clients.get(peer)
        if client is None:
            self.met += 1
            client = self._clients[peer] = _Client(self.met)
            if len(self._clients) > CLIENTS:
                oldest, forgotten = self._clients.popitem(last=False)
                self._changed_clients.pop(oldest, None)
                self._gone = [*self._gone[-CLIENTS:], forgotten.serial]
        else:
            self._clients.move_to_end(peer)
        self._changed_clients[peer] = None
        return client

    def _is_shown(self, event: Event, exchange: tuple[str, int]) -> bool:
        """Decide of each exchange once, when its datagram arrives; over TCP, of each event."""
        if not (self._by_event or isinstance(event, Received)):
            return exchange in self._followed
        self.seen += 1
        if not self._bucket.allow("", self._clock()):
            return False
        self.shown += 1
        over = _put(self._followed, exchange, None, _FOLLOWED)
        if over is not None and over[0] in self._clients:
            self._clients[over[0]].arrows.forget(over[1])
        return True

    def _keep(self, peer: str, arrow: Arrow) -> None:
        arrow.serial = arrow.serial or next(self._serials)
        if arrow.serial not in self._history:
            forgotten = _put(self._history, arrow.serial, (peer, arrow), HISTORY)
            self._changed.pop(forgotten, None)
        self._changed[arrow.serial] = None

    def _told(
        self, clients: Iterable[str], arrows: Iterable[int], gone: list[int]
    ) -> dict[str, Any]:
        found = [(peer, self._clients[peer]) for peer in clients]
        drawn = [self._history[serial] for serial in arrows]
        return {
            "seen": self.seen,
            "shown": self.shown,
            "met": self.met,
            "gone": gone,
            "clients": [[each.serial, peer, each.state, *each.counts] for peer, each in found],
            "arrows": [
                [
                    arrow.serial,
                    peer,
                    round(arrow.begin, 4),
                    round(arrow.end, 4),
                    DIRECTIONS[arrow.direction],
                    arrow.number,
                    arrow.text,
                    arrow.size,
                    list(arrow.actions),
                    arrow.words,
                ]
                for peer, arrow in drawn
            ],
        }


def _put(table: dict[Any, Any], key: Any, value: Any, most: int) -> Any:
    """Put something into a table that keeps so many; return the key that made room, or None."""
    table[key] = value
    if len(table) <= most:
        return None
    oldest = next(iter(table))
    del table[oldest]
    return oldest
