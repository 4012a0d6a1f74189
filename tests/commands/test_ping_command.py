"""`uppercase ping` as a process, against honest servers and liars."""

import errno
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.client.in_reactor import reactor
from tests.client.servers import (
    Server,
    TcpBehaviour,
    UdpBehaviour,
    UdpRequest,
    both,
    close_unanswered,
    drop,
    duplicate,
    free_port,
    honest,
    one_slow_reply,
    reset,
    silent,
    silent_stream,
    strip_newline,
    tcp_server,
    udp_server,
    wrong,
    wrong_stream,
)
from tests.commands.certificates import make_certificate
from tests.commands.command import Outcome, Piped, environment, run, terminal
from uppercase.commands._report import print_object
from uppercase.commands.ping import coloured


def ping(*arguments: str) -> Outcome:
    return run("ping", *arguments)


def objects(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def test_each_reply_is_a_line_in_the_shape_of_ping() -> None:
    with udp_server() as server:
        outcome = ping("-u", "-c", "3", "-i", "10ms", server.address)
    lines = outcome.stdout.decode().splitlines()
    where = server.address
    assert lines[0] == f"PING {where} (UDP): 64 bytes, expecting uppercase"
    for seq, line in enumerate(lines[1:4], 1):
        assert line.startswith(f"64 bytes from {where}: seq={seq} time=")
        assert line.endswith(" ms")
    assert lines[5] == f"--- {where} ping statistics ---"
    assert lines[6].startswith("3 packets transmitted, 3 received, 0% packet loss, time ")
    assert lines[7] == "0 lost, 0 late, 0 duplicates, 0 reordered, 0 wrong"
    assert lines[8].startswith("rtt min/avg/max/mdev = ")
    assert lines[9].startswith("rtt p50/p95/p99 = ")
    assert lines[9].endswith(" ms")
    assert (outcome.status, outcome.stderr) == (0, "")


def test_a_probe_is_a_line_on_one_connection() -> None:
    with tcp_server() as server:
        outcome = ping("-c", "3", "-i", "10ms", "-s", "32", server.address)
    assert outcome.status == 0
    assert len(server.peers) == 1
    received = b"".join(server.received)
    assert (len(received), received.count(b"\n")) == (96, 3)


def test_a_unix_socket_is_pinged_too(tmp_path: Path) -> None:
    """Whose name may be no text."""
    path = str(tmp_path / "socket\udcff")
    with tcp_server(unix=path):
        outcome = ping("--unix", path, "-c", "1")
    assert outcome.status == 0
    assert "/socket\\udcff: seq=1" in outcome.stdout.decode()


def test_tls_is_pinged_too(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with tcp_server(wrap=certificate.wrap) as server:
        options = ["--tls", "-c", "3", "-i", "10ms", server.address]
        assert ping("--ca", str(certificate.path), *options).status == 0
        assert "not trusted" in ping(*options).stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_refusal_leads_to_the_next_address_of_the_name(host: str, both_families: str) -> None:
    """All probes are sent there, as if it had been the first."""
    with udp_server(host=host) as server:
        where = f"{both_families}:{server.port}"
        outcome = ping("-u", "-c", "3", "-i", "10ms", "--json", where)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert [each.get("seq") for each in objects(outcome)] == [1, 2, 3, None]
    assert (objects(outcome)[-1]["transmitted"], objects(outcome)[-1]["error"]) == (3, None)
    assert len(server.received) == 3


def test_a_refusal_after_a_reply_ends_it(both_families: str) -> None:
    """A server that has gone is not looked for elsewhere."""
    with udp_server(host="127.0.0.1") as first, udp_server(honest, "::1", first.port) as second:

        def end() -> None:
            first.wait_for(2)
            first.ended.set()

        gone = threading.Thread(target=end)
        gone.start()
        outcome = ping("-u", "-i", "100ms", "-w", "20s", f"{both_families}:{first.port}")
        gone.join()
    assert outcome.status == 1
    assert "nothing listens" in outcome.stderr
    assert second.received == []


def misorder(request: UdpRequest) -> None:
    request.reply(after=0.5 if request.index == 0 else 0.0)


@pytest.mark.parametrize(
    ("behave", "counts", "status"),
    [
        (drop(1), {"received": 2, "lost": 1}, 1),
        (duplicate(1), {"received": 3, "duplicates": 1}, 0),
        (misorder, {"received": 3, "reordered": 1}, 0),
        (wrong(1), {"received": 2, "wrong": 1}, 1),
    ],
)
def test_what_a_datagram_server_does_wrong_is_told_apart(
    behave: UdpBehaviour, counts: dict[str, int], status: int
) -> None:
    """Each is counted once, under one name."""
    expected = dict.fromkeys(("lost", "late", "duplicates", "reordered", "wrong", "pending"), 0)
    expected |= {"transmitted": 3, **counts}
    with udp_server(behave) as server:
        outcome = ping("-u", "-c", "3", "-i", "20ms", "-W", "1s", "--json", server.address)
    summary = objects(outcome)[-1]
    assert {key: summary[key] for key in expected} == expected
    assert outcome.status == status


@pytest.mark.parametrize(
    ("behave", "wrong", "lost"),
    [(wrong_stream, 1, 1), (silent_stream, 0, 2), (strip_newline, 1, 1)],
)
def test_what_a_stream_server_does_wrong_is_told_apart(
    behave: TcpBehaviour, wrong: int, lost: int
) -> None:
    """Replies without their newline run into one, which is wrong; the other is lost."""
    with tcp_server(behave) as server:
        outcome = ping("-c", "2", "-i", "20ms", "-W", "1s", "--json", server.address)
    summary = objects(outcome)[-1]
    assert outcome.status == 1
    assert (summary["wrong"], summary["lost"]) == (wrong, lost)


def test_the_summary_shows_where_a_wrong_reply_differs() -> None:
    with tcp_server(strip_newline) as server:
        outcome = ping("-c", "1", "-W", "1s", "-s", "16", server.address)
    line = next(line for line in outcome.stdout.decode().splitlines() if "differs" in line)
    assert line.startswith("the first wrong reply differs at byte 15: ")
    assert line.endswith("\\n'")


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (close_unanswered, "closed the connection after 0 replies\n"),
        (reset, "reset the connection after 0 replies\n"),
        # The system resets what is closed with a probe unread.
        (one_slow_reply, "(closed|reset) the connection after 1 reply; one that closes after each"),
    ],
)
def test_a_server_that_ends_the_connection_is_reported(behave: TcpBehaviour, words: str) -> None:
    with tcp_server(behave) as server:
        outcome = ping("-c", "9", "-i", "20ms", server.address)
    assert outcome.status == 1
    assert re.match(f"uppercase: TCP {server.address} {words}", outcome.stderr)
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("options", [["-u"], []])
def test_nothing_listening_is_said_at_once(options: list[str]) -> None:
    started = time.monotonic()
    address = f"127.0.0.1:{free_port()}"
    outcome = ping(*options, "-W", "30s", address)
    assert time.monotonic() - started < 10
    protocol = "UDP" if options else "TCP"
    assert outcome.stderr.startswith(f"uppercase: nothing listens on {protocol} {address}; start")
    assert b"statistics" not in outcome.stdout
    assert outcome.status == 1


