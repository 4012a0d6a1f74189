"""The live page: what it tells, to whom, and what neither clients nor visitors can do to it."""

import errno
import gc
import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python import usage
from twisted.python.failure import Failure

from tests.classroom.helpers import arrows_of
from tests.costs import here, spent
from uppercase.classroom.page import (
    FRAME,
    HEARTBEAT,
    KEPT_FOR_THIS_MACHINE,
    STALLED,
    WATCHERS,
    Audience,
    PageService,
)
from uppercase.classroom.page._audience import (
    CLIENTS,
    CLIENTS_TOLD,
    COUNTS,
    HISTORY,
    SHOWN_BURST,
    SHOWN_RATE,
    Shown,
)
from uppercase.classroom.timeline import Arrow, ClientArrows
from uppercase.core import datagram
from uppercase.core.datagram import Destination, Origin
from uppercase.core.events import (
    Chunk,
    Closed,
    Direction,
    Dropped,
    DropReason,
    Event,
    KernelDropped,
    Opened,
    Outcome,
    Received,
    RefusalReason,
    Refused,
    Replied,
)
from uppercase.core.values import parse_host_names, parse_peers
from uppercase.errors import BadValue
from uppercase.lab import Experiment, answer_key, make_experiment
from uppercase.limits import DatagramLimits
from uppercase.services import TCPSettings, UDPSettings, tcp_service, udp_service
from uppercase.services.web import why_foreign
from uppercase.taps import together, udp

LAB = make_experiment({"loss": "0.5"}, seed=7)
ABOUT = {"protocol": "UDP", "transform": "uppercase", "lab": "--seed=7 --loss=0.5"}
HIGH_WATER = 1 << 16


