"""How the shells wait for the reply of an asynchronous transform.

The only place where the awaitables of the core meet Twisted's Deferreds.
"""

import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import blockingCallFromThread
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

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

    Unless the reactor is running already, it runs in a thread from the first reply that is awaited
    until the exit. That thread is a daemon, and the threads that the reactor's pool starts from it
    are daemons like it: none of them keeps the program from ending.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        # Only if there is one: to import it is to choose it, and many transforms need no reactor.
        if "twisted.internet.reactor" in sys.modules:
            self._start_reactor()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._thread is not None:
            _reactor().callFromThread(_reactor().crash)
            if kind is not KeyboardInterrupt:  # What hangs there is not waited for.
                self._thread.join()
            self._thread = None

    def call(self, function: Callable[[], T]) -> T:
        """Call a function where servers call transforms: in the reactor's thread, if it runs."""
        if not _is_running() or isInIOThread():
            return function()
        # In a tuple, so that a Deferred is returned and not waited for.
        (result,) = blockingCallFromThread(_reactor(), lambda: (function(),))
        return result

    def wait_for(self, awaitable: Awaitable[T]) -> T:
        """Wait for a reply.

        Args:
            awaitable: whatever it raises is raised here.

        Raises:
            RuntimeError: this is the thread of a running reactor, which must not wait.
        """
        self._start_reactor()
        if isInIOThread():
            start(awaitable).addErrback(lambda _: None).cancel()
            raise RuntimeError(
                "cannot wait in the thread of the running reactor; call this in another one: "
                "await deferToThread(check, ...)"
            )
        begin: Callable[[], Any] = partial(start, awaitable)
        reply: T = blockingCallFromThread(_reactor(), begin)
        return reply

    def _start_reactor(self) -> None:
        """Run the reactor in a thread, unless it is running.

        Invariant: the reactor's pool starts no thread before the reactor has run once, and while
        it runs, `call` has it start them from here. So they all inherit that they are daemons.
        """
        if _reactor().running:
            return
        running = threading.Event()
        _reactor().callWhenRunning(running.set)
        # Not the main thread: without handlers of signals. `crash` lets it be run again.
        self._thread = threading.Thread(target=_reactor().run, args=(False,), daemon=True)
        self._thread.start()
        running.wait()


def is_in_reactor() -> bool:
    """Return whether this is the thread of a running reactor."""
    return _is_running() and isInIOThread()


def _is_running() -> bool:
    # To import the reactor is to choose it.
    return "twisted.internet.reactor" in sys.modules and _reactor().running


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor
