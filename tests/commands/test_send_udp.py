"""`uppercase send -u` in a pipe, and the window that decides what is sent when."""

import os
import random
import signal
import socket
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import deferLater

from tests.client.in_reactor import in_reactor, reactor
from tests.client.servers import (
    UdpBehaviour,
    UdpRequest,
    drop,
    duplicate,
    forged,
    free_port,
    late,
    only_forged,
    silent,
    udp_server,
    wrong,
)
from tests.commands.command import Outcome, Piped, run
from uppercase.client.session import PORT_MEMORY, Datagrams
from uppercase.client.target import Address, Target, reachable
from uppercase.commands.send import UDP_WINDOW
from uppercase.commands.send._datagrams import Messages
from uppercase.core.framing import SizeFramer, make_framer
from uppercase.errors import NetworkError


class Oracle(Messages):
    """Replies that come when, and in the order that, the test says."""

    def __init__(self) -> None:
        self.under_way: dict[bytes, Deferred[bytes | None]] = {}
        self.delivered: list[tuple[int, bytes | None, bytes]] = []
        self.max_message = 99

    async def ask(self, message: bytes) -> bytes | None:
        self.under_way[message] = Deferred()
        return await self.under_way[message]

    async def deliver(self, *settled: Any) -> None:
        self.delivered.append(settled)


def test_what_fails_at_once_is_told_once() -> None:
    """Such as that no socket can be opened: no other message is tried, nor its failure logged."""

    class Fails(Oracle):
        async def ask(self, message: bytes) -> bytes | None:
            self.under_way[message] = Deferred()
            raise NetworkError("no socket")

    messages, source, told = Fails(), cast(Any, SimpleNamespace()), list[str]()
    data: Deferred[bytes] = Deferred()
    source.read = lambda: data
    framer = make_framer("line", max_length=99)
    done = Deferred.fromCoroutine(messages.filter(source, framer, 8))
    done.addErrback(lambda failure: told.append(str(failure.value)))
    data.callback(b"a\nb\n")
    assert told == ["no socket"]
    assert [*messages.under_way] == [b"a"]


class Given:
    """An input that is there at once."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = [*parts, b""]

    def read(self) -> "Deferred[bytes]":
        return succeed(self.parts.pop(0))


@given(st.permutations(range(1, 9)), st.sets(st.integers(1, 8)))
def test_replies_come_in_the_order_of_the_messages(order: list[int], lost: set[int]) -> None:
    oracle = Oracle()
    source: Any = Given(*(b"%d\n" % number for number in range(1, 9)))
    framer = make_framer("line", max_length=99)
    done = Deferred.fromCoroutine(oracle.filter(source, framer, 8))
    for number in order:
        oracle.under_way[b"%d" % number].callback(None if number in lost else b"%d!" % number)
    assert oracle.delivered == [
        (number, None if number in lost else b"%d!" % number, b"\n") for number in range(1, 9)
    ]
    assert done.called


@given(st.binary(max_size=200), st.integers(1, 50), st.integers(1, 50))
def test_chunks_do_not_depend_on_how_the_input_arrives(data: bytes, size: int, cut: int) -> None:
    chunks = SizeFramer(size)
    got = [chunk for start in range(0, len(data), cut) for chunk in chunks.feed(data[start:][:cut])]
    got += chunks.finish()
    assert b"".join(chunk for chunk, _ in got) == data
    assert all(len(chunk) == size for chunk, _ in got[:-1])


# The command.


@pytest.mark.parametrize("data", [b"", b"\n", b"hello", b"one\ntwo\n", b"a\r\n\nb\xff\0c"])
def test_a_line_is_a_datagram_and_its_reply_a_line(data: bytes) -> None:
    """The line's ending stays here and comes back with the reply."""
    with udp_server() as server:
        outcome = run("send", "-u", server.address, data=data)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, data.upper(), "")
    assert server.received == data.splitlines()


