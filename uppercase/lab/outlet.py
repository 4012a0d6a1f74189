"""The TCP lab: what TCP may do to a program, done on purpose.

TCP promises bytes in order and nothing about their pieces, their timing or a connection's life. A
program that takes one `recv` for one message works on the machine it was written on. Here replies
come late, in pieces, or not to their end. Nothing is random: the same happens to everybody.

A `LabOutlet` stands between a conversation and its transport. It holds no more than the shell's own
batch of output: while it is full, the shell makes no replies and reads no input.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uppercase.core.events import LabAction
from uppercase.lab._options import TCPLab
from uppercase.limits import LAB_PIECE_PAUSE, LAB_PIECES, OUTPUT_BATCH
from uppercase.tcp.kernel import unacknowledged_output


class LabOutlet:
    """What one connection's replies go through.

    Args:
        transport: where they come out.
        clock: the reactor.
        lab: what happens to them.
        on_room: called when the outlet is not full any more, and when it is empty.
        on_action: told what was done, to which reply (from 1; 0 for the connection itself), and the
            same in words.
        on_reset: called when the connection is to be reset.
    """

    def __init__(
        self,
        transport: Any,
        clock: IReactorTime,
        lab: TCPLab,
        on_room: Callable[[], None],
        on_action: Callable[[LabAction, int, str], None],
        on_reset: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._lab = lab
        self._on_room = on_room
        self._on_action = on_action
        self._on_reset = on_reset
        self._held: deque[tuple[float, int, memoryview]] = deque()
        self._size = 0
        self._replies = 0
        self._until_reset = lab.reset_after
        self._call: IDelayedCall | None = None
        self._open = not lab.accept_delay
        if not self._open:
            on_action(LabAction.ACCEPTED_LATE, 0, f"accepted {lab.accept_delay:g} s late")
            self._later(lab.accept_delay, self._accept)

    @property
    def full(self) -> bool:
        """Whether nothing can be taken now."""
        return not self._open or self._size >= OUTPUT_BATCH or self._is_over()

    @property
    def empty(self) -> bool:
        """Whether everything has been passed on."""
        return not self._held and not self._is_over()

    def write(self, data: bytes) -> None:
        """Take a reply."""
        lab = self._lab
        self._replies += 1
        if lab.reset_after:
            data = data[: self._until_reset]
            self._until_reset -= len(data)
        if lab.delay:
            self._tell(LabAction.DELAYED, f"delayed {lab.delay:g} s")
        step = max(lab.slice, -(-len(data) // LAB_PIECES)) if lab.slice else len(data)
        if step < len(data):
            self._tell(LabAction.SLICED, f"cut into {-(-len(data) // step)} pieces")
        self._held.append((self._clock.seconds() + lab.delay, step, memoryview(data)))
        self._size += len(data)
        if self._call is None:
            self._send()

    def stop(self) -> None:
        """Forget everything; the connection is lost."""
        self._held.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _is_over(self) -> bool:
        return bool(self._lab.reset_after) and not self._until_reset

    def _tell(self, action: LabAction, fate: str) -> None:
        self._on_action(action, self._replies, f"reply {fate}")

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._call = self._clock.callLater(seconds, call)

    def _accept(self) -> None:
        self._call = None
        self._open = True
        self._on_room()

    def _send(self) -> None:
        """Pass on what is due: everything, or one piece if replies are cut."""
        self._call = None
        while self._held:
            due, step, data = self._held[0]
            wait = due - self._clock.seconds()
            if wait > 0:
                self._later(wait, self._send)
                break
            piece, rest = data[:step], data[step:]
            if rest:
                self._held[0] = (due, step, rest)
            else:
                self._held.popleft()
            self._size -= len(piece)
            self._transport.write(bytes(piece))
            if self._lab.slice:
                # Also behind the last piece: the next reply's first one must not join it.
                self._later(LAB_PIECE_PAUSE, self._go_on)
                break
        if self._call is None:
            if self._is_over():
                self._later(LAB_PIECE_PAUSE, self._reset)
            else:
                self._on_room()

    def _go_on(self) -> None:
        self._send()
        if self._call is not None:
            self._on_room()

    def _reset(self) -> None:
        """Reset the connection, once the peer has all it is to get: the kernel forgets the rest."""
        self._call = None
        if unacknowledged_output(self._transport):
            self._later(LAB_PIECE_PAUSE, self._reset)
        else:
            self._tell(LabAction.RESET, f"reset after {self._lab.reset_after} bytes")
            self._on_reset()
