"""Ask a server from a program: Deferreds over TCP, TLS, UNIX sockets and UDP.

`ask` is one message and its reply, `connect` a session of many, `exchange` a whole stream. The
server is a `Target`, or for TCP any of Twisted's client endpoints; without a reactor it is the
global one. Failures are those of `uppercase.errors`: `NetworkError` with a sentence, `UserError`
for a mistake in the call.

The framing is that of the servers (`uppercase.core.framing`), so each request has exactly one reply
and replies come in the order of the requests. Over UDP every message has a socket of its own,
unless one is wanted for all, connected to the server from a port that no recent message had. So the
kernel keeps out what others send, and a late duplicate of one reply finds its port closed instead
of passing for the reply to another message.
"""

import errno
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredQueue, fail
from twisted.internet.defer import TimeoutError as Silence
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from uppercase.client.network import (
    ClientProtocol,
    DatagramSocket,
    IReactor,
    Reader,
    Server,
    addresses_of,
    open_connection,
)
from uppercase.client.target import Address, Target, connect_udp, explain
from uppercase.core.framing import make_framer
from uppercase.core.values import counted
from uppercase.errors import ConnectionRefused, FramingError, NetworkError, NoReply, UserError
from uppercase.limits import (
    CLOSE_TIMEOUT,
    MAX_LENGTH,
    MIB,
    REPLY_TIMEOUT,
    UDP_READ_SIZE,
    UDP_RETRIES,
    UDP_TIMEOUT,
)

_MAX_TIMEOUT: Final = 60.0
"""No repetition waits longer (RFC 6298 section 2.5)."""

PORT_MEMORY: Final = 4096
"""A source port is not used again for this many requests, lest a late duplicate of one reply be
taken for another. A seventh of Linux's ephemeral ports, so a fresh one is quickly found."""

_PORT_TRIES: Final = 64
"""This many used ports in a row mean that the system has hardly any others; otherwise the chance of
it is below 1e-30."""


