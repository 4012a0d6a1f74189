"""The client as a library: Deferreds for one message, for a session and for a whole stream."""

import errno
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from socket import AF_INET, AF_INET6, socket
from typing import Any, cast
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, NoRouteError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.client.in_reactor import in_reactor
from tests.client.servers import (
    drop,
    forged,
    free_port,
    one_reply,
    reset,
    silent,
    silent_stream,
    tcp_server,
    udp_server,
)
from tests.commands.certificates import make_certificate
from tests.commands.command import environment
from tests.system.forked import Forked
from uppercase.client import (
    TLS,
    ConnectionRefused,
    NetworkError,
    NoReply,
    Session,
    Target,
    ask,
    connect,
    exchange,
)
from uppercase.client.network import DatagramSocket, Reader, endpoint_for, open_connection
from uppercase.client.session import Datagrams, backoff
from uppercase.client.target import Address
from uppercase.errors import UserError

# In memory: sessions.


class Transport(StringTransport):
    """A transport that can end its sending side."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True


def connected(protocol: Any) -> Any:
    """Return the transport that a protocol now has."""
    transport: Any = Transport()  # type: ignore[no-untyped-call]
    protocol.makeConnection(transport)
    return transport


def make_session(framing: str = "line", timeout: float = 10.0) -> tuple[Any, Any, Clock]:
    """Return a connected session, its transport and its clock."""
    clock = Clock()
    session = Session("TCP server:7", framing, 100, timeout, clock)
    return session, connected(session), clock


def failure_of(deferred: "Deferred[Any]", kind: type[Exception]) -> str:
    """Return the sentence that a Deferred has failed with."""
    caught: list[Failure] = []
    deferred.addErrback(caught.append)
    assert caught, "it has not failed"
    assert caught[0].check(kind), caught[0]
    return caught[0].getErrorMessage()


def result_of(deferred: "Deferred[Any]") -> Any:
    results: list[Any] = []
    deferred.addCallback(results.append)
    assert results, "it has no result"
    return results[0]


@pytest.mark.parametrize(
    ("framing", "sent", "replies"),
    [
        ("line", b"one\ntwo\n", b"ONE\r\nTWO\n"),
        ("netstring", b"3:one,3:two,", b"3:ONE,3:TWO,"),
        ("int16", b"\0\3one\0\3two", b"\0\3ONE\0\3TWO"),
        ("int32", b"\0\0\0\3one\0\0\0\3two", b"\0\0\0\3ONE\0\0\0\3TWO"),
    ],
)
def test_requests_overlap_and_replies_come_in_their_order(
    framing: str, sent: bytes, replies: bytes
) -> None:
    session, transport, clock = make_session(framing)
    first, second = session.ask(b"one"), session.ask(b"two")
    assert transport.value() == sent
    for byte in replies:
        session.dataReceived(bytes([byte]))
    assert (result_of(first), result_of(second)) == (b"ONE", b"TWO")
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("framing", "message"),
    [("line", b"a\nb"), ("line", b"a\r"), ("line", b"x" * 101), ("int16", b"x" * 70_000)],
)
def test_what_the_framing_cannot_carry_is_refused_and_nothing_is_sent(
    framing: str, message: bytes
) -> None:
    """A newline inside a line would be two requests, and every later reply would be off by one."""
    session, transport, _ = make_session(framing)
    assert "cannot carry" in failure_of(session.ask(message), UserError)
    assert transport.value() == b""


def test_silence_breaks_the_session_off() -> None:
    """After that nobody could tell which reply belongs to which request."""
    session, transport, clock = make_session(timeout=3.0)
    first = session.ask(b"one")
    clock.advance(2.0)
    second = session.ask(b"two")
    session.dataReceived(b"ONE\n")
    clock.advance(2.9)
    assert not second.called
    clock.advance(0.2)
    assert result_of(first) == b"ONE"
    assert failure_of(second, NoReply) == "TCP server:7 did not reply within 3 s"
    assert transport.disconnecting or transport.disconnected
    failure_of(session.ask(b"three"), NoReply)


def test_a_cancelled_request_leaves_the_others_in_step() -> None:
    session, _, _ = make_session()
    first, second = session.ask(b"one"), session.ask(b"two")
    first.cancel()
    failure_of(first, CancelledError)
    session.dataReceived(b"ONE\nTWO\n")
    assert result_of(second) == b"TWO"


def test_a_message_of_another_type_leaves_the_others_in_step() -> None:
    session, transport, _ = make_session()
    first: Deferred[bytes] = session.ask(bytearray(b"one"))
    with pytest.raises(TypeError, match="a bytes-like object is required, not 'str'"):
        session.ask("two")
    third: Deferred[bytes] = session.ask(memoryview(b"three"))
    assert transport.value() == b"one\nthree\n"
    session.dataReceived(b"ONE\nTHREE\n")
    assert (result_of(first), result_of(third)) == (b"ONE", b"THREE")


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (ConnectionDone(), "TCP server:7 ended the conversation"),
        (ConnectionLost(), "TCP server:7 broke the connection off"),
        (OSError("TLS broke"), "the connection with TCP server:7 failed: TLS broke"),
    ],
)
def test_the_end_of_the_connection_fails_what_is_owed(reason: Exception, sentence: str) -> None:
    session, _, clock = make_session()
    owed = session.ask(b"one")
    session.connectionLost(Failure(reason))
    assert failure_of(owed, NetworkError) == sentence
    assert failure_of(session.ask(b"two"), NetworkError) == sentence
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("framing", "lie"), [("netstring", b"hello"), ("line", b"ONE\nTWO\n"), ("line", b"x" * 200)]
)
def test_a_server_that_breaks_the_framing_is_said_so(framing: str, lie: bytes) -> None:
    """So is a reply to nothing, and one that is too long."""
    session, transport, _ = make_session(framing)
    owed = session.ask(b"one")
    owed.addErrback(lambda failure: None)
    session.dataReceived(lie)
    assert "broke the framing" in failure_of(session.ask(b"two"), NetworkError)
    assert transport.disconnecting or transport.disconnected


def test_closing_a_session_fails_what_is_owed_and_waits_for_the_end() -> None:
    session, transport, clock = make_session()
    owed = session.ask(b"one")
    closed = session.close()
    assert "was closed" in failure_of(owed, NetworkError)
    assert transport.disconnecting
    assert not closed.called
    session.dataReceived(b"ONE\n")
    assert not transport.disconnected, "what was under way does not break it off"
    session.connectionLost(Failure(ConnectionDone()))
    assert result_of(closed) is None
    assert result_of(session.close()) is None
    assert clock.getDelayedCalls() == []


# In memory: exchanges.


@implementer(IStreamClientEndpoint)
class InMemory:
    """An endpoint whose connections are transports in memory."""

    def connect(self, factory: Any) -> "Deferred[Any]":
        self.protocol = factory.buildProtocol(None)
        self.transport = connected(self.protocol)
        return succeed(self.protocol)


def make_exchange(max_reply: int = 100) -> tuple["Deferred[bytes]", Any, Any, Clock]:
    clock, server = Clock(), InMemory()
    reply = exchange(server, b"hello", max_reply=max_reply, timeout=10.0, reactor=clock)
    return reply, server.protocol, server.transport, clock


def test_an_exchange_sends_all_and_gives_all() -> None:
    reply, conversation, transport, clock = make_exchange()
    assert transport.value() == b"hello"
    assert transport.half_closed
    for part in b"HEL", b"LO":
        conversation.dataReceived(part)
    assert not reply.called
    conversation.readConnectionLost()
    assert transport.disconnecting
    conversation.connectionLost(Failure(ConnectionDone()))
    assert result_of(reply) == b"HELLO"
    assert clock.getDelayedCalls() == []


def test_an_exchange_that_breaks_gives_no_part_for_the_whole() -> None:
    reply, conversation, _, _ = make_exchange()
    conversation.dataReceived(b"HEL")
    conversation.connectionLost(Failure(ConnectionLost()))
    failure_of(reply, NetworkError)


def test_an_exchange_collects_no_more_than_its_limit() -> None:
    reply, conversation, transport, _ = make_exchange(max_reply=4)
    conversation.dataReceived(b"HELLO")
    assert transport.disconnecting or transport.disconnected
    assert "more than 4 bytes" in failure_of(reply, NetworkError)


def test_an_exchange_ends_when_the_server_is_silent() -> None:
    reply, conversation, transport, clock = make_exchange()
    clock.advance(9)
    conversation.dataReceived(b"H")
    clock.advance(9)
    assert not reply.called
    clock.advance(2)
    assert transport.disconnecting or transport.disconnected
    failure_of(reply, NoReply)


# In memory: datagrams.


class FakeSocket:
    """A connected datagram socket; what it gives is what the test puts in."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.incoming: list[bytes | OSError] = []
        self.refusal: OSError | None = None
        self.open = True

    def send(self, datagram: bytes) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.written.append(datagram)

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        result = self.incoming.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    def getsockname(self) -> tuple[str, int]:
        return ("192.0.2.2", 49152)

    def close(self) -> None:
        self.open = False


