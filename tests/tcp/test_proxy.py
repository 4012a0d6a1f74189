"""The stage that reads PROXY headers, without sockets: who must send one, and until when."""

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from tests.tcp.wire import CLIENT, Wire, World
from uppercase.core.conversation import StreamConversation
from uppercase.core.events import Chunk, Opened, Outcome, RefusalReason, Refused
from uppercase.core.proxy_header import V2_SIGNATURE
from uppercase.core.values import DeclaredPeers, parse_peers
from uppercase.errors import BadValue, TransformError
from uppercase.interfaces import ITransformStream
from uppercase.limits import Limits
from uppercase.tcp._proxy import ProxyHeaderFactory
from uppercase.tcp.factory import WatchedFactory

HEADER = b"PROXY TCP4 198.51.100.9 10.0.0.1 40001 12000\r\n"
MAPPED = b"PROXY TCP6 ::ffff:198.51.100.9 ::1 40001 12000\r\n"
LOCAL = V2_SIGNATURE + b"\x20\x00\x00\x00"


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.check_idle()


def connect(world: World, proxies: str = "192.0.2.0/24", peer: IAddress = CLIENT) -> Wire:
    return Wire(ProxyHeaderFactory(parse_peers(proxies), world.factory, world.factory), peer)


def who(world: World) -> str:
    """Whom the log names as the client."""
    (opened,) = [event for event in world.notes.events if isinstance(event, Opened)]
    assert world.notes.closed.peer == opened.peer
    return opened.peer


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (HEADER, "198.51.100.9:40001"),
        (MAPPED, "198.51.100.9:40001"),
        (b"PROXY UNKNOWN\r\n", "192.0.2.1:40000"),
        (LOCAL, "192.0.2.1:40000"),
    ],
)
def test_the_header_says_who_is_calling(world: World, header: bytes, name: str) -> None:
    """Without an address in it, the connection's own counts."""
    wire = connect(world)
    assert wire.send(header + b"hello") == b"HELLO"
    assert wire.send(b"again") == b"AGAIN"
    (connection,) = world.factory.connections
    assert connection.name == name
    wire.end()
    assert who(world) == name
    assert world.notes.outcome is Outcome.FINISHED


def test_a_header_may_come_in_any_pieces(world: World) -> None:
    wire = connect(world)
    for value in HEADER:
        assert wire.send(bytes([value])) == b""
    assert wire.send(b"hello") == b"HELLO"
    wire.end()


def test_a_half_close_reaches_what_is_served(world: World) -> None:
    wire = connect(world)
    assert wire.send(HEADER + b"stra\xc3") == b"STRA"
    assert wire.end() == b"\xc3", "the incomplete character comes back at the end of input"
    assert wire.gone
    assert world.notes.outcome is Outcome.FINISHED


@pytest.mark.parametrize("peer", [IPv4Address("TCP", "203.0.113.1", 1), UNIXAddress(b"x")])
def test_nobody_else_is_served_not_even_without_a_header(world: World, peer: IAddress) -> None:
    wire = connect(world, peer=peer)
    assert wire.was_aborted()
    (refused,) = world.notes.events
    assert isinstance(refused, Refused)
    assert refused.reason is RefusalReason.UNDECLARED
    assert "--proxy-from" in refused.detail


@pytest.mark.parametrize(
    ("proxies", "peer"),
    [
        ("192.0.2.1", CLIENT),
        ("10.0.0.0/8, 192.0.2.0/24", CLIENT),
        ("192.0.2.1", IPv6Address("TCP", "::ffff:192.0.2.1", 40000)),
        ("2001:db8::/32", IPv6Address("TCP", "2001:db8::1", 40000)),
        ("fe80::/10", IPv6Address("TCP", "fe80::1%eth0", 40000)),
        ("unix", UNIXAddress(None)),
    ],
)
def test_a_proxy_is_declared_by_address_network_or_unix(
    world: World, proxies: str, peer: IAddress
) -> None:
    wire = connect(world, proxies, peer)
    assert wire.send(HEADER + b"hello") == b"HELLO"
    wire.end()
    assert who(world) == "198.51.100.9:40001"


def test_a_declared_proxy_must_send_a_header(world: World) -> None:
    wire = connect(world)
    assert wire.send(b"hello") == b""
    assert wire.was_aborted()
    assert world.notes.outcome is Outcome.PROXY_HEADER
    assert "does not begin a PROXY header" in world.notes.closed.detail


def test_a_malformed_header_is_one_counted_outcome(world: World) -> None:
    wire = connect(world)
    wire.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 99999999 1\r\nhello")
    assert wire.was_aborted()
    assert world.notes.outcome is Outcome.PROXY_HEADER


@pytest.mark.parametrize("start", [b"", HEADER[:20], V2_SIGNATURE])
def test_a_header_must_come_in_time(world: World, start: bytes) -> None:
    wire = connect(world)
    wire.send(start)
    world.clock.advance(Limits().proxy_timeout - 0.1)
    assert not wire.was_aborted()
    world.clock.advance(0.2)
    wire.settle()
    assert wire.was_aborted()
    assert world.notes.outcome is Outcome.PROXY_HEADER
    assert "within 5 s" in world.notes.closed.detail


