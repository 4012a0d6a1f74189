"""What the exercises say of what programs have printed and sent, without the programs."""

import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

from tests.client.in_reactor import in_reactor
from uppercase.classroom.captive import OUTPUT, ObservedService
from uppercase.classroom.exercises import find_exercise
from uppercase.classroom.grade import Run, Trial, Wrong
from uppercase.classroom.record import Row
from uppercase.classroom.timeline import Timeline, title_of
from uppercase.lab import answer_key, make_experiment


class Judged(Trial):
    """A program that has done already what it would do."""

    def __init__(
        self, rows: Sequence[Row], output: str, complaint: str = "", status: int | None = 0
    ) -> None:
        super().__init__([])
        self._ran = Run(output, complaint, status, rows, Timeline.of({}, []), 0.0)
        self.labs: list[dict[str, Any]] = []

    def client(self, *_: Any, **lab: Any) -> Run:
        self.labs.append(lab)
        return self._ran


def wrong(name: str, done: Trial, **options: Any) -> dict[str, str]:
    """Return what is wrong with what a program has done, by check."""
    exercise = find_exercise(name).changed(name, options=options)
    found = {}
    for check in exercise.checks:
        try:
            check.examine(exercise.subject, done)
        except Wrong as error:
            found[check.name] = str(error)
    return found


def test_who_does_not_wait_gets_no_datagram_however_fast_the_machine_is() -> None:
    done = Judged([], "")
    wrong("udp-client", done)
    assert [lab["options"] for lab in done.labs[:3]] == [{"delay": "reply:50ms"}] * 3
    assert all("delay" not in lab["options"] for lab in done.labs[3:])


LOST = (4, 6, 8, 9)


def pinged(
    reply: str,
    loss: str = "Request timed out",
    summary: str = "40% loss",
    complaint: str = "",
) -> Judged:
    """Return a pinger that prints this for each reply and for each loss, and at the end."""
    rows: list[Row] = []
    for number in range(1, 11):
        row = {"time": float(number), "peer": "127.0.0.1:9", "number": number}
        rows.append({**row, "event": "received"})
        lost = {"event": "impaired", "actions": ["lost"]}
        rows.append({**row, **(lost if number in LOST else {"event": "replied"})})
    lines = [loss if number in LOST else reply for number in range(1, 11)]
    return Judged(rows, "\n".join([*lines, summary]), complaint)


@pytest.mark.parametrize(
    "done",
    [
        pinged("PING 1 RTT: 0.2003 seconds"),
        pinged("200 ms"),
        pinged("time = 200345 us"),
        pinged("200345 µs"),
        pinged("200345678 ns"),
        pinged("200345678 nanoseconds"),
        pinged("RTT 0,2003 s"),
        pinged("ping,1,0.2003"),
        pinged("RTT ٢٠٠٫٣ ms", summary="٤٠٫٠%"),
        pinged("estimated 0.21\nsample 0.2003\nPING 1"),
        pinged("0.2003", summary="min 0.2\nmax 0.3\navg 0.25\nloss 40 percent"),
        pinged("0.2003", summary="lost: 4, loss rate: 0.4"),
        pinged("0.2003", loss="2026-11-29 22:57:30,450 no response"),
        pinged("0.2003", summary="packets lost: 4\npercentage lost: 40,0 %"),
        # As Python prints a `timedelta`.
        pinged("RTT 0:00:00.200345"),
        pinged("RTT 0.2003", summary="min 0.2\nmax 0.3\navg 0.25\nmedian 0.2\nloss rate: 0.4"),
        pinged("0.2003\n0.2010"),
        pinged("0.2003", loss="timeout\nPing lost", summary="sent 10\nlost 4\n40 % loss"),
        pinged("0.2003", summary="lost in a row: 1\nlost in a row: 2\n40 %"),
        *(
            pinged("0.2003", loss=loss)
            for loss in (
                "Packet 4 dropped",
                "Ping 4: not received",
                "did not arrive",
                "No packet came",
                "Missing: 4",
                "socket.recv failed",
                "Ping 4 unanswered",
            )
        ),
        *(
            pinged("0.2003", summary=summary)
            for summary in (
                "Packet loss percentage: 40.0",
                "loss rate (%): 40",
                "packet_loss: .4",
            )
        ),
    ],
    ids=lambda done: ascii(done.client().output[:20]),
)
def test_a_pinger_may_say_it_in_its_own_way(done: Judged) -> None:
    """In any unit, with a decimal comma, in several lines, with a summary."""
    assert wrong("udp-pinger", done) == {}


