"""Ask a server from a program: Deferreds over TCP, TLS, Unix sockets and UDP.

`ask` is one message and its reply, `connect` a session of many, `exchange` a whole stream. The
server is a `Target`, or for TCP any of Twisted's client endpoints. Failures are those of
`uppercase.errors`: `NetworkError` with a sentence, `UserError` for a mistake in the call.
"""

from typing import Any, Final, cast

from twisted.internet.defer import Deferred

from uppercase.client._endpoints import IReactor, Server, addresses_of, name_of, open_connection
from uppercase.client._session import Exchange, Session
from uppercase.client._udp import Datagrams
from uppercase.client.target import Target
from uppercase.errors import UserError
from uppercase.limits import (
    MAX_LENGTH,
    MIB,
    REPLY_TIMEOUT,
    UDP_RETRIES,
    UDP_TIMEOUT,
)

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
