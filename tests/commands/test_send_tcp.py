"""`uppercase send` in a pipe, over TCP, TLS and Unix sockets."""

import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.client.in_reactor import in_reactor, reactor
from tests.client.servers import (
    Server,
    TcpBehaviour,
    break_off_after,
    close_unanswered,
    free_port,
    never_read,
    one_reply,
    reset,
    silent_stream,
    strip_newline,
    tcp_server,
    wrong_stream,
)
from tests.commands.certificates import Certificate, make_certificate
from tests.commands.command import Outcome, Piped, environment, read_late, run
from uppercase.client.target import Target
from uppercase.commands import write_all
from uppercase.commands.send import _notice
from uppercase.commands.send._stream import (
    LINE_QUIET_TIME,
    TLS_QUIET_TIME,
    Filter,
    LineConversation,
)
from uppercase.core.tls import TLSLayer
from uppercase.errors import NetworkError, NoReply
from uppercase.limits import KIB, MIB

EVERY_BYTE = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("data", [b"", b"\n", b"hello", b"hello\n", b"a\r\nb\n\n", EVERY_BYTE])
def test_bytes_come_back_exactly(data: bytes) -> None:
    with tcp_server() as server:
        outcome = run("send", server.address, data=data)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, data.upper(), "")


def test_more_than_all_buffers_hold_goes_through() -> None:
    """The server stops reading while its replies are not read: both ways run at once."""
    data = random.Random(15).randbytes(20 * MIB)
    with tcp_server() as server:
        outcome = run("send", server.address, data=data)
    assert outcome.status == 0
    assert outcome.stdout == data.upper()


def answer_at_the_end(connection: socket.socket, server: Server) -> None:
    data = b""
    while more := connection.recv(64 * KIB):
        data += more
    connection.sendall(data.upper())


def test_the_end_of_input_is_a_half_close() -> None:
    """A server that answers only when it has everything gets to know, and is heard to the end."""
    data = b"x" * 3 * MIB
    with tcp_server(answer_at_the_end) as server:
        assert run("send", server.address, data=data).stdout == data.upper()


def test_replies_come_out_while_the_input_goes_on() -> None:
    with tcp_server() as server, Piped("send", server.address) as process:
        for word in b"one", b"two":
            process.say(word)
            assert process.stdout.read(3) == word.upper()
        process.stdin.close()
        assert process.wait(30) == 0


SEND_AND_TELL = """
import re, sys
from uppercase.__main__ import main
status = main(["send", *sys.argv[1:]])
with open("/proc/self/status") as told:
    print(re.search(r"VmHWM:\\s*(\\d+) kB", told.read())[1], file=sys.stderr)
sys.exit(status)
"""


def peak_memory(size: int) -> int:
    """Return the most resident memory, in bytes, of a filter that `size` bytes go through.

    The reader of the output takes its time at first: so what is not held back piles up. The process
    tells itself what it used: whoever waits for it would see what was resident before its exec.
    """
    produce = f"import os\nfor _ in range({size // MIB}): os.write(1, bytes({MIB}))"
    read = "n = 0\nwhile d := os.read(0, 1 << 20): n += len(d)\nprint(n)"
    consume = f"import os, time\ntime.sleep(1)\n{read}"
    with tcp_server() as server:
        source = subprocess.Popen([sys.executable, "-c", produce], stdout=subprocess.PIPE)
        process = subprocess.Popen(
            [sys.executable, "-c", SEND_AND_TELL, server.address],
            stdin=source.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        sink = subprocess.Popen(
            [sys.executable, "-c", consume], stdin=process.stdout, stdout=subprocess.PIPE
        )
        for pipe in source.stdout, process.stdout:
            assert pipe
            pipe.close()
        counted, _ = sink.communicate(timeout=60)
        assert int(counted) == size
        assert source.wait(30) == 0
        assert process.stderr
        with process, process.stderr:
            return int(process.stderr.read()) * KIB


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_does_not_grow_with_the_input() -> None:
    assert peak_memory(16 * MIB) - peak_memory(1 * MIB) < 4 * MIB


def no_reply(connection: socket.socket, server: Server) -> None:
    while connection.recv(64 * KIB):
        pass


@pytest.mark.parametrize(
    ("behave", "size", "stdout", "sentence"),
    [
        (one_reply, 4 * MIB, b"X" * 1024, "ended the conversation after|broke .* off"),
        (break_off_after(50), 4 * MIB, b"X" * 50, "ended the conversation after|broke .* off"),
        (reset, 10, b"", "broke the connection off"),
        (no_reply, 10, b"", "ended the conversation without a reply"),
        (silent_stream, 10, b"", r"has not ended its replies and has been silent for 0.5 s \(-W\)"),
        (never_read, 50 * MIB, b"", "takes no more of the input and has been silent for 0.5 s"),
    ],
)
def test_a_server_that_fails_is_said_and_its_replies_are_kept(
    behave: TcpBehaviour, size: int, stdout: bytes, sentence: str
) -> None:
    with tcp_server(behave) as server:
        outcome = run("send", "-W", "500ms", server.address, data=b"x" * size)
    assert outcome.status == 1
    assert outcome.stdout == stdout
    assert outcome.stderr.startswith(f"uppercase: TCP {server.address} ")
    assert re.search(sentence, outcome.stderr)

    assert outcome.stderr.count("\n") == 1


def test_an_output_that_somebody_made_non_blocking_loses_nothing() -> None:
    data = b"x" * MIB
    with (
        read_late() as (writer, received),
        open(writer, "wb", closefd=False) as pipe,
        mock.patch.object(sys, "stdout", pipe),
    ):
        write_all(data)
    assert received == [data]


def test_no_reply_at_all_may_be_declared_an_answer() -> None:
    """Some transforms give nothing; a server that breaks off has failed even so."""
    with tcp_server(no_reply) as server:
        outcome = run("send", "--allow-empty", server.address, data=b"   ")
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"", "")
    with tcp_server(reset) as server:
        assert run("send", "--allow-empty", server.address, data=b"   ").status == 1