def test_json_has_an_object_a_line_with_numbers_as_numbers() -> None:
    with udp_server(both(drop(1), wrong(2))) as server:
        outcome = ping("-u", "-c", "4", "-i", "10ms", "-W", "20s", "--json", server.address)
    found = objects(outcome)
    by_type: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        assert each["schema"] == 1
        by_type.setdefault(each["type"], []).append(each)
    # What is wrong, behind the third reply, is the fourth's where that is under way by then.
    assert {each["seq"] for each in by_type["reply"]} >= {1, 2, 3}
    reply = by_type["reply"][0]
    assert isinstance(reply["rtt_ms"], float)
    assert reply["reordered"] is False
    assert abs(reply["time"] - time.time()) < 60
    assert by_type["wrong"][0]["got"] == "?"
    summary = found[-1]
    assert summary["type"] == "summary"
    assert set(summary) == {
        *("schema", "type", "target", "transmitted", "received", "lost", "late", "duplicates"),
        *("reordered", "wrong", "pending", "loss", "elapsed_ms", "rtt_ms", "error"),
        "connections",
    }
    assert set(summary["rtt_ms"]) == {"min", "avg", "max", "mdev", "p50", "p95", "p99"}
    assert all(isinstance(value, float) for value in summary["rtt_ms"].values())


def test_json_suits_any_encoding(capsys: pytest.CaptureFixture[str]) -> None:
    """What the encoding of standard output lacks would be escaped, and not as JSON has it."""
    print_object("wrong", got="\xe9")
    said = capsys.readouterr().out
    assert said.isascii()
    assert json.loads(said)["got"] == "\xe9"


def test_json_tells_trouble_in_the_summary_too() -> None:
    with tcp_server(reset) as server:
        summary = objects(ping("-c", "3", "-i", "50ms", "--json", server.address))[-1]
    # Seldom Linux tells of the end before it tells that it is a reset, and then it just "closed".
    assert "the connection after 0 replies" in summary["error"]
    assert summary["rtt_ms"] is None


