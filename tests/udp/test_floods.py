"""Loops, floods and a class that sends all at once: real sockets, default options."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import sub

import pytest
from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.task import deferLater

from tests.udp.helpers import applied, ask, client, columns, in_thread, packet, served
from uppercase.core.datagram import Destination, Origin
from uppercase.core.events import DropReason
from uppercase.core.responder import Responder
from uppercase.limits import TURN, DatagramLimits
from uppercase.udp import Port, ResponderProtocol
from uppercase.udp._batches import BATCH
from uppercase.udp.sockets import ask_receive_buffer, kernel_drops, open_socket


def to(host: str, port: int) -> Origin:
    """Return where a datagram goes that nobody has asked for."""
    return Origin.of((host, port), Destination(host, 0))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_one_datagram_between_two_servers_is_over_within_100(host: str) -> None:
    one, two = Responder(applied()), Responder(applied())
    with served(one, host) as first, served(two, host) as second:
        first.batches.send(b"hello", to(host, second.getHost().port))
        before = -1
        while before != (before := one.received + two.received):
            await deferLater(reactor, 0.1)
    assert 2 < one.received + two.received < 100
    assert one.drops + two.drops == {DropReason.LOOP: 1}


async def test_two_servers_on_one_port_number_do_not_even_begin() -> None:
    """As two hosts with the lecture's port would."""
    one, two = Responder(applied()), Responder(applied())
    with served(one, "127.0.0.1") as first:
        number = first.getHost().port
        with served(two, "127.0.0.2", number):
            first.batches.send(b"hello", to("127.0.0.2", number))
            await deferLater(reactor, 0.1)
    assert (one.received, two.received) == (0, 1)
    assert two.drops == {DropReason.OWN_PORT: 1}


class Batches(ResponderProtocol):
    """Notes the sizes of the batches that it is given."""

    def __init__(self) -> None:
        super().__init__(Responder(applied()), reactor)
        self.sizes: list[int] = []

    def receive_batch(self, payloads: Sequence[bytes], origins: Sequence[Origin]) -> None:
        self.sizes.append(len(payloads))


@pytest.mark.parametrize("size", [0, 1, 1000])
async def test_timers_are_served_while_datagrams_wait(size: int) -> None:
    """Empty datagrams have no bytes to count, yet they end a turn as others do."""
    protocol = Batches()
    sock = open_socket("127.0.0.1", 0)
    ask_receive_buffer(sock, 1 << 20)
    port = Port(sock, protocol, reactor)
    port.startListening()
    waiting = 10 * BATCH
    with client() as sock:
        for _ in range(waiting):
            sock.sendto(bytes(size), ("127.0.0.1", port.getHost().port))
        served_at = []
        while sum(protocol.sizes) < waiting - (kernel_drops(sock) or 0):
            await deferLater(reactor, 0)
            served_at.append(sum(protocol.sizes))
    assert max(protocol.sizes) == BATCH
    assert len(served_at) > 3
    await port.stopListening()


async def test_a_class_of_200_that_sends_while_the_server_is_stalled_is_answered() -> None:
    """Two datagrams each, all from one address, as behind one NAT."""
    responder = Responder(applied())
    with served(responder) as port, ExitStack() as stack:
        where = ("127.0.0.1", port.getHost().port)
        students = [stack.enter_context(client()) for _ in range(200)]
        for student in students:
            # Else it also takes what comes late for another test's socket that had its port.
            student.connect(where)
        for name in (b"first", b"second"):
            for number, student in enumerate(students):
                student.send(b"%s of %d" % (name, number))
        time.sleep(0.5)

        def replies() -> list[bytes]:
            return [student.recv(100) for student in students for _ in range(2)]

        received = await in_thread(replies)
    assert len(received) == 400
    assert sorted(received) == sorted(
        b"%s OF %d" % (name, number) for name in (b"FIRST", b"SECOND") for number in range(200)
    )
    assert responder.drops == {}


@contextmanager
def flood(where: tuple[str, int], size: int = 0) -> Iterator[None]:
    """Send as fast as one thread can for the time of a block."""
    over = threading.Event()

    def send() -> None:
        with client() as sock:
            while not over.is_set():
                for _ in range(50):
                    sock.sendto(bytes(size), where)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def test_others_are_answered_during_a_flood_and_the_port_can_be_stopped() -> None:
    with served() as port, served() as other:
        with flood(("127.0.0.1", port.getHost().port)):
            answer = await in_thread(ask, "127.0.0.1", other.getHost().port, b"hello")
            assert answer == b"HELLO"
            port.read_out()
            await port.stopListening()
        assert port.fileno() == -1


