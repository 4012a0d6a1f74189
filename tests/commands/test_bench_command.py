"""`uppercase bench` as a command: how it loads a server, what it prints, and how it ends."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.client.servers import (
    Server,
    TcpBehaviour,
    UdpBehaviour,
    UdpRequest,
    break_off_after,
    drop,
    duplicate,
    free_port,
    late,
    never_read,
    silent,
    strip_newline,
    tcp_server,
    udp_server,
    wrong,
    wrong_stream,
)
from tests.commands.certificates import make_certificate
from tests.commands.command import Outcome, Piped, command_line, environment, run
from uppercase.__main__ import main


def bench(*arguments: str) -> Outcome:
    return run("bench", "--duration", "100ms", *arguments)


def summary(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("options", [[], ["--pipeline", "50"], ["--rate", "500"]])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_honest_server_is_measured(protocol: str, options: list[str]) -> None:
    udp = ["-u"] if protocol == "udp" else []
    with udp_server() if udp else tcp_server() as server:
        outcome = bench(*udp, "--connections", "3", "--json", *options, server.address)
    result = summary(outcome)
    assert (outcome.status, outcome.stderr) == (0, "")
    # On a busy machine a run of 0.1 s may be one turn.
    assert result["transmitted"] == result["received"] >= 3
    assert {result[key] for key in ("lost", "late", "duplicates", "wrong", "pending")} == {0}
    assert result["messages_per_s"] > 0
    latency = result["latency_ms"]
    assert latency["min"] <= latency["p50"] <= latency["p99"] <= latency["p99_9"]
    if "--rate" in options:
        assert result["transmitted"] <= 50
        assert (result["loop"], result["rate"]) == ("open", 500)


def test_connections_are_as_many_as_asked_for() -> None:
    with tcp_server() as server:
        assert bench("--connections", "5", server.address).status == 0
    assert len(server.peers) == 5


def test_tls_is_measured_too(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with tcp_server(wrap=certificate.wrap) as server:
        options = ["--tls", "--ca", str(certificate.path), "--size", "100k", "--pipeline", "3"]
        assert bench(*options, "--connections", "2", server.address).status == 0
    with tcp_server(host="::1", wrap=certificate.wrap) as server:
        # The scope of an address is no part of a certificate.
        assert bench(*options, f"[::1%1]:{server.port}").status == 0


def test_large_messages_are_whole() -> None:
    with tcp_server() as server:
        outcome = bench("--size", "1M", "--connections", "2", "--json", server.address)
    assert outcome.status == 0
    assert summary(outcome)["received"] >= 2


def test_the_summary_has_units() -> None:
    with tcp_server() as server:
        text = bench(server.address).stdout.decode()
    assert text.startswith(f"BENCH {server.address} closed loop, pipeline 1, 8 connections, ")
    assert " messages/s, " in text
    assert " MB/s sent, " in text
    assert "latency p50/p90/p95/p99/p99.9 = " in text
    assert "% of a core" in text


def pause_once(connection: socket.socket, server: Server) -> None:
    while data := connection.recv(65_536):
        if not server.received:
            time.sleep(0.4)
        server.received.append(data)
        connection.sendall(data.upper())


def test_a_pause_of_the_server_is_seen_in_the_open_loop_and_hidden_by_the_closed_one() -> None:
    """Coordinated omission: one that waits for the reply does not send while the server pauses."""
    options = ["--duration", "800ms", "--connections", "1", "--json"]
    with tcp_server(pause_once) as server:
        planned = summary(bench(*options, "--rate", "200", server.address))["latency_ms"]
    with tcp_server(pause_once) as server:
        closed = summary(bench(*options, server.address))["latency_ms"]
    assert planned["p90"] > 200
    assert closed["p90"] < 100
    assert closed["max"] > 300


@pytest.mark.parametrize(
    ("behave", "key"),
    [
        (drop(3), "lost"),
        (late(0.9, 3), "late"),
        (duplicate(3), "duplicates"),
        (wrong(3), "wrong"),
    ],
)
def test_what_a_datagram_server_does_wrong_is_counted(behave: UdpBehaviour, key: str) -> None:
    # Few and patient: on a busy machine no other reply must be late.
    options = ["-u", "--connections=2", "--rate=40", "--duration=1200ms", "-W", "600ms", "--json"]
    with udp_server(behave) as server:
        outcome = bench(*options, server.address)
    result = summary(outcome)
    counts = {name: result[name] for name in ("lost", "late", "duplicates", "wrong")}
    assert counts == {"lost": 0, "late": 0, "duplicates": 0, "wrong": 0, key: 1}
    assert outcome.status == (0 if key == "duplicates" else 1)


@pytest.mark.parametrize("behave", [wrong_stream, strip_newline])
def test_a_stream_that_is_wrong_is_reported(behave: TcpBehaviour) -> None:
    with tcp_server(behave) as server:
        outcome = bench("--connections", "1", "-W", "200ms", server.address)
    assert "the first wrong reply differs at byte" in outcome.stdout.decode()
    assert outcome.status == 1


def test_silence_is_loss_and_as_much_as_allowed_is_no_failure() -> None:
    def answer_most(request: UdpRequest) -> None:
        if request.index % 4:
            request.reply()

    with udp_server(silent) as server:
        assert bench("-u", "-W", "100ms", server.address).status == 1
    with tcp_server(never_read) as server:
        full = ["--size=60k", "--pipeline=99", "--connections=2"]
        outcome = bench("-W", "100ms", *full, server.address)
        assert outcome.status == 1
        assert b"198 messages transmitted, 0 received" in outcome.stdout
        assert b"198 lost" in outcome.stdout
    with udp_server(answer_most) as server:
        options = ["-u", "-W", "50ms", "--connections", "2"]
        assert bench(*options, server.address).status == 1
        assert bench(*options, "--max-loss", "0.6", server.address).status == 0


def test_a_closed_loop_goes_on_after_a_loss() -> None:
    with udp_server(drop(0)) as server:
        options = ["-u", "-W", "50ms", "--connections=1", "--duration=1s", "--json"]
        found = summary(bench(*options, server.address))
    assert found["lost"] >= 1
    assert found["received"] > 1


@pytest.mark.parametrize("load", [[], ["--rate=500"]])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_refusal_leads_to_the_next_address_of_the_name(
    host: str, load: list[str], both_families: str
) -> None:
    """What was refused is neither counted nor shown."""
    with udp_server(host=host) as server:
        where = f"{both_families}:{server.port}"
        outcome = bench("-u", "--json", "--duration=200ms", *load, where)
    assert (outcome.status, outcome.stderr) == (0, "")
    found = summary(outcome)
    assert (found["lost"], found["wrong"], found["error"]) == (0, 0, None)
    assert found["transmitted"] == found["received"] == len(server.received)
    types = [json.loads(line)["type"] for line in outcome.stdout.splitlines()]
    assert types == ["interval", "summary"]


def test_a_refusal_ends_all_connections_at_once() -> None:
    """Not only those that have had their turn in a slow open loop."""
    started = time.monotonic()
    outcome = bench("-u", "--rate=1", "--connections=60", "--duration=1m", f":{free_port()}")
    assert outcome.status == 1
    assert "nothing listens" in outcome.stderr
    assert time.monotonic() - started < 20


def test_a_connection_that_ends_is_reported_and_the_others_go_on() -> None:
    with tcp_server(break_off_after(10 * 64)) as server:
        outcome = bench("--connections", "2", server.address)
    assert outcome.status == 1
    # A server that closes before it has read everything resets the connection.
    words = rf"uppercase: TCP {server.address} (closed|reset) a connection after 10 replies\n"
    assert re.fullmatch(words, outcome.stderr)
    assert b"20 received" in outcome.stdout


@pytest.mark.parametrize("options", [["-u"], []])
def test_nothing_listening_is_said_at_once(options: list[str]) -> None:
    outcome = run("bench", *options, f"127.0.0.1:{free_port()}")
    assert "nothing listens on" in outcome.stderr
    assert b"statistics" not in outcome.stdout
    assert outcome.status == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "4"], "got a size of 4 bytes"),
        (["--size", "64k", "--pipeline", "100k"], "got '100k'"),
        (["--size", "64k", "--pipeline", "100000"], "would take over"),
        (["--rate", "0"], "got '0'; a whole number, 1 or more"),
        (["--rate", "10000000"], "at most 1000000 is accepted"),
        (["--expect", "uppercsae"], "did you mean 'uppercase'?"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments, f"127.0.0.1:{free_port()}"]) == 2
    assert words in capsys.readouterr().err


def test_json_has_an_interval_each_second_and_ends_with_the_summary() -> None:
    with udp_server() as server:
        options = ["-u", "--duration", "1200ms", "--rate", "10", "--json"]
        outcome = run("bench", *options, server.address)
    found = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [each["type"] for each in found] == ["interval", "interval", "summary"]
    assert all(each["schema"] == 1 for each in found)


def test_every_key_of_the_objects_is_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "ping-and-bench.md"
    documented = set(re.findall(r"`(\w+)`", page.read_text(encoding="utf-8")))
    with udp_server() as server:
        outcomes = (
            run("bench", "-u", "--duration", "1200ms", "--rate", "20", "--json", server.address),
            run("ping", "-u", "-c", "1", "--json", server.address),
        )
    for outcome in outcomes:
        for line in outcome.stdout.splitlines():
            fields = json.loads(line)
            keys = (
                {*fields, *(fields.get("latency_ms") or {}), *(fields.get("rtt_ms") or {})}
                if (fields["type"] == "summary")
                else set(fields)
            )
            assert keys - {"type"} <= documented


def test_ctrl_c_prints_the_summary() -> None:
    with (
        tcp_server() as server,
        Piped("bench", "--duration", "60s", "--rate", "100", server.address) as process,
    ):
        server.wait_for(20)
        process.send_signal(signal.SIGINT)
        ended = process.finish()
    assert b"throughput" in ended.stdout
    assert (ended.status, ended.stderr) == (0, "")
    # Nothing of what was planned for later.
    said = re.search(rb"(\d+) messages transmitted(?s:.*)up to (\S+) ms", ended.stdout)
    assert said is not None
    assert int(said[1]) < 6000
    assert float(said[2]) < 30_000


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_a_terminal_gets_a_progress_bar_beside_the_results(kind: str) -> None:
    """Not one that would show how the bar is drawn, as in an editor's window."""
    screen, terminal = pty.openpty()
    with tcp_server() as server:
        command = ("bench", "--duration", "1200ms", "--rate", "100", server.address)
        process = Piped(*command, stderr=terminal, env={"TERM": kind, "COLUMNS": "40"})
        os.close(terminal)
        seen = b""
        with suppress(OSError):  # what reading gives at the end of a pseudo-terminal
            while data := os.read(screen, 65_536):
                seen += data
        text = process.finish().stdout
    os.close(screen)
    assert (b"messages/s" in seen) == (b"\x1b" in seen) == (kind == "xterm"), seen
    # What goes on in a second line, as where type is large, would stay above the next.
    assert max(map(len, re.sub(rb"\x1b\[\?25.", b"", seen).splitlines()), default=0) <= 40
    assert b"\x1b" not in text


def test_a_terminal_has_its_cursor_though_a_signal_ends_it() -> None:
    """As of timeout(1); what draws the bar hides it."""
    screen, terminal = pty.openpty()
    with tcp_server() as server:
        command = ("bench", "--duration", "30s", "--rate", "100", server.address)
        with Piped(*command, stderr=terminal, env={"TERM": "xterm"}):
            os.close(terminal)
            seen = b""
            while seen.count(b"messages/s") < 2:
                seen += os.read(screen, 65_536)
    os.close(screen)
    assert b"\x1b[?25h" in seen.partition(b"messages/s")[2]


def test_without_its_library_bench_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['hdrh'] = None; "
        "from importlib import util; find = util.find_spec; "
        "util.find_spec = lambda name, *rest: None if name == 'hdrh' else find(name, *rest); "
        "from uppercase.__main__ import main; sys.exit(main(['bench']))"
    )
    command = [*command_line()[:1], "-c", code]
    outcome = subprocess.run(
        command, capture_output=True, env=environment(), timeout=30, check=False
    )
    assert b"pip install 'twisted-uppercase[bench]'" in outcome.stderr
    assert outcome.returncode == 2
