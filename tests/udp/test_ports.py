"""The UDP port on real sockets: what it carries, where it answers from, what it survives."""

import ctypes
import errno
import os
import socket
import struct
import sys
from math import inf
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReadDescriptor
from twisted.internet.task import Clock, deferLater
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from tests.udp.helpers import (
    CLIENT,
    SILENCE,
    applied,
    ask,
    client,
    columns,
    in_thread,
    packet,
    served,
)
from uppercase.core.datagram import Destination, Origin
from uppercase.core.events import DropReason, Event
from uppercase.core.responder import Responder
from uppercase.limits import TURN, DatagramLimits
from uppercase.services import UDPSettings, udp_service
from uppercase.udp import (
    DRAIN_BATCHES,
    RECEIVE_PAUSE,
    RECEIVE_PAUSE_MAX,
    Port,
    ResponderProtocol,
    _batches,
    serve,
    sockets,
)
from uppercase.udp._batches import BATCH
from uppercase.udp.sockets import open_socket

LOOPBACKS = [f"127.0.0.{last}" for last in range(1, 9)]


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


async def test_every_size_comes_back_exact() -> None:
    for host, largest in (("127.0.0.1", 65_507), ("::1", 65_527)):
        with served(Responder(applied(bytes)), host) as port:
            for size in (0, 1, 508, 8_192, 8_193, 20_000, largest - 1, largest):
                data = os.urandom(size)
                assert await in_thread(ask, host, port.getHost().port, data) == data


async def test_what_is_longer_than_the_buffer_is_dropped_and_counted_never_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    responder = Responder(applied())
    protocol = ResponderProtocol(responder, reactor)
    monkeypatch.setattr(_batches, "UDP_READ_SIZE", 100)
    port = Port(open_socket("127.0.0.1", 0), protocol, reactor)
    port.startListening()
    number = port.getHost().port
    assert await in_thread(ask, "127.0.0.1", number, b"a" * 101, SILENCE) is None
    assert await in_thread(ask, "127.0.0.1", number, b"a" * 100) == b"A" * 100
    assert responder.drops == {DropReason.TRUNCATED: 1}
    await port.stopListening()


async def test_a_wildcard_port_answers_from_the_address_that_was_asked() -> None:
    """A connected client takes nothing from any other address."""
    with served(host="0.0.0.0") as port:
        for host in LOOPBACKS:
            assert await in_thread(ask, host, port.getHost().port, b"hello") == b"HELLO"
    with served(host="::") as port:
        assert await in_thread(ask, "::1", port.getHost().port, b"hello") == b"HELLO"


