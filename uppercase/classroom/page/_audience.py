"""What the page has of one service: its clients' counters and arrows, its key, a way to send lines.

Counters are of everything. Arrows are of a sample where more happens than anybody can follow: whole
exchanges are left out, never parts of one. All of it is bounded, however much is sent.

The box that sends a line is a client of its own for each watcher, at the service's own door. What
it sends goes the way of every client's: through guards, lab and transform, and onto the page. Over
UDP a watcher keeps one socket, so that its datagrams are numbered on as the answer key is, and the
reply is on the timeline. Over TCP each line has a connection of its own.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from uppercase.classroom.record import row_of
from uppercase.classroom.timeline import Arrow, ClientArrows
from uppercase.client import Target, ask, exchange
from uppercase.core import events
from uppercase.core.datagram import Numbers
from uppercase.core.events import Event, ISampler, Received
from uppercase.core.guards import TokenBuckets
from uppercase.core.values import Client
from uppercase.lab import Experiment, answer_key
from uppercase.services.base import TransformService

SHOWN_RATE: Final = 100.0
"""Exchanges a second that are drawn where there are more: ten times what an eye follows, and the
hall's wireless network carries it to 200 phones."""

SHOWN_BURST: Final = 250.0
"""Exchanges that are drawn at once: a class of 200 that sends all at once is drawn whole."""

HISTORY: Final = 600
"""Arrows that are kept, for watchers who come later: a burst, with its replies and lost copies."""

CLIENTS: Final = 500
"""Clients whose counters are kept, at some 500 bytes each: a class of 200 in both protocols. The
client that was silent longest makes room, so an invented address costs nothing for long."""

CLIENTS_TOLD: Final = 100
"""Clients of whom one frame tells; more wait for the next, so that a frame stays small."""

_FOLLOWED: Final = 4096  # Exchanges in which more may happen: those of 40 s at that rate.
_PAYLOAD: Final = 64  # Bytes of a payload that are looked at; an arrow shows fewer.
KEY_LINES: Final = 100  # Lines of the answer key that are shown: ten times the pinger's exercise.
LINE: Final = 512  # Bytes of a line: what fits into one datagram everywhere (RFC 791).
_REPLY_WITHIN: Final = 5.0  # Seconds that a line's reply is waited for, over TCP.
_FRAMINGS: Final = ("netstring", "int16", "int32")  # The framings that have no lines.

_WAYS: Final = ["", *events.Direction]
_words: Final = attrgetter("number", "text", "size", "actions", "words")

COUNTS: Final = (
    "received",
    "answered",
    "lost",
    "duplicated",
    "corrupted",
    "delayed",
    "reordered",
    "dropped",
    "number",
)
"""What is counted of a client, in the order in which browsers are told. Over TCP `received` and
`answered` are chunks. `number` is the last datagram's, from 1 again after a long silence."""


@dataclass(slots=True, eq=False)
class _Client:
    """One client: its number among all, its arrows, its counters, and how its connection ended."""

    serial: int
    arrows: ClientArrows = field(default_factory=ClientArrows)
    counts: Counter[str] = field(default_factory=Counter)
    state: str = ""

    def count(self, event: Event) -> None:
        # The most frequent come first.
        match event:
            case Received(number=number):
                self.counts["received"] += 1
                self.counts["number"] = number
            case events.Chunk(direction="request"):
                self.counts["received"] += 1
            case events.Replied() | events.Chunk():
                self.counts["answered"] += 1
            case events.Impaired(actions=actions):
                self.counts.update(actions)
            case events.Dropped():
                self.counts["dropped"] += 1
            case events.Opened():
                self.state = "open"
            case events.Closed(outcome=outcome):
                self.state = outcome.value
            case events.Refused():
                self.state = "refused"