def test_chunks_come_back_as_one_piece() -> None:
    data = os.urandom(10_000).replace(b"\n", b"")
    with udp_server() as server:
        outcome = run("send", "-u", "--chunk=1k", "--window=4", server.address, data=data)
    assert (outcome.status, outcome.stdout) == (0, data.upper())
    assert {len(chunk) for chunk in server.received} == {1024, len(data) % 1024}


LINES = b"".join(b"line %d\n" % number for number in range(60))


def test_many_lines_stay_in_order_whatever_the_network_does() -> None:
    def unruly(request: UdpRequest) -> None:
        if request.index % 7 != 3:
            request.reply(after=0.03 * (request.index % 3))
        if request.index % 5 == 0:
            request.reply()

    with udp_server(unruly) as server:
        outcome = run("send", "-u", "-W", "200ms", "--retries=9", server.address, data=LINES)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, LINES.upper(), "")


def test_a_line_without_reply_is_asked_again() -> None:
    with udp_server(drop(0, 1)) as server:
        outcome = run("send", "-u", "-W", "500ms", "--window=1", server.address, data=b"a\nb\n")
    assert (outcome.status, outcome.stdout) == (0, b"A\nB\n")
    assert server.received == [b"a", b"a", b"a", b"b"]
    assert len(set(server.peers[:3])) == 1, "an earlier attempt's reply must count as well"


def test_no_more_than_the_window_is_under_way() -> None:
    options = ["--window=3", "--retries=0", "-W", "300ms"]
    with udp_server(silent) as server:
        outcome = run("send", "-u", *options, server.address, data=LINES)
    assert len(server.received) == 3
    assert "message 1 got no reply after 1 attempt from UDP" in outcome.stderr


@pytest.mark.parametrize(
    ("on_loss", "stdout", "sentence"),
    [
        ("fail", b"A\n", "message 2 got no reply after 2 attempts from UDP"),
        ("skip", b"A\nC\n", "1 message got no reply after 2 attempts from UDP {}: number 2\n"),
        ("empty", b"A\n\nC\n", "1 message got no reply after 2 attempts from UDP {}: number 2\n"),
    ],
)
def test_a_loss_is_never_silent(on_loss: str, stdout: bytes, sentence: str) -> None:
    def lose_b(request: UdpRequest) -> None:
        if request.data != b"b":
            request.reply()

    options = ["-W", "500ms", "--retries=1", "--on-loss", on_loss]
    with udp_server(lose_b) as server:
        outcome = run("send", "-u", *options, server.address, data=b"a\nb\nc\n")
    assert (outcome.status, outcome.stdout) == (1, stdout)
    assert sentence.format(server.address) in outcome.stderr
    assert outcome.stderr.count("\n") == 1


class Stale:
    """Sends the reply to the request before once more, and only later the true one."""

    def __init__(self) -> None:
        self.last: UdpRequest | None = None

    def __call__(self, request: UdpRequest) -> None:
        if self.last is not None:
            self.last.reply()
        self.last = request
        request.reply(after=0.05)


@pytest.mark.parametrize("behave", [duplicate(0, 1, 2), Stale(), forged])
def test_only_the_true_reply_counts(behave: UdpBehaviour) -> None:
    """Neither a late duplicate of an earlier reply nor a datagram from another port."""
    with udp_server(behave) as server:
        outcome = run("send", "-u", "--window=1", server.address, data=b"a\nb\nc\nd\n")
    assert (outcome.status, outcome.stdout) == (0, b"A\nB\nC\nD\n")


def test_a_late_duplicate_finds_nobody_who_could_take_it() -> None:
    """Each message is asked from a port of its own."""
    with udp_server(late(0.05, *range(100))) as server:
        outcome = run("send", "-u", server.address, data=LINES)
    assert outcome.stdout == LINES.upper()
    assert len(set(server.peers)) == 60


