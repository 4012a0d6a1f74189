"""What bench sends and how it counts; in memory."""

import errno
import os
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from ssl import SSLContext

import pytest

from tests.commands.certificates import make_certificate
from uppercase.client.target import TLS, Target
from uppercase.commands._options import Expect, acceptable
from uppercase.commands.bench import Display, _plan
from uppercase.commands.bench._plan import Counts, Latencies, Plan, Workload
from uppercase.commands.bench._run import DatagramLoad, StreamLoad
from uppercase.errors import NetworkError, UserError

SIZE = 16
PERCENTILES = (50.0, 99.0)


def plan(udp: bool = False, rate: int | None = None) -> Plan:
    return Plan(
        Target(udp=udp), connections=1, size=SIZE, pipeline=1, rate=rate, duration=1.0, timeout=1.0
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def upper(message: bytes) -> bytes:
    return message.upper()


class Stream:
    """A load on one end of a stream, a test on the other."""

    def __init__(self, expect: Expect = upper) -> None:
        self.clock = Clock()
        self.counts = Counts(Latencies())
        self.workload = Workload(expect, SIZE, 50, b"\n")
        ours, self.server = socket.socketpair()
        ours.setblocking(False)
        self.load = StreamLoad(ours, plan(), self.workload, self.counts, self.clock)


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    with closing(made.load.connection), made.server:
        yield made


def test_thousands_of_connections_share_what_is_read_into() -> None:
    workload = Workload(upper, SIZE, 20_000, b"\n")
    counts, unconnected = Counts(Latencies()), socket.socket()
    tracemalloc.start()
    with unconnected:
        loads = [StreamLoad(unconnected, plan(), workload, counts) for _ in range(100)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * len(workload.outgoing) + 100 * 10_000, loads


def test_a_file_of_authorities_is_read_once_for_all_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is as long as the system's takes 16 ms, which is 16 s for a thousand."""
    contexts: list[object] = []

    def connect_stream(target: Target, addresses: object, context: object) -> socket.socket:
        contexts.append(context)
        return socket.socket()

    monkeypatch.setattr(_plan, "_connect_stream", connect_stream)
    authorities = TLS(ca=str(make_certificate(tmp_path).path))
    for streams in _plan.connect(Target(tls=authorities), 3):
        for each in streams:
            each.close()
    assert len(contexts) == 3
    assert isinstance(contexts[0], SSLContext)
    assert len({*map(id, contexts)}) == 1


def test_messages_differ_and_have_the_size_asked_for() -> None:
    workload = Workload(upper, SIZE, 1000, b"\n")
    assert len(set(workload.messages)) == 1000
    assert {len(message) for message in workload.messages} == {SIZE}
    assert all(message == message.lower() for message in workload.messages)


@pytest.mark.parametrize("pieces", [1, 7, 16, 160, 4096])
def test_replies_are_counted_whatever_the_pieces_they_come_in(stream: Stream, pieces: int) -> None:
    """Over the end of the cycle of messages too."""
    for _ in range(3):
        stream.load.offer(40, 0.0)
        assert stream.load.flush()
        replies = stream.server.recv(65536).upper()
        for start in range(0, len(replies), pieces):
            stream.server.sendall(replies[start : start + pieces])
            stream.load.receive()
    assert (stream.counts.transmitted, stream.counts.answered) == (120, 120)
    assert (stream.counts.wrong, stream.counts.pending) == (0, 0)
    assert stream.counts.sent_bytes == stream.counts.received_bytes == 120 * SIZE


@pytest.mark.parametrize("pieces", [5, 16, 4096])
def test_each_wrong_reply_is_counted_once(stream: Stream, pieces: int) -> None:
    stream.load.offer(30, 0.0)
    stream.load.flush()
    replies = bytearray(stream.server.recv(65536).upper())
    for number in (3, 4, 29):
        replies[number * SIZE + 2] ^= 1
        replies[number * SIZE + 9] ^= 1
    for start in range(0, len(replies), pieces):
        stream.server.sendall(replies[start : start + pieces])
        stream.load.receive()
    assert (stream.counts.wrong, stream.counts.received) == (3, 27)
    assert not acceptable(stream.counts, max_loss=1.0)


def test_replies_in_each_others_place_are_wrong(stream: Stream) -> None:
    stream.load.offer(2, 0.0)
    stream.load.flush()
    replies = stream.server.recv(65536).upper()
    stream.server.sendall(replies[SIZE:] + replies[:SIZE])
    stream.load.receive()
    assert stream.counts.wrong == 2


def test_more_than_was_asked_for_is_trouble(stream: Stream) -> None:
    stream.load.offer(1, 0.0)
    stream.load.flush()
    stream.server.sendall(b"".join(stream.workload.replies[:2]))
    with pytest.raises(NetworkError, match="sent more than it was asked for"):
        stream.load.receive()


def test_latency_counts_from_the_planned_time(stream: Stream) -> None:
    stream.load.offer(1, 0.0)
    stream.load.offer(1, 0.2)
    stream.load.flush()
    stream.server.sendall(stream.server.recv(65536).upper())
    stream.clock.now = 0.3
    stream.load.receive()
    summary = stream.counts.latencies.summary_ms(PERCENTILES)
    assert summary is not None
    assert summary["min"] == pytest.approx(100, rel=2e-3)
    assert summary["max"] == pytest.approx(300, rel=2e-3)


def test_what_the_kernel_does_not_take_is_sent_later(stream: Stream) -> None:
    stream.load.offer(100_000, 0.0)
    assert not stream.load.flush()
    assert stream.load.receive() == 0
    came = 0
    while came < 100_000 * SIZE:
        came += len(stream.server.recv(1 << 20))
        stream.load.flush()
    assert stream.load.flush()
    assert came == stream.counts.sent_bytes == 100_000 * SIZE


def test_a_server_that_breaks_off_is_said_so_once_it_is_read(stream: Stream) -> None:
    stream.load.offer(1, 0.0)
    stream.load.flush()
    stream.server.close()
    stream.load.offer(1, 0.0)
    assert stream.load.flush()
    with pytest.raises(NetworkError, match="reset a connection after 0 replies"):
        stream.load.receive()


class Refusing:
    """A connection of which the system says something else than that there is nothing to read."""

    def __init__(self, number: int) -> None:
        self._error = OSError(number, os.strerror(number))

    def recv_into(self, buffer: memoryview) -> int:
        raise self._error

    def send(self, data: bytes) -> int:
        raise self._error


def test_what_the_system_says_of_a_connection_is_said(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream.load, "connection", Refusing(errno.EHOSTUNREACH))
    stream.load.offer(1, 0.0)
    assert stream.load.flush(), "reading tells"
    with pytest.raises(NetworkError, match=r"cannot reach TCP .*: No route to host"):
        stream.load.receive()


@pytest.mark.parametrize(
    ("expect", "asked", "length", "wrong", "lost"),
    [
        (upper, 2, 0, 0, 2),
        (upper, 2, SIZE // 2, 0, 2),
        (upper, 2, SIZE - 1, 1, 1),
        (upper, 1, 2 * SIZE - 1, 0, 0),
        (lambda _: b"", 2, 1, 0, 1),
    ],
)
def test_a_reply_without_its_end_is_wrong_and_half_of_one_still_comes(
    expect: Expect, asked: int, length: int, wrong: int, lost: int
) -> None:
    """A slow network brings it in pieces; a server may leave out its end."""
    stream = Stream(expect)
    with closing(stream.load.connection), stream.server:
        stream.load.offer(asked, 0.0)
        stream.load.flush()
        stream.server.sendall(b"".join(stream.workload.replies)[:length])
        stream.load.receive()
        stream.load.abandon()
    assert (stream.counts.wrong, stream.counts.lost) == (wrong, lost)


def test_a_reply_after_the_timeout_is_late(stream: Stream) -> None:
    stream.load.offer(2, 0.0)
    stream.load.flush()
    replies = stream.server.recv(65536).upper()
    for now, reply in ((0.5, replies[:SIZE]), (1.5, replies[SIZE:])):
        stream.clock.now = now
        stream.server.sendall(reply)
        stream.load.receive()
    assert (stream.counts.received, stream.counts.late) == (1, 1)


class Datagrams:
    """A load on one end of a pair of datagram sockets, a test on the other."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.counts = Counts(Latencies())
        workload = Workload(upper, SIZE, 50, b"")
        ours, self.server = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self.load = DatagramLoad(ours, plan(udp=True), workload, self.counts, self.clock)

    def ask(self, number: int) -> list[bytes]:
        self.load.offer(number, self.clock.now)
        assert self.load.flush()
        return [self.server.recv(100).upper() for _ in range(number)]

    def answer(self, *replies: bytes) -> None:
        for reply in replies:
            self.server.send(reply)
        while self.counts.received_bytes < self._answered + sum(map(len, replies)):
            self.load.receive()
        self._answered = self.counts.received_bytes

    _answered = 0

    def outcome(self) -> tuple[int, int, int, int, int]:
        counts = self.counts
        return (counts.received, counts.lost, counts.late, counts.duplicates, counts.wrong)


@pytest.fixture
def pair() -> Iterator[Datagrams]:
    made = Datagrams()
    with closing(made.load.connection), made.server:
        yield made


def test_datagrams_that_the_kernel_does_not_take_are_sent_later(pair: Datagrams) -> None:
    pair.load.offer(1_000, 0.0)
    came = 0
    while not pair.load.flush():
        pair.server.recv(100)
        came += 1
    assert came > 0
    assert pair.counts.sent_bytes == 1_000 * SIZE


def test_what_the_system_says_of_a_datagram_is_said(
    pair: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair.load, "connection", Refusing(errno.ENETUNREACH))
    pair.load.offer(1, 0.0)
    with pytest.raises(NetworkError, match=r"cannot reach UDP .*: Network is unreachable"):
        pair.load.flush()


def test_a_reply_that_is_late_is_late_before_anybody_has_looked_at_the_clock(
    pair: Datagrams,
) -> None:
    replies = pair.ask(1)
    pair.clock.now = 1.5
    pair.answer(*replies)
    assert pair.outcome() == (0, 0, 1, 0, 0)


def test_datagrams_may_come_in_any_order(pair: Datagrams) -> None:
    pair.answer(*reversed(pair.ask(10)))
    assert pair.outcome() == (10, 0, 0, 0, 0)


def test_datagrams_lost_late_duplicate_and_wrong_are_told_apart(pair: Datagrams) -> None:
    first, second, third, _ = pair.ask(4)
    pair.answer(first, first, b"?" + second[1:])
    pair.clock.now = 1.0
    assert pair.load.expire(1.0) == 2
    pair.answer(third)
    assert pair.outcome() == (1, 1, 1, 1, 1)
    assert pair.counts.pending == 0


def test_a_reply_with_more_at_its_end_is_wrong(pair: Datagrams) -> None:
    [reply] = pair.ask(1)
    pair.server.send(reply + b"?")
    pair.load.receive()
    assert pair.outcome() == (0, 0, 0, 0, 1)


def test_a_wrong_reply_put_down_to_another_datagram_costs_it_nothing(pair: Datagrams) -> None:
    """A garbled reply does not say whose it is; the oldest is blamed, until its own comes."""
    oldest, _ = pair.ask(2)
    pair.answer(b"?")
    pair.answer(oldest)
    assert pair.outcome() == (1, 0, 0, 0, 1)
    assert pair.counts.pending == 0


def test_a_wrong_reply_that_nothing_awaits_takes_nothing_from_the_received(pair: Datagrams) -> None:
    pair.answer(*pair.ask(3))
    pair.answer(b"?")
    assert pair.outcome() == (3, 0, 0, 0, 1)


def test_replies_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(UserError, match="cannot be told apart"):
        Workload.of(plan(udp=True), lambda message: b"ok")


@pytest.mark.parametrize(
    ("planned", "transmitted", "said"),
    [
        (plan(udp=True), 20_000, True),
        (plan(udp=True), 9_999, False),
        (plan(udp=True, rate=10), 20_000, False),
        (plan(), 20_000, False),
    ],
)
def test_losses_of_a_socket_in_lock_step_are_explained(
    planned: Plan, transmitted: int, said: bool
) -> None:
    """Its server takes it for a loop; only a long run over UDP with a pipeline of 1 can be that."""
    counts = Counts(Latencies(), transmitted=transmitted, answered=transmitted - 1, lost=1)
    assert ("--pipeline=2" in Display(planned, counts, False).as_text()) is said


def test_an_open_loop_plans_at_a_fixed_rate_until_the_end() -> None:
    open_loop = plan(rate=10)
    assert [open_loop.due(elapsed) for elapsed in (0.0, 0.05, 0.1, 0.95, 1.0, 5.0)] == [
        *(1, 1, 2, 10, 10, 10)
    ]
    assert open_loop.planned(7) == pytest.approx(0.7)
