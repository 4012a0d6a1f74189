"""The lab: what networks do to programs, done on purpose and reproducibly.

Over UDP it loses, duplicates, reorders, corrupts and delays datagrams: what happens to one is a
function of the seed, the direction and its number; see `uppercase.lab._fates`. No socket, no timer,
no shared random generator: a UDP port asks a `Lab` what to pass on and when, and `answer_key` says
the same beforehand. Over TCP, `TCPLab` says what `uppercase.lab.outlet` does to a connection.
"""

from uppercase.lab._fates import BurstLoss, Experiment, Fate, Impairments
from uppercase.lab._options import (
    NO_LAB,
    TCP_OPTIONS,
    TCP_PRESETS,
    UDP_OPTIONS,
    UDP_PRESETS,
    LabOption,
    Preset,
    TCPLab,
    command_line,
    find_preset,
    make_experiment,
    merge_settings,
    new_seed,
)
from uppercase.lab._stage import Lab, Numbering, Row, answer_key

__all__ = [
    "NO_LAB",
    "TCP_OPTIONS",
    "TCP_PRESETS",
    "UDP_OPTIONS",
    "UDP_PRESETS",
    "BurstLoss",
    "Experiment",
    "Fate",
    "Impairments",
    "Lab",
    "LabOption",
    "Numbering",
    "Preset",
    "Row",
    "TCPLab",
    "answer_key",
    "command_line",
    "find_preset",
    "make_experiment",
    "merge_settings",
    "new_seed",
]
