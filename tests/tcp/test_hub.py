"""The hub calls whoever is ready, by the rules of Twisted's reactors, and lets those go on."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from tests.conftest import LoggedErrors
from uppercase.tcp import _quick
from uppercase.tcp._quick import Hub, hub_of


class Descriptor:
    """A connected socket that does what a test says when it is called, and writes that down.

    Args:
        does: called with "read" or "write"; what it returns is the result.
        number: that of the descriptor, which was free last.
    """

    def __init__(
        self, does: Callable[[str], object] = lambda kind: None, number: int | None = None
    ) -> None:
        self.socket, self.peer = socket.socketpair()
        if self.peer.fileno() == number:
            self.socket, self.peer = self.peer, self.socket
        assert number in (None, self.socket.fileno())
        self.does = does
        self.calls: list[str] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "test"

    def doRead(self) -> object:
        self.calls.append("read")
        return self.does("read")

    def doWrite(self) -> object:
        self.calls.append("write")
        return self.does("write")

    def readConnectionLost(self, reason: Failure) -> None:
        self.calls.append(f"input ended: {type(reason.value).__name__}")

    def connectionLost(self, reason: Failure) -> None:
        self.calls.append(f"lost: {type(reason.value).__name__}")

    def close(self) -> None:
        self.socket.close()
        self.peer.close()


class Watched:
    """A hub, its reactor, and the descriptors of a test."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.hub = Hub(self.reactor)
        self.made: list[Descriptor] = []

    def reader(self, does: Callable[[str], object] = lambda kind: None) -> Descriptor:
        """Make a descriptor that is read, with something to read."""
        descriptor = Descriptor(does)
        descriptor.peer.send(b"x")
        self.made.append(descriptor)
        self.hub.addReader(descriptor)
        return descriptor

    def taker(self) -> Descriptor:
        """Make one that takes what there is to read."""
        made = self.reader(lambda kind: made.socket.recv(9) and None)
        return made


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.hub.removeAll()
    for descriptor in made.made:
        descriptor.close()


@pytest.fixture(autouse=True)
def long_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a turn's time may be over before anything was done."""
    monkeypatch.setattr(_quick, "TURN", 60.0)


def test_the_reactor_has_one_reader_as_long_as_anybody_is_watched(watched: Watched) -> None:
    assert watched.reactor.getReaders() == []
    one, two = watched.reader(), watched.reader()
    watched.hub.addWriter(two)
    assert watched.reactor.getReaders() == [watched.hub]
    assert watched.hub.getReaders() == [one, two]
    assert watched.hub.getWriters() == [two]
    watched.hub.removeReader(one)
    watched.hub.removeReader(two)
    assert watched.reactor.getReaders() == [watched.hub]
    watched.hub.removeWriter(two)
    assert watched.reactor.getReaders() == []
    assert watched.hub.seconds() == watched.reactor.seconds()


def test_there_is_one_hub_for_a_reactor(monkeypatch: pytest.MonkeyPatch) -> None:
    """But none, and so the reactor itself, on the portable way."""
    reactor, other = MemoryReactorClock(), MemoryReactorClock()
    hub = hub_of(reactor)
    assert hub_of(reactor) is hub
    assert hub_of(other) is not hub
    monkeypatch.setattr(_quick, "PORTABLE", True)
    assert hub_of(reactor) is reactor


_RESULTS = {
    "read done": CONNECTION_DONE,
    "read lost": CONNECTION_LOST,
    "read other": OSError("other"),
    "write done": CONNECTION_DONE,
    "write lost": CONNECTION_LOST,
    "write other": OSError("other"),
}


def _run(reactor: Any, turn: Callable[[], None], drawn: Any) -> list[str]:
    """Let things happen to a descriptor; return what it was called for."""
    reads, writes, half_closes, result, deeds = drawn

    def does(kind: str) -> object:
        if kind == "read":
            descriptor.socket.recv(3)
        if result == f"{kind} raises":
            raise ValueError("on purpose")
        return _RESULTS.get(result) if result.startswith(kind) else None

    descriptor = Descriptor(does)
    descriptor.socket.setblocking(False)
    if half_closes:
        alsoProvides(descriptor, IHalfCloseableDescriptor)
    if reads:
        reactor.addReader(descriptor)
    if writes:
        reactor.addWriter(descriptor)
    for deed in deeds:
        with suppress(OSError):
            deed(descriptor.peer)
        turn()
        turn()
    left = descriptor in reactor.getReaders(), descriptor in reactor.getWriters()
    reactor.removeReader(descriptor)
    reactor.removeWriter(descriptor)
    descriptor.close()
    # Who can be written to is called in each look, and after an end a hub looks once more.
    pairs = pairwise(["", *descriptor.calls])
    return [*(now for before, now in pairs if not before == now == "write"), str(left)]


