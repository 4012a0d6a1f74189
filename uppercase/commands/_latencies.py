"""Latencies summed up: percentiles by the million, and histograms for a terminal and for plots.

The percentiles are HdrHistogram's (`hdrhistogram`): fixed memory, 3 significant digits from a
microsecond to an hour. Recording into it costs 0.7 microseconds a call, so equal latencies are
gathered in a dictionary first.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from uppercase.errors import UserError, install

if TYPE_CHECKING:
    from rich.table import Table

_HOUR: Final = 3_600_000_000
_DIGITS: Final = 3
_GATHERED: Final = 100_000
"""Different latencies that are gathered before they are put into the histogram."""

_DECADE: Final = 10


class Latencies:
    """Takes latencies and gives their distribution.

    Attributes:
        counts: microseconds, and how often; hot loops write into it, and call `fold` at times.

    Raises:
        UserError: the library is not installed.
    """

    def __init__(self) -> None:
        if find_spec("hdrh") is None:
            raise UserError(f"bench needs the hdrhistogram library; install it: {install('bench')}")
        from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

        self.counts: defaultdict[int, int] = defaultdict(int)
        self._histogram: Any = HdrHistogram(1, _HOUR, _DIGITS)

    def fold(self, least: int = _GATHERED) -> None:
        """Move what has been gathered into the histogram, if it is as much as `least`."""
        if len(self.counts) >= least:
            for microseconds, times in self.counts.items():
                # Invariant: within the histogram's range, or it would drop the value silently.
                self._histogram.record_value(min(max(microseconds, 1), _HOUR), times)
            self.counts.clear()

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


class Bin(NamedTuple):
    """One bar: samples from `low` up to, but not including, `high`; the last bin includes it."""

    low: float
    high: float
    height: int


def bins(samples: Iterable[float] | Mapping[float, int], number: int = 16) -> list[Bin]:
    """Sort samples into bins.

    They are of equal width, or of equal ratio where the samples spread over more than a decade: a
    few slow replies would otherwise press all others into one bar.

    Args:
        samples: 0 or more each; or how often each occurs.
        number: of bins, at the most: equal samples need only one.

    Returns:
        Adjacent bins in ascending order; none if there are no samples.
    """
    counted = samples if isinstance(samples, Mapping) else Counter(samples)
    if not counted:
        return []
    low, high = min(counted), max(counted)
    if low == high:
        number = 1
    if low > 0 and high / low > _DECADE:
        ratio = (high / low) ** (1 / number)
        edges = [low * ratio**index for index in range(number)]
    else:
        edges = [low + (high - low) * index / number for index in range(number)]
    counts = [0] * number
    for value, times in counted.items():
        counts[bisect_right(edges, value) - 1] += times
    ends = [*edges[1:], high]
    return [Bin(*each) for each in zip(edges, ends, counts, strict=True)]


def histogram_table(samples: Iterable[float] | Mapping[float, int], title: str) -> "Table":
    """Return bars for a terminal, a row a bin; `samples` are seconds and shown in milliseconds."""
    from rich.bar import Bar
    from rich.table import Table

    rows = bins(samples)
    most = max((row.height for row in rows), default=1)
    table = Table.grid(padding=(0, 1), expand=False)
    table.title = title
    table.title_justify = "left"
    table.add_column(justify="right")
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        bar = Bar(most, 0, row.height, width=40, color="cyan")
        table.add_row(f"{row.low * 1e3:.3f} ms", bar, str(row.height))
    return table
