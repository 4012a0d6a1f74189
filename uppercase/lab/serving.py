"""The lab in a service: a stage of one over UDP, an outlet for the replies of one over TCP.

Over UDP a `Lab` deals out the fates of datagrams, which have numbers by then; it decides none.
Sans-I/O and without a timer: the port hands each arriving datagram to `Lab.request`, answers what
comes back after its delay, and hands each reply to `Lab.reply`; it sends what comes back from
there, again after its delay.

TCP promises bytes in order and nothing about their pieces, their timing or a connection's life. A
program that takes one `recv` for one message works on the machine it was written on. Here replies
come late, in pieces, or not to their end. Nothing is random: the same happens to everybody. A
`LabOutlet` stands between a connection and its transport, as what the connection writes to. Like a
transport it pauses the connection while it is full, which is at one batch of its output.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Any, Final

from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from uppercase.core.datagram import Passage
from uppercase.core.events import Direction, Dropped, DropReason, Impaired, IObserver, LabAction
from uppercase.core.values import Client, counted
from uppercase.lab import TCPLab
from uppercase.lab._fates import DELIVERED, Experiment, describe
from uppercase.limits import KIB, MIB, OUTPUT_BATCH

HELD_BYTES: Final = 16 * MIB
"""What the lab holds back at one time, over all clients; more is dropped and reported. It is
16,000 small datagrams: 200 students may have 80 each under way."""

HELD_COST: Final = 1 * KIB
"""What holding one datagram costs besides its bytes: the timer, the addresses, the records."""

HELD_REPLIES: Final = 512  # Of one connection, at one time: each takes 450 bytes and its own.

LAB_PIECE_PAUSE: Final = 0.01
"""Seconds between the pieces of a reply that is cut: long enough for a client that waits in `recv`
to be woken by the first, and a line of 80 letters still comes within a second."""

LAB_PIECES: Final = 256
"""Pieces into which one reply is cut at most, so that it comes within 3 s and 200 students who send
much do not keep the server busy; longer replies are cut into larger pieces."""


@dataclass(eq=False)
class Lab:
    """Follows one experiment for all clients of a service.

    Attributes:
        observer: told of every action (`Impaired`), and of what is dropped because the lab
            would hold more than `HELD_BYTES` (`Dropped`).
    """

    experiment: Experiment
    clock: Callable[[], float]
    observer: IObserver

    def __post_init__(self) -> None:
        # (when its delay is over, cost) of each passage that the port holds, the next first.
        # Invariant: `_held_bytes` is the sum of the costs; what is over is taken out before the
        # next is held, so a port need not say when it has passed something on.
        self._held: list[tuple[float, int]] = []
        self._held_bytes = 0

    def request(self, client: Client, data: bytes, number: int) -> list[Passage]:
        """Take a datagram from a client; return what the service gets of it, none to two copies."""
        return self._pass_on(Direction.REQUEST, client, data, Passage(0.0, data, number, 0, 1))

    def reply(self, client: Client, data: bytes, answered: Passage) -> list[Passage]:
        """Take the reply to a request; return what is sent of it, none to two copies."""
        return self._pass_on(Direction.REPLY, client, data, answered)

    def _pass_on(
        self, direction: Direction, client: Client, data: bytes, of: Passage
    ) -> list[Passage]:
        number, fates = of.number, of.fates
        fate = self.experiment.fate(direction, number, of.copy, host=client[0])
        if not data:
            fate = replace(fate, flip=None)
        if fate.actions:
            words = describe(direction, fate, of.copy, of.copies)
            before = fates or describe(Direction.REQUEST, DELIVERED)
            fates = words if direction is Direction.REQUEST else f"{before}; {words}"
            self.observer.notify(
                Impaired(
                    str(client), direction, number, fate.actions, words, data, fates, fate.seconds
                )
            )
        passed = fate.apply(data)
        passages = [
            Passage(fate.seconds, passed, number, each, fate.copies, fates)
            for each in range(fate.copies)
        ]
        return [each for each in passages if not each.delay or self._hold(client, each)]

    def _hold(self, client: Client, passage: Passage) -> bool:
        """Make room for what the port will hold until its delay is over, or drop it."""
        now = self.clock()
        while self._held and self._held[0][0] <= now:
            self._held_bytes -= heappop(self._held)[1]
        cost = len(passage.data) + HELD_COST
        if self._held_bytes + cost > HELD_BYTES:
            peer, reason = str(client), DropReason.LAB_FULL
            self.observer.notify(
                Dropped(peer, reason, "", passage.data, passage.number, passage.fates)
            )
            return False
        self._held_bytes += cost
        heappush(self._held, (now + passage.delay, cost))
        return True


@implementer(IConsumer, IPushProducer)
@dataclass(eq=False)
class LabOutlet:
    """What one connection's replies go through.

    Attributes:
        unsent: tells how many bytes the peer does not have of what the transport was given; None
            where that is not known.
        on_action: told what was done, to which write (from 1; 0 for the connection itself), and the
            same in words.
    """

    transport: IConsumer
    clock: IReactorTime
    lab: TCPLab
    unsent: Callable[[], int | None]
    on_action: Callable[[LabAction, int, str], None]
    on_reset: Callable[[], None]

    _producer: Any = field(default=None, init=False)
    _transport_full = False
    _size = 0
    _cut_off = 0
    _replies = 0
    _next = 0.0
    _call: IDelayedCall | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        # When each is due, the bytes of a piece of it, and what is left of it.
        self._held: deque[tuple[float, int, memoryview]] = deque()
        self._until_reset = self.lab.reset_after
        self._open = not self.lab.accept_delay

    @property
    def empty(self) -> bool:
        return not self._held and not self._is_over()

    @property
    def holds_up(self) -> bool:
        """Whether it holds replies, or the connection itself."""
        return not (self._open and self.empty)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Begin; the producer is paused while there is no room, here or in the transport.

        It is resumed when there is room again, and once more when the outlet is empty.
        """
        self._producer = producer
        self.transport.registerProducer(self, streaming)

    def begin(self) -> None:
        """Have the connection wait to be accepted, if so asked; it is known whose it is."""
        if not self._open:
            self._later(self.lab.accept_delay, self._accept)
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self._transport_full = True
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._transport_full = False
        self._tell_room()

    def stopProducing(self) -> None:
        self._producer.stopProducing()

    def write(self, data: bytes) -> None:
        lab = self.lab
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
        self._held.append((self.clock.seconds() + lab.delay, step, memoryview(data)))
        self._size += len(data)
        if self._call is None:
            self._send()
        if self._is_full():
            self._producer.pauseProducing()

    def stop(self) -> None:
        """Do nothing any more; the connection is lost."""
        if self._call is not None:
            self._call.cancel()

    def withheld(self) -> int:
        return self._size + self._cut_off

    def _is_full(self) -> bool:
        full = self._size >= OUTPUT_BATCH or len(self._held) >= HELD_REPLIES
        return full or not self._open or self._is_over()

    def _is_over(self) -> bool:
        """Return whether all was sent that the peer is to get before the reset."""
        return bool(self.lab.reset_after) and not self._until_reset

    def _tell_room(self) -> None:
        if not self._transport_full and not self._is_full():
            self._producer.resumeProducing()

    def _tell(self, action: LabAction, fate: str) -> None:
        self.on_action(action, self._replies, f"reply {fate}")

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._call = self.clock.callLater(seconds, call)

    def _accept(self) -> None:
        self._call = None
        self._open = True
        late = f"accepted {self.lab.accept_delay:g} s late"
        self.on_action(LabAction.ACCEPTED_LATE, 0, late)
        self._tell_room()

    def _send(self) -> None:
        """Pass on what is due, piece by piece if replies are cut."""
        self._call = None
        while self._held:
            due, step, data = self._held.popleft()
            wait = max(due, self._next) - self.clock.seconds()
            if wait > 0:
                self._held.appendleft((due, step, data))
                self._later(wait, self._send)
                break
            if rest := data[step:]:
                self._held.appendleft((due, step, rest))
            self._size -= len(data) - len(rest)
            self.transport.write(bytes(data[:step]))
            if self.lab.slice:
                # Also after the last piece: the next reply's first one must not join it.
                self._next = self.clock.seconds() + LAB_PIECE_PAUSE
        if self._is_over() and not self._held:
            self._later(LAB_PIECE_PAUSE, self._reset)
        self._tell_room()

    def _reset(self) -> None:
        """Reset the connection, once the peer has all it is to get: the kernel forgets the rest."""
        self._call = None
        if self.unsent():
            self._later(LAB_PIECE_PAUSE, self._reset)
        else:
            self._tell(LabAction.RESET, f"reset after {counted(self.lab.reset_after, 'byte')}")
            self.on_reset()