@implementer(ISampler)
class Audience:
    """Observes one service for those who look at the page.

    Attributes:
        about: what the service is, as the first line of a record says it.
        seen: exchanges so far; over TCP, events.
        shown: how many of them are drawn.
        met: clients so far.
    """

    def __init__(self, about: Mapping[str, Any], clock: Callable[[], float]) -> None:
        self.about = about
        self.seen = self.shown = self.met = 0
        self.began = clock()
        self._clock = clock
        self._serials = itertools.count(1)
        self._bucket = TokenBuckets(SHOWN_RATE, SHOWN_BURST, 1)
        self._by_event = about.get("protocol") == "TCP"
        # Invariants: the longest silent client comes first, the oldest arrow and exchange too; what
        # has changed is a part of what is kept.
        self._clients: dict[str, _Client] = {}
        self._changed_clients: dict[str, None] = {}
        self._history: dict[int, tuple[str, Arrow]] = {}
        self._changed: dict[int, None] = {}
        self._followed: dict[tuple[str, int], None] = {}

    def notify(self, event: Event) -> None:
        if isinstance(event, events.Several):
            # What is not drawn.
            came = event.direction == "request"
            for peer, count in event.counts.items():
                self._client(peer).counts["received" if came else "answered"] += count
                self.seen += count if came else 0
            return
        if not (peer := getattr(event, "peer", "")):
            return
        client = self._client(peer)
        client.count(event)
        if self._is_shown(event, (peer, getattr(event, "number", 0))):
            for arrow in client.arrows.take(row_of(event, self._clock(), _PAYLOAD)):
                self._keep(peer, arrow)
            client.arrows.arrows.clear()

    def wants(self, count: int) -> bool:
        """Whether there is room for drawing this many datagrams that came together."""
        return self._bucket.level("", self._clock()) >= min(count, SHOWN_BURST)

    def snapshot(self) -> dict[str, Any]:
        return self._told(self._clients, self._history)

    def changes(self) -> dict[str, Any]:
        """Return what has changed since the last call, or a part of it."""
        clients = list(self._changed_clients)[:CLIENTS_TOLD]
        for peer in clients:
            del self._changed_clients[peer]
        arrows, self._changed = self._changed, {}
        return self._told(clients, arrows)

    def host_of(self, serial: int) -> str:
        """Return a client's address without its port; "" for one that is not known."""
        found = (peer for peer, client in self._clients.items() if client.serial == serial)
        return next(found, "").rpartition(":")[0].strip("[]")

    def _client(self, peer: str) -> _Client:
        client = self._clients.pop(peer, None)
        if client is None:
            self.met += 1
            client = _Client(self.met)
        for oldest, _ in _put(self._clients, peer, client, CLIENTS):
            self._changed_clients.pop(oldest, None)
        self._changed_clients[peer] = None
        return client

    def _is_shown(self, event: Event, exchange: tuple[str, int]) -> bool:
        """Decide for each exchange once, when its datagram arrives; over TCP, of each event."""
        if not (self._by_event or isinstance(event, Received)):
            return exchange in self._followed
        self.seen += 1
        if not self._bucket.allow("", self._clock()):
            return False
        self.shown += 1
        for (peer, number), _ in _put(self._followed, exchange, None, _FOLLOWED):
            if peer in self._clients:
                self._clients[peer].arrows.forget(number)
        return True

    def _keep(self, peer: str, arrow: Arrow) -> None:
        arrow.serial = arrow.serial or next(self._serials)
        if arrow.serial not in self._history:
            for forgotten, _ in _put(self._history, arrow.serial, (peer, arrow), HISTORY):
                self._changed.pop(forgotten, None)
        self._changed[arrow.serial] = None

    def _told(self, clients: Iterable[str], arrows: Iterable[int]) -> dict[str, Any]:
        found = [(peer, self._clients[peer]) for peer in clients]
        drawn = [self._history[serial] for serial in arrows]
        return {
            "seen": self.seen,
            "shown": self.shown,
            "met": self.met,
            "clients": [
                [each.serial, peer, each.state, *(each.counts[name] for name in COUNTS)]
                for peer, each in found
            ],
            "arrows": [
                [
                    arrow.serial,
                    peer,
                    round(arrow.begin, 4),
                    round(arrow.end, 4),
                    _WAYS.index(arrow.direction),
                    *_words(arrow),
                ]
                for peer, arrow in drawn
            ],
        }


