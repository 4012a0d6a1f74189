"""One TCP connection without a network: half-close, back-pressure, and ends that do end."""

import gc
import socket
import struct
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer, implementer_only

from tests.tcp.memory import HIGH_WATER, Events, Service, Wire
from uppercase.core.conversation import StreamConversation
from uppercase.core.events import Incomplete, Opened, Outcome, TransformFailed
from uppercase.core.pipeline import Pipeline
from uppercase.errors import TransformError
from uppercase.interfaces import IStreamTransform, ITransformStream
from uppercase.limits import Limits
from uppercase.registry import listing
from uppercase.tcp import _closing
from uppercase.tcp._closing import IOrderlyTLSTransport, ends_at_once
from uppercase.tcp.connection import TransformProtocol
from uppercase.tcp.factory import Deadlines, TransformFactory, Turns

pytestmark = pytest.mark.usefixtures("awaiting_at_once")


def test_a_chunk_is_answered_at_once() -> None:
    service = Service()
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    assert wire.take() == b"HELLO"
    assert wire.no_delay, "the kernel does not hold back small replies"
    assert service.events == [Opened("192.0.2.1:50000")]


def test_a_transport_that_can_be_told_nothing_of_tcp_serves_all_the_same() -> None:
    """So are those of UNIX sockets in the oldest Twisted that we support."""

    class Local(Wire):
        def setTcpNoDelay(self, enabled: bool) -> None:
            raise OSError

    wire = Local()
    wire.protocol = Service().factory.buildProtocol(None)
    wire.protocol.makeConnection(wire)  # type: ignore[no-untyped-call]
    wire.protocol.dataReceived(b"hello")
    assert wire.take() == b"HELLO"
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_half_closing_gets_the_last_reply_and_then_the_end() -> None:
    service = Service("line")
    wire = service.connect()
    wire.protocol.dataReceived(b"one\nla")
    wire.protocol.dataReceived(b"st")
    wire.protocol.readConnectionLost()
    assert wire.take() == b"ONE\nLAST"
    assert wire.state() == "closing"
    assert service.end(wire).outcome is Outcome.FINISHED


def test_a_fault_while_a_connection_is_made_leaves_its_place_free() -> None:
    """Whoever accepts ends it then."""
    service = Service(max_connections=1)
    service.factory.open_conversation = lambda *_: 1 / 0  # type: ignore[assignment]
    wire = Wire()
    wire.protocol = service.factory.buildProtocol(None)
    with pytest.raises(ZeroDivisionError):
        wire.protocol.makeConnection(wire)  # type: ignore[no-untyped-call]
    wire.protocol.connectionLost(Failure(ConnectionLost()))
    assert not service.factory.connections
    assert not service.events


def test_a_fault_while_an_end_is_told_leaves_its_place_free() -> None:
    """Such as of whoever is told."""
    service = Service()
    wire = service.connect()
    service.factory.tell = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        wire.protocol.connectionLost(Failure(ConnectionLost()))
    assert not service.factory.connections


def test_a_connection_for_which_there_was_no_memory_has_failed() -> None:
    service = Service()
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    wire.protocol.connectionLost(Failure(MemoryError()))
    closed = service.events.closed[-1]
    assert (closed.outcome, closed.detail) == (
        Outcome.FAILED,
        "there was no memory for what it sent",
    )


def test_the_end_of_input_may_be_told_twice() -> None:
    """Twisted does so when a late write fills the transport's buffer again."""
    service = Service("line")
    wire = service.connect()
    wire.protocol.dataReceived(b"last")
    wire.protocol.readConnectionLost()
    wire.protocol.readConnectionLost()
    assert wire.take() == b"LAST"
    assert service.end(wire).sent == 4


def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    service = Service()
    wire = service.connect()
    while wire.reads():
        wire.protocol.dataReceived(b"x" * 1000)
    assert HIGH_WATER < len(wire.sent()) <= HIGH_WATER + 1000
    assert wire.take().strip(b"X") == b""
    assert wire.reads()


