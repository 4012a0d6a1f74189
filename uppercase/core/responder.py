"""One datagram in, at most one out: what a UDP service does, without a socket.

    (lab) -> request rules -> rate -> loop guard -> transform -> reply rules -> (lab) -> reply

`Responder` takes batches of datagrams and gives the steps that its shell carries out: replies to
send, awaitables to wait for, deliveries to hold back. It does no I/O, starts nothing by itself and
owns no timer; the shell comes back with `settle` and `resume`. The lab stands for the network on
either side of the server, so it is outermost; where there is none, nothing asks for it.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from errno import errorcode
from operator import attrgetter, xor
from time import perf_counter
from typing import Final

from uppercase.core import events
from uppercase.core.datagram import (
    UNTOUCHED,
    Answer,
    Delay,
    LabStage,
    Numbers,
    Origin,
    Part,
    Passage,
    Replies,
    Request,
    Step,
    Wait,
)
from uppercase.core.events import Direction, DropReason, IObserver
from uppercase.core.guards import (
    REPLY_RULES,
    REPLY_SLACK,
    REQUEST_RULES,
    LockStepGuard,
    LoopGuard,
    RateLimit,
)
from uppercase.core.pipeline import Pipeline, Result
from uppercase.errors import TransformError
from uppercase.limits import IPV4_MAX_DATAGRAM, TURN, DatagramLimits

_DIGEST: Final = attrgetter("digest")


class Responder:
    """Answers the datagrams of one UDP service, which may have several ports.

    Invariant: unless a lab loses, doubles or holds something back, `received` is the sum of
    `answered`, `outstanding` and all `drops` once a wake-up's parts are all carried out. So each
    request ends in `_drop`, in a `Wait`, or in an `Answer` that the shell reports by `sent`; where
    the shell closes the iterator of parts, what was not looked at is dropped.

    Args:
        chain: gives the replies.
        limits: the bounds.
        clock: gives seconds that never run backwards.
        observer: is told what happens; None costs nothing.
        tell_each: tell the observer of each request and each reply too, not only of what is out of
            the ordinary, which costs many times what a datagram does. Where there is neither a lab
            nor a rate, a function may decide so by how many came together.
        numbered: number each client's datagrams for the observer, also without a lab.
        by_host: a client is a host, not a host and a port.
        lab: decides what arrives; None costs nothing.

    Attributes:
        received: datagrams that came in.
        answered: replies that the system took.
        outstanding: datagrams whose replies are awaited.
        drops: datagrams without a reply, by reason.
        errors: what the system refused, by name: `send-error EPERM`, `receive-error ENOMEM`.
    """

    def __init__(
        self,
        chain: Pipeline,
        limits: DatagramLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        observer: IObserver | None = None,
        tell_each: bool | Callable[[int], bool] = False,
        numbered: bool = False,
        by_host: bool = False,
        lab: LabStage | None = None,
    ) -> None:
        self.limits = limits = limits or DatagramLimits()
        self.received = 0
        self.answered = 0
        self.outstanding = 0
        self.drops: Counter[DropReason] = Counter()
        self.errors: Counter[str] = Counter()
        self._chain = chain
        self._clock = clock
        self._observer = observer
        self._told_each = observer if tell_each else None
        self._wants = tell_each if callable(tell_each) and not (limits.rate or lab) else None
        self._lab = lab
        self._numbers = Numbers(by_host) if numbered or lab is not None else None
        # Where the first is off, so is the second.
        self._loops = LoopGuard(limits.loop_guard) if limits.loop_guard else None
        self._lock_steps = LockStepGuard()
        self._rate = RateLimit(limits.rate, limits.burst) if limits.rate else None
        # Whether each datagram has to be looked at by itself.
        self._singly = lab is not None or self._told_each is not None or self._rate is not None

    def exchange(
        self, payloads: Sequence[bytes], origins: Sequence[Origin]
    ) -> Generator[Part, None, None]:
        """Take the datagrams of one wake-up; yield replies to send and what is to be done after.

        Each part is to be carried out before the next is asked for, and takes a tenth of a `TURN`
        or one message. What datagrams have in common is looked at once, which only saves time.
        """
        position, count = 0, len(payloads)
        self.received += count
        digests = list(map(_DIGEST, origins))
        arrived = _tally(origins)
        singly = self._singly and (self._wants is None or self._wants(count))
        alone = self._arrive_together(payloads, arrived, origins, digests, singly)
        look_at = self._arrive if singly else self._judge
        try:
            while position < count:
                begin, end = position, alone[0] if alone else count
                replies, odd = self._answer_run(payloads[begin:end])
                position += len(replies)
                if replies:
                    counts = arrived if len(replies) == count else _tally(origins[begin:position])
                    self._release_all(replies, digests[begin:position], counts)
                ready = Replies(replies, origins[begin:position], payloads[begin:position])
                steps: list[Step] = []
                if odd is not None or not replies:
                    request = Request(payloads[position], origins[position])
                    position += 1
                    if odd is not None:
                        self._take(odd, request, steps)
                    else:
                        # One of those to be looked at alone, or too much is awaited already.
                        if begin == end:
                            alone.popleft()
                        look_at(request, steps)
                # After a message without a reply, too: it may have taken long.
                yield ready, steps
        except BaseException:  # The shell closes this, or an observer has failed.
            for request in map(Request, payloads[position:], origins[position:]):
                self._drop(request, DropReason.STOPPED)
            raise

    def _answer_run(self, payloads: Sequence[bytes]) -> tuple[list[bytes], Result | None]:
        """Answer datagrams until one is out of the ordinary, or a turn is over.

        Invariant: what is answered here would pass every rule. Those about the origin and the
        guards were asked before, of all; a request up to `max_request` and a reply up to
        `REPLY_SLACK` longer than it, and no longer than `IPV4_MAX_DATAGRAM`, pass the others; and
        what is not answered like that goes the way of all datagrams.

        Returns:
            The replies, and what the transform gave for the next datagram; None if it was not
            asked.
        """
        replies: list[bytes] = []
        if not payloads or self.outstanding >= self.limits.max_outstanding:
            return replies, None
        until = perf_counter() + TURN / 10
        return replies, self._chain.answer_run(payloads, replies, REPLY_SLACK, until)

    def exchanged(self, replies: Replies, refused: Collection[tuple[int, OSError]]) -> None:
        """Note replies of `exchange`, all sent except those at these positions."""
        self.answered += len(replies.payloads) - len(refused)
        if self._told_each is not None and replies.payloads:
            gone = {position for position, _ in refused}
            sent = [each for place, each in enumerate(replies.origins) if place not in gone]
            self._tell_several(Direction.REPLY, _tally(sent))
        for position, error in refused:
            self._refused(Request(replies.requests[position], replies.origins[position]), error)

    def _tell_several(self, direction: Direction, counts: Mapping[Origin, int]) -> None:
        """Tell of datagrams that nobody wants to be told of one by one, and number them."""
        by_client: dict[str, int] = {}
        for origin, count in counts.items():
            name = str(origin.client)
            by_client[name] = by_client.get(name, 0) + count
            if self._numbers is not None and direction is Direction.REQUEST:
                self._numbers.take(origin.client, self._clock(), count)
        if self._told_each is not None:
            self._told_each.notify(events.Several(direction, by_client))

    def _arrive_together(
        self,
        payloads: Sequence[bytes],
        arrived: Mapping[Origin, int],
        origins: Sequence[Origin],
        digests: Sequence[int],
        singly: bool,
    ) -> deque[int]:
        """Note what has arrived; return the places of what must be looked at alone."""
        odd: set[object] = set()
        if self._loops is not None:
            odd.update(self._lock_steps.suspects(arrived, self._clock()))
        if singly:
            return deque(range(len(payloads)))
        if self._told_each is not None:
            self._tell_several(Direction.REQUEST, arrived)
        keys = list(map(xor, digests, map(hash, payloads)))
        odd.update(origin for origin in arrived if self._refuses(origin))
        if self._loops is not None:
            odd |= self._loops.knows(keys)
        most = min(self.limits.max_request, IPV4_MAX_DATAGRAM - REPLY_SLACK)
        if not odd and max(map(len, payloads), default=0) <= most:
            return deque()
        columns = enumerate(zip(payloads, origins, keys, strict=True))
        return deque(
            place
            for place, (data, origin, key) in columns
            if origin in odd or key in odd or len(data) > most
        )

    def _refuses(self, origin: Origin) -> bool:
        """Return whether a request rule drops everything that comes from there."""
        if origin.is_refused is None:
            empty = Request(b"", origin)
            origin.is_refused = any(holds(empty, self.limits) for _, holds in REQUEST_RULES)
        return origin.is_refused

    def _release_all(
        self, replies: Sequence[bytes], digests: Sequence[int], counts: Mapping[Origin, int]
    ) -> None:
        """Let replies go, and remember them in case they come back."""
        if self._loops is not None:
            self._loops.remember(list(map(xor, digests, map(hash, replies))))
            self._lock_steps.replied(counts)

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
        """Note that a step will never be done, because the service stops.

        It is counted as dropped, and nothing more comes of it: the shell has cancelled its
        awaitable before.
        """
        if isinstance(step, Wait):
            self.outstanding -= 1
        self._drop(step.request, DropReason.STOPPED)

    def sent(self, answer: Answer, error: OSError | None = None) -> None:
        """Note that a reply was sent, unless the system refused it."""
        if error is not None:
            self._refused(answer.request, error)
            return
        self.answered += 1
        if self._told_each is not None:
            request, of = answer.request, answer.passage
            peer, data = str(request.client), request.data
            self._told_each.notify(events.Replied(peer, answer.data, data, of.number, of.fates))

    def note_error(self, kind: str, error: OSError) -> None:
        """Count what the system refused, as `errors` has it."""
        self.errors[f"{kind}-error {errorcode.get(error.errno or 0, 'other')}"] += 1

    def _refused(self, request: Request, error: OSError) -> None:
        self.note_error("send", error)
        self._drop(request, DropReason.SEND_ERROR, error.strerror or str(error))

    def _arrive(self, request: Request, steps: list[Step]) -> None:
        """Let one datagram in, through the lab where there is one."""
        data, origin, client = request.data, request.origin, request.client
        # As it arrives, before any guard: what a guard drops depends on the time and on others, and
        # a number must not.
        number = 0 if self._numbers is None else self._numbers.take(client, self._clock())
        if self._told_each is not None:
            self._told_each.notify(events.Received(str(client), data, number))
        if self._lab is None:
            numbered = Passage(0.0, data, number, 0, 1) if number else UNTOUCHED
            self._judge(Request(data, origin, numbered), steps)
            return
        for passage in self._lab.request(client, data, number):
            request = Request(passage.data, origin, passage)
            if passage.delay > 0:
                steps.append(Delay(passage, Direction.REQUEST, request))
            else:
                self._judge(request, steps)

    def _judge(self, request: Request, steps: list[Step]) -> None:
        """Ask the request rules, then the rate and the loop guard, then transform."""
        client, limits = request.client, self.limits
        for reason, holds in REQUEST_RULES:
            if holds(request, limits):
                return self._drop(request, reason)
        if self._rate is not None and not self._rate.allow(client.host, self._clock()):
            if not limits.rate_dry_run:
                return self._drop(request, DropReason.OVER_RATE)
            if self._observer is not None:
                self._observer.notify(events.WouldDrop(str(client), DropReason.OVER_RATE))
        if self._loops is not None:
            now = self._clock()
            is_loop = self._loops.is_loop(client, request.data, now)
            if is_loop or self._lock_steps.is_loop(client, now):
                return self._drop(request, DropReason.LOOP)
        if self.outstanding >= limits.max_outstanding:
            return self._drop(request, DropReason.OVERLOADED)
        return self._take(self._chain.outcome(request.data), request, steps)

    def _take(self, result: Result, request: Request, steps: list[Step]) -> None:
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
        for reason, holds in REPLY_RULES:
            if holds(reply, request, self.limits):
                detail = f"{len(reply)} bytes for a request of {len(request.data)}"
                self._drop(request, reason, detail)
                return
        if self._lab is None:
            self._release(reply, request, steps, request.passage)
            return
        for passage in self._lab.reply(request.client, reply, request.passage):
            if passage.delay > 0:
                steps.append(Delay(passage, Direction.REPLY, request))
            else:
                self._release(passage.data, request, steps, passage)

    def _release(self, data: bytes, request: Request, steps: list[Step], passage: Passage) -> None:
        self._release_all((data,), (request.origin.digest,), {request.origin: 1})
        steps.append(Answer(data, request, passage))

    def _failed(self, request: Request, error: TransformError) -> None:
        if self._observer is not None:
            self._observer.notify(events.TransformFailed(error.transform, error))
        self._drop(request, DropReason.FAILED, str(error))

    def _drop(self, request: Request, reason: DropReason, detail: str = "") -> None:
        self.drops[reason] += 1
        if self._observer is not None:
            peer, data, of = str(request.client), request.data, request.passage
            self._observer.notify(events.Dropped(peer, reason, detail, data, of.number, of.fates))


def _tally(origins: Sequence[Origin]) -> dict[Origin, int]:
    """Return the origins and how often each is among them; a `Counter` is slower to make."""
    found: dict[Origin, int] = {}
    for origin in origins:
        found[origin] = found.get(origin, 0) + 1
    return found
