"""The lecture's programs, unmodified but for the port, with our servers and with their own."""

import contextlib
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.processes import Server, environment, run
from tests.system.resources import cpu_seconds

LECTURE = Path(__file__).parent / "lecture"
SENTENCES = ["hello world", "straße und ﬃ", "UPPER lower 123", "x" * 1000]


def program(name: str, port: int, folder: Path) -> Path:
    """Write a program of the lecture for another port."""
    path = folder / name
    path.write_text((LECTURE / name).read_text().replace("12000", str(port)))
    return path


def ask(client: str, port: int, sentence: str, folder: Path) -> str:
    """Run a client of the lecture; return what it prints behind its prompt."""
    done = run([sys.executable, str(program(client, port, folder))], f"{sentence}\n".encode())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().removeprefix("Input lowercase sentence:").rstrip("\n")


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port for a program that needs one by number.

    Nothing holds it until the program starts, so it is one that the system gives to nobody who
    asks for any: not to another test, nor to another program of this machine.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket(type=kind) as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


@contextmanager
def lecture_server(name: str, port: int, folder: Path) -> Iterator[None]:
    """Run a server of the lecture until it is not needed any more."""
    process = subprocess.Popen(
        [sys.executable, str(program(name, port, folder))],
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"The server is ready to receive\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("service", "client", "prefix"),
    [
        ("uppercase-tcp", "tcp_client.py", "From Server: "),
        ("uppercase-udp", "udp_client.py", ""),
    ],
)
def test_the_lectures_clients_are_served(
    service: str, client: str, prefix: str, tmp_path: Path
) -> None:
    """Within a second of the server's start, several times over."""
    with Server(service, "--port=0") as server:
        for sentence in SENTENCES:
            expected = prefix + sentence.upper()
            assert ask(client, server.port, sentence, tmp_path) == expected


@pytest.mark.parametrize(
    ("kind", "server", "client", "service"),
    [
        (socket.SOCK_STREAM, "tcp_server.py", "tcp_client.py", "uppercase-tcp"),
        (socket.SOCK_DGRAM, "udp_server.py", "udp_client.py", "uppercase-udp"),
    ],
)
def test_our_servers_answer_as_the_lectures_do(
    kind: socket.SocketKind, server: str, client: str, service: str, tmp_path: Path
) -> None:
    port = free_port(kind)
    with lecture_server(server, port, tmp_path):
        theirs = [ask(client, port, sentence, tmp_path) for sentence in SENTENCES]
    with Server(service, "--port=0") as ours:
        assert [ask(client, ours.port, sentence, tmp_path) for sentence in SENTENCES] == theirs


@pytest.mark.parametrize("service", ["uppercase-tcp", "uppercase-udp"])
def test_a_service_is_ready_soon(service: str) -> None:
    """Less than a second on an idle machine; what a busy one needs is processor time."""
    with Server(service, "--port=0") as server:
        assert cpu_seconds(server.process.pid) < 1.5
