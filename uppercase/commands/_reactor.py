"""How a command uses the library: Twisted's reactor runs beside it, in a thread of its own.

The main thread stays the command's: it reads the keyboard, gets Ctrl-C as Python has it, and waits
for what it asks of the reactor. Only a command that needs the network imports this module.
"""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

from twisted.internet import reactor as _installed
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

T = TypeVar("T")

reactor: Any = _installed


@contextmanager
def running() -> Iterator[None]:
    """Have the reactor run inside the `with` block; once in a process.

    An interrupt waits for nothing: neither for a look-up nor for somebody who does not read.
    """
    thread = Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        _stop(thread)
        raise
    else:
        _stop(thread)


def wait(conversation: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Have the running reactor do something; return what it gives, or raise what it raises."""

    def begin() -> Deferred[T]:
        return Deferred.fromCoroutine(conversation())

    return blockingCallFromThread(reactor, begin)  # type: ignore[arg-type]


def _stop(thread: Thread) -> None:
    reactor.callFromThread(reactor.stop)
    thread.join()
