"""What happened, as frozen records, and who is told.

The shells (TCP, UDP) report events to an observer; counters, logs and metrics are observers. An
event carries facts and no prose; its `peer` is the client's address, as printed. Where there is no
observer, an event is not even made. Its class is its kind. As dataclasses they would take ten
milliseconds of each start.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from re import sub
from typing import NamedTuple

from zope.interface import Interface

from uppercase.errors import TransformError


class Outcome(StrEnum):
    """How a TCP conversation ended, in one word."""

    FINISHED = "finished"
    """The peer ended its input and was sent all it was owed."""
    ANSWERED = "answered"
    """The framing gives one reply per connection, and it was sent."""
    DISCONNECTED = "disconnected"
    """The peer went away before it had everything."""
    TOO_LONG = "too-long"
    """A message was over the limit."""
    MALFORMED = "malformed"
    """The peer's bytes did not follow the framing."""
    FAILED = "failed"
    """The transform failed, its output was over the limit, or there was no memory."""
    HANDSHAKE = "handshake"
    """TLS was not agreed on: the peer speaks something else, too old a version, or nothing."""
    PROXY_HEADER = "proxy-header"
    """A declared proxy sent no PROXY header, or a malformed one."""
    STALLED = "stalled"
    """The peer took no byte of what it was owed for the send time-out, or never closed."""
    STOPPED = "stopped"
    """The service was stopped."""
    IDLE = "idle"
    """Nothing was sent or taken for the idle time-out."""
    LAB_RESET = "lab-reset"
    """The lab reset the connection."""
    EVICTED = "evicted"
    """It was idle and made room for a newcomer when all connections were taken."""


class RefusalReason(StrEnum):
    """Why a connection was not served."""

    FULL = "full"
    """As many connections as may be were open, and none was idle."""
    ADDRESS_FULL = "address-full"
    """Its address had as many as one address may have."""
    PRESSURE = "pressure"
    """Few were left, and its address alone had most of them."""
    UNDECLARED = "undeclared"
    """The peer is not one of the declared proxies, and only those are served."""


class DropReason(StrEnum):
    """Why a datagram got no reply."""

    TRUNCATED = "truncated"
    """It was longer than the buffer; what is left of it is not what was sent."""
    SOURCE_PORT_ZERO = "source-port-zero"
    """RFC 768: a source port of 0 means that no reply is wanted."""
    NOT_UNICAST = "not-unicast"
    """It was sent to a broadcast or multicast address, or from none."""
    OWN_PORT = "own-port"
    """It came from a server on our own port, or from ourselves."""
    LOW_PORT = "low-port"
    """It came from the port of a well-known service, which would answer our answer."""
    REQUEST_TOO_LARGE = "request-too-large"
    """It is over the limit for requests."""
    OVER_RATE = "over-rate"
    """Its address or network sends more than the rate allows."""
    LOOP = "loop"
    """Our own reply came back over and over."""
    OVERLOADED = "overloaded"
    """Too many replies are awaited already."""
    FAILED = "failed"
    """The transform failed, or its output was over the limit."""
    AMPLIFICATION = "amplification"
    """The reply would be too large for its request."""
    REPLY_TOO_LARGE = "reply-too-large"
    """The reply would not fit into one datagram of the address family."""
    SEND_ERROR = "send-error"
    """The system refused to send the reply."""
    STOPPED = "stopped"
    """The service was stopped before the reply was ready."""
    LAB_FULL = "lab-full"
    """The lab would have had to hold back more than it may."""


class Direction(StrEnum):
    """Which way a datagram goes."""

    REQUEST = "request"
    """From the client to the service."""
    REPLY = "reply"
    """From the service to the client."""


class LabAction(StrEnum):
    """What the lab did on purpose to a datagram or a connection; counted apart from all else."""

    LOST = "lost"
    """It was not passed on."""
    DUPLICATED = "duplicated"
    """It was passed on twice."""
    CORRUPTED = "corrupted"
    """One bit of it was flipped."""
    DELAYED = "delayed"
    """It was passed on later."""
    REORDERED = "reordered"
    """It was held so that later ones overtake it."""
    SLICED = "sliced"
    """A reply over TCP was sent in pieces."""
    RESET = "reset"
    """A TCP connection was reset."""
    ACCEPTED_LATE = "accepted-late"
    """A TCP connection was not served for a while."""


class Opened(NamedTuple):
    """A TCP connection was accepted."""

    peer: str


