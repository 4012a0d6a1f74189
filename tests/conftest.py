"""Checks that every test must pass besides its own: a clean reactor and a clean log."""

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer


def _busy() -> set[object]:
    """Give what the reactor still waits for, apart from its own descriptors."""
    known: Any = reactor
    selectables = {*known.getReaders(), *known.getWriters()}
    return {*(selectables - known._internalReaders), *known.getDelayedCalls()}


class LoggedErrors(list[str]):
    """The failures that were logged during a test; a test that provokes one takes it out."""

    def flush(self) -> list[str]:
        """Take out and give all failures so far."""
        taken = list(self)
        self.clear()
        return taken


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[LoggedErrors]:
    """Fail a test that leaves the reactor dirty or an error in the log.

    pytest-twisted checks neither; trial does both.
    """
    errors = LoggedErrors()

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None:
            errors.append(f"{formatEvent(event)}\n{failure.getTraceback()}")

    before = _busy()
    globalLogPublisher.addObserver(observe)
    yield errors
    globalLogPublisher.removeObserver(observe)
    left = _busy() - before
    for item in left:
        cancel = getattr(item, "cancel", None)
        if cancel is not None:
            cancel()
    assert not left, f"the reactor still holds {left}"
    assert not errors, "errors were logged:\n" + "\n".join(errors)
