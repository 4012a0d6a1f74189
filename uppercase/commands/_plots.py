"""What `--plot` draws: ping's round trips over their numbers, bench's throughput; histograms."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from uppercase.client.target import Target
from uppercase.commands._histogram import bins
from uppercase.commands._svg_plot import Bars, Layer, Line, Marks, Panel, Points, draw
from uppercase.commands.ping._tracker import Finding, Kind, Totals

__all__ = ["bench_plot", "ping_plot"]

_BINS: Final = 24


def ping_plot(target: Target, found: Iterable[Finding], totals: Totals) -> str:
    """Draw the round trips over the probes' numbers, what went wrong, and a histogram."""
    found = list(found)
    on_time = [(each.seq or 0, (each.rtt or 0) * 1e3) for each in _of(found, Kind.REPLY)]
    reordered = [
        (each.seq or 0, (each.rtt or 0) * 1e3) for each in _of(found, Kind.REPLY) if each.reordered
    ]
    late = [each.seq or 0 for each in _of(found, Kind.LATE)]
    wrong = [each.seq for each in _of(found, Kind.WRONG) if each.seq is not None]
    # A probe that was answered after all is not lost, though it was reported as such in its time.
    lost = [each.seq or 0 for each in _of(found, Kind.LOST)]
    lost = sorted(set(lost) - set(late) - set(wrong))
    layers: list[Layer] = [Points(on_time, "reply")]
    if reordered:
        layers.append(Points(reordered, "reordered", "d", "ring"))
    for numbers, label, colour, shape in (
        (late, "late", "c", "triangle"),
        (wrong, "wrong", "d", "square"),
        (lost, "lost", "b", "cross"),
    ):
        if numbers:
            layers.append(Marks(numbers, label, colour, shape))
    subtitle = (
        f"{totals.transmitted} transmitted, {totals.received} received, {totals.lost} lost, "
        f"{totals.late} late, {totals.duplicates} duplicates, {totals.reordered} reordered, "
        f"{totals.wrong} wrong"
    )
    panels = [Panel("Round trips", "probe (seq)", "RTT in ms", layers)]
    if totals.rtt.count:
        panels.append(_histogram(totals.rtt.recent, "RTT in ms"))
    return draw(f"ping {target}", subtitle, panels)


def bench_plot(
    title: str,
    subtitle: str,
    rates: Sequence[tuple[float, float]],
    latencies: Mapping[float, int],
) -> str:
    """Draw the throughput over time and a histogram of the latencies.

    Args:
        title: what was measured.
        subtitle: the result in a line.
        rates: ends of intervals in seconds since the start, and messages a second in each.
        latencies: seconds, and how often each occurred.
    """
    starts = [0.0, *(end for end, _ in rates)]
    steps = [
        (time, rate)
        for start, (end, rate) in zip(starts, rates, strict=False)
        for time in (start, end)
    ]
    panels = [Panel("Throughput", "time in s", "messages/s", [Line(steps, "answered")])]
    if latencies:
        panels.append(_histogram(latencies, "latency in ms"))
    return draw(title, subtitle, panels)


def _of(found: Iterable[Finding], kind: Kind) -> list[Finding]:
    return [each for each in found if each.kind is kind]


def _histogram(samples: Iterable[float] | Mapping[float, int], x_title: str) -> Panel:
    counted = samples if isinstance(samples, Mapping) else Counter(samples)
    # Few samples in many bins would be a comb.
    sorted_in = bins(counted, min(_BINS, 2 * math.isqrt(sum(counted.values())) + 1))
    edges = [each.low for each in sorted_in] + [sorted_in[-1].high]
    labels = [(index, f"{edge * 1e3:.3g}") for index, edge in enumerate(edges) if index % 3 == 0]
    heights = [each.height for each in sorted_in]
    return Panel("Histogram", x_title, "replies", [Bars(heights, "replies")], labels, 180)
