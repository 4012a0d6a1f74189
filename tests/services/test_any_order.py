"""Whatever happens, in whatever order: each is told of once, and nothing is left behind.

The services are real, and so are the sockets; the reactor's turns and its time are the tests'.
"""

import socket
import struct
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.awaiting import runs_asyncio
from uppercase.core.events import Closed, Event, IObserver, Opened, Refused
from uppercase.interfaces import ITransform
from uppercase.lab import NO_LAB, TCPLab
from uppercase.limits import DatagramLimits, Limits
from uppercase.services import TCPSettings, UDPSettings, tcp_service, udp_service
from uppercase.services.base import TransformService

HOST = "127.0.0.1"
HEADER = b"PROXY TCP4 192.0.2.1 127.0.0.1 40001 12000\r\n"


class Turns(SelectReactor):
    """Twisted's reactor, which does nothing by itself, and knows the time that it is told."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()
        self.startRunning(installSignalHandlers=False)

    def seconds(self) -> float:
        return self.now

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            self.runUntilCurrent()
            self.doIteration(0)  # type: ignore[no-untyped-call]

    def advance(self, seconds: float) -> None:
        """Let time pass, from one thing that is planned to the next."""
        end = self.now + seconds
        self.turn()
        while due := [at for call in self.getDelayedCalls() if (at := call.getTime()) <= end]:
            self.now = max(self.now, min(due))
            self.turn(3)
        self.now = end
        self.turn(3)

    def left(self) -> list[object]:
        mine: Any = self
        readers = [each for each in mine.getReaders() if each is not mine.waker]
        return [*readers, *mine.getWriters(), *mine.getDelayedCalls()]

    def close(self) -> None:
        waker: Any = self.waker
        waker.connectionLost(Failure(Exception("it is over")))


@implementer(IObserver)
class Notes(list[Event]):
    def notify(self, event: Event) -> None:
        self.append(event)


@implementer(ITransform)
class Moody:
    """Upper-cases; `l` makes it late, and `f` fail."""

    def __init__(self) -> None:
        self.awaited: list[Deferred[bytes]] = []

    def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
        if message.startswith(b"f"):
            raise ValueError(message)
        if not message.startswith(b"l"):
            return message.upper() * (3000 if message.startswith(b"big") else 1)
        reply: Deferred[bytes] = Deferred()
        self.awaited.append(reply)
        return reply.addCallback(lambda _: message.upper())


class AnyOrder(RuleBasedStateMachine):
    """A service that is started, used, stopped and started again, all at once."""

    service: TransformService

    def __init__(self) -> None:
        super().__init__()
        self.reactor = Turns()
        self.moody, self.notes = Moody(), Notes()
        self.clients: list[socket.socket] = []
        self.stops: list[list[object]] = []
        self.wanted = True

    def client(self, kind: int) -> socket.socket:
        client = socket.socket(socket.AF_INET, kind)
        self.clients.append(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        return client

    def port(self) -> int:
        return int(self.service.served()[0].rpartition(":")[2])

    @rule()
    def start(self) -> None:
        self.wanted = True
        self.service.startService()

    @rule()
    def stop(self) -> None:
        self.wanted = False
        ended = list[object]()
        self.service.stopService().addBoth(ended.append)
        self.stops.append(ended)

    @rule(count=st.integers(1, 3))
    def turn(self, count: int) -> None:
        self.reactor.turn(count)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1, 6]))
    def advance(self, seconds: float) -> None:
        self.reactor.advance(seconds)

    @precondition(lambda self: self.moody.awaited)
    @rule(place=st.integers(0), fails=st.booleans())
    def reply(self, place: int, fails: bool) -> None:
        waiting = self.moody.awaited
        late = waiting.pop(place % len(waiting))
        if not late.called:
            late.errback(ValueError("late")) if fails else late.callback(b"")

    def teardown(self) -> None:
        if hasattr(self, "service"):
            for client in self.clients:
                client.close()
            self.reactor.advance(20)
            assert self.service.phase == ("serving" if self.wanted else "not started")
            self.stop()
            self.reactor.advance(20)
            assert self.service.phase == "not started"
            assert self.stops == [[None]] * len(self.stops)
            assert not self.reactor.left()
            self.check()
        self.reactor.close()

    def check(self) -> None:
        """Look at what was told."""


class AnyOrderTCP(AnyOrder):
    @initialize(
        framing=st.sampled_from(["stream", "line", "netstring", "segment"]),
        proxy=st.booleans(),
        lab=st.sampled_from([NO_LAB, TCPLab(delay=0.5, slice=2), TCPLab(reset_after=5)]),
        most=st.sampled_from([1, 3, 100]),
        drain=st.sampled_from([0.0, 2.0]),
    )
    def begin(self, framing: str, proxy: bool, lab: TCPLab, most: int, drain: float) -> None:
        limits = Limits(
            max_connections=most,
            async_window=2,
            idle_timeout=5.0,
            send_timeout=3.0,
            close_timeout=2.0,
            proxy_timeout=2.0,
        )
        self.proxy = proxy
        self.service = tcp_service(
            TCPSettings(
                transforms=["uppercase" if framing == "stream" else self.moody],
                framing=framing,
                proxy_from=HOST if proxy else None,
                limits=limits,
                lab=lab,
                drain=drain,
                port=0,
                interfaces=[HOST],
                observers=[self.notes],
            ),
            self.reactor,
        )
        self.service.startService()

    @precondition(lambda self: self.service.served())
    @rule(known=st.booleans())
    def connect(self, known: bool) -> None:
        client = self.client(socket.SOCK_STREAM)
        client.connect_ex((HOST, self.port()))
        if self.proxy and known:
            client.send(HEADER)

    @precondition(lambda self: self.clients)
    @rule(
        place=st.integers(0),
        text=st.sampled_from([b"hello\n", b"late\n", b"5:large,", b"big\n", b"f\n", b"l", HEADER]),
    )
    def send(self, place: int, text: bytes) -> None:
        self.attempt(place, lambda client: client.send(text))

    @precondition(lambda self: self.clients)
    @rule(place=st.integers(0), how=st.sampled_from(["read", "end", "close", "reset"]))
    def go_on(self, place: int, how: str) -> None:
        match how:
            case "read":
                self.attempt(place, lambda client: client.recv(1000))
            case "end":
                self.attempt(place, lambda client: client.shutdown(socket.SHUT_WR))
            case "close":
                self.clients.pop(place % len(self.clients)).close()
            case _:
                client = self.clients.pop(place % len(self.clients))
                linger = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.close()

    def attempt(self, place: int, act: Any) -> None:
        with suppress(OSError):  # It has nothing to read, or has ended.
            act(self.clients[place % len(self.clients)])

    def check(self) -> None:
        peers = {
            kind: Counter(each.peer for each in self.notes if isinstance(each, kind))
            for kind in (Opened, Closed, Refused)
        }
        assert peers[Opened].total() == peers[Closed].total()
        if not self.proxy:
            assert peers[Opened] == peers[Closed]
            assert set((peers[Opened] + peers[Refused]).values()) <= {1}
        factory: Any = self.service.factory  # type: ignore[attr-defined]
        assert not factory.connections
        assert not factory.admission._of_client


class AnyOrderUDP(AnyOrder):
    @initialize(most=st.sampled_from([1, 2000]), drain=st.sampled_from([0.0, 2.0]))
    def begin(self, most: int, drain: float) -> None:
        self.service = udp_service(
            UDPSettings(
                transforms=[self.moody],
                limits=DatagramLimits(max_outstanding=most),
                drain=drain,
                port=0,
                interfaces=["0.0.0.0"],
            ),
            self.reactor,
        )
        self.service.startService()

    @precondition(lambda self: self.service.served())
    @rule(count=st.sampled_from([1, 5, 70]), text=st.sampled_from([b"x", b"late", b"f", b"big"]))
    def send(self, count: int, text: bytes) -> None:
        client = self.client(socket.SOCK_DGRAM)
        for number in range(count):
            client.sendto(b"%b%d" % (text, number), (HOST, self.port()))

    def check(self) -> None:
        responder: Any = self.service.responder  # type: ignore[attr-defined]
        assert not responder.outstanding
        assert responder.received == responder.answered + responder.drops.total()


@pytest.mark.skipif(runs_asyncio(reactor), reason="a stop waits for tasks on asyncio's loop")
@pytest.mark.parametrize("machine", [AnyOrderTCP, AnyOrderUDP])
def test_whatever_happens_is_told_of_once_and_leaves_nothing(
    machine: type[AnyOrder], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a turn does must not depend on how busy the machine is: cases are tried again.
    monkeypatch.setattr("uppercase.udp.TURN", inf)
    run_state_machine_as_test(machine, settings=settings(max_examples=80, stateful_step_count=40))
