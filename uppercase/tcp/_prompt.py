"""Stream transports that write at once: what the kernel takes now does not wait for the reactor.

Twisted's queue what is written until the reactor's next turn has found the socket writable: two
system calls and a turn for each reply. These send first, and only what the kernel does not take
goes Twisted's way, with its back-pressure and its errors.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import cast

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.python import log
from twisted.python.failure import Failure

from uppercase.limits import PORTABLE
from uppercase.tcp._hub import ENDS


class PromptConnection(Connection):
    """Is put before the class of a transport; see `prompt`."""

    # Invariant: as long as this is true the transport may have bytes in its queue, and everything
    # goes through that, in order.
    queueing = False
    sends_small_at_once = sys.platform == "linux"
    """Whether TCP_NODELAY is set: what a port accepts has it from the port."""
    _aborted = False
    _input_ends = False

    def doRead(  # type: ignore[override] # one of two bases says that it returns nothing
        self,
    ) -> ConnectionDone | ConnectionLost | None:
        """Hand on what has come, or return why no more will come."""
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        """Tell that the peer sends no more, and end at once if that ends the connection."""
        self._input_ends = True
        if IHalfCloseableProtocol.providedBy(self.protocol):
            # As Twisted's does, but without an adapter, which takes longer.
            try:
                self.protocol.readConnectionLost()
            except BaseException:
                log.err()
                self.connectionLost(Failure())
        else:
            super().readConnectionLost(reason)
        self._input_ends = False
        if self.disconnecting and self.connected and not self.queueing:
            self.connectionLost(ENDS[ConnectionDone])

    @property
    def ends_at_once(self) -> bool:
        """Whether the connection, once asked to end, does so before the reactor's next turn."""
        return self._input_ends and not self.queueing

    def loseConnection(self) -> None:
        if self._input_ends and self.connected:
            # `readConnectionLost` ends it after this, or `doWrite` once nothing is queued: there is
            # no need to wait until the socket can be written.
            self.disconnecting = True
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def startWriting(self) -> None:
        self.queueing = True
        super().startWriting()  # type: ignore[no-untyped-call]

    def stopWriting(self) -> None:
        if self.queueing:
            self.queueing = False
            super().stopWriting()  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:
        # An aborted transport waits for its end with nothing queued, and TLS still says goodbye.
        self._aborted = True
        super().abortConnection()  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        """Send what the kernel takes, queue the rest."""
        if self._aborted:
            return
        if not (self.queueing or self.TLS) and self.connected:
            try:
                sent = self.socket.send(data)
            except OSError:
                # No room, or an error, which Twisted's next try finds again, and deals with outside
                # of the call that is writing.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)  # type: ignore[no-untyped-call]


@cache
def prompt(transport: type[Connection]) -> Callable[..., Connection]:
    """Return the class of transports that are like those of `transport` but write at once."""
    if PORTABLE:
        return cast(Callable[..., Connection], transport)
    name = f"Prompt{transport.__name__}"
    return cast(Callable[..., Connection], type(name, (PromptConnection, transport), {}))