class Visit(StringTransport):
    """A browser's connection, without a socket."""

    producer: Any

    def __init__(self, page: PageService, peer: str = "192.0.2.9") -> None:
        super().__init__(IPv4Address("TCP", "192.0.2.1", 8080), IPv4Address("TCP", peer, 40000))
        self.stalls = False
        self.aborted = False
        self._lost = False
        self._clock = page.site.reactor
        self._channel: Any = page.site.buildProtocol(None)
        self._channel.makeConnection(self)

    def write(self, data: bytes) -> None:
        """Take what is written; one who does not read is full at some time."""
        if not self.aborted:
            super().write(data)
        if self.stalls and len(self.value()) > HIGH_WATER:
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self._clock.callLater(0, self.leave)

    def read_on(self) -> None:
        """Read all that was written, and be empty."""
        self.clear()
        self.stalls = False
        self.producer.resumeProducing()

    def abortConnection(self) -> None:
        self.aborted = True
        self._clock.callLater(0, self.leave)

    def leave(self) -> None:
        """Be gone."""
        if not self._lost:
            self._lost = True
            self._channel.connectionLost(Failure(ConnectionAborted()))

    def ask(
        self,
        path: str = "/",
        body: bytes | None = None,
        host: str = "192.0.2.1:8080",
        origin: str | None = None,
        method: str = "GET",
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask for something; return status, headers and content."""
        self.clear()
        lines = [f"{method if body is None else 'POST'} {path} HTTP/1.0", f"Host: {host}"]
        lines += [] if origin is None else [f"Origin: {origin}"]
        lines += [] if body is None else [f"Content-Length: {len(body)}"]
        asked = "\r\n".join([*lines, "", ""]).encode(errors="surrogateescape")
        self._channel.dataReceived(asked + (body or b""))
        head, _, content = self.value().partition(b"\r\n\r\n")
        if not head:
            return 0, {}, b""
        status, *headers = head.decode().split("\r\n")
        pairs = [line.partition(": ")[::2] for line in headers]
        return int(status.split()[1]), {name.lower(): value for name, value in pairs}, content

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the events so far, and forget them."""
        _, _, text = self.value().decode().rpartition("\r\n\r\n")
        self.clear()
        found = [each.split("\n") for each in text.split("\n\n") if each.startswith("event: ")]
        return [(name[7:], json.loads(data[6:])) for name, data in found]


class Stage:
    """A page about a UDP service that has not started, whose time stands still."""

    def __init__(self, about: dict[str, str] = ABOUT, **options: Any) -> None:
        self.clock = Clock()
        self.audience = Audience(about, self.clock.seconds)
        settings = UDPSettings(lab=LAB, observers=(self.audience,))
        self.service = udp_service(settings, self.clock)
        self.page = PageService("8080", [self.service], self.clock, **options)

    def watch(self, peer: str = "192.0.2.9") -> Visit:
        visit = Visit(self.page, peer)
        visit.ask("/events")
        return visit

    def happen(self, *events: Event) -> None:
        for event in events:
            self.service.notify(event)

    def pass_time(self, seconds: float = FRAME) -> None:
        for _ in range(round(seconds / FRAME)):
            self.clock.advance(FRAME)
            for _ in range(WATCHERS):
                self.clock.advance(0)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.page.stopService()


def test_what_happens_is_told_as_it_happens(stage: Stage) -> None:
    watcher = stage.watch()
    ((name, hello),) = watcher.events()
    assert name == "hello"
    assert hello["services"][0]["arrows"] == []
    stage.happen(Received("192.0.2.7:5", b"hi", 1), Replied("192.0.2.7:5", b"HI", b"hi", 1))
    stage.pass_time()
    ((name, frame),) = watcher.events()
    assert name == "frame"
    assert [arrow[3] for arrow in arrows_of(frame["services"][0])] == ["reply", "request"]
    assert frame["services"][0]["clients"][0][:5] == [1, "192.0.2.7:5", "", 1, 1]


def test_where_nothing_happens_little_is_written(stage: Stage) -> None:
    watcher = stage.watch()
    stage.pass_time()
    watcher.clear()
    stage.pass_time(HEARTBEAT - 2 * FRAME)
    assert watcher.value() == b""
    stage.pass_time(3 * FRAME)
    assert watcher.events() == [("still", {})]


def test_where_many_watch_each_has_fewer_frames(stage: Stage) -> None:
    watchers = [stage.watch() for _ in range(200)]
    for each in watchers:
        each.clear()
    for _ in range(12):
        stage.happen(Received("192.0.2.7:5", b"hi"))
        stage.pass_time()
    assert {len(each.events()) for each in watchers} == {4}


def test_without_a_watcher_nothing_runs(stage: Stage) -> None:
    stage.watch().leave()
    assert stage.clock.getDelayedCalls() == []


def test_of_a_flood_a_sample_is_drawn_of_whole_exchanges_and_all_is_counted() -> None:
    """20,000 datagrams within a second: the rate of the sample is told."""
    clock = Clock()
    audience = Audience(ABOUT, clock.seconds)
    told: list[tuple[Any, ...]] = []
    for turn in range(20):
        clock.advance(0.05)
        for number in range(turn * 1000 + 1, turn * 1000 + 1001):
            audience.notify(Received("192.0.2.7:5", b"x", number))
            audience.notify(Replied("192.0.2.7:5", b"X", b"x", number))
        changes = audience.changes()
        told += arrows_of(changes)
        assert len(json.dumps(changes)) < 100_000
    assert changes["seen"] == 20_000
    assert SHOWN_BURST <= changes["shown"] <= SHOWN_BURST + SHOWN_RATE
    assert len(told) == 2 * changes["shown"]
    assert {each[4] for each in told if each[3] == "request"} == {
        each[4] for each in told if each[3] == "reply"
    }
    ((_, _, _, received, answered, *_),) = audience.snapshot()["clients"]
    assert (received, answered) == (20_000, 20_000)


def test_what_is_not_drawn_goes_by_together_and_is_counted_and_numbered_all_the_same() -> None:
    """So that a flood costs a fraction of what telling of each datagram does."""
    clock = Clock()
    audience = Audience(ABOUT, clock.seconds)
    settings = UDPSettings(observers=(audience,), limits=DatagramLimits(loop_guard=0))
    service: Any = udp_service(settings, clock)
    origins = [
        Origin.of(("192.0.2.7", 50_000 + number % 2), Destination("192.0.2.1", 12_000))
        for number in range(50)
    ]
    for _ in range(100):
        for replies, steps in service.responder.exchange([b"x"] * 50, origins):
            for step in steps:
                service.responder.sent(step)
            service.responder.exchanged(replies, [])
        clock.advance(0.01)
    snapshot = audience.snapshot()
    assert (snapshot["seen"], snapshot["met"]) == (5_000, 2)
    assert snapshot["shown"] == SHOWN_BURST + 50
    assert [client[3:5] for client in snapshot["clients"]] == [[2_500, 2_500]] * 2
    drawn = {(arrow[1], arrow[5]) for arrow in snapshot["arrows"] if arrow[4] == 1}
    assert drawn == {(arrow[1], arrow[5]) for arrow in snapshot["arrows"] if arrow[4] == 2}
    # The last that was drawn came after those that were not.
    assert max(number for _, number in drawn) > len(drawn) // 2 + 25


def test_invented_addresses_fill_nothing() -> None:
    clock = Clock()
    audience = Audience(ABOUT, clock.seconds)
    for number in range(5_000):
        clock.advance(0.01)
        audience.notify(Received(f"192.0.2.{number % 250}:{number}", b"x" * 1000))
    told = audience.snapshot()
    assert (len(told["clients"]), len(told["arrows"])) == (CLIENTS, HISTORY)
    assert told["met"] == 5_000
    assert len(json.dumps(told)) < 150_000
    frames = [audience.changes() for _ in range(20)]
    assert max(len(json.dumps(each)) for each in frames) < 100_000
    assert sum(len(each["clients"]) for each in frames) == CLIENTS
    assert max(len(each["clients"]) for each in frames) == CLIENTS_TOLD


def test_a_long_connection_fills_nothing() -> None:
    clock = Clock()
    audience = Audience({**ABOUT, "protocol": "TCP"}, clock.seconds)
    audience.notify(Opened("192.0.2.7:5"))
    for _ in range(5_000):
        clock.advance(0.02)
        audience.notify(Chunk("192.0.2.7:5", Direction.REQUEST, b"x"))
    assert audience.snapshot()["clients"][0][2] == "open"
    audience.notify(Closed("192.0.2.7:5", Outcome.FINISHED, "", 5000, 0))
    audience.notify(Refused("192.0.2.8:5", RefusalReason.FULL, ""))
    told = audience.snapshot()
    assert len(told["arrows"]) == HISTORY
    assert [client[2] for client in told["clients"]] == ["finished", "refused"]
    assert told["arrows"][-2][-1] == "closed: finished"


def test_a_client_that_goes_on_and_on_fills_nothing() -> None:
    clock = Clock()
    audience = Audience(ABOUT, clock.seconds)
    for number in range(8_000):
        clock.advance(0.01)
        audience.notify(Received("192.0.2.7:5", b"x", number))
        audience.notify(Replied("192.0.2.7:5", b"X", b"x", number))
    assert audience.shown == 8_000
    assert sum(isinstance(each, Arrow) for each in gc.get_objects()) < 6_000


def test_an_exchange_is_forgotten_at_the_same_cost_however_many_are_followed() -> None:
    """It took 200 microseconds beside four thousand others whose replies the lab had delayed."""
    arrows = ClientArrows()
    delayed = {"event": "impaired", "direction": "reply", "actions": ["delayed"], "fates": "late"}
    for number in range(4_000):
        arrows.take({"time": 0.0, "event": "received", "number": number})
        arrows.take({"time": 0.0, "number": number, **delayed})

    def forget() -> None:
        for number in range(1_000):
            arrows.forget(number)

    assert spent(forget) < here(0.02)
    replied = {"time": 1.0, "event": "replied", "fates": "late"}
    (forgotten,) = arrows.take({"number": 1, **replied})
    assert not forgotten.actions
    assert arrows.take({"number": 3_000, **replied})[-1].actions == ("delayed",)


def test_how_far_in_the_key_a_client_has_come_is_told_by_its_numbers() -> None:
    """They begin again after a silent minute; what came in goes on being counted."""
    audience = Audience(ABOUT, Clock().seconds)
    for number in (1, 2, 1):
        audience.notify(Received("192.0.2.7:5", b"x", number))
    ((_, _, _, *counts),) = audience.snapshot()["clients"]
    assert (counts[COUNTS.index("received")], counts[COUNTS.index("number")]) == (3, 1)


def test_what_is_dropped_is_counted_and_what_is_nobodys_is_not_shown() -> None:
    audience = Audience(ABOUT, Clock().seconds)
    audience.notify(Dropped("192.0.2.7:5", DropReason.LOW_PORT, ""))
    audience.notify(KernelDropped("UDP 127.0.0.1:5", 3))
    ((_, peer, _, *counts),) = audience.snapshot()["clients"]
    assert (peer, counts[COUNTS.index("dropped")], sum(counts)) == ("192.0.2.7:5", 1, 1)


def flood(stage: Stage, seconds: float) -> None:
    for _ in range(round(seconds / FRAME)):
        for number in range(25):
            stage.happen(Received(f"192.0.2.7:{number}", b"x" * 64))
        stage.pass_time()


def test_who_does_not_read_is_let_go_and_costs_little(stage: Stage) -> None:
    """Its connection's own buffer is all that it has; others do not notice."""
    staller, reader = stage.watch(), stage.watch()
    staller.stalls = True
    flood(stage, STALLED)
    assert len(stage.page.watchers) == 2
    flood(stage, 2 * STALLED)
    assert staller.aborted
    assert len(staller.value()) < 2 * HIGH_WATER
    assert not reader.aborted
    assert len(stage.page.watchers) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only there")
async def test_who_is_out_of_reach_is_let_go() -> None:
    """The system's buffer would have room for all that is told in a quarter of an hour."""
    service = udp_service(UDPSettings(observers=(_audience("UDP"),)), reactor)
    page = PageService("0", [service], reactor)
    page.startService()
    place: Any = page.port and page.port.getHost()
    with socket.create_connection((place.host, place.port)) as browser:
        browser.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        while not page.watchers:
            await deferLater(page.site.reactor, 0.01)
        (watcher,) = page.watchers.values()
        skt = watcher._request.channel.transport.getHandle()
        option = skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option == 1000 * STALLED
    await page.stopService()


def test_who_reads_again_catches_up(stage: Stage) -> None:
    """All that is kept comes at once, not what was missed."""
    watcher = stage.watch()
    watcher.stalls = True
    flood(stage, 15)
    assert HIGH_WATER < len(watcher.value()) < 2 * HIGH_WATER
    before = watcher.value()
    flood(stage, 1)
    assert watcher.value() == before
    watcher.read_on()
    ((name, hello),) = watcher.events()
    assert name == "hello"
    assert hello["services"][0]["seen"] == 25 * 64


def test_so_many_may_watch_and_this_machine_always(stage: Stage) -> None:
    watchers = [stage.watch() for _ in range(WATCHERS)]
    assert not any(each.aborted for each in watchers)
    status, _, said = Visit(stage.page).ask("/events")
    assert (status, said) == (503, b"too many are watching; try again later\n")
    for _ in range(KEPT_FOR_THIS_MACHINE):
        status, headers, _ = Visit(stage.page, "127.0.0.1").ask("/events")
        # Without it nginx keeps frames back until it has some KiB.
        assert (status, headers["x-accel-buffering"]) == (200, "no")
    assert Visit(stage.page, "127.0.0.1").ask("/events")[0] == 503
    watchers[0].leave()
    watchers[1].leave()
    assert len(stage.page.watchers) == WATCHERS + KEPT_FOR_THIS_MACHINE - 2


def test_others_cannot_use_up_what_this_machine_may_ask(stage: Stage) -> None:
    while Visit(stage.page).ask("/icon.svg")[0]:
        pass
    assert Visit(stage.page, "127.0.0.1").ask()[0] == 200


def test_a_connection_that_asks_nothing_ends(stage: Stage) -> None:
    visit = Visit(stage.page)
    stage.clock.advance(30)
    assert visit.aborted


OURS = "192.0.2.1"


@pytest.mark.parametrize(
    "host",
    [
        "192.0.2.1:8080",
        "192.0.2.1",
        "127.0.0.1:9",
        "localhost",
        "LOCALHOST.",
        "[::1]:8080",
        "class.edu:1",
    ],
)
def test_the_machine_is_known_by_its_numbers_and_by_names_that_were_given(host: str) -> None:
    given = {"class.edu"}
    assert why_foreign(host, None, arrived_at=OURS, given=given, changes=False) == ""
    origin = f"http://{host}"
    assert why_foreign(host, origin, arrived_at=OURS, given=given, changes=True) == ""


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:8080",
        "192.0.2.2",
        "192.0.2.1.evil.example",
        "a@127.0.0.1",
        "[::2]",
    ],
)
def test_by_another_name_it_is_not_known(host: str | None) -> None:
    """A name that suddenly stands for this machine (DNS rebinding) opens nothing."""
    why = why_foreign(host, None, arrived_at=OURS, given={"class.edu"}, changes=False)
    assert "--page-host" in why


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://192.0.2.1:3000", "file://192.0.2.1:8080", ""]
)
def test_another_page_may_ask_nothing(origin: str) -> None:
    assert why_foreign("192.0.2.1:8080", origin, arrived_at=OURS, given=(), changes=False)
    assert why_foreign("192.0.2.1:8080", origin, arrived_at=OURS, given=(), changes=True)


