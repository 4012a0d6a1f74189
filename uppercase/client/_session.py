"""Ask a server from a program: Deferreds over TCP, TLS, Unix sockets and UDP.

`ask` is one message and its reply, `connect` a session of many, `exchange` a whole stream. The
server is a `Target`, or for TCP any of Twisted's client endpoints. Failures are those of
`uppercase.errors`: `NetworkError` with a sentence, `UserError` for a mistake in the call.

The framing is that of the servers (`uppercase.core.framing`), so each request has exactly one reply
and replies come in the order of the requests.
"""

from collections import deque
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.client._endpoints import (
    Conversation,
    IReactor,
    Server,
    addresses_of,
    name_of,
    open_connection,
)
from uppercase.client._udp import Datagrams
from uppercase.client.target import Target
from uppercase.core.framing import make_framer
from uppercase.errors import FramingError, NetworkError, NoReply, UserError
from uppercase.limits import (
    CLOSE_TIMEOUT,
    MAX_LENGTH,
    MIB,
    REPLY_TIMEOUT,
    UDP_RETRIES,
    UDP_TIMEOUT,
)


class Session(Conversation):
    """A framed conversation; made by `uppercase.client.connect`.

    Requests may overlap: `ask` sends at once and replies come in order.

    Args:
        timeout: seconds without a reply, while one is owed, after which the session is broken off.
    """

    def __init__(
        self, name: str, framing: str, max_length: int, timeout: float, clock: IReactorTime
    ) -> None:
        self._name = name
        self._framing = framing
        self._max_length = max_length
        self._timeout = timeout
        self._clock = clock
        self._framer = make_framer(framing, max_length=max_length)
        self._owed: deque[Deferred[bytes]] = deque()
        self._reason: Exception | None = None
        self._timer: IDelayedCall | None = None
        self._closing: list[Deferred[None]] = []
        self._closed = False

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
            data = self._framer.wrap(message, trailer)
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
        self._owed.append(reply)
        self.transport.write(data)
        if self._timer is None:
            self._timer = self._clock.callLater(self._timeout, self._silence)
        return reply

    def close(self) -> Deferred[None]:
        """End the session; replies still owed fail."""
        closed: Deferred[None] = Deferred()
        if self._closed:
            closed.callback(None)
        else:
            self._closing.append(closed)
            self._end(NetworkError(f"the session with {self._name} was closed"))
            self.transport.loseConnection()
            self._timer = self._clock.callLater(CLOSE_TIMEOUT, self.transport.abortConnection)
        return closed

    def dataReceived(self, data: bytes) -> None:
        """Hand each reply to whoever it is owed to."""
        try:
            for reply, _ in self._framer.feed(data):
                if self._reason is not None:
                    return
                if not self._owed:
                    raise FramingError("a reply to nothing")
                self._stop_timer()
                if len(self._owed) > 1:
                    self._timer = self._clock.callLater(self._timeout, self._silence)
                self._owed.popleft().callback(reply)
        except FramingError as error:
            failure = NetworkError(f"{self._name} broke the framing {self._framing!r}: {error}")
            failure.__cause__ = error
            self._break_off(failure)

    def lost(self, reason: Failure) -> None:
        """Fail what is still owed."""
        self._closed = True
        self._stop_timer()
        self._end(_explain_loss(self._name, reason))
        closing, self._closing = self._closing, []
        for closed in closing:
            closed.callback(None)

    def _silence(self) -> None:
        self._timer = None
        self._break_off(NoReply(f"{self._name} did not reply within {self._timeout:g} s"))

    def _break_off(self, error: Exception) -> None:
        """End the session: after an error nobody knows which reply belongs to which request."""
        self._end(error)
        self.transport.abortConnection()

    def _end(self, error: Exception) -> None:
        """Refuse what will be asked, and fail what is owed, unless that is done already."""
        self._reason = self._reason or error
        self._stop_timer()
        owed, self._owed = self._owed, deque()
        for reply in owed:
            reply.errback(self._reason)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@implementer(IHalfCloseableProtocol)