class FakeReactor(Clock):
    """Time, and one socket at the most that is read from, or waits to be written."""

    reader: Any = None
    writer: Any = None

    def addReader(self, reader: Any) -> None:
        self.reader = reader

    def removeReader(self, reader: Any) -> None:
        self.reader = None

    def addWriter(self, writer: Any) -> None:
        self.writer = writer

    def removeWriter(self, writer: Any) -> None:
        self.writer = None


TARGET = Target("192.0.2.1", 7, udp=True)


def make_request(retries: int = 2) -> tuple["Deferred[bytes]", FakeReactor, FakeSocket]:
    clock: Any = FakeReactor()
    datagrams: Any = FakeSocket()
    asked = Datagrams(clock, TARGET, [Address(AF_INET, None)], 1.0, retries)
    with mock.patch("uppercase.client.session.connect_udp", return_value=datagrams):
        return ensureDeferred(asked.ask(b"hello")), clock, datagrams


def test_a_datagram_is_asked_again_after_1_2_and_4_seconds() -> None:
    reply, clock, datagrams = make_request()
    sent_at = [0]
    for second in range(1, 8):
        clock.advance(1)
        sent_at += [second] * (len(datagrams.written) - len(sent_at))
    assert sent_at == [0, 1, 3]
    assert set(datagrams.written) == {b"hello"}
    assert "did not reply to 3 attempts" in failure_of(reply, NoReply)
    assert not datagrams.open
    assert clock.reader is None
    assert clock.getDelayedCalls() == []


