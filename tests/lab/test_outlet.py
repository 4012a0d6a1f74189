"""The TCP lab: pieces, delays and resets, by the clock."""

import socket
import ssl
import time
from collections.abc import Awaitable, Callable

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from tests.tcp.memory import HIGH_WATER, Service, Wire
from tests.tcp.wire import Wire as ProxiedWire
from tests.tcp.wire import World
from uppercase.core.events import Closed, Impaired, LabAction, Opened, Outcome
from uppercase.core.values import parse_peers
from uppercase.errors import BadValue, UnknownName
from uppercase.lab import TCP_PRESETS, TCPLab, merge_settings
from uppercase.lab.serving import HELD_REPLIES, LAB_PIECE_PAUSE, LAB_PIECES
from uppercase.limits import Limits
from uppercase.tcp._proxy import ProxyHeaderFactory
from uppercase.tcp._tls import TLSFactory


class Laboratory(Service):
    """A service whose connections go through the lab."""

    def __init__(
        self,
        framing: str = "stream",
        function: Callable[[bytes], Awaitable[bytes]] | None = None,
        **lab: float,
    ) -> None:
        super().__init__(framing, function)
        self.factory.lab = TCPLab(**lab)  # type: ignore[arg-type]

    def arrivals(self, wire: Wire, seconds: float) -> list[bytes]:
        """Return what arrives in each millisecond that brings something."""
        found = []
        for _ in range(round(seconds * 1000)):
            if data := wire.take():
                found.append(data)
            self.clock.advance(0.001)
        return found


def test_replies_come_in_pieces_with_pauses_between() -> None:
    service = Laboratory(slice=1)
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    wire.protocol.dataReceived(b"ab")
    assert service.arrivals(wire, 1.0) == [b"H", b"E", b"L", b"L", b"O", b"A", b"B"]
    wire.protocol.readConnectionLost()
    assert wire.state() == "closing"
    assert service.end(wire).outcome is Outcome.FINISHED


def test_the_end_waits_for_the_last_piece() -> None:
    service = Laboratory(slice=2, framing="segment")
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    assert wire.state() == "open"
    assert service.arrivals(wire, 0.1) == [b"HE", b"LL", b"O"]
    assert wire.state() == "half-closed"
    wire.protocol.connectionLost(Failure(ConnectionLost()))
    assert not service.clock.getDelayedCalls()


def test_a_late_reply_that_is_the_last_ends_the_connection_once() -> None:
    late: Deferred[bytes] = Deferred()
    service = Laboratory("line", lambda message: late, slice=100)
    wire = service.connect()
    wire.protocol.dataReceived(b"x\n")
    wire.protocol.readConnectionLost()
    late.callback(b"LATE")
    assert (wire.sent(), wire.state()) == (b"LATE\n", "closing")
    assert service.end(wire).outcome is Outcome.FINISHED


def test_long_replies_come_within_bounded_time_in_larger_pieces() -> None:
    service = Laboratory(slice=1)
    wire = service.connect()
    wire.protocol.dataReceived(b"x" * 10_000)
    pieces = service.arrivals(wire, LAB_PIECES * LAB_PIECE_PAUSE * 1.2)
    assert b"".join(pieces) == b"X" * 10_000
    assert len(pieces) <= LAB_PIECES
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_a_delay_holds_each_reply_and_not_the_ones_behind_it_twice() -> None:
    service = Laboratory(delay=0.1)
    wire = service.connect()
    wire.protocol.dataReceived(b"one")
    service.clock.advance(0.05)
    wire.protocol.dataReceived(b"two")
    assert wire.sent() == b""
    service.clock.advance(0.05)
    assert wire.take() == b"ONE"
    service.clock.advance(0.05)
    assert wire.take() == b"TWO"
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_what_is_held_is_bounded_by_not_reading_any_more() -> None:
    service = Laboratory(delay=10.0)
    wire = service.connect()
    count = 0
    while wire.reads():
        wire.protocol.dataReceived(b"x" * 10_000)
        count += 1
    assert count == 7
    service.clock.advance(10.0)
    assert wire.take() == b"X" * 70_000
    assert wire.reads()
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_replies_that_are_held_are_bounded_however_short_they_are() -> None:
    """A byte of each takes hundreds of memory."""
    service = Laboratory(delay=10.0)
    wire = service.connect()
    count = 0
    while wire.reads():
        wire.protocol.dataReceived(b"x")
        count += 1
    assert count == HELD_REPLIES
    service.clock.advance(10.0)
    assert wire.take() == b"X" * count
    assert wire.reads()
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_what_follows_the_last_message_is_not_collected_while_its_reply_is_held() -> None:
    """It is thrown away after that, as ever."""
    service = Laboratory("segment", delay=10.0)
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    assert not wire.reads()
    service.clock.advance(10.0)
    assert (wire.take(), wire.reads(), wire.state()) == (b"HELLO", True, "half-closed")
    wire.protocol.readConnectionLost()
    assert service.end(wire).outcome is Outcome.ANSWERED


def test_a_connection_is_reset_after_so_many_bytes() -> None:
    service = Laboratory(reset_after=7)
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    assert wire.state() == "open"
    wire.protocol.dataReceived(b"world")
    assert wire.sent() == b"HELLOWO"
    service.clock.advance(0.1)
    assert wire.state() == "aborted"
    closed = service.end(wire)
    assert (closed.outcome, closed.received, closed.sent) == (Outcome.LAB_RESET, 10, 7)


