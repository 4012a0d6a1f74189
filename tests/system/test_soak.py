"""A short bad day: what `make soak` does in full."""

from tests.system.soak import Load, soak


def test_a_bad_day_leaves_nothing_behind() -> None:
    soak(Load(connects=2_000, mutated=2_000))