def test_a_server_that_closes_while_input_may_still_come_is_said_at_once() -> None:
    with tcp_server(one_reply) as server, Piped("send", server.address) as process:
        process.say(b"hello")
        assert process.wait(30) == 1
        assert b"ended the conversation after 5 bytes" in process.stderr.read()


def test_a_filter_does_not_judge_what_comes_back() -> None:
    """`send` prints whatever the server says; `ping` and `bench` compare."""
    with tcp_server(wrong_stream) as server:
        assert run("send", server.address, data=b"hello").stdout == b"?????"


def test_the_lecture_s_server_answers_a_sentence() -> None:
    with tcp_server(one_reply) as server:
        outcome = run("send", server.address, data=b"hello\n")
    assert (outcome.status, outcome.stdout) == (0, b"HELLO\n")


def test_nothing_listening_is_one_sentence() -> None:
    port = free_port()
    outcome = run("send", f":{port}", data=b"hello")
    assert outcome.status == 1
    assert outcome.stderr == (
        f"uppercase: nothing listens on TCP 127.0.0.1:{port}; start the server first: "
        f"twistd -n uppercase-tcp --port={port}\n"
    )


def test_the_environment_names_the_server() -> None:
    with tcp_server(host="::1") as server:
        settings = {"UPPERCASE_HOST": "::1", "UPPERCASE_PORT": str(server.port)}
        assert run("send", data=b"hello", env=settings).stdout == b"HELLO"
        assert run("send", server.address, "-6", data=b"hello").stdout == b"HELLO"


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with tcp_server(unix=path):
        outcome = run("send", "--unix", path, data=EVERY_BYTE)
    assert (outcome.status, outcome.stdout) == (0, EVERY_BYTE.upper())


@pytest.mark.parametrize("data", [b"", EVERY_BYTE, b"x" * 3 * MIB])
def test_tls_is_byte_exact_too(data: bytes, certificate: Certificate) -> None:
    with tcp_server(wrap=certificate.wrap) as server:
        outcome = run("send", "--tls", "--ca", str(certificate.path), server.address, data=data)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, data.upper(), "")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_needs_nothing_but_python(
    version: ssl.TLSVersion, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("OpenSSL", "cryptography", "service_identity"):
        monkeypatch.setitem(sys.modules, package, None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path)
    context.maximum_version = version
    with tcp_server(wrap=partial(context.wrap_socket, server_side=True)) as server:
        outcome = run("send", "--tls", "--ca", str(certificate.path), server.address, data=b"hello")
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"HELLO", "")


def test_a_certificate_is_verified_unless_told_otherwise(certificate: Certificate) -> None:
    with tcp_server(wrap=certificate.wrap) as server:
        outcome = run("send", "--tls", server.address, data=b"hello")
        assert (outcome.status, outcome.stdout) == (1, b"")
        assert "certificate that is not trusted" in outcome.stderr
        assert "--ca FILE" in outcome.stderr
        assert "--insecure" in outcome.stderr
        outcome = run("send", "--tls", "--insecure", server.address, data=b"hello")
        assert (outcome.status, outcome.stdout) == (0, b"HELLO")


