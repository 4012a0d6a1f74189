"""Whose signals they are: the reactor's are taken, a program's own are left alone."""

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from twisted.internet.testing import MemoryReactorClock

from uppercase.services._stopping import HANDLERS, StopSignals


class Reactor:
    """What of a reactor the signals concern."""

    def __init__(self) -> None:
        self.stopped: list[int] = []
        self.after_shutdown: list[Callable[[], None]] = []

    def sigInt(self, number: int, frame: FrameType | None = None) -> None:
        self.stopped.append(number)

    def sigTerm(self, number: int, frame: FrameType | None = None) -> None:
        self.stopped.append(number)

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        call()

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], None]) -> None:
        assert (phase, event) == ("after", "shutdown")
        self.after_shutdown.append(call)


@pytest.fixture
def before() -> Iterator[None]:
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield
    HANDLERS.running.clear()
    HANDLERS.give_back()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("before")
def test_a_program_keeps_its_own_handlers() -> None:
    def own(number: int, frame: FrameType | None) -> None: ...

    signal.signal(signal.SIGTERM, own)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals = StopSignals(Reactor(), 10)
    signals.start()
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_reactor_in_memory_has_no_signals_to_take() -> None:
    reactor = MemoryReactorClock()
    signals = StopSignals(reactor, 10)
    signals.start()
    reactor.run()
    signals.stop()
    assert not HANDLERS.running


@pytest.mark.usefixtures("before")
def test_a_service_that_was_stopped_before_the_reactor_ran_takes_no_signals() -> None:
    reactor, later = Reactor(), list[Callable[[], None]]()
    reactor.callWhenRunning = later.append  # type: ignore[method-assign,assignment]
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signals = StopSignals(reactor, 10)
    signals.start()
    signals.stop()
    for call in later:
        call()
    assert signal.getsignal(signal.SIGTERM) == reactor.sigTerm


@pytest.mark.usefixtures("before")
def test_the_reactors_handlers_are_called_and_given_back() -> None:
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signals = StopSignals(reactor, 10)
    signals.start()
    signal.raise_signal(signal.SIGTERM)
    assert reactor.stopped == [signal.SIGTERM]
    signals.stop()
    assert signal.getsignal(signal.SIGTERM) != reactor.sigTerm
    for call in reactor.after_shutdown:
        call()
    assert signal.getsignal(signal.SIGTERM) == reactor.sigTerm


@pytest.mark.usefixtures("before")
def test_a_hangup_stops_as_a_termination_does_unless_the_program_wants_otherwise() -> None:
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signals = StopSignals(reactor, 10)
    signals.start()
    signal.raise_signal(signal.SIGHUP)
    assert reactor.stopped == [signal.SIGHUP]
    signals.stop()
    for call in reactor.after_shutdown:
        call()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    StopSignals(reactor, 10).start()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.usefixtures("before")
def test_several_services_in_one_program_share_the_signals() -> None:
    """Whichever ends first, a signal still reaches the reactor."""
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    first, second = StopSignals(reactor, 10), StopSignals(reactor, 10)
    first.start()
    second.start()
    first.stop()
    signal.raise_signal(signal.SIGTERM)
    assert reactor.stopped == [signal.SIGTERM]
    second.stop()
    for call in reactor.after_shutdown:
        call()


@pytest.mark.usefixtures("before")
def test_a_second_signal_ends_the_first_process_of_a_container_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system keeps from it whatever it does not handle itself."""
    exited: list[int] = []
    monkeypatch.setattr(os, "kill", lambda *_: None)
    monkeypatch.setattr(os, "_exit", exited.append)
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signals = StopSignals(reactor, 10)
    signals.start()
    signal.raise_signal(signal.SIGTERM)
    assert exited == []
    HANDLERS._handle(signal.SIGTERM, None)
    assert exited == [128 + signal.SIGTERM]
    signals.stop()
    for call in reactor.after_shutdown:
        call()


def test_twisteds_handlers_are_still_called_so() -> None:
    """Their names are in no interface; whoever renames them has a stop that cannot be hurried."""
    from twisted.internet import reactor

    assert callable(reactor.sigInt)  # type: ignore[attr-defined]
    assert callable(reactor.sigTerm)  # type: ignore[attr-defined]
