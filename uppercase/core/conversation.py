"""What a shell sees of a TCP conversation, whatever its framing."""

from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Protocol

from uppercase.core.events import Outcome
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