@pytest.mark.parametrize(
    ("summary", "got"),
    [
        ("loss: 12.4", "no percentage"),
        ("loss: -40 %", "-40 %"),
        ("loss percentage: 66.7", "66.7 %"),
        ("lost: -0.4", "-40 %"),
        ("40\npercentage: unknown", "no percentage"),
    ],
)
def test_a_wrong_loss_rate_is_none(summary: str, got: str) -> None:
    """Such as one of which the tenths are the rate."""
    (said,) = wrong("udp-pinger", pinged("RTT 0.2003", summary=summary)).values()
    assert said == f"expected a loss of 40 %, as the record has it, got {got}"


@pytest.mark.parametrize("loss", ["*", "Request timed out\n" * 2, "lost, so RTT 0.2003"])
def test_a_line_that_is_not_due_is_none(loss: str) -> None:
    """Of a loss that is not told, or told of replies too; of a round trip that was none."""
    done = pinged("RTT 0.2003" if "RTT" in loss else f"{loss}\nRTT 0.2003", loss=loss)
    told = "prints each round trip" if "RTT" in loss else "tells of each loss"
    assert set(wrong("udp-pinger", done)) == {told}


@pytest.mark.parametrize(
    "done",
    [
        pinged("0.2003 ms"),
        pinged("0.2003 ns"),
        pinged("200.3 seconds"),
        pinged("0.1 s"),
        pinged("22:57:30,345 PING 1"),
        # The last reply's is printed again.
        pinged("RTT 0.2003", loss="Request timed out\nRTT 0.2003"),
    ],
    ids=lambda done: ascii(done.client().output[:20]),
)
def test_a_wrong_round_trip_is_none(done: Judged) -> None:
    """In another unit than it says, or a time of day."""
    assert set(wrong("udp-pinger", done)) == {"prints each round trip"}


def test_a_long_line_is_judged_in_no_time() -> None:
    """Such as of a program that prints a large number, or would keep the grader."""
    began = time.thread_time()
    wrong("udp-pinger", pinged("0.2003", summary=f"{'1' * 8000}\n{'lost ' * 8000}"))
    assert time.thread_time() < began + 0.5


WORDS = ("ALPHA", "BRAVO", "CHARLIE", "DELTA", "ECHO", "FOXTROT", "GOLF", "HOTEL")


def delivered(output: str) -> Judged:
    """Return a sender that prints this, and has got each reply from the service."""
    return Judged([{"event": "replied", "data": word} for word in WORDS], output)


LINES = "\n".join(WORDS)


@pytest.mark.parametrize(
    "output",
    [
        f"Client, server at 127.0.0.1:12000\n{LINES}\n8 lines delivered\n",
        "> " + LINES.replace("\n", "\n> ") + "\n> ",
        "".join(f"sending {word.lower()}\ntimeout, once more\n{word}\n" for word in WORDS),
        "".join(f"\x1b[32m{word}\x1b[0m\n" for word in WORDS),
        "".join(f"server:'{word}'.\n" for word in WORDS),
    ],
)
def test_lines_may_have_others_between_them(output: str) -> None:
    """Banners, prompts, time-outs, colours, quotes."""
    assert wrong("stop-and-wait", delivered(output)) == {}


@pytest.mark.parametrize(
    "output",
    [
        LINES.replace("ECHO", "echo"),
        LINES.replace("ECHO", "ECHO\nECHO"),
        LINES.replace("DELTA\nECHO", "ECHO\nDELTA"),
        LINES.replace("DELTA", "DELTQ\nDELTA"),
        LINES.replace("\n", " "),
        "",
    ],
)
def test_a_line_that_is_missing_twice_there_or_harmed_is_wrong(output: str) -> None:
    found = wrong("stop-and-wait", delivered(output))
    assert len(found) == 7
    assert all(("got none of them" in said) is (not output) for said in found.values())


def test_who_knows_no_reply_again_is_told_that_it_is_in_capitals() -> None:
    """As with a checksum of what was sent: it asks for ever. One that ends has another fault."""
    hint = "got none of them (the service has replied, in capitals: a checksum has to be of these)"
    rows = delivered("").client().rows
    (said, *_) = wrong("stop-and-wait", Judged(rows, "", status=None)).values()
    assert f"{hint} and had to be killed" in said
    for done in Judged(rows, ""), Judged([{"event": "received"}], "", status=None):
        assert "in capitals" not in "".join(wrong("stop-and-wait", done).values())


