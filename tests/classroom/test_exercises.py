"""The exercises: reference solutions get all points, typical mistakes lose exactly their own."""

import itertools
import json
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.client.in_reactor import in_reactor
from tests.system.processes import ROOT, START_TIMEOUT
from uppercase.classroom import grade as grader
from uppercase.classroom.captive import Program
from uppercase.classroom.exercises import find_exercise, find_exercises
from uppercase.classroom.grade import Exercise, Trial, grade
from uppercase.classroom.marks import as_json, warning
from uppercase.errors import UserError

SOLUTIONS = ROOT / "examples" / "exercises"


def trial(path: Path, port: int = 0) -> Trial:
    """Put a program on trial, outside of the tests' environment."""
    return Trial([sys.executable, "-SEu", str(path)], port)


async def failed(exercise: Exercise, on_trial: Trial) -> dict[str, str]:
    """Grade a program; return what was wrong by check."""

    def work() -> dict[str, str]:
        marks = grade(exercise, on_trial, jobs=3)
        return {mark.check.name: mark.sentence for mark in marks if not mark.passed}

    return await deferToThread(work)


def names(exercise: str) -> set[str]:
    return {check.name for check in find_exercise(exercise).checks}


@dataclass(frozen=True)
class Mistake:
    """What a student may write instead, and the checks that fail for it."""

    exercise: str
    right: str
    instead: str
    fails: set[str]


TCP = names("tcp-server")
UDP = names("udp-server")
NO_TEXT, GONE = "survives what is not text", "survives clients that go away"
TURNS, NEWLINE = "serves many clients in turn", "keeps a newline"
LOSS, DUPLICATES, CORRUPTION = (f"{word} in both directions" for word in (
    "loss", "duplicates", "corruption"
))  # fmt: skip
LATE, ALL, ECONOMY = "replies later than its time-out", "all of it", "sends no more than it must"

HASTY = "begin + 1", "begin + 0.02"

