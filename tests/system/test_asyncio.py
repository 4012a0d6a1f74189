"""Transforms that await asyncio, in real servers; and those that do not, beside them."""

import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.processes import (
    Server,
    connect,
    environment,
    receive_all,
    receive_exactly,
    refused,
)

MODULE = """
import asyncio
from twisted.internet.task import deferLater
from uppercase import transform

@transform
async def naps(text: str) -> str:
    try:
        await asyncio.sleep(float(text))
    except asyncio.CancelledError:
        print("cancelled", text, flush=True)
        raise
    return f"slept {text}"

@transform
async def asks(text: str, *, port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode() + b"\\n")
    reply = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return "upstream says " + reply.decode().removesuffix("\\n")

@transform(blocking=True)
def blocks(text: str) -> str:
    return str(asyncio.get_running_loop())

@transform
async def fails(text: str) -> str:
    await asyncio.sleep(0.01)
    raise ValueError("on purpose")

@transform
async def defers(text: str) -> str:
    from twisted.internet import reactor
    await deferLater(reactor, 0.05)
    return text.upper()

@transform
def plain(text: str) -> str:
    return text.upper()

@transform
async def misbehaves(text: str) -> str:
    await asyncio.sleep(0)
    match text:
        case "raise": raise SystemExit(3)
        case "cancel": asyncio.current_task().cancel(); await asyncio.sleep(0.01)
        case "never": await asyncio.Event().wait()
        case "twice":
            future = asyncio.get_running_loop().create_future()
            future.set_result(text)
            future.set_result(text)
        case "late": await asyncio.wait_for(asyncio.Event().wait(), 0.01)
    return text.upper()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with the module `waits`."""
    (tmp_path / "waits.py").write_text(MODULE)
    return tmp_path


def options(name: str, *more: str) -> list[str]:
    """Return the words of a server of lines."""
    where = ["--port=0", "--interface=127.0.0.1", "--framing=line"]
    return ["uppercase-tcp", *where, f"--transform=waits:{name}", *more]


def test_replies_are_awaited_together_and_come_in_order(folder: Path) -> None:
    """Without an option of twistd: the reactor is chosen."""
    with Server(*options("naps"), addresses=1, cwd=folder) as server, connect(server.port) as skt:
        began = time.monotonic()
        skt.sendall(b"1.0\n0.9\n0.1\n")
        expected = b"slept 1.0\nslept 0.9\nslept 0.1\n"
        assert receive_exactly(skt, len(expected)) == expected
        assert time.monotonic() - began >= 0.99
        assert "reactor=asyncio" not in server.log()


@pytest.mark.parametrize("reactor", [[], ["--reactor=asyncio"], ["--reactor=epoll"]])
@pytest.mark.parametrize("name", ["defers", "plain"])
def test_what_awaits_no_asyncio_is_served_under_any_reactor(
    folder: Path, reactor: list[str], name: str
) -> None:
    with (
        Server(*reactor, *options(name), addresses=1, cwd=folder) as server,
        connect(server.port) as skt,
    ):
        skt.sendall(b"one\ntwo\n")
        assert receive_exactly(skt, 8) == b"ONE\nTWO\n"


def test_where_no_loop_runs_start_and_failure_say_which_option_helps(folder: Path) -> None:
    words = ["--reactor=epoll", *options("naps")]
    with Server(*words, addresses=1, cwd=folder) as server:
        server.tracebacks = True
        server.wait_for_log("is served with twistd --reactor=asyncio")
        with connect(server.port) as skt:
            skt.sendall(b"0.1\n")
            assert receive_all(skt) == b""
        server.wait_for_log("no running event loop; serve it with twistd --reactor=asyncio")


def test_an_exception_ends_its_connection_only(folder: Path) -> None:
    with Server(*options("fails"), addresses=1, cwd=folder) as server:
        server.tracebacks = True
        for number in 1, 2:
            with connect(server.port) as skt:
                skt.sendall(b"x\n")
                assert receive_all(skt) == b""
            server.wait_for_log("ValueError: on purpose", times=number)
        assert "never retrieved" not in server.log()


