"""A conversation over TCP under Twisted: framed messages, or one stream to its end.

The framing is that of the servers (`uppercase.core.framing`), so each request has exactly one reply
and replies come in the order of the requests.
"""

from collections import deque

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.client._endpoints import Conversation
from uppercase.core.framing import make_framer
from uppercase.errors import FramingError, NetworkError, NoReply, UserError
from uppercase.limits import CLOSE_TIMEOUT


class Session(Conversation):
    """A framed conversation; made by `uppercase.client.connect`.

    Requests may overlap: `ask` sends at once and replies come in order.

    Args:
        name: the server, for messages.
        framing: a name of `uppercase.core.framing.FRAMINGS` that carries many messages.
        max_length: bytes that one message may have.
        timeout: seconds without a reply, while one is owed, after which the session is broken off.
        clock: an `IReactorTime`.
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
        """End the session; replies still owed fail.

        Returns:
            Fires when the connection is closed.
        """
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
        name: the server, for messages.
        data: the input.
        max_reply: bytes that the replies may have together.
        timeout: seconds that the server may be silent.
        clock: an `IReactorTime`.
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
        """Send everything and the end of it."""
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
        """Return what was collected, or say why it is not all."""
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