@pytest.mark.skipif(sys.platform != "linux", reason="only there")
async def test_an_address_that_is_ours_by_a_route_alone_answers() -> None:
    """As `ip -6 route add local 2001:db8::/64 dev lo` gives a machine a whole network."""
    with served(Responder(applied()), "::") as port, client("::1") as peer:
        peer.bind(("::1", 0))
        asked = Destination("2001:db8::1", port.getHost().port)
        assert port.batches.send(b"HELLO", Origin.of(peer.getsockname(), asked)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is so")
async def test_a_reply_may_be_cut_on_its_way() -> None:
    for host, option in (("127.0.0.1", (0, 10)), ("::1", (41, 23))):
        with served(host=host) as port, socket.socket(fileno=os.dup(port.fileno())) as sock:
            assert sock.getsockopt(*option) == 0  # no discovery of the path's MTU


async def test_a_wildcard_port_serves_its_own_family_only() -> None:
    """So 0.0.0.0 and :: can have the same port number side by side."""
    with served(host="::") as six, served(host="0.0.0.0", number=six.getHost().port) as four:
        assert await in_thread(ask, "127.0.0.1", four.getHost().port, b"four") == b"FOUR"
        assert await in_thread(ask, "::1", six.getHost().port, b"six") == b"SIX"


@pytest.mark.parametrize(
    ("wildcard", "hosts"),
    [
        ("::", ("127.0.0.1", "127.0.0.5", "::1")),
        ("::ffff:0.0.0.0", ("127.0.0.1", "127.0.0.5")),
    ],
)
async def test_a_dual_stack_socket_answers_both_families_and_no_broadcast(
    wildcard: str, hosts: tuple[str, ...]
) -> None:
    """Such a socket may come from systemd, also for all of IPv4 alone."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((wildcard, 0))
    sock.setblocking(False)
    responder = Responder(applied())
    port = Port(sock, ResponderProtocol(responder, reactor), reactor)
    port.startListening()
    number = port.getHost().port
    for host in hosts:
        assert await in_thread(ask, host, number, b"hello") == b"HELLO"
    assert await in_thread(_shout, "127.255.255.255", number) is None
    assert responder.drops == {DropReason.NOT_UNICAST: 1}
    await port.stopListening()


def _shout(group: str, number: int) -> bytes | None:
    """Send to a broadcast or multicast address by the loopback interface; return any reply."""
    with client(group) as sock:
        sock.settimeout(SILENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        local = socket.inet_aton("127.0.0.1")
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
        sock.sendto(b"hello", (group, number))
        try:
            return sock.recv(100)
        except TimeoutError:
            return None


async def test_broadcast_and_multicast_reach_the_port_and_are_not_answered() -> None:
    for group in ("127.255.255.255", "224.0.0.1"):
        responder = Responder(applied())
        with served(responder, "0.0.0.0") as port:
            assert await in_thread(_shout, group, port.getHost().port) is None
        assert responder.drops == {DropReason.NOT_UNICAST: 1}


async def test_a_source_that_is_a_broadcast_address_is_not_answered() -> None:
    """Linux may let it in, and a socket with `Broadcast=yes` of systemd's would send there."""
    sock = open_socket("127.0.0.1", 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    responder = Responder(applied())
    port = serve(reactor, sock, responder)
    here = Destination("127.0.0.1", port.getHost().port)
    port.protocol.receive_batch([b"hello"], [Origin.of(("127.255.255.255", 50_000), here)])
    assert responder.errors == {"send-error EACCES": 1}
    await port.stopListening()


async def test_without_pktinfo_a_wildcard_port_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_batches, "enable_destinations", lambda sock: False)
    for together in (True, False):
        monkeypatch.setattr(_batches, "_recvmmsg", together and _batches._recvmmsg)
        with served(host="0.0.0.0") as port:
            assert await in_thread(ask, "127.0.0.1", port.getHost().port, b"hello") == b"HELLO"


class _Faulty(socket.socket):
    """A socket whose reading fails so many times, after so many times that it does not."""

    reads = faults = 0
    fault: Exception = OSError(errno.ENOMEM, "Cannot allocate memory")

    def recvmsg(self, *arguments: Any) -> Any:
        self.reads -= 1
        if self.faults and self.reads < 0:
            self.faults -= 1
            raise self.fault
        return super().recvmsg(*arguments)


def _listening(
    clock: Any, faults: int, reads: int = 0, fault: Exception = _Faulty.fault
) -> tuple[Port, _Faulty]:
    """Return a port that listens, and its socket, whose reading fails."""
    sock = _Faulty(socket.AF_INET, socket.SOCK_DGRAM)
    sock.faults, sock.reads, sock.fault = faults, reads, fault
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    port = Port(sock, ResponderProtocol(Responder(applied()), clock), clock)
    port.startListening()
    return port, sock


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (_Faulty.fault, "ENOMEM"),
        (MemoryError(), "ENOMEM"),
        (ctypes.ArgumentError("argument 4: MemoryError: "), "other"),
    ],
    ids=["system", "python", "ctypes"],
)
async def test_a_port_survives_an_unexpected_receive_error_and_rests_meanwhile(
    fault: Exception, name: str
) -> None:
    port, _ = _listening(reactor, 2, fault=fault)
    assert await in_thread(ask, "127.0.0.1", port.getHost().port, b"hello") == b"HELLO"
    assert port.protocol.responder.errors == {f"receive-error {name}": 2}
    await port.stopListening()