@pytest.mark.parametrize(("max_loss", "status"), [("0.4", 1), ("0.5", 0)])
def test_max_loss_decides_the_exit_status(max_loss: str, status: int) -> None:
    options = ["-u", "-q", "-c", "4", "-i", "10ms", "-W", "1s"]
    with udp_server(drop(0, 1)) as server:
        assert ping(*options, "--max-loss", max_loss, server.address).status == status


def test_quiet_leaves_only_the_summary_and_timestamps_precede_each_line() -> None:
    with udp_server() as server:
        quiet = ping("-u", "-q", "-c", "2", "-i", "10ms", server.address).stdout.decode()
        dated = ping("-u", "-D", "-c", "1", server.address).stdout.decode()
    assert "seq=" not in quiet
    assert "2 packets transmitted" in quiet
    line = dated.splitlines()[1]
    assert abs(float(line[1 : line.index("]")]) - time.time()) < 60


def test_the_deadline_ends_it_and_too_few_replies_by_then_are_a_failure() -> None:
    with udp_server() as server:
        started = time.monotonic()
        endless = ping("-u", "-q", "-i", "20ms", "-w", "300ms", server.address)
        assert time.monotonic() - started < 10
        too_many = ping("-u", "-q", "-i", "20ms", "-c", "999", "-w", "100ms", server.address)
    with udp_server(drop(0)) as server:
        started = time.monotonic()
        patient = ping("-u", "-c", "1", "-w", "100ms", "-W", "1m", server.address)
        assert time.monotonic() - started < 30
    with tcp_server(silent_stream) as server:
        mute = ping("--tls", "--insecure", "-w", "300ms", server.address)
    assert (endless.status, too_many.status, patient.status, mute.status) == (0, 1, 1, 1)
    assert "did not answer within 0.3 s" in mute.stderr