def _data(peer: socket.socket) -> None:
    peer.send(b"abcd")


def _end(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def epoll_reactor() -> Iterator[Any]:
    """A second reactor of Twisted's, which tests turn by hand."""
    made = EPollReactor()
    yield made
    for reader in made.getReaders():
        reader.connectionLost(Failure(CONNECTION_DONE))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["none", "read raises", "write raises", *_RESULTS]),
        st.lists(st.sampled_from([_data, _end, socket.socket.close]), max_size=4, unique=True),
    )
)
def test_results_errors_and_ends_have_the_consequences_that_they_have_in_twisteds_reactors(
    epoll_reactor: Any, logged_errors: LoggedErrors, drawn: Any
) -> None:
    expected = _run(epoll_reactor, lambda: epoll_reactor.doIteration(0), drawn)
    logged = logged_errors.flush()
    hub = Hub(MemoryReactorClock())
    assert _run(hub, hub.doRead, drawn) == expected
    assert len(logged_errors.flush()) == len(logged)


def test_one_that_raises_costs_no_neighbour_its_turn(
    watched: Watched, logged_errors: LoggedErrors
) -> None:
    """Its connection is lost, and the log has its traceback, under its name."""
    systems = []

    def fail(kind: str) -> None:
        raise ValueError("on purpose")

    @implementer(ILogObserver)
    def note(event: LogEvent) -> None:
        systems.append(event.get("log_system"))

    bad, good = watched.reader(fail), watched.taker()
    globalLogPublisher.addObserver(note)
    watched.hub.doRead()
    globalLogPublisher.removeObserver(note)
    assert bad.calls == ["read", "lost: ValueError"]
    assert good.calls == ["read"]
    assert watched.hub.getReaders() == [good]
    (logged,) = logged_errors.flush()
    assert "ValueError: on purpose" in logged
    assert systems == ["test"]


def test_one_for_whom_there_is_no_memory_is_told_so_at_its_end(
    watched: Watched, logged_errors: LoggedErrors
) -> None:
    """Hundreds may be in that, so there is no traceback for each."""

    def fail(kind: str) -> None:
        raise MemoryError

    bad, good = watched.reader(fail), watched.taker()
    watched.hub.doRead()
    assert bad.calls == ["read", "lost: MemoryError"]
    assert good.calls == ["read"]
    assert logged_errors.flush() == []


def test_a_look_for_which_there_is_no_memory_is_taken_again(watched: Watched) -> None:
    """The reactor tells the hub that it is lost, as it is told what the hub has raised."""
    good = watched.taker()
    watched.reactor.removeReader(watched.hub)
    watched.hub.connectionLost(Failure(MemoryError()))
    assert watched.reactor.getReaders() == [watched.hub]
    watched.hub.doRead()
    assert good.calls == ["read"]