def test_a_reply_that_never_came_is_not_printed() -> None:
    rows: list[Row] = [{"time": 0.0, "event": "received", "data": "hello world"}]
    found = wrong("udp-client", Judged(rows, "HELLO WORLD"))
    assert set(found) == {"prints the reply", "ends without a reply"}
    assert "as none came" in found["ends without a reply"]


def test_who_asks_nobody_gets_no_points_for_its_end() -> None:
    for name in ("tcp-client", "udp-client", "udp-pinger", "stop-and-wait"):
        found = wrong(name, Judged([], ""))
        assert len(found) == len(find_exercise(name).checks)
        assert all("(--port is for a fixed port), got nothing" in said for said in found.values())


def test_a_sentence_tells_output_from_standard_error() -> None:
    """Such as of a program that logs instead of printing."""
    rows: list[Row] = [{"event": "chunk", "direction": "request", "data": "hello world"}]
    found = wrong("tcp-client", Judged(rows, "here: ", "URYYB JBEYQ", 1))
    assert found["prints the reply"] == (
        "expected the reply of this service, 'URYYB JBEYQ', in its output, got 'here: ' and, on "
        "standard error, URYYB JBEYQ"
    )
    assert found["ends with status 0"].endswith("got 1 and, on standard error, URYYB JBEYQ")
    logs = wrong("udp-pinger", pinged("", loss="", summary="", complaint="INFO: 40% loss"))
    assert len(logs) == 3
    assert all(said.endswith(" and, on standard error, INFO: 40% loss") for said in logs.values())


def test_who_prints_more_than_is_read_is_told_so() -> None:
    """Such as a line each time that it looks for the reply, which comes after all of them."""
    for size, ends in ((OUTPUT - 1, "'"), (OUTPUT, "' (of its output, the first 64 KiB are read)")):
        found = wrong("tcp-client", Judged([{"event": "opened"}], "." * size))
        assert found["prints the reply"].endswith(f"..{ends}")


def test_who_was_killed_with_nothing_said_may_have_said_something() -> None:
    """Written to a file, C's and Ruby's output waits until it is flushed, unlike on a terminal."""
    for output, ends in (("", "'' and had to be killed (what it has not flushed is lost)"),
                         ("hi", "'hi' and had to be killed")):  # fmt: skip
        found = wrong("tcp-client", Judged([{"event": "opened"}], output, status=None))
        assert found["prints the reply"].endswith(f"got {ends}")


def test_who_waits_for_the_end_of_a_connection_is_told_when_it_comes() -> None:
    """Not after a reply, as of the lecture's server; a client that ends its side first gets it."""
    rows: list[Row] = [{"event": "opened"}, {"event": "chunk", "direction": "reply", "data": "x"}]
    found = wrong("tcp-client", Judged(rows, "", status=None))
    after = "(the service ends a connection after its client does, not after a reply)"
    assert found["prints the reply"].endswith(f"got '' and had to be killed {after}")
    assert after not in wrong("tcp-client", Judged(rows, ""))["prints the reply"]


def test_an_exit_status_is_told_as_a_shell_does() -> None:
    for status, shown in ((3, "3"), (-11, "Segmentation fault")):
        found = wrong("tcp-client", Judged([{"event": "opened"}], "hi", status=status))
        assert found["ends with status 0"] == f"expected exit status 0, got {shown}"


@in_reactor
async def test_a_program_with_many_sockets_is_one_client() -> None:
    """Else one with a socket for each message would meet the first fate again and again."""

    deadline = time.monotonic() + 30

    def talk() -> Sequence[Row]:
        with ObservedService(udp=True, options={"loss": "0.5"}, seed=5) as service:
            for _ in range(8):
                with socket.socket(type=socket.SOCK_DGRAM) as skt:
                    skt.sendto(b"x", ("127.0.0.1", service.port))
            # A line for the record, two for each datagram.
            while len(service.record().splitlines()) < 1 + 8 * 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        return service.seen()[1]

    rows = await deferToThread(talk)
    assert [row["number"] for row in rows if row["event"] == "received"] == [*range(1, 9)]
    key = answer_key(make_experiment({"loss": "0.5"}, seed=5), 8)
    wanted = [row.number for row in key if not row.request.copies]
    assert [row["number"] for row in rows if row["event"] == "impaired"] == wanted


