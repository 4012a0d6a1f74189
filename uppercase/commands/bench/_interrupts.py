r"""Ctrl-C and Ctrl-\ while measuring: the first asks for the summary, the second for a look.

A second Ctrl-C ends the process at once, as if nobody had caught it.
"""

import signal
import socket
from types import FrameType, TracebackType
from typing import Any, Final, Self

from uppercase.commands.cli import die_of

# Windows has no SIGQUIT.
_LOOK: Final = [signal.SIGQUIT] if hasattr(signal, "SIGQUIT") else []


class Interrupts:
    """Catches SIGINT and SIGQUIT inside a `with` block of the main thread.

    It is readable, for a selector, once a signal has come; `clear` makes it wait for the next.

    Attributes:
        stop: whether SIGINT has come.
        look: whether SIGQUIT has come; whoever has shown something sets it back.
    """

    def __init__(self) -> None:
        self.stop = False
        self.look = False
        self._receiving, self._sending = socket.socketpair()
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._receiving.fileno()

    def clear(self) -> None:
        """Make the descriptor unreadable again."""
        self._receiving.recv(4096)

    def __enter__(self) -> Self:
        self._receiving.setblocking(False)
        self._sending.setblocking(False)
        # Python repeats an interrupted select(); a byte in here makes it return.
        self._wakeup_before = signal.set_wakeup_fd(
            self._sending.fileno(), warn_on_full_buffer=False
        )
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_LOOK)}
        for number in self._before:
            signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._receiving.close()
        self._sending.close()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            self.look = True
        elif self.stop:
            die_of(signal.SIGINT)
        else:
            self.stop = True
