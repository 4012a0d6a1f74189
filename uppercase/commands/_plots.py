"""What `--plot` draws: ping's round trips over their numbers, bench's throughput; histograms.

Drawn by matplotlib, without pyplot and so without a display. The background is white whatever shows
the file: the same colours then read well on a light page and on a dark one. Kinds are told apart by
shape as well as by colour. Import it only where a plot was asked for: matplotlib loads slowly.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uppercase.client.target import Target
from uppercase.commands._options import cannot_write
from uppercase.commands.ping import AMISS, bins
from uppercase.commands.ping._tracker import Finding, Kind, Totals

_INK, _DIM, _GRID = "#1f2328", "#59636e", "#d8dee4"
_BLUE, _RED, _BROWN, _VIOLET = "#0969da", "#cf222e", "#9a6700", "#8250df"
_RC: Final[Any] = {
    "svg.fonttype": "none",  # text stays text, for search and screen readers
    "svg.hashsalt": "uppercase",  # equal measurements give equal files
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a dollar sign in a path is no formula
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _DIM,
    "axes.edgecolor": _DIM,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "grid.color": _GRID,
    "xtick.color": _DIM,
    "ytick.color": _DIM,
    "lines.linestyle": "none",
    "lines.markerfacecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": _DIM,
}
_BINS: Final = 24
_VECTORS: Final = 5000
"""More points than this are drawn as an image, so that a file stays small however long the
measurement was."""


class Drawing(Figure):
    """A figure with a title, a description and empty panels, one below the other."""

    def __init__(self, title: str, description: str, panels: int) -> None:
        height = 1.0 + 2.6 * panels
        super().__init__(figsize=(8, height), facecolor="white")
        self.title, self.description = _printable(title), _printable(description)
        self.panels: list[Axes] = list(self.subplots(panels, squeeze=False)[:, 0])
        self.subplots_adjust(
            left=0.1, right=0.98, top=1 - 1.05 / height, bottom=0.5 / height, hspace=0.5
        )
        self.text(0.02, 1 - 0.33 / height, self.title, fontsize=13, fontweight="bold")
        self.text(0.02, 1 - 0.58 / height, self.description, color=_DIM)

    @matplotlib.rc_context(_RC)
    def save(self, path: Path) -> None:
        """Write an SVG, PNG or PDF, by the ending of the name."""
        kind = path.suffix[1:].lower()
        # The time of writing would make equal drawings differ.
        by_kind: dict[str, dict[str, Any]] = {
            "svg": {"Title": self.title, "Description": self.description, "Date": None},
            "png": {"Title": self.title, "Description": self.description},
            "pdf": {"Title": self.title, "Subject": self.description, "CreationDate": None},
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about letters of a name that no font has
            try:
                self.savefig(path, format=kind, dpi=150, metadata=by_kind[kind])
            except OSError as error:
                raise cannot_write(path, error) from error


@matplotlib.rc_context(_RC)
def ping_plot(target: Target, found: Iterable[Finding], totals: Totals) -> Drawing:
    """Draw the round trips over the probes' numbers, what went wrong, and a histogram."""
    numbers: dict[Kind, set[int]] = {kind: set() for kind in Kind}
    on_time, reordered = [], []
    for each in found:
        if each.seq is None:
            continue
        numbers[each.kind].add(each.seq)
        if each.kind is Kind.REPLY:
            on_time.append((each.seq, (each.rtt or 0) * 1e3))
            if each.reordered:
                reordered.append(on_time[-1])
    # A probe that was answered after all is not lost, though it was reported as such in its time.
    numbers[Kind.LOST] -= numbers[Kind.LATE] | numbers[Kind.WRONG]
    counted = ("transmitted", "received", *AMISS)
    description = ", ".join(f"{getattr(totals, name)} {name}" for name in counted)
    drawing = Drawing(f"ping {target}", description, 1 + bool(totals.rtt.count))
    axes, *below = drawing.panels
    _label(axes, "Round trips", "probe (seq)", "RTT in ms")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _points(axes, on_time, "reply", _BLUE, ".", markerfacecolor=_BLUE)
    _points(axes, reordered, "reordered", _VIOLET, "o", markersize=7)
    # Above the highest point, so that no point is under a mark.
    axes.set_ylim(0, max((rtt for _, rtt in on_time), default=1.0) * 1.15)
    for kind, colour, shape in (
        (Kind.DUPLICATE, _BLUE, "D"),
        (Kind.LATE, _BROWN, "^"),
        (Kind.WRONG, "black", "s"),
        (Kind.LOST, _RED, "x"),
    ):
        marks = [(number, 0.96) for number in sorted(numbers[kind])]
        upper_edge = axes.get_xaxis_transform()
        _points(axes, marks, kind.value, colour, shape, transform=upper_edge)
    if len(axes.lines) > 1:  # the axes say what a single one is
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=6, handletextpad=0)
    if below:
        _histogram(below[0], totals.rtt.recent, "RTT in ms")
    return drawing


@matplotlib.rc_context(_RC)
def bench_plot(
    title: str,
    description: str,
    rates: Sequence[tuple[float, float]],
    latencies: Mapping[float, int],
    losses: str = "",
    percentiles: str = "",
) -> Drawing:
    """Draw the throughput over time, and a histogram of how often each latency (in s) occurred.

    The rates are ends of intervals, in seconds since the start, and messages a second in each.
    """
    drawing = Drawing(title, description, 1 + bool(latencies))
    axes, *below = drawing.panels
    _label(axes, "Throughput", "time in s", "messages/s")
    axes.set_title(losses, loc="right", color=_DIM, fontsize=9)
    if rates:
        ends, heights = zip(*rates, strict=True)
        axes.stairs(heights, [0.0, *ends], color=_BLUE, linewidth=1.5, baseline=None)
        axes.set_ylim(0, max(heights) * 1.05 or 1.0)
    if below:
        _histogram(below[0], latencies, "latency in ms")
        below[0].set_title(percentiles, loc="right", color=_DIM, fontsize=9)
    return drawing


def _printable(text: str) -> str:
    """Return the text without what an XML file must not hold: names come from outside."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _label(axes: Axes, title: str, x_title: str, y_title: str) -> None:
    axes.set(title=title, xlabel=x_title, ylabel=y_title)


def _points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    label: str,
    colour: str,
    shape: str,
    **style: Any,
) -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(
            x, y, shape, color=colour, label=label, rasterized=len(points) > _VECTORS, **style
        )


def _histogram(axes: Axes, samples: Iterable[float] | Mapping[float, int], x_title: str) -> None:
    counted = samples if isinstance(samples, Mapping) else Counter(samples)
    # Few samples in many bins would be a comb.
    number = min(_BINS, 2 * math.isqrt(sum(counted.values())) + 1)
    bars = bins(counted, number)
    edges = [each.low * 1e3 for each in bars] + [bars[-1].high * 1e3]
    _label(axes, "Histogram", x_title, "replies")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    # Bins of equal ratio look equally wide: the axis shows the edges, it is no scale of its own.
    axes.bar(
        range(len(bars)), [each.height for each in bars], align="edge", width=0.95, color=_BLUE
    )
    axes.set_xticks(range(0, len(edges), 3), [f"{edge:.3g}" for edge in edges[::3]])
