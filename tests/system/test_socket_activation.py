"""systemd's socket activation: listening sockets that another process has opened."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.processes import (
    READY,
    START_TIMEOUT,
    connect,
    environment,
    receive_all,
    refused,
    tool,
)

# What systemd does between fork and exec: descriptors from 3 on, and whom they are for.
ACTIVATE = """
import os, sys
descriptor, *command = sys.argv[1:]
os.dup2(int(descriptor), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(command[0], command)
"""


@contextmanager
def activated(opened: socket.socket, *arguments: str, name: str | None = "web") -> Iterator[str]:
    """Run twistd with one socket that is open already; return the address of its ready line."""
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-ISc", ACTIVATE, str(opened.fileno()), tool("twistd"), "-n"),
                *("--pidfile=", *arguments),
            ],
            pass_fds=[opened.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(**({} if name is None else {"LISTEN_FDNAMES": name})),
        )
        try:
            deadline = time.monotonic() + START_TIMEOUT
            while not (ready := READY.search(os.pread(log.fileno(), 1 << 20, 0).decode())):
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield ready[2]
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(START_TIMEOUT) == -signal.SIGTERM


@pytest.mark.parametrize("which", ["index=0", "name=web"])
def test_a_socket_that_systemd_opened_is_served(which: str) -> None:
    listen = f"--listen=systemd:domain=INET:{which}"
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        connect(listening.getsockname()[1]) as queued,
    ):
        queued.sendall(b"early")
        with activated(listening, "uppercase-tcp", listen) as address:
            assert address == f"127.0.0.1:{listening.getsockname()[1]}"
            queued.shutdown(socket.SHUT_WR)
            assert receive_all(queued) == b"EARLY", "who came before the server is served too"


@pytest.mark.parametrize("which", ["index=0", "name=web"])
def test_a_datagram_socket_that_systemd_opened_is_served(which: str) -> None:
    listen = f"--listen=systemd:domain=INET:{which}"
    with (
        socket.socket(type=socket.SOCK_DGRAM) as bound,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        bound.bind(("127.0.0.1", 0))
        client.settimeout(10)
        client.connect(bound.getsockname())
        client.send(b"early")
        with activated(bound, "uppercase-udp", listen) as address:
            assert address == f"127.0.0.1:{bound.getsockname()[1]}"
            assert client.recv(100) == b"EARLY", "what came before the server is answered too"


@pytest.mark.parametrize("service", ["uppercase-tcp", "uppercase-udp"])
def test_a_socket_without_a_name_is_served(service: str) -> None:
    """As systemd-socket-activate passes it."""
    kind = socket.SOCK_STREAM if service == "uppercase-tcp" else socket.SOCK_DGRAM
    with socket.socket(type=kind) as opened, socket.socket(type=kind) as client:
        opened.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            opened.listen()
        client.settimeout(10)
        client.connect(opened.getsockname())
        client.send(b"early")
        with activated(opened, service, "--listen=systemd:domain=INET:index=0", name=None):
            assert client.recv(100) == b"EARLY"
            client.close()


@pytest.mark.parametrize("which", ["index=0", "name=web"])
def test_a_missing_datagram_socket_is_one_sentence(which: str) -> None:
    said = refused("uppercase-udp", f"--listen=systemd:domain=INET:{which}")
    assert ".socket unit that has ListenDatagram=" in " ".join(said.split())


@pytest.mark.parametrize("which", ["index=0", "index=7", "name=web"])
def test_a_missing_socket_is_one_sentence(which: str) -> None:
    said = refused("uppercase-tcp", f"--listen=systemd:domain=INET:{which}")
    said = " ".join(said.split())
    assert "systemd has passed no such socket" in said
    assert ".socket unit" in said
