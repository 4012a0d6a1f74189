"""What the tests of datagrams share: transforms, an observer, clients and a served responder."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from tests.observing import Notebook, Time
from uppercase.core.datagram import (
    Answer,
    Destination,
    Origin,
    Request,
    SocketAddress,
    Step,
)
from uppercase.core.pipeline import Pipeline, Stage
from uppercase.core.responder import Responder
from uppercase.limits import DatagramLimits
from uppercase.udp import Port, serve
from uppercase.udp.sockets import open_socket

CLIENT = ("192.0.2.7", 50_000)
SERVER = Destination("192.0.2.1", 12_000)
TIMEOUT = 30.0
"""Seconds in which a reply that comes at all has come."""
SILENCE = 0.2
"""Seconds after which a reply on loopback is not coming."""


def applied(function: Callable[[bytes], Any] = bytes.upper) -> Pipeline:
    """Return a chain of one transform, made of a function."""
    transform: Any = SimpleNamespace(transform=function)
    return Pipeline([Stage("applied", transform)])


def datagram(
    data: bytes = b"hello",
    source: SocketAddress = CLIENT,
    destination: Destination = SERVER,
    truncated: bool = False,
) -> Request:
    return Request(data, Origin.of(source, destination, truncated))


def packet(
    data: bytes = b"hello", source: SocketAddress = CLIENT, destination: Destination = SERVER
) -> tuple[bytes, Origin]:
    return data, Origin.of(source, destination)


def columns(batch: Sequence[tuple[bytes, Origin]]) -> tuple[list[bytes], list[Origin]]:
    """Return packets as ports hand them over."""
    return [data for data, _ in batch], [origin for _, origin in batch]


def answer_batch(found: Responder, batch: Sequence[Request]) -> list[Step]:
    """Have datagrams answered that came in one wake-up; return what is to be done about them."""
    given: list[Step] = []
    payloads, origins = [each.data for each in batch], [each.origin for each in batch]
    for quick, steps in found.exchange(payloads, origins):
        columns = zip(quick.payloads, quick.origins, quick.requests, strict=True)
        given += [Answer(reply, Request(data, origin)) for reply, origin, data in columns]
        given += steps
    return given


def answer(found: Responder, request: Request) -> list[Step]:
    return answer_batch(found, [request])


def replies(steps: list[Step]) -> list[bytes]:
    """Return the payloads of the replies among steps."""
    return [step.data for step in steps if isinstance(step, Answer)]


@contextmanager
def served(
    responder: Responder | None = None, host: str = "127.0.0.1", number: int = 0
) -> Iterator[Port]:
    """Serve a responder on a free port for the time of a block."""
    port: Any = serve(reactor, open_socket(host, number), responder or Responder(applied()))
    try:
        yield port
    finally:
        port.stopListening()


def client(host: str = "127.0.0.1") -> socket.socket:
    """Return a socket of the host's family with a time-out."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(TIMEOUT)
    return made


def ask(host: str, port: int, data: bytes, timeout: float = TIMEOUT) -> bytes | None:
    """Send one datagram from a connected socket; return the reply, None if there is none."""
    with client(host) as sock:
        sock.settimeout(timeout)
        sock.connect((host, port))
        sock.send(data)
        try:
            return sock.recv(1 << 17)
        except TimeoutError:
            return None


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a blocking client beside the reactor."""
    return await deferToThread(function, *arguments)


__all__ = [
    "CLIENT",
    "SERVER",
    "SILENCE",
    "TIMEOUT",
    "DatagramLimits",
    "Notebook",
    "Time",
    "answer",
    "answer_batch",
    "applied",
    "ask",
    "client",
    "columns",
    "datagram",
    "in_thread",
    "packet",
    "replies",
    "served",
]