def test_who_meets_no_loss_gets_no_points_for_it() -> None:
    """Such as one that sends a single ping, or waits for ever for the first that is lost."""
    for count in (1, 4):
        rows = [row for row in pinged("").client().rows if row["number"] <= count]
        found = wrong("udp-pinger", Judged(rows, "0.2003\n" * 3, status=None))
        assert {"waits a second for each reply", "tells of each loss"} <= set(found)


@in_reactor
async def test_a_checksum_may_stand_before_the_text() -> None:
    """The record has the text nonetheless, by which it is known to come from the service."""
    message = b"f" * 128 + b"|alpha"

    def talk() -> Sequence[Row]:
        with ObservedService(udp=True) as service, socket.socket(type=socket.SOCK_DGRAM) as skt:
            skt.settimeout(30)
            skt.sendto(message, ("127.0.0.1", service.port))
            skt.recv(1000)
        return service.seen()[1]

    rows = await deferToThread(talk)
    replies = [row["data"] for row in rows if row["event"] == "replied"]
    assert replies == [message.upper().decode()]


class Fake:
    """A program that is no process; it has ended if it has last words."""

    def __init__(self, port: int, words: str = "", complaint: str = "") -> None:
        self.port, self._words, self._complaint = port, words, complaint

    def wait(self, seconds: float) -> None:
        pass

    def gone(self, kind: str) -> bool:
        return bool(self._words)

    def last_words(self) -> str:
        return self._words

    def complaint(self) -> str:
        return self._complaint


@contextmanager
def answering(kind: int, replies: Sequence[bytes], pause: float = 0.0) -> Iterator[int]:
    """Answer the first message by these, over TCP with a pause after each; return the port."""
    with socket.socket(type=kind) as skt:
        skt.bind(("127.0.0.1", 0))
        skt.settimeout(30)

        def answer() -> None:
            if kind == socket.SOCK_DGRAM:
                _, peer = skt.recvfrom(1 << 16)
                for reply in replies:
                    skt.sendto(reply, peer)
                return
            connection, _ = skt.accept()
            with connection, suppress(OSError):  # who has enough of it goes
                connection.settimeout(30)
                connection.recv(1 << 16)
                for reply in replies:
                    connection.sendall(reply)
                    time.sleep(pause)
                while connection.recv(1 << 16):
                    pass

        if kind == socket.SOCK_STREAM:
            skt.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        yield int(skt.getsockname()[1])
        thread.join(30)


def asked(
    name: str,
    message: bytes,
    *replies: bytes,
    words: str = "",
    complaint: str = "",
    number: int = 1,
    pause: float = 0.0,
) -> str:
    """Return what is wrong with a server that answers a message so."""
    kind = socket.SOCK_DGRAM if name == "udp-server" else socket.SOCK_STREAM
    server = find_exercise(name).changed("x", options={"seconds": 0.3}).subject
    with answering(kind, replies, pause) as port:
        try:
            server.ask(Trial([]), Fake(port, words, complaint), number, message)
        except Wrong as error:
            return str(error)
    return ""


def test_a_datagram_has_one_reply() -> None:
    assert asked("udp-server", b"one", b"ONE") == ""
    assert asked("udp-server", b"one", b"ONE", b"ONE").endswith("got 'ONE' and then 'ONE'")


def test_a_reply_by_another_socket_is_none_and_is_said_to_be_one() -> None:
    """As by a thread that has a DatagramSocket of its own; a network's NAT would drop it."""
    exercise = find_exercise("udp-server").changed("x", options={"seconds": 0.3}).subject
    kind = {"type": socket.SOCK_DGRAM}
    with socket.socket(**kind) as server, socket.socket(**kind) as other:
        for each in server, other:
            each.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        thread = threading.Thread(target=lambda: other.sendto(b"ONE", server.recvfrom(9)[1]))
        thread.start()
        with pytest.raises(Wrong, match=f"got 'ONE' from port {port}; it must come from the one"):
            exercise.ask(Trial([]), Fake(server.getsockname()[1]), 1, b"one")
        thread.join(30)


def test_of_much_that_came_a_sentence_has_what_is_wrong() -> None:
    sent = b"x" * 1000
    said = asked("udp-server", sent, b"X" * 600 + b"\n" + b"X" * 400)
    assert said.endswith(rf"got 1001 bytes, wrong from byte 601 on: '\n{'X' * 19}'…")


def test_who_waits_for_more_is_told_that_none_comes() -> None:
    said = asked("tcp-server", b"one")
    assert said.endswith("must not wait for more, such as a newline or the end, and must flush")
    assert "must not" not in asked("tcp-server", b"one\n", b"ONE")
    assert "client before may still keep it busy" in asked("tcp-server", b"two", number=2)


