"""One service as the page has it: what it is, what it counts, its key, and how it gets a line.

The box that sends a line has for each watcher a client of its own, at the service's own door. What
it sends goes the way of every client's: through guards, lab and transform, and onto the page. Over
UDP a watcher keeps one socket, so that its datagrams are numbered on as the answer key is, and the
reply is on the timeline. Over TCP each line has a connection of its own.
"""

from functools import lru_cache
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from uppercase.classroom.page.audience import Audience
from uppercase.classroom.page.watchers import Watcher
from uppercase.client import Target, ask
from uppercase.core.values import Client
from uppercase.lab import Experiment, answer_key
from uppercase.services._base import TransformService

KEY_LINES: Final = 100
"""Lines of the answer key that are shown: ten times the pinger's exercise."""

LINE: Final = 512
"""Bytes of a line: what fits into one datagram everywhere (RFC 791)."""

_REPLY_WITHIN: Final = 5.0
"""Seconds that a line's reply is waited for, over TCP."""

_FRAMINGS: Final = ("netstring", "int16", "int32")
"""The framings that have no lines."""


class _Socket(DatagramProtocol):
    """Throws replies away: the timeline shows them."""

    noisy = False
    sent = 0


class Shown:
    """A service that has an `Audience` among its observers."""

    def __init__(self, service: TransformService, reactor: Any) -> None:
        self._service = service
        self._reactor = reactor
        self._settings: Any = service.settings
        self.audience = next(
            each for each in self._settings.observers if isinstance(each, Audience)
        )

    @property
    def _lab(self) -> Experiment | None:
        """What decides the fates of datagrams."""
        return self._settings.lab if self._service.protocol == "UDP" else None

    def facts(self, shows_key: bool) -> dict[str, Any]:
        service, about = self._service, self.audience.about
        settings = [word for word in str(about["lab"]).split() if "=" in word]
        if not shows_key:
            # Whoever has the seed has the key.
            settings = [word for word in settings if not word.startswith("--seed=")]
        return {
            "name": service.name or service.protocol,
            "protocol": service.protocol,
            "began": self.audience.began,
            "transform": about["transform"],
            "lab": [word.removeprefix("--").partition("=")[::2] for word in settings],
            "has_key": shows_key and self._lab is not None,
            "per_client": self._lab is not None and self._lab.per_client,
            "sends": self._target() is not None,
        }

    def totals(self) -> dict[str, Any]:
        service = self._service
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
        for address in self._service.served():
            protocol, _, place = address.partition(" ")
            if protocol in ("TCP", "UDP"):
                host, _, port = place.rpartition(":")
                host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
                return Target(host, int(port), udp=protocol == "UDP")
        return None

    def send(self, watcher: Watcher, line: bytes) -> dict[str, Any] | Deferred[Any]:
        """Send a line; return what the browser is told of it."""
        target = self._target()
        if target is None:
            return {"error": "this service takes no line from the page"}
        if not target.udp:
            framing = self._settings.framing if self._settings.framing in _FRAMINGS else "line"
            asked = ask(target, line, framing=framing, timeout=_REPLY_WITHIN, reactor=self._reactor)
            return asked.addCallbacks(
                lambda reply: {"reply": reply.decode("utf-8", "replace")},
                lambda failure: {"error": failure.getErrorMessage()},
            )
        port = watcher.ports.get(self)
        if port is None:
            port = self._reactor.listenUDP(0, _Socket(), interface=target.host)
            watcher.ports[self] = port
        port.protocol.sent += 1
        port.write(line, (target.host, target.port))
        place = port.getHost()
        return {"client": str(Client(place.host, place.port)), "number": port.protocol.sent}


@lru_cache(64)
def _key_lines(experiment: Experiment, host: str) -> list[str]:
    """Return the first lines of a key, of which nobody can ask for many."""
    return [str(row) for row in answer_key(experiment, KEY_LINES, host=host)]
