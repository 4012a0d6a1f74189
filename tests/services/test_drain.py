"""A stop gives each connection the time that it was promised, and no more."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from uppercase.limits import TURN
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


class Slow(Connection):
    """One whose end takes a while."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(0.0)
        self.clock = clock

    def drain(self) -> None:
        super().drain()
        self.clock.rightNow += TURN / 2

    def abort(self) -> None:
        super().abort()
        self.clock.rightNow += TURN / 2


def test_others_have_their_turn_while_many_are_drained_and_while_many_are_aborted() -> None:
    clock = Clock()
    service = TCPService(TCPSettings(drain=5.0, drain_quiet=1.0), clock)
    many = {Slow(clock) for _ in range(20)}
    factory: Any = Factory({*many})
    service.factory = factory
    done = Deferred.fromCoroutine(service.end())
    seen: list[int] = []
    clock.callLater(2.0 + TURN, lambda: seen.append(sum(each.drained for each in many)))
    clock.callLater(8.0 + TURN, lambda: seen.append(sum(each.aborted for each in many)))
    clock.advance(2.0)
    clock.advance(8.0 - clock.seconds())
    assert all(0 < count < 5 for count in seen), seen
    assert len(seen) == 2
    assert all(each.drained and each.aborted for each in many)
    factory.connections.clear()
    factory.on_closed()
    assert done.called


def test_who_comes_and_goes_within_a_look_is_waited_for() -> None:
    """Such as one whose TLS handshake was under way."""
    clock = Clock()
    service = TCPService(TCPSettings(drain_quiet=0.0), clock)
    late = Connection(0.0)

    class Last(Connection):
        def drain(self) -> None:
            for _ in range(2):
                factory.connections.clear()
                factory.on_closed()
                factory.connections.add(late)

    factory: Any = Factory({Last(0.0)})
    service.factory = factory
    done = Deferred.fromCoroutine(service.end())
    clock.advance(0.1)
    assert late.drained
    assert not done.called
    factory.connections.clear()
    factory.on_closed()
    assert done.called
