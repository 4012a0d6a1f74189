"""How the shells wait for the reply of an asynchronous transform.

The only place where the awaitables of the core meet Twisted's Deferreds.
"""

from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from uppercase.errors import TransformError

__all__ = ["await_reply"]


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

    async def wait() -> bytes:
        return await awaitable

    def failed(failure: Failure) -> None:
        error = failure.value
        if isinstance(error, TransformError):
            done(error)
        elif not failure.check(CancelledError):
            done(TransformError("?", f"{type(error).__name__}: {error}"))

    deferred = Deferred.fromCoroutine(wait())
    deferred.addCallbacks(done, failed)
    return deferred.cancel