def test_a_reset_comes_before_the_end_of_a_conversation() -> None:
    service = Laboratory("segment", reset_after=3)
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    assert (wire.sent(), wire.state()) == (b"HEL", "open")
    service.clock.advance(0.1)
    assert service.end(wire).outcome is Outcome.LAB_RESET


def test_a_client_that_is_gone_before_the_reset_is_noticed() -> None:
    """It never takes what it is to get first, and nobody reads its end."""
    service = Laboratory(reset_after=5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        with listener.accept()[0] as served:
            client.close()
            served.sendall(b"HELLO")
            wire = service.connect()
            wire.handle = served
            wire.protocol.dataReceived(b"hello")
            for _ in range(1000):
                service.clock.advance(0.01)
                time.sleep(0.001 if wire.state() == "open" else 0)
            assert service.end(wire).outcome is Outcome.DISCONNECTED


def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    service = Laboratory(delay=0.1)
    wire = service.connect()
    for reads in (True, False):
        wire.protocol.dataReceived(b"x" * (HIGH_WATER // 2 + 1))
        service.clock.advance(0.1)
        assert wire.reads() is reads
    wire.take()
    assert wire.reads()
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_a_connection_is_served_late() -> None:
    service = Laboratory(accept_delay=2.0)
    wire = service.connect()
    assert not wire.reads()
    service.clock.advance(2.0)
    assert wire.reads()
    wire.protocol.dataReceived(b"hello")
    assert wire.take() == b"HELLO"
    assert [type(event) for event in service.events] == [Opened, Impaired]
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_who_is_served_late_is_told_as_the_proxy_has_it() -> None:
    world = World()
    world.factory.lab = TCPLab(accept_delay=2.0)
    proxies = parse_peers("192.0.2.0/24")
    wire = ProxiedWire(ProxyHeaderFactory(proxies, world.factory, world.factory))
    assert wire.producerState == "producing"
    wire.send(b"PROXY TCP4 198.51.100.9 10.0.0.1 40001 12000\r\n")
    world.wait(2.1)
    wire.end()
    opened, late, closed = world.notes.events
    assert isinstance(opened, Opened)
    assert isinstance(late, Impaired)
    assert isinstance(closed, Closed)
    assert {opened.peer, late.peer, closed.peer} == {"198.51.100.9:40001"}


def test_who_waits_to_be_accepted_is_neither_idle_nor_late() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for limits, tls in ((Limits(idle_timeout=1.0), False), (Limits(handshake_timeout=1.0), True)):
        world = World(limits=limits)
        world.factory.lab = TCPLab(accept_delay=3.0)
        wire = ProxiedWire(TLSFactory(context, world.factory) if tls else world.factory)
        world.wait(2.9)
        assert (wire.output_ended, wire.disconnecting) == (False, False)
        world.wait(1.5)
        assert wire.output_ended or wire.disconnecting


def test_who_waits_for_what_the_lab_holds_is_not_idle() -> None:
    world = World(limits=Limits(idle_timeout=1.0))
    world.factory.lab = TCPLab(delay=3.0)
    wire = ProxiedWire(world.factory)
    wire.send(b"hello")
    world.wait(2.9)
    assert not wire.output_ended
    world.wait(1.5)
    assert wire.output_ended


def test_what_the_lab_did_is_told_apart_from_all_else() -> None:
    service = Laboratory(slice=2, delay=0.5, reset_after=5)
    wire = service.connect()
    wire.protocol.dataReceived(b"hi")
    wire.protocol.dataReceived(b"hello")
    service.clock.pump([0.1] * 20)
    told = [event for event in service.events if isinstance(event, Impaired)]
    assert [(event.actions, event.number, event.fate) for event in told] == [
        ((LabAction.DELAYED,), 1, "reply delayed 0.5 s"),
        ((LabAction.DELAYED,), 2, "reply delayed 0.5 s"),
        ((LabAction.SLICED,), 2, "reply cut into 2 pieces"),
        ((LabAction.RESET,), 2, "reply reset after 5 bytes"),
    ]
    service.end(wire)


def test_one_byte_is_one() -> None:
    service = Laboratory(reset_after=1)
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    service.clock.advance(1.0)
    told = [event.fate for event in service.events if isinstance(event, Impaired)]
    assert told == ["reply reset after 1 byte"]
    service.end(wire)


def test_a_client_that_leaves_early_leaves_no_timer() -> None:
    for service in (Laboratory(accept_delay=1.0), Laboratory(slice=1, delay=5.0)):
        wire = service.connect()
        wire.protocol.dataReceived(b"one")
        wire.protocol.dataReceived(b"two")
        wire.protocol.connectionLost(Failure(ConnectionLost()))
        assert not service.clock.getDelayedCalls()


def test_presets_print_what_they_set() -> None:
    assert str(TCP_PRESETS["byte-stream"]).startswith("byte-stream: --slice=1 (")
    assert str(TCP_PRESETS["lecture"]).startswith("lecture: --framing=segment (")
    assert str(TCPLab(delay=0.5, reset_after=1_000_001)) == "--delay=0.5 --reset-after=1000001"
    with pytest.raises(UnknownName, match="no preset named 'lectrue'; did you mean 'lecture'"):
        merge_settings("lectrue", {}, TCP_PRESETS)
    with pytest.raises(BadValue, match="--accept-delay; 0 to 60 s is accepted"):
        TCPLab(accept_delay=100)
