"""The lab: loses, duplicates, reorders, corrupts and delays datagrams on purpose, reproducibly.

What happens to a datagram is a function of the seed, the direction and the datagram's number; see
`uppercase.lab._fates`. No socket, no timer, no shared random generator: a UDP port asks a `Lab`
what to pass on and when, and `answer_key` says the same beforehand.
"""

from uppercase.lab._fates import BurstLoss, Experiment, Fate, Impairments
from uppercase.lab._key import Row, answer_key
from uppercase.lab._options import (
    OPTIONS,
    PRESETS,
    Preset,
    command_line,
    make_experiment,
    merge_settings,
    new_seed,
)
from uppercase.lab._stage import Lab

__all__ = [
    "OPTIONS",
    "PRESETS",
    "BurstLoss",
    "Experiment",
    "Fate",
    "Impairments",
    "Lab",
    "Preset",
    "Row",
    "answer_key",
    "command_line",
    "make_experiment",
    "merge_settings",
    "new_seed",
]
