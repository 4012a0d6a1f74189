"""The live page: what the network does to each datagram, on the projector, while it happens.

Here is what browsers get, in `_audience` what there is to tell of a service.

An `Audience` observes one service, as a `Recorder` does, and makes arrows of its events by the same
code; so the page, the record and the answer key agree. `PageService` serves them to browsers: the
page and its parts, the stream of events, the key; and it takes a line to send.

Every request is first asked whether it is the page's own, and every reply has the headers that let
a browser run nothing but the page's own script. Nothing that a client sent is ever put into markup:
it travels as JSON, and the script puts it into text.

Nothing is kept for a watcher that stalls. One whose connection is full gets no frame until it is
empty again, and then all that is kept, at once; so the connection's own buffer is the only queue,
and a frame above its high-water mark the most that a watcher holds. One that takes nothing for
`STALLED` seconds is let go; its browser comes back by itself.
"""

import importlib.util
import io
import json
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from importlib.resources import files
from ipaddress import ip_address
from secrets import token_urlsafe
from typing import Any, Final
from zlib import crc32

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from uppercase.classroom.page._audience import COUNTS, LINE, Audience, Shown
from uppercase.core.guards import TokenBuckets
from uppercase.core.values import printable_address
from uppercase.services.base import Repeated, TransformService, addresses_for_others
from uppercase.services.logs import say
from uppercase.services.web import BoundedSite, WebService, host_in, is_loopback, why_foreign
from uppercase.tcp.kernel import end_if_gone

__all__ = ["Audience", "PageService"]

FRAME: Final = 0.25  # Seconds between frames: four a second look like a stream.

FULL_PACE: Final = 100
"""Fewer watchers than this get each frame; of twice as many, each gets one in three, so a class of
200 costs less than 300 writes a second, and not 800."""

STALLED: Final = 15.0
"""Seconds that a watcher may take nothing: a phone that is carried through the hall comes back."""

HEARTBEAT: Final = 10.0
"""Seconds after which something is written even where nothing happens, so that both sides notice
when the other is gone: the script, too, to which a browser tells of no silence. Proxies give up
after 30 or more."""

WATCHERS: Final = 256  # How many may watch: a class of 200 with a few second screens.

KEPT_FOR_THIS_MACHINE: Final = 8
"""Further places for watchers on this machine: nobody can take the projector's."""

_TURN: Final = 25
"""Watchers that are written to before others have their turn, so that a frame for 200 delays no
datagram by more than some 2 ms."""

SEND_RATE: Final = 2.0  # Lines a second of one watcher: for more, there are programs.

SEND_BURST: Final = 10.0
"""Lines at once: the ten of the pinger's exercise, as fast as one types Return."""


@implementer(IPushProducer)
class _Watcher:
    """One browser that watches, known by a token.

    Attributes:
        stalled_since: when its connection became full; None while it is not.
        ports: those that its lines leave from, by the services that they are for.
    """

    def __init__(self, request: Request, page: "PageService") -> None:
        self.token = token_urlsafe(12)
        self.stalled_since: float | None = None
        self.ports: dict[object, Any] = {}
        self._request: Any = request
        self._page = page
        self._missed = False
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        request.setHeader(b"x-accel-buffering", b"no")  # nginx keeps frames back otherwise.
        request.notifyFinish().addErrback(lambda _: page.forget(self))
        self._request.registerProducer(self, True)

    def push(self, frame: bytes) -> None:
        """Write a frame, or note that it was missed."""
        if self.stalled_since is None:
            self._request.write(frame)
        else:
            self._missed = True

    def pauseProducing(self) -> None:
        self.stalled_since = self._page.seconds()

    def resumeProducing(self) -> None:
        self.stalled_since = None
        if self._missed:
            self._missed = False
            self.push(self._page.greeting(self))

    def stopProducing(self) -> None:
        """Do nothing: the request tells of the loss, too."""

    def end(self) -> None:
        self._request.channel.transport.abortConnection()


def _frame(event: str, content: dict[str, Any]) -> bytes:
    """Return a server-sent event; JSON without a line's end needs no further care."""
    return f"event: {event}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()


class PageSite(BoundedSite):
    # A class of 200 that opens the page all at once: each browser has up to six connections at a
    # time, for six parts of the page.
    connections, deadline, body = 512, 10.0, LINE
    rate, burst = 200.0, 1500.0


_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_PARTS: Final = {
    b"/" + name.replace("page.html", "").encode(): (files(__name__) / name).read_bytes()
    for name in ("page.html", "page.css", "ladder.js", "page.js", "icon.svg")
}
EDITION: Final = crc32(b"".join(_PARTS.values()))
"""Of all of them: a browser that has another loads them anew."""

