"""PROXY headers as HAProxy sends them, before plain text and before TLS, on every endpoint."""

import contextlib
import signal
import socket
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.system.processes import Server, connect, receive_all, refused
from tests.tls_peer import TLSClient

V1 = b"PROXY TCP4 198.51.100.9 10.0.0.1 40001 12000\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + bytes([198, 51, 100, 9, 10, 0, 0, 1])
    + (40001).to_bytes(2, "big")
    + (12000).to_bytes(2, "big")
)


def test_the_headers_address_is_in_the_log_and_half_close_works(tmp_path: Path) -> None:
    """On the shorthands, over TLS and through a UNIX socket, in one service."""
    certificate = make_certificate(tmp_path)
    path = f"{tmp_path}/socket"
    listen = (f"--listen={certificate.endpoint()}", f"--listen=unix:{path}")
    arguments = ("uppercase-tcp", "--port=0", "--proxy-from=127.0.0.0/8,unix", "--log-peers")
    with Server(*arguments, *listen, addresses=4) as server:
        assert [kind for kind, _ in server.addresses] == ["TCP", "TCP", "TLS", "UNIX"]
        for number, header in enumerate([V1, V2] * 10):
            with connect(server.port) as client:
                client.sendall(header + b"hello %d" % number)
                client.shutdown(socket.SHUT_WR)
                assert receive_all(client) == b"HELLO %d" % number
        tls_port = int(server.addresses[2][1].rpartition(":")[2])
        for header in (V1, V2):
            with connect(tls_port) as plain:
                plain.sendall(header)
                secure = TLSClient(plain, certificate.cert)
                secure.write(b"hello")
                secure.close()
                secure.send()
                assert secure.receive_all() == b"HELLO"
        with socket.socket(socket.AF_UNIX) as local:
            local.settimeout(10)
            local.connect(path)
            local.sendall(V1 + b"hello")
            local.shutdown(socket.SHUT_WR)
            assert receive_all(local) == b"HELLO"
        log = server.wait_for_log("198.51.100.9:40001 closed: finished", times=23)
        assert "127.0.0.1:" not in log.rpartition("ready to receive")[2]


def ended_empty(client: socket.socket) -> bool:
    try:
        return receive_all(client) == b""
    except ConnectionResetError:
        return True


def test_a_malformed_header_and_an_undeclared_peer_are_closed_and_counted() -> None:
    """Without a traceback; IPv6's loopback is not declared here."""
    with Server("uppercase-tcp", "--port=0", "--proxy-from=127.0.0.1") as server:
        for header in (
            b"hello\r\n",
            b"PROXY TCP4 x\r\n",
            b"PROXY " + b"x" * 500,
            V2[:13] + b"?" * 9,
        ):
            with connect(server.port) as client:
                client.sendall(header)
                assert ended_empty(client)
        # The reset may come before the call that connects returns.
        with contextlib.suppress(ConnectionError), connect(server.port, "::1") as client:
            client.sendall(V1 + b"hello")
            assert receive_all(client) == b""
        log = server.wait_for_log("undeclared")
        assert "proxy-header" in log
        assert "not one of the proxies that --proxy-from names" in log


def test_a_stop_behind_a_proxy_answers_what_still_comes_with_its_header(tmp_path: Path) -> None:
    """And ends, over TLS too; a connection refused for its header's address is counted once."""
    certificate = make_certificate(tmp_path)
    options = ("--proxy-from=127.0.0.1", "--max-per-address=1", "--drain=60s")
    listen = ("--listen=tcp:0:interface=127.0.0.1", f"--listen={certificate.endpoint()}")
    with Server("uppercase-tcp", *listen, *options) as server:
        tls_port = int(server.addresses[1][1].rpartition(":")[2])
        with (
            connect(server.port) as late,
            connect(tls_port) as served,
            connect(tls_port) as late_tls,
            connect(server.port) as refused_one,
        ):
            served.sendall(V1)
            secure = TLSClient(served, certificate.cert)
            secure.ask(b"hello")
            assert secure.receive(5) == b"HELLO"
            refused_one.sendall(V2)
            assert ended_empty(refused_one)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log("left, ")
            late.sendall(V1.replace(b"100.9", b"100.8") + b"late")
            assert receive_all(late) == b"LATE"
            late_tls.sendall(V1.replace(b"100.9", b"100.7"))
            assert ended_empty(late_tls), "a stop does not wait for a handshake"
            assert secure.receive_all() == b""
        assert server.process.wait(30) == -signal.SIGTERM
        log = server.log()
        assert "in total: closed stopped 3, opened 3, refused address-full 1" in log, log


def test_a_header_without_the_option_is_input_like_any_other() -> None:
    with Server("uppercase-tcp", "--port=0") as server, connect(server.port) as client:
        client.sendall(V1)
        assert client.recv(1024) == V1.upper()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen=haproxy:tcp:0"], "--listen=tcp:0 --proxy-from=ADDRESS"),
        (["--listen=stdio:"], "no server is needed: uppercase transforms try NAME"),
        (["--proxy-from=example.org"], "accepted are IP addresses and networks"),
        (["--handshake-timeout=0"], "a time-out is longer than 0"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert sentence in " ".join(refused("uppercase-tcp", *arguments).split())
