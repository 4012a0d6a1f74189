"""How the shells wait for the reply of an asynchronous transform.

The only place where the awaitables of the core meet Twisted's Deferreds and asyncio's futures.
Where an asyncio loop runs, which is under Twisted's asyncio reactor, each reply is a task, in which
both can be awaited; anywhere else Twisted drives the coroutine, and only Deferreds can. Which
reactor runs, and by which clock, is settled here too.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from inspect import iscoroutinefunction
from math import inf
from time import monotonic
from types import SimpleNamespace
from typing import Any, Final, Self, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.runtime import seconds as wall_seconds
from twisted.python.threadable import isInIOThread

from uppercase.core.pipeline import drive
from uppercase.core.values import counted
from uppercase.errors import TransformError, drop_tracebacks
from uppercase.interfaces import ITransform

T = TypeVar("T")

CLEANING_UP: Final = 2.0
"""Seconds that cancelled tasks have to end before a stop goes on without them, and threads after
it."""

_LOOK: Final = 0.05
"""Seconds between two looks whether a program has ended or there was a Ctrl-C. CPython sees a
signal that comes while the main thread waits for a lock, but not one that comes just before it
does, nor one that the system gives to another thread: Twisted's `blockingCallFromThread` would go
on waiting."""

_tasks: set[asyncio.Task[Any]] = set()
"""Those that run: a loop has only weak references to its tasks."""

_cancelled: set[asyncio.Task[Any]] = set()  # Those of them that have been told to end.


def is_async(transform: ITransform) -> bool:
    """Return whether a transform is a coroutine function, which may await anything of asyncio's."""
    return iscoroutinefunction(transform.transform)


def choose_reactor(needs_asyncio: bool, *, own_loop: bool = False) -> None:
    """Install asyncio's reactor if it is needed and no reactor is installed."""
    if needs_asyncio and "twisted.internet.reactor" not in sys.modules:
        from twisted.internet.asyncioreactor import install

        install(asyncio.new_event_loop() if own_loop else None)


def runs_asyncio(reactor: object) -> bool:
    """Return whether anything of asyncio's can be awaited under a reactor."""
    # Imported here: it is for a server of coroutines only.
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    return isinstance(reactor, AsyncioSelectorReactor)


def await_reply(
    awaitable: Awaitable[bytes], done: Callable[[bytes | TransformError], None]
) -> Callable[[], None]:
    """Start waiting; `done` is called once with the reply or the error, unless cancelled."""
    deferred = start(awaitable)
    deferred.addCallbacks(done, _failed, errbackArgs=(done,))
    return deferred.cancel


def _failed(failure: Failure, done: Callable[[bytes | TransformError], None]) -> None:
    error = failure.value
    assert error is not None
    if isinstance(error, TransformError):
        drop_tracebacks(error)
        done(error)
    elif not failure.check(CancelledError):
        done(TransformError.caused_by(getattr(error, "transform", "?"), error))


