"""Accepting without descriptors or memory: a rest instead of a hot loop, and nobody sent away."""

import errno
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from twisted.internet import reactor as installed
from twisted.internet import tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorFDSet
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.conftest import LoggedErrors
from uppercase.errors import CannotListen
from uppercase.tcp._quick import hub_of
from uppercase.tcp.listening import Acceptor, Listener
from uppercase.tcp.opening import bind, listen_error


@implementer(IReactorFDSet)
class Reactor(Clock):
    """A reactor whose turns a test makes."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        """Nobody writes here."""

    def removeWriter(self, writer: Any) -> None:
        """Nobody writes here."""

    def getReaders(self) -> list[Any]:
        return list(self.readers)

    def getWriters(self) -> list[Any]:
        return []

    def removeAll(self) -> list[Any]:
        readers = self.getReaders()
        self.readers.clear()
        return readers

    def turn(self) -> None:
        for reader in list(self.readers):
            reader.doRead()


class Socket:
    """A listening socket whose next `accept` gives what a test says."""

    def __init__(self) -> None:
        self.answers: list[OSError] = []
        self.always: OSError = BlockingIOError(errno.EAGAIN, "nobody waits")
        self.asked = 0

    def accept(self) -> object:
        self.asked += 1
        raise self.answers.pop() if self.answers else self.always

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


class Served:
    """An acceptor with a port of Twisted's, and a socket that tests speak for."""

    def __init__(self, waits: Callable[[], bool] | None = None) -> None:
        self.reactor = Reactor()
        self.told: list[OSError] = []
        self.port = Port(
            0, Factory.forProtocol(Protocol), interface="127.0.0.1", reactor=self.reactor
        )
        self.port.startListening()
        assert self.port in self.reactor.readers
        self.acceptor = Acceptor(self.port, self.reactor, self.told.append, waits)
        self.acceptor.startListening()
        self.system = Socket()
        self.acceptor._socket.close()
        self.acceptor._socket = self.system  # type: ignore[assignment]

    def close(self) -> None:
        self.acceptor.stopListening()
        self.reactor.advance(0)
        assert not self.reactor.getDelayedCalls()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_port_rests_longer_and_longer_and_goes_on(served: Served, code: int) -> None:
    system, reactor = served.system, served.reactor
    # Twisted's port does not hear of clients, so that it cannot close any of them.
    assert reactor.readers == {served.acceptor}
    system.always = OSError(code, "scarce")
    for _ in range(1000):
        reactor.turn()
        reactor.advance(0.01)
    # 0.1, 0.2, 0.4, 0.8 and then 1 s.
    assert len(served.told) == 13
    assert system.asked == len(served.told)
    system.always = BlockingIOError(errno.EAGAIN, "nobody waits")
    reactor.advance(1.0)
    assert reactor.readers == {served.acceptor}
    reactor.turn()
    assert system.asked == len(served.told) + 1


def test_a_port_that_rests_is_stopped_twice(served: Served) -> None:
    """By somebody else, and then by its service, as the fixture does."""
    served.acceptor.connectionLost(Failure(MemoryError()))
    served.acceptor.stopListening()
    served.reactor.advance(0)


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "none"), MemoryError()])
def test_a_port_that_cannot_be_watched_again_rests_on(
    error: Exception, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a lack of memory end it that it meets first itself."""
    served.acceptor.connectionLost(Failure(MemoryError()))
    with monkeypatch.context() as patch:
        patch.setattr(served.reactor, "addReader", mock.Mock(side_effect=error))
        served.reactor.advance(0.1)
        assert served.reactor.readers == set()
    served.reactor.advance(0.2)
    assert served.reactor.readers == {served.acceptor}
    assert [each.errno for each in served.told] == [errno.ENOMEM] * 2


def test_a_client_for_whom_there_is_no_memory_is_closed_and_others_wait(
    served: Served, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        monkeypatch.setattr(served.system, "accept", lambda: (ours, ("127.0.0.1", 9)))
        monkeypatch.setattr(served.acceptor, "_serve", mock.Mock(side_effect=MemoryError))
        served.reactor.turn()
        assert ours.fileno() == -1
    assert [each.errno for each in served.told] == [errno.ENOMEM]
    assert served.reactor.readers == set()
    assert logged_errors.flush() == []


def test_a_client_that_is_gone_before_it_is_accepted_delays_nobody(served: Served) -> None:
    served.system.answers = [OSError(errno.ECONNABORTED, "gone")] * 3
    for _ in range(4):
        served.reactor.turn()
    assert served.system.asked == 4
    assert served.reactor.readers == {served.acceptor}
    assert not served.told


def test_all_who_wait_are_accepted_before_the_end_however_long_the_queue(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint's `backlog=` may be longer than ours."""
    monkeypatch.setattr(served.system, "fileno", lambda: 1 << 20)
    served.system.answers = [OSError(errno.ECONNABORTED, "gone")] * 5000
    served.acceptor.accept_waiting()
    assert served.system.asked == 5001


def test_who_has_more_than_other_processes_gives_them_a_moment() -> None:
    """Then it accepts, whatever they have; who has not more takes one client at a time."""
    others_first = [True]
    served = Served(lambda: others_first[0])
    for turns in (1, 2):
        served.reactor.turn()
        assert (served.system.asked, served.reactor.readers) == (turns - 1, set())
        served.reactor.advance(0.002)
        served.reactor.turn()
        assert (served.system.asked, served.reactor.readers) == (turns, {served.acceptor})
    others_first[0] = False
    served.reactor.turn()
    assert served.system.asked == 3
    served.close()


def test_a_stop_leaves_no_timer() -> None:
    served = Served()
    served.system.always = OSError(errno.EMFILE, "scarce")
    served.reactor.turn()
    served.close()
    assert not served.reactor.readers


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
async def test_whoever_connects_is_served_as_by_twisteds_port(kind: str, tmp_path: Any) -> None:
    """With the same addresses and kind of transport, through any endpoint of Twisted's own.

    One of them was there before anybody accepted, as whoever has systemd start the service.
    """

    class Greeter(Protocol):
        transport: Any

        def connectionMade(self) -> None:
            peers.append((self.transport, self.transport.getPeer()))
            handle = self.transport.getHandle()
            at_once.append(
                kind == "unix" or handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            )
            self.transport.write(b"hello")
            self.transport.loseConnection()

        def connectionLost(self, reason: object = None) -> None:
            ended.put(None)

    ended: DeferredQueue[None] = DeferredQueue()
    peers: list[tuple[str, Any]] = []
    at_once: list[object] = []
    place = {"tcp": "0:interface=127.0.0.1", "tcp6": r"0:interface=\:\:1", "unix": f"{tmp_path}/s"}
    if kind == "tcp6" and not socket.has_ipv6:
        pytest.skip("no IPv6")
    endpoint = serverFromString(installed, f"{kind.rstrip('6')}:{place[kind]}")
    port = await endpoint.listen(Factory.forProtocol(Greeter))
    host = port.getHost()
    family = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}[kind]
    with socket.socket(family) as early, socket.socket(family) as late:
        early.connect(host.name if kind == "unix" else (host.host, host.port))
        acceptor: Any = Acceptor(port, hub_of(installed), lambda error: None)
        acceptor.startListening()
        await ended.get()
        acceptor.accept_waiting()
        late.connect(early.getpeername())
        await ended.get()
        for client, (transport, peer) in zip((early, late), peers, strict=True):
            client.settimeout(10)
            assert client.recv(100) == b"hello"
            if kind == "unix":
                assert isinstance(transport, unix.Server)
            else:
                assert isinstance(transport, tcp.Server)
                assert (peer.host, peer.port) == client.getsockname()[:2]
    assert all(at_once), "a reply may wait for an acknowledgement"
    await acceptor.stopListening()