def test_a_stop_cancels_what_still_waits(folder: Path) -> None:
    words = options("naps", "--drain=0.2s")
    with Server(*words, addresses=1, cwd=folder) as server, connect(server.port) as skt:
        skt.sendall(b"0.01\n1000\n")
        assert receive_exactly(skt, 11) == b"slept 0.01\n"
        server.stop()
        log = server.log()
    assert "cancelled 1000" in log
    assert "was destroyed" not in log
    assert "never awaited" not in log


def test_a_client_that_breaks_off_cancels_what_it_waits_for(folder: Path) -> None:
    """And nobody else's."""
    with (
        Server(*options("naps"), addresses=1, cwd=folder) as server,
        connect(server.port) as other,
        connect(server.port) as skt,
    ):
        other.sendall(b"1.5\n")
        skt.sendall(b"0.01\n1000\n")
        assert receive_exactly(skt, 11) == b"slept 0.01\n"
        # Closed with a reset.
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        skt.close()
        server.wait_for_log("cancelled 1000")
        assert receive_exactly(other, 10) == b"slept 1.5\n"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_client_library_of_asyncio_asks_another_server(folder: Path, protocol: str) -> None:
    with Server("uppercase-tcp", "--port=0", "--interface=127.0.0.1", addresses=1) as upstream:
        asks = f"--transform=waits:asks:port={upstream.port}"
        where = ["--port=0", "--interface=127.0.0.1"]
        framing = ["--framing=line"] if protocol == "tcp" else []
        words = [f"uppercase-{protocol}", *where, *framing, asks]
        with Server(*words, addresses=1, cwd=folder) as server:
            if protocol == "tcp":
                with connect(server.port) as skt:
                    skt.sendall(b"one\ntwo\nthree\n")
                    skt.shutdown(socket.SHUT_WR)
                    assert receive_all(skt) == (
                        b"upstream says ONE\nupstream says TWO\nupstream says THREE\n"
                    )
                return
            with socket.socket(type=socket.SOCK_DGRAM) as skt:
                skt.settimeout(30)
                skt.connect(("127.0.0.1", server.port))
                for word in b"one", b"two", b"three":
                    skt.send(word)
                expected = {b"upstream says ONE", b"upstream says TWO", b"upstream says THREE"}
                assert {skt.recv(100) for _ in expected} == expected


def test_among_several_services_one_that_needs_asyncio_has_it_chosen(folder: Path) -> None:
    """The last of the file, whose reactor the first would settle."""
    (folder / "services.toml").write_text(
        """
        [services.plain]
        protocol = "udp"
        port = 0
        interface = "127.0.0.1"

        [services.naps]
        protocol = "tcp"
        port = 0
        interface = "127.0.0.1"
        transform = ["strip", "waits:naps"]
        """
    )
    words = ("uppercase", "--config=services.toml")
    with Server(*words, addresses=2, cwd=folder) as server:
        ports = {kind: int(address.rpartition(":")[2]) for kind, address in server.addresses}
        with connect(ports["TCP"]) as skt:
            skt.sendall(b" 0.01 \n")
            assert receive_exactly(skt, 11) == b"slept 0.01\n"


def test_what_waits_is_no_stream_and_is_served_by_lines_beside_one(folder: Path) -> None:
    chain = ["--transform=uppercase", "--transform=waits:naps"]
    where = ["uppercase-tcp", "--port=0", "--interface=127.0.0.1"]
    with Server(*where, *chain, addresses=1, cwd=folder) as server, connect(server.port) as skt:
        assert "framing line" in server.log()
        skt.sendall(b"0.01\n")
        assert receive_exactly(skt, 11) == b"slept 0.01\n"
    assert "--framing=line" in refused(*where, *chain, "--framing=stream", cwd=folder)


@pytest.mark.parametrize("reactor", ["asyncio", "epoll"])
def test_a_thread_without_a_loop_is_not_blamed_on_the_reactor(folder: Path, reactor: str) -> None:
    with Server(f"--reactor={reactor}", *options("blocks"), addresses=1, cwd=folder) as server:
        server.tracebacks = True
        with connect(server.port) as skt:
            skt.sendall(b"x\n")
            assert receive_all(skt) == b""
        log = server.wait_for_log("was closed: failed: ")
        assert "RuntimeError: no running event loop" in log
        assert "--reactor=asyncio" not in log


