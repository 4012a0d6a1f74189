"""Stream transports that write at once: what the kernel takes now does not wait for the reactor.

Twisted's queue what is written until the reactor's next turn has found the socket writable: two
system calls and a turn for each reply. These send first, and only what the kernel does not take
goes Twisted's way, with its back-pressure and its errors.
"""

from collections.abc import Callable
from functools import cache
from typing import Final, cast

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from uppercase.limits import PORTABLE

_DONE: Final = Failure(CONNECTION_DONE)


class PromptConnection(Connection):
    """What comes before the class of a transport; see `prompt`."""

    # Invariant: as long as this is true the transport has, or may have, bytes in its queue, and
    # everything goes through that, in order.
    queueing = False
    _aborted = False
    _input_ends = False

    def doRead(  # type: ignore[override] # one of two bases says that it gives nothing
        self,
    ) -> ConnectionDone | ConnectionLost | None:
        """Hand on what has come; return why there will be no more, if so."""
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
        """Hand on that the peer sends no more, and end at once if that ends the connection."""
        self._input_ends = True
        super().readConnectionLost(reason)
        self._input_ends = False
        if self.disconnecting and self.connected and not self.queueing:
            self.connectionLost(_DONE)

    @property
    def ends_at_once(self) -> bool:
        """Whether the connection, once asked to, ends before the reactor has its next turn."""
        return self._input_ends and not self.queueing

    def loseConnection(self) -> None:
        """Close when all is sent."""
        if self._input_ends and self.connected:
            # `readConnectionLost` goes on when this protocol is done, or `doWrite` once nothing is
            # queued: no need to wait for a socket that can be written.
            self.disconnecting = True
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def startWriting(self) -> None:  # noqa: N802 (Twisted's name)
        """Wait until the socket is writable."""
        self.queueing = True
        super().startWriting()  # type: ignore[no-untyped-call]

    def stopWriting(self) -> None:  # noqa: N802 (Twisted's name)
        """Wait no longer: nothing is queued."""
        if self.queueing:
            self.queueing = False
            super().stopWriting()  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:
        """Close at once."""
        # An aborted transport waits for its end with nothing queued, and TLS says goodbye on it.
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
                # No room, or an error; Twisted's next try finds that again, and does about it what
                # has to be done, outside of whoever is writing.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)  # type: ignore[no-untyped-call]


@cache
def prompt(transport: type[Connection]) -> Callable[..., Connection]:
    """Return the class of transports that are like those of `transport`, and write at once."""
    if PORTABLE:
        return cast(Callable[..., Connection], transport)
    name = f"Prompt{transport.__name__}"
    return cast(Callable[..., Connection], type(name, (PromptConnection, transport), {}))
