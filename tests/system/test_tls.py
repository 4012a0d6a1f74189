"""TLS as its users meet it: the real twistd, real sockets, Python's own TLS."""

import contextlib
import os
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate, make_certificate
from tests.system.processes import Server, connect, memory, receive_all, run
from tests.tls_peer import TLSClient, TLSPeer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(certificate: Certificate) -> Iterator[Server]:
    arguments = ("uppercase-tcp", f"--listen={certificate.endpoint()}", "--handshake-timeout=2s")
    with Server(*arguments, addresses=1) as started:
        yield started


def blocking(server: Server, certificate: Certificate) -> ssl.SSLSocket:
    """Connect as ordinary Python programs do."""
    context = ssl.create_default_context(cafile=str(certificate.cert))
    return context.wrap_socket(connect(server.port), server_hostname="localhost")


def test_the_ready_line_says_tls(server: Server) -> None:
    assert server.addresses == [("TLS", f"127.0.0.1:{server.port}")]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("ending", ["close_notify", "FIN", "both"])
def test_no_reply_is_lost_however_the_client_ends(
    server: Server, certificate: Certificate, version: ssl.TLSVersion, ending: str
) -> None:
    for _ in range(20):
        with TLSClient(connect(server.port), certificate.cert, version) as client:
            client.write(b"hello")
            if ending != "FIN":
                client.close()
            client.send()
            if ending != "close_notify":
                client.socket.shutdown(socket.SHUT_WR)
            assert client.receive_all() == b"HELLO"
            assert receive_all(client.socket) == b""


def test_a_large_conversation_comes_back_exact_and_in_order(
    server: Server, certificate: Certificate
) -> None:
    data = os.urandom(3 << 20).hex().encode()
    with blocking(server, certificate) as client:
        sent = received = 0
        replies = bytearray()
        while received < len(data):
            if sent < len(data):
                sent += client.send(data[sent : sent + 60_000])
            chunk = client.recv(1 << 16)
            received += len(chunk)
            replies += chunk
    assert replies == data.upper()


def push(client: TLSClient, limit: int) -> int:
    """Send without reading until the server takes no more; return the bytes of the last sign."""
    client.socket.setblocking(False)
    pushed = 0
    quiet_since = time.monotonic()
    rest = b""
    while pushed < limit and time.monotonic() - quiet_since < 0.3:
        if not rest:
            client.write(b"a" * 16_000)
            rest = client.flight()
        try:
            done = client.socket.send(rest)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        rest = rest[done:]
        pushed += done
        quiet_since = time.monotonic()
    return pushed


def test_peers_that_do_not_read_cost_little_and_disturb_nobody(certificate: Certificate) -> None:
    """Eight of them, each pushing until the kernel's buffers are full; 256 KiB each at the most."""
    count = 8
    with Server("uppercase-tcp", f"--listen={certificate.endpoint()}", addresses=1) as server:
        clients = [TLSClient(connect(server.port), certificate.cert) for _ in range(count)]
        for client in clients:
            client.ask(b"warm")
            client.receive(4)
        before = memory(server.process.pid)
        for client in clients:
            assert push(client, 64 << 20) < 64 << 20, "the server takes all and reads on"
        grown = memory(server.process.pid) - before
        with TLSClient(connect(server.port), certificate.cert) as other:
            other.ask(b"quick")
            assert other.receive(5) == b"QUICK"
        assert grown < count * 256 * 1024, f"{grown / count:.0f} bytes for each"
        for client in clients:
            client.socket.close()


def test_a_mute_peer_half_a_hello_and_plain_text_end_without_a_traceback(
    server: Server, certificate: Certificate
) -> None:
    """One line a second for each reason, however many there are."""
    mute, half = connect(server.port), connect(server.port)
    half.sendall(TLSPeer(certificate.cert).flight()[:50])
    for _ in range(30):
        with connect(server.port) as plain:
            plain.sendall(b"hello\r\n")
            with contextlib.suppress(ConnectionResetError):
                receive_all(plain)
    for client in (mute, half):
        with contextlib.suppress(ConnectionResetError):
            assert receive_all(client) == b""
        client.close()
    log = server.wait_for_log("more since the last line")
    assert "handshake: no TLS: " in log
    assert len([line for line in log.splitlines() if "no TLS" in line]) < 8
    with blocking(server, certificate) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"