def slowly(data: bytes) -> bytes:
    """Keep the processor for a third of a turn."""
    end = time.perf_counter() + TURN / 3
    while time.perf_counter() < end:
        pass
    return data.upper()


@pytest.mark.parametrize("rate", [0, 1000])
async def test_slow_replies_give_way_to_all_else(rate: int) -> None:
    """Looked at together, or one by one; a stop answers all of them, and gives way as well."""
    responder = Responder(applied(slowly), DatagramLimits(rate=rate))
    with served(responder) as port, client() as sock:
        sock.connect(("127.0.0.1", port.getHost().port))
        for _ in range(2):
            for number in range(BATCH):
                sock.send(b"hello %d" % number)
            answered = [responder.answered]
            drained = port.protocol.drain() if answered[0] else succeed(None)
            while answered[-1] < answered[0] + BATCH:
                await deferLater(reactor, 0)
                answered.append(responder.answered)
            await drained
            # A turn and the message that ends it, and what is read in the same turn of the reactor.
            assert max(map(sub, answered[1:], answered)) <= 8
            for number in range(BATCH):
                assert sock.recv(100) == b"HELLO %d" % number


async def test_flooded_ports_share_a_turn() -> None:
    """Rather than that each keeps the processor as long as if it were alone."""
    calls: list[bytes] = []

    def transform(data: bytes) -> bytes:
        calls.append(data)
        return slowly(data)

    with ExitStack() as stack:
        for _ in range(8):
            responder = Responder(applied(transform), DatagramLimits(loop_guard=0))
            port = stack.enter_context(served(responder))
            port.protocol.receive_batch(*columns([packet()] * 16))
        counts = [len(calls)]
        while counts[-1] < 8 * 16:
            await deferLater(reactor, 0)
            counts.append(len(calls))
    # One message each, and one more of the last ones, who share it with fewer.
    assert max(map(sub, counts[1:], counts)) <= 12


@pytest.mark.parametrize("rate", [0, 1000])
async def test_slow_messages_without_a_reply_give_way_as_well(rate: int) -> None:
    """Such as those of a transform that works for a while and then fails."""
    responder = Responder(applied(lambda data: slowly(data) * 99), DatagramLimits(rate=rate))
    with served(responder) as port, client() as sock:
        for _ in range(BATCH):
            sock.sendto(b"hello", ("127.0.0.1", port.getHost().port))
        dropped = [0]
        while dropped[-1] < BATCH:
            await deferLater(reactor, 0)
            dropped.append(responder.drops[DropReason.AMPLIFICATION])
    assert max(map(sub, dropped[1:], dropped)) <= 8


@pytest.mark.parametrize("rate", [0, 1000])
async def test_what_gave_way_when_the_port_closes_is_counted_as_stopped(rate: int) -> None:
    responder = Responder(applied(slowly), DatagramLimits(rate=rate))
    with served(responder) as port, client() as sock:
        sock.connect(("127.0.0.1", port.getHost().port))
        for number in range(BATCH):
            sock.send(b"hello %d" % number)
        while not responder.answered:
            await deferLater(reactor, 0)
    assert responder.received == BATCH
    assert responder.drops == {DropReason.STOPPED: BATCH - responder.answered}


async def test_a_flooding_address_is_held_to_its_rate_and_its_neighbour_is_not() -> None:
    responder = Responder(applied(), DatagramLimits(rate=1, burst=50))
    with served(responder, "0.0.0.0") as port, client() as flooder:
        number = port.getHost().port
        for packet in range(300):
            flooder.sendto(b"%d" % packet, ("127.0.0.1", number))

        def neighbour() -> bytes:
            with client() as sock:
                sock.bind(("127.0.0.9", 0))
                sock.sendto(b"hello", ("127.0.0.1", number))
                return sock.recv(100)

        assert await in_thread(neighbour) == b"HELLO"
    assert responder.drops[DropReason.OVER_RATE] == pytest.approx(250, abs=10)


_FLOODED = r"""
from twisted.internet import reactor
from tests.udp.helpers import applied
from uppercase.core.responder import Responder
from uppercase.udp import serve
from uppercase.udp.sockets import open_socket
port = serve(reactor, open_socket("127.0.0.1", 0), Responder(applied()))
print(port.getHost().port, flush=True)
reactor.run()
"""


def test_a_flooded_process_obeys_sigterm() -> None:
    with subprocess.Popen([sys.executable, "-c", _FLOODED], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        assert ask("127.0.0.1", number, b"hello") == b"HELLO"
        with flood(("127.0.0.1", number)):
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(10) == 0
            finally:
                process.kill()
