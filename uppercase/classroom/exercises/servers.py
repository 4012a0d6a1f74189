"""The lecture's servers: asked by sockets of ours, one client after the other."""

import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from uppercase.classroom.captive import Program
from uppercase.classroom.grade import Trial, Wrong, check, exercise
from uppercase.classroom.record import Row
from uppercase.classroom.service import HOST

_QUIET: Final = 0.1
"""Seconds in which nothing may come behind a reply."""

_LATIN: Final = b"caf\xe9"
_STREET: Final = "straße"
_STREETS: Final = (b"STRASSE", "STRAßE".encode())
_LONG: Final = b"abcdefghi\n" * 10_000

_Served = tuple[Program, int]
"""A server on trial, and its port."""


class _Seen:
    """What a client of ours sees, in the words of a record."""

    def __init__(self, port: int, number: int) -> None:
        self.peer = f"client {number}:{port}"
        self.rows: list[Row] = []

    def tell(self, event: str, data: bytes = b"", direction: str = "") -> None:
        row: dict[str, Any] = {"time": time.monotonic(), "peer": self.peer, "event": event}
        if direction:
            row |= {"direction": direction, "data": data[:64].decode("latin-1"), "size": len(data)}
        self.rows.append(row)


def _resets_at_the_end(skt: socket.socket) -> None:
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _leave(skt: socket.socket) -> bytes:
    """Return what still comes; have the socket close without harm to the server."""
    skt.settimeout(_QUIET)
    with suppress(TimeoutError):
        if rest := skt.recv(1 << 16):
            return rest
        # It has closed first, and a reset spares it TIME_WAIT: it can be started again at once.
        _resets_at_the_end(skt)
    return b""


def _ask_tcp(
    port: int,
    data: bytes,
    expected: Sequence[bytes],
    seen: _Seen,
    seconds: float,
    *,
    end: bool = False,
) -> None:
    """Send; expect one of some replies, and nothing else before or behind it."""
    got, why = b"", ""
    try:
        with socket.create_connection((HOST, port), timeout=seconds) as skt:
            seen.tell("opened")
            # The end goes with the last segment, so that the server never ends before us.
            skt.sendall(data, socket.MSG_MORE if end else 0)
            seen.tell("chunk", data, "request")
            if end:
                skt.shutdown(socket.SHUT_WR)
                seen.tell("half-closed")
            while (end or got not in expected) and any(each.startswith(got) for each in expected):
                chunk = skt.recv(1 << 16)
                if not chunk:
                    seen.tell("closed")
                    why = "and then the end of the connection"
                    break
                seen.tell("chunk", chunk, "reply")
                got += chunk
            got += b"" if why else _leave(skt)
    except TimeoutError:
        why = f"and then nothing for {seconds:g} s"
    except OSError as error:
        why = f"and then: {error.strerror}"
    if got in expected and (not end or why.endswith("connection")):
        return
    wrong = f"sent {_shown(data)}, expected {_shown(expected[0])}, got {_shown(got)} {why}"
    raise Wrong(wrong.rstrip())


