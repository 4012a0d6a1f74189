"""The TCP service inside a program that starts and stops it itself."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EADDRNOTAVAIL, EMFILE, ENETUNREACH
from time import monotonic
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.client.in_reactor import in_reactor
from tests.system.processes import receive_all, receive_exactly
from uppercase.services import CannotStart, TCPService, TCPSettings, tcp_service
from uppercase.services.base import OpenPlace, _interface_addresses, addresses_for_others
from uppercase.tcp.kernel import _LEAST_HOPS, acknowledge, admit_nobody, connections_possible
from uppercase.tcp.listening import Listener


def made(transform: str = "uppercase", interface: str = "127.0.0.1") -> TCPService:
    return tcp_service(TCPSettings(transforms=[transform], port=0, interfaces=[interface]))


def start(service: TCPService) -> int:
    """Start it; return the one port that it serves."""
    service.startService()
    (address,) = service.served()
    return int(address.rpartition(":")[2])


def stop(service: TCPService) -> Deferred[Any]:
    stopping: Deferred[Any] = service.stopService()
    return stopping


def ask(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(b"hello")
    assert receive_exactly(client, 5) == b"HELLO"
    return client


@in_reactor
async def test_a_service_that_was_stopped_starts_again(said: list[str]) -> None:
    """It serves, and names, what it listens on now."""
    service = made()
    for _ in range(2):
        port = start(service)
        with await deferToThread(ask, port) as client:
            stopped = stop(service)
            assert await deferToThread(receive_all, client) == b""
        await stopped
        assert service.served() == []
    assert len([line for line in said if "ready to receive" in line]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can ask for it")
@in_reactor
async def test_the_start_of_a_message_is_acknowledged_at_once() -> None:
    """Java's DataOutputStream sends a length by itself, and the rest when that has come."""
    service = tcp_service(
        TCPSettings(transforms=["uppercase"], port=0, interfaces=["127.0.0.1"], framing="int16")
    )

    def talk(port: int) -> list[float]:
        took = []
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            for _ in range(30):
                began = monotonic()
                client.send(b"\0\5")
                client.send(b"hello")
                assert receive_exactly(client, 7) == b"\0\5HELLO"
                took.append(monotonic() - began)
        return took

    took = await deferToThread(talk, start(service))
    await stop(service)
    # None is, if the system puts it off, but for the first few.
    assert min(took[20:]) < 0.03


def test_a_unix_socket_acknowledges_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport: Any = SimpleNamespace(getHandle=lambda: ours)
        acknowledge(transport)


@in_reactor
async def test_a_service_that_can_listen_but_not_accept_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It needs another descriptor for that."""

    def full(*_: object) -> object:
        raise OSError(EMFILE, "Too many open files")

    monkeypatch.setattr("uppercase.tcp.listening.Acceptor", full)
    with pytest.raises(CannotStart, match="cannot listen on --port: Too many open files"):
        made().startService()
    await deferLater(reactor, 0)  # until what was opened is closed


@in_reactor
async def test_an_address_that_opens_late_is_said_to_be_ready_then(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """As by an endpoint of a third party, which waits for something before it listens."""
    opening: Deferred[Any] = Deferred()
    endpoint: Any = SimpleNamespace(listen=lambda _: opening)
    listener = Listener("late:1", "late:1", None, endpoint=endpoint)
    monkeypatch.setattr("uppercase.tcp.listening.listener_of_string", lambda *_: listener)
    service = tcp_service(TCPSettings(listen=["late:1"]))
    service.startService()
    await deferLater(reactor, 0)
    assert not any("ready to receive" in line for line in said)
    some_reactor: Any = reactor
    opening.callback(some_reactor.listenTCP(0, service.factory, interface="127.0.0.1"))
    (address,) = service.served()
    assert [line for line in said if f"ready to receive: {address} " in line] == [said[-1]]
    (await deferToThread(ask, int(address.rpartition(":")[2]))).close()
    await stop(service)


@in_reactor
async def test_a_third_partys_port_accepts_by_itself(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    ended: list[bool] = []
    port = SimpleNamespace(getHost=object, stopListening=lambda: ended.append(True))
    endpoint = SimpleNamespace(listen=lambda _: succeed(port))
    listener = Listener("card:1", "card:1", None, endpoint=endpoint)
    monkeypatch.setattr("uppercase.tcp.listening.listener_of_string", lambda *_: listener)
    service = tcp_service(TCPSettings(listen=["card:1"]))
    service.startService()
    assert service.ports == [port]
    assert service.served() == ["card:1"]
    await stop(service)
    assert ended == [True]


@in_reactor
async def test_an_endpoint_that_raises_is_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's, which should return a Deferred; what was opened before it is closed."""
    endpoint: Any = SimpleNamespace(listen=mock.Mock(side_effect=OSError(EMFILE, "no modem")))
    listener = Listener("card:1", "card:1", None, endpoint=endpoint)
    monkeypatch.setattr("uppercase.tcp.listening.listener_of_string", lambda *_: listener)
    service = tcp_service(TCPSettings(port=0, listen=["card:1"]))
    with pytest.raises(CannotStart, match="cannot listen on card:1: no modem"):
        service.startService()
    assert not service.ports
    await deferLater(reactor, 0)