@pytest.mark.parametrize("fault", [_Faulty.fault, MemoryError()], ids=["system", "python"])
async def test_what_was_read_before_an_error_is_answered(fault: Exception) -> None:
    port, sock = _listening(reactor, 1, reads=1, fault=fault)
    with client() as asker:
        asker.sendto(b"hello", sock.getsockname())
        port.doRead()
        assert asker.recv(100) == b"HELLO"
    assert sock.faults == 0
    await port.stopListening()


class _Readers(Clock):
    """A reactor in memory that knows who reads."""

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, IReactorFDSet)
        self.reading: set[Any] = set()
        self.addReader = self.reading.add
        self.removeReader = self.reading.discard


def test_the_rests_after_receive_errors_grow_and_end_with_the_port() -> None:
    clock = _Readers()
    port, sock = _listening(clock, 100)
    rests = []
    for _ in range(6):
        port.doRead()
        assert not clock.reading
        (call,) = clock.getDelayedCalls()
        rests.append(call.getTime() - clock.seconds())
        clock.advance(rests[-1])
        assert clock.reading
    assert rests[0] == pytest.approx(RECEIVE_PAUSE)
    assert rests[-1] == pytest.approx(RECEIVE_PAUSE_MAX)
    sock.faults = 0
    port.doRead()
    sock.faults = 1
    port.doRead()
    (call,) = clock.getDelayedCalls()
    assert call.getTime() - clock.seconds() == pytest.approx(RECEIVE_PAUSE)
    port.stopListening()
    assert not clock.getDelayedCalls()
    assert not clock.reading


def test_a_port_that_cannot_be_watched_again_rests_on() -> None:
    """Such as for want of memory in the kernel."""
    clock = _Readers()
    port, _ = _listening(clock, 1)
    port.doRead()
    add, clock.addReader = clock.addReader, mock.Mock(side_effect=OSError(errno.ENOSPC, "none"))
    clock.advance(RECEIVE_PAUSE)
    clock.addReader = add
    clock.advance(RECEIVE_PAUSE_MAX)
    assert clock.reading == {port}
    assert port.protocol.responder.errors["receive-error ENOSPC"] == 1
    port.stopListening()


def test_a_port_reads_only_while_it_listens_and_is_neither_paused_nor_rests() -> None:
    clock = _Readers()
    port, _ = _listening(clock, 2)
    port.pauseProducing()
    assert not clock.reading
    port.resumeProducing()
    assert clock.reading
    port.doRead()
    port.pauseProducing()
    port.resumeProducing()
    assert not clock.reading, "it rests"
    port.pauseProducing()
    clock.advance(RECEIVE_PAUSE)
    assert not clock.reading, "it is paused"
    port.resumeProducing()
    assert clock.reading
    port.stopProducing()
    port.resumeProducing()
    assert not clock.reading, "it is closed"


def test_a_flood_does_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        reads = 0

        def __init__(self, sock: socket.socket) -> None: ...

        def receive(self) -> tuple[list[bytes], list[Origin]]:
            self.reads += 1
            return columns([packet()] * BATCH)

        def send_replies(self, replies: object) -> list[object]:
            return []

        send = send_replies

    monkeypatch.setattr("uppercase.udp.TURN", inf)
    monkeypatch.setattr("uppercase.udp.batches_of", Endless)
    clock = _Readers()
    protocol = ResponderProtocol(Responder(applied(), DatagramLimits(loop_guard=0)), clock)
    port: Any = Port(open_socket("127.0.0.1", 0), protocol, clock)
    port.startListening()
    assert port.read_out().called
    assert port.batches.reads == DRAIN_BATCHES
    assert not clock.reading
    port.pauseProducing()
    port.resumeProducing()
    assert port.read_out().called
    assert port.batches.reads == DRAIN_BATCHES
    port.stopListening()