def test_a_certificate_for_another_name_is_refused(certificate: Certificate) -> None:
    with tcp_server(wrap=certificate.wrap) as server:
        address = f"localhost:{server.port}"
        outcome = run("send", "--tls", "--ca", str(certificate.path), address, data=b"hello")
    assert outcome.status == 1
    assert "localhost" in outcome.stderr


def test_a_server_without_tls_is_said_so() -> None:
    with tcp_server() as server:
        outcome = run("send", "--tls", server.address, data=b"hello")
    assert outcome.status == 1
    assert "does not speak TLS" in outcome.stderr


def cut_off(connection: socket.socket, server: Server) -> None:
    connection.sendall(connection.recv(99).upper())
    assert isinstance(connection, ssl.SSLSocket)
    os.close(connection.detach())


def test_a_tls_reply_that_may_have_been_cut_short_is_not_taken_for_whole(
    certificate: Certificate,
) -> None:
    """Whoever sits between can end a TCP connection; only TLS's own goodbye proves the end."""
    with tcp_server(cut_off, wrap=certificate.wrap) as server:
        outcome = run("send", "--tls", "--insecure", server.address, data=b"hello")
    assert (outcome.status, outcome.stdout) == (1, b"HELLO")
    assert "may have been cut short" in outcome.stderr


def test_a_ca_file_that_is_none_is_a_mistake(tmp_path: Path) -> None:
    not_pem = tmp_path / "file"
    not_pem.write_text("hello")
    outcome = run("send", "--tls", "--ca", str(not_pem))
    assert outcome.status == 2
    assert "a PEM file of certificates is accepted" in outcome.stderr


def test_the_output_s_reader_may_go_away() -> None:
    """As in `| head -c 1`: it ends of SIGPIPE as every filter does, and says nothing."""
    with tcp_server() as server, Piped("send", server.address) as process:
        process.say(b"hello")
        assert process.stdout.read(1) == b"H"
        process.stdout.close()
        assert process.finish(b"again") == Outcome(-signal.SIGPIPE, b"", "")


