"""The records of a datagram's way: where it comes from, what a lab makes of it, how it ends."""

import socket
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, Protocol

from uppercase.core.events import Direction
from uppercase.core.values import Client, unmapped

SocketAddress = tuple[Any, ...]
"""What the socket module gives and takes: (host, port) or (host, port, flowinfo, scope id)."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a datagram was sent to.

    Attributes:
        host: the address in the datagram's header (RFC 1122 section 3.2.1.3: the specific
            destination); the bound address where the system does not tell.
        port: our port.
        local: the unicast address of ours that it stands for; differs for a broadcast.
        interface: the index of the interface that it came in on, 0 if not known.
        is_unicast: whether `host` is neither a broadcast nor a multicast address.
    """

    host: str
    port: int
    local: str = ""
    interface: int = 0
    is_unicast: bool = field(init=False)

    def __post_init__(self) -> None:
        local, host = self.local or self.host, unmapped(self.host)
        # Nothing tells it on an interface without an address.
        shared = host == "255.255.255.255" or ip_address(host).is_multicast
        object.__setattr__(self, "local", local)
        object.__setattr__(self, "is_unicast", local == self.host and not shared)


def client_of(source: SocketAddress) -> Client:
    """Return the canonical form of a source address."""
    host = scoped(source)
    # The socket module writes an IPv4-mapped address with dots, and no other has any.
    if len(source) > 2 and not source[3] and "." in host:
        host = unmapped(host)
    return Client(host, source[1])


def scoped(address: SocketAddress) -> str:
    """Return the host of an address, with its scope if it has one."""
    host: str = address[0]
    if len(address) < 3 or not address[3]:
        return host
    # By the interface's name, as people type it and TCP has it, while there is one.
    scope = str(address[3])
    with suppress(OSError):
        scope = socket.if_indextoname(address[3])
    return f"{host}%{scope}"


@dataclass(slots=True, eq=False)
class Origin:
    """Where datagrams come from and were sent to; one record serves all that have this in common.

    Attributes:
        source: who sent them, as the socket gave it: a reply goes back to exactly this.
        destination: where to.
        client: the source in its canonical form.
        digest: its hash.
        truncated: whether bytes are missing (MSG_TRUNC).
        is_refused: whether a rule drops whatever comes from there; None until they are asked.
        row: what the guard against lock step keeps for it.
        wire: what the port that made it keeps for a reply.
    """

    source: SocketAddress
    destination: Destination
    client: Client
    digest: int
    truncated: bool = False
    is_refused: bool | None = None
    row: Any = None
    wire: Any = None

    @classmethod
    def of(
        cls, source: SocketAddress, destination: Destination, truncated: bool = False
    ) -> "Origin":
        """Return an origin of a source address and a destination."""
        client = client_of(source)
        return cls(source, destination, client, hash(client), truncated)


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


UNTOUCHED: Final = Passage(0.0, b"", 0, 0, 1)
"""The passage of a datagram that no lab has seen and that has no number."""


class LabStage(Protocol):
    """What a responder asks of a lab; it owns no timer, so the shell holds back what is delayed."""

    def request(self, client: Client, data: bytes, number: int) -> list[Passage]:
        """Take a datagram from a client; return what the service gets of it."""

    def reply(self, client: Client, data: bytes, answered: Passage) -> list[Passage]:
        """Take the reply to a request that `request` gave; return what is sent of it."""


class Request(NamedTuple):
    """A datagram on its way through the responder."""

    data: bytes
    origin: Origin
    passage: Passage = UNTOUCHED

    @property
    def client(self) -> Client:
        return self.origin.client


class Answer(NamedTuple):
    """A reply to send now, from the address that was asked; its passage is the lab's, if any."""

    data: bytes
    request: Request
    passage: Passage = UNTOUCHED


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
    """

    payloads: Sequence[bytes]
    origins: Sequence[Origin]
    requests: Sequence[bytes]


Part = tuple[Replies, list[Step]]
"""What a responder gives of a batch at a time: replies to send, and what is to be done after."""


NUMBERED: Final = 10_000
"""Clients whose datagrams are numbered. A class of 200 with 50 sockets each fits; at some 300 bytes
an entry it is 3 MB."""

FORGET_AFTER: Final = 60.0
"""A client silent for this long starts again at datagram 1: longer than any time-out of a lab, and
short enough that a program that binds a fixed port meets the same fates a minute later."""


class Numbers:
    """Numbers the datagrams of each client, a host and a port (or `by_host`, a host), from 1.

    One that is silent for `FORGET_AFTER` seconds starts again, and so does the one that has been
    silent longest when there are more than `NUMBERED`.
    """

    def __init__(self, by_host: bool = False) -> None:
        self._by_host = by_host
        # client -> (last heard, datagrams so far); the longest silent comes first
        self._clients: OrderedDict[Client, tuple[float, int]] = OrderedDict()

    def take(self, client: Client, now: float, count: int = 1) -> int:
        """Number datagrams that have just come from a client; return the last one's number."""
        client = Client(client[0], 0) if self._by_host else client
        heard, number = self._clients.pop(client, (now, 0))
        number = number + count if now - heard < FORGET_AFTER else count
        self._clients[client] = now, number
        if len(self._clients) > NUMBERED:
            self._clients.popitem(last=False)
        return number
