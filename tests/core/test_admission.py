"""Who is let in when many come: counts per client, pressure, and room made by the idle."""

import re
import socket
from collections.abc import Hashable

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from tests.tcp.memory import Service, Wire
from uppercase.core.admission import Admission, client_key
from uppercase.core.events import Opened, Outcome, RefusalReason, Refused
from uppercase.tcp._closing import known_as


def refusals(service: Service) -> list[RefusalReason]:
    """Return the reasons of the refusals so far."""
    return [event.reason for event in service.events if isinstance(event, Refused)]


def fill(service: Service, count: int, host: str = "192.0.2.1") -> list[Wire]:
    """Let clients connect from one address."""
    return [service.connect(host, 40_000 + number) for number in range(count)]


def test_a_class_of_200_behind_one_address_is_let_in_by_default() -> None:
    service = Service()
    assert all(wire.state() == "open" for wire in fill(service, 200))
    assert not refusals(service)


def test_a_class_is_let_in_beside_a_crowd_from_elsewhere() -> None:
    """With 900 connections the pressure is on, but 200 are no majority."""
    service = Service()
    for number in range(700):
        service.connect(f"198.51.100.{number % 250}")
    assert all(wire.state() == "open" for wire in fill(service, 200))


def test_under_pressure_an_address_with_most_connections_gets_no_more() -> None:
    service = Service(max_connections=100)
    greedy = fill(service, 90)
    assert [wire.state() for wire in greedy].count("open") == 80
    assert set(refusals(service)) == {RefusalReason.PRESSURE}
    others = [service.connect(f"198.51.100.{number}") for number in range(21)]
    assert [wire.state() for wire in others] == ["open"] * 20 + ["aborted"]
    assert refusals(service)[-1] is RefusalReason.FULL
    assert service.connect("192.0.2.1").state() == "aborted"
    assert refusals(service)[-1] is RefusalReason.FULL, "there is no rest for others"


def test_a_refusal_is_an_abort_and_leaves_no_timer() -> None:
    service = Service(max_connections=1)
    first, second = service.connect("192.0.2.1"), service.connect("192.0.2.2")
    assert second.state() == "aborted"
    assert second.sent() == b""
    second.protocol.connectionLost(Failure(ConnectionLost()))
    assert not service.events.closed
    assert service.events[-1] == Refused(
        "192.0.2.2:50000",
        RefusalReason.FULL,
        "all 1 connections are taken (--max-connections)",
    )
    first.protocol.connectionLost(Failure(ConnectionLost()))
    assert not service.clock.getDelayedCalls()
    assert service.connect("192.0.2.2").state() == "open"


def test_when_all_are_taken_the_one_that_was_idle_longest_makes_room() -> None:
    service = Service(max_connections=3)
    wires = []
    for number in range(3):
        wires.append(service.connect(f"192.0.2.{number}"))
        service.clock.advance(10.0)
    wires[0].protocol.dataReceived(b"busy")
    wires[0].take()
    service.clock.advance(15.0)
    assert service.connect("198.51.100.1").state() == "open"
    assert [wire.state() for wire in wires] == ["open", "closing", "open"]
    assert service.end(wires[1]).outcome is Outcome.EVICTED


def test_nobody_is_evicted_before_having_been_idle_for_half_a_minute() -> None:
    service = Service(max_connections=2)
    fill(service, 2)
    service.clock.advance(29.0)
    assert service.connect("198.51.100.1").state() == "aborted"
    service.clock.advance(1.0)
    assert service.connect("198.51.100.1").state() == "open"


def test_who_does_not_take_what_it_is_owed_makes_room_at_once() -> None:
    """It would keep its place, beside the newcomer's, until the send time-out."""
    service = Service(max_connections=1)
    wire = service.connect()
    wire.handle, other = socket.socketpair()
    with wire.handle, other:
        wire.handle.sendall(b"unread")
        service.clock.advance(30.0)
        assert service.connect("198.51.100.1").state() == "aborted", "it may have taken some"
        service.clock.advance(30.0)
        assert service.connect("198.51.100.1").state() == "open"
        assert wire.state() == "aborted"
        assert service.end(wire).outcome is Outcome.EVICTED


def test_as_many_newcomers_as_there_are_idle_connections_find_room_at_once() -> None:
    """A lesson's connections are left open, and the next class comes."""
    service = Service(max_connections=400)
    old = fill(service, 190) + fill(service, 190, "192.0.2.2")
    service.clock.advance(60.0)
    new = fill(service, 200, "198.51.100.1")
    assert all(wire.state() == "open" for wire in new)
    assert [wire.state() for wire in old].count("closing") == 180
    assert not refusals(service)


def test_under_pressure_an_address_makes_room_for_itself() -> None:
    service = Service(max_connections=100)
    fill(service, 80)
    service.clock.advance(30.0)
    assert service.connect("192.0.2.1").state() == "open"
    assert not refusals(service)


def one_more_of_the_greedy(others: int) -> tuple[Service, list[Wire], list[Wire]]:
    """Let one more in where its address has 51 of 100 idle ones, and others were idle longer."""
    service = Service(max_connections=100)
    longer = fill(service, others, "192.0.2.2")
    service.clock.advance(1.0)
    greedy = fill(service, 51)
    service.clock.advance(30.0)
    assert service.connect("192.0.2.1").state() == "open"
    assert [wire.state() for wire in greedy].count("closing") == 1
    return service, longer, greedy


