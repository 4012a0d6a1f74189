"""The protocol around a responder: late replies, held ones, the end, and Twisted's own port."""

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.task import Clock, deferLater

from tests.udp.helpers import (
    SILENCE,
    Notebook,
    applied,
    ask,
    client,
    columns,
    in_thread,
    packet,
    served,
)
from uppercase.core.events import Dropped, DropReason, Received, Replied
from uppercase.core.responder import Responder
from uppercase.lab import Lab, make_experiment
from uppercase.limits import DatagramLimits
from uppercase.udp import ResponderProtocol

pytestmark = pytest.mark.usefixtures("awaiting_at_once")


class Wire:
    """A transport in memory."""

    maxPacketSize = 8192

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Any]] = []
        self.error: Exception | None = None

    def getHost(self) -> Any:
        return type("Host", (), {"host": "192.0.2.1", "port": 12_000})

    def write(self, data: bytes, address: Any) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((data, address))


def connected(responder: Responder, clock: Clock) -> tuple[ResponderProtocol, Wire]:
    protocol, wire = ResponderProtocol(responder, clock), Wire()
    made: Any = wire
    protocol.makeConnection(made)
    return protocol, wire


@pytest.fixture
def awaited() -> Iterator[list[Deferred[bytes]]]:
    """What the transform of a test gives, in order."""
    made: list[Deferred[bytes]] = []
    yield made
    for each in made:
        each.addErrback(lambda failure: None)


def deferring(awaited: list[Deferred[bytes]], **limits: int) -> Responder:
    def start(data: bytes) -> Deferred[bytes]:
        awaited.append(Deferred())
        return awaited[-1]

    return Responder(applied(start), DatagramLimits(**limits))  # type: ignore[arg-type]


PEER = ("192.0.2.7", 50_000)


def test_late_replies_are_sent_when_they_are_ready(awaited: list[Deferred[bytes]]) -> None:
    protocol, wire = connected(deferring(awaited), Clock())
    protocol.datagramReceived(b"one", PEER)
    protocol.datagramReceived(b"two", PEER)
    awaited[1].callback(b"TWO")
    awaited[0].callback(b"ONE")
    assert wire.sent == [(b"TWO", PEER), (b"ONE", PEER)]
    assert protocol.responder.outstanding == 0


def test_a_late_reply_is_guarded_too(awaited: list[Deferred[bytes]]) -> None:
    protocol, wire = connected(deferring(awaited), Clock())
    protocol.datagramReceived(b"one", PEER)
    awaited[0].callback(bytes(1000))
    assert wire.sent == []
    assert protocol.responder.drops == {DropReason.AMPLIFICATION: 1}


def test_a_late_failure_costs_one_datagram(awaited: list[Deferred[bytes]]) -> None:
    protocol, wire = connected(deferring(awaited), Clock())
    protocol.datagramReceived(b"one", PEER)
    awaited[0].errback(ValueError("no"))
    assert wire.sent == []
    assert protocol.responder.drops == {DropReason.FAILED: 1}


def test_a_reply_that_is_ready_at_once_is_sent_at_once() -> None:
    async def ready(data: bytes) -> bytes:
        return data.upper()

    protocol, wire = connected(Responder(applied(ready)), Clock())
    protocol.datagramReceived(b"one", PEER)
    assert wire.sent == [(b"ONE", PEER)]
    assert protocol.idle().called


def test_the_end_calls_off_what_is_awaited_and_counts_it(awaited: list[Deferred[bytes]]) -> None:
    protocol, wire = connected(deferring(awaited), Clock())
    protocol.datagramReceived(b"one", PEER)
    idle = protocol.idle()
    protocol.stopProtocol()
    assert awaited[0].called
    assert wire.sent == []
    assert protocol.responder.drops == {DropReason.STOPPED: 1}
    assert idle.called


def test_idle_fires_when_nothing_is_awaited_any_more(awaited: list[Deferred[bytes]]) -> None:
    protocol, _ = connected(deferring(awaited), Clock())
    protocol.datagramReceived(b"one", PEER)
    protocol.datagramReceived(b"two", PEER)
    idle, given_up = protocol.idle(), protocol.idle()
    given_up.addErrback(lambda failure: None)
    given_up.cancel()
    awaited[0].callback(b"")
    assert not idle.called
    awaited[1].callback(b"")
    assert idle.called


