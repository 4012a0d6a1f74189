"""The lecture's servers: asked by sockets of ours, one client after the other."""

import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from uppercase.classroom.captive import HOST, Program, has_let_go, listens
from uppercase.classroom.grade import Trial, Wrong, check, exercise
from uppercase.classroom.record import Row

_QUIET: Final = 0.1  # Seconds in which nothing may come after a reply.

_WHOLE: Final = 6.0
"""Times `seconds` that all of a reply may take: one that drips would keep the grader for days."""

_LATIN: Final = b"caf\xe9"
_STREET: Final = "straße"
_STREETS: Final = (b"STRASSE", "STRAßE".encode())
_LONG: Final = b"abcdefghi\n" * 10_000

_RECVERR: Final = 11  # IP_RECVERR of linux/in.h, which Python names from 3.14 on.

_Tell = Callable[..., None]  # Notes an event, its bytes and their direction.


def _resets_at_the_end(skt: socket.socket) -> None:
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _leave(skt: socket.socket) -> bytes:
    """Return what still comes; have the socket close without harm to the server."""
    skt.settimeout(_QUIET)
    with suppress(OSError):
        if rest := skt.recv(1 << 16):
            return rest
        # It has closed first, and a reset spares it TIME_WAIT: it can be started again at once. One
        # that waits for our end, as Node.js does, would be told of the reset.
        ports = skt.getpeername()[1], skt.getsockname()[1]
        for _ in range(10):
            if has_let_go(*ports):
                _resets_at_the_end(skt)
                break
            time.sleep(_QUIET / 10)
    return b""


def _receive(skt: socket.socket, program: Program, seconds: float) -> tuple[bytes, Any]:
    """Return a datagram and its source; do not wait for one when nobody is left to send it."""
    deadline = time.monotonic() + seconds
    while True:
        hopeless = program.gone("udp") or time.monotonic() > deadline
        skt.settimeout(_QUIET)
        try:
            return skt.recvfrom(1 << 16)
        except TimeoutError:
            if hopeless:
                raise


def _shown(data: bytes, wanted: bytes = b"") -> str:
    """Return bytes as a sentence has them; of many, the first that are not as wanted."""
    if len(data) <= 40:
        return repr(data)[1:]
    pairs = enumerate(zip(data, wanted, strict=False))
    wrong = next((n for n, (one, other) in pairs if one != other), 0)
    where = f", wrong from byte {wrong + 1} on:" if wrong else ""
    return f"{len(data)} bytes{where} {repr(data[wrong : wrong + 20])[1:]}…"


def _asked(name: str, points: int, *messages: bytes, **how: Any) -> Callable[..., None]:
    """Return a check that asks the server, one message after the other."""

    def examine(server: "_Server", trial: Trial) -> None:
        with trial.server(server.kind) as program:
            for number, message in enumerate(messages, 1):
                server.ask(trial, program, number, message, **how)

    return check(name, points)(examine)


@dataclass(frozen=True)
class _Server(ABC):
    """What both servers have to do; a client of ours for each message."""

    kind = ""
    seconds: float = 5.0

    @abstractmethod
    def talk(
        self, program: Program, data: bytes, expected: Sequence[bytes], tell: _Tell, **how: bool
    ) -> str:
        """Send; return what came unless it is one of the expected replies, else ""."""

    def ask(
        self, trial: Trial, program: Program, number: int, data: bytes, also: Any = (), **how: bool
    ) -> None:
        """Ask once; what the client sees goes into the check's timeline, in a record's words."""
        rows: list[Row] = []

        def tell(event: str, data: bytes = b"", direction: str = "") -> None:
            peer = f"client {number}:{program.port}"
            row: dict[str, Any] = {"time": time.monotonic(), "peer": peer, "event": event}
            if direction:
                text = data[:64].decode("latin-1")
                row |= {"direction": direction, "data": text, "size": len(data)}
            rows.append(row)

        expected = [data.upper(), *also]
        try:
            got = self.talk(program, data, expected, tell, **how)
        finally:
            trial.note(rows)
        if got:
            if got.startswith("'' and then nothing") and not how:
                more = "it must not wait for more, such as a newline or the end, and must flush"
                got += f"; {more if number == 1 else 'the client before may still keep it busy'}"
            if "refused" in got and listens(program.port, self.kind):
                got += f"; it listens, but not on {HOST}"
            # Who ends for this may still be about to.
            program.wait(1.0)
            if program.gone(self.kind):
                words = f"; it has ended, its last words are: {program.last_words()}"
            elif words := program.complaint():  # Such as of a thread of its own.
                words = f"; on standard error: {words}"
            end = " and then the end of the connection" if how else ""
            wanted = f"sent {_shown(data)}{end}, expected {_shown(expected[0])}{end}"
            raise Wrong(f"{wanted}, got {got}".rstrip() + words)

    def still_answers(self, trial: Trial, program: Program, after: str) -> None:
        """Ask after something that must not have ended it."""
        try:
            self.ask(trial, program, 2, b"hello")
        except Wrong as wrong:
            raise Wrong(f"after {after}, {wrong}") from None

    answers = _asked("answers", 3, b"Hello, World 42!")
    newline = _asked("keeps a newline", 1, b"hello\n")
    turns = _asked("serves many clients in turn", 2, b"three", b"one", b"four")
    street = _asked("takes non-ASCII text", 1, _STREET.encode(), also=_STREETS)

    @check("survives what is not text")
    def no_text(self, trial: Trial) -> None:
        with trial.server(self.kind) as program:
            with suppress(Wrong):
                also = b"CAF\xe9", "CAFÉ".encode("latin-1")
                self.ask(trial, program, 1, _LATIN, also=also)
            self.still_answers(trial, program, "bytes that are not UTF-8")


