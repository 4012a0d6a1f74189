"""What shells and the core have of each other: of a TCP conversation, and of datagrams' steps."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import NamedTuple, Protocol

from uppercase.core.events import Direction, Outcome
from uppercase.core.guards import Datagram, Destination, Origin, SocketAddress
from uppercase.core.values import Client
from uppercase.errors import TransformError

Clock = Callable[[], float]

Done = Callable[["bytes | TransformError"], None]
Cancel = Callable[[], None]
AwaitReply = Callable[[Awaitable[bytes], Done], Cancel]
"""How a shell awaits: starts the awaitable, calls back once with its result, gives a cancel."""


class Conversation(Protocol):
    """What a shell sees.

    Attributes:
        outcome: how the conversation ended, once it is decided and every reply has been taken.
        error: what ended it, where something went wrong.
        wants_input: more input could be used now, and there is nothing else to do: `replies` has
            nothing until input comes or a reply that is awaited. A shell stops reading while it
            is false.
        incomplete: bytes of a message whose end has not come.
        sole: what answers a chunk as long as input is wanted, with the most bytes that it may give,
            where that is one call. Whoever makes it in the place of `exchange` hands to `settle`
            what it gives or raises that is no reply.
    """

    outcome: Outcome | None
    error: Exception | None
    wants_input: bool

    @property
    def incomplete(self) -> int: ...

    @property
    def sole(self) -> tuple[Callable[[bytes], object], int] | None: ...

    @property
    def awaiting(self) -> bool:
        """Whether a reply is still awaited: the peer has every reason to be silent."""

    def receive(self, data: bytes) -> None:
        """Take a chunk of input."""

    def exchange(self, data: bytes, until: float = inf, seconds: Clock = monotonic) -> bytes:
        """Take a chunk and return the next bytes to send, as `receive` and `replies` do.

        Only while `wants_input`: there is nothing to reply before it then, nor to decide.
        """

    def end_of_input(self) -> None:
        """Take note that the peer sends no more. May be called twice."""

    def stop(self) -> None:
        """Take note that the service ends: what was received is answered, and no more."""

    def replies(self, until: float = inf, seconds: Clock = monotonic) -> bytes:
        """Return the next bytes to send, about a batch at the most.

        Args:
            until: when the shell wants to do something else; what comes is then less.
            seconds: by which clock.

        Returns:
            The bytes; b"" if there are none now, or none yet.
        """

    def cancel(self) -> None:
        """Give up: the peer is gone."""


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

    def pass_by(self, client: Client, count: int) -> None:
        """Number so many datagrams from a client that do not go through it."""


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


class Replies(NamedTuple):
    """Replies to send now, where nothing is out of the ordinary: in columns, as a batch is.

    A record for each would cost more than all the rules.

    Attributes:
        payloads: their bytes.
        origins: where to.
        requests: what they answer.
    """

    payloads: Sequence[bytes]
    origins: Sequence[Origin]
    requests: Sequence[bytes]


def fates_of(passage: Passage | None) -> tuple[int, str]:
    """Return a passage's number and fates, as events tell them."""
    return (0, "") if passage is None else (passage.number, passage.fates)