_KINDS: Final = {b"css": b"text/css", b"js": b"text/javascript", b"svg": b"image/svg+xml"}


class PageService(WebService):
    """Serves the page about services that have an `Audience` among their observers.

    A frame of server-sent events is made once, however many watch: a new watcher is sent a
    snapshot, and then changes, if there are any.

    Args:
        description: an endpoint string, or a port number.
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
        self.shown = [Shown(service, reactor) for service in services]
        self.shows_key = shows_key
        self.hosts = hosts
        self.seconds: Callable[[], float] = reactor.seconds
        self.watchers: dict[str, _Watcher] = {}  # by their tokens
        self.lines = TokenBuckets(SEND_RATE, SEND_BURST, WATCHERS + KEPT_FOR_THIS_MACHINE)
        self._told: list[Any] = []
        self._last_write = 0.0
        self._ticks = 0
        self._turn: IDelayedCall | None = None
        self._frames = Repeated(self._tick, reactor)
        super().__init__("the page is", description, PageSite(_Root(self), reactor), reactor)

    def opened(self, address: str) -> None:
        place: Any = self.port and self.port.getHost()
        if hasattr(place, "host"):
            host = "localhost" if ip_address(place.host).is_unspecified else place.host
            address = f"http://{printable_address(host, place.port)}/"
        say(f"the page is at {address}", event="page", address=address)
        if other := self.address():
            say(f"others open the page at {other}")

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop the services, and show their drain until it is over; then stop."""
        yield gatherResults([each.service.stopService() for each in self.shown])
        if self.watchers:
            yield deferLater(self._reactor, 2 * FRAME)  # in which they see its end
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        for watcher in list(self.watchers.values()):
            watcher.end()
        yield super().stopService()

    def address(self) -> str:
        """Return the address that others open; "" where only this machine can."""
        place: Any = self.port and self.port.getHost()
        if not hasattr(place, "host"):
            return ""
        everywhere, loopback = ip_address(place.host).is_unspecified, is_loopback(place.host)
        hosts = addresses_for_others() if everywhere else [] if loopback else [place.host]
        # A socket for IPv4 serves no IPv6; one for IPv6 serves both.
        served = (host for host in hosts if ":" in place.host or ":" not in host)
        host = next(iter([*self.hosts, *served]), "")
        return host and f"http://{printable_address(host, place.port)}/"

    def _snapshot(self) -> dict[str, Any]:
        """Return all that a new watcher is told."""
        address = self.address()
        return {
            "counts": COUNTS,
            "shows_key": self.shows_key,
            "address": address,
            "code": bool(address) and importlib.util.find_spec("segno") is not None,
            "watchers": len(self.watchers),
            "now": round(self.seconds(), 4),
            "services": [
                {**each.facts(self.shows_key), **each.totals(), **each.audience.snapshot()}
                for each in self.shown
            ],
        }

    def _changes(self) -> dict[str, Any]:
        """Return what is new since the last frame; nothing if nothing is."""
        totals = [each.totals() for each in self.shown]
        changes = [each.audience.changes() for each in self.shown]
        told, before = [totals, len(self.watchers)], self._told
        self._told = told
        if told == before and not any(each["clients"] or each["arrows"] for each in changes):
            return {}
        return {
            "now": round(self.seconds(), 4),
            "watchers": len(self.watchers),
            "services": [{**a, **b} for a, b in zip(totals, changes, strict=True)],
        }

    def admit(self, request: Request) -> None:
        # Invariant: what has changed before the first one came is in its snapshot.
        if not self._frames.running:
            self._changes()
            self._frames.start(FRAME, now=False)
        watcher = _Watcher(request, self)
        self.watchers[watcher.token] = watcher
        channel: Any = request.channel
        channel.leave_bounds()
        # The system's buffer has room for more frames than a phone that is gone is worth.
        end_if_gone(channel.transport, STALLED)
        watcher.push(self.greeting(watcher))

    def greeting(self, watcher: _Watcher) -> bytes:
        """Return the frame for a watcher that comes, or comes back."""
        return _frame("hello", {"you": watcher.token, "edition": EDITION, **self._snapshot()})

    def forget(self, watcher: _Watcher) -> None:
        self.watchers.pop(watcher.token, None)
        for port in watcher.ports.values():
            port.stopListening()
        if not self.watchers:
            self._frames.end()

    def _tick(self) -> None:
        now, watchers = self.seconds(), list(self.watchers.values())
        for watcher in watchers:
            if watcher.stalled_since is not None and now - watcher.stalled_since > STALLED:
                watcher.end()
        self._ticks = (self._ticks + 1) % (1 + len(watchers) // FULL_PACE)
        if self._ticks or self._turn is not None:
            return  # the next frame tells of all since the last, which may be on its way still
        changes = self._changes()
        if changes or now - self._last_write >= HEARTBEAT:
            self._last_write = now
            self._deliver(_frame("frame" if changes else "still", changes), watchers)

    def _deliver(self, data: bytes, watchers: Sequence[_Watcher]) -> None:
        """Write to some, and to the others in the next turns of the reactor."""
        self._turn = None
        for watcher in watchers[:_TURN]:
            if watcher.token in self.watchers:
                watcher.push(data)
        if len(watchers) > _TURN:
            self._turn = self._reactor.callLater(0, self._deliver, data, watchers[_TURN:])


class _Root(Resource):
    isLeaf = True

    def __init__(self, page: PageService) -> None:
        super().__init__()
        self._page = page

    def render_GET(self, request: Request) -> bytes | int:
        if why := self._refusal(request, changes=False):
            return _say(request, 403, why)
        if request.path in _PARTS:
            kind = _KINDS.get(request.path.rpartition(b".")[2], b"text/html")
            request.setHeader(b"content-type", kind + b"; charset=utf-8")
            return _PARTS[request.path]
        match request.path:
            # Who asks for the headers alone could not be seen to have gone.
            case b"/events" if request.method == b"GET":
                local = is_loopback(host_in(request.getClientAddress()))
                room = WATCHERS + (KEPT_FOR_THIS_MACHINE if local else 0)
                if len(self._page.watchers) >= room:
                    return _say(request, 503, "too many are watching; try again later")
                self._page.admit(request)
                return NOT_DONE_YET
            case b"/key" if self._page.shows_key:
                service = self._service(request)
                return _json(request, service.key(_number(request, b"client")) if service else [])
            case b"/qr.svg":
                return self._qr(request)
        return _say(request, 404, "there is no such page; the only one is at /")

    def render_POST(self, request: Request) -> bytes | int:
        if why := self._refusal(request, changes=True):
            return _say(request, 403, why)
        page = self._page
        watcher = page.watchers.get(_argument(request, b"watcher"))
        service = self._service(request)
        if request.path != b"/send" or watcher is None or service is None:
            return _say(request, 404, "the page has lost its connection; open it again")
        if not page.lines.allow(watcher.token, page.seconds()):
            return _say(request, 429, "that was fast; wait a second")
        content: Any = request.content
        line = content.read(LINE)
        if not line:
            return _say(request, 400, "there is nothing to send")
        try:
            told = service.send(watcher.ports, line)
        except OSError as error:
            return _say(request, 503, f"it cannot be sent: {error.strerror or error}")
        if not isinstance(told, Deferred):
            return _json(request, told)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        told.addCallback(lambda each: gone or request.write(_json(request, each)))
        told.addCallback(lambda _: gone or request.finish())
        return NOT_DONE_YET

    def _refusal(self, request: Request, *, changes: bool) -> str:
        """Return why a request is refused, and give its reply the headers of every reply."""
        for name, value in _HEADERS.items():
            request.setHeader(name.encode(), value.encode())
        found = map(request.getHeader, (b"host", b"origin"))
        # Twisted takes headers for UTF-8, and fails at others.
        host, origin = (value if value is None else value.decode("latin-1") for value in found)
        return why_foreign(
            host,
            origin,
            arrived_at=host_in(request.getHost()),
            given=self._page.hosts,
            changes=changes,
        )

    def _service(self, request: Request) -> Shown | None:
        number, shown = _number(request, b"service"), self._page.shown
        return shown[number] if number < len(shown) else None

    def _qr(self, request: Request) -> bytes:
        address = self._page.address()
        try:
            picture = _code_of(address) if address else b""
        except ImportError:
            picture = b""
        if not picture:
            return _say(request, 404, "there is no code")
        request.setHeader(b"content-type", b"image/svg+xml")
        return picture


@lru_cache(1)
def _code_of(address: str) -> bytes:
    """Return an address as a QR code in SVG, which takes twenty times as long as other pages."""
    import segno

    picture = io.BytesIO()
    segno.make(address, micro=False).save(picture, kind="svg", scale=4, light="#fff")
    return picture.getvalue()


def _argument(request: Request, name: bytes) -> str:
    (value, *_) = request.args.get(name, [b""]) if request.args else [b""]
    return value[:64].decode("latin-1")


def _number(request: Request, name: bytes) -> int:
    text = _argument(request, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _json(request: Request, content: object) -> bytes:
    request.setHeader(b"content-type", b"application/json")
    return json.dumps(content).encode()


def _say(request: Request, status: int, sentence: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return f"{sentence}\n".encode()