class AcceptFailed(NamedTuple):
    """The system had no descriptor or memory for a new connection, which waits.

    Attributes:
        error: the system's name of it, such as `EMFILE`.
        detail: what it says.
    """

    error: str
    detail: str


class Refused(NamedTuple):
    """A TCP connection was not served; it has no `Opened` and no `Closed`.

    Its `detail` is the bound that was reached, with the option that sets it.
    """

    peer: str
    reason: RefusalReason
    detail: str


class Incomplete(NamedTuple):
    """A TCP peer has sent `held` bytes of a message and waits, perhaps for a reply."""

    peer: str
    held: int


class Closed(NamedTuple):
    """A TCP connection ended.

    Attributes:
        detail: one sentence where the outcome alone does not say enough, else "".
        received: bytes that came in.
        sent: bytes that were handed to the transport.
    """

    peer: str
    outcome: Outcome
    detail: str
    received: int
    sent: int


class Received(NamedTuple):
    """A datagram arrived; with a lab it has a number among its client's, from 1."""

    peer: str
    data: bytes
    number: int = 0


class Replied(NamedTuple):
    """A datagram was answered.

    Attributes:
        data: the reply's payload.
        request: the payload that it answers.
        number: with a lab, the request's number among this client's, from 1; else 0.
        fates: what the lab did to request and reply, in the answer key's words; "" if nothing.
    """

    peer: str
    data: bytes
    request: bytes = b""
    number: int = 0
    fates: str = ""


class Several(NamedTuple):
    """Datagrams that came, or were answered, and of which nobody wanted to be told one by one.

    Its `counts` say how many, by the client's address.
    """

    direction: Direction
    counts: Mapping[str, int]


class Dropped(NamedTuple):
    """A datagram got no reply; `number` and `fates` are as a `Replied` has them, so far.

    Attributes:
        detail: what the reason alone does not say, else "".
        request: the payload that is not answered.
    """

    peer: str
    reason: DropReason
    detail: str = ""
    request: bytes = b""
    number: int = 0
    fates: str = ""


class Impaired(NamedTuple):
    """The lab did something to a datagram or a connection on purpose.

    Attributes:
        direction: which way the data was going.
        number: the request's number among this client's, from 1; a reply has its request's. Over
            TCP, that of a write of replies on its connection; 0 for the connection itself.
        actions: what was done; never empty.
        fate: the same in the answer key's words, such as `request lost`.
        data: a datagram's payload; none over TCP.
        fates: a datagram's fates so far, such as `request delivered; reply lost`; "" over TCP.
        delay: seconds that a datagram is held back.
    """

    peer: str
    direction: Direction
    number: int
    actions: tuple[LabAction, ...]
    fate: str
    data: bytes = b""
    fates: str = ""
    delay: float = 0.0


class Chunk(NamedTuple):
    """Bytes came in, or were handed to the transport; told only where somebody watches each."""

    peer: str
    direction: Direction
    data: bytes


class HalfClosed(NamedTuple):
    """A TCP peer has ended its side; told only where somebody watches each chunk."""

    peer: str


class TransformFailed(NamedTuple):
    """A transform failed on one message; the error has its own exception as `__cause__`."""

    transform: str
    error: TransformError


class SlowCall(NamedTuple):
    """A call of a transform blocked the reactor for this many seconds."""

    transform: str
    seconds: float


class WouldDrop(NamedTuple):
    """A datagram is answered that would be dropped if its rule were not on a dry run."""

    peer: str
    reason: DropReason


class KernelDropped(NamedTuple):
    """The system dropped this many datagrams since it was last asked.

    They came faster than they were read, or damaged; `address` is where they were sent to.
    """

    address: str
    count: int  # type: ignore[assignment] # a tuple's method, which nobody calls


Event = (
    Opened
    | AcceptFailed
    | Refused
    | Incomplete
    | Closed
    | Received
    | Replied
    | Several
    | Dropped
    | WouldDrop
    | KernelDropped
    | Impaired
    | Chunk
    | HalfClosed
    | TransformFailed
    | SlowCall
)


@cache
def word_of(name: str) -> str:
    """Return what logs and counters call events by their class's name: `would-drop`."""
    return sub(r"\B([A-Z])", r"-\1", name).lower()


class IObserver(Interface):
    """What is told of events."""

    def notify(event: Event) -> None:
        """Hear of one event; must be quick and must not raise."""


class ISampler(IObserver):
    """An observer that wants to know of only some of the datagrams, where there are many."""

    def wants(count: int) -> bool:
        """Whether to be told of each of this many; else a `Several` tells of them together."""
