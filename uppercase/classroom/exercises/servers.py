"""The lecture's servers: asked by sockets of ours, one client after the other."""

import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from uppercase.classroom.grade import Trial, Wrong, check, exercise
from uppercase.classroom.record import Row
from uppercase.classroom.service import HOST

_REPLY_WITHIN: Final = 5.0
"""Seconds for one reply on loopback: a bound for a loaded machine."""

_LATIN: Final = b"caf\xe9"
_STREET: Final = "straße"
_STREETS: Final = (b"STRASSE", "STRAßE".encode())
_LONG: Final = b"abcdefghi\n" * 10_000


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


def _connected(port: int) -> socket.socket:
    skt = socket.create_connection((HOST, port), timeout=_REPLY_WITHIN)
    # A reset at the end leaves the server no TIME_WAIT: it can be started again at once.
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return skt


def _ask_tcp(
    port: int, data: bytes, expected: Sequence[bytes], seen: _Seen, *, end: bool = False
) -> None:
    """Send; expect one of some replies, and nothing else before or behind it."""
    got, why = b"", ""
    try:
        with _connected(port) as skt:
            seen.tell("opened")
            # The end goes with the last segment, so that the server never ends before us.
            skt.sendall(data, socket.MSG_MORE if end else 0)
            seen.tell("chunk", data, "request")
            if end:
                skt.shutdown(socket.SHUT_WR)
                seen.tell("half-closed")
            while end or got not in expected:
                chunk = skt.recv(1 << 16)
                if not chunk:
                    seen.tell("closed")
                    why = "and then the end of the connection"
                    break
                seen.tell("chunk", chunk, "reply")
                got += chunk
                if len(got) > max(map(len, expected)):
                    why = "which is too much"
                    break
    except TimeoutError:
        why = f"and then nothing for {_REPLY_WITHIN:g} s"
    except OSError as error:
        why = f"and then: {error.strerror}"
    if got in expected and (not end or why.endswith("connection")):
        return
    raise Wrong(f"sent {_shown(data)}, expected {_shown(expected[0])}, got {_shown(got)} {why}")


def _ask_udp(port: int, data: bytes, expected: Sequence[bytes], seen: _Seen) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as skt:
        skt.settimeout(_REPLY_WITHIN)
        skt.connect((HOST, port))
        try:
            skt.send(data)
            seen.tell("received", data, "request")
            reply = skt.recv(1 << 16)
            seen.tell("replied", reply, "reply")
            got = _shown(reply)
            if reply in expected:
                return
        except TimeoutError:
            got = f"nothing for {_REPLY_WITHIN:g} s"
        except OSError as error:
            got = f"an error: {error.strerror}"
    raise Wrong(f"sent {_shown(data)}, expected {_shown(expected[0])}, got {got}")


def _shown(data: bytes) -> str:
    return repr(data)[1:] if len(data) <= 40 else f"{len(data)} bytes {repr(data[:20])[1:]}…"


def _ask(
    trial: Trial, kind: str, port: int, number: int, data: bytes, *also: bytes, **how: bool
) -> None:
    """Ask once, as one client; what it sees goes into the check's timeline."""
    seen = _Seen(port, number)
    ask = _ask_udp if kind == "udp" else _ask_tcp
    try:
        ask(port, data, [data.upper(), *also], seen, **how)
    finally:
        trial.note(seen.peer, seen.rows)


def _asks(trial: Trial, kind: str, *messages: bytes, also: Sequence[bytes] = ()) -> None:
    """Start the server and ask it, by a client a message, one after the other."""
    with trial.server(kind) as (_, port):
        for number, message in enumerate(messages, 1):
            _ask(trial, kind, port, number, message, *also)


def _survives_no_text(trial: Trial, kind: str) -> None:
    with trial.server(kind) as (program, port):
        with suppress(Wrong):
            _ask(trial, kind, port, 1, _LATIN, b"CAF\xe9", "CAFÉ".encode("latin-1"))
        try:
            _ask(trial, kind, port, 2, b"hello")
        except Wrong as wrong:
            program.wait(1.0)
            words = f": {program.complaint()}" if not program.alive else ""
            raise Wrong(f"after bytes that are not UTF-8, {wrong}{words}") from None


class _TCPServer:
    @check("answers without a newline", 3)
    def answers(self, trial: Trial) -> None:
        _asks(trial, "tcp", b"hello world")

    @check("keeps a newline")
    def newline(self, trial: Trial) -> None:
        _asks(trial, "tcp", b"hello\n")

    @check("answers empty lines")
    def empty(self, trial: Trial) -> None:
        _asks(trial, "tcp", b"\n\na\n")

    @check("serves many clients in turn", 2)
    def turns(self, trial: Trial) -> None:
        _asks(trial, "tcp", b"one", b"two", b"three")

    @check("answers a half-closed client")
    def half_closed(self, trial: Trial) -> None:
        with trial.server("tcp") as (_, port):
            _ask(trial, "tcp", port, 1, b"half", end=True)

    @check("takes non-ASCII text")
    def street(self, trial: Trial) -> None:
        _asks(trial, "tcp", _STREET.encode(), also=_STREETS)

    @check("answers 100,000 bytes")
    def long(self, trial: Trial) -> None:
        _asks(trial, "tcp", _LONG)

    @check("survives what is no text")
    def no_text(self, trial: Trial) -> None:
        _survives_no_text(trial, "tcp")

    @check("survives clients that go away")
    def gone(self, trial: Trial) -> None:
        """Without a word, and with a reset."""
        with trial.server("tcp") as (program, port):
            for _ in range(2):
                _connected(port).close()
            try:
                _ask(trial, "tcp", port, 1, b"hello")
            except Wrong as wrong:
                words = f": {program.complaint()}" if not program.alive else ""
                raise Wrong(f"after two clients that reset, {wrong}{words}") from None


class _UDPServer:
    @check("answers", 3)
    def answers(self, trial: Trial) -> None:
        _asks(trial, "udp", b"hello world")

    @check("keeps a newline")
    def newline(self, trial: Trial) -> None:
        _asks(trial, "udp", b"hello\n")

    @check("serves many clients in turn", 2)
    def turns(self, trial: Trial) -> None:
        _asks(trial, "udp", b"one", b"two", b"three")

    @check("answers an empty datagram")
    def empty(self, trial: Trial) -> None:
        _asks(trial, "udp", b"")

    @check("takes non-ASCII text")
    def street(self, trial: Trial) -> None:
        _asks(trial, "udp", _STREET.encode(), also=_STREETS)

    @check("answers 8,000 bytes")
    def long(self, trial: Trial) -> None:
        _asks(trial, "udp", _LONG[:8000])

    @check("survives what is no text")
    def no_text(self, trial: Trial) -> None:
        _survives_no_text(trial, "udp")


TCP_SERVER: Final = exercise("tcp-server", "upper-cases what TCP clients send")(_TCPServer)
UDP_SERVER: Final = exercise("udp-server", "upper-cases each datagram")(_UDPServer)
