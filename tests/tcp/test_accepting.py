"""Accepting without descriptors or memory: a rest instead of a hot loop, and nobody sent away."""

import errno

import pytest
from twisted.internet.task import Clock

from uppercase.tcp.accepting import AcceptGuard


class Socket:
    """A listening socket whose next `accept` gives what a test says."""

    def __init__(self) -> None:
        self.answer: object = ("client", ("192.0.2.1", 50000))
        self.asked = 0

    def accept(self) -> object:
        self.asked += 1
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    def fileno(self) -> int:
        return 7


class Port:
    """A listening port; `turn` is what the reactor does when its socket is readable."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.reading = True
        self.accepted = 0

    def stopReading(self) -> None:  # noqa: N802 (Twisted's name)
        self.reading = False

    def startReading(self) -> None:  # noqa: N802 (Twisted's name)
        self.reading = True

    def turn(self) -> None:
        if not self.reading:
            return
        try:
            self.socket.accept()
            self.accepted += 1
        except BlockingIOError:
            pass


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_port_rests_longer_and_longer_and_goes_on(code: int) -> None:
    clock, port = Clock(), Port()
    told: list[OSError] = []
    system = port.socket
    AcceptGuard(port, clock, told.append)
    assert port.socket.fileno() == 7
    system.answer = OSError(code, "scarce")
    for _ in range(1000):
        port.turn()
        clock.advance(0.01)
    # 0.1, 0.2, 0.4, 0.8 and then 1 s.
    assert 10 <= len(told) <= 14
    assert system.asked == len(told)
    system.answer = ("client", ("192.0.2.1", 50000))
    clock.advance(1.0)
    port.turn()
    assert port.accepted == 1
    system.answer = OSError(code, "scarce")
    port.turn()
    clock.advance(0.11)
    assert port.reading


def test_other_errors_are_twisteds_matter() -> None:
    clock, port = Clock(), Port()
    told: list[OSError] = []
    system = port.socket
    guard = AcceptGuard(port, clock, told.append)
    system.answer = OSError(errno.ECONNABORTED, "gone")
    with pytest.raises(OSError, match="gone"):
        port.socket.accept()
    assert port.reading
    assert not told
    guard.stop()


def test_a_stop_leaves_no_timer() -> None:
    clock, port = Clock(), Port()
    told: list[OSError] = []
    guard = AcceptGuard(port, clock, told.append)
    guard._socket.answer = OSError(errno.EMFILE, "scarce")  # type: ignore[attr-defined]
    port.turn()
    guard.stop()
    assert not clock.getDelayedCalls()
