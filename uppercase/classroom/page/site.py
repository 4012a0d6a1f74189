"""What browsers ask for: the page and its parts, the stream of events, the key, a line to send.

Every request is first asked whether it is the page's own, and every reply has the headers that let
a browser run nothing but the page's own script. Nothing that a client sent is ever put into markup:
it travels as JSON, and the script puts it into text.
"""

import io
import json
import re
from collections.abc import Callable, Collection, Mapping
from importlib.resources import files
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from uppercase.classroom.page.watchers import LINE, Senders, Watchers
from uppercase.core.values import host_address

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
    b"/": ("page.html", "text/html"),
    b"/page.css": ("page.css", "text/css"),
    b"/ladder.js": ("ladder.js", "text/javascript"),
    b"/page.js": ("page.js", "text/javascript"),
    b"/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Site(Resource):
    """All of the page.

    Args:
        hosts: names and addresses that the operator gave.
        address: gives the address that a phone opens, or "".
        key: gives the lines of the answer key of a service for a client, by their numbers; None
            where the key is not to be shown.
    """

    isLeaf = True

    def __init__(
        self,
        watchers: Watchers,
        senders: Senders,
        hosts: Collection[str],
        address: Callable[[], str],
        key: Callable[[int, int], list[str]] | None,
    ) -> None:
        super().__init__()
        self._watchers = watchers
        self._senders = senders
        self._hosts = hosts
        self._address = address
        self._key = key
        folder = files("uppercase.classroom.page")
        self._parts: Mapping[bytes, tuple[bytes, str]] = {
            path: ((folder / name).read_bytes(), f"{kind}; charset=utf-8")
            for path, (name, kind) in _PARTS.items()
        }

    def render_GET(self, request: Request) -> bytes | int:
        if why := self._refusal(request, changes=False):
            return _say(request, 403, why)
        if request.path in self._parts:
            content, kind = self._parts[request.path]
            request.setHeader(b"content-type", kind.encode())
            return content
        match request.path:
            case b"/events":
                return self._watch(request)
            case b"/key" if self._key is not None:
                return _json(
                    request, self._key(_number(request, b"service"), _number(request, b"client"))
                )
            case b"/qr.svg":
                return self._qr(request)
        return _say(request, 404, "there is no such page; the one that there is, is at /")

    def render_POST(self, request: Request) -> bytes | int:
        if why := self._refusal(request, changes=True):
            return _say(request, 403, why)
        watcher = self._watchers.find(_argument(request, b"watcher"))
        if request.path != b"/send" or watcher is None:
            return _say(request, 404, "the page has lost its connection; open it again")
        if not self._senders.allows(watcher.token):
            return _say(request, 429, "that was fast; wait a second")
        content: Any = request.content
        line = content.read(LINE)
        if not line:
            return _say(request, 400, "there is nothing to send")
        try:
            told = self._senders.send(watcher, _number(request, b"service"), line)
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
            given=self._hosts,
            changes=changes,
        )

    def _watch(self, request: Request) -> bytes | int:
        if not self._watchers.have_room(local=is_loopback(_host(request.getClientAddress()))):
            return _say(request, 503, "as many watch as may; try again later")
        self._watchers.admit(request)
        return NOT_DONE_YET

    def _qr(self, request: Request) -> bytes:
        address = self._address()
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
    known = name == "localhost" or name in given or _is_ours(name, arrived_at)
    if not known:
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


def is_loopback(host: str) -> bool:
    """Whether an address, or the lack of one, means this very machine."""
    number = host_address(host)
    return number is None or number.is_loopback


def _is_ours(name: str, arrived_at: str) -> bool:
    number = host_address(name)
    return number is not None and (number.is_loopback or number == host_address(arrived_at))