def test_a_transport_may_ask_for_a_pause_at_any_time() -> None:
    """TLS does so when what it has encrypted is not taken."""
    service = Service()
    wire = service.connect()
    wire.protocol.pauseProducing()
    assert not wire.reads()
    wire.protocol.resumeProducing()
    assert wire.reads()
    wire.protocol.connectionLost(Failure(ConnectionLost()))


@pytest.mark.parametrize(
    ("framing", "chunks", "output", "outcome"),
    [
        ("line", [b"12345\n", b"123456\n"], b"12345\n", Outcome.TOO_LONG),
        ("netstring", [b"3:a\n", b"b,"], b"3:A\nB,", None),
    ],
)
def test_what_may_be_answered_together_is_framed_all_the_same(
    framing: str, chunks: list[bytes], output: bytes, outcome: Outcome | None
) -> None:
    chain = Pipeline(listing().stages(["uppercase"]))
    factory = TransformFactory(framing, chain, Limits(max_length=5), Clock(), Events())
    conversation = factory.open_conversation(lambda: None)
    assert b"".join(map(conversation.exchange, chunks)) == output
    assert conversation.outcome is outcome


def test_one_chunk_of_many_messages_is_answered_only_as_far_as_the_peer_takes_it() -> None:
    """The reply is a hundred times the request; what is held is one batch of it."""
    service = Service("line", lambda message: message * 1000)
    wire = service.connect()
    wire.protocol.dataReceived(b"0123456789\n" * 1000)
    assert len(wire.sent()) < 2 * HIGH_WATER
    assert not wire.reads()
    received = 0
    while data := wire.take():
        assert len(data) < 2 * HIGH_WATER
        received += len(data)
    assert received == 1000 * 10_001
    assert wire.reads()


def test_a_slow_transform_keeps_others_waiting_for_a_moment_only() -> None:
    """One chunk of many messages is answered over many turns, in order, and read no further."""

    def slow(message: bytes) -> bytes:
        service.clock.rightNow += 0.002
        return message

    service = Service("line", slow)
    wire, other = service.connect(), service.connect(port=50001)
    request = b"".join(b"%d\n" % number for number in range(5000))
    started = service.clock.seconds()
    wire.protocol.dataReceived(request)
    assert service.clock.seconds() - started < 1
    assert not wire.reads()
    other.protocol.dataReceived(b"quick\n")
    assert other.take() == b"quick\n"
    wire.protocol.readConnectionLost()
    while wire.state() == "open":
        service.clock.advance(0)
    assert wire.take() == request
    assert service.end(wire).outcome is Outcome.FINISHED
    other.protocol.connectionLost(Failure(ConnectionLost()))


def test_the_turns_of_all_who_keep_it_busy_together_are_short() -> None:
    """However many there are, each turn of the reactor comes to its end soon."""

    def slow(message: bytes) -> bytes:
        service.clock.rightNow += 0.0005
        return message

    service = Service("line", slow)
    busy = [service.connect(port=50000 + number) for number in range(50)]
    for wire in busy:
        wire.protocol.dataReceived(b"x\n" * 1000)
    for _ in range(150):  # within a second, when all are looked at
        before = service.clock.seconds()
        (turn,) = (call for call in service.clock.calls if call.getTime() <= before)
        service.clock.calls.remove(turn)
        turn.func()
        assert 0 < service.clock.seconds() - before < 0.01
    for wire in busy:
        assert len(wire.take()) > 2 * 2  # each has had its turn again
        wire.protocol.connectionLost(Failure(ConnectionLost()))
    assert not service.clock.getDelayedCalls()


def test_who_goes_on_sending_when_the_conversation_is_over_is_cut_off() -> None:
    """What was under way is thrown away so that the last replies arrive; that has an end."""
    service = Service("line", max_length=10)
    wire = service.connect()
    wire.protocol.dataReceived(b"short\n" + b"x" * 100)
    assert wire.take() == b"SHORT\n"
    for _ in range(64):
        assert wire.state() == "half-closed"
        wire.protocol.dataReceived(bytes(65_536))
    wire.protocol.dataReceived(b"x")
    assert wire.state() == "aborted"
    assert service.end(wire).outcome is Outcome.TOO_LONG