def test_what_changes_something_must_come_from_the_page() -> None:
    assert why_foreign(OURS, None, arrived_at=OURS, given=(), changes=False) == ""
    assert why_foreign(OURS, None, arrived_at=OURS, given=(), changes=True)


@pytest.mark.parametrize("path", ["/", "/page.js", "/events", "/key", "/qr.svg", "/nothing"])
def test_a_foreign_request_is_refused_whatever_it_asks(stage: Stage, path: str) -> None:
    assert Visit(stage.page).ask(path, host="evil.example")[0] == 403
    assert Visit(stage.page).ask(path, origin="http://evil.example")[0] == 403
    # Bytes that are no text.
    assert Visit(stage.page).ask(path, host="\udcff")[0] == 403
    assert Visit(stage.page).ask(path, origin="http://\udcff")[0] == 403
    assert len(stage.page.watchers) == 0


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/icon.svg", "/nothing", "/events"])
@pytest.mark.parametrize("host", ["192.0.2.1:8080", "evil.example"])
def test_every_reply_lets_a_browser_run_only_our_own(stage: Stage, path: str, host: str) -> None:
    _, headers, _ = Visit(stage.page).ask(path, host=host)
    policy = headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert "frame-ancestors 'none'" in policy
    assert not any("unsafe" in each or "*" in each or "http" in each for each in policy)
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(stage: Stage) -> None:
    """Nor does it name a path from the root, so that a proxy can have it under one of its own."""
    parts = {
        path: Visit(stage.page).ask(path)[2].decode()
        for path in ("/", "/page.css", "/page.js", "/ladder.js")
    }
    assert "style=" not in parts["/"]
    assert not any(f" on{event}=" in parts["/"] for event in ("click", "load", "error", "submit"))
    for content in parts.values():
        assert "://" not in content.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"[\"'`]/\w", content)
    for name in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
        assert not any(name in content for content in parts.values())


