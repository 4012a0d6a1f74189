"""The TLS stage: Twisted's TLS over any stream transport, with a half-close and with deadlines.

Twisted's own endpoints lose what is owed to a peer that ends its side (they answer its close_notify
with ours, and a TCP end by tearing down), and wait for ever for peers that fall silent in the
handshake or never answer our close_notify. Here both kinds of end are the end of input and no
more, as in plain TCP, and each wait has a deadline.

Imports pyOpenSSL: only who was asked for TLS may import this module.
"""

import re
from typing import Any, Final

from OpenSSL.SSL import Connection, Context, Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IOpenSSLServerConnectionCreator,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.events import Outcome
from uppercase.errors import HandshakeFailed
from uppercase.limits import KIB
from uppercase.tcp.closing import LINGER, Deadline, IOrderlyTLSTransport
from uppercase.tcp.factory import TransformFactory

_TLS_PIECE: Final = 16 * KIB
"""How much is given to OpenSSL at once: its buffer for input grows to the largest piece and never
shrinks. The most that one TLS record carries (RFC 8446 section 5.1)."""


_OUR_CERTIFICATE: Final = re.compile(
    "alert (unknown ca|(bad|unsupported) certificate|certificate (unknown|expired|revoked))$"
)
"""OpenSSL's words for the alerts of a peer that has looked at our certificate (RFC 8446 section
6.2): no others are about it, as we ask peers for none."""

_DISTRUST: Final = (
    "it does not accept our certificate; have it trust who signed that, "
    "and look at its dates and names"
)


class _WatchedConnection(Connection):
    """OpenSSL's side of a connection, which keeps a peer's end from Twisted.

    Twisted would answer a close_notify by closing at once. What is found while Twisted is at work
    is only noted here: acting on it may close the connection under Twisted's feet.

    Args:
        context: key, certificate and versions.
        listener: told how the handshake goes.

    Attributes:
        ended: a close_notify has come.
        broken: why TLS cannot go on, within the handshake or after it, if so.
    """

    ended = False
    broken = ""

    def __init__(self, context: Context, listener: "TLSProtocol") -> None:
        super().__init__(context, None)
        self._listener = listener

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        try:
            super().do_handshake()
        except WantReadError:
            raise
        except Error as error:
            # Twisted would close at once; the alert is still to go out, and to be read.
            self.broken = _why(error)
            raise WantReadError from None
        self._listener.handshake_done()

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """Return decrypted bytes; at the end of input there are just none."""
        if not (self._listener.input_ended or self.ended or self.broken):
            try:
                return super().recv(bufsiz, flags)
            except WantReadError:
                raise
            except ZeroReturnError:
                self.ended = True
            except Error as error:
                self.broken = _why(error)
        raise WantReadError


def _why(error: Error) -> str:
    """Return OpenSSL's reason: the last words of its queue of errors."""
    queue = error.args[0] if error.args else None
    return str(queue[-1][-1]) if isinstance(queue, list) and queue else "no reason given"


