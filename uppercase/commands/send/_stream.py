"""Input through a stream server: a byte-exact filter, or a line and its reply in turn.

The filter sends and receives at the same time. Memory is a few chunks each way: input is read when
the connection has taken what was read before, and the connection is not read while the reader of
the output is slow.

A stream has no messages, so for a person a reply is complete when it ends with a newline, when the
server ends the conversation, when bytes have come and no more follow, or when it is endless. A
server that closes after each reply, as the lecture's does, is connected to again for the next line.
"""

import os
import select
import socket
import sys
from contextlib import suppress
from enum import Enum, auto
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Silence
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReadDescriptor
from twisted.internet.protocol import connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.client.network import ClientProtocol, IReactor, Reader, explain_loss, open_connection
from uppercase.client.session import MAX_REPLY
from uppercase.client.target import Target
from uppercase.commands import CHUNK, write_all
from uppercase.core.values import counted
from uppercase.errors import NetworkError, NoReply, UserError

LINE_QUIET_TIME: Final = 0.3
"""The silence after which a reply to a typed line counts as complete without a newline: more than a
round trip around the earth, less than a person minds."""

TLS_QUIET_TIME: Final = 1.0
"""How long a TLS server must have been silent after the end of the input before the client ends the
connection. TLS has no half-close that servers honour, so the client must guess that it has all."""

_MOST_HELD: Final = 4 * CHUNK
"""Bytes of replies that wait for the reader of the output before the server has to."""

_MOST_UNASKED: Final = 64
"""Reads of what nobody has asked for, at the prompt, before the server has to wait."""


class _Sending(Enum):
    """What becomes of the input; it goes down this list, the first two in turn."""

    READING = auto()
    """More is awaited, and may take any time."""
    BLOCKED = auto()
    """The connection has not taken all of it yet."""
    ENDING = auto()
    """There is no more, and the connection is told so after the rest."""
    ENDED = auto()
    """The server has been told; over TLS, all has been handed over."""
    GOODBYE = auto()
    """TLS: the conversation was ended after a silence."""
    OVER = auto()
    """How it ended is known, and nothing can change it."""


@implementer(IReadDescriptor)
class Source:
    """Standard input, of any kind, which stays as it is: never made non-blocking.

    Twisted's epoll reactor takes regular files, too.
    """

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._source = sys.stdin.fileno()
        self._wanted: Deferred[bytes] | None = None

    def read(self) -> Deferred[bytes]:
        """Return the next bytes, b"" at the end; one read at a time, which may be cancelled."""
        self._wanted = Deferred(lambda _: self._reactor.removeReader(self))
        self._reactor.addReader(self)
        return self._wanted

    def at_end(self) -> bool:
        """Return whether the input ends here, without waiting for it."""
        readable, _, _ = select.select([self._source], [], [], 0)
        return bool(readable) and not os.read(self._source, 1)

    def fileno(self) -> int:
        return self._source

    def logPrefix(self) -> str:
        return "input"

    def doRead(self) -> None:
        """Read once, which does not block: the descriptor is ready."""
        self._reactor.removeReader(self)
        wanted, self._wanted = self._wanted, None
        assert wanted is not None
        try:
            data = os.read(self._source, CHUNK)
        except OSError as error:
            wanted.errback(UserError(f"cannot read the input: {error.strerror}"))
        else:
            wanted.callback(data)

    def connectionLost(self, reason: Failure) -> None:
        """Hear of the end under epoll, which tells it apart from something to read."""
        if self._wanted is not None:
            self.doRead()


