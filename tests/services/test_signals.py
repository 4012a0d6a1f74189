"""Whose signals they are: the reactor's are taken, a program's own are left alone."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from twisted.internet.testing import MemoryReactorClock

from tests.system.processes import ROOT
from uppercase.services import _stopping
from uppercase.services._stopping import STOP_SIGNALS


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

    def end(self, *services: str) -> None:
        """End, once these services have given the signals back."""
        for service in services:
            STOP_SIGNALS.release(service, self)
        for call in self.after_shutdown:
            call()


@pytest.fixture
def before() -> Iterator[None]:
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield
    STOP_SIGNALS.running.clear()
    STOP_SIGNALS.give_back()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("before")
def test_a_program_keeps_its_own_handlers() -> None:
    """Those that it had, and those that it has put before ours."""

    def own(number: int, frame: FrameType | None) -> None: ...

    reactor = Reactor()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signal.signal(signal.SIGINT, reactor.sigInt)
    STOP_SIGNALS.take("before", reactor, 10)
    signal.signal(signal.SIGINT, own)
    STOP_SIGNALS.release("before", reactor)
    assert signal.getsignal(signal.SIGTERM) == reactor.sigTerm
    assert signal.getsignal(signal.SIGINT) is own
    signal.signal(signal.SIGTERM, own)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    STOP_SIGNALS.take("service", reactor, 10)
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_a_reactor_in_memory_has_no_signals_to_take() -> None:
    reactor = MemoryReactorClock()
    STOP_SIGNALS.take("service", reactor, 10)
    reactor.run()
    STOP_SIGNALS.release("service", reactor)
    assert not STOP_SIGNALS.running


@pytest.mark.usefixtures("before")
def test_a_service_that_was_stopped_before_the_reactor_ran_takes_no_signals() -> None:
    reactor, later = Reactor(), list[Callable[[], None]]()
    reactor.callWhenRunning = later.append  # type: ignore[method-assign,assignment]
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    STOP_SIGNALS.take("service", reactor, 10)
    STOP_SIGNALS.release("service", reactor)
    for call in later:
        call()
    assert signal.getsignal(signal.SIGTERM) == reactor.sigTerm


@pytest.mark.usefixtures("before")
def test_the_reactors_handlers_are_called_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that goes on after the reactor has ended is not ended itself."""
    given_up: list[str] = []
    monkeypatch.setattr("faulthandler.cancel_dump_traceback_later", lambda: given_up.append("dump"))
    monkeypatch.setattr("threading.Timer.cancel", lambda timer: given_up.append("timer"))
    monkeypatch.setattr("threading.Timer.start", lambda timer: None)
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda *_, **__: None)
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    STOP_SIGNALS.take("service", reactor, 10)
    signal.raise_signal(signal.SIGTERM)
    assert reactor.stopped == [signal.SIGTERM]
    STOP_SIGNALS.release("service", reactor)
    assert signal.getsignal(signal.SIGTERM) != reactor.sigTerm
    assert not given_up
    reactor.end()
    assert signal.getsignal(signal.SIGTERM) == reactor.sigTerm
    assert given_up == ["dump", "timer"]


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("timer", ["faulthandler.dump_traceback_later", "threading.Timer.start"])
def test_a_service_stops_where_the_system_gives_no_thread_to_bound_that(
    timer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `ulimit -u`, or in a container that may have no more processes."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Timer.start", lambda timer: None)
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda *_, **__: None)
    monkeypatch.setattr(timer, refuse)
    monkeypatch.setattr(_stopping, "_ONE_SIGNAL", 0)
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process, number: killed.append(number))
    monkeypatch.setattr(os, "_exit", lambda status: None)
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    STOP_SIGNALS.take("service", reactor, 10)
    signal.raise_signal(signal.SIGTERM)
    assert reactor.stopped[0] == signal.SIGTERM
    STOP_SIGNALS._handle(signal.SIGTERM, None)
    assert killed == [signal.SIGTERM]
    reactor.end("service")


