"""How a TCP service ends: what was asked before the signal is answered, and the end does come."""

import contextlib
import fcntl
import re
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from tests.system.processes import Server, connect, connect_narrow, receive_all, receive_exactly

TCP = ("uppercase-tcp", "--port=0")


def never_reads(port: int) -> socket.socket:
    """Connect and push until the server does not take any more."""
    client = connect(port)
    # For each piece, since a busy machine needs its time for all of them.
    client.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        for _ in range(1_000):
            client.sendall(bytes(100_000))
        raise AssertionError("the server takes everything")
    return client


def unacknowledged(client: socket.socket) -> int:
    """Return how much of what was sent has not arrived (SIOCOUTQ of linux/sockios.h)."""
    count: int = struct.unpack("i", fcntl.ioctl(client, 0x5411, bytes(4)))[0]
    return count


def test_clients_that_wait_to_be_accepted_are_answered() -> None:
    """The server is busy while they connect and ask, and the signal finds them in its queue.

    They are more than Twisted accepts in one turn.
    """
    with Server(*TCP) as server:
        server.process.send_signal(signal.SIGSTOP)
        clients = [connect(server.port) for _ in range(150)]
        for number, client in enumerate(clients):
            client.sendall(b"client %d" % number)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        for number, client in enumerate(clients):
            with client:
                assert receive_all(client) == b"CLIENT %d" % number
        server.stop()


def test_a_pipelining_client_gets_every_reply_that_it_asked_for_before() -> None:
    """It goes on asking meanwhile, so the server must not simply close: that would be a reset.

    What was asked before is what the server's kernel has acknowledged.
    """
    asked = b"".join(b"line %d\n" % number for number in range(20_000))
    with Server(*TCP, "--framing=line") as server, connect_narrow(server.port) as client:
        client.sendall(b"first\n")
        assert receive_exactly(client, 6) == b"FIRST\n"
        server.process.send_signal(signal.SIGSTOP)
        client.sendall(asked)
        time.sleep(0.2)
        arrived = asked[: len(asked) - unacknowledged(client)]
        before = arrived[: arrived.rindex(b"\n") + 1]
        server.process.send_signal(signal.SIGTERM)

        def go_on() -> None:
            try:
                while True:
                    client.sendall(b"later\n" * 1000)
            except OSError:
                pass

        sender = threading.Thread(target=go_on)
        sender.start()
        server.process.send_signal(signal.SIGCONT)
        # Meanwhile the replies wait with the server's kernel, which a reset makes forget them.
        time.sleep(1)
        received = receive_exactly(client, len(before))
        client.close()
        sender.join()
        assert received == before.upper()
        server.stop()


def test_what_has_arrived_is_answered_even_if_it_was_not_read_yet() -> None:
    """The server does not read from a client that does not; now it has to, once more."""
    with Server(*TCP) as server, connect(server.port) as client:
        client.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                sent += client.send(b"x" * 65536)
        arrived = sent - unacknowledged(client)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        client.settimeout(10)
        assert len(receive_exactly(client, arrived)) == arrived
        client.close()
        server.stop()


def test_idle_connections_are_closed_at_once() -> None:
    """Their clients do nothing about it."""
    with Server(*TCP, "--drain=30s") as server:
        clients = [connect(server.port) for _ in range(20)]
        for client in clients:
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
        time.sleep(1.5)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 20
        for client in clients:
            assert client.recv(100) == b""
            client.close()


def test_a_client_that_never_reads_holds_the_end_until_the_drain_time_is_over() -> None:
    with Server(*TCP, "--drain=3s") as server:
        client = never_reads(server.port)
        started = time.monotonic()
        server.stop()
        assert 2.5 < time.monotonic() - started < 30
        log = server.log()
        assert re.search(r"1 connection left, 2 s$", log, re.M), log
        assert "the drain time is over: 1 connection aborted (--drain)" in log, log
        client.close()


@pytest.mark.parametrize("runner", ["twistd", "twist"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_at_once(runner: str, second: signal.Signals) -> None:
    with Server(*TCP, "--drain=60s", runner=runner) as server:
        client = never_reads(server.port)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("1 connection left")
        started = time.monotonic()
        server.statuses = [-second]
        assert server.stop(second) == -second
        assert time.monotonic() - started < 30
        client.close()


def test_a_transform_that_hangs_cannot_keep_the_server_from_ending(tmp_path: Path) -> None:
    """The last word says where it hangs."""
    (tmp_path / "hanging.py").write_text(
        "import time\ndef hang(message: bytes) -> bytes:\n"
        "    print('it hangs', flush=True)\n    while True: time.sleep(1)\n"
    )
    arguments = (*TCP, "-t", "hanging:hang", "--drain=100ms")
    with Server(*arguments, cwd=tmp_path) as server, connect(server.port) as client:
        client.sendall(b"hello\n")
        server.wait_for_log("it hangs")
        server.statuses = [1]
        assert server.stop() == 1
        assert re.search(r'File ".*hanging.py", line 4 in hang', server.log())


def test_a_transfer_under_way_is_finished() -> None:
    """The client is at it until it has sent all; what counts is that it does not pause."""
    piece, pieces = bytes(range(256)) * 256, 600
    with Server(*TCP, "-t", "identity") as server, connect(server.port) as client:

        def send() -> None:
            for _ in range(pieces):
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = len(receive_exactly(client, 20 * len(piece)))
        server.process.send_signal(signal.SIGTERM)
        while chunk := client.recv(1 << 20):
            received += len(chunk)
        sender.join()
        assert received == pieces * len(piece)
        server.stop()


def test_who_is_accepted_by_the_stop_has_time_to_ask() -> None:
    with Server(*TCP) as server:
        server.process.send_signal(signal.SIGSTOP)
        with connect(server.port) as client:
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGCONT)
            time.sleep(0.15)
            client.sendall(b"hello")
            assert receive_exactly(client, 5) == b"HELLO"
        server.stop()


def test_a_busy_connection_ends_behind_a_reply_when_the_time_is_over() -> None:
    with Server(*TCP, "--framing=line", "--drain=1s") as server, connect(server.port) as client:
        replies = 0
        client.sendall(b"hello\n")
        assert receive_exactly(client, 6) == b"HELLO\n"
        server.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while True:
                client.sendall(b"hello\n")
                reply = receive_exactly(client, 6)
                if not reply:
                    break
                assert reply == b"HELLO\n"
                replies += 1
                time.sleep(0.02)
        assert replies > 5
        assert 0.8 < time.monotonic() - started < 20
        server.stop()