@in_reactor
async def test_an_address_that_has_not_opened_by_the_end_opens_no_more(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    given_up: list[object] = []
    endpoint: Any = SimpleNamespace(listen=lambda _: Deferred(given_up.append))
    listener = Listener("late:1", "late:1", None, endpoint=endpoint)
    monkeypatch.setattr("uppercase.tcp.listening.listener_of_string", lambda *_: listener)
    service = tcp_service(TCPSettings(listen=["late:1"]))
    service.startService()
    await stop(service)
    assert len(given_up) == 1
    assert said == ["TCP: in total: no connections"]


@in_reactor
async def test_the_ready_line_names_the_framing_unless_it_is_a_stream(said: list[str]) -> None:
    """A client that sends no line's end would else wait for no reason that anybody could see."""
    for name, label in (("uppercase", "uppercase"), ("strip", "strip; framing line")):
        service = made(name)
        service.startService()
        await stop(service)
        (ready,) = (line for line in said if "ready to receive" in line)
        assert ready.endswith(f"({label})")
        said.clear()


@in_reactor
async def test_what_others_can_type_is_said(said: list[str]) -> None:
    service = made(interface="*")
    service.startService()
    await stop(service)
    with socket.socket(type=socket.SOCK_DGRAM) as skt:
        try:
            skt.connect(("192.0.2.1", 9))
        except OSError:
            return  # a machine that reaches nobody
        assert f"TCP: others reach this machine at {skt.getsockname()[0]}" in said
    if sys.platform == "linux":
        assert [*_interface_addresses()]


@pytest.mark.skipif(sys.platform != "linux", reason="only there")
def test_where_no_route_leads_out_others_are_told_what_the_interfaces_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hall's own network may lead nowhere."""
    ifreqs = {
        b"lo": bytes(20) + bytes((127, 0, 0, 1)) + bytes(16),
        b"wlan0": bytes(20) + bytes((192, 0, 2, 7)) + bytes(16),
    }

    def unreachable(skt: object, address: object) -> None:
        raise OSError(ENETUNREACH, "Network is unreachable")

    def ioctl(skt: object, request: int, name: bytes) -> bytes:
        found = ifreqs.get(name.rstrip(b"\0"))
        if found is None:
            raise OSError(EADDRNOTAVAIL, "Cannot assign requested address")
        return found

    kind = type("Socket", (socket.socket,), {"connect": unreachable})
    monkeypatch.setattr(socket, "socket", kind)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0"), (3, "wlan0")])
    monkeypatch.setattr("uppercase.services.base.ioctl", ioctl)
    assert addresses_for_others() == ["192.0.2.7"]


@in_reactor
async def test_others_are_told_of_no_address_of_a_family_that_is_not_served(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = "uppercase.services.base.addresses_for_others"
    monkeypatch.setattr(ours, lambda: ["192.0.2.7", "2001:db8::7"])
    service = made(interface="0.0.0.0")
    service.startService()
    await stop(service)
    others = [line for line in said if "others" in line]
    assert others == ["TCP: others reach this machine at 192.0.2.7"]


@in_reactor
async def test_the_sum_at_the_end_has_every_connection(said: list[str]) -> None:
    """Also the last one, for which the stop has waited."""
    service = made()
    port = start(service)
    with await deferToThread(ask, port) as client:
        stopped = stop(service)
        assert await deferToThread(receive_all, client) == b""
    await stopped
    assert said[-1] == "TCP: in total: closed stopped 1, opened 1"


@in_reactor
async def test_a_service_may_be_told_twice_to_stop(said: list[str]) -> None:
    """By the program, and by a signal meanwhile: both wait for the one end."""
    service = made()
    port = start(service)
    with await deferToThread(ask, port) as client:
        stops = [stop(service), stop(service)]
        assert await deferToThread(receive_all, client) == b""
    for stopped in stops:
        await stopped
    assert len([line for line in said if line.startswith("TCP: in total")]) == 1


@contextmanager
def of_another_process(place: str, inherits: bool) -> Iterator[tuple[TCPService, socket.socket]]:
    """Return a service with a place that was opened, and what another process has of that."""
    service = tcp_service(TCPSettings(port=0, inherits=inherits))
    skt = socket.create_server(("127.0.0.1", 0))
    service.opened.append(OpenPlace(place, [skt]))
    with skt.dup() as another:
        yield service, another


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the door stays open")
@pytest.mark.parametrize(
    ("place", "inherits", "least_hops"),
    [("--port", False, 255), ("--port", True, 0), ("systemd:domain=INET:index=0", False, 0)],
)
def test_only_what_ends_with_its_opener_lets_nobody_in_any_more(
    place: str, inherits: bool, least_hops: int
) -> None:
    with of_another_process(place, inherits) as (service, another):
        (opened,) = service.opened
        service.close()
        assert opened.sockets[0].fileno() == -1
        assert another.getsockopt(*_LEAST_HOPS[0]) == least_hops


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the door stays open")
@pytest.mark.parametrize(
    ("place", "least_hops"), [("--port", 255), ("systemd:domain=INET:index=0", 0)]
)
@in_reactor
async def test_a_stop_leaves_the_sockets_of_systemd_open_to_others(
    place: str, least_hops: int
) -> None:
    with of_another_process(place, inherits=True) as (service, another):
        service.startService()
        await stop(service)
        assert another.getsockopt(*_LEAST_HOPS[0]) == least_hops


@in_reactor
async def test_who_waits_while_accepting_rests_is_heard_before_a_stop() -> None:
    service = made()
    port = start(service)
    acceptor: Any = service.ports[0]
    acceptor._rest(OSError(EMFILE, "Too many open files"))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"hello")
        stopped = stop(service)
        assert await deferToThread(client.recv, 100) == b"HELLO"
    await stopped


def hear_twice(client: socket.socket) -> list[bytes]:
    """Return a reply, and the one to what is sent then."""
    first = client.recv(100)
    client.sendall(b"two")
    return [first, client.recv(100)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the door stays open")
@pytest.mark.parametrize("by_another", [False, True])
@in_reactor
async def test_whose_handshake_is_under_way_when_a_stop_begins_is_heard(by_another: bool) -> None:
    """The stop may be that of another process, whose socket it is too."""
    service = made()
    port = start(service)
    acceptor: Any = service.ports[0]
    # Until the client says something, its handshake is under way.
    acceptor._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        if by_another:
            admit_nobody(acceptor._socket)
            client.sendall(b"zero")
            assert await deferToThread(client.recv, 100) == b"ZERO"
        stopped = stop(service)
        client.sendall(b"one")
        assert await deferToThread(hear_twice, client) == [b"ONE", b"TWO"]
    await stopped


@pytest.mark.skipif(isinstance(reactor, SelectReactor), reason="it serves no number beyond 1,023")
@in_reactor
async def test_a_stop_works_whatever_the_descriptors_number() -> None:
    """In a program with a thousand files open, the listening port's is none that select takes."""
    assert connections_possible(2000) == 2000
    files = [socket.socket() for _ in range(1024)]
    service = made()
    port = start(service)
    try:
        with await deferToThread(ask, port):
            pass
    finally:
        await stop(service)
        for each in files:
            each.close()


def test_what_the_system_has_no_room_for_is_counted_by_its_error(said: list[str]) -> None:
    service = made()
    for number in (EMFILE, 12345):
        service._accept_failed(OSError(number, "no room"))
    assert service.counts() == {"accept-failed ?": 1, "accept-failed EMFILE": 1}
    assert "no connection can be accepted for now: no room (EMFILE); new clients wait" in said[0]
    service._log_observer.stop()
