"""Transports that write at once, on real sockets and without a reactor that turns."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.tcp._quick import prompt


class Pair:
    """A transport and the socket at its other end."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        skt, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        make: Any = prompt(Server)
        self.protocol = Protocol()
        self.transport = make(skt, self.protocol, ("192.0.2.1", 1), None, 0, self.reactor)
        self.protocol.makeConnection(self.transport)

    def waits(self) -> bool:
        """Whether the transport has asked the reactor for room."""
        return self.transport in self.reactor.getWriters()

    def received(self) -> bytes:
        """What is at the other end by now."""
        parts = []
        try:
            while part := self.peer.recv(1 << 20):
                parts.append(part)
        except BlockingIOError:
            pass
        return b"".join(parts)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.peer.close()
    if made.transport.connected:
        made.transport.socket.close()


def test_what_is_written_is_sent_without_a_turn_of_the_reactor(pair: Pair) -> None:
    pair.transport.write(b"one ")
    pair.transport.write(b"two")
    assert pair.received() == b"one two"
    assert not pair.waits()


def test_what_the_kernel_does_not_take_follows_in_order(pair: Pair) -> None:
    """Also what is written behind it while there is room again."""
    block = bytes(range(256)) * (8 << 12)
    pair.transport.write(block)
    assert pair.waits()
    got = pair.received()
    assert 0 < len(got) < len(block)
    pair.transport.write(b"behind")
    while pair.waits():
        assert pair.transport.doWrite() is None
        got += pair.received()
    assert got == block + b"behind"
    pair.transport.write(b"at once")
    assert pair.received() == b"at once"


@implementer(IPushProducer)
class Producer:
    """What is told when there is room."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


def test_a_producer_is_paused_while_much_is_queued(pair: Pair) -> None:
    producer = Producer()
    pair.transport.registerProducer(producer, True)
    pair.transport.write(bytes(8 << 20))
    assert producer.told == ["pause"]
    while pair.waits():
        pair.received()
        pair.transport.doWrite()
    assert producer.told == ["pause", "resume"]


def test_many_short_writes_are_much_too(pair: Pair) -> None:
    """A peer that sends single letters and reads nothing costs more than its letters."""
    producer = Producer()
    pair.transport.registerProducer(producer, True)
    count = 0
    while not producer.told:
        pair.transport.write(b"x")
        count += 1
    queued = sum(map(len, pair.transport._tempDataBuffer))
    assert queued < 2000
    got = b""
    while len(got) < count:
        got += pair.received()
        pair.transport.doWrite()
    assert producer.told == ["pause", "resume"]


def test_an_aborted_transport_swallows_what_is_written(pair: Pair) -> None:
    pair.transport.abortConnection()
    pair.transport.write(b"late")
    assert pair.received() == b""
    assert not pair.waits()


def test_nothing_follows_the_end_of_the_output(pair: Pair) -> None:
    pair.transport.write(b"last")
    pair.transport.loseWriteConnection()
    pair.transport.doWrite()
    pair.transport.write(b"late")
    assert pair.peer.recv(100) == b"last"
    assert pair.peer.recv(100) == b""
    assert not pair.waits()


def test_a_peer_that_is_gone_is_found_by_the_next_try(pair: Pair) -> None:
    """Not within the write, whose caller is at work."""
    pair.peer.close()
    pair.transport.write(b"nobody")
    assert pair.transport.connected
    assert pair.waits()
    assert isinstance(pair.transport.doWrite(), Exception)


@implementer(IHalfCloseableProtocol)
class _Closer(Protocol):
    """Says something and closes when its input ends."""

    transport: Any

    def __init__(self, last: bytes = b"bye") -> None:
        self.last = last
        self.told: list[str] = []

    def readConnectionLost(self) -> None:
        self.transport.write(self.last)
        self.at_once = self.transport.ends_at_once
        self.transport.loseConnection()
        self.told.append("input ended")

    def writeConnectionLost(self) -> None:
        self.told.append("output ended")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append(type(reason.value).__name__)


def test_a_connection_that_ends_with_its_input_waits_for_no_turn(pair: Pair) -> None:
    """It is lost once the protocol has done its part, and has what was written last."""
    pair.transport.protocol = closer = _Closer()
    closer.makeConnection(pair.transport)  # type: ignore[no-untyped-call]
    pair.transport.readConnectionLost(Failure(ConnectionDone()))
    assert closer.told == ["input ended", "ConnectionDone"]
    assert closer.at_once
    assert pair.peer.recv(100) == b"bye"
    assert pair.peer.recv(100) == b""
    assert not pair.waits()


def test_a_connection_that_ends_with_its_input_sends_first_what_is_queued(pair: Pair) -> None:
    block = bytes(8 << 20)
    pair.transport.protocol = closer = _Closer(block)
    closer.makeConnection(pair.transport)  # type: ignore[no-untyped-call]
    pair.transport.readConnectionLost(Failure(ConnectionDone()))
    assert closer.told == ["input ended"]
    assert not closer.at_once
    got, result = b"", None
    while result is None:
        got += pair.received()
        result = pair.transport.doWrite()
    pair.transport.connectionLost(Failure(result))
    assert got + pair.received() == block
    assert closer.told == ["input ended", "ConnectionDone"]


def test_an_abort_at_the_end_of_input_is_none_in_order(pair: Pair) -> None:
    """Such as of a PROXY header that is cut: the peer is reset, as on every other way."""

    class Aborter(_Closer):
        def readConnectionLost(self) -> None:
            self.transport.abortConnection()
            self.transport.loseConnection()

    pair.transport.protocol = aborter = Aborter()
    aborter.makeConnection(pair.transport)  # type: ignore[no-untyped-call]
    pair.transport.readConnectionLost(Failure(ConnectionDone()))
    pair.reactor.advance(0)
    assert aborter.told == ["ConnectionAborted"]