def test_who_completes_no_message_makes_room_first() -> None:
    """A byte now and then keeps it from being idle, but not its place from a newcomer."""
    service = Service("line", max_connections=2)
    dripping, at_work = service.connect(), service.connect(port=50001)
    for _ in range(4):
        dripping.protocol.dataReceived(b"x")
        at_work.protocol.dataReceived(b"x\n")
        service.clock.advance(10)
    newcomer = service.connect(port=50002)
    assert dripping.state() == "closing"
    service.end(dripping)
    assert service.events.closed[-1].outcome is Outcome.EVICTED
    newcomer.protocol.dataReceived(b"hello\n")
    assert newcomer.take() == b"HELLO\n"
    for wire in (at_work, newcomer):
        wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_a_client_that_leaves_between_two_turns_leaves_no_timer() -> None:
    def slow(message: bytes) -> bytes:
        service.clock.rightNow += 0.002
        return message

    service = Service("line", slow)
    wire = service.connect()
    wire.protocol.dataReceived(b"x\n" * 1000)
    wire.protocol.connectionLost(Failure(ConnectionLost()))
    assert not service.clock.getDelayedCalls()


def test_a_peer_that_takes_nothing_is_aborted_after_the_send_timeout() -> None:
    service = Service(send_timeout=60.0)
    wire = service.connect()
    service.clock.pump([1.0] * 100)
    wire.protocol.dataReceived(b"x" * 100_000)
    service.clock.pump([1.0] * 60)
    assert wire.state() != "aborted"
    service.clock.pump([1.0] * 15)
    assert wire.state() == "aborted"
    end = service.end(wire)
    assert end.outcome is Outcome.STALLED
    assert end.detail == "it took nothing for 60 s (--send-timeout)"


def test_the_end_comes_although_the_peer_was_not_reading() -> None:
    """`loseConnection` alone would wait for ever: a paused producer is registered."""
    service = Service("segment", send_timeout=60.0, max_length=100_000)
    wire = service.connect()
    wire.protocol.dataReceived(b"x" * 100_000)
    assert wire.producer is None
    assert wire.state() == "half-closed"
    service.clock.pump([1.25] * 47)
    assert wire.state() != "aborted"
    service.clock.pump([1.25] * 2)
    assert wire.state() == "aborted"
    assert service.end(wire).outcome is Outcome.STALLED


def test_a_peer_that_has_everything_and_does_not_close_is_aborted() -> None:
    """It is not to blame for more than that: the outcome stays what it was."""
    service = Service("segment", close_timeout=5.0)
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    assert wire.state() == "half-closed"
    assert wire.take() == b"HELLO"
    service.clock.pump([1.25] * 3)
    assert wire.state() != "aborted"
    service.clock.pump([1.25] * 2)
    assert wire.state() == "aborted"
    assert service.end(wire).outcome is Outcome.ANSWERED


def test_times_of_nothing_do_not_keep_the_processor_busy() -> None:
    service = Service("segment", close_timeout=0.0, send_timeout=0.0)
    wire = service.connect()
    wire.protocol.dataReceived(b"hello")
    assert all(call.getTime() >= 0.01 for call in service.clock.getDelayedCalls())
    service.clock.advance(0.02)
    assert wire.state() == "aborted"
    service.end(wire)


def test_an_error_lingers_so_that_earlier_replies_are_not_reset() -> None:
    """Our side is closed and the rest of the input thrown away until the peer closes."""
    service = Service("line", max_length=4)
    wire = service.connect()
    wire.protocol.dataReceived(b"good\ntoo long\n")
    assert wire.state() == "half-closed"
    assert wire.reads()
    wire.protocol.dataReceived(b"more\n" * 100)
    assert wire.take() == b"GOOD\n"
    wire.protocol.readConnectionLost()
    assert wire.state() == "closing"
    end = service.end(wire)
    assert end.outcome is Outcome.TOO_LONG
    assert end.detail == "got a message, over the limit of 4 bytes (--max-length)"


