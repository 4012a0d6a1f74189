"""What the services in memory share: a chain, a record of events, a clock that a test turns."""

from collections.abc import Iterable, Sequence

from twisted.internet.task import Clock
from zope.interface import implementer

from uppercase.core.events import Event, IObserver, SlowCall, TransformFailed
from uppercase.core.pipeline import MessagePipeline, Stage, make_pipeline
from uppercase.errors import TransformError
from uppercase.limits import DEFAULT_PORT
from uppercase.testing.subject import maker

__all__ = ["CLIENT", "SERVER", "Recorder", "advance", "first_error", "make_chain"]

# RFC 5737 gives these addresses to examples.
CLIENT = ("192.0.2.1", 49152)
SERVER = ("192.0.2.2", DEFAULT_PORT)


def make_chain(
    transforms: Sequence[object], max_output: int, events: list[Event]
) -> MessagePipeline:
    """Chain transforms, `uppercase` where there are none; slow calls go to the events."""
    return make_pipeline(
        [Stage(_name(target), maker(target)()) for target in transforms or ("uppercase",)],
        max_output,
        lambda name, seconds: events.append(SlowCall(name, seconds)),
    )


def _name(target: object) -> str:
    """Return what errors call a transform."""
    if isinstance(target, str):
        return target
    return str(getattr(target, "name", None) or getattr(target, "__name__", repr(target)))


@implementer(IObserver)
class Recorder:
    """Appends what it is told to a list."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def notify(self, event: Event) -> None:
        """Take note."""
        self._events.append(event)


def first_error(events: Iterable[Event]) -> TransformError | None:
    """Return what the first transform that failed failed with."""
    failed = (event.error for event in events if isinstance(event, TransformFailed))
    error = next(failed, None)
    return error if isinstance(error, TransformError) else None


def advance(clock: Clock, seconds: float) -> None:
    """Let time pass, from one thing that is planned to the next."""
    end = clock.seconds() + seconds
    while planned := [call.getTime() for call in clock.getDelayedCalls() if call.getTime() <= end]:
        clock.advance(max(0.0, min(planned) - clock.seconds()))
    clock.advance(end - clock.seconds())
