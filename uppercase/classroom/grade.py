"""The grader: a student's program on trial, a check at a time, each with points and a sentence.

Each check starts the program anew, so that one failure is not ten. An exercise is a plugin: an
`Exercise` behind an entry point of the group `uppercase.exercises`.
"""

import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Final

from uppercase.classroom.captive import Program
from uppercase.classroom.record import Row
from uppercase.classroom.service import HOST, Exhibit
from uppercase.classroom.timeline import draw_text
from uppercase.errors import UnknownName, suggest

_REPLY_WITHIN: Final = 5.0
"""Seconds for one reply on loopback: a bound for a loaded machine."""

_ENDS_WITHIN: Final = 20.0
"""Seconds for a client that waits a second for each of ten replies."""

_PORT_FREE_WITHIN: Final = 65.0

_SENTENCE: Final = "hello world"


class Wrong(Exception):
    """A check's expectation that was not met, as one sentence."""


@dataclass
class Trial:
    """One program on trial.

    Args:
        command: it and its arguments, with `{host}` and `{port}`.
        port: the one that it has fixed; 0 for a free one.
        reactor: runs the services.
        wait: has the reactor run a coroutine, and waits for it.

    Attributes:
        timeline: the picture of the check's run, where a service of ours took part.
        unserved: why it is no server at all; it is not waited for again.
    """

    command: Sequence[str]
    port: int
    reactor: Any
    wait: Callable[[Callable[[], Any]], Any]
    timeline: str = ""
    unserved: str = ""

    @contextmanager
    def server(self, kind: str) -> Iterator[tuple[Program, int]]:
        """Run the program as a server."""
        if self.unserved:
            raise Wrong(self.unserved)
        port = self.port or _free_port(kind)
        if self.port:
            _wait_until_free(port, kind)
        with Program(self.command, HOST, port) as program:
            if not program.serves(port, kind):
                why = program.complaint() or "nothing"
                self.unserved = (
                    f"expected a server on {kind.upper()} port {port}; nobody listens there, and "
                    f"the program's last words are: {why}"
                )
                raise Wrong(self.unserved)
            yield program, port

    def client(self, udp: bool, text: str, **lab: Any) -> tuple[Program, int | None, list[Row]]:
        """Run the program as a client of a service; return it, its status and the record."""
        exhibit = Exhibit(self.reactor, udp=udp, port=self.port, **lab)
        self.wait(exhibit.start)
        try:
            with Program(self.command, HOST, exhibit.port) as program:
                program.type(text)
                status = program.wait(_ENDS_WITHIN)
        finally:
            self.wait(exhibit.stop)
        self.timeline = "\n".join(draw_text(exhibit.timeline()))
        return program, status, exhibit.rows()


@dataclass(frozen=True)
class Check:
    """One thing that a program does right or not.

    Attributes:
        name: what, in a few words.
        points: what it is worth.
        examine: raises `Wrong` if it does not.
    """

    name: str
    points: int
    examine: Callable[[Trial], None]


@dataclass(frozen=True)
class Exercise:
    """What a program has to do.

    Attributes:
        name: as one types it.
        summary: one line.
        checks: in the order in which they are made.
    """

    name: str
    summary: str
    checks: Sequence[Check]


@dataclass(frozen=True)
class Mark:
    """The outcome of one check."""

    check: Check
    passed: bool
    sentence: str
    timeline: str = field(default="", repr=False)


def grade(exercise: Exercise, trial: Trial) -> Iterator[Mark]:
    """Make each check, and return its outcome as soon as there is one."""
    for check in exercise.checks:
        trial.timeline = ""
        try:
            check.examine(trial)
        except Wrong as wrong:
            yield Mark(check, False, str(wrong), trial.timeline)
        else:
            yield Mark(check, True, "", trial.timeline)


def exercises() -> Mapping[str, Exercise]:
    """Return all exercises by name: ours, and those of other packages."""
    found = {each.name: each for each in _OURS}
    for entry in entry_points(group="uppercase.exercises"):
        found.setdefault(entry.name, entry.load())
    return found


def find_exercise(name: str) -> Exercise:
    """Return an exercise.

    Raises:
        UnknownName: there is none of this name.
    """
    known = exercises()
    if name not in known:
        raise UnknownName(f"no exercise named {name!r}{suggest(name, known)}")
    return known[name]


