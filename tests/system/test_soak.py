"""Short bad days: what `make soak` does in full."""

from tests.system.crowds import soak_fairness, soak_pipelining
from tests.system.soak import LOOPS, Load, soak, soak_clock, soak_failing, soak_loops, soak_tls


def test_a_bad_day_leaves_nothing_behind() -> None:
    soak(Load(connects=600, mutated=600))


def test_a_bad_day_over_tls_leaves_nothing_behind() -> None:
    soak_tls(Load(connects=200, mutated=100))


def test_failing_messages_leave_nothing_behind() -> None:
    """Of many kinds those that share least; `make soak` has all."""
    kinds = [
        "malformed",
        "output too long",
        "raises over TLS",
        "cancelled",
        "raises over UDP",
    ]
    soak_failing(connections=150, kinds=kinds)


def test_a_clock_that_jumps_ends_nothing() -> None:
    soak_clock(seconds=2)


def test_flooders_leave_room_for_others() -> None:
    soak_fairness(seconds=0, flooders=40)


def test_who_pipelines_leaves_room_for_others_and_for_a_stop() -> None:
    soak_pipelining(seconds=0, peers=5, drain=0.5)


def test_loops_end() -> None:
    """Those that bring back what was sent; that the others end, the core's tests show."""
    soak_loops(seconds=0, loops_of=LOOPS[:1])
