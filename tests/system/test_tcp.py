"""The TCP service as its users meet it: the real twistd, real sockets, real clients."""

import contextlib
import hashlib
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.system.processes import Server, connect, receive_all, receive_exactly, refused, run


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uppercase-tcp", "--port=0") as started:
        yield started


def send_in_background(skt: socket.socket, data: bytes) -> threading.Thread:
    """Send and half-close while the test goes on."""

    def send() -> None:
        skt.sendall(data)
        skt.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    return sender


def test_the_ready_lines_name_both_loopback_addresses_and_one_port(server: Server) -> None:
    assert server.addresses == [
        ("TCP", f"127.0.0.1:{server.port}"),
        ("TCP", f"[::1]:{server.port}"),
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_chunk_is_answered_at_once(server: Server, host: str) -> None:
    """Without a newline, without half-close: as the lecture's client sends it."""
    with connect(server.port, host) as client:
        for sentence in (b"hello", b"wor", b"ld\n"):
            client.sendall(sentence)
            assert client.recv(1024) == sentence.upper()


def test_a_client_that_half_closes_gets_its_reply(server: Server) -> None:
    for _ in range(40):
        with connect(server.port) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"HELLO"


def test_an_urgent_byte_is_no_part_of_the_stream(server: Server) -> None:
    with connect(server.port) as client:
        client.sendall(b"be")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"fore")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"BEFORE"


def test_forty_clients_are_served_while_others_idle(server: Server) -> None:
    idle = [connect(server.port) for _ in range(40)]
    busy = [connect(server.port) for _ in range(40)]
    for number, client in enumerate(busy):
        client.sendall(b"client %d" % number)
    for number, client in enumerate(busy):
        assert client.recv(1024) == b"CLIENT %d" % number
    for client in (*idle, *busy):
        client.close()


def test_sixteen_mebibytes_come_back_exact_and_in_order(server: Server) -> None:
    """Random bytes are mostly not UTF-8; the reply is what Python's own upper-casing gives."""
    data = os.urandom(16 << 20)
    expected = data.decode("utf-8", "surrogateescape").upper().encode("utf-8", "surrogateescape")
    with connect(server.port) as client:
        client.settimeout(60)
        sender = send_in_background(client, data)
        received = receive_all(client)
        sender.join()
    assert len(received) == len(expected)
    assert hashlib.sha256(received).digest() == hashlib.sha256(expected).digest()


def test_a_peer_that_does_not_read_gets_everything_once_it_does(server: Server) -> None:
    """The server stops reading from it meanwhile, and serves everybody else."""
    data = b"abcdefgh" * (1 << 20)
    with connect(server.port) as lazy:
        lazy.settimeout(60)
        sender = send_in_background(lazy, data)
        for _ in range(20):
            with connect(server.port) as other:
                other.sendall(b"quick")
                assert other.recv(1024) == b"QUICK"
        assert receive_all(lazy) == data.upper()
        sender.join()