def test_what_the_lab_holds_back_is_delivered_in_time_or_called_off_at_the_end() -> None:
    clock = Clock()
    delays = make_experiment({"delay": "request:100ms,reply:50ms"}, seed=1)
    lab = Lab(delays, clock.seconds, Notebook())
    protocol, wire = connected(Responder(applied(), lab=lab), clock)
    protocol.datagramReceived(b"one", PEER)
    idle = protocol.idle()
    clock.advance(0.1)
    assert wire.sent == []
    assert not protocol.idle().called
    clock.advance(0.05)
    assert wire.sent == [(b"ONE", PEER)]
    assert idle.called
    protocol.datagramReceived(b"two", PEER)
    protocol.stopProtocol()
    assert clock.getDelayedCalls() == []
    assert protocol.responder.drops == {DropReason.STOPPED: 1}
    assert protocol.responder.outstanding == 0


def test_a_server_on_our_own_port_is_not_answered_by_twisteds_port_either() -> None:
    protocol, wire = connected(Responder(applied()), Clock())
    protocol.datagramReceived(b"one", ("192.0.2.7", 12_000))
    assert wire.sent == []
    assert protocol.responder.drops == {DropReason.OWN_PORT: 1}


@pytest.mark.parametrize(
    "error", [OSError(101, "Network is unreachable"), MessageLengthError("message too long")]
)
def test_what_twisteds_port_raises_is_counted(error: Exception) -> None:
    protocol, wire = connected(Responder(applied()), Clock())
    wire.error = error
    protocol.datagramReceived(b"one", PEER)
    assert protocol.responder.drops == {DropReason.SEND_ERROR: 1}


async def test_twisteds_own_port_serves_it_and_cuts_nothing() -> None:
    for host, largest in (("127.0.0.1", 65_507), ("::1", 65_527)):
        twisteds: Any = reactor
        protocol = ResponderProtocol(Responder(applied()), reactor)
        port = twisteds.listenUDP(0, protocol, interface=host)
        for size in (0, 8_192, 8_193, largest):
            data = b"a" * size
            assert await in_thread(ask, host, port.getHost().port, data) == data.upper()
        await port.stopListening()


async def test_a_stop_answers_what_has_arrived() -> None:
    with served() as port, client() as sock:
        sock.connect(("127.0.0.1", port.getHost().port))
        for number in range(200):
            sock.send(b"hello %d" % number)
        await port.protocol.drain()
        port.stopListening()
        for number in range(200):
            assert sock.recv(100) == b"HELLO %d" % number


async def test_a_stop_waits_for_replies_that_are_late() -> None:
    async def slow(data: bytes) -> bytes:
        await deferLater(reactor, 0.05)
        return data.upper()

    with served(Responder(applied(slow))) as port, client() as sock:
        sock.connect(("127.0.0.1", port.getHost().port))
        sock.send(b"late")
        await port.protocol.drain()
        assert sock.recv(100) == b"LATE"


async def test_a_closed_port_calls_off_late_replies() -> None:
    async def never(data: bytes) -> bytes:
        await Deferred()
        return data

    responder = Responder(applied(never))
    with served(responder) as port:
        assert await in_thread(ask, "127.0.0.1", port.getHost().port, b"x", SILENCE) is None
        port.protocol.receive_batch(*columns([packet()]))
        assert responder.outstanding == 2
    assert responder.drops == {DropReason.STOPPED: 2}


def test_what_is_told_of_each_datagram_is_in_the_order_of_their_arrival() -> None:
    """One wake-up brings one that is answered, one that is not, and another one."""
    notebook = Notebook()
    transform = applied(lambda data: str(int(data) + 1).encode())
    protocol, wire = connected(Responder(transform, observer=notebook, tell_each=True), Clock())
    protocol.receive_batch(*columns([packet(b"1"), packet(b"none"), packet(b"3")]))
    told = [event for event in notebook.events if isinstance(event, Received | Replied | Dropped)]
    assert [type(event) for event in told] == [
        Received,
        Replied,
        Received,
        Dropped,
        Received,
        Replied,
    ]
    assert [data for data, _ in wire.sent] == [b"2", b"4"]
