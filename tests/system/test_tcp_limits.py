"""The TCP service under crowds and hostile clients: the real twistd, real sockets."""

import contextlib
import resource
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.costs import here
from tests.system.processes import (
    Server,
    connect,
    connect_narrow,
    receive_all,
    receive_exactly,
    refused,
)
from tests.system.resources import cpu_seconds, open_descriptors, resident_memory

TCP = ("uppercase-tcp", "--port=0")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(*TCP) as started:
        yield started


def reset(client: socket.socket) -> None:
    """Close with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def is_refused(port: int, host: str) -> bool:
    """Whether the server resets a connection from this address instead of serving it."""
    try:
        with source(port, host) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
            return False
    except ConnectionError:
        return True


def test_a_class_of_200_behind_one_address_is_answered_after_a_stall(server: Server) -> None:
    """All connect at once while the server stands still for a second."""
    server.process.send_signal(signal.SIGSTOP)
    clients = [socket.socket() for _ in range(200)]
    for number, client in enumerate(clients):
        client.settimeout(30)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"student %d" % number)
    time.sleep(1)
    server.process.send_signal(signal.SIGCONT)
    answered = 0
    for number, client in enumerate(clients):
        answered += client.recv(1024) == b"STUDENT %d" % number
        client.close()
    assert answered == 200


def test_non_readers_cost_little_and_get_everything_once_they_read(server: Server) -> None:
    """At most 256 KiB of the server's memory each, and everybody else is served meanwhile.

    They are 50 because the kernel has to hold 6 MB for each.
    """
    with connect(server.port) as other:
        other.sendall(b"hello")
        other.recv(100)
        before = resident_memory(server.process.pid)
        count = 50
        clients = [connect(server.port) for _ in range(count)]
        sent = dict.fromkeys(clients, 0)
        chunk = b"abcdefgh" * 8192
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
            client.setblocking(False)
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 0.5:
            writable = select.select([], clients, [], 0.1)[1]
            for client in writable:
                try:
                    # Whole periods of the text, so that replies are easily checked.
                    sent[client] += client.send(chunk[sent[client] % 8 :])
                    quiet_since = time.monotonic()
                except BlockingIOError:
                    pass
        cost = (resident_memory(server.process.pid) - before) / count
        other.sendall(b"quick")
        assert other.recv(100) == b"QUICK"
        assert cost < 256 * 1024, f"{cost:.0f} bytes for each"
        for client in clients[:5]:
            client.settimeout(30)
            client.shutdown(socket.SHUT_WR)
            received = receive_all(client)
            assert len(received) == sent[client]
            assert received == (b"ABCDEFGH" * (len(received) // 8 + 1))[: len(received)]
        for client in clients:
            client.close()


def test_who_takes_nothing_is_cut_off_and_who_takes_little_is_not() -> None:
    data = b"x" * 8_000_000
    with (
        Server(*TCP, "--send-timeout=3s") as server,
        connect_narrow(server.port) as stuck,
        connect_narrow(server.port) as slow,
    ):
        threads = [in_background(push, client, data) for client in (stuck, slow)]
        stalled = f"127.0.0.1:{stuck.getsockname()[1]} was closed: stalled"
        deadline = time.monotonic() + 60
        while stalled not in (log := server.log()):
            assert time.monotonic() < deadline, log
            assert slow.recv(3_000)
            time.sleep(0.1)
        assert "took nothing for 3 s (--send-timeout)" in log
        # It goes on being served; all of it would take long through so small a window.
        assert len(receive_exactly(slow, 200_000)) == 200_000
        slow.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)


def test_who_takes_nothing_is_cut_off_although_the_kernel_has_room_for_its_replies() -> None:
    """Its own buffer is full, ours has all the rest, and it goes on asking."""
    with Server(*TCP, "--send-timeout=2s") as server, connect_narrow(server.port) as stuck:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 30:
                stuck.sendall(b"x" * 1000)
                time.sleep(0.05)
        assert 1.9 < time.monotonic() - began < 20
        assert "took nothing for 2 s (--send-timeout)" in server.wait_for_log("closed: stalled")


def in_background(work: Callable[..., None], *arguments: object) -> threading.Thread:
    """Do something while the test goes on; it cannot keep the tests from ending."""
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def push(client: socket.socket, data: bytes) -> None:
    """Send as much as the server takes."""
    try:
        client.settimeout(30)
        client.sendall(data)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("framing", "fits", "reply", "too_long"),
    [
        ("line", b"x" * 10 + b"\r\n", b"X" * 10 + b"\r\n", b"x" * 12),
        ("netstring", b"10:" + b"x" * 10 + b",", b"10:" + b"X" * 10 + b",", b"11:"),
        ("int16", b"\0\n" + b"x" * 10, b"\0\n" + b"X" * 10, b"\0\x0b"),
        ("int32", b"\0\0\0\n" + b"x" * 10, b"\0\0\0\n" + b"X" * 10, b"\0\0\0\x0b"),
    ],
)
def test_the_longest_message_passes_and_one_byte_more_closes(
    framing: str, fits: bytes, reply: bytes, too_long: bytes
) -> None:
    """Byte by byte and at once. A declared length is refused, and a line before it has an end."""
    with Server(*TCP, f"--framing={framing}", "--max-length=10") as server:
        for step in (1, 1000):
            with connect(server.port) as client:
                data = fits + too_long
                for start in range(0, len(data), step):
                    client.sendall(data[start : start + step])
                assert receive_all(client) == reply
        assert "too-long" in server.wait_for_log("--max-length")


def test_too_long_an_output_closes_only_its_own_connection(tmp_path: Path) -> None:
    (tmp_path / "bomb.py").write_text(
        "def grow(message: bytes) -> bytes:\n    return message * 1000\n"
    )
    with Server(*TCP, "-t", "bomb:grow", "--max-output=5000", cwd=tmp_path) as server:
        with connect(server.port) as client, connect(server.port) as other:
            client.sendall(b"abcde\nabcdef\nabc\n")
            assert receive_all(client) == b"abcde" * 1000 + b"\n"
            other.sendall(b"a\n")
            assert receive_exactly(other, 1001) == b"a" * 1000 + b"\n"
        server.wait_for_log("its output of 6000 bytes is over the limit of 5000 (--max-output)")


@pytest.mark.parametrize(
    ("framing", "unit", "reply"), [("line", b"\n", b"\n"), ("netstring", b"0:,", b"0:,")]
)
def test_a_flood_of_empty_messages_costs_little(framing: str, unit: bytes, reply: bytes) -> None:
    """A million of them take seconds of processor time; others are served meanwhile."""
    count = 100_000
    with Server(*TCP, f"--framing={framing}") as server:
        used = cpu_seconds(server.process.pid)
        with connect(server.port) as client, connect(server.port) as other:
            sender = in_background(push, client, unit * count)
            other.sendall(b"a\n" if framing == "line" else b"1:a,")
            assert other.recv(100).upper() in (b"A\n", b"1:A,")
            assert receive_exactly(client, len(reply) * count) == reply * count
            sender.join(5)
        assert cpu_seconds(server.process.pid) - used < here(1.5)


def test_one_byte_segments_of_a_long_line_do_not_add_up(server: Server) -> None:
    """Nothing is scanned twice: the cost of a byte does not grow with what is held."""
    with Server(*TCP, "--framing=line", "--max-length=200k") as framed:
        used = cpu_seconds(framed.process.pid)
        with connect(framed.port) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"x" * 190_000)
            for _ in range(5_000):
                client.sendall(b"x")
            client.sendall(b"\n")
            assert receive_exactly(client, 195_001) == b"X" * 195_000 + b"\n"
        assert cpu_seconds(framed.process.pid) - used < here(3)


def test_awaited_replies_keep_their_order_and_end_with_the_client(tmp_path: Path) -> None:
    """A client that is gone is noticed even while the server awaits more than it may read."""
    (tmp_path / "slowly.py").write_text(
        """
