"""HTTP beside a service, on `twisted.web`: for the classroom's page, and for metrics.

No client can hurt the service. A connection has one request, with a small body or none, and a few
seconds for all of it. How many are open is bounded, so that the oldest makes room, and so is how
many are answered each second. `twisted.web` itself bounds headers, at 16 KiB. Numbers are gathered
at most once a second. `why_foreign` tells a page's own requests from those of other pages.
"""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IListeningPort
from twisted.internet.protocol import connectionDone
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.resource import Resource
from twisted.web.server import Request as SiteRequest
from twisted.web.server import Site
from zope.interface import implementer

from uppercase.core.guards import TokenBuckets
from uppercase.core.values import host_address, lacks_argument
from uppercase.errors import CannotListen, UserError, install
from uppercase.services._stopping import CannotStart
from uppercase.services._tcp import see_through
from uppercase.services.logs import say
from uppercase.services.metrics import Measurements, exposition
from uppercase.tcp.listening import listener_of_string

if TYPE_CHECKING:
    from uppercase.services.supervisor import Supervisor


def on_loopback(description: str) -> str:
    """Return an endpoint string that is not open to other machines unless it says so."""
    if description.isdigit():
        description = f"tcp:{description}"
    kind, _, rest = description.partition(":")
    if rest and lacks_argument(description, "interface"):
        loopback = "127.0.0.1" if kind == "tcp" else r"\:\:1"
        description = f"{description}:interface={loopback}"
    return description


class _Request(SiteRequest):
    def gotLength(self, length: int | None) -> None:
        """Refuse a body before a byte of it is kept."""
        channel: Any = self.channel
        most = channel.factory.body
        super().gotLength(length if length is not None and length <= most else 0)
        if length is None or length > most:
            channel.transport.abortConnection()

    def render(self, resrc: Any) -> None:
        """Answer HEAD as GET, without the body; Twisted would have a line in the log for each."""
        if self.method != b"HEAD":
            super().render(resrc)
            return
        self.setHeader(b"content-length", b"%d" % len(resrc.render(self)))
        self.write(b"")
        self.finish()


@implementer(IHalfCloseableProtocol)
class BoundedChannel(HTTPChannel):
    """One connection of somebody who asks; whoever sends no more is let go."""

    # Whatever stream transport an endpoint gives.
    transport: Any
    factory: "BoundedSite"

    def connectionMade(self) -> None:
        super().connectionMade()
        if not self.factory.lets_in(self):
            self.transport.abortConnection()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Close after each reply: nothing is kept for somebody who may ask again."""
        return False

    def leave_bounds(self) -> None:
        """Give up the deadline and the place among the others; the caller sees to both."""
        deadline = self.factory.channels.pop(self, None)
        if deadline is not None and deadline.active():
            deadline.cancel()

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.leave_bounds()
        super().connectionLost(reason)


class BoundedSite(Site):
    """Knows who asks, and how often; its subclasses say what they may have."""

    protocol: Any = BoundedChannel
    noisy = False
    displayTracebacks = False
    connections: ClassVar[int]
    deadline: ClassVar[float]
    rate: ClassVar[float]
    burst: ClassVar[float]
    body = 0

    def __init__(self, root: Resource, reactor: Any) -> None:
        super().__init__(root, _Request, timeout=None, reactor=reactor)
        # With their deadlines; the oldest comes first.
        self.channels: dict[BoundedChannel, IDelayedCall] = {}
        # One for this machine, whose page is on the projector, and one for all others.
        self._buckets = TokenBuckets(self.rate, self.burst, 2)

    def lets_in(self, channel: BoundedChannel) -> bool:
        """Let a connection in, instead of the oldest if there are too many; not too often."""
        local = is_loopback(host_in(channel.transport.getPeer()))
        if not self._buckets.allow(local, self.reactor.seconds()):
            return False
        abort = channel.transport.abortConnection
        self.channels[channel] = self.reactor.callLater(self.deadline, abort)
        if len(self.channels) > self.connections:
            oldest = next(iter(self.channels))
            oldest.leave_bounds()
            oldest.transport.abortConnection()
        return True

    def log(self, request: Request) -> None: ...


def host_in(address: Any) -> str:
    """Return the host of one of Twisted's addresses; "" where it has none."""
    return str(getattr(address, "host", ""))


def is_loopback(host: str) -> bool:
    """Whether an address, or the lack of one, means this very machine."""
    number = host_address(host)
    return number is None or number.is_loopback