MISTAKES = [
    # One recv is taken for one message.
    Mistake("tcp-server", "while data := connection.recv(65536)",
            "if data := connection.recv(1024)",
            {"answers 100,000 bytes"}),
    Mistake("tcp-server", "data.upper()", "data", TCP),
    # What is in capitals already is made small.
    Mistake("tcp-server", "data.upper()", "data.swapcase()", {"answers"}),
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
    # The end of a longer message is still in its buffer, as in C without a NUL.
    Mistake("udp-server", "message, client = server.recvfrom(65535)",
            "new, client = server.recvfrom(65535); "
            "message = new + globals().get('message', b'')[len(new):]",
            {TURNS}),
    Mistake("udp-server", "message.upper()", "message", UDP - {"answers an empty datagram"}),
    # Also where a busy machine has it wait before its one recv.
    Mistake("tcp-client", "while chunk :=", "import time; time.sleep(0.2)\n    if chunk :=",
            {"takes a reply in pieces"}),
    # It neither ends its side nor knows how long the reply is.
    Mistake("tcp-client", "client.shutdown(SHUT_WR)", "client.settimeout(1)",
            {"prints the reply", "ends with status 0", "takes a reply in pieces"}),
    Mistake("tcp-client", "print(", "raise SystemExit(3); print(",
            {"prints the reply", "ends with status 0", "takes a reply in pieces"}),
    Mistake("tcp-client", "reply.decode()", "sentence",
            {"prints the reply", "takes a reply in pieces"}),
    # It knows what the server would say.
    Mistake("tcp-client", "reply.decode()", "sentence.upper()",
            {"prints the reply", "takes a reply in pieces"}),
    Mistake("tcp-client", "sentence.encode()", "sentence.upper().encode()", {"sends the line"}),
    Mistake("tcp-client", "input(", "'hi' or input(",
            {"sends the line", "prints the reply", "takes a reply in pieces"}),
    Mistake("udp-client", "client.settimeout(2)", "pass", {"ends without a reply"}),
    # It does not wait.
    Mistake("udp-client", "client.settimeout(2)", "client.setblocking(False)",
            {"prints the reply", "ends with status 0"}),
    Mistake("udp-client", "client.recv(65535).decode()", "message", {"prints the reply"}),
    Mistake("udp-client", "message.encode()", "message.upper().encode()", {"sends the line"}),
    Mistake("udp-client", "recv(65535)", "recv(4)", {"prints the reply"}),
    Mistake("udp-client", "message.encode()", "message.encode() * 2", {"sends the line"}),
    Mistake("udp-client", "client.recv(65535).decode())", "client.recv(65535).decode(), 1 / 0)",
            {"prints the reply", "ends with status 0"}),
    # It waits for ever for a reply that was lost.
    Mistake("udp-pinger", "client.settimeout(left)", "pass",
            {"sends ten pings", "waits a second for each reply", "tells of each loss",
             "prints the loss rate", "ends with status 0"}),
    Mistake("udp-pinger", *HASTY,
            {"waits a second for each reply", "tells of each loss", "prints each round trip",
             "prints the loss rate"}),
    Mistake("udp-pinger", "(time.monotonic() - begin)", "(begin - begin)",
            {"prints each round trip"}),
    Mistake("udp-pinger", "PINGS = 10", "PINGS = 5", {"sends ten pings"}),
    Mistake("udp-pinger", ": request timed out", ": no", {"tells of each loss"}),
    Mistake("udp-pinger", "lost / PINGS", "lost / (PINGS - lost)", {"prints the loss rate"}),
    Mistake("stop-and-wait", "client.settimeout(TIMEOUT)", "pass",
            {LOSS, CORRUPTION, LATE, ALL, ECONOMY}),
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


PATIENCE = {
    "tcp-server": {"seconds": 3.0},
    "udp-server": {"seconds": 3.0},
    "udp-client": {"seconds": 6.0},
    "udp-pinger": {"quiet": 5.0},
    "stop-and-wait": {"quiet": 5.0},
}
"""For how long programs are waited for that will never do what is expected: a course may set it."""


@pytest.mark.long
@pytest.mark.parametrize("name", find_exercises()[0])
@in_reactor
async def test_a_mistake_fails_what_it_breaks_and_the_solution_nothing(
    name: str, tmp_path: Path
) -> None:
    """No more and no less, six typical mistakes each, which are graded at once."""
    solution = SOLUTIONS / f"{name.replace('-', '_')}.py"
    source = solution.read_text()
    options = PATIENCE.get(name, {})
    exercise = find_exercise(name).changed(name, options=options)
    mistakes = [each for each in MISTAKES if each.exercise == name]
    assert len(mistakes) >= 6
    # With all at once and other tests beside them, programs that ask again after a second do so
    # too early, which is a mistake that they do not have.
    few = DeferredSemaphore(3 if name in ("stop-and-wait", "udp-pinger") else 7)

    def graded(path: Path) -> Deferred[dict[str, str]]:
        return few.run(lambda: Deferred.fromCoroutine(failed(exercise, trial(path))))

    running = {"the solution": graded(solution)}
    for number, mistake in enumerate(mistakes):
        assert mistake.right in source
        path = tmp_path / f"{number}.py"
        path.write_text(source.replace(mistake.right, mistake.instead))
        running[mistake.instead] = graded(path)
    wrong = {what: await outcome for what, outcome in running.items()}
    assert {what: set(sentences) for what, sentences in wrong.items()} == {
        "the solution": set(),
        **{mistake.instead: mistake.fails for mistake in mistakes},
    }, wrong
    assert all(len(each) > 20 for sentences in wrong.values() for each in sentences.values())


def counted(folder: Path, name: str, right: str = "", instead: str = "") -> tuple[Trial, Path]:
    """Put a solution, or a mistake, on trial; return a file with a line for each run of it, too."""
    path = folder / f"program{bool(right):d}.py"
    runs = path.with_suffix(".runs")
    runs.touch()
    source = (SOLUTIONS / name).read_text().replace("PINGS = 10", "PINGS = 3")
    source = source.replace(right, instead)
    # Its first datagram comes when there has been time to see the line.
    told = f"open({str(runs)!r}, 'a').write('run\\n'); __import__('time').sleep(0.3)"
    path.write_text(source.replace("with socket", f"{told}\nwith socket"))
    return trial(path), runs


async def hold_up(runs: Path, number: int) -> None:
    """Starve our service as the datagrams of a run come."""
    deadline = time.monotonic() + START_TIMEOUT
    while len(runs.read_text().splitlines()) < number:
        assert time.monotonic() < deadline
        await deferLater(reactor, 0.01)
    time.sleep(1.2)


@in_reactor
async def test_what_a_busy_machine_has_disturbed_is_made_again(tmp_path: Path) -> None:
    """Where the marks are about time: pings that wait a second, and such that do not."""
    options = {"pings": 3, "seed": 2}
    exercise = find_exercise("udp-pinger").changed("x", options=options)
    trials = counted(tmp_path, "udp_pinger.py"), counted(tmp_path, "udp_pinger.py", *HASTY)
    running = [Deferred.fromCoroutine(failed(exercise, each)) for each, _ in trials]
    for _, runs in trials:
        await hold_up(runs, 1)
    marks = [set(await each) for each in running]
    (wrong,) = (mistake.fails for mistake in MISTAKES if mistake.instead == HASTY[1])
    assert marks == [set(), wrong]
    assert [runs.read_text() for _, runs in trials] == ["run\n" * 2] * 2


@in_reactor
async def test_what_stays_disturbed_is_said(tmp_path: Path) -> None:
    points = {"sends the line": 1, "prints the reply": 0, "ends without a reply": 0}
    exercise = find_exercise("udp-client").changed("x", points=points)
    on_trial, runs = counted(tmp_path, "udp_client.py")
    marks = deferToThread(lambda: list(grade(exercise, on_trial)))
    for number in range(1, 5):
        await hold_up(runs, number)
    told = await marks
    assert [mark.passed for mark in told] == [True, True]
    assert "may be wrong" in warning(told)
    assert "sends the line, ends with status 0" in warning(told)
    assert all(each["starved"] for each in json.loads(as_json(exercise, told))["checks"])
    assert runs.read_text() == "run\n" * 4


@in_reactor
async def test_a_client_whose_own_port_is_fixed_has_it_in_each_check(tmp_path: Path) -> None:
    """Two of them cannot run at once, which is no mistake of theirs."""
    path = tmp_path / "client.py"
    source = (SOLUTIONS / "udp_client.py").read_text()
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        bound = f"client.bind({other.getsockname()!r}); client.settimeout"
        path.write_text(source.replace("client.settimeout", bound))
        for alone in False, True:
            tried = replace(trial(path), alone=alone)
            taken = await deferToThread(tried.client, True, "hello", seconds=30.0)
            assert "in use" in taken.complaint
            assert (taken.late == inf) != alone
    assert await failed(find_exercise("udp-client"), trial(path)) == {}


@pytest.mark.parametrize("name", ["udp-pinger", "stop-and-wait"])
@in_reactor
async def test_who_never_begins_is_waited_for_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in each of the six networks that an exercise has; and it gets no points."""
    started = []

    class Counted(Program):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(grader, "Program", Counted)
    monkeypatch.setattr(grader, "_STARTS_WITHIN", 0.5)
    exercise = find_exercise(name).changed("x", options={"quiet": 0.5})
    path = tmp_path / "silent.py"
    path.write_text("import time; time.sleep(600)")
    marks = await deferToThread(lambda: list(grade(exercise, trial(path))))
    assert not any(mark.passed for mark in marks)
    assert len(started) == 1


@in_reactor
async def test_who_interrupts_the_grader_waits_for_no_program(tmp_path: Path) -> None:
    """Not for those that run, and none is started any more."""
    path, started = tmp_path / "endless.py", tmp_path / "started"
    path.write_text(f"import time; open({str(started)!r}, 'w'); time.sleep(600)")
    options = {"seconds": 600.0}
    exercise = find_exercise("udp-client").changed("x", options=options)
    on_trial = trial(path)
    ended = Deferred.fromCoroutine(failed(exercise, on_trial))
    while not started.exists():
        await deferLater(reactor, 0.02)
    on_trial.interrupt()
    assert len(await ended.addTimeout(60, reactor)) == 4


def test_only_a_port_that_somebody_has_is_waited_for() -> None:
    """Not one that only root may have; and nobody waits for the marks of an interrupted trial."""
    on_trial = trial(SOLUTIONS / "tcp_server.py")
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as claim:
        assert replace(on_trial, port=1)._take_port("tcp", claim) == 1
    with (
        socket.socket(socket.AF_UNIX) as claim,
        socket.create_server(("127.0.0.1", 0)) as owner,
    ):
        port = owner.getsockname()[1]
        with socket.create_connection(owner.getsockname()), owner.accept()[0]:
            owner.close()
            on_trial.interrupt()
            assert replace(on_trial, port=port)._take_port("tcp", claim) == port
    assert time.monotonic() < began + 30


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_port_that_another_program_serves_is_no_fault_of_the_one_on_trial(
    kind: str, host: str
) -> None:
    """Such as a service of the student's own: nothing is graded, and nobody waits for a minute.

    On another address, too, where it keeps a server on all addresses out, or is taken for it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    type_ = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    with socket.socket(family, type_) as owner:
        owner.bind((host, 0))
        if kind == "tcp":
            owner.listen()
        on_trial = trial(SOLUTIONS / f"{kind}_server.py", port=owner.getsockname()[1])
        with pytest.raises(UserError, match="another program has it"), on_trial.server(kind):
            pass


def test_programs_on_trial_at_once_never_have_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of two graders; else one is asked for the other.

    A port is a grader's before its program listens there, and anybody's when that is over.
    """
    path = SOLUTIONS / "udp_server.py"
    for _ in range(2):
        ports = []
        with ExitStack() as claims:
            for each in trial(path), trial(path):
                monkeypatch.setattr(grader, "_turns", itertools.count())
                for _ in range(20):
                    claim = claims.enter_context(socket.socket(socket.AF_UNIX))
                    ports.append(each._take_port("udp", claim))
            claim = claims.enter_context(socket.socket(socket.AF_UNIX))
            with pytest.raises(UserError, match="another program has it"):
                trial(path, port=ports[0])._take_port("udp", claim)
        assert len({*ports}) == len(ports)


def test_a_program_on_trial_has_a_port_that_the_system_gives_to_nobody() -> None:
    """Else another program may listen there first, and be taken for it."""
    on_trial = trial(SOLUTIONS / "tcp_server.py")
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        # The lowest that Linux gives is 32,768, unless somebody has set another.
        lowest = min(32_768, asked.getsockname()[1])
    with on_trial.server("tcp") as program:
        assert program.alive
        assert program.port < lowest
