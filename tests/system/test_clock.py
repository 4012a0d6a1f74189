"""Time-outs and rates go by a clock that nobody sets, and idleness is judged when all is read."""

import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.processes import Server, environment
from tests.system.wall import Wall


@pytest.fixture
def wall(tmp_path: Path) -> Wall:
    return Wall(tmp_path)


def test_a_clock_that_is_set_forward_closes_nobody(wall: Wall) -> None:
    with Server("uppercase-tcp", "--port=0", env=wall.env) as server, ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            for _ in range(10)
        ]
        for client in clients:
            client.sendall(b"a")
            assert client.recv(10) == b"A"
        wall.set_by(3600)
        time.sleep(0.5)
        for client in clients:
            client.sendall(b"b")
            assert client.recv(10) == b"B"


def test_a_clock_that_is_set_back_holds_up_no_command(wall: Wall) -> None:
    """Ping sent its next probe, and a time-out was over, when the clock was where it had been."""
    with Server("uppercase-tcp", "--port=0") as server:
        ping = ["ping", "-c4", "-i500ms", f"127.0.0.1:{server.port}"]
        with subprocess.Popen(
            [sys.executable, "-m", "uppercase", *ping],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(**wall.env),
        ) as command:
            try:
                assert command.stdout is not None
                assert command.stdout.readline().startswith("PING")
                assert "seq=1 " in command.stdout.readline()
                wall.set_by(-3600)
                assert command.wait(30) == 0
            finally:
                command.kill()


EMBEDS = """
from twisted.internet import reactor
from uppercase.services import TCPSettings, tcp_service
service = tcp_service(TCPSettings(transforms=["uppercase"], port=0, interfaces=["127.0.0.1"]))
service.startService()
print(service.served()[0].rpartition(":")[2], flush=True)
reactor.run()
"""


def test_a_clock_that_is_set_forward_closes_nobody_where_a_program_embeds_a_service(
    wall: Wall,
) -> None:
    """Its reactor's clock is the wall's, and its timers are brought forward."""
    command = [sys.executable, "-c", EMBEDS]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(**wall.env)
    ) as program:
        try:
            assert program.stdout is not None
            port = int(program.stdout.readline())
            with ExitStack() as stack:
                clients = [
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
                    for _ in range(10)
                ]
                for client in clients:
                    client.sendall(b"a")
                    assert client.recv(10) == b"A"
                wall.set_by(3600)
                for client in clients:
                    time.sleep(0.05)  # The first wakes the reactor, whose timers are due then.
                    client.sendall(b"b")
                    assert client.recv(10) == b"B"
        finally:
            program.kill()


def test_a_clock_that_is_set_back_holds_up_no_rate_and_no_time_out(wall: Wall) -> None:
    options = ("--port=0", "--rate=5:1")
    with (
        Server("uppercase-udp", *options, env=wall.env) as server,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        client.connect(("127.0.0.1", server.port))
        client.settimeout(20)
        client.send(b"a")
        assert client.recv(10) == b"A"
        wall.set_by(-3600)
        time.sleep(0.5)
        client.send(b"b")
        assert client.recv(10) == b"B"
    options = ("--port=0", "--idle-timeout=1s")
    with Server("uppercase-tcp", *options, env=wall.env) as server:
        wall.set_by(0)
        with socket.create_connection(("127.0.0.1", server.port), 20) as idle:
            wall.set_by(-3600)
            assert idle.recv(10) == b""


def test_who_ended_a_stage_while_the_process_was_stopped_is_not_late() -> None:
    """Fifty PROXY headers wait unread when their time is over."""
    options = ("--port=0", "--proxy-from=127.0.0.1", "--proxy-timeout=2s")
    with Server("uppercase-tcp", *options) as server, ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            for _ in range(50)
        ]
        time.sleep(0.5)
        server.process.send_signal(signal.SIGSTOP)
        for client in clients:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello")
        time.sleep(3)
        server.process.send_signal(signal.SIGCONT)
        for client in clients:
            assert client.recv(10) == b"HELLO"


def test_who_wrote_while_the_process_was_stopped_is_not_idle() -> None:
    with (
        Server("uppercase-tcp", "--port=0", "--idle-timeout=2s") as server,
        ExitStack() as stack,
    ):
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            for _ in range(50)
        ]
        for client in clients:
            client.sendall(b"a")
            assert client.recv(10) == b"A"
        server.process.send_signal(signal.SIGSTOP)
        for client in clients:
            client.sendall(b"b")
        time.sleep(3)
        server.process.send_signal(signal.SIGCONT)
        for client in clients:
            assert client.recv(10) == b"B"
