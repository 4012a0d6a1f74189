"""The quick way from a chunk to its reply comes to what the ordinary one comes to."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Any

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from tests.conftest import LoggedErrors
from tests.tcp.wire import Notes
from uppercase.core.events import Closed, SlowCall, TransformFailed
from uppercase.core.pipeline import Pipeline, Stage
from uppercase.interfaces import IStreamTransform, ITransformStream
from uppercase.limits import Limits
from uppercase.registry import listing
from uppercase.tcp import connection
from uppercase.tcp._quick import Hub, prompt
from uppercase.tcp.factory import TransformFactory
from uppercase.tcp.kernel import unacknowledged_output

MOST = 100_000


@implementer(IStreamTransform, ITransformStream)
class Moody:
    """Upper-cases, unless it is told to do something else."""

    def transform(self, message: bytes) -> bytes:
        return message.upper()

    def open_stream(self) -> "Moody":
        return self

    def feed(self, data: bytes) -> Any:
        if data == b"sleep":
            time.sleep(0.11)
        if data == b"raise":
            raise ValueError("on purpose")
        return {b"none": None, b"too much": bytes(MOST + 1), b"hold": b""}.get(data, data.upper())

    def finish(self) -> bytes:
        return b"."


class Served:
    """A connection on a hub that a test turns, and its other end."""

    def __init__(self, *more: Stage) -> None:
        self.notes = Notes()
        reactor: Any = MemoryReactorClock()
        reactor.seconds = time.monotonic
        self.reactor, self.hub = reactor, Hub(reactor)
        chain = Pipeline(
            [Stage("moody", Moody()), *more], MOST, lambda *said: self.notes.notify(SlowCall(*said))
        )
        self.factory = TransformFactory("stream", chain, Limits(), reactor, self.notes)
        with socket.create_server(("127.0.0.1", 0)) as door:
            door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peer = socket.create_connection(door.getsockname(), timeout=30)
            skt, _ = door.accept()
        where = ("192.0.2.1", 1)
        self.protocol: Any = self.factory.buildProtocol(IPv4Address("TCP", *where))
        make: Any = prompt(Server)
        self.transport = make(skt, self.protocol, where, None, 0, self.hub)
        self.protocol.makeConnection(self.transport)  # type: ignore[no-untyped-call]

    def send(self, data: bytes) -> None:
        """Let a chunk come, and everybody have a turn."""
        self.peer.sendall(data)
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.hub.doRead()
            self.reactor.advance(0)

    def end(self) -> None:
        self.hub.removeAll()
        self.peer.close()
        if self.transport.connected:
            self.transport.socket.close()

    def is_quick(self) -> bool:
        return "read" in [each.__name__ for each in self.hub._reads.values()]

    def receive(self) -> bytes:
        """Return what is there."""
        self.peer.setblocking(False)
        parts = []
        try:
            while part := self.peer.recv(1 << 20):
                parts.append(part)
        except (BlockingIOError, ConnectionResetError):
            pass
        self.peer.settimeout(30)
        return b"".join(parts)


@pytest.fixture(params=["quick", "ordinary"])
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    # On a busy machine a turn may be over before anything was done, and any call be slow.
    monkeypatch.setattr(connection, "_TURN_OF_ONE", 60.0)
    monkeypatch.setattr("uppercase.core.pipeline.SLOW_CALL", 60.0)
    if request.param == "ordinary":
        monkeypatch.setattr(connection.TransformProtocol, "_read_quickly", lambda each: None)
    made = Served()
    made.send(b"one")
    assert not made.is_quick()
    made.send(b"two")
    made.send(b"three")
    assert made.is_quick() is (request.param == "quick")
    assert made.receive() == b"ONETWOTHREE"
    yield made
    made.end()


def test_of_a_chain_of_several_each_has_its_turn() -> None:
    made = Served(*listing().stages(["rot13"]))
    for data in (b"one", b"two", b"three"):
        made.send(data)
    assert made.receive() == b"BARGJBGUERR"
    made.end()


def test_the_end_of_input_ends_it_in_order(served: Served) -> None:
    served.send(b"hold")
    served.peer.shutdown(socket.SHUT_WR)
    served.turn()
    assert served.receive() == b"."
    closed = served.notes.closed
    assert (closed.outcome, closed.received, closed.sent) == ("finished", 15, 12)
    assert not any(isinstance(event, SlowCall) for event in served.notes.events)
    assert not served.factory.connections


@pytest.mark.parametrize(
    ("word", "detail"),
    [("raise", "on purpose"), ("none", "NoneType"), ("too much", f"{MOST + 1} bytes")],
)
def test_a_transform_that_fails_ends_the_connection(
    served: Served, word: str, detail: str, logged_errors: LoggedErrors
) -> None:
    served.send(word.encode())
    served.peer.shutdown(socket.SHUT_WR)
    served.turn()
    served.turn()
    (failed, closed) = served.notes.events[-2:]
    assert isinstance(failed, TransformFailed)
    assert isinstance(closed, Closed)
    assert closed.outcome == "failed"
    assert detail in closed.detail
    assert served.receive() == b""


def test_a_slow_call_is_told_of_and_costs_the_turn(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TURN_OF_ONE", 0.1)
    monkeypatch.setattr("uppercase.core.pipeline.SLOW_CALL", 0.1)
    served.peer.sendall(b"sleep")
    served.hub.doRead()
    assert not served.hub._reads
    assert served.receive() == b"SLEEP"
    told = served.notes.events[-1]
    assert isinstance(told, SlowCall)
    assert told.transform == "moody"
    assert told.seconds > 0.1
    served.turn()
    served.send(b"again")
    served.send(b"and again")
    assert served.receive() == b"AGAINAND AGAIN"


def test_what_the_peer_does_not_take_follows_in_order(served: Served) -> None:
    """And no more is read meanwhile than it is owed at the most."""
    block, sent, got = b"abcdefgh" * 4096, bytearray(), bytearray()
    served.peer.setblocking(False)
    try:
        while True:
            sent += block[: served.peer.send(block)]
            served.turn()
    except BlockingIOError:
        pass
    until = time.monotonic() + 30
    while len(got) < len(sent) and time.monotonic() < until:
        got += served.receive()
        served.turn()
    assert bytes(got) == bytes(sent).upper()
    served.send(b"after")
    served.send(b"wards")
    assert served.receive() == b"AFTERWARDS"


@pytest.mark.parametrize("breaks", [False, True])
def test_a_peer_that_is_gone_is_found_out(served: Served, breaks: bool) -> None:
    if breaks:
        reset(served.peer)
    served.peer.close()
    served.turn()
    served.turn()
    assert served.notes.outcomes == ["disconnected" if breaks else "finished"]
    assert not served.factory.connections


def test_one_that_ends_with_replies_in_its_queue_is_looked_after(served: Served) -> None:
    """Its peer has ended its side and takes nothing: the reactor would wait for ever."""
    served.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    served.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    served.peer.setblocking(False)
    while not served.transport.queueing:
        served.send(b"a" * 8192)
    assert not served.protocol._paused
    served.peer.shutdown(socket.SHUT_WR)
    served.turn()
    assert served.protocol in served.factory._looked_after
    assert served.transport.connected


def test_a_reply_that_cannot_be_sent_ends_the_connection(served: Served) -> None:
    served.transport.socket.shutdown(socket.SHUT_WR)
    served.send(b"hello")
    assert served.notes.outcomes == ["disconnected"]
    assert not served.factory.connections


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


# What happens between the hub's look and the read: another's event may be the reason.


def read_after(served: Served, happens: Callable[[], object], data: bytes) -> None:
    """Let something happen once the connection was found to be readable, and it read then."""
    (read,) = served.hub._reads.values()
    served.peer.sendall(data)
    happens()
    read()


def test_a_connection_keeps_no_type_of_its_own(served: Served) -> None:
    served.send(b"one")
    (read,) = served.hub._reads.values()
    assert not served.is_quick() or UnionType not in map(type, read.__annotations__.values())


def test_who_was_answered_just_now_does_not_make_room_for_others(served: Served) -> None:
    before = time.monotonic()
    served.send(b"four")
    while unacknowledged_output(served.transport):
        time.sleep(0.001)
    assert served.protocol.unproductive_since() >= before


def test_where_nothing_is_to_be_read_any_more_nothing_happens(served: Served) -> None:
    (read,) = served.hub._reads.values()
    assert read() is None
    served.send(b"four")
    assert served.receive() == b"FOUR"
    reset(served.peer)
    assert read() is CONNECTION_LOST


def test_what_is_queued_goes_first(served: Served) -> None:
    read_after(served, lambda: FileDescriptor.write(served.transport, b"first "), b"second")
    served.turn()
    assert served.receive() == b"first SECOND"


def test_a_connection_that_is_paused_is_answered_once_it_goes_on(served: Served) -> None:
    read_after(served, served.protocol.pauseProducing, b"later")
    assert served.receive() == b""
    served.protocol.resumeProducing()
    served.turn()
    assert served.receive() == b"LATER"


def test_what_waits_in_the_conversation_goes_first(served: Served) -> None:
    read_after(served, lambda: served.protocol._conversation.receive(b"one "), b"two")
    served.turn()
    assert served.receive() == b"ONE TWO"


def test_one_that_drains_ends_behind_what_had_arrived(served: Served) -> None:
    read_after(served, served.protocol.drain, b"last")
    served.turn()
    assert served.peer.recv(100) == b"LAST"
    assert served.peer.recv(100) == b""