def test_the_seed_and_the_key_are_hidden_unless_they_are_asked_for() -> None:
    """Whoever has the seed has the key."""
    hidden, shown = Stage(), Stage(shows_key=True)
    assert Visit(hidden.page).ask("/key")[0] == 404
    (_, hello), *_ = hidden.watch().events()
    assert hello["services"][0]["lab"] == [["loss", "0.5"]]
    assert "seed" not in json.dumps(hello)
    (_, hello), *_ = shown.watch().events()
    assert ["seed", "7"] in hello["services"][0]["lab"]
    lines = json.loads(Visit(shown.page).ask("/key?service=0")[2])
    assert lines == [str(row) for row in answer_key(LAB, len(lines))]
    for made in (hidden, shown):
        made.page.stopService()


def test_where_each_client_has_its_own_key_it_is_that_of_the_client() -> None:
    clock = Clock()
    audience = Audience({**ABOUT, "lab": "--loss=0.5 --client=ADDRESS"}, clock.seconds)
    experiment = Experiment(seed=7, request=LAB.request, per_client=True)
    service = udp_service(UDPSettings(lab=experiment, observers=(audience,)), clock)
    page = PageService("8080", [service], clock, shows_key=True)
    assert page.shown[0].facts(True)["lab"] == [("loss", "0.5"), ("per-client", "")]
    service.notify(Received("192.0.2.7:5", b"x"))
    assert json.loads(Visit(page).ask("/key?service=0&client=0")[2]) == []
    lines = json.loads(Visit(page).ask("/key?service=0&client=1")[2])
    assert lines == [str(row) for row in answer_key(experiment, len(lines), host="192.0.2.7")]
    assert json.loads(Visit(page).ask("/key?service=9&client=-1")[2]) == []


