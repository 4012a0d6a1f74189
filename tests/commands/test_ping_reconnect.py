"""`uppercase ping` against servers that close their connections after some replies."""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.servers import (
    Server,
    TcpBehaviour,
    break_off_after,
    close_unanswered,
    one_reply,
    reset,
    tcp_server,
)
from tests.commands.certificates import make_certificate
from tests.commands.command import Outcome, run
from tests.system.test_lecture import free_port, lecture_server
from uppercase.client.network import open_connection
from uppercase.commands.ping._tracker import Probes, Tracker, Verdict

INTERVAL = "300ms"
"""Longer than a server on a busy machine needs from its reply to its close."""


def ping(*arguments: str) -> Outcome:
    return run("ping", "-i", INTERVAL, *arguments)


def summary(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return found


def notice(address: str, replies: str) -> str:
    return (
        f"uppercase: TCP {address} closed the connection after {replies}, "
        "so each further probe has a connection of its own\n"
    )


def in_turn(*behaviours: TcpBehaviour) -> TcpBehaviour:
    """Behave differently on each connection, on the last ones alike."""

    def behave(connection: socket.socket, server: Server) -> None:
        behaviours[min(len(server.peers), len(behaviours)) - 1](connection, server)

    return behave


def half_a_reply(connection: socket.socket, server: Server) -> None:
    connection.sendall(connection.recv(64).upper()[:40])
    server.ended.wait(30)


def half_an_error(connection: socket.socket, server: Server) -> None:
    connection.sendall(b"ERROR")
    server.ended.wait(30)


@pytest.fixture
def lecture(tmp_path: Path) -> Iterator[str]:
    port = free_port(socket.SOCK_STREAM)
    with lecture_server("tcp_server.py", port, tmp_path):
        yield f"127.0.0.1:{port}"


def test_the_lectures_server_is_pinged_over_and_over(lecture: str) -> None:
    outcome = ping("-c", "5", lecture)
    assert outcome.status == 0, outcome.stderr
    assert b"5 packets transmitted, 5 received, 0% packet loss" in outcome.stdout
    assert outcome.stderr == notice(lecture, "1 reply"), "said once"


def test_json_counts_the_connections_and_leaves_stderr_alone(lecture: str) -> None:
    outcome = ping("-c", "3", "--json", lecture)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert (summary(outcome)["received"], summary(outcome)["connections"]) == (3, 3)


def test_the_lectures_server_is_free_for_others_between_the_probes(lecture: str) -> None:
    """It serves one client at a time: a connection made ahead would keep everybody out."""
    host, _, port = lecture.partition(":")
    asked: list[bytes] = []

    def ask() -> None:
        with socket.create_connection((host, int(port)), timeout=10) as other:
            other.sendall(b"me too")
            asked.append(other.recv(100))

    between = threading.Timer(0.5, ask)
    between.start()
    outcome = ping("-i", "2s", "-c", "2", lecture)
    between.join()
    assert (outcome.status, asked) == (0, [b"ME TOO"])


def test_one_probe_needs_no_further_connection_and_no_word_about_it() -> None:
    with tcp_server(one_reply) as server:
        outcome = ping("-c", "1", server.address)
    assert (outcome.status, outcome.stderr, len(server.peers)) == (0, "", 1)


def test_a_server_that_closes_after_some_replies_is_pinged_on() -> None:
    with tcp_server(break_off_after(3 * 64)) as server:
        outcome = ping("-c", "6", server.address)
    assert (outcome.status, outcome.stderr) == (0, notice(server.address, "3 replies"))
    assert len(server.peers) == 4


@pytest.mark.parametrize(
    ("behaviours", "wrong"),
    [([half_a_reply], 0), ([one_reply, half_a_reply], 0), ([one_reply, half_an_error], 1)],
)
def test_half_a_reply_is_not_wrong_on_a_shared_connection_nor_on_one_of_its_own(
    behaviours: list[TcpBehaviour], wrong: int
) -> None:
    with tcp_server(in_turn(*behaviours)) as server:
        outcome = ping("-c", f"{len(behaviours)}", "-W", "700ms", "--json", server.address)
    assert (summary(outcome)["lost"], summary(outcome)["wrong"]) == (1 - wrong, wrong)


def test_a_unix_socket_is_pinged_on_too(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with tcp_server(one_reply, unix=path):
        assert ping("--unix", path, "-c", "3").status == 0


def test_a_slow_handshake_is_no_part_of_the_round_trip(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)

    def wrap(connection: socket.socket) -> socket.socket:
        time.sleep(1.5)
        return certificate.wrap(connection)

    def reply_and_goodbye(connection: socket.socket, server: Server) -> None:
        one_reply(connection, server)
        connection.unwrap()  # type: ignore[attr-defined]  # it is an ssl.SSLSocket

    with tcp_server(reply_and_goodbye, wrap=wrap) as server:
        options = ["--tls", "--ca", str(certificate.path), "-c", "3", "--json", server.address]
        found = summary(ping(*options))
    assert (found["received"], found["connections"]) == (3, 3)
    assert found["rtt_ms"]["max"] < 1400
    assert found["elapsed_ms"] < 3000, "the handshakes are made at the same time"


@pytest.mark.parametrize("behave", [close_unanswered, reset])
def test_a_connection_of_its_own_that_ends_unanswered_is_a_lost_probe(behave: TcpBehaviour) -> None:
    """The next one is answered again, and the loss is counted."""
    with tcp_server(in_turn(one_reply, behave, one_reply)) as server:
        outcome = ping("-c", "3", "-W", "500ms", "--json", server.address)
    found = summary(outcome)
    assert (outcome.status, found["received"], found["lost"], found["error"]) == (1, 2, 1, None)


def test_a_server_that_has_gone_ends_it_with_a_sentence() -> None:
    """As with datagrams: it is refused, and not looked for any longer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_one_and_go() -> None:
            connection, _ = listener.accept()
            listener.close()
            with connection:
                connection.sendall(connection.recv(1024).upper())

        server = threading.Thread(target=answer_one_and_go)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        server.start()
        outcome = ping("-c", "9", address)
        server.join()
    assert outcome.status == 1
    assert re.search(f"uppercase: nothing listens on TCP {address}; start", outcome.stderr)
    assert b"2 packets transmitted, 1 received" in outcome.stdout


def test_connecting_holds_up_neither_the_schedule_nor_the_end() -> None:
    """The server's queue is full after the first: connections are ignored, the probes are lost."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(2)]

        def answer_one_and_fill_the_queue() -> None:
            connection, _ = listener.accept()
            data = connection.recv(1024)
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            with connection:
                connection.sendall(data.upper())

        server = threading.Thread(target=answer_one_and_fill_the_queue)
        server.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        outcome = ping("-c", "6", "-W", "400ms", "--json", address)
        server.join()
        for filler in fillers:
            filler.close()
    found = summary(outcome)
    assert (outcome.status, found["transmitted"], found["lost"], found["error"]) == (1, 6, 5, None)
    assert found["elapsed_ms"] < 3000, "one after the other they would take 5 time-outs of ours"


@pytest.mark.skipif(sys.platform != "linux", reason="others wait for the queue, or refuse")
def test_a_unix_socket_whose_queue_is_full_costs_the_probe_alone(tmp_path: Path) -> None:
    """There the system refuses at once; the server takes no more than one in this test."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)

        def answer_one_and_fill_the_queue() -> None:
            connection, _ = listener.accept()
            data = connection.recv(1024)
            filler.connect(path)
            with connection:
                connection.sendall(data.upper())

        server = threading.Thread(target=answer_one_and_fill_the_queue)
        server.start()
        outcome = ping("-c", "3", "-W", "400ms", "--json", "--unix", path)
        server.join()
    found = summary(outcome)
    assert (outcome.status, found["transmitted"], found["lost"], found["error"]) == (1, 3, 2, None)


def test_connections_that_get_no_reply_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uppercase.commands.ping._run.CONNECTIONS", 2)
    given_up: list[int] = []
    seen: list[int] = []

    def never_answer(connection: socket.socket, server: Server) -> None:
        seen.append(len(given_up))
        number = len(server.peers)
        while connection.recv(1024):
            pass
        given_up.append(number)

    with tcp_server(in_turn(one_reply, never_answer)) as server:
        found = summary(ping("-c", "8", "-W", "1s", "--json", server.address))
    assert (found["received"], found["lost"], found["connections"]) == (1, 7, 8)
    assert 1 <= seen[-1] <= 5
    assert given_up[:2] == [2, 3], "the oldest first"


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes after that go to the address that it led to."""
    asked: list[str | None] = []

    def note(*arguments: Any) -> Any:
        asked.extend(peer.host if peer else None for peer in arguments[3:])
        return open_connection(*arguments)

    monkeypatch.setattr("uppercase.commands.ping._run.open_connection", note)
    with tcp_server(one_reply) as server:
        assert ping("-c", "3", f"localhost:{server.port}").status == 0
    assert asked == ["127.0.0.1", "127.0.0.1"]


def test_the_time_that_connecting_takes_is_no_part_of_the_round_trip() -> None:
    tracker = Tracker(Probes(bytes.upper, 64, b"abcd", b"\n"), 1.0)
    first, second = tracker.send(0.0), tracker.send(0.1)
    tracker.restart(first, 0.5)
    assert tracker.next_expiry == 1.1, "the second is the next to be lost"
    found = tracker.receive(first.upper(), 0.75)
    assert (found.verdict, found.rtt) == (Verdict.REPLY, 0.25)
    tracker.expire(1.2)
    tracker.restart(second, 1.2)
    assert tracker.receive(second.upper(), 1.3).verdict is Verdict.LATE, (
        "it was lost before it was sent"
    )


def test_bench_says_that_it_needs_a_server_that_keeps_its_connections(
    lecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uppercase.commands.bench._plan.CONNECT_TIMEOUT", 1.0)
    # The system resets what is closed with a message unread: the next may come before the close.
    ended = "(closed|reset) a connection after 1 reply"
    for connections, words in (("1", ended), ("8", "let ")):
        outcome = run("bench", "--duration", "200ms", "--connections", connections, lecture)
        assert outcome.status == 1
        assert re.match(f"uppercase: TCP {lecture} {words}", outcome.stderr)
        assert "bench needs a server that keeps its connections" in outcome.stderr
        assert "firewall" not in outcome.stderr
