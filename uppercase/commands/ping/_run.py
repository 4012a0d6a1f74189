"""A run of `uppercase ping`: one carrier and one schedule.

It keeps time; how probes travel is the carrier's affair, what a reply means the tracker's, and how
it is printed the report's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uppercase.commands.ping._report import Display
from uppercase.commands.ping._tracker import Tracker


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each probe is to be sent; replies do not move it.

    Attributes:
        interval: seconds from each to the next.
        count: how many, or None for no end.
        duration: seconds after which all is over, or None.
    """

    start: float
    interval: float
    count: int | None = None
    duration: float | None = None

    def planned(self, seq: int) -> float | None:
        """Return the time of probe `seq` (from 1), or None if there is no such probe."""
        if self.count is not None and seq > self.count:
            return None
        time = self.start + (seq - 1) * self.interval
        return None if self.end is not None and time >= self.end else time

    @property
    def end(self) -> float | None:
        """The time at which all is over, whatever is still awaited."""
        return None if self.duration is None else self.start + self.duration


class Carrier(Protocol):
    """What a run needs of a connection."""

    @property
    def connections(self) -> int | None:
        """How many connections there have been; None where there is no such thing."""

    def start(self, run: "Run") -> None:
        """Tell a run of what comes from now on."""

    def send(self, probe: bytes) -> None:
        """Send a probe, or what can be sent of it now; the rest follows."""

    def incomplete(self) -> bytes:
        """Take out what has come of a reply whose end has not."""

    async def close(self) -> None:
        """End it."""


class Run:
    """Sends every probe when it is planned and reports what comes, until nothing is awaited.

    Attributes:
        finished: fires at the end. Fails with what ended it: a `NetworkError` if the server
            refused, closed or reset.
    """

    def __init__(
        self, reactor: IReactorTime, tracker: Tracker, schedule: Schedule, display: Display
    ) -> None:
        self.finished: Deferred[None] = Deferred()
        self._reactor = reactor
        self._tracker = tracker
        self._schedule = schedule
        self._display = display
        self._timer: IDelayedCall | None = None

    async def measure(self, carrier: Carrier) -> None:
        """Do it, with a carrier that has been opened; it is closed at the end."""
        self._carrier = carrier
        carrier.start(self)
        self._guard(self._turn)
        try:
            await self.finished
        finally:
            await carrier.close()

    def end(self, error: Exception | None = None) -> None:
        """End it, well or with an error; only the first end counts."""
        if self.finished.called:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if error is None:
            self.finished.callback(None)
        else:
            self.finished.errback(error)

    def look(self) -> None:
        """Show how it stands."""
        self._guard(lambda: self._display.show_interim(self._carrier.connections))

    def begun(self, probe: bytes) -> None:
        """Know that a probe had to wait for a connection, and is sent now."""
        self._tracker.restart(probe, monotonic())

    def received(self, reply: bytes) -> None:
        """Take a reply that has come now."""
        now = monotonic()
        self._guard(lambda: self._take(reply, now))

    def _take(self, reply: bytes, now: float) -> None:
        self._display.show(self._tracker.receive(reply, now))
        if self._planned() is None and not self._tracker.totals.pending:
            self.end()

    def _turn(self) -> None:
        """Do what is due, and come back when the next thing is."""
        now = monotonic()
        end = self._schedule.end
        if end is not None and now >= end:
            self.end()
            return
        planned = self._planned()
        if planned is not None and planned <= now:
            self._carrier.send(self._tracker.send(monotonic()))
            planned = self._planned()
        self._expire(now)
        if planned is None and not self._tracker.totals.pending:
            self.end()
        if not self.finished.called:
            times = (planned, self._tracker.next_expiry, end)
            wake = min(time for time in times if time is not None)
            self._timer = self._reactor.callLater(
                max(0.0, wake - monotonic()), self._guard, self._turn
            )

    def _planned(self) -> float | None:
        return self._schedule.planned(self._tracker.totals.transmitted + 1)

    def _expire(self, now: float) -> None:
        """Report the probes lost by now; half a reply is a wrong one, not a lost one."""
        expiry = self._tracker.next_expiry
        if expiry is not None and expiry <= now:
            half = self._carrier.incomplete()
            if half:
                self._display.show(self._tracker.receive(half, now))
            for finding in self._tracker.expire(now):
                self._display.show(finding)

    def _guard(self, step: Callable[[], None]) -> None:
        """Do a step; what it raises (nobody reads the output, say) ends the run."""
        if self.finished.called:
            return
        try:
            step()
        except Exception as error:
            self.end(error)
