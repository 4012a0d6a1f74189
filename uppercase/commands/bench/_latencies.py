"""Latencies by the million: gathered in a dictionary, summed up in an HdrHistogram.

The histogram is the library's (`hdrhistogram`): fixed memory, 3 significant digits from a
microsecond to an hour. Recording into it costs 0.7 microseconds a call, so equal latencies are
gathered first.
"""

from collections import defaultdict
from importlib.util import find_spec
from typing import Any, Final

from uppercase.errors import UserError
from uppercase.limits import BENCH_SAMPLES

__all__ = ["PERCENTILES", "Latencies"]

PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)

_HOUR: Final = 3_600_000_000
_DIGITS: Final = 3


class Latencies:
    """Takes latencies and gives their distribution.

    Attributes:
        counts: microseconds, and how often; the hot loops write into it, and call `fold` at times.

    Raises:
        UserError: the library is not installed.
    """

    def __init__(self) -> None:
        if find_spec("hdrh") is None:
            raise UserError(
                "bench needs the hdrhistogram library; install it: pip install 'uppercase[bench]'"
            )
        from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

        self.counts: defaultdict[int, int] = defaultdict(int)
        self._histogram: Any = HdrHistogram(1, _HOUR, _DIGITS)

    def fold(self, least: int = BENCH_SAMPLES) -> None:
        """Move what has been gathered into the histogram, if it is as much as `least`."""
        if len(self.counts) >= least:
            for microseconds, times in self.counts.items():
                self._histogram.record_value(min(max(microseconds, 1), _HOUR), times)
            self.counts.clear()

    def summary_ms(self) -> dict[str, float] | None:
        """Return minimum, mean, maximum and percentiles in milliseconds; None if there are none."""
        self.fold(0)
        histogram = self._histogram
        if not histogram.get_total_count():
            return None
        values = {
            "min": histogram.get_min_value(),
            "avg": histogram.get_mean_value(),
            "max": histogram.get_max_value(),
        }
        for percent in PERCENTILES:
            key = f"p{percent:g}".replace(".", "_")
            values[key] = histogram.get_value_at_percentile(percent)
        return {name: round(value / 1e3, 3) for name, value in values.items()}

    def distribution(self) -> dict[float, int]:
        """Return how often each latency, in seconds, occurred."""
        self.fold(0)
        return {
            step.value_iterated_to / 1e6: step.count_added_in_this_iter_step
            for step in self._histogram.get_recorded_iterator()
        }
