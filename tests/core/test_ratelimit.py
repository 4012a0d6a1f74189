"""Token buckets: what an address and its network may send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uppercase.core.guards import (
    RATE_PREFIX_FACTOR,
    RATE_TABLE,
    RateLimit,
    TokenBuckets,
)

ADDRESS = "192.0.2.7"


def allowed(limit: RateLimit, host: str, count: int, now: float = 0.0) -> int:
    return sum(limit.allow(host, now) for _ in range(count))


def test_a_burst_passes_and_then_the_rate() -> None:
    limit = RateLimit(rate=10, burst=25)
    assert allowed(limit, ADDRESS, 100, now=0.0) == 25
    assert allowed(limit, ADDRESS, 100, now=1.0) == 10
    assert allowed(limit, ADDRESS, 100, now=1.05) == 0
    assert allowed(limit, ADDRESS, 100, now=100.0) == 25


def test_without_a_burst_two_seconds_worth_may_come_at_once() -> None:
    assert allowed(RateLimit(rate=10), ADDRESS, 100) == 20


def test_a_rate_below_one_still_lets_single_datagrams_through() -> None:
    limit = RateLimit(rate=0.1)
    assert [allowed(limit, ADDRESS, 5, now=now) for now in (0.0, 5.0, 10.0)] == [1, 0, 1]


def test_addresses_have_buckets_of_their_own() -> None:
    limit = RateLimit(rate=1, burst=5)
    assert [allowed(limit, f"192.0.2.{last}", 9) for last in (7, 8)] == [5, 5]


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        ("2001:db8:0:100::1", "2001:db8:0:1ff:ffff::9", True),
        ("2001:db8:0:100::1", "2001:db8:0:200::1", False),
        ("fe80::1%2", "fe80::2%2", True),
    ],
)
def test_an_ipv6_customer_has_one_bucket_for_a_56(one: str, other: str, is_shared: bool) -> None:
    limit = RateLimit(rate=1, burst=5)
    assert allowed(limit, one, 9) == 5
    assert allowed(limit, other, 9) == (0 if is_shared else 5)


@pytest.mark.parametrize(
    ("network", "elsewhere"),
    [("192.0.2.{}", "192.0.3.1"), ("2001:db8:0:{:x}00::1", "2001:db8:1::1")],
)
def test_a_network_may_send_32_times_what_an_address_may(network: str, elsewhere: str) -> None:
    limit = RateLimit(rate=1, burst=5)
    total = sum(allowed(limit, network.format(number), 5) for number in range(1, 200))
    assert total == 5 * RATE_PREFIX_FACTOR
    assert allowed(limit, elsewhere, 9) == 5


def test_what_is_refused_costs_nothing() -> None:
    """A flood of one address does not use up its network's share."""
    limit = RateLimit(rate=1, burst=5)
    assert allowed(limit, ADDRESS, 10_000) == 5
    assert allowed(limit, "192.0.2.8", 5) == 5


def test_the_longest_unheard_address_is_forgotten() -> None:
    buckets = TokenBuckets(rate=1, burst=5, size=3)
    for key in (1, 2, 3, 1, 4):
        buckets.take(key, buckets.level(key, 0.0), 0.0)
    assert len(buckets._buckets) == 3
    assert [buckets.level(key, 0.0) for key in (1, 2, 3, 4)] == [3, 5, 4, 4]


def test_the_table_is_bounded_under_forged_addresses() -> None:
    buckets = TokenBuckets(rate=1, burst=5)
    for number in range(2 * RATE_TABLE):
        buckets.take(number, 5, 0.0)
    assert len(buckets._buckets) == RATE_TABLE


@given(
    st.floats(0.1, 100),
    st.floats(1, 100),
    st.lists(st.floats(0, 2, allow_nan=False), max_size=200),
)
def test_never_more_than_the_burst_and_the_rate_pass(
    rate: float, burst: float, gaps: list[float]
) -> None:
    limit = RateLimit(rate, burst)
    now = passed = 0.0
    for gap in gaps:
        now += gap
        passed += limit.allow(ADDRESS, now)
        assert passed <= burst + rate * now + 1e-6
