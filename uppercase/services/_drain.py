"""How a service ends: what was asked before the end is answered, within a bounded time."""

import selectors
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from uppercase.limits import BACKLOG, DRAIN_REPORT

__all__ = ["Drain", "Drainable", "accept_waiting"]

# poll takes descriptors from 1,024 on, which select does not, and needs none itself.
_SELECTOR: Final[type[selectors.BaseSelector]] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


class Drainable(Protocol):
    """A connection that can be brought to its end."""

    def drain(self) -> None:
        """Answer what has arrived, send what is owed, then close; may be called again."""

    def abort(self) -> None:
        """Close at once; what is owed is lost."""


class Drain:
    """Brings all connections to their end.

    Args:
        clock: the reactor.
        seconds: how long they have; the rest is aborted then.
        connections: the open ones, kept up to date by their owner, who calls `closed` for each.

    Attributes:
        done: fires when no connection is left.
    """

    log = Logger("uppercase")

    def __init__(
        self, clock: IReactorTime, seconds: float, connections: Collection[Drainable]
    ) -> None:
        self.done: Deferred[None] = Deferred()
        self._clock = clock
        self._connections = connections
        self._deadline = clock.seconds() + seconds
        self._calls: list[IDelayedCall] = []
        self._drain_all()
        self._later(seconds, self._abort)
        self._later(DRAIN_REPORT, self._report)
        self.closed()

    def closed(self) -> None:
        """Take note that a connection has ended."""
        if not self._connections and not self.done.called:
            for call in self._calls:
                if call.active():
                    call.cancel()
            self.done.callback(None)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._calls.append(self._clock.callLater(seconds, call))

    def _drain_all(self) -> None:
        for connection in list(self._connections):
            connection.drain()

    def _report(self) -> None:
        self._drain_all()
        left = len(self._connections)
        self.log.info(
            "{left} left, {seconds:.0f} s",
            left="1 connection" if left == 1 else f"{left} connections",
            seconds=max(0.0, self._deadline - self._clock.seconds()),
        )
        self._later(DRAIN_REPORT, self._report)

    def _abort(self) -> None:
        left = list(self._connections)
        self.log.warn(
            "the drain time is over: {left} aborted (--drain)",
            left="1 connection is" if len(left) == 1 else f"{len(left)} connections are",
        )
        for connection in left:
            connection.abort()


def accept_waiting(port: Any) -> None:
    """Accept the connections that wait in a listening port's queue, which closing would reset."""
    read = getattr(port, "doRead", None)
    if read is None:
        return
    with _SELECTOR() as selector:
        selector.register(port, selectors.EVENT_READ)
        for _ in range(BACKLOG):
            if not selector.select(0):
                break
            read()