def start(awaitable: Awaitable[T]) -> Deferred[T]:
    """Start what is awaited. Cancelling the Deferred cancels it, without waiting for its end."""
    loop = _running_loop()
    return (
        Deferred.fromCoroutine(_wait(awaitable)) if loop is None else _start_task(awaitable, loop)
    )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop of asyncio's that runs here; out of its `except`, whose error is nobody's."""
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


async def _wait(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _start_task(awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop) -> Deferred[T]:
    async def run() -> T:
        return cast(T, await drive(_wait(awaitable), _until_over))

    def cancel(_: object) -> None:
        if not task.done():
            _cancelled.add(task)
            # Soon, so that it has begun: Python warns of a coroutine that never does.
            loop.call_soon(task.cancel)

    def hand_over(_: object) -> None:
        _tasks.discard(task)
        _cancelled.discard(task)
        # Asked for in any case, or asyncio logs an error that nobody has asked for.
        error = CancelledError() if task.cancelled() else task.exception()
        if result.called:  # It was cancelled.
            return
        if error is None:
            result.callback(task.result())
        else:
            result.errback(Failure(error))

    result: Deferred[T] = Deferred(cancel)
    task = loop.create_task(run())
    _tasks.add(task)
    task.add_done_callback(hand_over)
    return result


def _until_over(waited: Any) -> Generator[Any, Any, Any]:
    """Wait within a task, which takes futures, but no Deferreds.

    A Deferred's result is left there: what awaits it looks for it.
    """
    if not isinstance(waited, Deferred):
        return (yield waited)
    fired = asyncio.get_running_loop().create_future()

    def fire(result: T) -> T:
        if not fired.done():
            fired.set_result(None)
        return result

    waited.addBoth(fire)
    try:
        yield from fired
    except asyncio.CancelledError:
        waited.addErrback(lambda _: None)
        waited.cancel()
        raise


def cancelled_have_ended() -> Deferred[None]:
    """Return what fires once the tasks that were cancelled have ended; soon, in any case.

    A coroutine may await something while it cleans up. The loop ends with the reactor, and Python
    complains of each task that is left.
    """
    if not _cancelled:
        return succeed(None)

    def report(_: object) -> None:
        if _cancelled:
            Logger("uppercase").warn(
                "{count} cancelled and not ended after {seconds:g} s; see to it that a transform "
                "does not go on after asyncio.CancelledError",
                count=counted(len(_cancelled), "coroutine"),
                seconds=CLEANING_UP,
            )

    # A copy: it is looked at a turn later, when all of them may have ended.
    return start(asyncio.wait({*_cancelled}, timeout=CLEANING_UP)).addCallback(report)


class Waiter:
    """Waits for replies where there is nothing else to do: in a command or a test.

    Unless the reactor is running already, it runs in a thread from the first reply that is awaited
    until the exit. That thread is a daemon, and the threads that the reactor's pool starts from it
    are daemons like it: none of them keeps the program from ending. If one of the transforms is a
    coroutine function, the reactor is asyncio's and runs from the beginning.
    """

    def __init__(self, transforms: Sequence[ITransform]) -> None:
        self._transforms = transforms
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        # On a loop of its own: it runs in a thread, and here one may run already, or there is none.
        choose_reactor(any(map(is_async, self._transforms)), own_loop=True)
        # Only if there is one: to import it is to choose it, and many transforms need no reactor.
        if "twisted.internet.reactor" in sys.modules:
            self._start_reactor()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._thread is not None:
            the_reactor().callFromThread(the_reactor().crash)
            # What hangs there is not waited for.
            self._thread.join(0 if kind is KeyboardInterrupt else CLEANING_UP)
            self._thread = None

    def call(self, function: Callable[[], T]) -> T:
        """Call a function where servers call transforms: in the reactor's thread, if it runs."""
        if not _is_running() or isInIOThread():
            return function()
        # In a tuple, so that a Deferred is returned and not waited for.
        (result,) = _call_in_reactor(lambda: (function(),))
        return cast(T, result)

    def wait_for(self, awaitable: Awaitable[T], seconds: float = inf) -> T:
        """Wait for a reply; a `RuntimeError` in a running reactor's thread, which must not wait.

        If the reactor runs and is held up for longer than the seconds, it is a `TimeoutError`.
        """
        if not _is_running() and _running_loop() is not None:
            self._start_reactor()  # That loop goes on only when this has returned.
        if _is_running() and not isInIOThread():
            return cast(T, _call_in_reactor(partial(start, awaitable), seconds))
        begun: Deferred[Any] = start(awaitable)
        if not begun.called:
            if is_in_reactor():
                begun.addErrback(lambda _: None).cancel()
                raise RuntimeError(
                    "cannot wait in the thread of the running reactor; call this in another one: "
                    "await deferToThread(check, ...)"
                )
            self._start_reactor()
            return cast(T, _call_in_reactor(lambda: begun))
        came: list[Any] = []
        begun.addBoth(came.append)
        return cast(T, _result_of(came))

    def _start_reactor(self) -> None:
        """Run the reactor in a thread, unless it is running.

        Invariant: the reactor's pool starts no thread before the reactor has run once, and while
        it runs, `call` has it start them from here. So they all inherit that they are daemons.
        """
        if the_reactor().running:
            return
        running = threading.Event()
        the_reactor().callWhenRunning(running.set)
        # Not the main thread: without handlers of signals. `crash` lets it be run again.
        thread = threading.Thread(target=the_reactor().run, args=(False,), daemon=True)
        thread.start()
        self._thread = thread
        while not running.wait(0.1):
            if not thread.is_alive():
                raise RuntimeError(
                    "Twisted's reactor has been stopped and cannot run again; do this before, or "
                    "in another process"
                )