def _put(table: dict[Any, Any], key: Any, value: Any, most: int) -> Iterator[tuple[Any, Any]]:
    """Put something into a table that keeps `most`; return the oldest, which make room."""
    table[key] = value
    while len(table) > most:
        oldest = next(iter(table))
        yield oldest, table.pop(oldest)


class _Socket(DatagramProtocol):
    """Throws replies away: the timeline shows them."""

    noisy = False


class Shown:
    """A service that has an `Audience` among its observers."""

    def __init__(self, service: TransformService, reactor: Any) -> None:
        self.service = service
        self._reactor = reactor
        settings: Any = service.settings
        self._settings = settings
        self._lab: Experiment | None = settings.lab if service.protocol == "UDP" else None
        self._numbers = Numbers()
        (self.audience,) = (each for each in settings.observers if isinstance(each, Audience))

    def facts(self, shows_key: bool) -> dict[str, Any]:
        service, about = self.service, self.audience.about
        told = str(about["lab"]).replace("--client=ADDRESS", "--per-client=")
        lab = dict(re.findall("--([^ =]+)=([^ ]*)", told))
        if not shows_key:
            # The seed is as good as the key.
            lab.pop("seed", None)
        return {
            "name": service.name or service.protocol,
            "protocol": service.protocol,
            "began": self.audience.began,
            "transform": about["transform"],
            "lab": list(lab.items()),
            "has_key": shows_key and self._lab is not None,
            "per_client": self._lab is not None and self._lab.per_client,
            "sends": self._target() is not None,
        }

    def totals(self) -> dict[str, Any]:
        service = self.service
        return {
            "addresses": service.served(),
            "phase": service.phase,
            "totals": {**service.counts(), **service.levels()},
        }

    def key(self, client: int) -> list[str]:
        """Return the answer key; where each client has its own, that of one."""
        host = self.audience.host_of(client) if self._lab and self._lab.per_client else None
        return [] if self._lab is None or host == "" else _key_lines(self._lab, host or "")

    def _target(self) -> Target | None:
        """Return where the service takes lines; None if it takes none from a plain client."""
        if getattr(self._settings, "proxy_from", None) is not None:
            return None
        for address in self.service.served():
            protocol, _, place = address.partition(" ")
            if protocol in ("TCP", "UDP"):
                host, _, port = place.rpartition(":")
                host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
                return Target(host, int(port), udp=protocol == "UDP")
        return None

    def send(self, ports: dict[object, Any], line: bytes) -> dict[str, Any] | Deferred[Any]:
        """Send a line, over UDP from the watcher's port; return what the browser is told of it."""
        target = self._target()
        if target is None:
            return {"error": "this service takes no line from the page"}
        if not target.udp:
            framing = self._settings.framing
            how: dict[str, Any] = {"timeout": _REPLY_WITHIN, "reactor": self._reactor}
            if framing in _FRAMINGS:
                asked = ask(target, line, framing=framing, **how)
            else:
                # A reply need not be a line: only the end of the connection tells that it is whole.
                asked = exchange(target, line, **how)
            nothing = {"error": "no byte came back"}
            return asked.addCallbacks(
                lambda reply: {"reply": reply.decode("utf-8", "replace")} if reply else nothing,
                lambda failure: {"error": failure.getErrorMessage()},
            )
        if self not in ports:
            ports[self] = self._reactor.listenUDP(0, _Socket(), interface=target.host)
        port = ports[self]
        port.write(line, (target.host, target.port))
        client = Client(port.getHost().host, port.getHost().port)
        number = self._numbers.take(client, self._reactor.seconds())
        return {"client": str(client), "number": number}


@lru_cache(64)
def _key_lines(experiment: Experiment, host: str) -> list[str]:
    """Return the first lines of a key, so that nobody can ask for many."""
    return [str(row) for row in answer_key(experiment, KEY_LINES, host=host)]
