"""Metrics of a real process: what a scraper sees, and what a bad one cannot do."""

import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.processes import (
    PATIENCE,
    Server,
    connect,
    receive_all,
    receive_exactly,
    refused,
    wait_until,
)

FILE = """
metrics = "0"

[services.lecture]
protocol = "tcp"
port = 0
interface = "127.0.0.1"
transform = "reverse"

[services.pinger]
protocol = "udp"
port = 0
interface = "127.0.0.1"
loss = 1
seed = 1
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "services.toml").write_text(FILE)
    with Server("uppercase", "--config=services.toml", addresses=2, cwd=tmp_path) as server:
        yield server


def port_of(server: Server) -> int:
    log = server.wait_for_log("metrics are at TCP 127.0.0.1:")
    return int(log.split("metrics are at TCP 127.0.0.1:")[1].split(":")[0])


def get(port: int, path: str) -> tuple[int, str]:
    with connect(port) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = receive_all(client).decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


def test_a_scraper_sees_what_happened_with_what_the_lab_did_apart(server: Server) -> None:
    with connect(server.port) as client, socket.socket(type=socket.SOCK_DGRAM) as pinger:
        client.sendall(b"hello\n")
        assert receive_exactly(client, 6) == b"olleh\n"
        pinger.sendto(b"lost", ("127.0.0.1", int(server.addresses[1][1].rpartition(":")[2])))
        deadline = time.monotonic() + 30
        wanted = {
            'uppercase_connections_open{service="lecture"} 1.0',
            'uppercase_messages_total{service="lecture"} 1.0',
            'uppercase_message_bytes_total{direction="in",service="lecture"} 5.0',
            'uppercase_datagrams_received_total{service="pinger"} 1.0',
            'uppercase_datagrams_answered_total{service="pinger"} 0.0',
            'uppercase_lab_actions_total{action="lost",direction="request",service="pinger"} 1.0',
            'uppercase_datagrams_dropped_total{reason="loop",service="pinger"} 0.0',
        }
        # The numbers may be a second old.
        while missing := wanted - set((page := get(port_of(server), "/metrics")[1]).splitlines()):
            assert time.monotonic() < deadline, f"no {missing} in:\n{page}"
            time.sleep(0.1)
    assert len(list(text_string_to_metric_families(page))) > 10
    # No label that a peer controls.
    assert "127.0.0.1" not in page


def test_it_is_ready_until_it_drains_and_healthy_to_the_end(server: Server) -> None:
    metrics = port_of(server)
    assert get(metrics, "/readyz") == (200, "ready\n")
    with connect(server.port) as client:
        over = threading.Event()

        def keep_busy() -> None:
            while not over.wait(0.02):
                client.sendall(b"hello\n")

        busy = threading.Thread(target=keep_busy)
        busy.start()
        try:
            receive_exactly(client, 6)
            server.process.send_signal(signal.SIGTERM)
            # It drains as long as the client goes on.
            while (said := get(metrics, "/readyz")) == (200, "ready\n"):
                time.sleep(0.02)
            assert said == (503, "draining\n")
            assert get(metrics, "/healthz") == (200, "ok\n")
        finally:
            over.set()
            busy.join()
    server.process.wait(30)


def test_other_paths_and_methods_are_refused_by_their_status(server: Server) -> None:
    port = port_of(server)
    assert get(port, "/")[0] == 404
    with connect(port) as client:
        client.sendall(b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive_all(client).startswith((b"HTTP/1.1 405", b"HTTP/1.1 501"))
    with connect(port) as client:
        client.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        head = receive_all(client).lower()
    assert b"\r\ncontent-length: 3\r\n" in head
    assert head.endswith(b"\r\n\r\n"), "it has no body"


def closed(client: socket.socket) -> bool:
    """Whether the other side ends a connection, however."""
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


def test_a_body_is_refused_before_it_comes(server: Server) -> None:
    """At once, while a connection that is older still has its time."""
    port = port_of(server)
    with connect(port) as older, connect(port) as body:
        body.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx")
        assert closed(body)
        older.setblocking(False)
        with pytest.raises(BlockingIOError):
            older.recv(1)


@pytest.mark.long
def test_a_slow_and_an_endless_scraper_are_cut_off(server: Server) -> None:
    port = port_of(server)
    with connect(port) as slow, connect(port) as header:
        slow.sendall(b"GET /metrics HT")
        header.sendall(b"GET /metrics HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            send_for_ever(header, b"X: " + b"x" * 1000 + b"\r\n")
        with pytest.raises(ConnectionError):
            send_for_ever(slow, b"T", 0.2)


def send_for_ever(client: socket.socket, data: bytes, pause: float = 0.001) -> None:
    """Send until the other side has enough, for a bounded time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        client.sendall(data)
        time.sleep(pause)


def healthy(port: int) -> bool:
    """Whether the page answers; it resets who comes faster than it answers."""
    try:
        return get(port, "/healthz") == (200, "ok\n")
    except (ConnectionError, IndexError):
        return False


def test_a_thousand_scrapers_hurt_nobody(server: Server) -> None:
    """Those that wait for ever make room for a good one; the service answers all the while."""
    port = port_of(server)
    idle = []
    slowest = 0.0
    with connect(server.port) as client:
        for number in range(1000):
            scraper = socket.socket()
            scraper.setblocking(False)
            scraper.connect_ex(("127.0.0.1", port))
            idle.append(scraper)
            if number % 50 == 0:
                started = time.monotonic()
                client.sendall(b"hello\n")
                assert receive_exactly(client, 6) == b"olleh\n"
                slowest = max(slowest, time.monotonic() - started)
        assert slowest < 10
        wait_until(lambda: healthy(port))
        assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < 60
    for scraper in idle:
        scraper.close()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="another's limits need Linux")
def test_who_comes_while_there_is_no_descriptor_waits(server: Server) -> None:
    """Twisted's own port would try again at once and forever, with a line in the log each time."""
    pid, port = server.process.pid, port_of(server)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, hard))
    with connect(port) as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        server.wait_for_log("no connection can be accepted for now: Too many open files")
        time.sleep(0.3)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert b"200 OK" in receive_all(client)
    assert server.log().count("accept") < 10


def test_only_so_many_a_second_are_answered(server: Server) -> None:
    """Others are reset, so that who asks in a loop does not take the processor."""
    port, answered, started = port_of(server), 0, time.monotonic()
    for _ in range(400):
        try:
            answered += get(port, "/metrics")[0] == 200
        except (ConnectionError, IndexError):
            continue
    assert 50 < answered <= 110 + 60 * (time.monotonic() - started)


def test_an_address_in_use_is_said_and_nothing_is_left_running() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for runner in ("twistd", "twist"):
            said = refused("uppercase-tcp", "--port=0", f"--metrics={port}", runner=runner)
            assert f"cannot listen on TCP 127.0.0.1:{port}: another program does already" in said