def test_a_transform_is_made_once_at_the_start(folder: Path) -> None:
    """What it costs to make, such as a model to load, is not for the choice of the reactor."""
    (folder / "heavy.py").write_text(
        """
from uppercase import transform

@transform
class Heavy:
    def __init__(self) -> None:
        print("made", flush=True)
    async def __call__(self, text: str) -> str:
        import asyncio
        await asyncio.sleep(0)
        return text.upper()
"""
    )
    table = '[services.one]\nprotocol = "tcp"\nport = 0\ntransform = "heavy:Heavy"\n'
    (folder / "services.toml").write_text(table)
    where = ["uppercase-tcp", "--port=0", "--transform=heavy:Heavy"]
    for words in (where, ["uppercase", "--config=services.toml"]):
        with Server(*words, cwd=folder) as server, connect(server.port) as skt:
            skt.sendall(b"x\n")
            assert receive_exactly(skt, 2) == b"X\n"
            assert server.log().count("made") == 1


def test_calls_that_are_scheduled_at_import_are_told_of(folder: Path) -> None:
    (folder / "hasty.py").write_text(
        """
from twisted.internet import reactor

reactor.callLater(0.01, print, "called", flush=True)

def hasty(text: str) -> str:
    return text
"""
    )
    words = ["uppercase-tcp", "--port=0", "--transform=hasty:hasty"]
    with Server(*words, cwd=folder) as server:
        server.wait_for_log("called")
        assert "has scheduled calls while it was imported" in server.log()


def test_an_application_of_ones_own_has_asyncio_chosen_too(folder: Path) -> None:
    """Where nothing has installed a reactor before its services are made."""
    (folder / "serve.py").write_text(
        """
from twisted.application.service import Application
from uppercase.services import TCPSettings, tcp_service
from waits import naps

application = Application("naps")
settings = TCPSettings(transforms=[naps], port=0, interfaces=["127.0.0.1"])
tcp_service(settings).setServiceParent(application)
"""
    )
    env = {"PYTHONPATH": os.pathsep.join([str(folder), environment()["PYTHONPATH"]])}
    with Server("-y", "serve.py", addresses=1, cwd=folder, env=env) as server:
        with connect(server.port) as skt:
            skt.sendall(b"0.01\n")
            assert receive_exactly(skt, 11) == b"slept 0.01\n"
        assert "reactor=asyncio" not in server.log()


@contextmanager
def asking_datagrams(folder: Path, transform: str) -> Iterator[tuple[Server, socket.socket]]:
    where = ["--port=0", "--interface=127.0.0.1", "--drain=0.2s"]
    words = ["uppercase-udp", *where, f"--transform={transform}"]
    with (
        Server(*words, addresses=1, cwd=folder) as server,
        socket.socket(type=socket.SOCK_DGRAM) as skt,
    ):
        skt.settimeout(30)
        skt.connect(("127.0.0.1", server.port))
        yield server, skt


def test_a_stop_cancels_what_datagrams_wait_for(folder: Path) -> None:
    with asking_datagrams(folder, "waits:naps") as (server, skt):
        skt.send(b"1000")
        skt.send(b"0.01")
        assert skt.recv(100) == b"slept 0.01"
        server.stop()
        log = server.log()
    assert "cancelled 1000" in log
    assert "was destroyed" not in log
    assert "never awaited" not in log


def test_coroutines_that_misbehave_cost_their_own_datagrams(folder: Path) -> None:
    """They raise, cancel themselves, never end, reply twice or time out; all are counted."""
    with asking_datagrams(folder, "waits:misbehaves") as (server, skt):
        server.tracebacks = True
        for number in range(10):
            for what in (b"raise", b"cancel", b"never", b"twice", b"late", b"fine %d" % number):
                skt.send(what)
            assert skt.recv(100) == b"FINE %d" % number
        server.wait_for_log("TimeoutError")
        server.stop()
        log = server.log()
    assert "received 60, answered 10, " in log
    assert sum(map(int, re.findall(r"dropped (?:failed|stopped) (\d+)", log))) == 50
