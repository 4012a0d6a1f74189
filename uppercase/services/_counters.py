"""How often what happened: the numbers that logs and metrics are made of."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from zope.interface import implementer

from uppercase.core.events import (
    AcceptFailed,
    Closed,
    Dropped,
    Event,
    Impaired,
    IObserver,
    KernelDropped,
    Opened,
    Refused,
    SlowCall,
    TransformFailed,
    WouldDrop,
)

_KINDS: Final[Mapping[type, tuple[str, str]]] = {
    Opened: ("opened", ""),
    Closed: ("closed", "outcome"),
    AcceptFailed: ("accept-failed", "error"),
    Refused: ("refused", "reason"),
    Dropped: ("dropped", "reason"),
    WouldDrop: ("would-drop", "reason"),
    TransformFailed: ("transform-failed", "transform"),
    SlowCall: ("slow-call", "transform"),
}
"""What an event is counted as, and which of its attributes says more. Requests and replies are not
counted here: they are told only where somebody watches, and the responder counts all of them."""


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
            case KernelDropped(count=count):
                self.counts["dropped", "by-the-kernel"] += count
            case Impaired(direction=direction, actions=actions):
                for action in actions:
                    self.counts[f"lab-{direction.value}", action.value] += 1
            case _ if type(event) in _KINDS:
                kind, attribute = _KINDS[type(event)]
                self.counts[kind, str(getattr(event, attribute, ""))] += 1

    def __str__(self) -> str:
        """Return the counts as one line, such as `closed finished 3, opened 3`."""
        return ", ".join(
            f"{kind} {what} {count}".replace("  ", " ")
            for (kind, what), count in sorted(self.counts.items())
        )
