"""One datagram in, none or one out: what a UDP service does, without a socket.

    (lab) -> request rules -> rate -> loop guard -> transform -> reply rules -> (lab) -> reply

`Responder` takes batches of datagrams and gives the steps that its shell carries out: replies to
send, awaitables to wait for, deliveries to hold back. It does no I/O, starts nothing by itself and
owns no timer; the shell comes back with `settle` and `resume`. The lab stands for the network on
either side of the server, so it is outermost; where there is none, nothing asks for it.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from uppercase.core import events
from uppercase.core.events import Direction, DropReason, IObserver
from uppercase.core.guards import (
    REPLY_RULES,
    REPLY_SLACK,
    REQUEST_RULES,
    Datagram,
    Destination,
    LockStepGuard,
    LoopGuard,
    Origin,
    Packet,
    SocketAddress,
    client_of,
)
from uppercase.core.rates import RateLimit
from uppercase.core.values import Client
from uppercase.errors import TransformError, let_go
from uppercase.interfaces import ITransform
from uppercase.limits import IPV4_MAX_DATAGRAM, DatagramLimits


class Passage(NamedTuple):
    """One copy of a datagram that a lab passes on.

    Attributes:
        delay: seconds from now; 0 is at once.
        data: its bytes.
        number: the request's number among its client's, from 1.
        copy: which copy it is, from 0.
        copies: how many there are.
        fates: what has happened to it so far, in the answer key's words; "" if nothing.
    """

    delay: float
    data: bytes
    number: int
    copy: int
    copies: int
    fates: str = ""


class LabStage(Protocol):
    """What a responder asks of a lab; it owns no timer, so the shell holds back what is delayed."""

    def request(self, client: Client, data: bytes) -> list[Passage]:
        """Take a datagram from a client; return what the service gets of it."""

    def reply(self, client: Client, data: bytes, answered: Passage) -> list[Passage]:
        """Take the reply to a request that `request` gave; return what is sent of it."""


class Answer(NamedTuple):
    """A reply to send now.

    Attributes:
        data: its payload.
        peer: where to, as the socket gave it.
        source: the address that was asked, from which the reply must come.
        request: what it answers, None for a datagram that answers none.
        passage: what the lab made of it, None without a lab.
    """

    data: bytes
    peer: SocketAddress
    source: Destination
    request: "Request | None" = None
    passage: Passage | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A datagram on its way through the responder.

    Attributes:
        datagram: as the rules see it.
        client: who sent it.
        passage: what the lab made of it, None without a lab.
    """

    datagram: Datagram
    client: Client
    passage: Passage | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """A reply that is not ready: wait for it, then call `Responder.settle`.

    The shell owns it from here on and ends it exactly once, by `settle` or by `abandon`: until then
    it counts as outstanding.
    """

    awaitable: Awaitable[bytes]
    request: Request


@dataclass(frozen=True, slots=True, eq=False)
class Delay:
    """What the lab holds back: call `Responder.resume` when the passage's delay is over.

    The shell owns it from here on and ends it exactly once, by `resume` or by `abandon`.
    """

    passage: Passage
    direction: Direction
    request: Request


Step = Answer | Wait | Delay

Reply = tuple[bytes, Origin, bytes]
"""A reply to send now, where to, and what it answers: an `Answer` where nothing is out of the
ordinary."""