def test_who_does_not_end_a_connection_is_told_that_it_should() -> None:
    """Not that the reply, which is right, was expected."""
    exercise = find_exercise("tcp-server").changed("x", options={"seconds": 0.3}).subject
    end = "and then the end of the connection"
    with (
        answering(socket.SOCK_STREAM, [b"HALF"], pause=2) as port,
        pytest.raises(
            Wrong, match=f"sent 'half' {end}, expected 'HALF' {end}, got 'HALF' and then n"
        ),
    ):
        exercise.ask(Trial([]), Fake(port), 1, b"half", end=True)


def test_a_wrong_reply_is_wrong_whatever_its_server_does_then() -> None:
    """Such as ending a connection of which we have ended our side: nobody has that any more."""
    exercise = find_exercise("tcp-server").subject
    with (
        answering(socket.SOCK_STREAM, [b"half"]) as port,
        pytest.raises(Wrong, match=r"got 'half'$"),
    ):
        exercise.ask(Trial([]), Fake(port), 1, b"half", end=True)


def test_who_listens_on_another_address_is_told_so() -> None:
    """As Node.js does where `localhost` is `::1` first."""
    server = find_exercise("tcp-server").subject
    with socket.create_server(("127.0.0.2", 0)) as skt:
        port = skt.getsockname()[1]
        with pytest.raises(Wrong, match=r"refused; it listens, but not on 127\.0\.0\.1$"):
            server.ask(Trial([]), Fake(port, ""), 1, b"one")
    with pytest.raises(Wrong, match=r"refused; it has ended, its last words are: bye$"):
        server.ask(Trial([]), Fake(port, "bye"), 1, b"one")


@pytest.mark.parametrize("ends", ["closes", "shuts down, closes", "shuts down, waits, closes"])
def test_a_server_that_closes_first_and_waits_for_our_end_gets_it(ends: str) -> None:
    """One that has let go is spared TIME_WAIT instead, and can be started again at once."""
    waits = "waits" in ends
    exercise = find_exercise("tcp-server").subject
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())
                if ends != "closes":
                    connection.shutdown(socket.SHUT_WR)
                    time.sleep(0.03)
                if waits:
                    came.append(connection.recv(1))

        thread = threading.Thread(target=serve)
        thread.start()
        exercise.ask(Trial([]), Fake(place[1], ""), 1, b"one")
        thread.join(30)
    assert came == [b""] * waits
    if not waits:
        with socket.socket() as again:
            again.bind(place)


def test_a_reply_that_drips_is_not_waited_for_to_its_end() -> None:
    """A check of 100,000 bytes would last for days."""
    began = time.monotonic()
    said = asked("tcp-server", b"x" * 2000, *[b"X"] * 2000, pause=0.02)
    assert said.endswith("and no end of it within 1.8 s")
    assert time.monotonic() < began + 20


@in_reactor
async def test_a_client_that_floods_is_ended_and_fills_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two seconds of it are in a record took a gibibyte to judge."""
    monkeypatch.setattr("uppercase.classroom.grade.RECORD", 20_000)
    monkeypatch.setattr("uppercase.classroom.grade.DRAWN", 20)
    path = tmp_path / "flood.py"
    path.write_text(
        "import os, socket\n"
        "skt = socket.socket(type=socket.SOCK_DGRAM)\n"
        "skt.connect(('127.0.0.1', int(os.environ['UPPERCASE_PORT'])))\n"
        "while True: skt.send(b'x'), skt.recv(9)\n"
    )
    trial = Trial([sys.executable, "-SE", str(path)])
    began = time.monotonic()
    run = await deferToThread(lambda: trial.client(True, "", seconds=600.0, quiet=100.0))
    assert time.monotonic() < began + 60
    assert run.status is None
    assert 40 < len(run.rows) < 500
    assert title_of(run.timeline).endswith(f"the first 20 of {len(run.rows)} events")
    assert sum(map(len, run.timeline.clients.values())) <= 20


def test_a_server_that_has_ended_has_its_last_words_in_each_sentence() -> None:
    said = asked("udp-server", b"one", words="TypeError: no")
    ends = "got nothing within 0.3 s; it has ended, its last words are: TypeError: no"
    assert said.endswith(ends)


def test_a_server_that_goes_on_may_have_complained() -> None:
    """As of a thread of its own that has failed."""
    said = asked("udp-server", b"one", b"one", complaint="NullPointerException")
    assert said.endswith("got 'one'; on standard error: NullPointerException")
