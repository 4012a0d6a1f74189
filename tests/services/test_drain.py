"""A stop gives each connection the time that it was promised, and no more."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from uppercase.services import TCPService, TCPSettings


class Connection:
    """A connection that never ends by itself."""

    transport = None

    def __init__(self, idle_since: float | None) -> None:
        self.since = idle_since
        self.drained = self.aborted = False

    def idle_since(self) -> float | None:
        return self.since

    def drain(self) -> None:
        self.drained = True

    def abort(self) -> None:
        self.aborted = True


class Factory:
    """What has connections."""

    def __init__(self, connections: set[Connection]) -> None:
        self.connections = connections


def test_whoever_was_busy_until_the_drain_time_was_over_has_a_moment_more_to_end(
    said: list[str],
) -> None:
    clock = Clock()
    service = TCPService(TCPSettings(drain=10.0, drain_quiet=1.0), clock)
    quiet, busy = Connection(0.0), Connection(None)
    factory: Any = Factory({quiet, busy})
    service.factory = factory
    done = Deferred.fromCoroutine(service.end())
    for seconds, expected in (
        (0.5, (False, False, False, False)),
        (1.5, (True, False, False, False)),
        (9.5, (True, False, False, False)),
        (10.5, (True, True, True, False)),
        (11.5, (True, True, True, True)),
    ):
        while clock.seconds() < seconds:
            clock.advance(0.1)
        assert (quiet.drained, quiet.aborted, busy.drained, busy.aborted) == expected
    factory.connections.clear()
    factory.on_closed()
    assert done.called
    assert not clock.getDelayedCalls()
    over = "TCP: the drain time is over: {} aborted (--drain)"
    left = [f"TCP: 2 connections left, {seconds} s" for seconds in range(9, 0, -1)]
    assert said[:10] == [*left, over.format("1 connection")]
    assert over.format("2 connections") in said


@pytest.mark.parametrize("at_once", [{"drain": 0.0}, {"drain_quiet": 0.0}])
def test_who_has_no_time_is_drained_in_the_middle_of_something_and_not_aborted(
    at_once: dict[str, float], said: list[str]
) -> None:
    clock = Clock()
    service = TCPService(TCPSettings(**at_once), clock)  # type: ignore[arg-type]
    busy = Connection(None)
    factory: Any = Factory({busy})
    service.factory = factory
    done = Deferred.fromCoroutine(service.end())
    clock.advance(0.1)
    assert (busy.drained, busy.aborted, said) == (True, False, [])
    factory.connections.clear()
    factory.on_closed()
    assert done.called
