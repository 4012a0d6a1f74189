"""A service inside a program: started and stopped at any time, once, twice or again."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import deferLater

from tests.udp.helpers import client, columns, packet
from uppercase.services import TCPSettings, UDPSettings, tcp_service, udp_service
from uppercase.services import _udp as udp_module
from uppercase.services._stopping import exit_with
from uppercase.services.base import TransformService

SERVICES = {
    "tcp": lambda: tcp_service(TCPSettings(port=0, interfaces=["127.0.0.1"])),
    "udp": lambda: udp_service(UDPSettings(port=0, interfaces=["127.0.0.1"])),
}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> TransformService:
    make: Callable[[], TransformService] = SERVICES[request.param]
    return make()


def test_the_status_is_what_it_is_even_if_nobody_reads_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends, statuses = list[Callable[[], None]](), list[int]()
    monkeypatch.setattr("atexit.register", ends.append)
    monkeypatch.setattr("os._exit", statuses.append)
    exit_with(3)
    monkeypatch.setattr("sys.stdout", None)  # as Python has it where it is closed
    with pytest.raises(AttributeError):
        ends[0]()
    assert statuses == [3]


async def test_a_service_that_was_not_started_stops_at_once(service: TransformService) -> None:
    await service.stopService()


async def test_a_service_that_was_stopped_before_the_reactor_ran_announces_nothing(
    service: TransformService, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    later: list[Callable[[], None]] = []
    monkeypatch.setattr(reactor, "callWhenRunning", later.append)
    service.startService()
    stopped = service.stopService()
    for call in later:  # The reactor runs, and it has not ended yet.
        call()
    await stopped
    for call in later:
        call()
    assert not [line for line in said if "reach" in line or "ready" in line]


async def test_a_second_stop_waits_for_the_end_of_the_first(service: TransformService) -> None:
    service.startService()
    await gatherResults([service.stopService(), service.stopService()])
    assert not service.served()
    await service.stopService()


async def test_who_gives_up_waiting_for_a_stop_ends_no_other_wait(
    service: TransformService,
) -> None:
    """As a program does that waits for a while only, within an application that stops."""
    service.startService()
    first, second = service.stopService(), service.stopService()
    first.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
    for stopped in (second, service.stopService()):
        assert not stopped.called
    await second
    assert service.phase == "not started"


async def test_a_service_whose_ports_somebody_has_closed_stops_as_usual(
    service: TransformService, said: list[str]
) -> None:
    """As the reactor does with a socket that another process has shut down."""
    service.startService()
    ports: Any = service
    for port in ports.ports:
        port.stopListening()
    await deferLater(reactor, 0)
    await service.stopService()
    assert service.phase == "not started"
    assert [line.partition(": ")[2] for line in said if "accepted" in line or "total" in line] == [
        "in total: no connections"
        if service.protocol == "TCP"
        else "in total: received 0, answered 0"
    ]


async def test_a_stop_that_fails_at_once_says_so_to_who_waits(
    service: TransformService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise ValueError("no good")

    service.startService()
    end = service.end
    monkeypatch.setattr(service, "end", fail)
    with pytest.raises(ValueError, match="no good"):
        await service.stopService()
    assert service.phase == "not started"
    await end()


async def test_a_service_can_be_started_again(service: TransformService) -> None:
    for _ in range(2):
        service.startService()
        assert len(service.served()) == 1
        await service.stopService()


async def test_a_transform_that_stops_its_service_is_answered_with_all_that_has_come() -> None:
    def stop(message: bytes) -> bytes:
        own.stopService()
        return message

    own = udp_service(UDPSettings(transforms=[stop], port=0, interfaces=["127.0.0.1"]))
    own.startService()
    where = ("127.0.0.1", own.ports[0].getHost().port)
    with client() as sock:
        for number in range(3):
            sock.sendto(b"%d" % number, where)
        while own.phase == "serving":
            await deferLater(reactor, 0)
        await own.stopService()
        assert [sock.recv(100) for _ in range(3)] == [b"0", b"1", b"2"]


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux does it")
async def test_a_stop_answers_who_waits_at_a_unix_socket_and_refuses_who_comes(
    tmp_path: Path,
) -> None:
    """Nobody is reset when the socket is closed."""
    place = str(tmp_path / "socket")
    service = tcp_service(TCPSettings(listen=[f"unix:{place}"]))
    service.startService()
    with socket.socket(socket.AF_UNIX) as early, socket.socket(socket.AF_UNIX) as late:
        early.settimeout(30)
        early.connect(place)
        early.sendall(b"hello")
        early.shutdown(socket.SHUT_WR)
        stopped = service.stopService()
        with pytest.raises(ConnectionRefusedError):
            late.connect(place)
        await stopped
        assert early.recv(100) == b"HELLO"


async def test_a_port_that_a_transform_has_stopped_counts_no_drops_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system's count is gone with the socket; it has not begun again at 0."""
    dropped: dict[int, int] = {}

    def counted(sock: socket.socket) -> int | None:
        return None if sock.fileno() < 0 else dropped.get(0, 7)

    monkeypatch.setattr(udp_module, "kernel_drops", counted)
    service = udp_service(UDPSettings(port=0, interfaces=["127.0.0.1"]))
    service.startService()
    dropped[0] = 9
    for _ in range(2):
        service._look_at_kernel()
    service.ports[0].stopListening()
    await service.stopService()
    assert service.counts()["kernel-dropped"] == 2


async def test_refused_replies_are_summed_up_by_their_errors() -> None:
    service = udp_service(UDPSettings(port=0, interfaces=["127.0.0.1"]))
    service.startService()
    service.ports[0].protocol.receive_batch(*columns([packet(source=("255.255.255.255", 50_000))]))
    counted = {"received": 1, "answered": 0, "dropped send-error": 1, "send-error EACCES": 1}
    assert service.counts() == counted
    await service.stopService()
    assert service.counts() == counted