def test_a_stop_waits_for_what_gave_way_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uppercase.udp.TURN", -1.0)
    clock = _Readers()
    protocol = ResponderProtocol(Responder(applied(), DatagramLimits(max_request=1)), clock)
    port = Port(open_socket("127.0.0.1", 0), protocol, clock)
    port.startListening()
    protocol.receive_batch(*columns([packet(), packet()]))
    assert not clock.reading
    idle = protocol.idle()
    while clock.getDelayedCalls():
        assert not protocol.idle().called
        clock.advance(0)
    assert idle.called
    assert clock.reading
    port.stopListening()


async def test_a_refused_reply_is_counted_by_errno_and_raised_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uppercase.udp.TURN", inf)
    responder = Responder(applied())
    with served(responder) as port:
        broadcast = packet(source=("255.255.255.255", 50_000))
        for batch in ([broadcast], [broadcast, packet(source=("127.0.0.1", 50_000))]):
            port.protocol.receive_batch(*columns(batch))
        assert responder.errors == {"send-error EACCES": 2}
        assert responder.drops == {DropReason.SEND_ERROR: 2}
        assert responder.answered == 1


def test_a_reply_after_the_end_is_refused_quietly() -> None:
    with served() as port:
        pass
    error = port.batches.send(b"late", Origin.of(CLIENT, Destination("127.0.0.1", 1)))
    assert error is not None
    assert error.errno == errno.EBADF


@pytest.mark.parametrize("turn", [TURN, -1])
async def test_an_observer_that_fails_costs_a_batch_and_is_logged_once_a_second(
    logged_errors: Any, monkeypatch: pytest.MonkeyPatch, turn: float
) -> None:
    """In the first turn of a batch or in a later one, which follows each datagram."""

    def refuse(event: Event) -> None:
        if b"fail" in event:
            raise ValueError("no good")

    monkeypatch.setattr("uppercase.udp.TURN", turn)
    observer = SimpleNamespace(notify=refuse)
    responder = Responder(applied(), observer=observer, tell_each=True)  # type: ignore[arg-type]
    with served(responder) as port:
        where = "127.0.0.1", port.getHost().port
        for _ in range(2):
            port.protocol.receive_batch(*columns([packet(b"first"), packet(b"fail"), packet()]))
            assert await in_thread(ask, *where, b"hello") == b"HELLO"
        assert responder.drops[DropReason.STOPPED] == 2
        await port.protocol.drain()
    (logged,) = logged_errors.flush()
    assert "no good" in logged


async def test_a_port_that_is_stopped_while_it_reads_stays_stopped() -> None:
    class Stopping(ResponderProtocol):
        def receive_batch(self, payloads: Any, origins: Any) -> None:
            port.stopListening()

    protocol = Stopping(Responder(applied()), reactor)
    port = Port(open_socket("127.0.0.1", 0), protocol, reactor)
    port.startListening()
    assert await in_thread(ask, "127.0.0.1", port.getHost().port, b"stop", SILENCE) is None
    assert port.fileno() == -1


async def test_nothing_is_awaited_after_a_transform_has_stopped_the_port() -> None:
    def transform(message: bytes) -> Any:
        if message == b"stop":
            port.stopListening()
        return Deferred() if message == b"wait" else message.upper()

    responder = Responder(applied(transform))
    with served(responder) as port:
        messages = [packet(each) for each in (b"wait", b"stop", b"wait", b"last")]
        port.protocol.receive_batch(*columns(messages))
        # On a busy machine they may take more than one turn.
        await port.protocol.idle()
    assert responder.outstanding == 0
    # What was awaited, and what came after the stop; only the reply to "stop" was to be sent.
    assert responder.drops == {DropReason.STOPPED: 3, DropReason.SEND_ERROR: 1}


async def test_a_port_keeps_the_contract_of_a_listening_port() -> None:
    with served() as port:
        assert verifyObject(IListeningPort, port)
        assert verifyObject(IReadDescriptor, port)
        number = port.getHost().port
        assert port.getHost() == IPv4Address("UDP", "127.0.0.1", number)
    await port.stopListening()
    assert port.getHost().port == number
    with client() as sock:
        sock.bind(("127.0.0.1", number))


