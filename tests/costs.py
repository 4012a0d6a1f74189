"""What bounds of processor time mean here: machines differ, and a tracer slows all down."""

import time
from collections.abc import Callable, Iterator

_TURNS = 50_000
_TOOK = 0.002
"""Seconds that so many turns of the loop took where the bounds were set."""


def spent(work: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def here(seconds: float) -> float:
    """Return how long something takes here and now that took so long where the bounds were set."""
    return seconds * min(spent(_loop) for _ in range(3)) / _TOOK


def _loop() -> None:
    for _ in _turns():
        pass


def _turns() -> Iterator[int]:
    for number in range(_TURNS):  # noqa: UP028  (each is to be a line that runs)
        yield number