def test_the_wait_stops_growing_at_a_minute() -> None:
    assert [backoff(1.0, attempt) for attempt in (1, 2, 7, 5000)] == [1.0, 2.0, 60.0, 60.0]
    assert backoff(90.0, 3) == 90.0


def test_the_reply_ends_it() -> None:
    reply, clock, datagrams = make_request()
    datagrams.incoming = [b"HELLO", b"AGAIN"]
    clock.reader.doRead()
    assert result_of(reply) == b"HELLO"
    assert not datagrams.open
    assert clock.getDelayedCalls() == []


def test_a_reply_that_came_while_the_program_was_held_up_counts() -> None:
    """However long ago its time was up."""
    reply, clock, datagrams = make_request(retries=0)
    datagrams.incoming = [b"HELLO"]
    clock.advance(60)
    assert result_of(reply) == b"HELLO"


@pytest.mark.parametrize(
    "hear",
    [lambda reader: reader.doRead(), lambda reader: reader.connectionLost(None)],
    ids=["as something to read", "as the end of the descriptor, under epoll"],
)
def test_a_refusal_is_heard_from_every_reactor(hear: Callable[[Any], None]) -> None:
    reply, clock, datagrams = make_request()
    datagrams.incoming = [ConnectionRefusedError()]
    hear(clock.reader)
    assert "nothing listens on UDP 192.0.2.1:7" in failure_of(reply, ConnectionRefused)
    assert clock.reader is None
    assert clock.getDelayedCalls() == []


def test_a_false_alarm_under_epoll_changes_nothing() -> None:
    reply, clock, datagrams = make_request()
    reader = clock.reader
    clock.removeReader(reader)
    reader.connectionLost(None)
    assert clock.reader is reader
    datagrams.incoming = [b"HELLO"]
    reader.doRead()
    assert result_of(reply) == b"HELLO"


