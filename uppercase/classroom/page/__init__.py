"""The live page: what the network does to each datagram, on the projector, while it happens.

An `Audience` observes one service, as a `Recorder` does, and makes arrows of its events by the same
code; so the page, the record and the answer key agree. `PageService` serves them to browsers: the
page and its parts, the stream of events, the key; and it takes a line to send.

Every request is first asked whether it is the page's own, and every reply has the headers that let
a browser run nothing but the page's own script. Nothing that a client sent is ever put into markup:
it travels as JSON, and the script puts it into text.
"""

import importlib.util
import io
import json
import re
from collections.abc import Collection
from importlib.resources import files
from ipaddress import ip_address
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from uppercase.classroom.page._audience import COUNTS, LINE, Audience, Shown
from uppercase.classroom.page._watchers import Watchers
from uppercase.core.values import host_address, printable_address
from uppercase.services.base import TransformService, addresses_for_others
from uppercase.services.logs import say
from uppercase.services.web import BoundedSite, WebService

__all__ = ["Audience", "PageService"]


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

_PARTS: Final = ("page.html", "page.css", "ladder.js", "page.js", "icon.svg")
_KINDS: Final = {b"css": b"text/css", b"js": b"text/javascript", b"svg": b"image/svg+xml"}


class PageService(WebService):
    """Serves the page about services that have an `Audience` among their observers.

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
        self._told: list[Any] = []
        self.watchers = Watchers(self._snapshot, self._changes, reactor)
        super().__init__("the page is", description, PageSite(_Root(self), reactor), reactor)

    def opened(self, address: str) -> None:
        place: Any = self.port and self.port.getHost()
        if hasattr(place, "host"):
            host = "localhost" if ip_address(place.host).is_unspecified else place.host
            address = f"http://{printable_address(host, place.port)}/"
        say(f"the page is at {address}", event="page", address=address)
        if other := self.address():
            say(f"others open the page at {other}")

    def stopService(self) -> Deferred[Any]:
        self.watchers.stop()
        stopped: Deferred[Any] = super().stopService()
        return stopped

    def address(self) -> str:
        """Return the address that others open; "" where only this machine can."""
        place: Any = self.port and self.port.getHost()
        if not hasattr(place, "host"):
            return ""
        everywhere, loopback = ip_address(place.host).is_unspecified, _is_loopback(place.host)
        hosts = addresses_for_others() if everywhere else [] if loopback else [place.host]
        host = next(iter([*self.hosts, *hosts]), "")
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
            "now": round(self.watchers.seconds(), 4),
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
            "now": round(self.watchers.seconds(), 4),
            "watchers": len(self.watchers),
            "services": [{**a, **b} for a, b in zip(totals, changes, strict=True)],
        }


class _Root(Resource):
    isLeaf = True

    def __init__(self, page: PageService) -> None:
        super().__init__()
        self._page = page
        folder = files("uppercase.classroom.page")
        self._parts = {
            b"/" + name.replace("page.html", "").encode(): (folder / name).read_bytes()
            for name in _PARTS
        }

    def render_GET(self, request: Request) -> bytes | int:
        if why := self._refusal(request, changes=False):
            return _say(request, 403, why)
        if request.path in self._parts:
            kind = _KINDS.get(request.path.rpartition(b".")[2], b"text/html")
            request.setHeader(b"content-type", kind + b"; charset=utf-8")
            return self._parts[request.path]
        match request.path:
            case b"/events":
                local = _is_loopback(_host(request.getClientAddress()))
                if not self._page.watchers.have_room(local=local):
                    return _say(request, 503, "too many are watching; try again later")
                self._page.watchers.admit(request)
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
        watchers = self._page.watchers
        watcher = watchers.by_token.get(_argument(request, b"watcher"))
        service = self._service(request)
        if request.path != b"/send" or watcher is None or service is None:
            return _say(request, 404, "the page has lost its connection; open it again")
        if not watchers.lines.allow(watcher.token, watchers.seconds()):
            return _say(request, 429, "that was fast; wait a second")
        content: Any = request.content
        line = content.read(LINE)
        if not line:
            return _say(request, 400, "there is nothing to send")
        try:
            told = service.send(watcher, line)
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
        return why_foreign(
            request.getHeader("host"),
            request.getHeader("origin"),
            arrived_at=_host(request.getHost()),
            given=self._page.hosts,
            changes=changes,
        )

    def _service(self, request: Request) -> Shown | None:
        number, shown = _number(request, b"service"), self._page.shown
        return shown[number] if number < len(shown) else None

    def _qr(self, request: Request) -> bytes:
        address = self._page.address()
        try:
            import segno
        except ImportError:
            address = ""
        if not address:
            return _say(request, 404, "there is no code")
        picture = io.BytesIO()
        segno.make(address, micro=False).save(picture, kind="svg", scale=4, border=3, light="#fff")
        request.setHeader(b"content-type", b"image/svg+xml")
        return picture.getvalue()


def _host(address: Any) -> str:
    return str(getattr(address, "host", ""))


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


def _is_loopback(host: str) -> bool:
    """Whether an address, or the lack of one, means this very machine."""
    number = host_address(host)
    return number is None or number.is_loopback