def test_a_transport_that_cannot_half_close_is_closed_with_all_replies() -> None:
    @implementer_only(ITCPTransport)
    class Whole(Wire):
        pass

    service, wire = Service("line", max_length=4), Whole()
    wire.protocol = service.factory.buildProtocol(None)
    wire.protocol.makeConnection(wire)  # type: ignore[no-untyped-call]
    wire.protocol.dataReceived(b"good\ntoo long\n")
    assert wire.take() == b"GOOD\n"
    assert wire.state() == "closing"
    assert service.end(wire).outcome is Outcome.TOO_LONG


def test_a_failing_transform_ends_its_own_connection_after_the_replies_before() -> None:
    service = Service("line", lambda message: message.upper() if message else b"" + 1)  # type: ignore[operator]
    wire, other = service.connect(), service.connect(port=50001)
    wire.protocol.dataReceived(b"good\n\n")
    other.protocol.dataReceived(b"fine\n")
    assert wire.take() == b"GOOD\n"
    assert other.take() == b"FINE\n"
    assert wire.state() == "half-closed"
    assert other.state() == "open"
    wire.protocol.readConnectionLost()
    assert service.end(wire).outcome is Outcome.FAILED
    assert any(isinstance(event, TransformFailed) for event in service.events)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_client_that_vanishes_leaves_no_timer(moment: str) -> None:
    service = Service()
    wire = service.connect()
    if moment == "after":
        wire.protocol.dataReceived(b"x" * 200_000)
    wire.protocol.connectionLost(Failure(ConnectionLost()))
    assert service.events.closed[-1].outcome is Outcome.DISCONNECTED
    assert not service.factory.connections
    assert not service.clock.getDelayedCalls()


def test_awaited_replies_come_in_request_order() -> None:
    waiting: dict[bytes, Deferred[bytes]] = {}

    def later(message: bytes) -> Deferred[bytes]:
        return waiting.setdefault(message, Deferred())

    service = Service("line", later)
    wire = service.connect()
    wire.protocol.dataReceived(b"a\nb\nc\n")
    waiting[b"c"].callback(b"C")
    waiting[b"b"].callback(b"B")
    assert wire.sent() == b""
    waiting[b"a"].callback(b"A")
    assert wire.take() == b"A\nB\nC\n"
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_a_peer_is_read_from_only_while_the_window_has_room() -> None:
    waiting: list[Deferred[bytes]] = []

    def later(message: bytes) -> Deferred[bytes]:
        waiting.append(Deferred())
        return waiting[-1]

    service = Service("line", later, async_window=2)
    wire = service.connect()
    wire.protocol.dataReceived(b"a\nb\nc\n")
    assert len(waiting) == 2
    assert not wire.reads()
    waiting[0].callback(b"A")
    assert len(waiting) == 3
    waiting[1].callback(b"B")
    assert wire.reads()
    assert wire.take() == b"A\nB\n"
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_what_is_awaited_is_cancelled_when_the_client_leaves() -> None:
    cancelled: list[object] = []
    service = Service("line", lambda message: Deferred(cancelled.append))
    wire = service.connect()
    wire.protocol.dataReceived(b"a\nb\n")
    wire.protocol.connectionLost(Failure(ConnectionLost()))
    assert len(cancelled) == 2
    assert not service.clock.getDelayedCalls()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel tells")
def test_a_reply_that_comes_after_an_abort_is_for_nobody() -> None:
    late: Deferred[bytes] = Deferred()
    service = Service("line", lambda message: late)
    wire = service.connect()
    wire.protocol.dataReceived(b"slow\n")
    wire.protocol.abort()
    late.callback(b"LATE")
    assert (wire.sent(), wire.state()) == (b"", "aborted")
    assert service.end(wire).outcome is Outcome.STOPPED


def test_a_stream_that_cannot_be_opened_ends_its_connection_at_once() -> None:
    @implementer(IStreamTransform)
    class Unopenable:
        def transform(self, message: bytes) -> bytes:
            return message

        def open_stream(self) -> ITransformStream:
            raise TransformError("stream", "no memory")

    service = Service()
    service.factory.open_conversation = lambda *_: StreamConversation(Unopenable())  # type: ignore[method-assign]
    wire = service.connect()
    assert wire.state() == "half-closed"
    wire.protocol.readConnectionLost()
    assert service.end(wire).outcome is Outcome.FAILED