def _free_port(kind: str) -> int:
    with socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_until_free(port: int, kind: str) -> None:
    """Wait, a minute at the most, until the last check's connections are forgotten (TIME_WAIT)."""
    deadline = time.monotonic() + _PORT_FREE_WITHIN
    while time.monotonic() < deadline:
        with (
            socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as probe,
            suppress(OSError),
        ):
            probe.bind((HOST, port))
            return
        time.sleep(0.1)


def _ask_tcp(port: int, data: bytes, expected: Sequence[bytes], *, end: bool = False) -> None:
    """Send; expect one of some replies, and nothing else before or behind it."""
    got, why = b"", "and then nothing more"
    try:
        with socket.create_connection((HOST, port), timeout=_REPLY_WITHIN) as skt:
            # A reset at the end leaves the server no TIME_WAIT: it can be started again at once.
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # The end goes with the last segment, so that the server never ends before us.
            skt.sendall(data, socket.MSG_MORE if end else 0)
            if end:
                skt.shutdown(socket.SHUT_WR)
            while end or got not in expected:
                chunk = skt.recv(1 << 16)
                if not chunk:
                    why = "and then the end of the connection"
                    break
                got += chunk
                if len(got) > max(map(len, expected)):
                    break
            else:
                return
    except TimeoutError:
        why = f"and then nothing for {_REPLY_WITHIN:g} s"
    except OSError as error:
        why = f"and then: {error.strerror}"
    if got in expected and end and why.endswith("connection"):
        return
    raise Wrong(f"sent {_shown(data)}, expected {_shown(expected[0])}, got {_shown(got)} {why}")


