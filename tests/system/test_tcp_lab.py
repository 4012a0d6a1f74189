"""The TCP lab as students meet it: the real server, and a client that trusts one recv."""

import socket
import time

import pytest

from tests.system.processes import Server, connect, connect_narrow, receive_all, receive_exactly

TCP = ("uppercase-tcp", "--port=0")


def test_one_recv_is_visibly_not_enough() -> None:
    with Server(*TCP, "--lab=byte-stream") as server, connect(server.port) as client:
        assert "#info] TCP: lab byte-stream: --slice=1" in server.wait_for_log("lab byte-stream")
        client.sendall(b"hello, world")
        assert len(first := client.recv(1024)) < 12
        assert first + receive_exactly(client, 12 - len(first)) == b"HELLO, WORLD"


def test_the_lectures_server_is_a_preset() -> None:
    with Server(*TCP, "--lab=lecture") as server, connect(server.port) as client:
        client.sendall(b"hello")
        assert receive_all(client) == b"HELLO"


def test_replies_come_late_and_connections_are_served_late() -> None:
    with Server(*TCP, "--delay=300ms", "--accept-delay=2s") as server:
        assert "lab: --delay=0.3 --accept-delay=2" in server.log()
        started = time.monotonic()
        with connect(server.port) as client:
            assert time.monotonic() - started < 1.5
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
        assert time.monotonic() - started >= 2.3


def test_a_reset_comes_after_exactly_so_many_bytes() -> None:
    with Server(*TCP, "--reset-after=1000", "--log-peers") as server:
        with connect(server.port) as client:
            client.sendall(b"x" * 5000)
            assert receive_exactly(client, 1000) == b"X" * 1000
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert "reply reset after 1000 bytes" in server.wait_for_log("closed: lab-reset")
        assert "closed: lab-reset, 5000 bytes in, 1000 bytes out" in server.log()


def test_a_reset_waits_for_a_client_that_reads_slowly() -> None:
    """The kernel would forget what it still had to send."""
    with (
        Server(*TCP, "--reset-after=200000") as server,
        connect_narrow(server.port) as client,
    ):
        client.sendall(b"x" * 200_000)
        time.sleep(0.5)
        assert len(receive_exactly(client, 200_000)) == 200_000
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_client_that_half_closes_gets_the_slices_too() -> None:
    with Server(*TCP, "--slice=3") as server, connect(server.port) as client:
        client.sendall(b"abcdefgh")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"ABCDEFGH"
