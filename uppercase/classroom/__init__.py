"""For a class: the record of what a service did, its picture, a student's program run and graded.

Nothing below knows of this room except as an `IObserver`: a record is one more observer of a
service. Names load on first use: a service that records pays for no picture.
"""

from typing import TYPE_CHECKING

from uppercase import lazy

if TYPE_CHECKING:
    from uppercase.classroom._packets import draw_packets
    from uppercase.classroom.picture import draw_svg
    from uppercase.classroom.record import Recorder, open_record, read_record
    from uppercase.classroom.timeline import Timeline, draw_text

__all__ = [
    "Recorder",
    "Timeline",
    "draw_packets",
    "draw_svg",
    "draw_text",
    "open_record",
    "read_record",
]

lazy(__name__, __all__, [".record", ".timeline", ".picture", "._packets"])
