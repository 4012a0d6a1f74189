"""Ends connections on which nothing happens.

One timer for all connections of a service: traffic only sets a time stamp, and the timer looks at
all of them when the first can be due. A thousand connections are looked at in a fraction of a
millisecond, and a busy service does so about once per time-out.
"""

from collections.abc import Collection
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uppercase.limits import IDLE_PRECISION

__all__ = ["IdleWatch"]


class Idle(Protocol):
    """An open connection."""

    def idle_since(self) -> float | None:
        """Return the time since which it has been idle; None if it is busy."""

    def close_idle(self) -> None:
        """Close it."""


class IdleWatch:
    """Closes the connections that have been idle for too long.

    Args:
        clock: the reactor.
        timeout: seconds.
        connections: the open ones, kept up to date by their owner, who calls `opened` and `closed`.
    """

    def __init__(self, clock: IReactorTime, timeout: float, connections: Collection[Idle]) -> None:
        self._clock = clock
        self._timeout = timeout
        self._connections = connections
        self._call: IDelayedCall | None = None

    def opened(self) -> None:
        """Take note of a connection."""
        if self._call is None:
            self._call = self._clock.callLater(self._timeout, self._look)

    def closed(self) -> None:
        """Take note that one is gone; after the last there is no timer."""
        if self._call is not None and not self._connections:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        now = first = self._clock.seconds()
        for connection in list(self._connections):
            since = connection.idle_since()
            if since is None:
                continue
            if now - since >= self._timeout:
                connection.close_idle()
            else:
                first = min(first, since)
        if self._connections:
            pause = max(first + self._timeout - now, self._timeout * IDLE_PRECISION)
            self._call = self._clock.callLater(pause, self._look)
