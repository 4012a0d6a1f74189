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
    Incomplete,
    IObserver,
    KernelDropped,
    Opened,
    Refused,
    SlowCall,
    TransformFailed,
    WouldDrop,
    word_of_name,
)

_SAYS_MORE: Final[Mapping[type[Event], tuple[str, str]]] = {
    kind: (word_of_name(kind.__name__), attribute)
    for kind, attribute in (
        (Opened, ""),
        (Closed, "outcome"),
        (AcceptFailed, "error"),
        (Refused, "reason"),
        (Incomplete, ""),
        (Dropped, "reason"),
        (WouldDrop, "reason"),
        (TransformFailed, "transform"),
        (SlowCall, "transform"),
    )
}
"""What is counted: by which word, and which attribute says more of it. Requests and replies are not
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
        # First what each connection has: patterns are tried one after the other.
        if known := _SAYS_MORE.get(type(event)):
            word, attribute = known
            self.counts[word, str(getattr(event, attribute)) if attribute else ""] += 1
            return
        match event:
            case KernelDropped(count=count):
                self.counts["dropped", "by-the-kernel"] += count
            case Impaired(direction=direction, actions=actions):
                for action in actions:
                    self.counts[f"lab-{direction.value}", action.value] += 1

    def by_name(self) -> dict[str, int]:
        """Return the counts by names such as `closed finished` and `opened`."""
        return {" ".join(filter(None, key)): self.counts[key] for key in sorted(self.counts)}