def test_the_code_for_phones_is_a_picture_or_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    given, local = Stage(hosts=("class.edu",)), Stage()
    given.page.port = local.page.port = _Port()  # type: ignore[assignment]
    (_, hello), *_ = given.watch().events()
    assert (hello["address"], hello["code"]) == ("http://class.edu:8080/", True)
    status, headers, picture = Visit(given.page).ask("/qr.svg")
    assert (status, headers["content-type"]) == (200, "image/svg+xml")
    assert picture.startswith(b"<?xml")
    # Four modules of white are around the 25, as scanners expect of a code on a dark page.
    assert b'width="132"' in picture
    # It is drawn once: drawing one takes twenty times as long as any other page.
    monkeypatch.setattr("segno.make", None)
    again = Visit(given.page).ask("/qr.svg")
    assert again == (status, {**headers, "date": again[1]["date"]}, picture)
    (_, hello), *_ = local.watch().events()
    assert (hello["address"], hello["code"]) == ("", False)
    assert Visit(local.page).ask("/qr.svg")[0] == 404
    monkeypatch.setitem(sys.modules, "segno", None)
    given.page.hosts = ("other.edu",)
    assert Visit(given.page).ask("/qr.svg")[0] == 404
    for made in (given, local):
        made.page.stopService()


class _Port:
    """What listens somewhere, on loopback mostly."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", self._host, 8080)

    def stopListening(self) -> None:
        """Do nothing: there is no socket."""


def test_others_are_told_a_number_that_they_can_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Stage()
    page = "uppercase.classroom.page.addresses_for_others"
    monkeypatch.setattr(page, lambda: ["2001:db8::7"])
    for host, address in (
        ("192.0.2.1", "http://192.0.2.1:8080/"),
        ("127.0.0.1", ""),
        ("0.0.0.0", ""),
        ("::", "http://[2001:db8::7]:8080/"),
    ):
        made.page.port = _Port(host)  # type: ignore[assignment]
        (_, hello), *_ = made.watch().events()
        assert hello["address"] == address
    made.page.stopService()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_name_for_others_is_told_with_the_pages_own_address(host: str, said: list[str]) -> None:
    page = Stage(hosts=("class.example",)).page
    page.port = _Port(host)  # type: ignore[assignment]
    page.opened("")
    own = "127.0.0.1" if host == "127.0.0.1" else "localhost"
    assert said == [
        f"the page is at http://{own}:8080/",
        "others open the page at http://class.example:8080/",
    ]
    page.stopService()


ORIGIN = "http://192.0.2.1:8080"


def test_a_line_that_the_system_does_not_send_is_said_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, hello), *_ = stage.watch().events()
    refused = OSError(errno.ENETUNREACH, "Network is unreachable")
    monkeypatch.setattr(Shown, "send", mock.Mock(side_effect=refused))
    path = f"/send?watcher={hello['you']}&service=0"
    status, _, said = Visit(stage.page).ask(path, b"hi", origin=ORIGIN)
    assert (status, said) == (503, b"it cannot be sent: Network is unreachable\n")


def test_a_line_is_sent_for_those_who_watch_only(stage: Stage) -> None:
    (_, hello), *_ = stage.watch().events()
    path = f"/send?watcher={hello['you']}&service=0"
    assert Visit(stage.page).ask(path, b"hi")[0] == 403
    assert Visit(stage.page).ask("/send?watcher=x", b"hi", origin=ORIGIN)[0] == 404
    assert Visit(stage.page).ask(f"{path}9", b"hi", origin=ORIGIN)[0] == 404
    assert Visit(stage.page).ask(path, b"", origin=ORIGIN)[0] == 400
    status, _, said = Visit(stage.page).ask(path, b"hi", origin=ORIGIN)
    assert (status, json.loads(said)) == (
        200,
        {"error": "this service takes no line from the page"},
    )
    statuses = [Visit(stage.page).ask(path, b"hi", origin=ORIGIN)[0] for _ in range(20)]
    assert statuses[-1] == 429


def test_headers_alone_are_answered_and_fill_no_log(stage: Stage, said: list[str]) -> None:
    """Twisted has a line for each HEAD; what a peer can cause has one a second."""
    status, headers, body = Visit(stage.page).ask("/", method="HEAD")
    events = Visit(stage.page).ask("/events", method="HEAD")[0]
    assert (status, body, events, said) == (200, b"", 404, [])
    assert int(headers["content-length"]) == len(Visit(stage.page).ask("/")[2])
    assert not stage.page.watchers


def test_a_large_body_is_cut_off_before_it_is_kept(stage: Stage) -> None:
    visit = Visit(stage.page)
    assert visit.ask("/send", b"x" * 100_000, origin=ORIGIN) == (0, {}, b"")
    assert visit.aborted


def _audience(protocol: str) -> Audience:
    return Audience({**ABOUT, "protocol": protocol}, time.monotonic)


def _started(service: Any) -> tuple[Any, PageService, Visit, str]:
    """Start a service with a page; return them, one who watches, and where that one sends."""
    page = PageService("0", [service], service.reactor)
    service.startService()
    page.startService()
    watcher = Visit(page)
    watcher.ask("/events")
    (_, hello), *_ = watcher.events()
    assert hello["services"][0]["sends"]
    return service, page, watcher, f"/send?watcher={hello['you']}&service=0"


async def test_a_watcher_is_one_client_whose_datagrams_are_numbered_as_the_lab_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = UDPSettings(port=0, interfaces=["127.0.0.1"], observers=(_audience("UDP"),))
    service, page, watcher, path = _started(udp_service(settings, reactor))
    first, second = (json.loads(Visit(page).ask(path, b"hi", origin=ORIGIN)[2]) for _ in range(2))
    assert (first["number"], second["number"]) == (1, 2)
    assert first["client"] == second["client"]
    # After a silent minute the lab begins again.
    monkeypatch.setattr(datagram, "FORGET_AFTER", 0)
    assert json.loads(Visit(page).ask(path, b"hi", origin=ORIGIN)[2]) == first
    watcher.leave()
    await page.stopService()
    await service.stopService()
    # Sockets that were left open would be found by the check of every test.
    assert page.port is None


async def test_what_a_stop_still_answers_is_shown() -> None:
    lab = make_experiment({"delay": "reply:300ms"}, seed=7)
    settings = UDPSettings(port=0, interfaces=["127.0.0.1"], lab=lab, observers=(_audience("UDP"),))
    service, page, watcher, path = _started(udp_service(settings, reactor))
    Visit(page).ask(path, b"hi", origin=ORIGIN)
    while not service.responder.received:
        await deferLater(service.reactor, 0.01)
    stopped = service.stopService()
    await page.stopService()
    await stopped
    await deferLater(service.reactor, 0.01)  # in which its browser is let go
    shown = watcher.value().decode()
    assert '"phase":"draining"' in shown
    assert '"HI\\"' in shown
    assert page.port is None


def test_where_only_proxies_are_let_in_the_page_sends_nothing() -> None:
    settings = TCPSettings(proxy_from=parse_peers("127.0.0.1"), observers=(_audience("TCP"),))
    page = PageService("8080", [tcp_service(settings, Clock())], Clock())
    watcher = Visit(page)
    watcher.ask("/events")
    (_, hello), *_ = watcher.events()
    assert not hello["services"][0]["sends"]


@pytest.mark.parametrize(
    ("framing", "transform", "line", "told"),
    [
        ("auto", "uppercase", b"hi", {"reply": "HI"}),
        ("segment", "uppercase", b"hi", {"reply": "HI"}),
        ("netstring", "uppercase", b"hi", {"reply": "HI"}),
        # A reply that is no line, and none at all.
        ("auto", "base64-encode", b"hi", {"reply": "aGk="}),
        ("auto", "base64-decode", b"%", {"error": "no byte came back"}),
    ],
)
async def test_over_tcp_the_reply_is_told_at_once(
    framing: str, transform: str, line: bytes, told: dict[str, str]
) -> None:
    settings = TCPSettings(
        port=0,
        interfaces=["127.0.0.1"],
        framing=framing,
        transforms=[transform],
        observers=(_audience("TCP"),),
    )
    service, page, watcher, path = _started(tcp_service(settings, reactor))
    visit = Visit(page)
    visit.ask(path, line, origin=ORIGIN)
    for _ in range(1000):
        if b"}" in visit.value():
            break
        await deferLater(service.reactor, 0.01)
    assert json.loads(visit.value().rpartition(b"\r\n\r\n")[2]) == told
    watcher.leave()
    await page.stopService()
    await service.stopService()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--page-key"], "got --page-key without a page; add one, such as --page=tcp:8080"),
        (["--page-host=x"], "got --page-host without a page"),
        (["--page=nope:1"], "got 'nope:1', which is not an endpoint string"),
        (["--page=8080", "--page-host=a b"], "--page-host: got 'a b'; accepted are host names"),
        (["--page=8080", "--workers=2"], "got --workers with --record or --page"),
    ],
)
def test_what_is_wrong_with_the_options_is_one_sentence(words: list[str], sentence: str) -> None:
    options: Any = udp.Options()
    with pytest.raises(usage.UsageError) as caught:
        options.parseOptions(words)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("bad", ["", "a b", "a:1", "http://a", "-"])
def test_a_host_is_a_name_or_an_address(bad: str) -> None:
    assert parse_host_names("Class.edu, 192.0.2.1,[::1]") == ("class.edu", "192.0.2.1", "::1")
    with pytest.raises(BadValue):
        parse_host_names(bad)


def test_a_file_of_services_has_one_page_of_all(tmp_path: Any) -> None:
    path = tmp_path / "services.toml"
    path.write_text(
        'page = "8080"\npage-key = true\n'
        '[services.one]\nprotocol = "udp"\nport = 0\n[services.two]\nprotocol = "tcp"\nport = 0\n'
    )
    options: Any = together.Options()
    options.parseOptions([f"--config={path}"])
    *services, page = options.service
    assert isinstance(page, PageService)
    assert [len(each.settings.observers) for each in services] == [1, 1]
    path.write_text('page-key = 3\n[services.one]\nprotocol = "udp"\n')
    with pytest.raises(usage.UsageError, match="page-key: got 3; accepted are true and false"):
        together.Options().parseOptions([f"--config={path}"])


def test_without_a_page_nobody_watches() -> None:
    """So that it costs nothing; see the tests of the responder, which asks for an observer once."""
    options: Any = udp.Options()
    options.parseOptions(["--port=0"])
    assert options.services[0].settings.observers == ()