def test_an_interrupt_ends_it_quietly() -> None:
    with tcp_server(silent_stream) as server, Piped("send", server.address) as process:
        process.say(b"hello")
        server.wait_for(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        assert process.stderr.read().strip() == b""


def test_output_that_cannot_be_written_is_one_sentence() -> None:
    with tcp_server() as server, open("/dev/full", "wb") as full:
        ended = Piped("send", server.address, stdout=full.fileno()).finish(b"hello")
    assert ended.status == 2
    assert ended.stderr == "uppercase: cannot write the output: No space left on device\n"


def test_input_that_cannot_be_read_is_one_sentence() -> None:
    with tcp_server() as server, open(os.devnull, "wb") as write_only:
        ended = Piped("send", server.address, stdin=write_only.fileno()).finish()
    assert ended.status == 2
    assert ended.stderr == "uppercase: cannot read the input: Bad file descriptor\n"


def late_tls_reply(connection: socket.socket, server: Server) -> None:
    data = connection.recv(99)
    time.sleep(1.5)
    connection.sendall(data.upper())
    connection.recv(99)


def test_a_tls_reply_may_take_a_moment_after_the_end_of_the_input(
    certificate: Certificate,
) -> None:
    with tcp_server(late_tls_reply, wrap=certificate.wrap) as server:
        outcome = run("send", "--tls", "--insecure", server.address, data=b"hello")
    assert (outcome.status, outcome.stdout) == (0, b"HELLO")


def straggling_tls_reply(connection: socket.socket, server: Server) -> None:
    connection.sendall(connection.recv(99).upper())
    time.sleep(TLS_QUIET_TIME + 0.5)
    connection.sendall(b"MORE")
    connection.recv(99)


def test_a_tls_reply_that_comes_after_the_goodbye_is_not_lost_in_silence(
    certificate: Certificate,
) -> None:
    with tcp_server(straggling_tls_reply, wrap=certificate.wrap) as server:
        outcome = run("send", "--tls", "--insecure", server.address, data=b"hello")
    assert (outcome.status, outcome.stdout) == (1, b"HELLO")
    assert "the rest is lost" in outcome.stderr


def test_a_tls_record_that_comes_slowly_is_no_silence(certificate: Certificate) -> None:
    """As on a slow line, where 16 KiB take longer than a silence may."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path)

    def reply_slowly(connection: socket.socket, _: object) -> None:
        tls, text = TLSLayer(context), list[bytes]()
        while not text:
            tls.receive(connection.recv(1 << 16), text)
            connection.sendall(tls.outgoing.read())
        connection.sendall(tls.encrypt(b"HELLO"))
        for piece in (record := tls.encrypt(b"MORE"))[:3], record[3:6], record[6:9], record[9:]:
            time.sleep(0.6 * TLS_QUIET_TIME)
            connection.sendall(piece)
        connection.recv(99)

    with tcp_server(reply_slowly) as server:
        outcome = run("send", "--tls", "--insecure", server.address, data=b"hello")
    assert (outcome.status, outcome.stdout) == (0, b"HELLOMORE")


def says_goodbye(connection: socket.socket, server: Server) -> None:
    connection.sendall(connection.recv(99).upper())
    assert isinstance(connection, ssl.SSLSocket)
    connection.unwrap()


def test_a_tls_server_may_say_goodbye_first(certificate: Certificate) -> None:
    with tcp_server(says_goodbye, wrap=certificate.wrap) as server:
        outcome = run("send", "--tls", "--insecure", server.address, data=b"hello")
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"HELLO", "")


def vanished(connection: socket.socket, server: Server) -> None:
    connection.sendall(connection.recv(99).upper())
    server.ended.wait(30)


def test_a_tls_server_that_says_nothing_to_the_goodbye_may_owe_a_reply(
    certificate: Certificate,
) -> None:
    """As one that the network does not reach any more."""
    with tcp_server(vanished, wrap=certificate.wrap) as server:
        outcome = run("send", "--tls", "--insecure", "-W1s", server.address, data=b"hello")
    assert (outcome.status, outcome.stdout) == (1, b"HELLO")
    assert "has not ended its replies and has been silent for 1 s (-W)" in outcome.stderr


# Lines that are typed; what a person sees is in test_terminal.


@contextmanager
def filtering(
    write: Any, read: Any = Deferred
) -> Iterator[tuple[Filter, Any, socket.socket, Deferred[None]]]:
    """A filter whose input goes on, its transport, the server's end, and what becomes of it."""
    ours, theirs = socket.socketpair()
    source = mock.Mock(read=read, at_end=lambda: False)
    made = Filter(reactor, Target(port=12000), source, 10.0, allow_empty=False)
    transport: Any = StringTransport()
    transport.getHandle, transport.loseWriteConnection = lambda: ours, mock.Mock()
    made.makeConnection(transport)  # type: ignore[no-untyped-call]
    with ours, theirs, mock.patch("uppercase.commands.send._stream.write", write):
        yield made, transport, theirs, Deferred.fromCoroutine(made.run())


def test_a_server_waits_while_nobody_reads_its_replies() -> None:
    writes: list[Deferred[None]] = []

    def write(data: bytes) -> Deferred[None]:
        writes.append(Deferred())
        return writes[-1]

    with filtering(write) as (made, transport, _, done):
        for _ in range(6):
            assert transport.producerState == "producing"
            made.dataReceived(b"x" * 64 * KIB)
        assert transport.producerState == "paused"
        writes[0].callback(None)
        assert transport.producerState == "producing"
        made.connectionLost(Failure(ConnectionLost()))
        writes[1].callback(None)
        done.addErrback(lambda failure: failure.trap(NetworkError))
    assert done.called


def test_what_came_before_a_connection_broke_is_written() -> None:
    """Twisted closes its own descriptor as soon as sending fails."""
    written: list[bytes] = []

    async def write(data: bytes) -> None:
        written.append(data)

    failures: list[Failure] = []
    with filtering(write) as (made, _, server, done):
        server.sendall(b"LAST WORDS")
        made.connectionLost(Failure(ConnectionLost()))
        done.addErrback(failures.append)
    assert written == [b"LAST WORDS"]
    assert failures[0].check(NetworkError)


def test_where_the_output_fails_the_connection_is_ended() -> None:
    async def write(data: bytes) -> None:
        raise BrokenPipeError

    failures: list[Failure] = []
    with filtering(write) as (made, transport, _, done):
        made.dataReceived(b"HELLO")
        assert transport.disconnected
        made.connectionLost(Failure(ConnectionLost()))
        done.addErrback(failures.append)
    assert failures[0].check(BrokenPipeError)


@pytest.mark.parametrize("taken", [True, False])
def test_a_server_that_ends_while_the_input_ends_is_judged_by_what_it_was_sent(taken: bool) -> None:
    """It may have all that there was, of which the reactor only tells in its next turn."""
    failures: list[Failure] = []
    with filtering(mock.Mock(), lambda: succeed(b"")) as (made, transport, _, done):
        made.readConnectionLost()
        if taken:
            made.writeConnectionLost()
            assert transport.disconnected  # Only epoll tells of the end of both sides.
        made.connectionLost(Failure(ConnectionLost()))
        done.addErrback(failures.append)
    assert done.called
    assert [failure.getErrorMessage() for failure in failures] == [
        "TCP 127.0.0.1:12000 ended the conversation after 0 bytes, before the end of the input"
    ] * (not taken)


def in_two_parts(connection: socket.socket, server: Server) -> None:
    while line := connection.recv(99):
        connection.sendall(line[:2].upper())
        time.sleep(3 * LINE_QUIET_TIME)
        connection.sendall(line[2:].upper())


def one_line_only(connection: socket.socket, server: Server) -> None:
    connection.sendall(connection.recv(99).upper())
    connection.recv(99)


@asynccontextmanager
async def lines_to(
    behave: TcpBehaviour, timeout: float
) -> AsyncIterator[tuple[LineConversation, Server]]:
    with tcp_server(behave) as server:
        lines = LineConversation(reactor, Target(port=server.port), timeout)
        await lines.connect()
        yield lines, server
        lines.close()
        await deferLater(reactor, 0)


@in_reactor
async def test_a_part_of_a_reply_that_comes_late_is_shown_with_the_next() -> None:
    async with lines_to(in_two_parts, 10.0) as (lines, _server):
        assert await lines.ask(b"hello") == b"HE"
        await deferLater(reactor, 4 * LINE_QUIET_TIME)
        assert await lines.ask(b"world") == b"LLO\nWO"


@in_reactor
async def test_a_line_that_meets_a_closing_connection_is_asked_over_a_new_one() -> None:
    async with lines_to(one_line_only, 10.0) as (lines, server):
        assert [await lines.ask(line) for line in (b"one", b"two")] == [b"ONE\n", b"TWO\n"]
    assert len(server.peers) == 2


def test_a_program_is_not_told_what_takes_so_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a person wonders; of a program's, standard error has errors alone."""
    monkeypatch.setattr("uppercase.commands.send._CONNECT_NOTICE", 0.0)
    with _notice(Target()):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


@in_reactor
async def test_who_never_replies_to_a_line_is_said_so() -> None:
    async with lines_to(close_unanswered, 10.0) as (lines, server):
        with pytest.raises(NetworkError, match="closed the connection without a reply"):
            await lines.ask(b"hello")
    assert len(server.peers) == 1, "it is asked once more"


def floods(connection: socket.socket, server: Server) -> None:
    with suppress(OSError):  # the client goes
        while True:
            connection.sendall(bytes(1 << 16))


@in_reactor
async def test_who_floods_the_prompt_or_never_ends_a_line_fills_no_memory() -> None:
    async with lines_to(floods, 10.0) as (lines, _server):
        tracemalloc.start()
        try:
            # As while somebody thinks of what to type.
            await deferLater(reactor, 1.0)
            assert tracemalloc.get_traced_memory()[1] < 16 * MIB
            assert MIB < len(await lines.ask(b"hello")) < 32 * MIB
        finally:
            tracemalloc.stop()


def last_words(connection: socket.socket, server: Server) -> None:
    server.received.append(line := connection.recv(99))
    connection.sendall(line.upper())
    connection.shutdown(socket.SHUT_WR)
    if line := connection.recv(99):
        server.received.append(line)


@in_reactor
async def test_no_line_is_said_to_a_server_that_has_closed() -> None:
    """It might still act on the line, which a new connection gets as well."""
    async with lines_to(last_words, 10.0) as (lines, server):
        await lines.ask(b"one")
        await deferLater(reactor, 0.1)
        await lines.ask(b"two")
    assert server.received == [b"one\n", b"two\n"]


@in_reactor
async def test_a_reply_without_a_newline_is_shown_soon() -> None:
    async with lines_to(strip_newline, 60.0) as (lines, _server):
        started = time.monotonic()
        assert await lines.ask(b"hello") == b"HELLO"
        assert time.monotonic() - started < 20


@in_reactor
async def test_a_line_that_a_new_connection_does_not_answer_is_given_up() -> None:
    async with lines_to(no_reply, 0.2) as (lines, _server):
        with pytest.raises(NoReply, match=r"did not reply within 0\.2 s$"):
            await lines.ask(b"hello")