def _call_in_reactor(function: Callable[[], object], seconds: float = inf) -> Any:
    """Call a function in the reactor's thread; return what comes of it or of its Deferred."""
    came: list[Any] = []
    done, end = threading.Event(), monotonic() + seconds

    the_reactor().callFromThread(
        lambda: maybeDeferred(function).addBoth(came.append).addBoth(lambda _: done.set())
    )
    while not done.wait(_LOOK):
        # Where it has no handlers of signals, nobody else tells it of programs that have ended.
        process = sys.modules.get("twisted.internet.process")
        if process is not None and process.reapProcessHandlers:
            the_reactor().callFromThread(process.reapAllProcesses)
        if monotonic() > end:
            raise TimeoutError
    return _result_of(came)


def _result_of(came: list[Any]) -> Any:
    """Return the result that has come, or raise it."""
    if isinstance(came[0], Failure):
        came[0].raiseException()
    return came[0]


def is_in_reactor() -> bool:
    """Return whether this is the thread of a running reactor."""
    return _is_running() and isInIOThread()


def _is_running() -> bool:
    # To import the reactor is to choose it.
    return "twisted.internet.reactor" in sys.modules and the_reactor().running


def the_reactor() -> Any:
    """Return Twisted's reactor, which the first to ask installs."""
    from twisted.internet import reactor

    return reactor


def leave_threads(status: int = 0) -> None:
    """Have the process, which is about to end, do so soon, even if a library's thread never does.

    As aiosqlite's, or asyncio's that runs what hangs. Python waits for it where no signal ends the
    process: in a command, a worker, and the first process of a container, which the system spares.
    """
    end = threading.Timer(CLEANING_UP, os._exit, (status,))
    end.daemon = True
    with suppress(RuntimeError):  # that the system gives no thread
        end.start()


def use_monotonic_time() -> bool:
    """Have the reactor go by a clock that nobody sets, if nothing is scheduled; return whether.

    Twisted's goes by the wall clock: if that is set forward an hour, every time-out is over at
    once, and if it is set back, none is for an hour. `IReactorTime` does not say by which clock it
    goes; this is for processes that are ours. Programs that embed a service decide for themselves.
    """
    reactor = the_reactor()
    # Invariant: nothing is scheduled by the other clock; it would wait for decades.
    steady = reactor.seconds is monotonic or not reactor.getDelayedCalls()
    if steady:
        reactor.seconds = monotonic
    return steady


def clock_of(reactor: Any) -> Any:
    """Return the clock of a service under this reactor: itself, unless it goes by the wall clock.

    `twistd uppercase-tcp` and the like have set their reactor's clock by then, and tests have their
    own; that leaves programs that embed a service, and `.tac` files. There it is the reactor's
    timers beside the monotonic clock. Whatever a timer was for is decided by that: one that a step
    of the wall clock brought forward finds nothing to do, and what such a step puts off comes late.
    """
    if reactor.seconds is not wall_seconds:
        return reactor
    return SimpleNamespace(seconds=monotonic, callLater=reactor.callLater)