def _ask_udp(
    program: Program, port: int, data: bytes, expected: Sequence[bytes], seen: _Seen, seconds: float
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as skt:
        skt.connect((HOST, port))
        try:
            skt.send(data)
            seen.tell("received", data, "request")
            reply = _receive(skt, seconds, lambda: program.gone(port, "udp"))
            seen.tell("replied", reply, "reply")
            got = _shown(reply)
            if reply in expected:
                return
        except TimeoutError:
            got = f"nothing for {seconds:g} s" if program.alive else "nothing: it has ended"
        except OSError as error:
            got = f"an error: {error.strerror}"
    raise Wrong(f"sent {_shown(data)}, expected {_shown(expected[0])}, got {got}")


def _receive(skt: socket.socket, seconds: float, gone: Callable[[], bool]) -> bytes:
    """Return a datagram; it is not waited for when there is nobody who could send it."""
    deadline = time.monotonic() + seconds
    while True:
        hopeless = gone() or time.monotonic() > deadline
        skt.settimeout(_QUIET)
        try:
            return skt.recv(1 << 16)
        except TimeoutError:
            if hopeless:
                raise


def _shown(data: bytes) -> str:
    return repr(data)[1:] if len(data) <= 40 else f"{len(data)} bytes {repr(data[:20])[1:]}…"


@dataclass(frozen=True)
class _Server:
    """What both servers have to do; a client of ours for each message."""

    kind = ""
    seconds: float = 5.0

    def ask(
        self, trial: Trial, served: _Served, number: int, data: bytes, *also: bytes, **how: bool
    ) -> None:
        """Ask once; what the client sees goes into the check's timeline."""
        program, port = served
        seen = _Seen(port, number)
        expected = [data.upper(), *also]
        try:
            if self.kind == "udp":
                _ask_udp(program, port, data, expected, seen, self.seconds)
            else:
                _ask_tcp(port, data, expected, seen, self.seconds, **how)
        finally:
            trial.note(seen.rows)

    def asks(self, trial: Trial, *messages: bytes, also: Sequence[bytes] = ()) -> None:
        """Start the server and ask it, one message after the other."""
        with trial.server(self.kind) as served:
            for number, message in enumerate(messages, 1):
                self.ask(trial, served, number, message, *also)

    def still_answers(self, trial: Trial, served: _Served, after: str) -> None:
        """Ask after something that must not have ended it."""
        program, _ = served
        try:
            self.ask(trial, served, 2, b"hello")
        except Wrong as wrong:
            program.wait(1.0)
            words = f": {program.complaint()}" if not program.alive else ""
            raise Wrong(f"after {after}, {wrong}{words}") from None

    @check("answers", 3)
    def answers(self, trial: Trial) -> None:
        self.asks(trial, b"hello world")

    @check("keeps a newline")
    def newline(self, trial: Trial) -> None:
        self.asks(trial, b"hello\n")

    @check("serves many clients in turn", 2)
    def turns(self, trial: Trial) -> None:
        self.asks(trial, b"one", b"two", b"three")

    @check("takes non-ASCII text")
    def street(self, trial: Trial) -> None:
        self.asks(trial, _STREET.encode(), also=_STREETS)

    @check("survives what is no text")
    def no_text(self, trial: Trial) -> None:
        with trial.server(self.kind) as served:
            with suppress(Wrong):
                self.ask(trial, served, 1, _LATIN, b"CAF\xe9", "CAFÉ".encode("latin-1"))
            self.still_answers(trial, served, "bytes that are not UTF-8")


class _TCPServer(_Server):
    kind = "tcp"

    @check("answers empty lines")
    def empty(self, trial: Trial) -> None:
        self.asks(trial, b"\n\na\n")

    @check("answers a half-closed client")
    def half_closed(self, trial: Trial) -> None:
        with trial.server("tcp") as served:
            self.ask(trial, served, 1, b"half", end=True)

    @check("answers 100,000 bytes")
    def long(self, trial: Trial) -> None:
        self.asks(trial, _LONG)

    @check("survives clients that go away")
    def gone(self, trial: Trial) -> None:
        with trial.server("tcp") as served:
            for _ in range(2):
                # The first may have ended it already.
                with (
                    suppress(OSError),
                    socket.create_connection((HOST, served[1]), timeout=self.seconds) as skt,
                ):
                    _resets_at_the_end(skt)
            self.still_answers(trial, served, "two clients that reset")


class _UDPServer(_Server):
    kind = "udp"

    @check("answers an empty datagram")
    def empty(self, trial: Trial) -> None:
        self.asks(trial, b"")

    @check("answers 8,000 bytes")
    def long(self, trial: Trial) -> None:
        self.asks(trial, _LONG[:8000])


TCP_SERVER: Final = exercise("tcp-server", "upper-cases what TCP clients send")(_TCPServer)
UDP_SERVER: Final = exercise("udp-server", "upper-cases each datagram")(_UDPServer)
