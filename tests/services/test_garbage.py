"""What is over leaves nothing to the garbage collector, which comes by rarely.

What waits for it pins the heap between the buffers of the connections that follow, and the process
grows by tens of megabytes (docs/topics/reliability.md has the figures).
"""

import contextlib
import gc
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.certificates import make_certificate
from tests.client.in_reactor import in_reactor
from tests.system.processes import receive_all
from tests.tls_peer import TLSClient
from uppercase import transform
from uppercase.lab import TCPLab
from uppercase.limits import Limits
from uppercase.services import TCPSettings, UDPSettings, tcp_service, udp_service

ROUNDS = 3


@transform(name="fails", summary="Refuse everything")
def fails(data: bytes) -> bytes:
    raise ValueError(data)


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Check that no object of ours is in a cycle that only the collector would find."""
    gc.collect()
    gc.disable()
    before = {id(each) for each in gc.get_objects()}
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = {
            f"{type(each).__module__}.{type(each).__qualname__}"
            for each in gc.garbage
            if type(each).__module__.startswith(("uppercase", "twisted.protocols.tls"))
            # What an earlier test has left may be over only now.
            and id(each) not in before
        }
        assert found == set()
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def converse(port: int, data: bytes) -> None:
    # Reset, also while it connects, or refused and gone before the shutdown (ENOTCONN).
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=10) as client,
    ):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        receive_all(client)


MINE = f"{__name__}:fails"
FULL = Limits(max_connections=1)
"""Of a service whose one place is taken."""


@pytest.mark.parametrize(
    ("settings", "data"),
    [
        pytest.param(TCPSettings(), b"hello", id="finished"),
        pytest.param(TCPSettings(framing="line"), b"one\ntwo", id="line"),
        pytest.param(TCPSettings(framing="line"), b"x" * 100_000, id="too-long"),
        pytest.param(TCPSettings(framing="netstring"), b"5:hello!", id="malformed"),
        pytest.param(TCPSettings(transforms=[MINE]), b"hello\n", id="raises"),
        pytest.param(TCPSettings(transforms=["base64-decode"]), b"!\n", id="rejects"),
        pytest.param(
            TCPSettings(transforms=["hex-encode"] * 3, framing="line", max_output=1000),
            b"x" * 500 + b"\n",
            id="output-too-long",
        ),
        pytest.param(TCPSettings(lab=TCPLab(delay=0.01, slice=1)), b"hello", id="lab"),
        pytest.param(TCPSettings(lab=TCPLab(reset_after=2)), b"hello", id="lab-reset"),
        pytest.param(TCPSettings(limits=FULL), b"hello", id="refused"),
    ],
)
@in_reactor
async def test_a_connection_that_is_over_is_gone(settings: TCPSettings, data: bytes) -> None:
    await leave_nothing(settings, lambda port: converse(port, data))


@pytest.mark.parametrize("reset", [False, True])
@in_reactor
async def test_a_connection_over_tls_is_gone(tmp_path: Path, reset: bool) -> None:
    certificate = make_certificate(tmp_path)

    def ask(port: int) -> None:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as skt,
            TLSClient(skt, certificate.cert) as client,
        ):
            client.ask(b"hello")
            client.receive(5)
            if reset:
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    settings = TCPSettings(listen=[certificate.endpoint()])
    await leave_nothing(settings, ask)


async def leave_nothing(settings: TCPSettings, converse: Callable[[int], None]) -> None:
    from twisted.internet import reactor

    if not settings.listen:
        settings = TCPSettings(
            **{name: getattr(settings, name) for name in settings.__dataclass_fields__}
            | {"port": 0, "interfaces": ("127.0.0.1",)}
        )
    service = tcp_service(settings)
    if settings.limits is FULL:
        service.factory.admission.max_connections = 0
    service.startService()
    try:
        port = int(service.served()[0].rpartition(":")[2])
        with nothing_left():
            for _ in range(ROUNDS):
                await deferToThread(converse, port)
            while service.factory.connections:
                await pause(reactor)
            await pause(reactor)
    finally:
        await service.stopService()


def pause(reactor: object, seconds: float = 0.05) -> Deferred[None]:
    """Return what fires a little later."""
    waiting: Deferred[None] = Deferred()
    reactor.callLater(seconds, waiting.callback, None)  # type: ignore[attr-defined]
    return waiting


@pytest.mark.parametrize("name", [MINE, "base64-decode", "uppercase"])
@in_reactor
async def test_a_datagram_that_is_answered_or_not_is_gone(name: str) -> None:
    from twisted.internet import reactor

    service = udp_service(UDPSettings(transforms=[name], port=0, interfaces=["127.0.0.1"]))
    service.startService()
    try:
        port = int(service.served()[0].rpartition(":")[2])
        with nothing_left(), socket.socket(type=socket.SOCK_DGRAM) as client:
            for _ in range(ROUNDS):
                client.sendto(b"hello!", ("127.0.0.1", port))
            while service.responder.received < ROUNDS:
                await pause(reactor)
    finally:
        await service.stopService()
