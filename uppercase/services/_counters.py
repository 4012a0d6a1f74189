"""How often what happened: the numbers that logs and metrics are made of."""

from collections import Counter

from zope.interface import implementer

from uppercase.core.events import (
    AcceptFailed,
    Closed,
    Dropped,
    Event,
    Impaired,
    IObserver,
    KernelDropped,
    Received,
    Refused,
    Replied,
    SlowCall,
    TransformFailed,
    WouldDrop,
)


@implementer(IObserver)
class Counters:
    """Counts events by kind and, where there is one, by outcome, reason or transform.

    Attributes:
        counts: keys are pairs such as ("closed", "finished"), ("dropped", "failed"),
            ("transform-failed", "caesar") and ("opened", "").
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def notify(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Closed(outcome=outcome):
                self.counts["closed", outcome.value] += 1
            case AcceptFailed(error=error):
                self.counts["accept-failed", error] += 1
            case Refused(reason=reason):
                self.counts["refused", reason.value] += 1
            case Dropped(reason=reason):
                self.counts["dropped", reason.value] += 1
            case KernelDropped(count=count):
                self.counts["dropped", "by-the-kernel"] += count
            case WouldDrop(reason=reason):
                self.counts["would-drop", reason.value] += 1
            case TransformFailed(transform=name):
                self.counts["transform-failed", name] += 1
            case SlowCall(transform=name):
                self.counts["slow-call", name] += 1
            case Impaired(direction=direction, actions=actions):
                for action in actions:
                    self.counts[f"lab-{direction.value}", action.value] += 1
            case Received() | Replied():
                pass  # told only where somebody watches; the responder counts all of them
            case _:
                self.counts[type(event).__name__.lower(), ""] += 1

    def __str__(self) -> str:
        """Return the counts as one line, such as `closed finished 3, opened 3`."""
        return ", ".join(
            f"{kind} {what} {count}".replace("  ", " ")
            for (kind, what), count in sorted(self.counts.items())
        )
