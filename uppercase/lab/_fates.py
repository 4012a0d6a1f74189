"""What happens to a datagram: a function of the seed, the direction and the datagram's number.

The answer key says it beforehand, and the lab's stage as it happens: both ask `Experiment.fate` and
say it in the same words (`describe`), so that they cannot differ.

Nothing else decides: not the time, the other clients or what happened to earlier datagrams. So
datagram 7 is lost for every student, in every run, on every platform.

**The draws** come from one BLAKE2b digest (RFC 7693; 64 bytes, no key, salt or personalisation) of
the UTF-8 text

    uppercase-lab-1 SEED DIRECTION NUMBER COPY

with single spaces, decimal numbers and `request` or `reply`; with `per_client`, a space and the
client's host follow. COPY is 0, and 1 for the reply to the second copy of a duplicated request. The
digest is eight big-endian 64-bit words; the upper 53 bits of each, over 2**53, are one draw from
[0, 1), in the order of `Draws`. A draw below an impairment's probability means that it happens. The
draws of one datagram are independent of each other, so changing one option leaves the others'
decisions as they were. A change of any of this changes every answer key: the `1` must then become
another number.

**A reply's number is that of the request that it answers**, so that neither a lost request nor
replies that overtake each other shift the fates of later replies.

This module must keep no state.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from uppercase.core.events import Direction, LabAction
from uppercase.errors import BadValue
from uppercase.lab import check_delays

REORDER_HOLD: Final = 0.25
"""How long a reordered datagram is held. A client with several under way sends the next one within
milliseconds, so that it overtakes; labs time out after a second, so that it is not taken for
lost."""

MIN_BURST_CHANGE: Final = 0.01
"""The least sum of a burst's two transition probabilities. The state is found by looking back over
1 / sum datagrams on average: 100 hashes, 0.3 ms."""

_WORDS: Final = struct.Struct(">8Q")


class Draws(NamedTuple):
    """Eight independent numbers from [0, 1); the order is part of the answer key."""

    burst: float
    loss: float
    duplicate: float
    reorder: float
    corrupt: float
    position: float
    jitter: float
    unused: float


def _check_probabilities(given: object, *names: str) -> None:
    for name in names:
        if not 0 <= (value := getattr(given, name)) <= 1:
            raise BadValue(f"got {value:g} for {name}; a probability is a number from 0 to 1")


@dataclass(frozen=True, slots=True)
class BurstLoss:
    """Loss that comes in bursts: the Gilbert-Elliott model, two states and a step per datagram.

    Outside a burst `Impairments.loss` applies. A burst has 1 / `leave` datagrams on average, and
    a share of `enter` / (`enter` + `leave`) of all datagrams is in one. Datagram 0 is outside.

    The sum of `enter` and `leave` is at most 1 (above, the states would alternate and not last)
    and at least `MIN_BURST_CHANGE`.

    Attributes:
        enter: probability that a burst starts with the next datagram (p of tc-netem's gemodel).
        leave: probability that it is over with the next one (r).
        loss: probability that a datagram in a burst is lost (1-h).
    """

    enter: float
    leave: float
    loss: float = 1.0

    def __post_init__(self) -> None:
        _check_probabilities(self, "enter", "leave", "loss")
        if not MIN_BURST_CHANGE <= self.enter + self.leave <= 1:
            raise BadValue(
                f"got burst probabilities {self.enter:g} to enter and {self.leave:g} to leave; "
                f"their sum must lie between {MIN_BURST_CHANGE:g} and 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairments:
    """What the lab does in one direction; the default is nothing.

    Attributes:
        loss: probability that a datagram is lost.
        duplicate: probability that it is passed on twice, both copies alike.
        reorder: probability that it is held for `REORDER_HOLD` seconds on top of its delay, so
            that what the client sends meanwhile overtakes it. With one datagram under way at a time
            there is nothing to overtake it, as in a network, and it is merely late. Two held one
            after the other keep their order.
        corrupt: probability that one bit is flipped. An empty datagram has none and stays whole.
        delay: seconds, up to `MAX_DELAY`.
        jitter: seconds; delays are uniform over `delay` - `jitter` to `delay` + `jitter` but never
            below 0 (as in tc-netem), to a tenth of a millisecond. Datagrams closer together than
            that may overtake each other.
        burst_loss: loss that comes in bursts.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    burst_loss: BurstLoss | None = None

    def __post_init__(self) -> None:
        _check_probabilities(self, "loss", "duplicate", "reorder", "corrupt")
        check_delays(self, "delay", "jitter")


_NONE: Final = Impairments()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What happens to one datagram.

    Attributes:
        copies: how often it is passed on: 0 is lost, 2 is duplicated.
        delay: seconds, without the hold.
        held: it is held for `REORDER_HOLD` seconds more.
        flip: where the flipped bit is, as a share of the datagram from [0, 1); None: whole.
    """

    copies: int = 1
    delay: float = 0.0
    held: bool = False
    flip: float | None = None

    @property
    def seconds(self) -> float:
        """How much later it is passed on, all told."""
        return self.delay + REORDER_HOLD if self.held else self.delay

    @property
    def actions(self) -> tuple[LabAction, ...]:
        """What the lab does, for counting; empty if it is passed on as it is."""
        if not self.copies:
            return (LabAction.LOST,)
        happens = {
            LabAction.DUPLICATED: self.copies > 1,
            LabAction.CORRUPTED: self.flip is not None,
            LabAction.DELAYED: self.delay > 0,
            LabAction.REORDERED: self.held,
        }
        return tuple(action for action, does in happens.items() if does)

    @property
    def words(self) -> str:
        """The same for people: `lost`, `duplicated, delayed 240 ms`, or `delivered`."""
        added = {
            LabAction.DELAYED: f" {_milliseconds(self.delay)}",
            LabAction.REORDERED: f" (held {_milliseconds(REORDER_HOLD)})",
        }
        return ", ".join(f"{each}{added.get(each, '')}" for each in self.actions) or "delivered"

    def apply(self, data: bytes) -> bytes:
        if self.flip is None or not data:
            return data
        byte, bit = divmod(int(self.flip * len(data) * 8), 8)
        flipped = bytearray(data)
        flipped[byte] ^= 1 << bit
        return bytes(flipped)


DELIVERED: Final = Fate()


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Everything that decides the fates: a seed and what is done in each direction.

    Attributes:
        seed: a whole number, 0 or more.
        request: what is done to datagrams from clients.
        reply: what is done to datagrams to clients.
        per_client: mix the client's host into the draws, so that each student has different fates.
            Not its port: that changes with every run of a program.
    """

    seed: int
    request: Impairments = _NONE
    reply: Impairments = _NONE
    per_client: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise BadValue(f"got seed {self.seed}; a whole number, 0 or more, is accepted")

    def fate(self, direction: Direction, number: int, copy: int = 0, *, host: str = "") -> Fate:
        """Return what happens to one datagram.

        Args:
            direction: which way it goes.
            number: the request's number among its client's, from 1; a reply has its request's.
            copy: 1 for the reply to the second copy of a duplicated request, else 0.
            host: the client's address without the port; counts with `per_client` only.

        Raises:
            BadValue: the experiment is `per_client` and there is no host.
        """
        does = self.request if direction is Direction.REQUEST else self.reply
        if does == _NONE:
            return DELIVERED
        draws = self._draw(direction, number, copy, host)
        loss, burst = does.loss, does.burst_loss
        if burst and self._in_burst(burst, direction, number, host):
            loss = burst.loss
        if draws.loss < loss:
            return Fate(copies=0)
        return Fate(
            copies=2 if draws.duplicate < does.duplicate else 1,
            delay=max(0.0, round(does.delay + does.jitter * (2 * draws.jitter - 1), 4)),
            held=draws.reorder < does.reorder,
            flip=draws.position if draws.corrupt < does.corrupt else None,
        )

    def _draw(self, direction: Direction, number: int, copy: int, host: str) -> Draws:
        """Return the draws of one datagram, as the module's text lays down."""
        text = f"uppercase-lab-1 {self.seed} {direction} {number} {copy}"
        if self.per_client:
            if not host:
                raise BadValue("got no client address; a per-client experiment needs one")
            text += f" {host}"
        words = _WORDS.unpack(blake2b(text.encode(errors="surrogateescape")).digest())
        return Draws._make((word >> 11) * 2.0**-53 for word in words)

    def _in_burst(self, burst: BurstLoss, direction: Direction, number: int, host: str) -> bool:
        """Tell the model's state at a datagram, without having followed it there.

        One draw moves the model, whatever its state: below `enter` it leads into a burst from both
        states, from 1 - `leave` on it leads out from both, and between it changes neither. So the
        last draw that was not between tells the state.
        """
        for step in range(number, 0, -1):
            draw = self._draw(direction, step, 0, host).burst
            if draw < burst.enter:
                return True
            if draw >= 1 - burst.leave:
                return False
        return False


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    digits = 0 if value >= 10 or math.isclose(value, round(value)) else 1
    return f"{value:.{digits}f} ms"


_ORDINALS = ("first ", "second ")


def describe(direction: Direction, fate: Fate, copy: int = 0, copies: int = 1) -> str:
    """Say what happens to a datagram: `request lost`, `second reply delayed 240 ms`.

    Replies are told apart where there are several copies of a request, which `copy` counts from 0.
    """
    return f"{_ORDINALS[copy] if copies > 1 else ''}{direction} {fate.words}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the key.

    Attributes:
        number: the datagram's number among its client's, from 1.
        request: what happens to the request.
        replies: what happens to the reply to each copy that arrives; none if the request is lost.
    """

    number: int
    request: Fate
    replies: tuple[Fate, ...]

    @property
    def events(self) -> tuple[str, ...]:
        """What the server reports for this datagram, in the order of the copies."""
        copies = len(self.replies)
        fates = [(Direction.REQUEST, self.request, 0, 1)]
        fates += [(Direction.REPLY, fate, copy, copies) for copy, fate in enumerate(self.replies)]
        return tuple(describe(*each) for each in fates if each[1].actions)

    def __str__(self) -> str:
        """Return one line, readable on a projector: `  7  request lost`."""
        parts = list(self.events)
        if parts and self.request == DELIVERED:
            parts.insert(0, describe(Direction.REQUEST, DELIVERED))
        return f"{self.number:>3}  {'; '.join(parts) or 'delivered'}"


def answer_key(experiment: Experiment, count: int, *, host: str = "") -> Iterator[Row]:
    """Return what happens to datagrams 1 to `count` of a client, one row each.

    The key takes each datagram to have at least one byte and to be answered.

    Raises:
        BadValue: the experiment is `per_client` and there is no host.
    """
    for number in range(1, count + 1):
        request = experiment.fate(Direction.REQUEST, number, host=host)
        replies = (
            experiment.fate(Direction.REPLY, number, copy, host=host)
            for copy in range(request.copies)
        )
        yield Row(number, request, tuple(replies))
