"""The exercises: reference solutions get all points, typical mistakes lose exactly their own."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from tests.client.in_reactor import in_reactor
from tests.system.processes import ROOT
from uppercase.classroom.exercises import find_exercise, find_exercises
from uppercase.classroom.grade import Exercise, Trial, grade
from uppercase.commands import _reactor

SOLUTIONS = ROOT / "examples" / "exercises"


def failed(exercise: Exercise, *command: str) -> "Deferred[dict[str, str]]":
    """Grade a program beside the tests' reactor; return what was wrong by check."""

    def wait(conversation: Any) -> Any:
        return blockingCallFromThread(
            _reactor.reactor, lambda: Deferred.fromCoroutine(conversation())
        )

    def work() -> dict[str, str]:
        trial = Trial(command, 0, _reactor.reactor, wait)
        return {
            mark.check.name: mark.sentence for mark in grade(exercise, trial) if not mark.passed
        }

    return deferToThread(work)


def names(exercise: str) -> set[str]:
    return {check.name for check in find_exercise(exercise).checks}


@pytest.mark.parametrize("name", find_exercises()[0])
@in_reactor
async def test_the_reference_solution_gets_all_points(name: str) -> None:
    path = SOLUTIONS / f"{name.replace('-', '_')}.py"
    assert await failed(find_exercise(name), sys.executable, str(path)) == {}


@dataclass(frozen=True)
class Mistake:
    """What a student may write instead, and the checks that fail for it; `seconds` to wait."""

    exercise: str
    right: str
    instead: str
    fails: set[str]
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.exercise}: {self.instead.strip()[:30]}"


TCP = names("tcp-server")
UDP = names("udp-server")
NO_TEXT, GONE = "survives what is no text", "survives clients that go away"
TURNS, NEWLINE = "serves many clients in turn", "keeps a newline"
LOSS, DUPLICATES, CORRUPTION = (f"{word} in both directions" for word in (
    "loss", "duplicates", "corruption"
))  # fmt: skip
LATE, ALL, ECONOMY = "replies later than its time-out", "all of it", "sends no more than it must"

