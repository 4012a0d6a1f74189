"""The bounds of the lab, which impairs datagrams on purpose."""

from typing import Final

from uppercase.limits.shared import KIB, MIB

__all__ = [
    "LAB_CLIENTS",
    "LAB_FORGET",
    "LAB_HELD_BYTES",
    "LAB_HELD_COST",
    "LAB_MAX_DELAY",
    "LAB_MIN_BURST_CHANGE",
    "LAB_REORDER_HOLD",
    "LAB_SEEDS",
]

LAB_CLIENTS: Final = 10_000
"""Clients whose datagrams the lab counts. A class of 200 with 50 sockets each fits; at some 300
bytes an entry it is 3 MB. The client that has been silent longest is forgotten first."""

LAB_FORGET: Final = 60.0
"""A client silent for this long starts again at datagram 1: longer than any time-out of a lab, and
short enough that a program that binds a fixed port meets the same fates a minute later."""

LAB_MAX_DELAY: Final = 60.0
"""The longest delay and the widest jitter of the lab: what is delayed is held in memory."""

LAB_HELD_BYTES: Final = 16 * MIB
"""What the lab holds back at one time, over all clients; more is dropped and reported. It is
16,000 small datagrams: 200 students may have 80 each under way."""

LAB_HELD_COST: Final = 1 * KIB
"""What holding one datagram costs besides its bytes: the timer, the addresses, the records."""

LAB_REORDER_HOLD: Final = 0.25
"""How long a reordered datagram is held. A client with several under way sends the next one within
milliseconds, so that it overtakes; labs time out after a second, so that it is not taken for
lost."""

LAB_MIN_BURST_CHANGE: Final = 0.01
"""The least sum of a burst's two transition probabilities. The state is found by looking back over
1 / sum datagrams on average: 100 hashes, 0.3 ms."""

LAB_SEEDS: Final = 1_000_000
"""Random seeds are below this: six digits can be read from a projector and typed."""