@implementer(IOrderlyTLSTransport, IHalfCloseableProtocol)
class TLSProtocol(TLSMemoryBIOProtocol):
    """One TLS connection: the protocol of what is below, the transport of what is above.

    Unlike the buffering class that Twisted's factory uses, its base writes at once: a reply is on
    its way before the close_notify that came behind the request is even looked at.

    Attributes:
        input_ended: no more will be read, whatever arrives.
        wire_received: bytes that came from below and whose content was delivered.
    """

    factory: "TLSFactory"
    wrappedProtocol: Any
    transport: Any

    input_ended = False
    wire_received = 0
    _thrown_away = 0
    _agreed = False
    _deadline: Deadline

    def makeConnection(self, transport: ITransport) -> None:
        """Wait for a handshake; what is above is connected at once and waits for input."""
        served = self.factory.served
        timeout = served.limits.handshake_timeout
        self._deadline = Deadline(transport, served.clock, timeout, self._too_late)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Take what came from below, piece by piece: OpenSSL keeps a buffer for the largest."""
        connection = self.getHandle()
        for start in range(0, len(data), _TLS_PIECE):
            if self.input_ended:
                self._throw_away(len(data) - start)
                return
            super().dataReceived(data[start : start + _TLS_PIECE])
            if connection.broken:
                self._break_off(connection.broken)
            elif connection.ended:
                self._end_input()
        self.wire_received += len(data)
        if not self.input_ended:
            self.wrappedProtocol.input_taken()

    def readConnectionLost(self) -> None:
        """TCP's end of input: with or without a close_notify before it, the peer is done."""
        if self.getHandle().broken:
            self.wrappedProtocol.readConnectionLost()
        elif self._agreed:
            self._end_input()
        else:
            self._ended_early()
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """All of our output, and TCP's end of it, is with the kernel."""
        self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection below is gone."""
        self._deadline.stop()
        self._ended_early()
        # OpenSSL has delivered all it had; asking again would turn every end into an error.
        self.input_ended = True
        # A connection that is reset still has its producer, which is what is above: a cycle.
        self.unregisterProducer()
        super().connectionLost(reason)

    def identified(self) -> None:
        """Hand on that the peer's address is known."""
        self.wrappedProtocol.identified()

    def fail(self, outcome: Outcome, error: Exception) -> None:
        """Hand on why a stage below is closing the connection."""
        self.wrappedProtocol.fail(outcome, error)

    def loseConnection(self) -> None:
        """Send what is owed and a close_notify, then close without waiting for the peer's.

        Within a handshake nothing is owed: the connection is aborted.
        """
        self._say_goodbye()
        self.transport.loseConnection()

    def loseWriteConnection(self) -> None:
        """Send what is owed, a close_notify and TCP's end of output; input goes on."""
        self._say_goodbye()
        self.transport.loseWriteConnection()

    def abortConnection(self) -> None:
        """Close at once, by a reset."""
        # First what is below: Twisted's says goodbye before, which may be sent at once, and a
        # peer that has read that takes the end for an orderly one.
        self.transport.abortConnection()
        super().abortConnection()

    def handshake_done(self) -> None:
        """Take note that TLS was agreed on."""
        self._agreed = True
        self._deadline.stop()

    def _handshake_failed(self, why: str) -> None:
        """Take note that TLS was not agreed on."""
        self.fail(Outcome.HANDSHAKE, HandshakeFailed(f"no TLS: {why}"))

    def _say_goodbye(self) -> None:
        """Write a close_notify, unless an alert was the last word."""
        # Within a handshake Twisted aborts instead, and the alert of a failed one would be lost.
        if not self.getHandle().broken:
            super().loseConnection()

    def _end_input(self) -> None:
        """Tell what is above that the peer sends no more."""
        if not self.input_ended:
            self.input_ended = True
            self.wrappedProtocol.readConnectionLost()

    def _break_off(self, why: str) -> None:
        """Close, because TLS cannot go on; the alert that says so has been written."""
        self.input_ended = True
        self._deadline.stop()
        outcome, words = Outcome.MALFORMED, f"broken TLS: {why}"
        if _OUR_CERTIFICATE.search(why):
            outcome, words = Outcome.HANDSHAKE, f"no TLS: {_DISTRUST} ({why})"
        elif not self._agreed:
            did = "it gave up" if " alert " in why else "what it sent is not TLS as we do it"
            outcome, words = Outcome.HANDSHAKE, f"no TLS: {did} ({why})"
        self.wrappedProtocol.break_off(outcome, HandshakeFailed(words))

    def _throw_away(self, size: int) -> None:
        """Take note of bytes that came behind the end of TLS; a flood of them is cut off."""
        self._thrown_away += size
        if self._thrown_away > LINGER:
            self.abortConnection()

    def _ended_early(self) -> None:
        """Take note of an end within the handshake that we did not bring about.

        Without a byte it is what a check for an open port looks like: no failure.
        """
        if not self._agreed and not self.disconnecting and self.wire_received:
            self._handshake_failed("the handshake was broken off")

    def _too_late(self) -> None:
        seconds = self.factory.served.limits.handshake_timeout
        self._handshake_failed(f"the handshake took over {seconds:g} s (--handshake-timeout)")
        self.abortConnection()


@implementer(IOpenSSLServerConnectionCreator)
class _ConnectionCreator:
    """Makes OpenSSL's connections for Twisted.

    Args:
        context: what they have in common.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        """Make one."""
        assert isinstance(tlsProtocol, TLSProtocol)
        return _WatchedConnection(self._context, tlsProtocol)


class TLSFactory(TLSMemoryBIOFactory):
    """Puts TLS in front of another factory's protocols.

    Args:
        context: key, certificate and versions.
        served: whose connections are to be had over TLS; knows the bounds.
    """

    protocol = TLSProtocol

    def __init__(self, context: Context, served: TransformFactory) -> None:
        super().__init__(_ConnectionCreator(context), False, served, served.clock)
        self.served = served
