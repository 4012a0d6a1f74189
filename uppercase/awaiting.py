"""How the shells wait for the reply of an asynchronous transform.

The only place where the awaitables of the core meet Twisted's Deferreds.
"""

import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from uppercase.errors import TransformError, let_go

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


def start(awaitable: Awaitable[T]) -> Deferred[T]:
    """Start what is awaited, without waiting."""

    async def wait() -> T:
        return await awaitable

    return Deferred.fromCoroutine(wait())


class Waiter:
    """Waits for replies where there is nothing else to do: in a command or a test.

    It is entered before the first call of a transform, which may start a thread. Threads that are
    started meanwhile do not keep the program from ending; later ones are as the reactor makes them.
    """

    def __init__(self) -> None:
        self._restore: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        # Only if there is one: to import it is to choose it, and many replies need no reactor.
        reactor: Any = sys.modules.get("twisted.internet.reactor")
        if reactor is not None and not reactor.running:
            self._make_daemons(reactor)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._restore is not None:
            self._restore()
            self._restore = None

    def wait_for(self, awaitable: Awaitable[T], block_on: Callable[[Any], Any] | None = None) -> T:
        """Wait for a reply.

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
                self._make_daemons(known)
                _run_until(deferred, known)
            elif block_on is not None:
                block_on(deferred)
            else:
                raise RuntimeError(
                    "cannot wait here, the reactor is running; await the reply instead"
                )
        if not results:
            raise KeyboardInterrupt
        result = results[0]
        if isinstance(result, Failure):
            result.raiseException()
            raise AssertionError  # raiseException has raised.
        return result

    def _make_daemons(self, reactor: Any) -> None:
        """Have the reactor's pool start threads that nobody waits for, until the exit.

        Invariant: the pool starts no thread before the reactor has run once, so that this comes
        before the first one, also where the reactor is imported only now.
        """
        if self._restore is None:
            pool = reactor.getThreadPool()
            self._restore = partial(setattr, pool, "threadFactory", pool.threadFactory)
            pool.threadFactory = partial(threading.Thread, daemon=True)


def _run_until(deferred: Deferred[Any], reactor: Any) -> None:
    """Run the reactor until the Deferred fires or the user interrupts.

    `crash` ends the run so that it can be started again.
    """
    deferred.addBoth(lambda _: reactor.crash())
    if threading.current_thread() is not threading.main_thread():
        reactor.run(installSignalHandlers=False)
        return
    before = signal.signal(signal.SIGINT, lambda *_: reactor.callFromThread(reactor.crash))
    try:
        reactor.run(installSignalHandlers=False)
    finally:
        signal.signal(signal.SIGINT, before)
