"""HTTP beside a service: for metrics and for the classroom's page, on `twisted.web`.

Whoever asks must not be able to hurt the service. A connection has one request, with a small body
or none, and a few seconds for all of it; there are so many at a time, and the oldest makes room;
and so many a second are answered. Headers are bounded by `twisted.web` itself, at 16 KiB.
"""

from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.resource import Resource
from twisted.web.server import Request as SiteRequest
from twisted.web.server import Site

from uppercase.core.rates import TokenBuckets
from uppercase.errors import UserError
from uppercase.services._base import CannotStart
from uppercase.tcp.listening import listen_error, listener_of_string


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLimits:
    """What those who ask may have.

    Attributes:
        connections: at one time.
        deadline: seconds of a connection, from its acceptance to its end.
        rate: connections a second that are answered.
        burst: as many at once.
        body: bytes of a request's body.
    """

    connections: int
    deadline: float
    rate: float
    burst: float
    body: int = 0


def on_loopback(description: str) -> str:
    """Return an endpoint string that is not open to other machines unless it says so."""
    kind, _, rest = description.partition(":")
    if description.isdigit():
        kind, rest = "tcp", description
    if kind in ("tcp", "tcp6") and rest and ":interface=" not in description:
        loopback = "127.0.0.1" if kind == "tcp" else r"\:\:1"
        return f"{kind}:{rest}:interface={loopback}"
    return description


class _Request(SiteRequest):
    """A request without a body, or with a small one."""

    def gotLength(self, length: int | None) -> None:
        """Refuse a body before a byte of it is kept."""
        channel: Any = self.channel
        most = channel.factory.limits.body
        super().gotLength(length if length is not None and length <= most else 0)
        if length is None or length > most:
            channel.transport.abortConnection()


class BoundedChannel(HTTPChannel):
    """One connection of somebody who asks."""

    # Whatever stream transport an endpoint gives.
    transport: Any
    factory: "BoundedSite"

    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.factory.lets_in(self):
            abort = self.transport.abortConnection
            seconds = self.factory.limits.deadline
            self._deadline = self.factory.reactor.callLater(seconds, abort)
        else:
            self.transport.abortConnection()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Close after each reply: nothing is kept for who may ask again."""
        return False

    def leave_bounds(self) -> None:
        """Have no deadline any more, and no place among the others; the caller sees to both."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self.factory.channels.pop(self, None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.leave_bounds()
        super().connectionLost(reason)


class BoundedSite(Site):
    """Knows who asks, and how often."""

    protocol: Any = BoundedChannel
    noisy = False
    displayTracebacks = False

    def __init__(self, root: Resource, limits: WebLimits, reactor: Any) -> None:
        super().__init__(root, _Request, timeout=None, reactor=reactor)
        self.limits = limits
        # A dictionary, as an ordered set: the oldest comes first.
        self.channels: dict[BoundedChannel, None] = {}
        self._bucket = TokenBuckets(limits.rate, limits.burst, 1)

    def lets_in(self, channel: BoundedChannel) -> bool:
        """Let a connection in, in place of the oldest where there are enough; not too often."""
        now = self.reactor.seconds()
        level = self._bucket.level("", now)
        if level < 1:
            return False
        self._bucket.take("", level, now)
        self.channels[channel] = None
        if len(self.channels) > self.limits.connections:
            oldest = next(iter(self.channels))
            del self.channels[oldest]
            oldest.transport.abortConnection()
        return True

    def abort_all(self) -> None:
        """End every connection."""
        for channel in list(self.channels):
            channel.transport.abortConnection()

    def log(self, request: Request) -> None:
        """Write no line for each request."""


class WebService(Service):
    """Listens for a site, beside what it is about.

    Args:
        what: is served, for sentences: `metrics are`.
        description: an endpoint string; TCP without an interface is on loopback, and so is a bare
            port number.

    Attributes:
        port: what listens, while it does.

    Raises:
        UserError: the description cannot be used.
    """

    log = Logger("uppercase")

    def __init__(self, what: str, description: str, site: BoundedSite, reactor: Any) -> None:
        self._listener = listener_of_string(reactor, on_loopback(description))
        if self._listener.context is not None:
            raise UserError(
                f"got {description!r}, but {what} served without TLS; use a loopback or UNIX "
                "endpoint, and a proxy before it"
            )
        self.site = site
        self.port: IListeningPort | None = None

    def listen(self) -> None:
        """Listen, or end the program."""
        failures: list[Failure] = []
        listening = self._listener.endpoint.listen(self.site)
        listening.addCallbacks(self._opened, failures.append)
        if failures:
            raise CannotStart(str(listen_error(self._listener.description, failures[0])))

    def _opened(self, port: IListeningPort) -> None:
        self.port = port
        self.opened(self._listener.name(port))

    def opened(self, address: str) -> None:
        """Say where it is."""

    @inlineCallbacks
    def close(self) -> Any:
        """Stop listening, and end every connection."""
        port, self.port = self.port, None
        if port is not None:
            yield maybeDeferred(port.stopListening)
        self.site.abort_all()