def test_a_client_that_is_gone_is_noticed_although_nothing_is_read() -> None:
    """The window is full, so nobody reads its end, and nobody would cancel what it waits for."""
    cancelled: list[object] = []
    service = Service("line", lambda message: Deferred(cancelled.append), async_window=1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        with listener.accept()[0] as served:
            wire = service.connect()
            wire.handle = served
            wire.protocol.dataReceived(b"a\nb\n")
            service.clock.pump([1.0] * 3)
            assert wire.state() == "open"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            service.clock.pump([1.0] * 3)
            assert service.end(wire).outcome is Outcome.DISCONNECTED
    assert len(cancelled) == 1
    assert not service.clock.getDelayedCalls()


def test_clients_that_are_gone_at_once_keep_others_waiting_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes a while to cancel what was awaited for one; others have a turn before the next."""
    turns: list[str] = []

    def cancel(_: object) -> None:
        turns.append("cancelled")
        service.clock.rightNow += 0.01
        service.clock.callLater(0, turns.append, "others")

    service = Service("line", lambda message: Deferred(cancel), async_window=1)
    wires = [service.connect(port=50000 + number) for number in range(4)]
    for wire in wires:
        wire.protocol.dataReceived(b"a\n")
    monkeypatch.setattr(_closing, "peer_is_gone", lambda _: True)
    service.clock.advance(1.0)
    assert turns == ["cancelled", "others"] * 4
    assert {service.end(wire).outcome for wire in wires} == {Outcome.DISCONNECTED}


def test_who_ends_while_others_have_their_turn_is_not_late_and_who_is_later_is_found() -> None:
    clock, late = Clock(), list[str]()
    since = {"ended": 0.0, "slow": 0.0, "later": 1.0}
    waiting = dict(since)

    def act(name: str) -> None:
        late.append(name)
        del waiting[name]
        clock.rightNow += 0.01
        waiting.pop("ended", None)

    watch = Deadlines(clock, 16.0, waiting, since.get, act)
    watch.opened()
    clock.advance(16.0)
    assert late == ["slow"]
    clock.advance(1.5)
    assert late == ["slow", "later"]
    assert not clock.getDelayedCalls()


def test_a_watch_goes_on_after_all_have_ended_within_a_look() -> None:
    clock, connections = Clock(), {1, 2}

    def end(connection: int) -> None:
        connections.remove(connection)
        watch.closed()

    watch = Deadlines(clock, 10.0, connections, lambda _: 0.0, end)
    watch.opened()
    clock.advance(10.0)
    assert not connections
    connections.add(3)
    watch.opened()
    clock.advance(10.0)
    assert not connections
    assert not clock.getDelayedCalls()


def test_who_waits_for_a_turn_has_it_although_others_leave_or_take_long() -> None:
    clock, pumped = Clock(), list[str]()
    turns = Turns(clock)

    class Waiting:
        def __init__(self, name: str, happens: Callable[[], object] = lambda: None) -> None:
            self.name, self.happens = name, happens
            turns.take_later(cast(TransformProtocol, self))

        def pump(self) -> None:
            pumped.append(self.name)
            self.happens()

    gone: Any = Waiting("gone")
    Waiting("leaves with another", lambda: turns.forget(gone_too))
    gone_too: Any = Waiting("gone too")
    Waiting("slow", lambda: clock.advance(1.0))
    Waiting("last")
    turns.forget(gone)
    clock.advance(0)
    assert pumped == ["leaves with another", "slow", "last"]
    assert not clock.getDelayedCalls()


def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    service = Service(idle_timeout=600.0)
    idle, busy = service.connect(), service.connect(port=50001)
    for _ in range(10):
        service.clock.advance(60.0)
        busy.protocol.dataReceived(b"x")
        busy.take()
    assert idle.state() == "half-closed"
    assert busy.state() == "open"
    idle.take()
    idle.protocol.readConnectionLost()
    end = service.end(idle)
    assert end.outcome is Outcome.IDLE
    assert end.detail == "nothing came for 600 s (--idle-timeout)"
    service.clock.pump([60.0] * 10)
    assert busy.state() == "half-closed"
    busy.protocol.connectionLost(Failure(ConnectionLost()))
    assert not service.clock.getDelayedCalls()


def test_what_came_while_the_process_was_busy_is_read_before_its_peer_is_idle() -> None:
    service = Service(idle_timeout=10.0)
    wire = service.connect()
    wire.handle, other = socket.socketpair()
    with wire.handle, other:
        other.sendall(b"x")
        service.clock.advance(11.0)
        assert wire.state() == "open"
        wire.protocol.dataReceived(wire.handle.recv(1))
        wire.take()
        service.clock.pump([1.0] * 11)
        assert wire.state() == "half-closed"
        wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_who_takes_what_it_is_owed_is_not_idle() -> None:
    service = Service(idle_timeout=10.0)
    wire = service.connect()
    wire.protocol.dataReceived(b"x" * (HIGH_WATER + 1))
    service.clock.pump([1.0] * 9)
    wire.take()
    service.clock.pump([1.0] * 9)
    assert wire.state() == "open"
    service.clock.pump([1.0] * 2)
    assert wire.state() == "half-closed"
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_waiting_for_a_reply_is_not_idle() -> None:
    reply: Deferred[bytes] = Deferred()
    service = Service("line", lambda message: reply, idle_timeout=600.0)
    wire = service.connect()
    wire.protocol.dataReceived(b"slow\n")
    service.clock.pump([100.0] * 20)
    assert wire.state() == "open"
    reply.callback(b"done")
    assert wire.take() == b"done\n"
    service.clock.pump([100.0] * 6)
    assert wire.state() == "half-closed"
    wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_an_idle_peer_that_never_closes_is_aborted_all_the_same() -> None:
    service = Service(idle_timeout=600.0, close_timeout=5.0)
    wire = service.connect()
    service.clock.advance(600.0)
    assert wire.state() == "half-closed"
    wire.take()
    service.clock.pump([1.25] * 5)
    assert wire.state() == "aborted"
    assert service.end(wire).outcome is Outcome.IDLE


def test_stopping_answers_what_has_arrived_and_takes_no_more() -> None:
    service = Service("line")
    wire = service.connect()
    wire.protocol.dataReceived(b"whole\npart")
    wire.protocol.drain()
    assert wire.state() == "half-closed"
    wire.protocol.dataReceived(b"ial\nlate\n")
    assert wire.take() == b"WHOLE\n"
    wire.protocol.readConnectionLost()
    assert service.end(wire).outcome is Outcome.STOPPED


def test_stopping_twice_answers_no_more_than_what_had_arrived_the_first_time() -> None:
    service = Service()
    wire = service.connect()
    wire.handle, other = socket.socketpair()
    with wire.handle, other:
        for data in (b"in time", b"late"):
            other.sendall(data)
            wire.protocol.drain()
        wire.protocol.dataReceived(wire.handle.recv(7))
        assert (wire.take(), wire.state()) == (b"IN TIME", "half-closed")
        wire.protocol.connectionLost(Failure(ConnectionLost()))


def test_stopping_closes_a_quiet_connection_at_once() -> None:
    service = Service("line")
    wire = service.connect()
    service.clock.advance(2.0)
    wire.protocol.drain()
    assert wire.state() == "closing"
    assert service.end(wire).outcome is Outcome.STOPPED


def test_stopping_waits_for_awaited_replies() -> None:
    reply: Deferred[bytes] = Deferred()
    service = Service("line", lambda message: reply)
    wire = service.connect()
    wire.protocol.dataReceived(b"slow\n")
    service.clock.advance(2.0)
    wire.protocol.drain()
    wire.protocol.drain()
    assert wire.state() == "open"
    reply.callback(b"done")
    assert wire.take() == b"done\n"
    wire.protocol.readConnectionLost()
    assert service.end(wire).outcome is Outcome.STOPPED


def test_what_is_awaited_is_cancelled_by_an_abort_and_not_at_the_end_that_follows() -> None:
    """The ends of many that a stop aborts come in one turn; a second passed with 500 of them."""
    cancelled: list[object] = []
    service = Service("line", lambda message: Deferred(cancelled.append))
    wire = service.connect()
    wire.protocol.dataReceived(b"x\n" * 3)
    wire.protocol.drain()
    assert not cancelled
    wire.protocol.abort()
    assert len(cancelled) == 3
    assert service.end(wire).outcome is Outcome.STOPPED


def test_what_is_awaited_makes_no_function_of_its_own() -> None:
    """The collector looks at each object, while nobody is served: 82 ms for 6,400 awaited."""

    def functions() -> int:
        made = (each for each in gc.get_objects() if isinstance(each, FunctionType))
        return sum(str(each.__module__).startswith("uppercase") for each in made)

    service = Service("line", lambda message: Deferred())
    wire = service.connect()
    wire.protocol.dataReceived(b"x\n" * 2)
    gc.collect()  # what other tests have left
    before = functions()
    wire.protocol.dataReceived(b"x\n" * 60)
    assert functions() < before + 60
    wire.protocol.abort()


def test_a_peer_that_waits_with_the_start_of_a_line_is_told_of_once() -> None:
    """What it needs is a line's end, or a framing that does without."""
    service = Service("line")
    waiting, idle, gone = (service.connect() for _ in range(3))
    waiting.protocol.dataReceived(b"one\nhel")
    service.clock.advance(2)
    waiting.protocol.dataReceived(b"lo")
    gone.protocol.dataReceived(b"never mind")
    gone.protocol.readConnectionLost()
    service.clock.advance(2)
    assert not [event for event in service.events if isinstance(event, Incomplete)]
    for _ in range(10):
        service.clock.advance(1)
    found = [event for event in service.events if isinstance(event, Incomplete)]
    assert found == [Incomplete("192.0.2.1:50000", 5)]
    for wire in (waiting, idle):
        wire.protocol.dataReceived(b" world\n")
        assert wire.take().endswith(b" WORLD\n")


def test_those_who_have_not_begun_a_line_cost_the_look_for_those_who_have_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To ask the kernel about ten thousand idle ones took a twentieth of the processor."""
    asked = []
    monkeypatch.setattr(_closing, "unread_input", lambda wire: asked.append(wire) or 0)  # type: ignore[func-returns-value]
    service = Service("line")
    waiting, *_ = (service.connect() for _ in range(5))
    waiting.protocol.dataReceived(b"hel")
    service.clock.pump([0.5] * 7)
    assert {*asked} == {waiting}


def test_one_client_after_another_shares_the_timers_of_a_port_that_listens() -> None:
    """They are made once, still find who waits, and are gone with the port and its clients."""
    service = Service(idle_timeout=60.0)
    factory: Any = service.factory
    factory.doStart()
    first = service.connect()
    first.protocol.readConnectionLost()
    first.lose()
    timers = service.clock.getDelayedCalls()
    assert timers
    waiting = service.connect()
    assert service.clock.getDelayedCalls() == timers
    factory.doStop()
    service.clock.pump([1.0] * 64)
    waiting.protocol.readConnectionLost()
    assert service.end(waiting).outcome is Outcome.IDLE
    assert not service.clock.getDelayedCalls()


def test_no_timer_outlasts_the_port() -> None:
    service = Service()
    factory: Any = service.factory
    factory.doStart()
    first = service.connect()
    first.protocol.readConnectionLost()
    first.lose()
    factory.doStop()
    assert not service.clock.getDelayedCalls()


@pytest.mark.parametrize("tls", [None, ISSLTransport, IOrderlyTLSTransport])
def test_an_end_of_tls_has_its_deadline_whatever_the_transport_below_says(tls: Any) -> None:
    """Another that ends with its input needs none."""
    wire: Any = Wire("192.0.2.1", 50000)
    wire.ends_at_once = True
    if tls:
        alsoProvides(wire, tls)
    assert ends_at_once(wire) is (tls is None)