class Responder:
    """Answers the datagrams of one UDP service, which may have several ports.

    Invariant: unless a lab loses, doubles or holds something back, `received` is the sum of
    `answered`, `outstanding` and all `drops` between one wake-up and the next. So every way of a
    request ends in `_drop`, in a `Wait`, or in an `Answer` that the shell reports by `sent`.

    Args:
        transform: gives the replies, raises nothing but `TransformError`: a pipeline.
        limits: the bounds.
        clock: gives seconds that never run backwards.
        observer: is told what happens; None costs nothing.
        tell_each: tell the observer of each request and each reply too, not only of what is out
            of the ordinary; three times the cost of a datagram.
        lab: decides what arrives; None costs nothing.

    Attributes:
        received: datagrams that came in.
        answered: replies that the system took.
        outstanding: datagrams whose replies are awaited.
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
        tell_each: bool = False,
        lab: LabStage | None = None,
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
        self._told_each = observer if tell_each else None
        self._lab = lab
        self._loops = LoopGuard(limits.loop_guard) if limits.loop_guard else None
        self._lock_steps = LockStepGuard() if limits.loop_guard else None
        self._rate = RateLimit(limits.rate, limits.burst) if limits.rate else None
        # Whether each datagram has to be looked at by itself.
        self._singly = lab is not None or self._told_each is not None or self._rate is not None

    def exchange(self, batch: Sequence[Packet]) -> Iterator[tuple[list[Reply], list[Step]]]:
        """Take the datagrams of one wake-up; give replies to send and what is to be done after.

        Each part is to be carried out before the next is asked for. The outcome is that of
        `answer_in_turn`, in less time: what datagrams have in common is looked at once.
        """
        if self._singly:
            for steps in self.answer_in_turn([origin.datagram(data) for data, origin in batch]):
                yield [], steps
            return
        self.received += len(batch)
        odd = self._odd(batch)
        transform, limits = self._transform.transform, self.limits
        replies: list[Reply] = []
        for data, origin in batch:
            # Nothing of it is kept if there is nothing out of the ordinary.
            result: bytes | Awaitable[bytes] | TransformError | None = None
            if (
                len(data) <= limits.max_request
                and self.outstanding < limits.max_outstanding
                and not (odd and (origin in odd or origin.digest ^ hash(data) in odd))
            ):
                try:
                    result = transform(data)
                except TransformError as error:
                    let_go(error)
                    result = error
                else:
                    if (
                        isinstance(result, bytes)
                        and len(result) <= len(data) + REPLY_SLACK
                        and len(result) <= IPV4_MAX_DATAGRAM
                    ):
                        replies.append((result, origin, data))
                        continue
            more: list[Step] = []
            request = Request(origin.datagram(data), origin.client)
            if result is None:
                self._judge(request, more)
            else:
                self._take(result, request, more)
            if more:
                self._release_all(replies)
                yield replies, more
                replies = []
        self._release_all(replies)
        yield replies, []

    def exchanged(
        self, replies: Sequence[Reply], refused: Collection[tuple[Reply, OSError]]
    ) -> None:
        """Take note of replies of `exchange` that were sent, and which the system refused."""
        self.answered += len(replies) - len(refused)
        for (_, origin, data), error in refused:
            request = Request(origin.datagram(data), origin.client)
            self._drop(request, DropReason.SEND_ERROR, error.strerror or str(error))

    def _odd(self, batch: Sequence[Packet]) -> Set[object]:
        """Take note of what has arrived; return which origins and loop keys the guards suspect."""
        origins = _tally(batch)
        odd: set[object] = {origin for origin in origins if self._refuses(origin)}
        if self._loops is not None and self._lock_steps is not None:
            now, may_loop = self._clock(), self._lock_steps.may_loop
            odd.update(
                origin for origin, count in origins.items() if may_loop(origin.client, count, now)
            )
            odd |= self._loops.knows([origin.digest ^ hash(data) for data, origin in batch])
        return odd

    def _refuses(self, origin: Origin) -> bool:
        """Return whether a request rule drops whatever comes from there."""
        if origin.is_refused is None:
            empty = origin.datagram(b"")
            origin.is_refused = any(
                holds(empty, origin.client, self.limits) for _, holds in REQUEST_RULES
            )
        return origin.is_refused

    def _release_all(self, replies: Sequence[Reply]) -> None:
        """Do what `_release` does."""
        if self._loops is not None and self._lock_steps is not None:
            keys = [origin.digest ^ hash(reply) for reply, origin, _ in replies]
            self._loops.remember_all(keys)
            for origin, count in _tally(replies).items():
                self._lock_steps.replied(origin.client, count)

    def answer(self, datagram: Datagram) -> list[Step]:
        """Take one datagram; return what is to be done about it."""
        return self.answer_batch((datagram,))

    def answer_batch(self, batch: Sequence[Datagram]) -> list[Step]:
        """Take the datagrams of one wake-up; return what is to be done, in their order."""
        return [step for steps in self.answer_in_turn(batch) for step in steps]

    def answer_in_turn(self, batch: Sequence[Datagram]) -> Iterator[list[Step]]:
        """Take the datagrams of one wake-up; give what is to be done, in parts.

        Each part is to be carried out before the next is asked for. Where each datagram is told of,
        it is one datagram's, so that what is told is in the order of their arrival.
        """
        steps: list[Step] = []
        clients = [client_of(datagram.source) for datagram in batch]
        if self._lock_steps is not None:
            self._lock_steps.arrived(clients, self._clock())
        for datagram, client in zip(batch, clients, strict=True):
            if self._told_each is not None and steps:
                yield steps
                steps = []
            self.received += 1
            if self._told_each is not None:
                self._told_each.notify(events.Received(str(client), datagram.data))
            if self._lab is None:
                self._judge(Request(datagram, client), steps)
                continue
            for passage in self._lab.request(client, datagram.data):
                passed = datagram._replace(data=passage.data)
                request = Request(passed, client, passage)
                if passage.delay > 0:
                    steps.append(Delay(passage, Direction.REQUEST, request))
                else:
                    self._judge(request, steps)
        yield steps

    def settle(self, wait: Wait, result: bytes | TransformError) -> list[Step]:
        """Take what an awaitable gave, or the error that it raised; return what is to be done."""
        self.outstanding -= 1
        steps: list[Step] = []
        self._take(result, wait.request, steps)
        return steps

    def resume(self, delay: Delay) -> list[Step]:
        """Go on with a delivery whose time has come; return what is to be done."""
        steps: list[Step] = []
        if delay.direction is Direction.REQUEST:
            self._judge(delay.request, steps)
        else:
            self._release(delay.passage.data, delay.request, steps, delay.passage)
        return steps

    def abandon(self, step: Wait | Delay) -> None:
        """Take note that a step will never be done, because the service stops.

        It is counted as dropped, and nothing comes of it any more: not even its awaitable's
        result, which the shell has called off before.
        """
        if isinstance(step, Wait):
            self.outstanding -= 1
        self._drop(step.request, DropReason.STOPPED)

    def sent(self, answers: Sequence[Answer], refused: Collection[tuple[Answer, OSError]]) -> None:
        """Take note of replies that were sent, and which of them the system refused."""
        self.answered += len(answers) - len(refused)
        for answer, error in refused:
            if answer.request is not None:
                self._drop(answer.request, DropReason.SEND_ERROR, error.strerror or str(error))
        if self._told_each is not None:
            unsent = {id(answer) for answer, _ in refused}
            for answer in answers:
                request = answer.request
                if request is not None and id(answer) not in unsent:
                    peer, data = str(request.client), request.datagram.data
                    number, fates = _fates(answer.passage or request.passage)
                    self._told_each.notify(events.Replied(peer, answer.data, data, number, fates))

    def _judge(self, request: Request, steps: list[Step]) -> None:
        """Ask the request rules, then the rate and the loop guard, then go on."""
        datagram, client, limits = request.datagram, request.client, self.limits
        for reason, holds in REQUEST_RULES:
            if holds(datagram, client, limits):
                return self._drop(request, reason)
        if self._rate is not None and not self._rate.allow(client.host, self._clock()):
            if not limits.rate_dry_run:
                return self._drop(request, DropReason.OVER_RATE)
            self._would_drop(client, DropReason.OVER_RATE)
        if self._loops is not None and self._lock_steps is not None:
            now = self._clock()
            if self._loops.is_loop(client, datagram.data, now) or (
                self._lock_steps.is_loop(client, now)
            ):
                return self._drop(request, DropReason.LOOP)
        if self.outstanding >= limits.max_outstanding:
            return self._drop(request, DropReason.OVERLOADED)
        return self._apply(request, steps)

    def _apply(self, request: Request, steps: list[Step]) -> None:
        """Transform; a failure costs this datagram only."""
        try:
            reply = self._transform.transform(request.datagram.data)
        except TransformError as error:
            let_go(error)
            return self._failed(request, error)
        return self._take(reply, request, steps)

    def _take(
        self,
        result: bytes | Awaitable[bytes] | TransformError,
        request: Request,
        steps: list[Step],
    ) -> None:
        """Go on with what a transform gave."""
        if isinstance(result, TransformError):
            self._failed(request, result)
        elif isinstance(result, bytes):
            self._reply(result, request, steps)
        else:
            self.outstanding += 1
            steps.append(Wait(result, request))

    def _reply(self, reply: bytes, request: Request, steps: list[Step]) -> None:
        """Ask the reply rules, then go on."""
        datagram, client = request.datagram, request.client
        for reason, holds in REPLY_RULES:
            if holds(reply, datagram, client, self.limits):
                detail = f"{len(reply)} bytes for a request of {len(datagram.data)}"
                return self._drop(request, reason, detail)
        if self._lab is None or request.passage is None:
            return self._release(reply, request, steps)
        for passage in self._lab.reply(client, reply, request.passage):
            if passage.delay > 0:
                steps.append(Delay(passage, Direction.REPLY, request))
            else:
                self._release(passage.data, request, steps, passage)
        return None

    def _release(
        self,
        data: bytes,
        request: Request,
        steps: list[Step],
        passage: Passage | None = None,
    ) -> None:
        """Let a reply go, and know it again should it come back."""
        if self._loops is not None:
            self._loops.remember(request.client, data)
        if self._lock_steps is not None:
            self._lock_steps.replied(request.client)
        source, destination = request.datagram.source, request.datagram.destination
        steps.append(Answer(data, source, destination, request, passage))

    def _failed(self, request: Request, error: TransformError) -> None:
        if self._observer is not None:
            self._observer.notify(events.TransformFailed(error.transform, error))
        self._drop(request, DropReason.FAILED, str(error))

    def _drop(self, request: Request, reason: DropReason, detail: str = "") -> None:
        self.drops[reason] += 1
        if self._observer is not None:
            peer, data = str(request.client), request.datagram.data
            number, fates = _fates(request.passage)
            self._observer.notify(events.Dropped(peer, reason, detail, data, number, fates))

    def _would_drop(self, client: Client, reason: DropReason) -> None:
        self.would_drop[reason] += 1
        if self._observer is not None:
            self._observer.notify(events.WouldDrop(str(client), reason))


def _tally(batch: Sequence[Packet] | Sequence[Reply]) -> dict[Origin, int]:
    """Return the origins among packets, or those that replies go to, and how often each is."""
    found: dict[Origin, int] = {}
    for packet in batch:
        origin = packet[1]
        found[origin] = found.get(origin, 0) + 1
    return found


def _fates(passage: Passage | None) -> tuple[int, str]:
    """Return a passage's number and fates, as events tell them."""
    return (0, "") if passage is None else (passage.number, passage.fates)
