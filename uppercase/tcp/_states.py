"""The words that the modules of this room share: what a connection is doing, and whose it is."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final

from zope.interface import Interface

from uppercase.core.values import Client, unmapped


class State(Enum):
    """What a connection is doing."""

    # Instead of a hash by Python code: each move asks for several.
    __hash__ = object.__hash__

    OPENING = auto()
    """It is being made."""
    IDENTIFYING = auto()
    """It counts, and waits for the PROXY header that tells whose it is."""
    SERVING = auto()
    """Input is answered."""
    DRAINING = auto()
    """The service stops: what had arrived by then is answered, and no more."""
    CLOSING = auto()
    """The close ladder is at work; input is thrown away."""
    REFUSED = auto()
    """It was not let in, and is aborted."""
    CLOSED = auto()
    """It is lost."""


NEXT_STATES: Final[Mapping[State, tuple[State, ...]]] = {
    State.OPENING: (State.IDENTIFYING, State.SERVING, State.REFUSED),
    State.IDENTIFYING: (State.SERVING, State.DRAINING, State.REFUSED, State.CLOSING, State.CLOSED),
    State.SERVING: (State.DRAINING, State.CLOSING, State.CLOSED),
    State.DRAINING: (State.CLOSING, State.CLOSED),
    State.CLOSING: (State.CLOSED,),
    State.REFUSED: (State.CLOSED,),
    State.CLOSED: (),
}

# A tuple, because members of an Enum are hashed by Python code: this is asked for each chunk.
OPEN_STATES: Final = (State.SERVING, State.DRAINING, State.IDENTIFYING)


class IUnidentified(Interface):
    """A transport whose `getPeer` gives the client's address only after `identified` was called.

    Its protocol gets no input before that; what may be called on it is `TransformProtocol`'s.
    """


def client_at(address: Any) -> Client | None:
    """Return who is at one of Twisted's addresses; None for a peer of a UNIX socket."""
    host: str | None = getattr(address, "host", None)
    return None if host is None else Client(unmapped(host), address.port)


def name_of(client: Client | None) -> str:
    """Return what events call a peer; those of UNIX sockets have no address."""
    return "unix" if client is None else str(client)
