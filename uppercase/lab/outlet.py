"""The TCP lab: what TCP may do to a program, done on purpose.

TCP promises bytes in order and nothing about their pieces, their timing or a connection's life. A
program that takes one `recv` for one message works on the machine it was written on. Here replies
come late, in pieces, or not to their end. Nothing is random: the same happens to everybody.

A `LabOutlet` stands between a connection and its transport, as what the connection writes to. Like
a transport it pauses the connection while it is full, which is at one batch of its output.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from uppercase.core.events import LabAction
from uppercase.lab import TCPLab
from uppercase.limits import OUTPUT_BATCH

LAB_PIECE_PAUSE: Final = 0.01
"""Seconds between the pieces of a reply that is cut: long enough for a client that waits in `recv`
to be woken by the first, and a line of 80 letters still comes within a second."""

LAB_PIECES: Final = 256
"""Pieces into which one reply is cut at the most, so that it comes within 3 s and 200 students who
send much do not keep the server busy; longer replies are cut into larger pieces."""


@implementer(IConsumer, IPushProducer)
class LabOutlet:
    """What one connection's replies go through.

    Args:
        unsent: tells how many bytes the peer does not have of what the transport was given; None
            where that is not known.
        on_action: told what was done, to which reply (from 1; 0 for the connection itself), and the
            same in words.
    """

    def __init__(
        self,
        transport: IConsumer,
        clock: IReactorTime,
        lab: TCPLab,
        unsent: Callable[[], int | None],
        on_action: Callable[[LabAction, int, str], None],
        on_reset: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._lab = lab
        self._unsent = unsent
        self._on_action = on_action
        self._on_reset = on_reset
        self._producer: Any = None
        self._transport_full = False
        self._held: deque[tuple[float, int, memoryview]] = deque()
        self._size = 0
        self._cut_off = 0
        self._replies = 0
        self._until_reset = lab.reset_after
        self._next = 0.0
        self._call: IDelayedCall | None = None
        self._open = not lab.accept_delay

    @property
    def empty(self) -> bool:
        return not self._held and not self._is_over()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Begin; the producer is paused while there is no room, here or in the transport.

        It is resumed when there is room again, and once more when the outlet is empty.
        """
        self._producer = producer
        self._transport.registerProducer(self, streaming)
        if not self._open:
            delay = self._lab.accept_delay
            self._on_action(LabAction.ACCEPTED_LATE, 0, f"accepted {delay:g} s late")
            self._later(delay, self._accept)
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self._transport_full = True
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._transport_full = False
        self._tell_room()

    def stopProducing(self) -> None:
        self._producer.stopProducing()

    def write(self, data: bytes) -> None:
        lab = self._lab
        self._replies += 1
        if lab.reset_after:
            self._cut_off += max(len(data) - self._until_reset, 0)
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
        if self._is_full():
            self._producer.pauseProducing()

    def stop(self) -> None:
        """Forget everything; the connection is lost."""
        self._held.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def withheld(self) -> int:
        return self._size + self._cut_off

    def _is_full(self) -> bool:
        return not self._open or self._size >= OUTPUT_BATCH or self._is_over()

    def _is_over(self) -> bool:
        """Return whether all was sent that the peer is to get before the reset."""
        return bool(self._lab.reset_after) and not self._until_reset

    def _tell_room(self) -> None:
        if not self._transport_full and not self._is_full():
            self._producer.resumeProducing()

    def _tell(self, action: LabAction, fate: str) -> None:
        self._on_action(action, self._replies, f"reply {fate}")

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._call = self._clock.callLater(seconds, call)

    def _accept(self) -> None:
        self._call = None
        self._open = True
        self._tell_room()

    def _send(self) -> None:
        """Pass on what is due, piece by piece if replies are cut."""
        self._call = None
        while self._held:
            due, step, data = self._held.popleft()
            wait = max(due, self._next) - self._clock.seconds()
            if wait > 0:
                self._held.appendleft((due, step, data))
                self._later(wait, self._send)
                break
            if rest := data[step:]:
                self._held.appendleft((due, step, rest))
            self._size -= len(data) - len(rest)
            self._transport.write(bytes(data[:step]))
            if self._lab.slice:
                # Also behind the last piece: the next reply's first one must not join it.
                self._next = self._clock.seconds() + LAB_PIECE_PAUSE
        if self._is_over() and not self._held:
            self._later(LAB_PIECE_PAUSE, self._reset)
        self._tell_room()

    def _reset(self) -> None:
        """Reset the connection, once the peer has all it is to get: the kernel forgets the rest."""
        self._call = None
        if self._unsent():
            self._later(LAB_PIECE_PAUSE, self._reset)
        else:
            self._tell(LabAction.RESET, f"reset after {self._lab.reset_after} bytes")
            self._on_reset()
