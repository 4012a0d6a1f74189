"""A short bad day: what `make soak` does in full."""

from tests.system.soak import Load, soak, soak_tls


def test_a_bad_day_leaves_nothing_behind() -> None:
    soak(Load(connects=2_000, mutated=2_000))


def test_a_bad_day_over_tls_leaves_nothing_behind() -> None:
    soak_tls(Load(connects=200, mutated=100))