def test_a_source_port_is_not_used_again_for_many_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system draws ports at random and would repeat some of them much sooner."""
    remembered = PORT_MEMORY // 4
    monkeypatch.setattr("uppercase.client.session.PORT_MEMORY", remembered)
    messages = remembered + 500
    mark = os.urandom(8).hex().upper().encode()
    with udp_server() as server:
        outcome = run("send", "-u", "-W1m", server.address, data=(mark + b"\n") * messages)
    assert outcome.stdout == (mark + b"\n") * messages
    last_use: dict[int, int] = {}
    # Not what strayed in from another program, whose server had this port before.
    ours = [peer for data, peer in zip(server.received, server.peers, strict=True) if data == mark]
    for index, (_, port) in enumerate(ours):
        assert index - last_use.get(port, -messages) > remembered - UDP_WINDOW
        last_use[port] = index


@in_reactor
async def test_a_system_with_few_ports_is_served_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        free = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(3)]
        for each in free:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in free]

    def connect_from_few(target: Target, address: Address | None = None) -> socket.socket:
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", random.choice(ports)))
        datagrams.setblocking(False)
        datagrams.connect((target.host, target.port))
        return datagrams

    monkeypatch.setattr("uppercase.client.session.connect_udp", connect_from_few)
    with udp_server() as server:
        target = Target(server.host, server.port, udp=True)
        datagrams = Datagrams(reactor, target, reachable(target), 30.0, 0)
        for number in range(9):
            assert await datagrams.ask(b"%d" % number) == b"%d" % number


def test_a_slow_reader_of_the_output_makes_no_reply_late() -> None:
    """What arrived while the output was blocked counts, however long ago its time was up."""
    data = (b"x" * 7999 + b"\n") * 60

    def unhurried(request: UdpRequest) -> None:
        request.reply(after=0.01 * (1 + request.index % 8))

    with (
        udp_server(unhurried) as server,
        Piped("send", "-u", "-W1s", "--retries=0", "--no-warn", server.address) as process,
    ):
        writer = threading.Thread(target=process.stdin.write, args=[data])
        writer.start()
        time.sleep(2)
        received = process.stdout.read(len(data))
        writer.join(30)
        process.stdin.close()
        assert received == data.upper()
        assert process.wait(30) == 0


def test_a_stranger_s_replies_count_for_nothing() -> None:
    with udp_server(only_forged) as server:
        outcome = run("send", "-u", "-W", "50ms", "--retries=1", server.address, data=b"a\n")
    assert (outcome.status, outcome.stdout) == (1, b"")
    assert "got no reply" in outcome.stderr


def test_a_wrong_reply_is_printed_as_it_is() -> None:
    """`send` prints whatever the server says; `ping` and `bench` compare."""
    with udp_server(wrong(0)) as server:
        assert run("send", "-u", server.address, data=b"a\nb\n").stdout == b"?\nB\n"


def test_nothing_listening_is_said_at_once() -> None:
    port = free_port()
    outcome = run("send", "-u", "-W1h", f":{port}", data=b"hello")
    assert outcome.status == 1
    assert outcome.stderr == (
        f"uppercase: nothing listens on UDP 127.0.0.1:{port}; start the server first: "
        f"twistd -n uppercase-udp --port={port}\n"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@in_reactor
async def test_a_refusal_leads_to_the_next_address_of_the_name(
    host: str, both_families: str
) -> None:
    with udp_server(host=host) as server:
        target = Target(both_families, server.port, udp=True)
        datagrams = Datagrams(reactor, target, reachable(target), 1.0, 3)
        both = [ensureDeferred(datagrams.ask(message)) for message in (b"hello", b"world")]
        assert [await reply for reply in both] == [b"HELLO", b"WORLD"]


@in_reactor
async def test_a_refusal_by_every_address_is_said(both_families: str) -> None:
    target = Target(both_families, free_port(), udp=True)
    datagrams = Datagrams(reactor, target, reachable(target), 1.0, 3)
    with pytest.raises(NetworkError, match=r"nothing listens on UDP both\.example"):
        await datagrams.ask(b"hello")


def test_replies_come_out_while_the_input_goes_on() -> None:
    with udp_server() as server, Piped("send", "-u", server.address) as process:
        for line in b"one\n", b"two\n":
            process.say(line)
            assert process.stdout.readline() == line.upper()
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_datagram_that_may_be_cut_into_fragments_is_warned_of_once() -> None:
    data = b"x" * 1232 + b"\n" + b"y" * 1233 + b"\n" + b"z" * 2000 + b"\n"
    with udp_server() as server:
        outcome = run("send", "-u", server.address, data=data)
        assert (outcome.status, outcome.stdout) == (0, data.upper())
        assert outcome.stderr.startswith("uppercase: message 2 has 1,233 bytes")
        assert outcome.stderr.count("\n") == 1
        assert run("send", "-u", "--no-warn", server.address, data=data).stderr == ""


@pytest.mark.parametrize(
    ("host", "most"), [("127.0.0.1", 65_507), ("::1", 65_527)], ids=["IPv4", "IPv6"]
)
def test_the_largest_datagram_passes_and_a_larger_one_is_one_sentence(host: str, most: int) -> None:
    """What came before it is answered."""
    with udp_server(host=host) as server:
        data = b"x" * most + b"\n"
        assert run("send", "-u", "--no-warn", server.address, data=data).stdout == data.upper()
        outcome = run("send", "-u", "--no-warn", server.address, data=b"a\nx" + data + b"b\n")
        assert (outcome.status, outcome.stdout) == (2, b"A\n")
        assert f"more than {most:,} bytes" in outcome.stderr
        assert outcome.stderr.count("\n") == 1
        outcome = run("send", "-u", f"--chunk={most + 1}", server.address, data=b"a")
        assert outcome.status == 2
        assert f"at most {most:,} bytes" in outcome.stderr


def test_the_output_s_reader_may_go_away() -> None:
    with udp_server() as server, Piped("send", "-u", server.address) as process:
        process.stdout.close()
        assert process.finish(b"hello\n") == Outcome(-signal.SIGPIPE, b"", "")


def test_verbose_says_which_message_is_sent_again() -> None:
    def first_lost(request: UdpRequest) -> None:
        if request.index != 0:
            request.reply()

    with udp_server(first_lost) as server:
        outcome = run(
            "send", "-u", "-v", "-W", "200ms", "--window=1", server.address, data=b"a\nb\n"
        )
        quiet = run("send", "-u", "-W", "200ms", server.address, data=b"a\n")
    assert (outcome.status, outcome.stdout) == (0, b"A\nB\n")
    assert outcome.stderr == "uppercase: message 1: no reply, sent again (attempt 2 of 4)\n"
    assert quiet.stderr == ""


def test_one_socket_serves_a_whole_run() -> None:
    peers = set()

    def answer(request: UdpRequest) -> None:
        peers.add(request.peer)
        request.reply()

    data = b"".join(b"line %d\n" % number for number in range(20))
    with udp_server(answer) as server:
        outcome = run("send", "-u", "--one-socket", server.address, data=data)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, data.upper(), "")
    assert len(peers) == 1


@in_reactor
async def test_on_one_socket_what_came_in_between_is_no_reply_to_the_next() -> None:
    with udp_server(duplicate(0)) as server:
        target = Target("127.0.0.1", server.port, udp=True)
        datagrams = Datagrams(reactor, target, reachable(target), 5.0, 0, one_socket=True)
        assert await datagrams.ask(b"a") == b"A"
        await deferLater(reactor, 0.3)
        assert await datagrams.ask(b"b") == b"B"
        datagrams.close()


def test_one_socket_has_a_window_of_one_and_hears_a_refusal() -> None:
    outcome = run("send", "-u", "--one-socket", "--window=2", f":{free_port()}", data=b"a\n")
    assert (outcome.status, outcome.stderr.count("\n")) == (2, 1)
    assert "got --one-socket and --window=2" in outcome.stderr
    outcome = run("send", "-u", "--one-socket", f":{free_port()}", data=b"a\n")
    assert outcome.status == 1
    assert "nothing listens on UDP" in outcome.stderr
