"""The UDP service as its users meet it: the real twistd and real sockets."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.processes import Server, refused, run


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uppercase-udp", "--port=0") as started:
        yield started


def client_of(server: Server, host: str = "127.0.0.1") -> socket.socket:
    """Return a connected socket with a time-out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    client = socket.socket(family, socket.SOCK_DGRAM)
    client.settimeout(30)
    client.connect((host, server.port))
    return client


def test_the_ready_lines_name_both_loopback_addresses_and_one_port(server: Server) -> None:
    assert server.addresses == [
        ("UDP", f"127.0.0.1:{server.port}"),
        ("UDP", f"[::1]:{server.port}"),
    ]


@pytest.mark.parametrize(("host", "largest"), [("127.0.0.1", 65_507), ("::1", 65_527)])
def test_every_size_comes_back_exact(server: Server, host: str, largest: int) -> None:
    with client_of(server, host) as client:
        for size in (0, 1, 512, 1472, 8192, 8193, 20_000, 65_000, largest):
            # ASCII, because other text may grow past what a datagram can carry.
            data = bytes(value & 0x7F for value in os.urandom(size))
            client.send(data)
            assert client.recv(1 << 16) == data.upper()


def test_bytes_that_are_not_utf8_come_back_unchanged(server: Server) -> None:
    with client_of(server) as client:
        client.send(b"\xffabc\xc3(")
        assert client.recv(1024) == b"\xffABC\xc3("


def test_forty_clients_are_answered_each(server: Server) -> None:
    clients = [client_of(server) for _ in range(40)]
    for number, client in enumerate(clients):
        client.send(b"client %d" % number)
    for number, client in enumerate(clients):
        assert client.recv(1024) == b"CLIENT %d" % number
        client.close()


@pytest.mark.needs_program("nc")
def test_nc_gets_its_reply(server: Server) -> None:
    done = run(["nc", "-u", "-w1", "127.0.0.1", str(server.port)], b"hello\n")
    assert done.stdout == b"HELLO\n"


@pytest.mark.needs_program("socat")
def test_socat_gets_its_reply(server: Server) -> None:
    done = run(["socat", "-t1", "-", f"UDP:127.0.0.1:{server.port}"], b"hello\n")
    assert done.stdout == b"HELLO\n"


def test_a_transform_that_fails_costs_that_datagram_only() -> None:
    with (
        Server("uppercase-udp", "--port=0", "-t", "hex-decode") as started,
        client_of(started) as client,
    ):
        client.send(b"no hex")
        client.send(b"6869")
        assert client.recv(1024) == b"hi"
        started.wait_for_log("was dropped: failed")


def test_what_the_kernel_drops_is_told_apart() -> None:
    """A stopped process reads nothing, and a small buffer is soon full."""
    with (
        Server("uppercase-udp", "--port=0", "--rcvbuf=4k") as started,
        client_of(started) as client,
    ):
        started.process.send_signal(signal.SIGSTOP)
        for _ in range(200):
            client.send(b"x" * 1000)
        started.process.send_signal(signal.SIGCONT)
        started.wait_for_log("datagrams for 127.0.0.1")
        started.stop()
        assert "kernel-dropped" in started.log()


def test_a_stop_answers_what_has_arrived() -> None:
    with Server("uppercase-udp", "--port=0") as started, client_of(started) as client:
        started.process.send_signal(signal.SIGSTOP)
        for number in range(100):
            client.send(b"datagram %d" % number)
        started.process.send_signal(signal.SIGTERM)
        started.process.send_signal(signal.SIGCONT)
        for number in range(100):
            assert client.recv(1024) == b"DATAGRAM %d" % number
        started.process.wait(40)
        assert "in total: received 100, answered 100" in started.log()


def test_a_stop_waits_for_awaited_replies_but_not_for_ever(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "from twisted.internet import reactor\n"
        "from twisted.internet.task import deferLater\n"
        "async def wait(data: bytes) -> bytes:\n"
        "    await deferLater(reactor, float(data))\n"
        "    return data\n"
    )
    arguments = ("uppercase-udp", "--port=0", "-t", "slow:wait", "--drain=2s")
    with Server(*arguments, cwd=tmp_path) as started, client_of(started) as client:
        client.send(b"0.5")
        client.send(b"1000")
        time.sleep(0.3)
        started.process.send_signal(signal.SIGTERM)
        assert client.recv(1024) == b"0.5"
        started.process.wait(40)
        assert "dropped stopped 1" in started.log()


