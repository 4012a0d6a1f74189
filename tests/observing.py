"""What tests of every room look on with: an observer that keeps what it is told, and a clock."""

from zope.interface import implementer

from uppercase.core.events import Event, IObserver


@implementer(IObserver)
class Notebook:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
