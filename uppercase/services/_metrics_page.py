"""Where metrics are asked for: `/metrics`, `/healthz` and `/readyz` over HTTP.

Whoever asks is bounded as everybody is who asks beside a service (`uppercase.services.web`), and
the numbers are gathered once a second at the most.
"""

from typing import Any, Final

from twisted.internet.defer import inlineCallbacks
from twisted.web.resource import Resource
from twisted.web.server import Request as SiteRequest

from uppercase.errors import UserError
from uppercase.services._metrics import Source, exposition
from uppercase.services.web import BoundedSite, WebLimits, WebService

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


class MetricsService(WebService):
    """Serves the numbers of a source until what is measured has ended.

    Args:
        description: an endpoint string; TCP without an interface is on loopback, and so is a bare
            port number.
        source: where the numbers come from.
        reactor: Twisted's.

    Raises:
        UserError: the description cannot be used, or the library for the format is missing.
    """

    def __init__(self, description: str, source: Source, reactor: Any) -> None:
        try:
            import prometheus_client  # noqa: F401
        except ImportError as error:
            raise UserError(
                "metrics need prometheus-client; install it with: "
                "pip install 'twisted-uppercase[metrics]'"
            ) from error
        limits = WebLimits(connections=CONNECTIONS, deadline=DEADLINE, rate=_RATE, burst=_BURST)
        site = BoundedSite(_page(source, reactor), limits, reactor)
        super().__init__("metrics are", description, site, reactor)
        self._source = source
        self._measuring = False

    def startService(self) -> None:
        """Listen, or end the program."""
        super().startService()
        self._source.start()
        self._measuring = True
        self.listen()

    def opened(self, address: str) -> None:
        """Say where metrics are."""
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
        yield self.close()


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
