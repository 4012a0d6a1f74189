"""Stream transports that write at once: what the kernel takes now does not wait for the reactor.

Twisted's queue what is written until the reactor's next turn has found the socket writable: two
system calls and a turn for each reply. These send first, and only what the kernel does not take
goes Twisted's way, with its back-pressure and its errors.
"""

from collections.abc import Callable
from functools import cache
from typing import cast

from twisted.internet.tcp import Connection


class PromptConnection(Connection):
    """What comes before the class of a transport; see `prompt`."""

    # Invariant: as long as this is true the transport has, or may have, bytes in its queue, and
    # everything goes through that, in order.
    _queueing = False
    _aborted = False

    def startWriting(self) -> None:  # noqa: N802 (Twisted's name)
        """Wait until the socket is writable."""
        self._queueing = True
        super().startWriting()  # type: ignore[no-untyped-call]

    def stopWriting(self) -> None:  # noqa: N802 (Twisted's name)
        """Wait no longer: nothing is queued."""
        self._queueing = False
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
        if not (self._queueing or self.TLS) and self.connected:
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
    name = f"Prompt{transport.__name__}"
    return cast(Callable[..., Connection], type(name, (PromptConnection, transport), {}))
