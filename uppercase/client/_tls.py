"""The client's TLS, over any stream transport: Python's own, which judges the certificate too."""

import ssl
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from uppercase.core.tls import TLSLayer


class TLSClient(Protocol):
    """A TLS connection: the protocol of what is below, the transport of what is above.

    What is above is connected once it is certain who the server is; before that it hears nothing.
    Its connection is lost with `ConnectionDone` only if the server has said so itself, by a
    close_notify, with an `ssl.SSLError` if TLS broke, and else with `ConnectionLost`.

    Args:
        above: what is to be connected.
        context: how to judge the server's certificate.
        host: whose it must be.

    Attributes:
        shaken: fires when the handshake is over; fails if the connection is lost before.

    Raises:
        ValueError: no server can have such a name.
    """

    transport: Any

    def __init__(self, above: Protocol, context: ssl.SSLContext, host: str) -> None:
        self.shaken: Deferred[None] = Deferred()
        self._above = above
        # A scope is this machine's alone.
        self._layer = TLSLayer(context, host.partition("%")[0])
        self._error: ssl.SSLError | None = None
        self._server_is_done = self._we_are_done = False

    def connectionMade(self) -> None:
        self.dataReceived(b"")

    def dataReceived(self, data: bytes) -> None:
        layer, text = self._layer, list[bytes]()
        agreed = layer.agreed
        try:
            self._server_is_done = layer.receive(data, text) or self._server_is_done
        except ssl.SSLError as error:
            self._error = error
        self.transport.write(layer.outgoing.read())
        if layer.agreed is not agreed:
            self._above.makeConnection(self)
            self.shaken.callback(None)
        if text:
            self._above.dataReceived(b"".join(text))
        if self._error is not None or self._server_is_done:
            self.loseConnection()
            # Invariant: no producer is registered while the transport closes, or it may wait for
            # more output forever.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._error is not None:
            reason = Failure(self._error)
        elif reason.check(ConnectionDone) and not self._server_is_done:
            reason = Failure(CONNECTION_LOST)
        if self._layer.agreed:
            self._above.connectionLost(reason)
        else:
            self.shaken.errback(reason)

    # The rest of a transport.

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        if self._we_are_done:
            return
        try:
            self.transport.write(self._layer.encrypt(data))
        except ssl.SSLError as error:
            self._error = error
            self.abortConnection()

    def loseConnection(self) -> None:
        """Say goodbye, and wait for the server's: what crosses ours is still delivered."""
        if not self._we_are_done:
            self._we_are_done = True
            self.transport.write(self._layer.end_output())

    def abortConnection(self) -> None:
        self._we_are_done = True
        self.transport.abortConnection()