def test_a_client_that_vanishes_harms_nobody(server: Server) -> None:
    for _ in range(20):
        client = connect(server.port)
        client.sendall(b"x" * 100_000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    with connect(server.port) as client:
        client.sendall(b"still there")
        assert client.recv(1024) == b"STILL THERE"


@pytest.mark.needs_program("nc")
def test_nc_gets_its_reply(server: Server) -> None:
    done = run(["nc", "-N", "127.0.0.1", str(server.port)], "straße ﬃ\n".encode())
    assert done.stdout == b"STRASSE FFI\n"


@pytest.mark.needs_program("ncat")
def test_ncat_gets_its_reply(server: Server) -> None:
    done = run(["ncat", "127.0.0.1", str(server.port)], b"hello\n")
    assert done.stdout == b"HELLO\n"


@pytest.mark.needs_program("socat")
def test_socat_gets_its_reply(server: Server) -> None:
    done = run(["socat", "-t", "5", "-", f"TCP:127.0.0.1:{server.port}"], b"hello\n")
    assert done.stdout == b"HELLO\n"


@pytest.mark.needs_program("telnet")
def test_telnet_gets_its_reply(server: Server) -> None:
    """In a terminal: it ends with its input, and waits for no reply."""
    with contextlib.closing(pexpect.spawn("telnet", ["127.0.0.1", str(server.port)])) as typed:
        typed.expect_exact("Escape character")
        typed.sendline("hello")
        typed.expect_exact("HELLO\r\n")


def test_a_framed_service_answers_message_by_message() -> None:
    with (
        Server("uppercase-tcp", "--port=0", "-t", "reverse", "-t", "uppercase") as started,
        connect(started.port) as client,
    ):
        client.sendall(b"abc\r\ndef\nlast")
        assert receive_exactly(client, 9) == b"CBA\r\nFED\n"
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"TSAL"
        assert "(reverse | uppercase; framing line)" in started.log()


def test_too_long_a_message_closes_after_the_replies_before_it() -> None:
    """Exactly the limit passes; the replies arrive even while the peer goes on sending."""
    arguments = ("uppercase-tcp", "--port=0", "--framing=line", "--max-length=10")
    with Server(*arguments) as started:
        with connect(started.port) as client:
            client.sendall(b"0123456789\n" * 3 + b"0123456789a\n" + b"x" * 200_000)
            assert receive_all(client) == b"0123456789\n" * 3
        started.wait_for_log("too-long: got a message, over the limit of 10 bytes")


def test_segment_framing_behaves_as_the_lecture_server() -> None:
    with (
        Server("uppercase-tcp", "--port=0", "--framing=segment") as started,
        connect(started.port) as client,
    ):
        client.sendall(b"hello")
        assert receive_all(client) == b"HELLO"


def test_a_unix_socket_serves_like_any_other(tmp_path: object) -> None:
    path = f"{tmp_path}/socket"
    with Server("uppercase-tcp", f"--listen=unix:{path}:mode=660", addresses=1) as started:
        assert started.addresses == [("UNIX", path)]
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"HELLO"


@pytest.mark.parametrize("more", [(), ("--workers=2",)])
@pytest.mark.parametrize("lock", ["0", "1"])
def test_a_unix_socket_that_nobody_serves_is_removed(
    tmp_path: object, lock: str, more: tuple[str, ...]
) -> None:
    path = f"{tmp_path}/socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
        left.listen()
    with Server(
        "uppercase-tcp", f"--listen=unix:{path}:lockfile={lock}", *more, addresses=1
    ) as started:
        assert f"removed the socket {path}, which a program" in started.log()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"HELLO"


@pytest.mark.parametrize("more", [(), ("--workers=2",)])
@pytest.mark.parametrize("kind", ["served", "locked", "a file"])
def test_a_name_that_somebody_has_is_said(tmp_path: Path, kind: str, more: tuple[str, ...]) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as serving:
        if kind == "a file":
            path.write_text("precious")
        else:
            serving.bind(str(path))
            serving.listen()
        if kind == "locked":
            os.symlink(str(os.getpid()), f"{path}.lock")
        said = refused("uppercase-tcp", f"--listen=unix:{path}", *more)
    if kind == "a file":
        why = "a file that is not a socket has this name; choose another one"
    else:
        why = "another program does already"
        assert "choose another name" in said
    assert f"cannot listen on UNIX {path}: {why}" in said
    assert "b'" not in said
    assert path.exists()


def test_twist_serves_as_well_as_twistd() -> None:
    with (
        Server("uppercase-tcp", "--port=0", runner="twist") as started,
        connect(started.port) as client,
    ):
        client.sendall(b"hello")
        assert client.recv(1024) == b"HELLO"


def test_every_address_means_both_families() -> None:
    with Server("uppercase-tcp", "--port=0", "--interface=*") as started:
        for host in ("127.0.0.1", "127.0.0.2", "::1"):
            with connect(started.port, host) as client:
                client.sendall(b"hello")
                assert client.recv(1024) == b"HELLO"