import itertools
from twisted.internet import defer, reactor, task

awaited, cancelled = itertools.count(1), itertools.count(1)

def sleep(seconds):
    return task.deferLater(reactor, seconds, lambda: None)

async def answer(message: bytes) -> bytes:
    try:
        if message == b"never":
            print("awaited", next(awaited), flush=True)
            await defer.Deferred()
        await sleep(0.2 if message == b"slow" else 0)
    except defer.CancelledError:
        print("cancelled", next(cancelled), flush=True)
        raise
    return message.upper()
"""
    )
    with Server(*TCP, "-t", "slowly:answer", cwd=tmp_path) as server:
        with connect(server.port) as client:
            client.sendall(b"slow\nquick\n" * 3)
            assert receive_exactly(client, 33) == b"SLOW\nQUICK\n" * 3
        window = connect(server.port)
        window.sendall(b"never\n" * 100)
        server.wait_for_log("awaited 64")
        reset(window)
        server.wait_for_log("cancelled 64")


def test_over_the_limit_a_client_is_refused_and_the_log_says_why() -> None:
    with Server(*TCP, "--max-connections=10", "--max-per-address=3") as server:
        hosts = ["127.0.0.1"] * 3 + ["127.0.0.2"] * 3 + ["127.0.0.3"] * 3 + ["127.0.0.4"]
        inside = [source(server.port, host) for host in hosts]
        for client in inside:
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
        assert is_refused(server.port, "127.0.0.1")
        assert is_refused(server.port, "127.0.0.5")
        log = server.wait_for_log("connections are taken")
        assert "was refused: address-full: 127.0.0.1 has 3 connections (--max-per-address)" in log
        assert "was refused: full: all 10 connections are taken (--max-connections)" in log
        inside.pop().close()
        deadline = time.monotonic() + 30
        while is_refused(server.port, "127.0.0.5"):
            assert time.monotonic() < deadline, "the place is not free again"
            time.sleep(0.05)
        for client in inside:
            client.close()


def source(port: int, host: str) -> socket.socket:
    """Connect from another of this machine's addresses."""
    return socket.create_connection(("127.0.0.1", port), 30, source_address=(host, 0))