async def write(data: bytes) -> None:
    """Write everything to standard output, in a thread: see `write_all`."""
    await deferToThread(write_all, data)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Filter(ClientProtocol):
    """One run of input through a server.

    For `timeout` seconds the server may be owed something, or owe something, and do nothing; with
    `allow_empty`, one that was sent something may end without a byte of reply.
    """

    def __init__(
        self, reactor: IReactor, target: Target, source: Source, timeout: float, allow_empty: bool
    ) -> None:
        self._reactor = reactor
        self._target = target
        self._input = source
        self._timeout = timeout
        self._allow_empty = allow_empty
        self._sending = _Sending.READING
        self._sent = 0
        self._received = 0
        self._server_is_done = False
        self._replies = bytearray()  # those that wait for the reader of the output
        self._rest: socket.socket | None = None
        self._error: Exception | None = None
        self._happened: Deferred[None] = Deferred()
        self._lost: Deferred[None] = Deferred()

    async def connect(self) -> None:
        await open_connection(self._target, self, self._reactor)

    async def run(self) -> None:
        """Write what comes until the end is known, then raise what went wrong."""
        if self._sending is not _Sending.OVER:
            if self._target.tls is None:
                self._rest = self.transport.getHandle().dup()
            self.transport.registerProducer(self, True)
            feeding = Deferred.fromCoroutine(self._feed())
            self._lost.addCallback(lambda _: feeding.cancel())
        try:
            while self._replies or self._sending is not _Sending.OVER:
                if self._replies:
                    data = bytes(self._replies)
                    self._replies.clear()
                    await write(data)
                    self.transport.resumeProducing()
                else:
                    await self._wait()
        finally:
            self._end(self._error)
            await self._lost
        if self._error is not None:
            raise self._error

    async def _feed(self) -> None:
        try:
            while data := await self._input.read():
                self._sent += len(data)
                self.transport.write(data)
                if self.room is not None:
                    self._turn(_Sending.BLOCKED)
                    await self.room
                self._turn(_Sending.READING)
            self.transport.unregisterProducer()
            if self._target.tls is None:
                self._turn(_Sending.ENDING)
                self.transport.loseWriteConnection()
            else:
                self._turn(_Sending.ENDED)
        except CancelledError:
            pass  # The connection is gone.
        except Exception as error:
            self._end(error)

    # What the connection tells.

    def writeConnectionLost(self) -> None:
        """Note that the server has been sent everything, and told of the end."""
        if self._sending is _Sending.ENDING:
            self._turn(_Sending.ENDED)
            if self._server_is_done:
                self.readConnectionLost()

    def dataReceived(self, data: bytes) -> None:
        if self._sending is _Sending.GOODBYE:
            self._end(
                NetworkError(
                    f"{self._target} went on replying when it had been silent for "
                    f"{TLS_QUIET_TIME:g} s, and the rest is lost; TLS has no half-close"
                )
            )
        elif self._sending is not _Sending.OVER:
            self._take(data)
            if len(self._replies) > _MOST_HELD:
                self.transport.pauseProducing()
            self._wake()

    def readConnectionLost(self) -> None:
        """Judge whether the server was done when it ended its side: once it can have all."""
        self._server_is_done = True
        if self._sending not in (_Sending.ENDING, _Sending.OVER):
            self._end(self._verdict())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Judge the end of the connection, unless we made it."""
        # A TLS server may close without a goodbye after ours, having sent all that it would.
        if self._sending not in (_Sending.OVER, _Sending.GOODBYE):
            if self._server_is_done or reason.check(ConnectionDone):
                self._error = self._verdict()
            else:
                self._error = explain_loss(self._target, reason.value)
                self._take_rest()
        if self._rest is not None:
            self._rest.close()
        self._turn(_Sending.OVER)
        self._lost.callback(None)

    def _take(self, data: bytes) -> None:
        self._received += len(data)
        self._replies += data

    def _take_rest(self) -> None:
        """Take what came before the connection broke.

        Invariant: Linux keeps what has arrived until the last descriptor is closed. Twisted closes
        its own as soon as sending fails, so there is a second one.
        """
        if self._rest is not None:
            self._rest.setblocking(False)
            with suppress(OSError):
                while data := self._rest.recv(CHUNK):
                    self._take(data)

    # Who owes what.

    def _turn(self, sending: _Sending) -> None:
        if self._sending not in (sending, _Sending.OVER):
            self._sending = sending
            self._wake()

    def _wake(self) -> None:
        if not self._happened.called:
            self._happened.callback(None)

    async def _wait(self) -> None:
        """Wait until something happens, or so long that nothing will."""
        self._happened = Deferred()
        taken = getattr(self.transport, "taken", None)
        if self._sending is not _Sending.READING:
            quiet = self._owed_nothing_but_the_end()
            patience = TLS_QUIET_TIME if quiet else self._timeout
            self._happened.addTimeout(patience, self._reactor)
        try:
            await self._happened
        except Silence:
            # While a record comes slowly over TLS, the server is not silent.
            if taken == getattr(self.transport, "taken", None):
                self._silent()

    def _owed_nothing_but_the_end(self) -> bool:
        """Return whether silence means that a TLS server is done: it is not told of our end."""
        answered = self._received or not self._sent or self._allow_empty
        return bool(self._target.tls and self._sending is _Sending.ENDED and answered)

    def _silent(self) -> None:
        """End TLS; a reply that crosses that is an error, never lost. Or end for the silence."""
        if self._owed_nothing_but_the_end():
            self._sending = _Sending.GOODBYE
            self.transport.loseConnection()
        else:
            taking = self._sending in (_Sending.BLOCKED, _Sending.ENDING)
            what = "takes no more of the input" if taking else "has not ended its replies"
            silent = f"and has been silent for {self._timeout:g} s (-W)"
            self._end(NetworkError(f"{self._target} {what} {silent}"))

    def _verdict(self) -> NetworkError | None:
        """Return what is wrong with an end of the server's side here and now, if anything is."""
        done = self._sending is _Sending.ENDED
        if not done and self._sending is _Sending.READING:
            done = self._input.at_end()
        if not done:
            return NetworkError(
                f"{self._target} ended the conversation after {counted(self._sent, 'byte')}, "
                "before the end of the input"
            )
        if self._sent and not self._received and not self._allow_empty:
            return NetworkError(
                f"{self._target} ended the conversation without a reply; its log may say why, "
                "and --allow-empty takes this for an answer"
            )
        return None

    def _end(self, error: Exception | None) -> None:
        if self._sending is not _Sending.OVER:
            self._error = error
            self._turn(_Sending.OVER)
            self.transport.abortConnection()