class Exchange(Conversation):
    """All input at once, its end, and everything that comes back; made by `exchange`.

    Args:
        max_reply: bytes that the replies may have together.
    """

    def __init__(
        self, name: str, data: bytes, max_reply: int, timeout: float, clock: IReactorTime
    ) -> None:
        self.reply: Deferred[bytes] = Deferred(lambda _: self._abandon())
        self._name = name
        self._data = data
        self._left = max_reply
        self._max_reply = max_reply
        self._timeout = timeout
        self._clock = clock
        self._received: list[bytes] = []
        self._error: Exception | None = None
        self._timer: IDelayedCall

    def connectionMade(self) -> None:
        self._timer = self._clock.callLater(self._timeout, self._silence)
        self.transport.write(self._data)
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Collect, within the limit."""
        self._timer.reset(self._timeout)
        self._received.append(data)
        self._left -= len(data)
        if self._left < 0:
            self._break_off(
                NetworkError(f"{self._name} sent more than {self._max_reply} bytes (max_reply)")
            )

    def readConnectionLost(self) -> None:
        """Close our side too: all that will come has come."""
        self.transport.loseConnection()

    def lost(self, reason: Failure) -> None:
        if self._timer.active():
            self._timer.cancel()
        if self._error is None and not reason.check(ConnectionDone):
            self._error = _explain_loss(self._name, reason)
        if self._error is not None:
            self.reply.errback(self._error)
        else:
            self.reply.callback(b"".join(self._received))

    def _silence(self) -> None:
        self._break_off(
            NoReply(f"{self._name} has not ended its replies, silent for {self._timeout:g} s")
        )

    def _break_off(self, error: Exception) -> None:
        self._error = self._error or error
        self.transport.abortConnection()

    def _abandon(self) -> None:
        self.transport.abortConnection()


def _explain_loss(name: str, reason: Failure) -> NetworkError:
    """Return the sentence for the end of a connection."""
    if reason.check(ConnectionDone):
        return NetworkError(f"{name} ended the conversation")
    if reason.check(ConnectionLost):
        return NetworkError(f"{name} broke the connection off")
    failure = NetworkError(f"the connection with {name} failed: {reason.getErrorMessage()}")
    failure.__cause__ = reason.value
    return failure


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
    """Send one message and give its reply.

    Over TCP it is a session of one message. Over UDP the message is one datagram, asked again up to
    `retries` times, each time from a port that nobody else uses.

    Args:
        server: a target or, for TCP, a client endpoint.
        message: the message, without framing.
        framing: TCP: how messages are told apart; `line` suits every server that answers a line
            with a line, streaming ones included.
        timeout: seconds to wait. TCP: for the reply, 10 unless given. UDP: for the reply to the
            first datagram, 1 unless given; each repetition waits twice as long.
        retries: UDP: how often to ask again.
        reactor: the reactor; without it, the global one.

    Returns:
        The reply. Fails with `ConnectionRefused`, `NoReply`, another `NetworkError`, or
        `UserError`. Cancelling it closes what was opened.
    """
    if isinstance(server, Target) and server.udp:
        wait = UDP_TIMEOUT if timeout is None else timeout
        return Deferred.fromCoroutine(
            _ask_datagram(_reactor(reactor), server, message, wait, retries)
        )
    wait = REPLY_TIMEOUT if timeout is None else timeout
    return Deferred.fromCoroutine(_ask_once(server, message, framing, wait, reactor))


def connect(
    server: Server,
    *,
    framing: str = "line",
    max_length: int = MAX_LENGTH,
    timeout: float = REPLY_TIMEOUT,
    reactor: Any = None,
) -> Deferred[Session]:
    """Open a session of many messages over TCP.

    Args:
        server: a target or a client endpoint.
        framing: as for `ask`; one that carries many messages.
        max_length: bytes that one message may have.
        timeout: seconds without a reply, while one is owed, after which the session is broken off.
        reactor: the reactor; without it, the global one.

    Returns:
        The session. Fails as `ask` does.
    """
    clock = _reactor(reactor)

    async def open_session() -> Session:
        session = Session(name_of(server), framing, max_length, timeout, clock)
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
    """Send all input, end the sending side, and give everything that comes back.

    For streaming servers and bytes of any content. TLS has no half-close: use `ask` there.

    Args:
        server: a target or a client endpoint.
        data: the input.
        max_reply: bytes that may come back.
        timeout: seconds that the server may be silent.
        reactor: the reactor; without it, the global one.

    Returns:
        All replies. Fails as `ask` does. Cancelling it closes the connection.
    """
    clock = _reactor(reactor)

    async def converse() -> bytes:
        if isinstance(server, Target) and (server.tls or server.udp):
            raise UserError(f"got {server}; an exchange ends with a half-close, which needs TCP")
        conversation = Exchange(name_of(server), data, max_reply, timeout, clock)
        await open_connection(server, conversation, clock)
        return await conversation.reply

    return Deferred.fromCoroutine(converse())


async def _ask_once(
    server: Server, message: bytes, framing: str, timeout: float, reactor: Any
) -> bytes:
    session = await connect(server, framing=framing, timeout=timeout, reactor=reactor)
    try:
        return await session.ask(message)
    finally:
        await session.close()


async def _ask_datagram(
    reactor: IReactor, target: Target, message: bytes, timeout: float, retries: int
) -> bytes:
    addresses = await addresses_of(target, reactor)
    return await Datagrams(reactor, target, addresses, timeout, retries).ask(message)


def _reactor(reactor: Any) -> IReactor:
    # Invariant: the public functions take `Any`, since Twisted's own `reactor` has a lesser type.
    if reactor is not None:
        return cast(IReactor, reactor)
    # Importing it installs it, which is for the program to do, at the time that it chooses.
    from twisted.internet import reactor as installed

    return cast(IReactor, installed)