MISTAKES = [
    # One recv is taken for one message.
    Mistake("tcp-server", "while data := connection.recv(65536)",
            "if data := connection.recv(1024)",
            {"answers 100,000 bytes"}),
    Mistake("tcp-server", "data.upper()", "data", TCP),
    Mistake("tcp-server", "data.upper()", "data.upper().strip(b'\\n')",
            {NEWLINE, "answers empty lines", "answers 100,000 bytes"}),
    Mistake("tcp-server", "while True", "for _ in range(1)", {TURNS, NO_TEXT, GONE}),
    Mistake("tcp-server", "data.upper()", "data.decode().upper().encode()", {NO_TEXT}),
    # It waits for a newline that nobody has promised.
    Mistake("tcp-server", "while data := connection.recv(65536)",
            "for data in connection.makefile('rb')",
            {"answers", TURNS, "takes non-ASCII text", NO_TEXT, GONE}),
    Mistake("tcp-server", "(OSError)", "()", {GONE}),
    Mistake("udp-server", "recvfrom(65535)", "recvfrom(2048)", {"answers 8,000 bytes"}),
    Mistake("udp-server", "message.upper()", "message.decode().upper().encode()", {NO_TEXT}),
    Mistake("udp-server", "while True", "for _ in range(1)", {TURNS, NO_TEXT}),
    Mistake("udp-server", "message.upper()", "message.upper().strip()",
            {NEWLINE, "answers 8,000 bytes"}),
    Mistake("udp-server", "        server.sendto", "        if message: server.sendto",
            {"answers an empty datagram"}),
    Mistake("udp-server", "message.upper()", "message", UDP - {"answers an empty datagram"}),
    Mistake("tcp-client", "while chunk :=", "if chunk :=", {"takes a reply in pieces"}),
    # It neither ends its side nor knows how long the reply is.
    Mistake("tcp-client", "client.shutdown(SHUT_WR)", "client.settimeout(1)",
            {"prints the reply", "ends with status 0", "takes a reply in pieces"}),
    Mistake("tcp-client", "print(", "raise SystemExit(3); print(",
            {"prints the reply", "ends with status 0", "takes a reply in pieces"}),
    Mistake("tcp-client", "reply.decode()", "sentence",
            {"prints the reply", "takes a reply in pieces"}),
    Mistake("tcp-client", "sentence.encode()", "sentence.upper().encode()", {"sends the line"}),
    Mistake("tcp-client", "input(", "'hi' or input(",
            {"sends the line", "prints the reply", "takes a reply in pieces"}),
    Mistake("udp-client", "client.settimeout(5)", "pass", {"ends without a reply"}),
    Mistake("udp-client", "client.recv(65535).decode()", "message", {"prints the reply"}),
    Mistake("udp-client", "message.encode()", "message.upper().encode()", {"sends the line"}),
    Mistake("udp-client", "recv(65535)", "recv(4)", {"prints the reply"}),
    Mistake("udp-client", "message.encode()", "message.encode() * 2", {"sends the line"}),
    Mistake("udp-client", "client.recv(65535).decode())", "client.recv(65535).decode(), 1 / 0)",
            {"prints the reply", "ends with status 0"}),
    # It waits for ever for a reply that was lost.
    Mistake("udp-pinger", "client.settimeout(left)", "pass",
            {"sends ten pings", "tells of each loss", "prints the loss rate",
             "ends with status 0"}),
    Mistake("udp-pinger", "begin + 1", "begin + 0.1",
            {"waits a second for each reply", "tells of each loss", "prints each round trip",
             "prints the loss rate"}),
    Mistake("udp-pinger", "(time.monotonic() - begin)", "(begin - begin)",
            {"prints each round trip"}),
    Mistake("udp-pinger", "PINGS = 10", "PINGS = 5", {"sends ten pings"}),
    Mistake("udp-pinger", ": request timed out", ": no", {"tells of each loss"}),
    Mistake("udp-pinger", "lost / PINGS", "lost / (PINGS - lost)", {"prints the loss rate"}),
    Mistake("stop-and-wait", "client.settimeout(TIMEOUT)", "pass",
            {LOSS, CORRUPTION, LATE, ALL, ECONOMY}, 15.0),
    # A late reply is taken for the next message's.
    Mistake("stop-and-wait", ' if answered == b"%d" % number else None', "",
            {DUPLICATES, ALL, ECONOMY}),
    Mistake("stop-and-wait", 'checksum != b"%d" % crc32(body)', "False",
            {CORRUPTION, ALL, ECONOMY}),
    Mistake("stop-and-wait", "TIMEOUT = 1.0", "TIMEOUT = 0.04", {ECONOMY}),
    # What came is read as text before the checksum is looked at.
    Mistake("stop-and-wait", "crc32(body)", "crc32(body.decode().encode())",
            {ALL, ECONOMY}),
    # To be safe.
    Mistake("stop-and-wait", "client.send(pack(number, line.strip().encode()))",
            "[client.send(pack(number, line.strip().encode())) for _ in range(3)]", {ECONOMY}),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
@in_reactor
async def test_a_mistake_fails_what_it_breaks(mistake: Mistake, tmp_path: Path) -> None:
    """No more and no less."""
    name = f"{mistake.exercise.replace('-', '_')}.py"
    source = (SOLUTIONS / name).read_text()
    assert mistake.right in source
    path = tmp_path / name
    path.write_text(source.replace(mistake.right, mistake.instead))
    exercise = find_exercise(mistake.exercise)
    if mistake.seconds:
        options = {"seconds": mistake.seconds}
        exercise = exercise.changed(name="x", summary="", points={}, texts={}, options=options)
    wrong = await failed(exercise, sys.executable, str(path))
    assert set(wrong) == mistake.fails, wrong
    assert all(len(sentence) > 20 for sentence in wrong.values())
