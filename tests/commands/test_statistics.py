"""Numbers about round trips: what ping prints in its last lines."""

import statistics
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uppercase.commands._report import bins
from uppercase.commands.bench._plan import Latencies
from uppercase.commands.ping._tracker import RoundTrips

PERCENTILES = (50.0, 99.0, 99.9)

samples = st.lists(st.floats(min_value=1e-6, max_value=100.0), min_size=1, max_size=200)


def trips(values: Iterable[float], window: int = 1000) -> RoundTrips:
    made = RoundTrips(window)
    for value in values:
        made.record(value)
    return made


@given(samples, st.floats(min_value=0.1, max_value=100.0))
def test_a_percentile_is_the_least_sample_that_enough_samples_do_not_exceed(
    values: list[float], percent: float
) -> None:
    (result,) = trips(values).percentiles(percent)
    assert result in values
    assert sum(value <= result for value in values) >= len(values) * percent / 100 - 1e-9
    below = [value for value in values if value < result]
    assert len(below) < len(values) * percent / 100 + 1e-9


@pytest.mark.parametrize(("percent", "expected"), [(50, 5), (95, 10), (99, 10), (10, 1), (11, 2)])
def test_percentiles_of_one_to_ten(percent: float, expected: float) -> None:
    assert trips(range(1, 11)).percentiles(percent) == [expected]


@given(samples)
def test_mean_and_mdev_are_those_of_the_population(values: list[float]) -> None:
    rtt = trips(values)
    assert rtt.count == len(values)
    assert (rtt.minimum, rtt.maximum) == (min(values), max(values))
    assert rtt.mean == pytest.approx(statistics.fmean(values))
    assert rtt.mdev == pytest.approx(statistics.pstdev(values), abs=1e-9)


def test_mdev_keeps_its_digits_when_round_trips_are_nearly_equal() -> None:
    rtt = trips((1e6, 1e6 + 1e-3) * 1000)
    assert rtt.mdev == pytest.approx(5e-4, rel=1e-3)


def test_percentiles_look_back_on_a_bounded_number_of_round_trips() -> None:
    rtt = trips(map(float, range(1000)), window=100)
    assert rtt.percentiles(1, 100) == [900.0, 999.0]
    assert (rtt.count, rtt.minimum) == (1000, 0.0)


@given(samples, st.integers(min_value=1, max_value=40))
def test_every_sample_is_in_one_bin(values: list[float], number: int) -> None:
    edges, heights = bins(Counter(values), number)
    assert sum(heights) == len(values)
    assert (edges[0], edges[-1]) == (min(values), max(values))
    assert edges == sorted(edges)
    assert len(edges) == len(heights) + 1


def test_samples_over_more_than_a_decade_are_sorted_by_ratio() -> None:
    edges, _ = bins(Counter([0.001, 0.01, 0.1, 1.0]), 3)
    assert [round(high / low) for low, high in pairwise(edges)] == [10, 10, 10]


def test_equal_samples_need_one_bin() -> None:
    assert bins({2.0: 2}) == ([2.0, 2.0], [2])


def test_latencies_are_summed_up_in_milliseconds_with_three_digits() -> None:
    latencies = Latencies()
    for microseconds in range(1, 10_001):
        latencies.counts[microseconds] += 1
    summary = latencies.summary_ms(PERCENTILES)
    assert summary is not None
    assert summary["min"] == 0.001
    assert summary["p50"] == pytest.approx(5.0, rel=2e-3)
    assert summary["p99_9"] == pytest.approx(9.99, rel=2e-3)
    assert summary["max"] == pytest.approx(10.0, rel=2e-3)
    assert sum(latencies.distribution().values()) == 10_000


def test_latencies_gathered_in_between_are_not_counted_twice() -> None:
    latencies = Latencies()
    latencies.counts[100] += 3
    latencies.fold(least=1)
    assert not latencies.counts
    latencies.counts[100] += 4
    assert sum(latencies.distribution().values()) == 7
    assert Latencies().summary_ms(PERCENTILES) is None
