"""What a responder gives its shell to carry out, and what a lab makes of a datagram on its way."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from uppercase.core.events import Direction
from uppercase.core.guards import Datagram, Destination, Origin, SocketAddress
from uppercase.core.values import Client


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
