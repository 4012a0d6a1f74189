"""Where metrics are asked for, over HTTP, and the sum of those that workers have measured.

Whoever asks is bounded as everybody is who asks beside a service (`uppercase.services.web`), and
the numbers are gathered once a second at the most.
"""

from typing import Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.web.resource import Resource
from twisted.web.server import Request as SiteRequest

from uppercase.errors import UserError
from uppercase.services._metrics import FAMILIES, Snapshot, Source, add_up, counted, exposition
from uppercase.services._supervisor import Supervisor
from uppercase.services._worker_process import Worker
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


_GAUGES = {family.name for family in FAMILIES if family.kind == "gauge"}


class Tally:
    """A `Source` of metrics: what workers last sent, and the counters of those that have ended."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._past: Snapshot = {}
        self._last: dict[Worker, Snapshot] = {}
        supervisor.tally = self

    def take(self, worker: Worker, numbers: Snapshot) -> None:
        """Take a worker's numbers in place of those before."""
        self._last[worker] = numbers

    def forget(self, worker: Worker) -> None:
        """Keep only what an ended worker has counted; what it had is gone with it."""
        last = self._last.pop(worker, {})
        counted = {key: number for key, number in last.items() if key[0] not in _GAUGES}
        self._past = add_up([self._past, counted])

    def start(self) -> None:
        """The workers measure from their own start."""

    def stop(self) -> None:
        """And to their own end."""

    def snapshot(self) -> Snapshot:
        ours: Snapshot = {
            ("workers",): len(self._last),
            ("worker_restarts",): self._supervisor.restarts,
        }
        # What the supervisor counts itself, as it has the sockets.
        looked_at = (dict(counted(each)) for each in self._supervisor.services)
        return add_up([self._past, *self._last.values(), *looked_at, ours])

    def not_ready(self) -> str:
        return self._supervisor.not_ready()

    def ended(self) -> Deferred[Any]:
        return self._supervisor.stopService()