def _ask_udp(port: int, data: bytes, expected: Sequence[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as skt:
        skt.settimeout(_REPLY_WITHIN)
        skt.connect((HOST, port))
        try:
            skt.send(data)
            got = _shown(reply := skt.recv(1 << 16))
            if reply in expected:
                return
        except TimeoutError:
            got = f"nothing for {_REPLY_WITHIN:g} s"
        except OSError as error:
            got = f"an error: {error.strerror}"
    raise Wrong(f"sent {_shown(data)}, expected {_shown(expected[0])}, got {got}")


def _shown(data: bytes) -> str:
    return repr(data)[1:] if len(data) <= 40 else f"{len(data)} bytes {repr(data[:20])[1:]}…"


_ASK: Final = {"tcp": _ask_tcp, "udp": _ask_udp}


def _answers(
    kind: str, *messages: bytes, also: Sequence[bytes] = (), **how: bool
) -> Callable[[Trial], None]:
    """Return the check of a server that answers some clients one after the other."""

    def examine(trial: Trial) -> None:
        with trial.server(kind) as (_, port):
            for message in messages:
                _ASK[kind](port, message, [message.upper(), *also], **how)

    return examine


def _survives(kind: str) -> Callable[[Trial], None]:
    """Return the check of a server that goes on after bytes that are no text."""

    def examine(trial: Trial) -> None:
        with trial.server(kind) as (program, port):
            with suppress(Wrong):
                _ASK[kind](port, b"caf\xe9", [b"CAF\xe9", "CAFÉ".encode("latin-1")])
            try:
                _ASK[kind](port, b"hello", [b"HELLO"])
            except Wrong as wrong:
                program.wait(1.0)
                words = f": {program.complaint()}" if not program.alive else ""
                raise Wrong(f"after bytes that are not UTF-8, {wrong}{words}") from None

    return examine


_SHARP = [b"STRASSE", "STRAßE".encode()]
_LONG: Final = b"abcdefghi\n" * 10_000


def _client(
    judge: Callable[[Program, int | None, list[Row]], None], udp: bool, **lab: Any
) -> Callable[[Trial], None]:
    """Return the check of a client that is given one line to send."""

    def examine(trial: Trial) -> None:
        judge(*trial.client(udp, f"{_SENTENCE}\n", **lab))

    return examine


def _prints(program: Program, status: int | None, rows: list[Row]) -> None:
    if _SENTENCE.upper() not in program.output():
        words = program.complaint() or program.output()[-80:] or "nothing"
        raise Wrong(f"expected {_SENTENCE.upper()!r} in its output, got {words!r}")


def _sends(program: Program, status: int | None, rows: list[Row]) -> None:
    sent = "".join(
        row["data"]
        for row in rows
        if row["event"] == "received"
        or (row["event"], row.get("direction")) == ("chunk", "request")
    )
    if sent.rstrip("\r\n") != _SENTENCE:
        raise Wrong(f"expected that it sends {_SENTENCE!r} once, got {sent[:60]!r}")


def _ends(program: Program, status: int | None, rows: list[Row]) -> None:
    if status is None:
        raise Wrong(f"expected that it ends, got one that was killed after {_ENDS_WITHIN:g} s")


def _ends_well(program: Program, status: int | None, rows: list[Row]) -> None:
    _ends(program, status, rows)
    if status:
        raise Wrong(f"expected exit status 0, got {status}: {program.complaint()}")


def _ten_pings(program: Program, status: int | None, rows: list[Row]) -> None:
    count = sum(row["event"] == "received" for row in rows)
    if count != 10:
        raise Wrong(f"expected ten datagrams, got {count}")


def _tells_losses(program: Program, status: int | None, rows: list[Row]) -> None:
    lost = sum("lost" in row.get("actions", ()) for row in rows)
    told = len(re.findall(r"(?im)^.*(?:timed?[ -]?out|lost).*$", program.output()))
    # A summary may have one more line.
    if told not in (lost, lost + 1):
        raise Wrong(f"expected {lost} lines that tell of a time-out or a loss, got {told}")


_OURS: Final = (
    Exercise(
        "tcp-server",
        "upper-cases what TCP clients send",
        (
            Check("answers without a newline", 3, _answers("tcp", b"hello world")),
            Check("keeps a newline", 1, _answers("tcp", b"hello\n")),
            Check("serves many clients in turn", 2, _answers("tcp", b"one", b"two", b"three")),
            Check("answers a half-closed client", 1, _answers("tcp", b"half", end=True)),
            Check("takes non-ASCII text", 1, _answers("tcp", "straße".encode(), also=_SHARP)),
            Check("answers 100,000 bytes", 1, _answers("tcp", _LONG)),
            Check("survives what is no text", 1, _survives("tcp")),
        ),
    ),
    Exercise(
        "udp-server",
        "upper-cases each datagram",
        (
            Check("answers", 3, _answers("udp", b"hello world")),
            Check("keeps a newline", 1, _answers("udp", b"hello\n")),
            Check("serves many clients in turn", 2, _answers("udp", b"one", b"two", b"three")),
            Check("answers an empty datagram", 1, _answers("udp", b"")),
            Check("takes non-ASCII text", 1, _answers("udp", "straße".encode(), also=_SHARP)),
            Check("answers 8,000 bytes", 1, _answers("udp", _LONG[:8000])),
            Check("survives what is no text", 1, _survives("udp")),
        ),
    ),
    Exercise(
        "tcp-client",
        "reads a line, sends it over TCP, prints the reply",
        (
            Check("sends the line", 2, _client(_sends, False)),
            Check("prints the reply", 3, _client(_prints, False)),
            Check("ends with status 0", 1, _client(_ends_well, False)),
            Check("takes a reply in pieces", 1, _client(_prints, False, options={"slice": "1"})),
        ),
    ),
    Exercise(
        "udp-client",
        "reads a line, sends it as a datagram, prints the reply",
        (
            Check("sends the line", 2, _client(_sends, True)),
            Check("prints the reply", 3, _client(_prints, True)),
            Check("ends with status 0", 1, _client(_ends_well, True)),
            Check("ends without a reply", 1, _client(_ends, True, options={"loss": "1"}, seed=7)),
        ),
    ),
    Exercise(
        "udp-pinger",
        "ten pings, a second for each reply; 4 of 11 are lost",
        (
            Check("sends ten pings", 3, _client(_ten_pings, True, lab="udp-pinger", seed=7)),
            Check("tells of each loss", 2, _client(_tells_losses, True, lab="udp-pinger", seed=7)),
            Check("ends with status 0", 1, _client(_ends_well, True, lab="udp-pinger", seed=7)),
        ),
    ),
)
