"""How replies are awaited where an asyncio loop runs; whole servers are in tests/system."""

import asyncio
import gc
import sys
import threading
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from uppercase import awaiting
from uppercase.awaiting import await_reply, cancelled_have_ended, start
from uppercase.core.pipeline import Pipeline, Stage
from uppercase.errors import TransformError
from uppercase.interfaces import ITransform


async def reply() -> bytes:
    await asyncio.sleep(0)
    return b"x"


def test_a_coroutine_that_pretends_to_be_closed_has_failed_by_its_name() -> None:
    class Pretends:
        async def transform(self, message: bytes) -> bytes:
            raise GeneratorExit

    chain = Pipeline([Stage("mine", cast(ITransform, Pretends()))])
    told: list[object] = []
    await_reply(cast(Awaitable[bytes], chain.transform(b"x")), told.append)
    assert list(map(str, told)) == ["transform 'mine' failed: GeneratorExit"]


def test_what_a_coroutine_raises_is_not_said_to_come_of_a_loop_that_is_missing() -> None:
    class Fails:
        async def transform(self, message: bytes) -> bytes:
            raise ValueError("no vowels")

    chain = Pipeline([Stage("mine", cast(ITransform, Fails()))])
    told: list[Any] = []
    await_reply(cast(Awaitable[bytes], chain.transform(b"x")), told.append)
    assert told[0].__cause__.__context__ is None
    assert "loop" not in "".join(told[0].traceback.format())


def test_a_failure_that_is_awaited_is_told_as_it_is_and_what_is_cancelled_is_not_told() -> None:
    told: list[object] = []
    failure = TransformError("mine", "no vowels")
    failing: Deferred[bytes] = Deferred()
    await_reply(failing, told.append)
    failing.errback(failure)
    await_reply(Deferred(), told.append)()
    assert told == [failure]
    assert str(failure) == "transform 'mine' failed: no vowels"


def test_what_is_cancelled_before_it_has_begun_is_begun_and_ended() -> None:
    """Python warns of a coroutine that never begins, and pytest makes errors of warnings."""

    async def program() -> Deferred[bytes]:
        started = start(reply())
        started.cancel()
        await cancelled_have_ended().asFuture(asyncio.get_running_loop())
        return started

    failed: list[object] = []  # What it is cancelled with.
    asyncio.run(program()).addErrback(lambda failure: failed.append(failure.type))
    gc.collect()
    assert failed == [CancelledError]


def test_a_deferred_is_cancelled_with_what_awaits_it() -> None:
    ends: list[str] = []
    awaited: Deferred[bytes] = Deferred(lambda _: ends.append("the Deferred"))

    async def waits() -> bytes:
        try:
            return await awaited
        finally:
            ends.append("the coroutine")

    async def program() -> None:
        started = start(waits())
        cast(Any, started).addErrback(lambda failure: ends.append(failure.type.__name__))
        await asyncio.sleep(0)
        started.cancel()
        await cancelled_have_ended().asFuture(asyncio.get_running_loop())

    asyncio.run(program())
    assert ends == ["CancelledError", "the Deferred", "the coroutine"]


@pytest.mark.parametrize("turns", range(5))
def test_a_stop_goes_on_however_far_the_cancelled_have_come_to_their_end(turns: int) -> None:
    async def program() -> None:
        started = start(asyncio.Event().wait())
        started.addErrback(lambda _: None)
        await asyncio.sleep(0)
        started.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        await cancelled_have_ended().asFuture(asyncio.get_running_loop())
        assert not awaiting._cancelled

    asyncio.run(program())


@pytest.mark.parametrize("count", [1, 2])
def test_a_coroutine_that_goes_on_after_its_cancellation_is_told_of(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop does not wait for it for ever."""
    monkeypatch.setattr(awaiting, "CLEANING_UP", 0.05)
    said: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        said.append(formatEvent(event))

    async def stubborn(over: asyncio.Event) -> bytes:
        try:
            await asyncio.sleep(60)
        finally:
            await over.wait()
        return b""

    async def program() -> None:
        over = asyncio.Event()
        for _ in range(count):
            started = start(stubborn(over))
            await asyncio.sleep(0)
            started.cancel()
            started.addErrback(lambda _: b"")
        globalLogPublisher.addObserver(observe)
        try:
            ended = cancelled_have_ended().asFuture(asyncio.get_running_loop())
            await asyncio.wait_for(ended, 10)
        finally:
            globalLogPublisher.removeObserver(observe)
        over.set()
        await asyncio.sleep(0.05)

    asyncio.run(program())
    number = "1 coroutine" if count == 1 else "2 coroutines"
    assert said == [
        f"{number} cancelled and not ended after 0.05 s; see to it that a transform does not go "
        "on after asyncio.CancelledError"
    ]
    assert not awaiting._cancelled
    assert not awaiting._tasks


def test_a_reactor_that_has_been_stopped_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twisted's can run only once."""
    stopped = SimpleNamespace(running=False, callWhenRunning=id, run=bool)
    monkeypatch.setattr(awaiting, "the_reactor", lambda: stopped)
    with pytest.raises(RuntimeError, match="cannot run again"):
        awaiting.Waiter([]).wait_for(cast(Awaitable[bytes], Deferred()))


def test_a_reactor_that_was_run_to_wait_runs_no_longer_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()
    reactor = SimpleNamespace(
        running=False,
        callWhenRunning=lambda call: call(),
        run=lambda _: ended.wait(10),
        callFromThread=lambda call: call(),
        crash=ended.set,
    )
    monkeypatch.setattr(awaiting, "the_reactor", lambda: reactor)
    with awaiting.Waiter([]):
        assert not ended.is_set()
    assert ended.is_set()


def test_a_thread_that_the_system_does_not_give_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    awaiting.leave_threads()
    reactor = SimpleNamespace(running=False, callWhenRunning=id, run=bool)
    monkeypatch.setattr(awaiting, "the_reactor", lambda: reactor)
    # It is not needed before something is awaited.
    monkeypatch.delitem(sys.modules, "twisted.internet.reactor", raising=False)
    with pytest.raises(RuntimeError, match="new thread"), awaiting.Waiter([]) as waiter:
        waiter.wait_for(cast(Awaitable[bytes], Deferred()))


def test_threads_are_left_with_the_status_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one that keeps nothing from ending before."""
    statuses: list[int] = []
    monkeypatch.setattr("os._exit", statuses.append)
    monkeypatch.setattr(awaiting, "CLEANING_UP", 0.1)
    before = {*threading.enumerate()}
    awaiting.leave_threads(3)
    for thread in {*threading.enumerate()} - before:
        assert thread.daemon
        thread.join(30)
    assert statuses == [3]
