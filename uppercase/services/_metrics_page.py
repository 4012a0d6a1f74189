"""Where metrics are asked for: `/metrics`, `/healthz` and `/readyz` over HTTP.

Whoever asks must not be able to hurt the service. A connection has one request, without a body, and
a few seconds for all of it; there are few at a time, and the oldest makes room; so many a second
are answered; and the numbers are gathered once a second at the most. Headers are bounded by
`twisted.web` itself, at 16 KiB.
"""

from typing import Any, Final

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
from uppercase.services._metrics import Source, exposition
from uppercase.tcp.listening import listen_error, listener_of_string

DEADLINE: Final = 5.0
"""Seconds that a connection has from its acceptance to its end: a scrape takes a millisecond."""

CONNECTIONS: Final = 16
"""Connections at one time: two Prometheus servers, a load balancer and a person, four times."""

_RATE: Final = 50.0
"""Connections a second that are answered; at 2 ms each, a tenth of one processor."""

_BURST: Final = 100.0

FRESH: Final = 1.0
"""Seconds that gathered numbers serve: nobody scrapes more often than that."""

_TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"


class MetricsService(Service):
    """Serves the numbers of a source until what is measured has ended.

    Args:
        description: an endpoint string; TCP without an interface is on loopback, and so is a bare
            port number.
        source: where the numbers come from.
        reactor: Twisted's.

    Raises:
        UserError: the description cannot be used, or the library for the format is missing.
    """

    log = Logger("uppercase")

    def __init__(self, description: str, source: Source, reactor: Any) -> None:
        try:
            import prometheus_client  # noqa: F401
        except ImportError as error:
            raise UserError(
                "metrics need prometheus-client; install it with: "
                "pip install 'twisted-uppercase[metrics]'"
            ) from error
        self._listener = listener_of_string(reactor, on_loopback(description))
        if self._listener.context is not None:
            raise UserError(
                f"got {description!r}, but metrics are served without TLS; use a loopback or UNIX "
                "endpoint, and a proxy before it"
            )
        self._source = source
        self._site = _BoundedSite(source, reactor)
        self._port: IListeningPort | None = None
        self._measuring = False

    def startService(self) -> None:
        """Listen, or end the program."""
        super().startService()
        self._source.start()
        self._measuring = True
        failures: list[Failure] = []
        listening = self._listener.endpoint.listen(self._site)
        listening.addCallbacks(self._opened, failures.append)
        if failures:
            raise CannotStart(str(listen_error(self._listener.description, failures[0])))

    def _opened(self, port: IListeningPort) -> None:
        self._port = port
        address = self._listener.name(port)
        self.log.info(
            "metrics are at {address}: /metrics, /healthz, /readyz",
            address=address,
            facts={"event": "metrics", "address": address},
        )

    @inlineCallbacks
    def stopService(self) -> Any:
        """Tell of the drain until it is over, then stop."""
        super().stopService()
        yield self._source.ended()
        if self._measuring:
            self._measuring = False
            self._source.stop()
        port, self._port = self._port, None
        if port is not None:
            yield maybeDeferred(port.stopListening)
        self._site.abort_all()


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
    """A request without a body."""

    def gotLength(self, length: int | None) -> None:
        """Refuse a body before a byte of it is kept."""
        super().gotLength(0)
        if length != 0:
            channel: Any = self.channel
            channel.transport.abortConnection()


class _Channel(HTTPChannel):
    """One connection of somebody who asks."""

    # Whatever stream transport an endpoint gives.
    transport: Any
    factory: "_BoundedSite"

    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.factory.lets_in(self):
            abort = self.transport.abortConnection
            self._deadline = self.factory.reactor.callLater(DEADLINE, abort)
        else:
            self.transport.abortConnection()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Close after each reply: nothing is kept for who may ask again."""
        return False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self.factory.channels.pop(self, None)
        super().connectionLost(reason)


class _BoundedSite(Site):
    """Knows who asks, and how often."""

    protocol: Any = _Channel
    noisy = False
    displayTracebacks = False

    def __init__(self, source: Source, reactor: Any) -> None:
        super().__init__(_page(source, reactor), _Request, timeout=None, reactor=reactor)
        # A dictionary, as an ordered set: the oldest comes first.
        self.channels: dict[_Channel, None] = {}
        self._bucket = TokenBuckets(_RATE, _BURST, 1)

    def lets_in(self, channel: _Channel) -> bool:
        """Let a connection in, in place of the oldest where there are enough; not too often."""
        now = self.reactor.seconds()
        level = self._bucket.level("", now)
        if level < 1:
            return False
        self._bucket.take("", level, now)
        self.channels[channel] = None
        if len(self.channels) > CONNECTIONS:
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


class _Text(Resource):
    """A page of text that a function gives, with its status."""

    isLeaf = True

    def __init__(self, give: Any) -> None:
        super().__init__()
        self._give = give

    def render_GET(self, request: SiteRequest) -> bytes:
        request.setHeader(b"content-type", _TEXT)
        status, body = self._give()
        request.setResponseCode(status)
        return bytes(body)


def _page(source: Source, reactor: Any) -> Resource:
    """Return the three pages."""
    gathered: tuple[float, bytes] = (float("-inf"), b"")

    def metrics() -> tuple[int, bytes]:
        nonlocal gathered
        now = reactor.seconds()
        if now - gathered[0] >= FRESH:
            gathered = now, exposition(source.snapshot())
        return 200, gathered[1]

    def ready() -> tuple[int, bytes]:
        why = source.not_ready()
        return (503 if why else 200), f"{why or 'ready'}\n".encode()

    root = Resource()
    root.putChild(b"metrics", _Text(metrics))
    root.putChild(b"healthz", _Text(lambda: (200, b"ok\n")))
    root.putChild(b"readyz", _Text(ready))
    return root