def test_a_false_alarm_leaves_what_waits_for_room_waiting() -> None:
    clock, called, nothing = FakeReactor(), list[str](), lambda _: None
    waiting = DatagramSocket(cast(Any, clock), TARGET, cast(Any, FakeSocket()), nothing, nothing)
    waiting.when_writable(partial(called.append, "there is room"))
    clock.reader = clock.writer = None
    waiting.connectionLost(cast(Any, None))
    assert (clock.reader, clock.writer) == (waiting, waiting)
    waiting.doWrite()
    assert (called, clock.writer) == (["there is room"], None)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS])
def test_a_datagram_that_finds_no_room_in_this_host_is_lost_like_any_other(number: int) -> None:
    reply, clock, datagrams = make_request()
    datagrams.refusal = OSError(number, "")
    clock.advance(1)
    datagrams.refusal = None
    clock.advance(2)
    assert len(datagrams.written) == 2
    datagrams.incoming = [b"HELLO"]
    clock.reader.doRead()
    assert result_of(reply) == b"HELLO"


def test_a_datagram_that_this_host_refuses_is_said_so() -> None:
    reply, clock, datagrams = make_request()
    datagrams.refusal = OSError(errno.EPERM, "Operation not permitted")
    clock.advance(1)
    assert "Operation not permitted" in failure_of(reply, NetworkError)


def test_a_cancelled_request_closes_its_socket() -> None:
    reply, clock, datagrams = make_request()
    reply.cancel()
    failure_of(reply, CancelledError)
    assert not datagrams.open
    assert clock.getDelayedCalls() == []


# Against real sockets.


def target_of(server: Any, **attributes: Any) -> Target:
    return Target(server.host, server.port, **attributes)


async def settle() -> None:
    """Let the reactor close what was cancelled."""
    await deferLater(reactor, 0.05)


@in_reactor
async def test_ask_over_udp() -> None:
    with udp_server(drop(0)) as server:
        target = target_of(server, udp=True)
        assert await ask(target, b"hello", timeout=0.1) == b"HELLO"
        assert await ask(target, b"", timeout=0.1) == b""
    with udp_server(forged) as server:
        assert await ask(target_of(server, udp=True), b"hello") == b"HELLO"
    with udp_server(silent) as server, pytest.raises(NoReply):
        await ask(target_of(server, udp=True), b"hello", timeout=0.05, retries=1)


@in_reactor
async def test_a_udp_refusal_is_said_at_once() -> None:
    with pytest.raises(ConnectionRefused, match="start the server first: twistd -n uppercase-udp"):
        await ask(Target(port=free_port(), udp=True), b"hello", timeout=60)


@in_reactor
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_udp_name_is_tried_in_both_families(host: str, both_families: str) -> None:
    with udp_server(host=host) as server:
        assert await ask(Target(both_families, server.port, udp=True), b"hello") == b"HELLO"


@in_reactor
async def test_a_message_too_large_for_a_datagram_is_a_mistake() -> None:
    with udp_server() as server, pytest.raises(UserError, match="use TCP"):
        await ask(target_of(server, udp=True), b"x" * 70_000)


@in_reactor
async def test_ask_over_tcp() -> None:
    with tcp_server() as server:
        assert await ask(target_of(server), b"hello") == b"HELLO"
        endpoint = TCP4ClientEndpoint(reactor, server.host, server.port)
        assert await ask(endpoint, b"hello", framing="netstring") == b"HELLO"
    with tcp_server(one_reply) as server:
        assert await ask(target_of(server), b"hello") == b"HELLO"


