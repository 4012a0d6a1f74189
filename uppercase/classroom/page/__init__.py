"""The live page: what the network does to each datagram, on the projector, while it happens.

An `Audience` observes one service, as a `Recorder` does, and makes arrows of its events by the same
code; so the page, the record and the answer key agree. `PageService` serves them to browsers.
"""

import importlib.util
from collections.abc import Collection
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final

from twisted.internet.defer import Deferred

from uppercase.classroom.page.audience import COUNTS, Audience
from uppercase.classroom.page.site import Site, is_loopback
from uppercase.classroom.page.watchers import (
    KEPT_FOR_THIS_MACHINE,
    LINE,
    WATCHERS,
    Senders,
    Watchers,
)
from uppercase.core.values import printable_address
from uppercase.lab import Experiment, answer_key
from uppercase.services import UDPSettings
from uppercase.services._base import TransformService, addresses_for_others
from uppercase.services.log_format import say
from uppercase.services.web import BoundedSite, WebLimits, WebService

__all__ = ["Audience", "PageService"]


KEY_LINES: Final = 100
"""Lines of the answer key that are shown: ten times the pinger's exercise."""

_LIMITS: Final = WebLimits(
    # A class of 200 that opens the page at one word: each browser has up to six connections at a
    # time, for six parts of the page.
    connections=512,
    deadline=10.0,
    rate=200.0,
    burst=1500.0,
    body=LINE,
)


class PageService(WebService):
    """Serves the page about services that have an `Audience` among their observers.

    Args:
        description: an endpoint string; TCP without an interface is on loopback, and so is a bare
            port number.
        shows_key: whether the seed and the answer key may be seen.
        hosts: names and addresses by which browsers reach it, beside this machine's numbers.
    """

    def __init__(
        self,
        description: str,
        services: list[TransformService],
        reactor: Any,
        *,
        shows_key: bool = False,
        hosts: Collection[str] = (),
    ) -> None:
        self._audiences = [
            next(each for each in service.settings.observers if isinstance(each, Audience))
            for service in services
        ]
        self._services = services
        self._shows_key = shows_key
        self._hosts = hosts
        self._told: list[Any] = []
        self._senders = Senders(services, WATCHERS + KEPT_FOR_THIS_MACHINE, reactor)
        self.watchers = Watchers(self._snapshot, self._changes, reactor)
        key = self._key if shows_key else None
        root = Site(self.watchers, self._senders, hosts, self._address, key)
        super().__init__("the page is", description, BoundedSite(root, _LIMITS, reactor), reactor)

    def opened(self, address: str) -> None:
        place: Any = self.port and self.port.getHost()
        url = address
        if hasattr(place, "host"):
            everywhere = ip_address(place.host).is_unspecified
            host = "localhost" if everywhere else place.host
            url = f"http://{printable_address(host, place.port)}/"
        say(f"the page is at {url}", event="page", address=url)
        if other := self._address():
            say(f"others open the page at {other}")

    def stopService(self) -> Deferred[Any]:
        self.watchers.stop()
        stopped: Deferred[Any] = super().stopService()
        return stopped

    def _address(self) -> str:
        """Return the address that others open; "" where only this machine can."""
        place: Any = None if self.port is None else self.port.getHost()
        if not hasattr(place, "host"):
            return ""
        hosts = [place.host]
        if ip_address(place.host).is_unspecified:
            hosts = addresses_for_others()
        elif is_loopback(place.host):
            hosts = []
        return next(
            (f"http://{printable_address(h, place.port)}/" for h in [*self._hosts, *hosts]), ""
        )

    def _snapshot(self) -> dict[str, Any]:
        """Return all that there is to tell to one who comes."""
        address = self._address()
        has_codes = importlib.util.find_spec("segno") is not None
        return {
            "counts": COUNTS,
            "shows_key": self._shows_key,
            "address": address,
            "code": bool(address) and has_codes,
            "watchers": len(self.watchers),
            "now": round(self.watchers.seconds(), 4),
            "services": [
                {
                    **self._facts(index),
                    **self._totals(index),
                    **self._audiences[index].snapshot(),
                }
                for index in range(len(self._services))
            ],
        }

    def _facts(self, index: int) -> dict[str, Any]:
        service, about = self._services[index], self._audiences[index].about
        settings = [word for word in str(about["lab"]).split() if "=" in word]
        if not self._shows_key:
            # Whoever has the seed has the key.
            settings = [word for word in settings if not word.startswith("--seed=")]
        lab = getattr(service.settings, "lab", None)
        return {
            "name": service.name or service.protocol,
            "protocol": service.protocol,
            "began": self._audiences[index].began,
            "transform": about["transform"],
            "lab": [word.removeprefix("--").partition("=")[::2] for word in settings],
            "has_key": self._shows_key and service.protocol == "UDP" and lab is not None,
            "per_client": bool(getattr(lab, "per_client", False)),
            "sends": self._senders.target(index) is not None,
        }

    def _totals(self, index: int) -> dict[str, Any]:
        service = self._services[index]
        return {
            "addresses": service.served(),
            "phase": service.phase,
            "totals": {**service.counts(), **service.levels()},
        }

    def _changes(self) -> dict[str, Any]:
        """Return what is new since the last frame; nothing where nothing is."""
        totals = [self._totals(index) for index in range(len(self._services))]
        changes = [audience.changes() for audience in self._audiences]
        quiet = not any(each["clients"] or each["arrows"] for each in changes)
        told = [totals, len(self.watchers)]
        if quiet and told == self._told:
            return {}
        self._told = told
        return {
            "now": round(self.watchers.seconds(), 4),
            "watchers": len(self.watchers),
            "services": [
                {**total, **change} for total, change in zip(totals, changes, strict=True)
            ],
        }

    def _key(self, index: int, client: int) -> list[str]:
        """Return the answer key of a service; where each client has its own, that of one."""
        settings = self._services[index].settings if 0 <= index < len(self._services) else None
        experiment = settings.lab if isinstance(settings, UDPSettings) else None
        if experiment is None:
            return []
        if not experiment.per_client:
            return _key_lines(experiment, "")
        host = self._audiences[index].host_of(client)
        return _key_lines(experiment, host) if host else []


@lru_cache(64)
def _key_lines(experiment: Experiment, host: str) -> list[str]:
    """Return the first lines of a key, of which nobody can ask for many."""
    return [str(row) for row in answer_key(experiment, KEY_LINES, host=host)]