def test_a_class_of_200_that_sends_during_a_stall_is_answered_with_default_options() -> None:
    """Two datagrams each, all from one address, while the process stands still for half a second.

    Linux's own default buffer holds 256.
    """
    with Server("uppercase-udp", "--port=0") as started, ExitStack() as stack:
        students = [stack.enter_context(client_of(started)) for _ in range(200)]
        started.process.send_signal(signal.SIGSTOP)
        for text in (b"first", b"second"):
            for number, student in enumerate(students):
                student.send(b"%s of %d" % (text, number))
        time.sleep(0.5)
        started.process.send_signal(signal.SIGCONT)
        for number, student in enumerate(students):
            assert student.recv(100) == b"FIRST OF %d" % number
            assert student.recv(100) == b"SECOND OF %d" % number
        started.stop()
        assert "in total: received 400, answered 400\n" in started.log()


def test_every_address_of_the_machine_answers_for_itself_and_no_broadcast_is_answered() -> None:
    """A connected client takes a reply from nowhere else."""
    with Server("uppercase-udp", "--port=0", "--interface=*") as started:
        for host in (*(f"127.0.0.{last}" for last in range(1, 9)), "::1"):
            with client_of(started, host) as client:
                client.send(b"hello")
                assert client.recv(100) == b"HELLO"
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.sendto(b"hello", ("127.255.255.255", started.port))
            started.wait_for_log("was dropped: not-unicast")
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(100)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        # Only the system knows which of a network's addresses is for all of it.
        ("127.255.255.255", "it is a broadcast address"),
        ("224.0.0.251", "which stands for many machines"),
        ("255.255.255.255", "which stands for many machines"),
    ],
)
def test_an_interface_that_is_no_address_of_one_machine_is_refused(address: str, why: str) -> None:
    said = refused("uppercase-udp", "--port=0", f"--interface={address}")
    assert why in " ".join(said.split())


def test_one_forged_datagram_between_two_servers_is_over_within_100() -> None:
    """The forged one comes from a client that had the address of the other server before."""
    with Server("uppercase-udp", "--port=0") as first:
        first.process.send_signal(signal.SIGSTOP)
        with socket.socket(type=socket.SOCK_DGRAM) as forger:
            forger.bind(("127.0.0.1", 0))
            port = forger.getsockname()[1]
            forger.sendto(b"hello", ("127.0.0.1", first.port))
        listen = (f"--port={port}", "--interface=127.0.0.1")
        with Server("uppercase-udp", *listen, addresses=1) as second:
            first.process.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + 30
            while "was dropped: loop" not in first.log() + second.log():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            first.stop()
            second.stop()
            logs = first.log() + second.log()
            received = [int(part.split(",")[0]) for part in logs.split("received ")[1:]]
            assert sum(received) < 100
            assert logs.count("dropped loop 1") == 1


def test_a_flooded_service_answers_others_and_obeys_sigterm() -> None:
    with (
        Server("uppercase-udp", "--port=0", "--rate=10", "--rcvbuf=1M") as started,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other,
    ):
        over = threading.Event()

        def flood() -> None:
            with client_of(started) as client:
                while not over.is_set():
                    try:
                        client.send(b"")
                    except ConnectionRefusedError:
                        return

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            started.wait_for_log("was dropped: over-rate")
            other.settimeout(30)
            other.sendto(b"hello", ("::1", started.port))
            assert other.recv(100) == b"HELLO"
            started.process.send_signal(signal.SIGTERM)
            started.process.wait(30)
        finally:
            over.set()
            thread.join()
        assert "dropped over-rate" in started.log().rpartition("in total")[2]


def test_a_dry_run_of_no_rate_is_refused() -> None:
    assert "--rate-dry-run without a rate" in refused("uppercase-udp", "--rate-dry-run")