def test_one_that_could_not_be_watched_is_not_and_can_be_later(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as for want of memory in the kernel."""
    one = watched.taker()
    watched.hub.removeReader(one)
    with monkeypatch.context() as patch:
        patch.setattr(watched.reactor, "addReader", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            watched.hub.addReader(one)
    assert watched.hub.getReaders() == []
    watched.hub.doRead()
    assert one.calls == []
    watched.hub.addReader(one)
    watched.hub.doRead()
    assert one.calls == ["read"]


def test_one_that_raises_at_its_end_costs_nobody_else_anything(
    watched: Watched, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = watched.reader(lambda kind: CONNECTION_LOST), watched.taker()
    monkeypatch.setattr(bad, "connectionLost", lambda reason: 1 / 0)
    watched.hub.doRead()
    assert good.calls == ["read"]
    assert "ZeroDivisionError" in logged_errors.flush()[0]


def test_one_that_is_closed_behind_its_back_costs_nobody_else_anything(watched: Watched) -> None:
    """As by a plugin that closes one number twice, which is somebody else's by then."""

    def vanish(kind: str) -> Exception:
        os.close(bad.fileno())
        return CONNECTION_LOST

    bad, good = watched.reader(vanish), watched.taker()
    watched.hub.doRead()
    assert bad.calls == ["read", "lost: ConnectionLost"]
    assert good.calls == ["read"]
    assert watched.hub.getReaders() == [good]
    bad.socket.detach()


def test_one_that_is_closed_before_it_writes_costs_nobody_else_anything(
    watched: Watched, logged_errors: LoggedErrors
) -> None:
    """The kernel refuses to watch it for room, and then to watch it for less."""

    def vanish(kind: str) -> None:
        os.close(bad.fileno())
        watched.hub.addWriter(bad)

    bad, good = watched.reader(vanish), watched.taker()
    watched.hub.doRead()
    assert bad.calls[0] == "read"
    assert bad.calls[1].startswith("lost: ")
    assert good.calls == ["read"]
    assert watched.hub.getReaders() == [good]
    assert watched.hub.getWriters() == []
    assert "Error" in logged_errors.flush()[0]
    bad.socket.detach()


def test_whoever_is_ended_by_another_is_not_called(watched: Watched) -> None:
    """Nor is a new one that has its number by then, for what was found of the old one."""
    new: list[Descriptor] = []

    def replace(kind: str) -> None:
        reads, old = (first, second) if first.calls else (second, first)
        reads.socket.recv(1)
        number = old.fileno()
        watched.hub.removeReader(old)
        old.close()
        new.append(Descriptor(number=number))
        watched.hub.addWriter(new[0])

    first, second = watched.reader(replace), watched.reader(replace)
    watched.made.pop()
    watched.hub.doRead()
    assert first.calls + second.calls == ["read"]
    assert new[0].calls == []
    watched.hub.doRead()
    assert new[0].calls == ["write"]
    watched.hub.removeWriter(new[0])
    new[0].close()


def test_a_number_that_was_closed_unseen_is_watched_anew(watched: Watched) -> None:
    """The kernel forgets it with the socket; its next owner would never be read."""
    old = watched.reader()
    number = old.fileno()
    old.close()
    new = Descriptor(number=number)
    watched.made = [new]
    new.peer.send(b"x")
    watched.hub.addReader(new)
    watched.hub.doRead()
    assert (old.calls, new.calls) == ([], ["read"])
    assert watched.hub.getReaders() == [new]


def test_who_comes_within_a_turn_is_served_in_it(watched: Watched) -> None:
    """As a client is that has been accepted, and has said already what it wants: nobody looks."""

    def accept(kind: str) -> None:
        door.socket.recv(1)
        came.append(watched.reader(take))

    def take(kind: str) -> None:
        came[0].socket.recv(1)

    came: list[Descriptor] = []
    door = watched.reader(accept)
    watched.hub.doRead()
    assert (door.calls, came[0].calls) == (["read"], ["read"])


def test_who_comes_when_another_has_gone_is_served_in_the_same_turn(watched: Watched) -> None:
    """As the next is of clients that come for one request each."""
    other = watched.taker()
    watched.hub.doRead()

    def go(kind: str) -> Exception:
        other.peer.send(b"x")
        return CONNECTION_DONE

    watched.reader(go)
    watched.hub.doRead()
    assert other.calls == ["read", "read"]


def test_what_writes_no_more_after_a_read_is_not_called_to_write(watched: Watched) -> None:
    both = watched.reader(lambda kind: watched.hub.removeWriter(both))
    watched.hub.addWriter(both)
    watched.hub.doRead()
    assert both.calls == ["read"]


def test_the_reactor_has_its_turn_while_many_are_busy(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were left have theirs first then, so that nobody waits for another's second."""
    monkeypatch.setattr(_quick, "TURN", 0.02)
    slow = [watched.reader(lambda kind: time.sleep(0.01)) for _ in range(6)]
    rounds = 0
    while any(not each.calls for each in slow):
        watched.hub.doRead()
        rounds += 1
        assert max(len(each.calls) for each in slow) == 1
    assert rounds > 1


def test_no_more_than_a_batch_is_served_between_turns_of_the_reactor(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_quick, "_BATCH", 4)
    all_of_them = [watched.reader() for _ in range(8)]
    watched.hub.doRead()
    assert sum(len(each.calls) for each in all_of_them) == 4
    watched.hub.doRead()
    assert all(each.calls == ["read"] for each in all_of_them)


def test_the_end_of_the_reactor_is_the_end_of_all(watched: Watched) -> None:
    one, two = watched.reader(), watched.reader()
    watched.hub.connectionLost(Failure(ConnectionLost()))
    assert one.calls == two.calls == ["lost: ConnectionLost"]
    assert watched.reactor.getReaders() == []
