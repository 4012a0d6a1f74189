"""One datagram in, none or one out: what a UDP service does, without a socket.

    request rules -> rate -> loop guard -> (lab) -> transform -> reply rules -> (lab) -> reply

`Responder` takes batches of datagrams and gives the steps that its shell carries out: replies to
send, awaitables to wait for, deliveries to hold back. It does no I/O, starts nothing by itself and
keeps no clock of its own; the shell comes back with `settle` and `resume`.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from uppercase import events
from uppercase.errors import TransformError
from uppercase.events import DropReason, IObserver
from uppercase.guards import (
    REPLY_RULES,
    REQUEST_RULES,
    Client,
    Datagram,
    Destination,
    LoopGuard,
    SocketAddress,
    client_of,
    format_client,
)
from uppercase.interfaces import ITransform
from uppercase.limits import DatagramLimits
from uppercase.ratelimit import RateLimit

__all__ = [
    "Answer",
    "Client",
    "Datagram",
    "Delay",
    "Destination",
    "Direction",
    "Lab",
    "Responder",
    "SocketAddress",
    "Step",
    "Wait",
]

Direction = Literal["request", "reply"]


class Lab(Protocol):
    """Decides the fate of datagrams, for those who want to see them get lost."""

    def fates(
        self, direction: Direction, client: Client, data: bytes
    ) -> Iterable[tuple[float, bytes]]:
        """Give what arrives of one datagram: pairs (delay in seconds, payload); none if lost."""
        ...


class Answer(NamedTuple):
    """A reply to send now.

    Attributes:
        data: its payload.
        peer: where to, as the socket gave it.
        source: the address that was asked, from which the reply must come.
    """

    data: bytes
    peer: SocketAddress
    source: Destination


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """A reply that is not ready: wait for it, then call `Responder.settle`."""

    awaitable: Awaitable[bytes]
    datagram: Datagram
    client: Client


@dataclass(frozen=True, slots=True, eq=False)
class Delay:
    """A delivery that the lab holds back: call `Responder.resume` after so many seconds."""

    seconds: float
    direction: Direction
    data: bytes
    datagram: Datagram
    client: Client


Step = Answer | Wait | Delay


class Responder:
    """Answers the datagrams of one UDP service, which may have several ports.

    At any time `received == answered + sum(drops.values()) + outstanding`, replies that are on
    their way to the shell aside, as long as no lab interferes.

    Args:
        transform: what gives the replies.
        limits: the bounds.
        clock: gives seconds that never run backwards.
        observer: is told what happens; None costs nothing.
        lab: decides what arrives; None costs nothing.

    Attributes:
        received: datagrams that came in.
        answered: replies that the system took.
        outstanding: datagrams awaited or held back.
        drops: datagrams without a reply, by reason.
        would_drop: datagrams answered that a dry run would have dropped, by reason.
    """

    def __init__(
        self,
        transform: ITransform,
        limits: DatagramLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        observer: IObserver | None = None,
        lab: Lab | None = None,
    ) -> None:
        self.limits = limits = limits or DatagramLimits()
        self.received = 0
        self.answered = 0
        self.outstanding = 0
        self.drops: Counter[DropReason] = Counter()
        self.would_drop: Counter[DropReason] = Counter()
        self._transform = transform
        self._clock = clock
        self._observer = observer
        self._lab = lab
        self._loops = LoopGuard(limits.loop_guard) if limits.loop_guard else None
        self._rate = RateLimit(limits.rate, limits.burst) if limits.rate else None

    def answer(self, datagram: Datagram) -> list[Step]:
        """Take one datagram; give what is to be done about it."""
        steps: list[Step] = []
        self._request(datagram, steps)
        return steps

    def answer_batch(self, batch: Sequence[Datagram]) -> list[Step]:
        """Take the datagrams of one wake-up; give what is to be done, in their order."""
        steps: list[Step] = []
        for datagram in batch:
            self._request(datagram, steps)
        return steps

    def settle(self, wait: Wait, result: Any) -> list[Step]:
        """Take what an awaitable gave, or the exception that it raised; give what is to be done."""
        self.outstanding -= 1
        steps: list[Step] = []
        if isinstance(result, Exception):
            self._failed(wait.client, result)
        elif not isinstance(result, bytes):
            self._failed(wait.client, self._not_bytes(result))
        else:
            self._reply(result, wait.datagram, wait.client, steps)
        return steps

    def resume(self, delay: Delay) -> list[Step]:
        """Go on with a delivery whose time has come; give what is to be done."""
        self.outstanding -= 1
        steps: list[Step] = []
        if delay.direction == "request":
            self._apply(delay.data, delay.datagram, delay.client, steps)
        else:
            self._release(delay.data, delay.datagram, delay.client, steps)
        return steps

    def abandon(self, step: Wait | Delay) -> None:
        """Take note that a step will never be done, because the service stops."""
        self.outstanding -= 1
        self._drop(step.client, DropReason.STOPPED)

    def sent(self, answers: Sequence[Answer], refused: Collection[tuple[Answer, OSError]]) -> None:
        """Take note of replies that were sent, and which of them the system refused."""
        self.answered += len(answers) - len(refused)
        for answer, error in refused:
            reason = error.strerror or str(error)
            self._drop(client_of(answer.peer), DropReason.SEND_ERROR, reason)
        if self._observer is not None:
            failed = {id(answer) for answer, _ in refused}
            for answer in answers:
                if id(answer) not in failed:
                    peer = format_client(client_of(answer.peer))
                    self._observer.notify(events.Reply(peer, answer.data))

    def _request(self, datagram: Datagram, steps: list[Step]) -> None:
        """Ask the request rules, then the rate and the loop guard, then go on."""
        self.received += 1
        client = client_of(datagram.source)
        if self._observer is not None:
            self._observer.notify(events.Request(format_client(client), datagram.data))
        for reason, holds in REQUEST_RULES:
            if holds(datagram, client, self.limits):
                return self._drop(client, reason)
        if self._rate is not None and not self._rate.allow(client.host, self._clock()):
            if not self.limits.rate_dry_run:
                return self._drop(client, DropReason.OVER_RATE)
            self.would_drop[DropReason.OVER_RATE] += 1
            if self._observer is not None:
                peer = format_client(client)
                self._observer.notify(events.WouldDrop(peer, DropReason.OVER_RATE))
        if self._loops is not None and self._loops.is_loop(client, datagram.data, self._clock()):
            return self._drop(client, DropReason.LOOP)
        if self._lab is None:
            return self._apply(datagram.data, datagram, client, steps)
        for seconds, data in self._lab.fates("request", client, datagram.data):
            if seconds > 0:
                self._hold(Delay(seconds, "request", data, datagram, client), steps)
            else:
                self._apply(data, datagram, client, steps)
        return None

    def _apply(self, data: bytes, datagram: Datagram, client: Client, steps: list[Step]) -> None:
        """Transform what arrived; whatever goes wrong costs this datagram only."""
        reply: Any
        try:
            reply = self._transform.transform(data)
        except Exception as error:
            return self._failed(client, error)
        if isinstance(reply, bytes):
            return self._reply(reply, datagram, client, steps)
        if isinstance(reply, Awaitable):
            return self._hold(Wait(reply, datagram, client), steps)
        return self._failed(client, self._not_bytes(reply))

    def _reply(self, reply: bytes, datagram: Datagram, client: Client, steps: list[Step]) -> None:
        """Ask the reply rules, then go on."""
        for reason, holds in REPLY_RULES:
            if holds(reply, datagram, client, self.limits):
                detail = f"{len(reply)} bytes for a request of {len(datagram.data)}"
                return self._drop(client, reason, detail)
        if self._lab is None:
            return self._release(reply, datagram, client, steps)
        for seconds, data in self._lab.fates("reply", client, reply):
            if seconds > 0:
                self._hold(Delay(seconds, "reply", data, datagram, client), steps)
            else:
                self._release(data, datagram, client, steps)
        return None

    def _release(self, data: bytes, datagram: Datagram, client: Client, steps: list[Step]) -> None:
        if self._loops is not None:
            self._loops.remember(client, data)
        steps.append(Answer(data, datagram.source, datagram.destination))

    def _hold(self, step: Wait | Delay, steps: list[Step]) -> None:
        """Add one to what is outstanding, unless that is too much already."""
        if self.outstanding >= self.limits.max_outstanding:
            if isinstance(step, Wait):
                # a coroutine that is never awaited would complain
                getattr(step.awaitable, "close", getattr(step.awaitable, "cancel", lambda: None))()
            return self._drop(step.client, DropReason.OVERLOADED)
        self.outstanding += 1
        return steps.append(step)

    def _failed(self, client: Client, error: Exception) -> None:
        if self._observer is not None:
            name = getattr(error, "transform", type(self._transform).__name__)
            self._observer.notify(events.TransformFailed(name, error))
        self._drop(client, DropReason.FAILED, str(error))

    def _not_bytes(self, reply: Any) -> TransformError:
        name = type(self._transform).__name__
        return TransformError(name, f"it gave {type(reply).__name__}; bytes are needed")

    def _drop(self, client: Client, reason: DropReason, detail: str = "") -> None:
        self.drops[reason] += 1
        if self._observer is not None:
            self._observer.notify(events.Dropped(format_client(client), reason, detail))