def test_another_transform_can_be_expected_or_a_chain_of_them() -> None:
    def rot13_reversed(request: UdpRequest) -> None:
        table = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", b"nopqrstuvwxyzabcdefghijklm")
        request.reply(request.data.translate(table)[::-1])

    with udp_server(rot13_reversed) as server:
        options = ["-u", "-c", "1", server.address]
        assert ping(*options, "--expect=rot13", "--expect=reverse").status == 0
        assert ping(*options).status == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-i", "0"], "got an interval of 0 s; 0.001 s or more is accepted"),
        (["-i", "-1"], "got '-1'; a duration is a number of seconds, 0 or more"),
        (["-c", "0"], "got '0'; it must be more than 0"),
        (["-s", "3"], "got a size of 3 bytes"),
        (["-u", "-s", "65508"], "does not fit into one datagram"),
        (["--max-loss", "30"], "got '30'; a probability is a number from 0 to 1"),
        (["--expect", "uppercsae"], "did you mean 'uppercase'?"),
        (["--plot", "rtt.gif"], "the name of an SVG, PNG or PDF file"),
        (["--plot", "/dev/null/rtt.svg"], "cannot write --plot=/dev/null/rtt.svg"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_status_2(arguments: list[str], words: str) -> None:
    with udp_server() as server, tcp_server() as stream:
        address = server.address if "-u" in arguments else stream.address
        outcome = ping("-c", "1", *arguments, address)
    assert outcome.status == 2
    assert words in outcome.stderr
    assert b"seq=" not in outcome.stdout, "it measures first"


def test_a_process_that_may_open_no_more_files_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(client: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("twisted.internet.tcp.Client.createInternetSocket", refuse)
    outcome = ping("-4", f"127.0.0.1:{free_port()}")
    assert outcome.status == 2
    assert "uppercase: cannot open a socket: Too many open files; `ulimit -n`" in outcome.stderr


def test_lines_are_live_and_ctrl_c_prints_the_summary() -> None:
    with udp_server() as server, Piped("ping", "-u", "-i", "50ms", server.address) as process:
        process.stdout.readline()
        assert b"seq=1" in process.stdout.readline(), "the line is there while ping runs"
        process.send_signal(signal.SIGINT)
        ended = process.finish()
    assert b"packets transmitted" in ended.stdout
    assert (ended.status, ended.stderr) == (0, "")


def test_ctrl_backslash_shows_how_it_stands_and_goes_on() -> None:
    with udp_server() as server, Piped("ping", "-u", "-i", "50ms", server.address) as process:
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGQUIT)
        interim = process.stderr.readline().decode()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        ended = process.finish()
    assert "packets, 0% loss, min/avg/max = " in interim
    assert b"packets transmitted" in ended.stdout


def test_ctrl_c_stops_waiting_and_calls_what_is_awaited_neither_lost_nor_received() -> None:
    with (
        udp_server(silent) as server,
        Piped("ping", "-u", "-i", "10s", "-W", "60s", "--json", server.address) as process,
    ):
        server.wait_for(1)
        process.send_signal(signal.SIGINT)
        ended = process.finish()
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert (summary["transmitted"], summary["pending"], summary["lost"]) == (1, 1, 0)
    assert ended.status == 1, "nothing has been answered"


def test_a_reader_that_goes_away_ends_it_silently() -> None:
    with udp_server() as server, Piped("ping", "-u", "-i", "10ms", server.address) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.finish() == Outcome(-signal.SIGPIPE, b"", "")


def test_a_terminal_gets_a_histogram_that_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with (
        udp_server() as server,
        terminal("ping", "-u", "-c", "12", "-i", "5ms", server.address) as session,
    ):
        session.see("round trips")
        drawn = session.see_end()
        assert b" ms #" in drawn
        assert max(map(len, drawn.splitlines())) <= 40
        assert session.status() == 0


def test_ctrl_c_in_a_terminal_ends_with_the_summary() -> None:
    with (
        udp_server() as server,
        terminal("ping", "-u", "-i", "50ms", server.address) as session,
    ):
        session.see("seq=1")
        session.press("c")
        session.see("packets transmitted")
        assert session.status() == 0


def test_help_needs_neither_twisted_nor_the_drawing_libraries() -> None:
    """So that it stays quick."""
    code = (
        "import sys; from uppercase.__main__ import main; main(['ping', '--help']); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'twisted', 'hdrh', 'matplotlib'}))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(), check=True, timeout=30
    )
    assert outcome.stdout.splitlines()[-1] == b"[]"


def test_on_a_terminal_each_tag_has_a_colour_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = ("LOST", "LATE", "DUP", "WRONG", "REORDERED")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    colours = {coloured(f"seq=1 {tag}").partition(" ")[2].partition(tag)[0] for tag in tags}
    assert len(colours) == len(tags)
    # Black on a light one or white on a dark, of the eight that all have, whatever the ground is.
    assert all(re.match("\x1b\\[(30m\x1b\\[4[236]|37m\x1b\\[4[14])m", each) for each in colours)
    assert coloured("64 bytes: seq=1 time=1.0 ms") == "64 bytes: seq=1 time=1.0 ms"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("seq=1 DUP") == "seq=1 DUP"


def test_a_full_queue_of_this_host_is_waited_for_and_holds_nothing_else_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pair of sockets whose other end does not read stands for a network card that is busy."""
    full, had_its_turn = threading.Event(), threading.Event()

    class Ours(socket.socket):
        def send(self, *arguments: Any) -> int:
            try:
                return super().send(*arguments)
            except BlockingIOError:
                full.set()
                raise

    plain, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours = Ours(fileno=plain.detach())
    ours.setblocking(False)
    theirs.settimeout(20)

    def answer() -> None:
        full.wait(20)
        reactor.callFromThread(had_its_turn.set)
        if had_its_turn.wait(20):
            for _ in range(1000):
                theirs.send(theirs.recv(100).upper())

    monkeypatch.setattr("uppercase.commands.ping._run.connect_udp", lambda *_: ours)
    other_end = threading.Thread(target=answer)
    other_end.start()
    with udp_server() as server, theirs:
        outcome = ping("-u", "-c", "1000", "-i", "1ms", "-W", "20s", "-q", server.address)
        other_end.join()
    assert outcome.status == 0
    assert b"1000 packets transmitted, 1000 received" in outcome.stdout


def test_probes_that_find_no_room_for_too_long_end_it_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    monkeypatch.setattr("uppercase.commands.ping._run.connect_udp", lambda *_: ours)
    monkeypatch.setattr("uppercase.commands.ping._run.BACKLOG", 10 * 64)
    with udp_server() as server, theirs:
        outcome = ping("-u", "-i", "1ms", "-W", "20s", "-q", server.address)
    assert outcome.status == 1
    where = f"UDP {server.address}"
    assert f"11 probes to {where} wait for room in this host's queue" in outcome.stderr


@pytest.mark.parametrize("ending", [b"", b"ABC"])
def test_what_comes_before_a_reset_is_a_reply_before_the_end_is_told(ending: bytes) -> None:
    def reply_and_reset(connection: socket.socket, server: Server) -> None:
        connection.sendall(connection.recv(100).upper() + ending)
        reset(connection, server)

    with tcp_server(reply_and_reset) as server:
        outcome = ping("-i", "500ms", server.address)
    assert outcome.status == 1
    assert b" seq=1 time=" in outcome.stdout
    assert (b" WRONG" in outcome.stdout) == bool(ending)
    replies = "2 replies" if ending else "1 reply"
    assert f"TCP {server.address} reset the connection after {replies}" in outcome.stderr
