"""A histogram: samples into bins, and the bins as bars on a terminal.

Bins are of equal width, or of equal ratio where the samples spread over more than a decade: a few
slow replies would otherwise press all others into one bar.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

_DECADE: Final = 10


class Bin(NamedTuple):
    """One bar: samples from `low` up to, but not including, `high`; the last bin includes it."""

    low: float
    high: float
    height: int


def bins(samples: Iterable[float] | Mapping[float, int], number: int = 16) -> list[Bin]:
    """Sort samples into bins.

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
