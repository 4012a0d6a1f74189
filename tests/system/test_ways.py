"""One service on every reactor, on the quick way and on the portable one: all come to the same."""

import contextlib
import os
import re
import signal
import socket
import struct
from pathlib import Path

import pytest

from tests.certificates import Certificate, make_certificate
from tests.system.processes import (
    ROOT,
    Server,
    connect,
    connect_narrow,
    receive_all,
    receive_exactly,
)
from tests.tls_peer import TLSClient

EPOLL_SETS = {
    "epoll": 2,
    "portable": 1,
    "poll": 1,
    "select": 1,
    "asyncio": 2,
    "uvloop": 2,
}
"""How many epoll sets a server has: its reactor's, and ours with all connections in it."""

IN_TOTAL = (
    "closed disconnected 1, closed finished 7, closed too-long 1, opened 9, refused address-full 1"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def start(way: str, folder: Path, *arguments: str) -> Server:
    """Return a server that goes a certain way."""
    env = {}
    reactor = {"portable": "epoll", "uvloop": "asyncio"}.get(way, way)
    if way == "portable":
        env["UPPERCASE_PORTABLE"] = "1"
    if way == "uvloop":
        (folder / "sitecustomize.py").write_text("import uvloop; uvloop.install()\n")
        env["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
        # With more than the path the server is no fork, and looks for what was written there.
        env["PYTHONNOUSERSITE"] = "1"
    return Server(f"--reactor={reactor}", "uppercase-tcp", *arguments, env=env)


def epoll_sets(process: int) -> int:
    """Return how many of a process's descriptors are epoll sets."""
    links = [os.readlink(each) for each in Path(f"/proc/{process}/fd").iterdir()]
    return links.count("anon_inode:[eventpoll]")


def fill(client: socket.socket) -> bytes:
    """Push lines until the server takes no more; return what it has taken."""
    # Long ones, as it is their bytes that fill it.
    block, sent = (b"lines and more lines, not one of them read. " * 40 + b"\n") * 40, bytearray()
    client.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while len(sent) < 200_000_000:
            rest = block[len(sent) % len(block) :]
            sent += rest[: client.send(rest)]
        raise AssertionError("the server takes everything")
    client.settimeout(30)
    return bytes(sent)


@pytest.mark.parametrize("way", EPOLL_SETS)
def test_every_way_comes_to_the_same(way: str, certificate: Certificate, tmp_path: Path) -> None:
    """The same bytes, the same ends, the same counters."""
    listen = ("--listen=tcp:0:interface=127.0.0.1", f"--listen={certificate.endpoint()}")
    options = "--framing=line", "--max-per-address=3", "--log-peers"
    with start(way, tmp_path, *listen, *options) as server:
        assert epoll_sets(server.process.pid) == EPOLL_SETS[way]
        if way == "uvloop":
            assert "/uvloop/" in Path(f"/proc/{server.process.pid}/maps").read_text()
        ((_, plain), (_, tls)) = server.addresses
        port, tls_port = (int(each.rpartition(":")[2]) for each in (plain, tls))

        # Pipelined, with an end of input behind it that is no end of output.
        with connect(port) as client:
            client.sendall(b"one\ntwo\r\n\nthree")
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"ONE\nTWO\r\n\nTHREE"

        # One that does not read disturbs nobody, and has all of it once it does.
        with connect_narrow(port) as narrow:
            sent = fill(narrow)
            with connect(port) as client:
                client.sendall(b"beside\n")
                assert receive_exactly(client, 7) == b"BESIDE\n"
                client.shutdown(socket.SHUT_WR)
                assert receive_all(client) == b""
            # No longer narrow, as many small pieces are dear.
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            assert receive_exactly(narrow, len(sent)) == sent.upper()
            narrow.shutdown(socket.SHUT_WR)
            assert receive_all(narrow) == b""

        with connect(port) as client:
            client.sendall(b"good\n" + bytes(70_000))
            assert receive_exactly(client, 5) == b"GOOD\n"
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        server.wait_for_log("too-long")

        with connect(port) as client:
            client.sendall(b"and gone\n")
            assert receive_exactly(client, 9) == b"AND GONE\n"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.wait_for_log("disconnected")

        with TLSClient(connect(tls_port), certificate.cert) as secret:
            secret.write(b"secret\n")
            secret.close()
            secret.send()
            assert secret.receive_all() == b"SECRET\n"
            assert receive_all(secret.socket) == b""

        # The fourth is refused; the end of the service is that of those that it knows, after all
        # that they have asked for.
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(connect(port)) for _ in range(3)]
            for client in held:
                client.sendall(b"held\n")
                assert receive_exactly(client, 5) == b"HELD\n"
            with contextlib.suppress(ConnectionResetError), connect(port) as refused:
                assert refused.recv(1) == b""
            for client in held:
                client.sendall(b"last\n" * 1000)
            server.process.send_signal(signal.SIGTERM)
            for client in held:
                assert receive_exactly(client, 5000) == b"LAST\n" * 1000
                client.shutdown(socket.SHUT_WR)
                assert receive_all(client) == b""
            assert server.process.wait(30) == -signal.SIGTERM
        (in_total,) = re.findall("in total: (.*?)(?:, slow-call .*)?\n", server.log())
        assert in_total == IN_TOTAL
