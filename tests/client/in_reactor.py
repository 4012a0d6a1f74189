"""Asynchronous tests in the real reactor."""

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from pytest_twisted import ensureDeferred  # type: ignore[import-untyped]
from twisted.internet import reactor as _installed

__all__ = ["in_reactor", "reactor"]

reactor: Any = _installed

_Arguments = ParamSpec("_Arguments")


def in_reactor(
    test: Callable[_Arguments, Coroutine[Any, Any, None]],
) -> Callable[_Arguments, None]:
    """Run a test to its end in the reactor that pytest-twisted runs."""
    run: Callable[_Arguments, None] = ensureDeferred(test)
    return run