@pytest.mark.long
def test_a_stop_answers_what_has_arrived_read_or_not(certificate: Certificate) -> None:
    """The server is held up while it arrives, so that the stop finds it unread."""
    arguments = ("uppercase-tcp", f"--listen={certificate.endpoint()}", "--drain=60s")
    with (
        Server(*arguments, addresses=1) as server,
        TLSClient(connect(server.port), certificate.cert) as client,
    ):
        data = b"a" * 300_000
        for _ in range(30):
            # The kernel's buffer for input grows with use, and must hold all of it.
            client.ask(data[:100_000])
            client.receive(100_000)
        server.process.send_signal(signal.SIGSTOP)
        client.ask(data)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        assert client.receive_all() == data.upper()
        assert receive_all(client.socket) == b""
        assert server.process.wait(30) == -signal.SIGTERM


def test_a_stop_ends_whatever_its_clients_do(certificate: Certificate) -> None:
    """One is idle, one within its handshake, one asks on and on, and one never reads."""
    arguments = ("uppercase-tcp", f"--listen={certificate.endpoint()}", "--drain=3s")
    with (
        Server(*arguments, addresses=1) as server,
        TLSClient(connect(server.port), certificate.cert) as idle,
        connect(server.port) as half,
        TLSClient(connect(server.port), certificate.cert) as never_reads,
        TLSClient(connect(server.port), certificate.cert) as asks,
    ):
        half.sendall(TLSPeer(certificate.cert).flight()[:50])
        assert push(never_reads, 64 << 20) < 64 << 20
        asks.ask(b"hello")
        assert asks.receive(5) == b"HELLO"
        time.sleep(0.2)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert idle.receive_all() == b"", "a close_notify"
        with contextlib.suppress(ConnectionResetError):
            assert half.recv(100) == b""
        assert "the drain time is over" not in server.log()
        idle.socket.close()
        half.close()
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 30:
                asks.ask(b"more")
                time.sleep(0.01)
        assert server.process.wait(30) == -signal.SIGTERM
        assert 2.5 < time.monotonic() - started < 30
        log = server.log()
        assert re.search(r"the drain time is over: [12] connection", log), log
        summed_up = re.search(r"in total: (closed .*), opened 4$", log, re.M)
        assert summed_up, log
        assert sum(map(int, re.findall("[0-9]+", summed_up[1]))) == 4


def test_the_lab_works_over_tls(certificate: Certificate) -> None:
    """Each piece is a record of its own, so that one read is visibly not enough."""
    arguments = ("uppercase-tcp", f"--listen={certificate.endpoint()}")
    with (
        Server(*arguments, "--lab=byte-stream", addresses=1) as server,
        blocking(server, certificate) as client,
    ):
        client.sendall(b"hello")
        assert client.recv(1024) == b"H"
    with (
        Server(*arguments, "--reset-after=3", addresses=1) as server,
        TLSClient(connect(server.port), certificate.cert) as client,
    ):
        client.ask(b"hello")
        assert client.receive(3) == b"HEL"
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1024)


@pytest.mark.needs_program("openssl")
def test_openssl_gets_its_reply_and_is_told_of_the_end(certificate: Certificate) -> None:
    """`segment` answers once and closes, which ends s_client too."""
    arguments = ("uppercase-tcp", f"--listen={certificate.endpoint()}", "--framing=segment")
    with Server(*arguments, addresses=1) as server:
        command = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{server.port}"]
        done = run([*command, "-CAfile", str(certificate.cert)], b"hello\n")
        assert done.stdout == b"HELLO\n"


@pytest.mark.parametrize("prefix", ["ssl", "tls"])
def test_both_prefixes_speak_our_tls(certificate: Certificate, prefix: str) -> None:
    arguments = ("uppercase-tcp", f"--listen={certificate.endpoint(prefix)}")
    with Server(*arguments, addresses=1) as server:
        assert server.addresses[0][0] == "TLS"
        with TLSClient(connect(server.port), certificate.cert) as client:
            client.write(b"hello")
            client.close()
            client.send()
            assert client.receive_all() == b"HELLO"


def test_a_certificate_file_may_hold_its_chain(certificate: Certificate, tmp_path: Path) -> None:
    """As Let's Encrypt's fullchain.pem does; extraCertChain adds more."""
    other = make_certificate(tmp_path, "ca.example")
    both = tmp_path / "fullchain.pem"
    both.write_bytes(certificate.cert.read_bytes() + other.cert.read_bytes())
    endpoint = (
        f"tls:0:privateKey={certificate.key}:certKey={both}:extraCertChain={other.cert}"
        ":interface=127.0.0.1"
    )
    with (
        Server("uppercase-tcp", f"--listen={endpoint}", addresses=1) as server,
        TLSClient(connect(server.port), certificate.cert) as client,
    ):
        client.ask(b"hello")
        assert client.receive(5) == b"HELLO"