@pytest.mark.parametrize("fault", ["connectionMade", "readConnectionLost"])
async def test_a_fault_at_one_connection_costs_the_next_one_nothing(
    fault: str, logged_errors: LoggedErrors
) -> None:
    """It has the same descriptor's number, which must not be taken for known."""

    @implementer(IHalfCloseableProtocol)
    class Echo(Protocol):
        transport: Any

        def connectionMade(self) -> None:
            made.append(self)
            self.fail_in("connectionMade")

        def fail_in(self, method: str) -> None:
            if len(made) == 1 and method == fault:
                raise ValueError("on purpose")

        def dataReceived(self, data: bytes) -> None:
            self.transport.write(data)

        def readConnectionLost(self) -> None:
            self.fail_in("readConnectionLost")
            self.transport.loseConnection()

        def writeConnectionLost(self) -> None: ...

        def connectionLost(self, reason: object = None) -> None:
            ended.put(None)

    ended: DeferredQueue[None] = DeferredQueue()
    made: list[Protocol] = []
    endpoint = serverFromString(installed, "tcp:0:interface=127.0.0.1")
    port: Any = await endpoint.listen(Factory.forProtocol(Echo))
    acceptor = Acceptor(port, hub_of(installed), lambda error: None)
    acceptor.startListening()
    host = port.getHost()
    replies = []
    for _ in range(2):
        with socket.create_connection((host.host, host.port), timeout=10) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            await ended.get().addTimeout(10, installed)
            with suppress(ConnectionResetError):
                replies.append(client.recv(100))
    assert replies[-1] == b"hello"
    assert "on purpose" in logged_errors.flush()[0]
    await acceptor.stopListening()


@pytest.mark.skipif(sys.platform != "linux", reason="others have this very address")
def test_an_interface_has_its_scope() -> None:
    """The system calls a link-local address without one invalid, whether it is there or not."""
    with pytest.raises(CannotListen, match="no such address"):
        bind("fe80::1%lo", 0)


def test_an_endpoint_at_every_address_is_not_one_at_loopback() -> None:
    """The C library takes a star for that; `--interface` alone knows it."""
    with pytest.raises(CannotListen, match=r"0\.0\.0\.0 is every IPv4 address"):
        bind("*", 0)


def test_an_endpoints_error_is_told_in_its_own_words() -> None:
    """Such as a third-party one raises: only what the system says has a `strerror`."""
    errors = (
        OSError("no card in the reader"),
        OSError(errno.ENODEV, "No such device"),
        OSError(errno.ENOENT, "No such file", "/dev/null"),
    )
    sentences = [str(listen_error("card:1", Failure(error))) for error in errors]
    assert sentences == [
        "cannot listen on card:1: no card in the reader",
        "cannot listen on card:1: No such device",
        "cannot listen on card:1: No such file: /dev/null",
    ]


@pytest.mark.parametrize(
    ("address", "name"), [(object(), "card:1"), (UNIXAddress("/run/card"), "UNIX /run/card")]
)
def test_an_address_of_an_unknown_kind_is_called_as_its_user_did(address: Any, name: str) -> None:
    port: Any = SimpleNamespace(getHost=lambda: address)
    assert Listener("card:1", "card:1", None).name(port) == name
