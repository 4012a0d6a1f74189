"""One timer for many connections: which have waited too long, and whose turn it is.

What is done about it is decided elsewhere.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uppercase.limits import TURN

if TYPE_CHECKING:
    from uppercase.tcp.connection import TransformProtocol

_PRECISION: Final = 1 / 16
"""The share of a time-out by which it may be late: all connections are looked at this often at
most."""


C = TypeVar("C")


@dataclass(eq=False)
class Deadlines(Generic[C]):
    """Acts on the connections that have waited too long, for whatever `since` says they wait.

    Traffic only sets a time stamp, and the timer looks at all of them when the first can be due. A
    thousand are looked at in a fraction of a millisecond, and a busy service does so about once per
    time-out. Where many end at once, others have their turn every `TURN` seconds.

    Attributes:
        connections: kept up to date by their owner, which calls `opened` and `closed`.
        since: returns the time since which one of them has waited; None if it does not.
        act: called with one that has waited for `timeout`.
        every: seconds between two looks, where only a look tells that one waits; it may then have
            begun to wait at any time after the last.
    """

    clock: IReactorTime
    timeout: float
    connections: Collection[C]
    since: Callable[[C], float | None]
    act: Callable[[C], object]
    every: float = 0.0
    _call: IDelayedCall | None = field(default=None, init=False)

    def opened(self) -> None:
        """Watch, from the first connection on."""
        if self._call is None:
            self._call = self.clock.callLater(self._pause(0.0), self._look)

    def closed(self) -> None:
        """Note that a connection is gone; after the last one there is no timer."""
        if self._call is not None and not self.connections:
            self._call.cancel()
            self._call = None

    def _look(self, left: list[C] | None = None, first: float = inf) -> None:
        """Look at those that are left, or at all; the rest wait while others have their turn."""
        self._call = None
        now = self.clock.seconds()
        left, first = left or list(self.connections), min(first, now)
        while left and self.clock.seconds() - now <= TURN:
            connection = left.pop()
            # It may be gone by now.
            since = self.since(connection) if connection in self.connections else None
            if since is None:
                continue
            if now - since >= self.timeout + self.every:
                self.act(connection)
            else:
                first = min(first, since)
        if left:
            self._call = self.clock.callLater(0, self._look, left, first)
        elif self.connections:
            self._call = self.clock.callLater(self._pause(first - now), self._look)

    def _pause(self, first: float) -> float:
        """Return in how many seconds to look again, given since when the first waits, from now."""
        return self.every or max(first + self.timeout, self.timeout * _PRECISION)


class Turns:
    """Lets the connections that have more to do go on, one after the other, a little at a time.

    Together they have `TURN` seconds of each turn of the reactor, so that a peer that sends
    something new waits no longer than that, however many others keep the service busy.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # A dictionary, as an ordered set: the one that has waited longest comes first.
        self._waiting: dict[TransformProtocol, None] = {}
        self._call: IDelayedCall | None = None

    def take_later(self, connection: "TransformProtocol") -> None:
        """Let a connection go on once those that already wait have had their turn."""
        self._waiting[connection] = None
        if self._call is None:
            self._call = self._clock.callLater(0, self._go_round)

    def forget(self, connection: "TransformProtocol") -> None:
        """Let a connection that is gone have no more turns."""
        self._waiting.pop(connection, None)
        if self._call is not None and not self._waiting:
            self._call.cancel()
            self._call = None

    def _go_round(self) -> None:
        self._call = None
        until = self._clock.seconds() + TURN
        for connection in list(self._waiting):
            # It may be gone by now.
            if connection in self._waiting:
                del self._waiting[connection]
                connection.pump()
            if self._clock.seconds() > until:
                break
        if self._waiting and self._call is None:
            self._call = self._clock.callLater(0, self._go_round)