@in_reactor
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_who_is_connected_to_itself_is_told_that_nothing_listens(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system may give a client the port that it asks for, here on purpose."""
    with socket(AF_INET6 if ":" in host else AF_INET) as probe:
        probe.bind((host, 0))
        target = Target(host, probe.getsockname()[1])
    kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
    own = kind(cast(Any, reactor), host, target.port, bindAddress=(host, target.port))
    monkeypatch.setattr("uppercase.client.network.endpoint_for", lambda *_: own)
    with pytest.raises(ConnectionRefused, match=f"nothing listens on TCP .*:{target.port}; start"):
        await ask(target, b"hello")
    await settle()


@in_reactor
async def test_an_address_of_the_other_family_is_none() -> None:
    for host, family in (("127.0.0.1", AF_INET6), ("::1", AF_INET)):
        for udp in (False, True):
            with pytest.raises(NetworkError, match=f"cannot resolve the name '{host}'"):
                await ask(Target(host, 9, udp=udp, family=family), b"hello")


@in_reactor
async def test_the_address_of_last_time_saves_the_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a family as well, such as for `ping -4`, which connects again and again."""
    looked_up: list[Target] = []

    def look_up(target: Target, _: object) -> Deferred[list[Address]]:
        looked_up.append(target)
        return succeed([])

    monkeypatch.setattr("uppercase.client.network.addresses_of", look_up)
    with tcp_server() as server:
        target = replace(target_of(server), family=AF_INET)
        for peer, looks in ((None, 1), (target, 1)):
            reader = Reader()
            await open_connection(target, reader, cast(Any, reactor), peer)
            reader.transport.loseConnection()
            assert await reader.came.get() == b""
            assert len(looked_up) == looks


@in_reactor
async def test_an_address_keeps_its_scope() -> None:
    endpoint: Any = endpoint_for(Target("fe80::1%lo", 9), cast(Any, reactor))
    assert isinstance(endpoint, TCP6ClientEndpoint)
    with pytest.raises(NetworkError, match="cannot resolve the name 'fe80::1%nope'"):
        await ask(Target("fe80::1%nope", 9), b"hello")


@in_reactor
async def test_an_address_is_not_looked_up() -> None:
    """That needs a thread, which there may not be, and is told 0.3 s late that nothing listens."""
    endpoint: Any = endpoint_for(Target("127.0.0.1", 9), cast(Any, reactor))
    assert isinstance(endpoint, TCP4ClientEndpoint)


@in_reactor
async def test_datagrams_have_no_session_and_no_exchange() -> None:
    """A TCP server on the same port is not taken for it."""
    for begin in (connect, lambda server: exchange(server, b"hello")):
        with pytest.raises(UserError, match="a session or an exchange needs TCP"):
            await begin(Target(port=9, udp=True))


@in_reactor
async def test_a_mistake_in_the_call_leaves_no_socket() -> None:
    with pytest.raises(TypeError):
        await ask(Target(port=9, udp=True), b"hello", retries=cast(Any, "4"))


@in_reactor
async def test_a_session_of_many_messages() -> None:
    with tcp_server() as server:
        session = await connect(target_of(server))
        replies = [session.ask(b"message %d" % number) for number in range(100)]
        assert [await reply for reply in replies] == [b"MESSAGE %d" % n for n in range(100)]
        await session.close()


@in_reactor
async def test_an_exchange_with_a_streaming_server() -> None:
    data = bytes(range(256)) * 4000
    with tcp_server() as server:
        assert await exchange(target_of(server), data) == data.upper()
        assert await exchange(target_of(server), b"") == b""
        buffer: Any = bytearray(b"hello")
        assert await exchange(target_of(server), buffer) == b"HELLO"
        with pytest.raises(TypeError, match="a bytes-like object is required, not 'str'"):
            await exchange(target_of(server), cast(Any, "hello"))
        await settle()


@in_reactor
async def test_tcp_trouble_has_its_name() -> None:
    with pytest.raises(ConnectionRefused, match="twistd -n uppercase-tcp"):
        await ask(Target(port=free_port()), b"hello")
    with pytest.raises(ConnectionRefused, match="UNIX socket"):
        await connect(Target(unix="/nowhere/socket"))
    with pytest.raises(NetworkError, match=r"cannot reach the server: .*refused"):
        await connect(endpoint_for(Target(port=free_port()), cast(Any, reactor)))
    with pytest.raises(UserError, match="a path of 200 bytes for a UNIX socket"):
        await connect(Target(unix="x" * 200))
    with pytest.raises(NetworkError, match="cannot resolve the name"):
        await connect(Target("nowhere.invalid"))
    with tcp_server(silent_stream) as server, pytest.raises(NoReply):
        await ask(target_of(server), b"hello", timeout=0.1)
    with tcp_server(reset) as server, pytest.raises(NetworkError, match="broke"):
        await ask(target_of(server), b"hello")
    # Such as one that refuses us before TLS is agreed on.
    with tcp_server(reset) as server, pytest.raises(NetworkError, match=r"TLS .* broke the conn"):
        await ask(target_of(server, tls=TLS()), b"hello")
    with pytest.raises(UserError, match="half-close"):
        await exchange(Target(tls=TLS()), b"hello")


@in_reactor
async def test_tls_is_verified_unless_told_otherwise(tmp_path: Any) -> None:
    certificate = make_certificate(tmp_path)
    with tcp_server(wrap=certificate.wrap) as server:
        trusting = target_of(server, tls=TLS(ca=str(certificate.path)))
        assert await ask(trusting, b"hello") == b"HELLO"
        assert await ask(target_of(server, tls=TLS(verify=False)), b"hello") == b"HELLO"
        with pytest.raises(NetworkError, match="certificate"):
            await ask(target_of(server, tls=TLS()), b"hello")
    with pytest.raises(UserError, match="cannot be used"):
        await connect(Target(tls=TLS(ca=str(tmp_path / "nothing"))))


@in_reactor
@pytest.mark.parametrize("udp", [True, False])
async def test_cancelling_closes_what_was_opened(udp: bool) -> None:
    with udp_server(silent) if udp else tcp_server(silent_stream) as server:
        reply = ask(target_of(server, udp=udp), b"hello", timeout=60)
        await deferLater(reactor, 0.1)
        reply.cancel()
        with pytest.raises(CancelledError):
            await reply
        await settle()


@in_reactor
async def test_a_handshake_that_is_not_answered_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tcp_server(silent_stream) as server:
        mute = target_of(server, tls=TLS(verify=False))
        reply = ask(mute, b"hello")
        await deferLater(reactor, 0.1)
        reply.cancel()
        with pytest.raises(CancelledError):
            await reply
        monkeypatch.setattr("uppercase.client.network.CONNECT_TIMEOUT", 0.1)
        with pytest.raises(NoReply, match=r"within 0\.1 s; does it speak TLS\?$"):
            await ask(mute, b"hello")
        await settle()


@in_reactor
async def test_cancelling_is_the_same_before_there_is_a_connection() -> None:
    for server in (
        Target(port=free_port()),
        endpoint_for(Target(port=free_port()), cast(Any, reactor)),
    ):
        reply = ask(server, b"hello")
        reply.cancel()
        with pytest.raises(CancelledError):
            await reply
    await settle()


# The guide.

GUIDE = Path(__file__).parents[2] / "docs" / "howto" / "embed-the-client.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("program", "printed"),
    list(
        zip(
            PROGRAMS,
            [
                "b'HELLO'\n",
                "[b'ONE', b'TWO', b'THREE']\n",
                r"b'ANY BYTES: \xff\x00\n'" + "\n",
                "b'HELLO'\n",
                "b'HELLO'\n",
            ],
            strict=True,
        )
    ),
    ids=["ask", "connect", "exchange", "asyncio", "test"],
)
def test_the_guide_s_programs_run(program: str, printed: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    with (
        udp_server() if "udp=True" in program else tcp_server() as server,
        tempfile.TemporaryFile("w+") as said,
    ):
        path.write_text(program.replace("12000", str(server.port)))
        Forked([str(path)], environment(), said.fileno()).wait(30)
        said.seek(0)
        assert said.read() == printed


@in_reactor
async def test_what_the_system_says_is_said_as_it_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twisted makes of an unreachable network that there is no route to the host."""
    refused = mock.Mock(side_effect=NoRouteError(errno.ENETUNREACH, "Network is unreachable"))
    monkeypatch.setattr("uppercase.client.network._connect", refused)
    with pytest.raises(NetworkError, match=r"cannot reach \S+ \S+: Network is unreachable$"):
        await open_connection(Target("127.0.0.1", 7), Reader(), cast(Any, reactor))
    # So Twisted says under epoll that an ICMP was there at once.
    refused.side_effect = ConnectError(string=Failure(CONNECTION_DONE))
    with pytest.raises(NetworkError, match=r"cannot reach \S+ \S+: refused by a firewall or a rou"):
        await open_connection(Target("127.0.0.1", 7), Reader(), cast(Any, reactor))
