"""How the shells wait for the reply of an asynchronous transform.

The only place where the awaitables of the core meet Twisted's Deferreds.
"""

import signal
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from uppercase.errors import TransformError, let_go

__all__ = ["await_reply", "start", "wait_for"]

T = TypeVar("T")


def await_reply(
    awaitable: Awaitable[bytes], done: Callable[[bytes | TransformError], None]
) -> Callable[[], None]:
    """Start waiting; `done` is called once with the reply or the error, unless cancelled.

    Args:
        awaitable: a pipeline's; it raises nothing but `TransformError`.
        done: told the result, perhaps before this returns.

    Returns:
        A function that cancels the wait and what is waited for.
    """

    def failed(failure: Failure) -> None:
        error = failure.value
        assert error is not None
        if isinstance(error, TransformError):
            let_go(error)
            done(error)
        elif not failure.check(CancelledError):
            done(TransformError.caused_by("?", error))

    deferred = start(awaitable)
    deferred.addCallbacks(done, failed)
    return deferred.cancel


def wait_for(awaitable: Awaitable[T], block_on: Callable[[Any], Any] | None = None) -> T:
    """Wait for a reply, where there is nothing else to do: in a command or a test.

    Args:
        awaitable: whatever it raises is raised here.
        block_on: how to wait for a Deferred while the reactor is running.

    Raises:
        RuntimeError: the reactor is running and nobody said how to wait.
    """
    deferred = start(awaitable)
    results: list[T | Failure] = []
    deferred.addBoth(results.append)
    if not results:
        from twisted.internet import reactor

        known: Any = reactor
        if not known.running:
            _run_until(deferred, known)
        elif block_on is not None:
            block_on(deferred)
        else:
            raise RuntimeError("cannot wait here, the reactor is running; await the reply instead")
    if not results:
        raise KeyboardInterrupt
    result = results[0]
    if isinstance(result, Failure):
        result.raiseException()
        raise AssertionError  # raiseException has raised.
    return result


def start(awaitable: Awaitable[T]) -> Deferred[T]:
    """Start what is awaited, without waiting."""

    async def wait() -> T:
        return await awaitable

    return Deferred.fromCoroutine(wait())


def _run_until(deferred: Deferred[Any], reactor: Any) -> None:
    """Run the reactor until the Deferred fires or the user interrupts.

    `crash` ends the run so that it can be started again. Threads that blocking transforms leave
    behind must not keep the program from ending.
    """
    reactor.getThreadPool().threadFactory = partial(threading.Thread, daemon=True)
    deferred.addBoth(lambda _: reactor.crash())
    if threading.current_thread() is not threading.main_thread():
        reactor.run(installSignalHandlers=False)
        return
    before = signal.signal(signal.SIGINT, lambda *_: reactor.callFromThread(reactor.crash))
    try:
        reactor.run(installSignalHandlers=False)
    finally:
        signal.signal(signal.SIGINT, before)
