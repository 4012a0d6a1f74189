"""The box that sends a line: for each watcher a client of its own, at the service's own door.

What it sends goes the way of every client's: through guards, lab and transform, and onto the page.
Over UDP a watcher keeps one socket, so that its datagrams are numbered on as the answer key is, and
the reply is on the timeline. Over TCP each line has a connection of its own.
"""

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from uppercase.client import Target, ask
from uppercase.core.rates import TokenBuckets
from uppercase.core.values import Client
from uppercase.services import TCPSettings
from uppercase.services._base import TransformService

LINE: Final = 512
"""Bytes of a line: what fits into one datagram everywhere (RFC 791)."""

SEND_RATE: Final = 2.0
"""Lines a second of one watcher: who wants more has a program for it."""

SEND_BURST: Final = 10.0
"""Lines at once: the ten of the pinger's exercise, as fast as one types Return."""

_REPLY_WITHIN: Final = 5.0
"""Seconds that a line's reply is waited for, over TCP."""

_FRAMINGS: Final = ("netstring", "int16", "int32")
"""The framings that have no lines."""


class _Socket(DatagramProtocol):
    """Throws replies away: the timeline shows them."""

    noisy = False
    sent = 0


class Senders:
    """Sends what watchers type.

    Args:
        watchers: how many of them are remembered.
    """

    def __init__(self, services: list[TransformService], watchers: int, reactor: Any) -> None:
        self._services = services
        self._reactor = reactor
        self._bucket = TokenBuckets(SEND_RATE, SEND_BURST, watchers)
        self._sockets: dict[tuple[str, int], tuple[_Socket, Any]] = {}

    def target(self, index: int) -> Target | None:
        """Return where a service takes lines; None if it takes none from a plain client."""
        service = self._services[index]
        settings = service.settings
        if isinstance(settings, TCPSettings) and settings.proxy_from is not None:
            return None
        for address in service.served():
            protocol, _, place = address.partition(" ")
            if protocol not in ("TCP", "UDP"):
                continue
            host, _, port = place.rpartition(":")
            host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
            return Target(host, int(port), udp=protocol == "UDP")
        return None

    def allows(self, token: str) -> bool:
        """Whether a watcher may send one more line now."""
        now = self._reactor.seconds()
        level = self._bucket.level(token, now)
        if level < 1:
            return False
        self._bucket.take(token, level, now)
        return True

    def send(self, token: str, index: int, line: bytes) -> dict[str, Any] | Deferred[Any]:
        """Send a line; return what the browser is told of it."""
        target = self.target(index)
        if target is None:
            return {"error": "this service takes no line from the page"}
        if not target.udp:
            return self._ask(index, target, line)
        known = self._sockets.get((token, index))
        if known is None:
            protocol = _Socket()
            port = self._reactor.listenUDP(0, protocol, interface=target.host)
            known = self._sockets[token, index] = protocol, port
        protocol, port = known
        protocol.sent += 1
        transport: Any = protocol.transport
        transport.write(line, (target.host, target.port))
        own_address = port.getHost()
        return {"client": str(Client(own_address.host, own_address.port)), "number": protocol.sent}

    def _ask(self, index: int, target: Target, line: bytes) -> Deferred[Any]:
        settings: Any = self._services[index].settings
        framing = settings.framing if settings.framing in _FRAMINGS else "line"
        asked = ask(target, line, framing=framing, timeout=_REPLY_WITHIN, reactor=self._reactor)
        return asked.addCallbacks(
            lambda reply: {"reply": reply.decode("utf-8", "replace")},
            lambda failure: {"error": failure.getErrorMessage()},
        )

    def forget(self, token: str) -> None:
        """Close a watcher's sockets."""
        for known in [key for key in self._sockets if key[0] == token]:
            self._sockets.pop(known)[1].stopListening()