def test_what_waits_unread_when_the_time_is_over_is_read_first(world: World) -> None:
    """The service may have been held up itself; who drips bytes has no more than half a second."""
    wire = connect(world)
    wire.handle, peer = socket.socketpair()
    with wire.handle, peer:
        peer.send(HEADER)
        world.clock.advance(Limits().proxy_timeout + 60)
        assert not wire.was_aborted()
        world.clock.advance(0.5)
        wire.settle()
        assert wire.was_aborted()
    assert world.notes.outcome is Outcome.PROXY_HEADER


def test_a_header_in_time_leaves_no_deadline_behind(world: World) -> None:
    wire = connect(world)
    wire.send(HEADER)
    world.clock.advance(2 * Limits().proxy_timeout)
    assert not wire.was_aborted()
    assert wire.send(b"still there") == b"STILL THERE"
    wire.end()


def test_an_end_within_a_header_is_malformed_and_one_before_it_a_port_check(world: World) -> None:
    wire = connect(world)
    wire.end()
    wire = connect(world)
    wire.send(HEADER[:20])
    wire.end()
    assert world.notes.outcomes == [Outcome.DISCONNECTED, Outcome.PROXY_HEADER]


def test_a_connection_that_waits_for_its_header_counts_and_is_drained(world: World) -> None:
    """A stop answers what comes with the header, and no more."""
    wire = connect(world)
    (connection,) = world.factory.connections
    connection.drain()
    assert not wire.settle()
    assert wire.send(HEADER + b"hello") == b"HELLO"
    wire.end()
    assert wire.gone
    assert world.notes.outcome is Outcome.STOPPED


def test_a_header_that_comes_when_all_is_over_changes_nothing() -> None:
    """Such as after the idle time, where that is shorter than the header's."""
    world = World(limits=Limits(idle_timeout=1, proxy_timeout=60, max_per_address=1))
    late = connect(world)
    world.wait(1.1)
    assert late.output_ended
    assert late.send(HEADER + b"hello") == b""
    other = connect(world)
    assert other.send(HEADER + b"hello") == b"HELLO", "the late one counts for nobody"
    late.end()
    other.end()
    assert world.notes.outcomes == [Outcome.IDLE, Outcome.FINISHED]
    world.check_idle()


def test_a_transform_that_cannot_begin_ends_a_connection_before_its_header(world: World) -> None:
    class Broken:
        def open_stream(self) -> ITransformStream:
            raise TransformError("broken", "on purpose")

    world.factory.open_conversation = lambda *_: StreamConversation(cast(Any, Broken()))  # type: ignore[method-assign]
    wire = connect(world)
    assert wire.send(HEADER + b"hello") == b""
    wire.end()
    assert world.notes.outcome is Outcome.FAILED


@pytest.mark.parametrize("text", ["", "10.0.0.1,", "example.org", "10.0.0.1/8", "::ffff:1.2.3.4"])
def test_what_is_no_list_of_proxies_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match=r"accepted are IP addresses and networks such as"):
        parse_peers(text)


def test_without_a_list_nobody_is_declared() -> None:
    assert not DeclaredPeers().include("127.0.0.1")
    assert not DeclaredPeers().include(None)


def test_limits_go_by_the_headers_address() -> None:
    """The proxy itself may have any number; one of its clients may not."""
    world = World(limits=Limits(max_per_address=1))
    first, second, other = (connect(world) for _ in range(3))
    assert first.send(HEADER + b"hello") == b"HELLO"
    assert second.send(HEADER + b"hello") == b""
    assert second.was_aborted()
    assert other.send(HEADER.replace(b"100.9", b"100.8") + b"hello") == b"HELLO"
    (refused,) = [event for event in world.notes.events if isinstance(event, Refused)]
    assert refused.reason is RefusalReason.ADDRESS_FULL
    assert refused.peer == "198.51.100.9:40001"
    first.end()
    third = connect(world)
    assert third.send(HEADER + b"hello") == b"HELLO"
    third.end()
    other.end()
    world.check_idle()


def test_a_connection_that_waits_for_its_header_takes_a_place() -> None:
    """Accept limits come before the PROXY header."""
    world = World(limits=Limits(max_connections=1))
    first, second = connect(world), connect(world)
    assert second.was_aborted()
    assert first.send(HEADER + b"hello") == b"HELLO"
    first.end()
    world.check_idle()


def test_of_a_client_that_is_refused_by_its_name_nothing_more_is_told() -> None:
    """A record would else have a client that was never there."""
    world = World(limits=Limits(max_per_address=1))
    notes = world.notes
    world.factory = WatchedFactory("stream", world.chain, world.limits, world.clock, notes)
    first, second = connect(world), connect(world)
    assert first.send(HEADER + b"hello") == b"HELLO"
    assert second.send(HEADER + b"hello") == b""
    assert [type(event) for event in notes.events] == [Opened, Chunk, Chunk, Refused]
    first.end()
    world.check_idle()