def test_under_pressure_an_address_makes_no_room_among_others() -> None:
    _, others, _ = one_more_of_the_greedy(others=29)
    assert all(wire.state() == "open" for wire in others)


def test_many_that_were_idle_longer_do_not_keep_an_address_from_making_room_for_itself() -> None:
    """Nor does a crowd that finds no room keep others from it."""
    service, others, greedy = one_more_of_the_greedy(others=40)
    for wire in greedy:
        wire.protocol.dataReceived(b"busy")
        wire.take()
    assert service.connect("192.0.2.1").state() == "aborted"
    rest = 100 - len(service.factory.connections)
    assert {wire.state() for wire in fill(service, rest + 30, "192.0.2.3")} == {"open"}
    assert [wire.state() for wire in others].count("closing") == 30


def test_who_was_found_idle_and_is_busy_since_makes_no_room() -> None:
    service = Service(max_connections=3)
    wires = []
    for number in range(3):
        wires.append(service.connect(f"192.0.2.{number}"))
        service.clock.advance(1.0)
    idle, busy, ended = wires
    service.clock.advance(30.0)
    assert service.connect("198.51.100.1").state() == "open"
    assert idle.state() == "closing"
    busy.protocol.dataReceived(b"busy")
    busy.take()
    ended.protocol.connectionLost(Failure(ConnectionLost()))
    assert service.connect("198.51.100.2").state() == "aborted"
    assert busy.state() == "open"


def test_those_that_were_found_idle_and_are_busy_since_hide_nobody_who_still_is() -> None:
    service = Service(max_connections=40)
    wires = [service.connect(f"192.0.2.{number}") for number in range(39)]
    service.clock.advance(1.0)
    wires.append(service.connect("192.0.2.39"))
    service.clock.advance(30.0)
    assert service.connect("198.51.100.1").state() == "open"
    for wire in wires[:-1]:
        wire.protocol.dataReceived(b"busy")
        wire.take()
    assert service.connect("198.51.100.2").state() == "open"
    assert [wire.state() for wire in wires].count("closing") == 2


def test_a_flood_of_newcomers_costs_no_look_at_all_connections_for_each() -> None:
    looks = []

    class Busy:
        client: Hashable = "192.0.2.1"
        sent_at = -60.0

        def unproductive_since(self) -> None:
            looks.append(self)

        def evict(self) -> None:
            raise AssertionError

    now = [0.0]
    door = Admission(100, None, [Busy() for _ in range(100)], lambda: now[0])
    for _ in range(1000):
        now[0] += 0.001
        assert door.enter("192.0.2.2") is not None
    assert len(looks) <= 11 * 100


def test_the_kernel_is_asked_about_no_more_than_can_make_room() -> None:
    """Of a crowd, all idle but some: a search with ten thousand would hold everybody else up."""
    looks = []

    class Open:
        client: Hashable = "192.0.2.1"

        def __init__(self, sent_at: float) -> None:
            self.sent_at = sent_at
            self.evicted = False

        def unproductive_since(self) -> float:
            looks.append(self)
            return self.sent_at

        def evict(self) -> None:
            self.evicted = True

    crowd = [Open(float(number % 977)) for number in range(977)]
    door = Admission(977, None, crowd, lambda: 1000.0)
    assert door.enter("192.0.2.2") is None
    assert [each.sent_at for each in crowd if each.evicted] == [0.0], "idle longest"
    assert len(looks) <= 33
    looks.clear()
    busy = Admission(977, None, [Open(980.0) for _ in range(977)], lambda: 1000.0)
    assert busy.enter("192.0.2.2") is not None
    assert not looks


def test_of_those_who_are_gone_nothing_is_kept() -> None:
    door = Admission(100, None, [], lambda: 0.0)
    for number in range(200):
        assert door.enter(f"192.0.2.{number}") is None
        door.leave(f"192.0.2.{number}")
    assert not door._of_client


def test_a_peer_that_awaits_a_reply_is_not_evicted() -> None:
    service = Service("line", lambda message: Deferred(), max_connections=1)
    wire = service.connect()
    wire.protocol.dataReceived(b"slow\n")
    service.clock.advance(60.0)
    assert service.connect("198.51.100.1").state() == "aborted"
    assert wire.state() == "open"
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_a_limit_per_address_counts_each_client_by_itself() -> None:
    service = Service(max_per_address=2)
    first = fill(service, 3)
    assert [wire.state() for wire in first] == ["open", "open", "aborted"]
    assert service.connect("192.0.2.2").state() == "open"
    first[0].protocol.connectionLost(Failure(ConnectionLost()))
    assert service.connect("192.0.2.1").state() == "open"
    assert refusals(service) == [RefusalReason.ADDRESS_FULL]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("one.onion", "one.onion", True),
        ("one.onion", "two.onion", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(one: str, other: str, same: bool) -> None:
    assert (client_key(one) == client_key(other)) is same


def test_an_ipv4_client_of_a_socket_for_both_families_is_logged_as_such() -> None:
    service = Service()
    service.connect("::ffff:192.0.2.1")
    service.connect("2001:db8::1")
    assert service.events == [Opened("192.0.2.1:50000"), Opened("[2001:db8::1]:50000")]


def test_the_peers_of_unix_sockets_are_nobodys() -> None:
    """In a log or a record each is a client by itself."""
    (one, counts), (other, _) = (known_as(UNIXAddress(None)) for _ in range(2))
    assert counts is None
    assert one != other
    assert re.fullmatch("unix:[0-9]+", one)