class _Patient(Reader):
    """A connection that is not read while much has come that nobody has taken."""

    has_answered = False

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if len(self.came.pending) > _MOST_UNASKED:
            self.transport.pauseProducing()

    def take(self) -> bytes:
        """Take out all that has come, and read on."""
        taken = b"".join(self.came.pending)
        self.came.pending.clear()
        if self.reason is None:
            self.transport.resumeProducing()
        return taken


class LineConversation:
    """A conversation with a stream server, whose reply may take `timeout` seconds to begin."""

    def __init__(self, reactor: IReactor, target: Target, timeout: float) -> None:
        self._reactor = reactor
        self._target = target
        self._timeout = timeout
        self._connection = _Patient()

    async def connect(self) -> None:
        """Connect to the server, for the first time or again; see `open_connection`."""
        self.close()
        self._connection = _Patient()
        await open_connection(self._target, self._connection, self._reactor)

    async def ask(self, line: bytes) -> bytes:
        """Send a line, with a newline, and return what the server replies.

        What arrives of an earlier reply after it seemed complete precedes the next one.
        """
        late = self._connection.take()
        if self._connection.reason is not None:
            await self.connect()
        reply = await self._exchange(line)
        if not reply and self._connection.has_answered:
            # It closed just when we sent: not this line's fault.
            await self.connect()
            reply = await self._exchange(line)
        if not reply:
            raise NetworkError(
                f"{self._target} closed the connection without a reply; its log may say why"
            )
        self._connection.has_answered = True
        return late + reply

    def close(self) -> None:
        if self._connection.transport is not None:
            self._connection.transport.abortConnection()

    async def _exchange(self, line: bytes) -> bytes:
        """Send a line and return the reply, b"" if the server closed or broke off before it."""
        reply = bytearray()
        self._connection.transport.write(line + b"\n")
        patience = self._timeout
        try:
            while not reply.endswith(b"\n") and len(reply) <= MAX_REPLY:
                data = await self._connection.came.get().addTimeout(patience, self._reactor)
                if not data:
                    break
                reply += data
                patience = LINE_QUIET_TIME
        except Silence as error:
            if not reply:
                # The connection was made: neither the address nor a firewall can be the cause.
                silent = f"{self._target} did not reply within {self._timeout:g} s"
                raise NoReply(silent) from error
        return bytes(reply)