class Session(TimeoutMixin, ClientProtocol):
    """A framed conversation; made by `uppercase.client.connect`.

    Requests may overlap: `ask` sends at once and replies come in order. If none comes for the
    time-out, while one is owed, the session is broken off.
    """

    def __init__(
        self, name: str, framing: str, max_length: int, timeout: float, clock: IReactorTime
    ) -> None:
        self._clock = clock
        self._name = name
        self._timeout = timeout
        self._framing = framing
        self._max_length = max_length
        self._framer = make_framer(framing, max_length=max_length)
        self._owed: deque[Deferred[bytes]] = deque()
        self._reason: Exception | None = None
        self._lost: Deferred[None] = Deferred()

    def ask(self, message: bytes) -> Deferred[bytes]:
        """Send a message.

        Returns:
            Its reply. Fails with `NoReply` or `NetworkError` if the session ends before, and with
            `UserError` if the framing cannot carry the message. When it is cancelled, the reply is
            discarded; the others stay in step.
        """
        if self._reason is not None:
            return fail(self._reason)
        trailer = b"\n" if self._framing == "line" else b""
        try:
            data = self._framer.wrap(bytes(memoryview(message)), trailer)
            probe = make_framer(self._framing, max_length=self._max_length)
            carried = list(probe.feed(data)) == [(message, trailer)]
        except FramingError:
            carried = False
        if not carried:
            return fail(
                UserError(
                    f"got a message of {len(message)} bytes that the framing {self._framing!r} "
                    f"cannot carry within {self._max_length} bytes; netstring takes any content"
                )
            )
        reply: Deferred[bytes] = Deferred()
        if not self._owed:
            self.setTimeout(self._timeout)
        self._owed.append(reply)
        self.transport.write(data)
        return reply

    def close(self) -> Deferred[None]:
        """End the session; replies still owed fail."""
        if not self._lost.called:
            self._end(NetworkError(f"the session with {self._name} was closed"))
            self.transport.loseConnection()
            self.setTimeout(CLOSE_TIMEOUT)
        closed: Deferred[None] = Deferred()
        self._lost.addCallback(lambda _: closed.callback(None))
        return closed

    def dataReceived(self, data: bytes) -> None:
        """Hand each reply to whoever it is owed to."""
        try:
            for reply, _ in self._framer.feed(data):
                if self._reason is not None:
                    return
                if not self._owed:
                    raise FramingError("a reply to nothing")
                self.setTimeout(self._timeout if len(self._owed) > 1 else None)
                self._owed.popleft().callback(reply)
        except FramingError as error:
            failure = NetworkError(f"{self._name} broke the framing {self._framing!r}: {error}")
            failure.__cause__ = error
            self._break_off(failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what is still owed."""
        self.setTimeout(None)
        # Before what is owed fails: whoever hears of that may close the session.
        self._lost.callback(None)
        self._end(_explain(self._name, reason))

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        return self._clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        """Break off what is silent, or does not end when it has been closed."""
        self._break_off(NoReply(f"{self._name} did not reply within {self._timeout:g} s"))

    def _break_off(self, error: Exception) -> None:
        """End the session: after an error nobody knows which reply belongs to which request."""
        self._end(error)
        self.transport.abortConnection()

    def _end(self, error: Exception) -> None:
        """Refuse what will be asked, and fail what is owed, unless that is done already."""
        self._reason = self._reason or error
        self.setTimeout(None)
        owed, self._owed = self._owed, deque()
        for reply in owed:
            reply.errback(self._reason)


def _explain(name: str, reason: Failure) -> NetworkError:
    if reason.check(ConnectionDone):
        return NetworkError(f"{name} ended the conversation")
    if reason.check(ConnectionLost):
        return NetworkError(f"{name} broke the connection off")
    failure = NetworkError(f"the connection with {name} failed: {reason.getErrorMessage()}")
    failure.__cause__ = reason.value
    return failure


@dataclass(eq=False)
class Datagrams:
    """Asks a datagram server, any number of messages at a time, or one with `one_socket`.

    If its first address refuses before there was any reply, the next one is asked. `timeout` is for
    the first datagram of a message; each repetition waits twice as long.
    """

    reactor: IReactor
    target: Target
    addresses: list[Address]
    timeout: float
    retries: int
    one_socket: bool = False
    _answered: bool = field(default=False, init=False)
    _shared: dict[Address, socket.socket] = field(default_factory=dict, init=False)
    _under_way: set[DeferredQueue[Any]] = field(default_factory=set, init=False)
    _recent_ports: OrderedDict[int, None] = field(default_factory=OrderedDict, init=False)

    async def ask(
        self, message: bytes, again: Callable[[str], None] = lambda attempt: None
    ) -> bytes:
        """Return the reply to a message; `again` is told of each further attempt, in words."""
        while True:
            address = self.addresses[0]
            try:
                reply = await self._ask(address, message, again)
            except ConnectionRefused as error:
                if address is self.addresses[0]:
                    self._refused(error)
            else:
                self._answered = True
                return reply

    async def _ask(self, address: Address, message: bytes, again: Callable[[str], None]) -> bytes:
        came: DeferredQueue[Any] = DeferredQueue()
        datagrams = self._share_socket(address) if self.one_socket else self._open_socket(address)
        port = DatagramSocket(
            self.reactor, self.target, datagrams, came.put, lambda error: came.put(Failure(error))
        )
        self._under_way.add(came)
        try:
            most = self.retries + 1
            for attempt in range(1, most + 1):
                if attempt > 1:
                    again(f"attempt {attempt} of {most}")
                self._send(datagrams, message)
                wait = backoff(self.timeout, attempt)
                try:
                    return cast(bytes, await came.get().addTimeout(wait, self.reactor))
                except Silence:
                    # When the program was held up, timers run before sockets: it may have come.
                    port.doRead()
                    if came.pending:
                        return cast(bytes, await came.get())
        finally:
            self._under_way.discard(came)
            port.close()
        raise NoReply(f"{self.target} did not reply to {counted(most, 'attempt')}")

    def _send(self, datagrams: socket.socket, message: bytes) -> None:
        """Send a datagram; no room in the kernel is a loss like any other."""
        try:
            datagrams.send(message)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                sentence = f"got {len(message)} bytes, too many for a datagram; use TCP"
                raise UserError(sentence) from error
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                raise explain(error, self.target) from error

    def close(self) -> None:
        self._give_up(CancelledError())
        while self._shared:
            self._shared.popitem()[1].close()

    def _give_up(self, error: Exception) -> None:
        for came in list(self._under_way):
            came.put(Failure(error))

    def _refused(self, error: NetworkError) -> None:
        """Go on to the next address with all that is under way, or give all of it up."""
        last = self._answered or len(self.addresses) == 1
        if not last:
            self.addresses = self.addresses[1:]
        self._give_up(error)
        if last:
            raise error

    def _share_socket(self, address: Address) -> socket.socket:
        """Return a duplicate of the one socket, for one request to close."""
        if address not in self._shared:
            self._shared[address] = connect_udp(self.target, address)
        shared = self._shared[address]
        # What comes late must not pass for the next reply; a refusal is heard again.
        with suppress(OSError):
            while True:
                shared.recv(UDP_READ_SIZE)
        return shared.dup()

    def _open_socket(self, address: Address) -> socket.socket:
        for refused in count(1):
            fresh = connect_udp(self.target, address)
            port = fresh.getsockname()[1]
            if port not in self._recent_ports:
                break
            fresh.close()
            # Remember less where the system has few ports to give.
            if refused % _PORT_TRIES == 0:
                self._recent_ports.popitem(last=False)
        self._recent_ports[port] = None
        if len(self._recent_ports) > PORT_MEMORY:
            self._recent_ports.popitem(last=False)
        return fresh


def backoff(timeout: float, attempt: int) -> float:
    """Return the seconds to wait after an attempt: `timeout` first, then twice as long each."""
    # A power beyond any time-out would overflow.
    return max(timeout, min(timeout * 2.0 ** min(attempt - 1, 64), _MAX_TIMEOUT))


MAX_REPLY: Final = 16 * MIB
"""What a client's library collects of one reply that only the end of the connection delimits."""


def ask(
    server: Server,
    message: bytes,
    *,
    framing: str = "line",
    timeout: float | None = None,
    retries: int = UDP_RETRIES,
    reactor: Any = None,
) -> Deferred[bytes]:
    """Send one message and return its reply.

    Over TCP it is a session of one message; the framing `line` suits every server that answers a
    line with a line, streaming ones included. The reply may take 10 seconds unless `timeout` is
    given. Over UDP the message is one datagram from a port of its own, sent again up to `retries`
    times, and the time-out is that of the first: 1 second unless given. Each repetition waits twice
    as long.

    Returns:
        The reply. Fails with `ConnectionRefused`, `NoReply`, another `NetworkError`, or
        `UserError`. Cancelling it closes what was opened.
    """
    clock = _reactor(reactor)

    async def ask_once() -> bytes:
        if isinstance(server, Target) and server.udp:
            wait = UDP_TIMEOUT if timeout is None else timeout
            addresses = await addresses_of(server, clock)
            return await Datagrams(clock, server, addresses, wait, retries).ask(message)
        wait = REPLY_TIMEOUT if timeout is None else timeout
        session = await connect(server, framing=framing, timeout=wait, reactor=clock)
        try:
            return await session.ask(message)
        finally:
            await session.close()

    return Deferred.fromCoroutine(ask_once())


def connect(
    server: Server,
    *,
    framing: str = "line",
    max_length: int = MAX_LENGTH,
    timeout: float = REPLY_TIMEOUT,
    reactor: Any = None,
) -> Deferred[Session]:
    """Open a session of many messages, of up to `max_length` bytes each, over TCP.

    The framing must carry many. The session is broken off when no reply comes for `timeout`
    seconds, while one is owed.

    Returns:
        The session. Fails as `ask` does.
    """
    clock = _reactor(reactor)

    async def open_session() -> Session:
        session = Session(_name_of(server), framing, max_length, timeout, clock)
        await open_connection(server, session, clock)
        return session

    return Deferred.fromCoroutine(open_session())


def exchange(
    server: Server,
    data: bytes,
    *,
    max_reply: int = MAX_REPLY,
    timeout: float = REPLY_TIMEOUT,
    reactor: Any = None,
) -> Deferred[bytes]:
    """Send all input, end the sending side, and return everything that comes back.

    For streaming servers and bytes of any content. TLS has no half-close: use `ask` there. At most
    `max_reply` bytes may come back, and the server may be silent for `timeout` seconds.

    Returns:
        All replies. Fails as `ask` does. Cancelling it closes the connection.
    """
    clock = _reactor(reactor)

    async def converse() -> bytes:
        if isinstance(server, Target) and server.tls:
            raise UserError(f"got {server}; an exchange ends with a half-close, which needs TCP")
        name, reader, received = _name_of(server), Reader(), bytearray()
        await open_connection(server, reader, clock)
        try:
            reader.transport.write(bytes(memoryview(data)))
            reader.transport.loseWriteConnection()
            while chunk := await reader.came.get().addTimeout(timeout, clock):
                received += chunk
                if len(received) > max_reply:
                    raise NetworkError(f"{name} sent more than {max_reply} bytes (max_reply)")
        except Silence as error:
            raise NoReply(f"{name} has not ended its replies, silent for {timeout:g} s") from error
        finally:
            if reader.reason is None:
                reader.transport.abortConnection()
        if reader.reason is not None and not reader.reason.check(ConnectionDone):
            raise _explain(name, reader.reason)
        return bytes(received)

    return Deferred.fromCoroutine(converse())


def _name_of(server: Server) -> str:
    return str(server) if isinstance(server, Target) else "the server"


def _reactor(reactor: Any) -> IReactor:
    # Invariant: the public functions take `Any`, since Twisted's own `reactor` has a lesser type.
    if reactor is None:
        # Importing it installs it, which is for the program to do, at the time that it chooses.
        from twisted.internet import reactor
    return cast(IReactor, reactor)
