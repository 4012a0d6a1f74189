"""Accepting goes on when the system has no descriptor or no memory for one more connection.

Twisted accepts and closes clients then, or, for some errors, tries again at once and for ever,
with a log line each time. Here the port rests for a moment; clients wait in the kernel's queue.
"""

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uppercase.limits import ACCEPT_PAUSE, ACCEPT_PAUSE_MOST

__all__ = ["AcceptGuard"]

_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class AcceptGuard:
    """Stands in for a listening port's socket, from which the port only accepts.

    Args:
        port: one of Twisted's stream ports, listening: it has `socket`, `stopReading` and
            `startReading`.
        clock: the reactor.
        on_scarce: told the system's error each time that the port has to rest.
    """

    def __init__(
        self, port: Any, clock: IReactorTime, on_scarce: Callable[[OSError], None]
    ) -> None:
        self._port = port
        self._clock = clock
        self._on_scarce = on_scarce
        self._socket: socket.socket = port.socket
        self._pause = ACCEPT_PAUSE
        self._call: IDelayedCall | None = None
        port.socket = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection, or tell the port that there is none."""
        try:
            accepted = self._socket.accept()
        except OSError as error:
            if error.errno not in _SCARCE:
                raise
            self._rest(error)
            raise BlockingIOError(errno.EAGAIN, "resting") from error
        self._pause = ACCEPT_PAUSE
        return accepted

    def stop(self) -> None:
        """Forget the timer; the port is about to stop listening."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _rest(self, error: OSError) -> None:
        if self._call is None:
            self._port.stopReading()
            self._call = self._clock.callLater(self._pause, self._go_on)
            self._pause = min(2 * self._pause, ACCEPT_PAUSE_MOST)
            self._on_scarce(error)

    def _go_on(self) -> None:
        self._call = None
        self._port.startReading()
