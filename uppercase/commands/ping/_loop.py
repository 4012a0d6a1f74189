"""The loop of `uppercase ping`: one wire, one schedule, and the signals of whoever watches.

It moves bytes and keeps time; what a reply means is the tracker's affair, and how it is printed is
the report's.
"""

import selectors
from collections.abc import Callable
from time import monotonic

from uppercase.commands._interrupts import Interrupts
from uppercase.commands.ping._tracker import Finding, Schedule, Tracker
from uppercase.commands.ping._wires import Wire

__all__ = ["converse"]


def converse(
    wire: Wire,
    tracker: Tracker,
    schedule: Schedule,
    report: Callable[[Finding], None],
    interrupts: Interrupts,
    look: Callable[[], None],
    clock: Callable[[], float] = monotonic,
) -> None:
    """Send every probe when it is planned and report what comes, until nothing is awaited.

    Raises:
        NetworkError: the server refused, closed or reset.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(wire, selectors.EVENT_READ)
        selector.register(interrupts, selectors.EVENT_READ)
        while not interrupts.stop:
            now = clock()
            if schedule.end is not None and now >= schedule.end:
                break
            planned = schedule.planned(tracker.totals.transmitted + 1)
            if planned is not None and planned <= now:
                wire.send(tracker.send(clock()))
                planned = schedule.planned(tracker.totals.transmitted + 1)
            _expire(wire, tracker, report, now)
            if planned is None and not tracker.totals.pending:
                break
            times = (planned, tracker.next_expiry, schedule.end)
            wake = min(time for time in times if time is not None)
            for key, _ in selector.select(max(0.0, wake - clock())):
                if key.fileobj is interrupts:
                    interrupts.clear()
                    continue
                replies = wire.receive()
                arrival = clock()
                for probe, sent in wire.begun():
                    tracker.restart(probe, sent)
                for reply in replies:
                    report(tracker.receive(reply, arrival))
            if interrupts.look:
                interrupts.look = False
                look()


def _expire(wire: Wire, tracker: Tracker, report: Callable[[Finding], None], now: float) -> None:
    """Report the probes that are lost by now; half a reply is a wrong one, not a lost one."""
    if tracker.next_expiry is not None and tracker.next_expiry <= now:
        half = wire.incomplete()
        if half:
            report(tracker.receive(half, now))
        for finding in tracker.expire(now):
            report(finding)