class WebService(Service):
    """Listens for a site; TCP without an interface, or a bare port number, is on loopback."""

    def __init__(self, what: str, description: str, site: BoundedSite, reactor: Any) -> None:
        if description.lower().startswith(("tls:", "ssl:")):
            raise UserError(
                f"got {description!r}, but {what} served without TLS; use a loopback or UNIX "
                "endpoint, and a proxy before it"
            )
        self._listener = listener_of_string(reactor, on_loopback(description))
        self._reactor = reactor
        self.site = site
        self.port: IListeningPort | None = None
        self._opening: Deferred[Any] | None = None

    def privilegedStartService(self) -> None:
        self._open()

    def startService(self) -> None:
        Service.startService(self)
        self._open()

    def _open(self) -> None:
        """Listen, while twistd has its privileges, if it tells of that step; else at the start."""
        if self._opening is not None:
            return
        opening = self._listener.listen(self.site, self._reactor, self._accept_failed)
        self._opening = opening.addCallback(self._opened)
        try:
            see_through(self._opening, self._listener.description, self._reactor)
        except CannotListen as error:
            raise CannotStart(str(error)) from error

    def _opened(self, port: IListeningPort) -> None:
        self.port = port
        self.opened(self._listener.name(port))

    def _accept_failed(self, error: OSError) -> None:
        why = f"no connection can be accepted for now: {error.strerror}; new clients wait"
        say(f"{self._listener.description}: {why}", LogLevel.warn)

    def opened(self, address: str) -> None: ...

    @inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        port, self.port = self.port, None
        if port is not None:
            yield maybeDeferred(port.stopListening)
        for channel in list(self.site.channels):
            channel.transport.abortConnection()


_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::[0-9]{1,5})?", re.ASCII)

# Invariant: a browser also asks what foreign pages tell it to. Such a page can make a visitor's
# browser send a form to an address of this machine (CSRF), and with a name of its own that suddenly
# stands for this machine (DNS rebinding) it could even read what comes back. Against the first,
# whatever names an `Origin` must name the very `Host` that it asks, and what changes something must
# name one. Against the second, a host is accepted as a number, which no rebinding can be: one of
# loopback's, or the one at which this connection arrived. Names are accepted if the operator gave
# them, besides `localhost`, which browsers do not look up.


def why_foreign(
    host: str | None,
    origin: str | None,
    *,
    arrived_at: str,
    given: Collection[str],
    changes: bool,
) -> str:
    """Return why a request is not the page's own, as a sentence; "" if it is."""
    match = _HOST.fullmatch((host or "").lower())
    name = (match[1] or match[2]).rstrip(".") if match else ""
    number = host_address(name)
    ours = number is not None and (number.is_loopback or number == host_address(arrived_at))
    if not (ours or name == "localhost" or name in given):
        return (
            f"this page is not at {name[:80] or 'a host without a name'}; open it by its number, "
            "or have it started with --page-host=NAME"
        )
    if origin is None:
        return "only the page itself may do this" if changes else ""
    scheme, _, authority = origin.lower().partition("://")
    if scheme not in ("http", "https") or authority != (host or "").lower():
        return "only the page itself may ask this, and another one did"
    return ""


class MetricsSite(BoundedSite):
    """What those who ask for metrics may have."""

    # Two Prometheus servers, a load balancer and a person, four times.
    connections = 16
    deadline = 5.0  # A scrape takes a millisecond.
    # At 2 ms each, a tenth of one processor, and as much for those on this machine.
    rate, burst = 50.0, 100.0


FRESH: Final = 1.0  # Seconds for which gathered numbers serve: nobody scrapes more often.

_TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"


class MetricsService(WebService):
    """Serves the numbers of a source until what is measured has ended."""

    def __init__(self, description: str, source: "Measurements | Supervisor", reactor: Any) -> None:
        try:
            import prometheus_client.core  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"metrics need prometheus-client; install it with: {install('metrics')}"
            ) from error
        root = Resource()
        root.putChild(b"metrics", _Text(self._metrics))
        root.putChild(b"healthz", _Text(lambda: (200, b"ok\n")))
        root.putChild(b"readyz", _Text(self._ready))
        super().__init__("metrics are", description, MetricsSite(root, reactor), reactor)
        self._source = source
        self._gathered, self._when = b"", float("-inf")

    def opened(self, address: str) -> None:
        text = f"metrics are at {address}: /metrics, /healthz, /readyz"
        say(text, event="metrics", address=address)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Tell of the drain until it is over, then stop."""
        yield self._source.stopService()
        yield super().stopService()

    def _metrics(self) -> tuple[int, bytes]:
        now = self.site.reactor.seconds()
        if now - self._when >= FRESH:
            self._gathered, self._when = exposition(self._source.snapshot()), now
        return 200, self._gathered

    def _ready(self) -> tuple[int, bytes]:
        why = self._source.not_ready()
        return (503 if why else 200), f"{why or 'ready'}\n".encode()


class _Text(Resource):
    isLeaf = True

    def __init__(self, give: Any) -> None:
        super().__init__()
        self._give = give

    def render_GET(self, request: SiteRequest) -> bytes:
        request.setHeader(b"content-type", _TEXT)
        status, body = self._give()
        request.setResponseCode(status)
        return bytes(body)
