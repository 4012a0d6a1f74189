"""The lab as a class meets it: what the key says is what each client sees."""

import re
import socket
from contextlib import ExitStack, suppress

import pytest

from tests.commands.command import run_process as run
from tests.system.processes import Server

COUNT = 40


def key(*options: str) -> list[str]:
    """Return the answer key's lines without their numbers."""
    done = run("fates", *options, "-n", str(COUNT))
    assert done.status == 0, done.stderr
    return [line.split(None, 1)[1] for line in done.stdout.decode().splitlines()]


def replies(server: Server, clients: int) -> list[list[int]]:
    """Send numbered datagrams, stop the server; return how many replies came to each, by client.

    A server that has ended has sent all replies that there will be.
    """
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(clients)
        ]
        for client in sockets:
            client.connect(("127.0.0.1", server.port))
            for number in range(COUNT):
                client.send(b"datagram %d" % number)
        server.stop()
        return [_count(client) for client in sockets]


def _count(client: socket.socket) -> list[int]:
    counts = [0] * COUNT
    client.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            match = re.fullmatch(rb"DATAGRAM (\d+)", client.recv(2048))
            assert match
            counts[int(match[1])] += 1
    return counts


def expected(line: str) -> int:
    """Return how many replies a line of the key promises, for loss and duplication."""
    if "request lost" in line:
        return 0
    copies = 2 if "request duplicated" in line else 1
    return copies - line.count("reply lost") + line.count("reply duplicated")


@pytest.mark.parametrize(
    "options",
    [
        ["--loss=4/11"],
        ["--loss=both:0.2"],
        ["--loss=both:0.2", "--duplicate=0.3"],
        ["--lab=udp-pinger"],
        ["--burst-loss=0.1:0.3"],
    ],
)
def test_the_server_follows_the_key_for_every_client(options: list[str]) -> None:
    lines = key("--seed=7", *options)
    with Server("uppercase-udp", "--port=0", "--seed=7", *options) as server:
        seen = replies(server, 2)
    assert seen == [[expected(line) for line in lines]] * 2


def test_a_random_seed_is_logged_as_a_command_that_prints_the_key() -> None:
    with Server("uppercase-udp", "--port=0", "--loss=0.3") as server:
        log = server.wait_for_log("its answer key: uppercase fates --seed=")
        command = re.search(r"uppercase fates (.*)", log)
        assert command
        lines = key(*command[1].split())
        assert replies(server, 1) == [[expected(line) for line in lines]]


def test_a_preset_says_what_it_sets_and_where_it_departs_from_the_handout() -> None:
    with Server("uppercase-udp", "--port=0", "--lab=udp-pinger") as server:
        log = server.wait_for_log("udp-pinger: --loss=4/11")
        assert "36.4 %; the handout's text says 30 %" in log


def test_a_projector_shows_each_datagram_and_what_befell_it() -> None:
    arguments = ("uppercase-udp", "--port=0", "--loss=1", "--log-peers")
    with Server(*arguments) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", server.port))
        client.send(b"hello\x1b[31m")
        log = server.wait_for_log(r"   1  request lost: 10 bytes b'hello\x1b[31m'")
        assert "\x1b" not in log


def test_with_log_peers_each_datagram_has_one_line_that_begins_as_its_line_of_the_key() -> None:
    options = ["--loss=both:0.2", "--corrupt=both:0.2", "--delay=both:20ms", "--jitter=both:5ms"]
    options += ["--reorder=0.1"]
    lines = key("--seed=7", *options)
    with (
        Server("uppercase-udp", "--port=0", "--seed=7", "--log-peers", *options) as server,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        for number in range(COUNT):
            client.sendto(b"datagram %d" % number, ("127.0.0.1", server.port))
        server.stop()
        shown = re.findall(r"UDP: 127\.0\.0\.1:\d+ +(\d+)  ([^:]*): ", server.log())
    assert sorted((int(number), line) for number, line in shown) == list(enumerate(lines, 1))


def test_a_bad_lab_option_is_one_sentence() -> None:
    done = run("fates", "--seed=1", "--loss=2")
    assert done.status == 2
    assert "--loss: got '2'; a probability is a number from 0 to 1" in done.stderr
