"""Round trips in numbers: minimum, mean, maximum, deviation and percentiles.

Everything is in seconds; whoever prints it chooses the unit. A round trip is never halved: the two
ways need not take equally long (RFC 2681 section 3.1).
"""

import math
from collections import deque
from collections.abc import Sequence

from uppercase.limits import PING_SAMPLES

__all__ = ["RoundTrips", "percentile"]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest sample that at least `percent` percent of the samples do not exceed.

    This is the nearest-rank definition: the result is one of the samples, never a mean of two.

    Args:
        ordered: one sample or more, in ascending order.
        percent: more than 0, up to 100.
    """
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


class RoundTrips:
    """Takes round trips one by one and sums them up at any time, in bounded memory.

    Args:
        window: how many of the latest round trips the percentiles look back on.

    Attributes:
        count: how many there were.
        minimum: the shortest.
        maximum: the longest.
        mean: their arithmetic mean.
        recent: the latest ones, in the order they came.
    """

    def __init__(self, window: int = PING_SAMPLES) -> None:
        self.count = 0
        self.minimum = math.inf
        self.maximum = 0.0
        self.mean = 0.0
        self.recent: deque[float] = deque(maxlen=window)
        self._squares = 0.0

    def record(self, seconds: float) -> None:
        """Take one round trip."""
        self.count += 1
        self.minimum = min(self.minimum, seconds)
        self.maximum = max(self.maximum, seconds)
        self.recent.append(seconds)
        # Welford's recurrence: a difference of two large sums would lose the digits that count.
        distance = seconds - self.mean
        self.mean += distance / self.count
        self._squares += distance * (seconds - self.mean)

    @property
    def mdev(self) -> float:
        """The standard deviation of the population, which ping(8) calls mdev."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0

    def percentiles(self, *percents: float) -> list[float]:
        """Return percentiles of the recent round trips; there must have been one."""
        ordered = sorted(self.recent)
        return [percentile(ordered, percent) for percent in percents]