@pytest.mark.usefixtures("before")
def test_a_hangup_stops_as_a_termination_does_unless_the_program_wants_otherwise() -> None:
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    STOP_SIGNALS.take("service", reactor, 10)
    signal.raise_signal(signal.SIGHUP)
    assert reactor.stopped == [signal.SIGHUP]
    reactor.end("service")
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    STOP_SIGNALS.take("another", reactor, 10)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.usefixtures("before")
def test_a_program_that_has_closed_its_standard_error_is_stopped_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reactor, closed = Reactor(), io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.__stderr__", closed)
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    STOP_SIGNALS.take("service", reactor, 10)
    signal.raise_signal(signal.SIGTERM)
    assert reactor.stopped == [signal.SIGTERM]
    reactor.end("service")


_BLOCKED = """\
import os, signal
from tests.services.test_signals import Reactor
from uppercase.services import _stopping

_stopping.STOP_GRACE = _stopping._LAST_RESORT = 0.1
reactor = Reactor()
signal.signal(signal.SIGTERM, reactor.sigTerm)
_stopping.STOP_SIGNALS.take("service", reactor, 0)
signal.raise_signal(signal.SIGTERM)
while True:
    os.write(1, bytes(1 << 16))
"""


def test_a_log_that_nobody_reads_cannot_keep_a_process_from_ending() -> None:
    """Not even where it was to say last where it hangs."""
    command = [sys.executable, "-c", _BLOCKED]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT
    ) as process:
        try:
            assert process.wait(60) == 1
        finally:
            process.kill()


@pytest.mark.usefixtures("before")
def test_a_hangup_does_not_cut_a_stop_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a terminal brings two: one of the shell, one of the system when the shell ends."""
    monkeypatch.setattr(_stopping, "_ONE_SIGNAL", 0)
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: killed.append(number))
    monkeypatch.setattr(os, "_exit", lambda _: None)
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    STOP_SIGNALS.take("service", reactor, 10)
    for _ in range(2):
        signal.raise_signal(signal.SIGHUP)
    assert reactor.stopped == [signal.SIGHUP]
    assert not killed
    signal.raise_signal(signal.SIGTERM)
    assert killed == [signal.SIGTERM]
    reactor.end("service")


@pytest.mark.usefixtures("before")
def test_several_services_in_one_program_share_the_signals() -> None:
    """Whichever ends first, a signal still reaches the reactor."""
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    STOP_SIGNALS.take("first", reactor, 10)
    STOP_SIGNALS.take("second", reactor, 10)
    STOP_SIGNALS.release("first", reactor)
    assert signal.getsignal(signal.SIGTERM) != reactor.sigTerm
    signal.raise_signal(signal.SIGTERM)
    assert reactor.stopped == [signal.SIGTERM]
    reactor.end("second")


@pytest.mark.usefixtures("before")
def test_a_second_signal_ends_the_first_process_of_a_container_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system keeps from it whatever it does not handle itself."""
    exited: list[int] = []
    monkeypatch.setattr(os, "kill", lambda *_: None)
    monkeypatch.setattr(os, "_exit", exited.append)
    now = [1000.0]
    monkeypatch.setattr(_stopping, "monotonic", lambda: now[0])
    reactor = Reactor()
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    STOP_SIGNALS.take("service", reactor, 10)
    signal.raise_signal(signal.SIGTERM)
    # timeout(1) sends each signal twice.
    signal.raise_signal(signal.SIGTERM)
    assert exited == []
    now[0] += 0.2
    STOP_SIGNALS._handle(signal.SIGTERM, None)
    assert exited == [128 + signal.SIGTERM]
    reactor.end("service")


def test_twisteds_handlers_are_still_called_so() -> None:
    """Their names are in no interface; whoever renames them has a stop that cannot be hurried."""
    from twisted.internet import reactor

    assert callable(reactor.sigInt)  # type: ignore[attr-defined]
    assert callable(reactor.sigTerm)  # type: ignore[attr-defined]