@exercise("tcp-server", "upper-cases what TCP clients send")
class _TCPServer(_Server):
    kind = "tcp"

    def talk(
        self, program: Program, data: bytes, expected: Sequence[bytes], tell: _Tell, **how: bool
    ) -> str:
        """Expect nothing before or after a reply, nor after the end if there is to be one."""
        end, got, why = how.get("end", False), b"", ""
        most = _WHOLE * self.seconds
        deadline = time.monotonic() + most
        try:
            with socket.create_connection((HOST, program.port), timeout=self.seconds) as skt:
                tell("opened")
                # The end goes with the last segment, so that the server never ends before us.
                skt.sendall(data, socket.MSG_MORE if end else 0)
                tell("chunk", data, "request")
                if end:
                    skt.shutdown(socket.SHUT_WR)
                    tell("half-closed")
                while (end or got not in expected) and any(e.startswith(got) for e in expected):
                    chunk = skt.recv(1 << 16)
                    if not chunk:
                        tell("closed")
                        why = "and then the end of the connection"
                        break
                    tell("chunk", chunk, "reply")
                    got += chunk
                    if time.monotonic() > deadline:
                        why = f"and no end of it within {most:g} s"
                        break
                got += b"" if why else _leave(skt)
        except TimeoutError:
            why = f"and then nothing for {self.seconds:g} s"
        except OSError as error:
            why = f"and then: {error.strerror}"
        fine = got in expected and (not end or why.endswith("connection"))
        return "" if fine else f"{_shown(got, expected[0])} {why}"

    empty = _asked("answers empty lines", 1, b"\n\na\n")

    half_closed = _asked("answers a half-closed client", 1, b"half", end=True)
    long = _asked("answers 100,000 bytes", 1, _LONG)

    @check("survives clients that go away")
    def gone(self, trial: Trial) -> None:
        with trial.server("tcp") as program:
            for _ in range(2):
                # The first may have ended it already.
                with (
                    suppress(OSError),
                    socket.create_connection((HOST, program.port), timeout=self.seconds) as skt,
                ):
                    _resets_at_the_end(skt)
            self.still_answers(trial, program, "two clients that reset")


@exercise("udp-server", "upper-cases each datagram")
class _UDPServer(_Server):
    kind = "udp"

    def talk(
        self, program: Program, data: bytes, expected: Sequence[bytes], tell: _Tell, **how: bool
    ) -> str:
        asked = HOST, program.port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as skt:
            # Not connected, so that it has what comes from elsewhere, but told if it is refused.
            skt.setsockopt(socket.IPPROTO_IP, _RECVERR, 1)
            try:
                skt.sendto(data, asked)
                tell("received", data, "request")
                reply, source = _receive(skt, program, self.seconds)
                if source != asked:
                    return f"{_shown(reply)} from port {source[1]}; it must come from the one asked"
                tell("replied", reply, "reply")
                skt.settimeout(_QUIET)
                with suppress(TimeoutError):
                    more = skt.recv(1 << 16)
                    tell("replied", more, "reply")
                    return f"{_shown(reply)} and then {_shown(more)}"
            except TimeoutError:
                return f"nothing within {self.seconds:g} s"
            except OSError as error:
                return f"an error: {error.strerror}"
        return "" if reply in expected else _shown(reply, expected[0])

    empty = _asked("answers an empty datagram", 1, b"")
    long = _asked("answers 8,000 bytes", 1, _LONG[:8000])


SERVERS: Final[Sequence[Any]] = (_TCPServer, _UDPServer)