def test_an_idle_client_is_closed_and_told_so_in_the_log() -> None:
    with Server(*TCP, "--idle-timeout=1s") as server, connect(server.port) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"
        assert client.recv(100) == b""
        client.close()
        server.wait_for_log("was closed: idle: nothing came for 1 s (--idle-timeout)")


def test_the_server_survives_the_loss_of_its_descriptors() -> None:
    """Forty descriptors, sixty clients: it serves what it can, rests, says little and recovers."""
    with Server(*TCP, addresses=2) as server:
        pid = server.process.pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (40, 40))
        clients = [connect(server.port) for _ in range(60)]
        for client in clients:
            client.sendall(b"hello")
        time.sleep(1)
        used, lines = cpu_seconds(pid), server.log().count("\n")
        time.sleep(2)
        assert cpu_seconds(pid) - used < 0.5
        assert server.log().count("\n") - lines <= 4
        assert "EMFILE" in server.log()
        # Nobody was sent away: as soon as some leave, the others have their turn.
        for start in range(0, 60, 20):
            for client in clients[start : start + 20]:
                assert client.recv(100) == b"HELLO"
                client.close()
        with connect(server.port) as client:
            client.sendall(b"again")
            assert client.recv(100) == b"AGAIN"


def test_few_descriptors_lower_the_limit_and_the_log_says_so() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))

    with Server(*TCP, prepare=limit) as server:
        assert "at most 236 connections instead of 1000 (--max-connections)" in server.log()
        soft = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0]
        assert soft == 300


def test_a_storm_of_connections_leaves_nothing_behind(server: Server) -> None:
    """Half of them end by a reset, some with unread replies; descriptors and memory stay flat."""
    pid = server.process.pid

    def storm() -> None:
        for number in range(600):
            client = connect(server.port)
            client.sendall(b"x" * (number * 37 % 5000))
            if number % 2:
                reset(client)
            else:
                client.close()
        deadline = time.monotonic() + 30
        while open_descriptors(pid) > before and time.monotonic() < deadline:
            time.sleep(0.05)

    before = open_descriptors(pid)
    storm()
    memory = resident_memory(pid)
    storm()
    assert open_descriptors(pid) <= before
    assert resident_memory(pid) - memory < 4 << 20


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--max-connections=0", "--max-connections: got '0'; a whole number, 1 or more, is"),
        ("--max-per-address=many", "--max-per-address: got 'many'; a whole number"),
        ("--idle-timeout=-1", "--idle-timeout: got '-1'; a duration is a number of seconds"),
        ("--idle-timeout=0", "--idle-timeout: got '0'; a time-out is longer than 0"),
        ("--send-timeout=0s", "--send-timeout: got '0s'; a time-out is longer than 0"),
        ("--close-timeout=0", "--close-timeout: got '0'; a time-out is longer than 0"),
        ("--delay=2h", "got 7200 s for --delay; 0 to 60 s is accepted"),
        ("--lab=byte-steam", "no preset named 'byte-steam'; did you mean 'byte-stream'?"),
    ],
)
def test_an_option_that_cannot_be_used_is_a_sentence(option: str, sentence: str) -> None:
    assert sentence in refused("uppercase-tcp", option)