def test_what_the_kernel_drops_is_known() -> None:
    bound = open_socket("127.0.0.1", 0)
    before = sockets.kernel_drops(bound)
    sockets.ask_receive_buffer(bound, 4096)
    with client() as sock:
        for _ in range(100):
            sock.sendto(bytes(1000), bound.getsockname())
    drops = sockets.kernel_drops(bound)
    assert (before, drops is not None and 0 < drops < 100) == (0, True)
    assert drops == _drops_in_proc(bound.fileno())
    bound.close()
    assert sockets.kernel_drops(bound) is None
    # QEMU's emulation gives four bytes of them.
    assert sockets.kernel_drops(mock.Mock(getsockopt=lambda *_: bytes(4))) is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts them")
def test_a_damaged_datagram_counts_as_one_that_the_kernel_drops() -> None:
    """So nobody may say that it came too fast."""
    try:
        by_hand = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    except PermissionError:
        pytest.skip("packets by hand are root's")
    with by_hand, open_socket("127.0.0.1", 0) as bound:
        to, size, wrong = bound.getsockname()[1], 8 + 1000, 1
        head = struct.pack("!4H", 50_000, to, size, wrong)
        by_hand.sendto(head + bytes(1000), ("127.0.0.1", 0))
        with pytest.raises(BlockingIOError):
            bound.recv(1, socket.MSG_DONTWAIT)
        assert sockets.kernel_drops(bound) == 1


def _drops_in_proc(descriptor: int) -> int:
    inode = str(os.fstat(descriptor).st_ino)
    with open("/proc/net/udp") as lines:
        (found,) = [fields for fields in map(str.split, lines) if inode in fields]
    return int(found[-1])


def test_a_larger_receive_buffer_is_asked_for() -> None:
    with served() as port, socket.socket(fileno=os.dup(port.fileno())) as sock:
        default = open_socket("127.0.0.1", 0)
        before = default.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        default.close()
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert before < granted <= 2 * DatagramLimits().receive_buffer


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no wildcard tells of broadcasts")
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_what_came_before_the_service_is_answered_and_a_broadcast_is_not(host: str) -> None:
    """The datagram for which systemd starts it is one; systemd's own sockets are `::` for both."""
    bound, early, wide = client(host), client(), client()
    if ":" in host:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    bound.bind((host, 0))
    number = bound.getsockname()[1]
    wide.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    wide.sendto(b"to all", ("127.255.255.255", number))
    early.connect(("127.0.0.9", number))
    early.send(b"early")
    responder = Responder(applied())
    port: Any = serve(reactor, bound, responder)
    with early, wide:
        assert await in_thread(early.recv, 100) == b"EARLY"
        wide.settimeout(SILENCE)
        with pytest.raises(TimeoutError):
            await in_thread(wide.recv, 100)
    await port.stopListening()
    assert (responder.received, responder.answered) == (2, 1)


class _LinkLocal(socket.socket):
    """A socket on an address that few machines have."""

    def getsockname(self) -> tuple[Any, ...]:
        return "fe80::7", 12_000, 0, 1


def test_a_link_local_address_is_named_with_its_scope() -> None:
    """Nobody can reach it without, and TCP's ready line has it."""
    with _LinkLocal(socket.AF_INET6, socket.SOCK_DGRAM) as skt:
        service = udp_service(UDPSettings(), Clock())
        service.ports.append(Port(skt, ResponderProtocol(service.responder, Clock()), Clock()))
        named = f"UDP [fe80::7%{socket.if_indextoname(1)}]:12000"
        assert service.served() == [named]


@pytest.mark.parametrize(
    ("asked", "interface"), [("fe80::1", 2), ("2001:db8::1", 0), ("::ffff:192.0.2.1", 0)]
)
def test_only_a_link_local_reply_is_bound_to_the_interface_it_came_in_on(
    asked: str, interface: int
) -> None:
    destination = Destination(asked, 12_000, interface=2)
    ((level, kind, record),) = sockets.reply_ancillary(destination)
    assert (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
    assert record == socket.inet_pton(socket.AF_INET6, asked) + interface.to_bytes(4, sys.byteorder)
