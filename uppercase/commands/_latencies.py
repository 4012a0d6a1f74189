"""Latencies and round trips, summed up in an HdrHistogram.

The histogram is the library's (`hdrhistogram`): fixed memory, 3 significant digits from a
microsecond to an hour. Recording into it costs 0.7 microseconds a call, so equal latencies are
gathered in a dictionary first.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

_HOUR: Final = 3_600_000_000
_DIGITS: Final = 3
_GATHERED: Final = 100_000
"""Different latencies that are gathered before they are put into the histogram."""


class Latencies:
    """Takes latencies and gives their distribution.

    Attributes:
        counts: microseconds, and how often; hot loops write into it, and call `fold` at times.
    """

    def __init__(self) -> None:
        # Imported late: the library takes as long to load as a page of help.
        from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

        self.counts: defaultdict[int, int] = defaultdict(int)
        self._histogram: Any = HdrHistogram(1, _HOUR, _DIGITS)

    def record(self, seconds: float) -> None:
        """Take one latency."""
        self.counts[int(seconds * 1e6)] += 1

    def fold(self, least: int = _GATHERED) -> None:
        """Move what has been gathered into the histogram, if it is as much as `least`."""
        if len(self.counts) >= least:
            for microseconds, times in self.counts.items():
                # Invariant: within the histogram's range, or it would drop the value silently.
                self._histogram.record_value(min(max(microseconds, 1), _HOUR), times)
            self.counts.clear()

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Return for each percentage the seconds that so many of the latencies do not exceed."""
        self.fold(0)
        return [self._histogram.get_value_at_percentile(percent) / 1e6 for percent in percents]

    def summary_ms(self, percents: Sequence[float]) -> dict[str, float] | None:
        """Return minimum, mean, maximum and percentiles in milliseconds; None if there are none."""
        self.fold(0)
        if not self._histogram.get_total_count():
            return None
        values = {
            "min": self._histogram.get_min_value(),
            "avg": self._histogram.get_mean_value(),
            "max": self._histogram.get_max_value(),
        }
        for percent in percents:
            key = f"p{percent:g}".replace(".", "_")
            values[key] = self._histogram.get_value_at_percentile(percent)
        return {name: round(value / 1e3, 3) for name, value in values.items()}

    def distribution(self) -> dict[float, int]:
        """Return how often each latency, in seconds, occurred."""
        self.fold(0)
        return {
            step.value_iterated_to / 1e6: step.count_added_in_this_iter_step
            for step in self._histogram.get_recorded_iterator()
        }
