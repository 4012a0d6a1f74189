"""How a command uses the library: Twisted's reactor runs beside it, in a thread of its own.

The main thread stays the command's: it reads the keyboard, gets Ctrl-C as Python has it, and waits
for what it asks of the reactor. A pipe is read and written here too: nothing is read before it is
wanted, and a reader of the output that takes its time holds nobody else up. Only a command that
needs the network imports this module.
"""

import gc
import os
import select
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet import reactor as _installed
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.awaiting import Waiter
from uppercase.commands.cli import CHUNK, write_all
from uppercase.errors import UserError

T = TypeVar("T")

reactor: Any = _installed


def running() -> Waiter:
    """Return what has the reactor run inside a `with` block."""
    # A full collection of what was imported holds all up for 40 ms, and for seconds where twenty
    # others want the processor: students' programs and `ping` would measure it.
    gc.freeze()
    return Waiter(())


def wait(conversation: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Have the running reactor do something; return what it gives, or raise what it raises."""
    return Waiter(()).wait_for(conversation())


@implementer(IReadDescriptor)
class Input:
    """Bytes from a descriptor of any kind, which stays as it is: never made non-blocking.

    Twisted's epoll reactor takes regular files, too.
    """

    def __init__(self, reactor: IReactorFDSet, source: int) -> None:
        self._reactor = reactor
        self._source = source
        self._wanted: Deferred[bytes] | None = None

    def read(self) -> Deferred[bytes]:
        """Return the next bytes, b"" at the end; one at a time, and none if it is cancelled."""
        self._wanted = Deferred(self._unwanted)
        self._reactor.addReader(self)
        return self._wanted

    def at_end(self) -> bool:
        """Return whether the input ends here, without waiting for it."""
        readable, _, _ = select.select([self._source], [], [], 0)
        return bool(readable) and not os.read(self._source, 1)

    def fileno(self) -> int:
        return self._source

    def logPrefix(self) -> str:
        return "input"

    def doRead(self) -> None:
        """Read once, which does not block: the descriptor is ready."""
        wanted = self._take_wanted()
        try:
            data = os.read(self._source, CHUNK)
        except OSError as error:
            wanted.errback(UserError(f"cannot read the input: {error.strerror}"))
        else:
            wanted.callback(data)

    def connectionLost(self, reason: Failure) -> None:
        """Hear of the end under epoll, which tells it apart from something to read."""
        if self._wanted is not None:
            self.doRead()

    def _unwanted(self, wanted: Deferred[bytes]) -> None:
        self._take_wanted()

    def _take_wanted(self) -> Deferred[bytes]:
        self._reactor.removeReader(self)
        wanted, self._wanted = self._wanted, None
        assert wanted is not None
        return wanted


async def write(data: bytes) -> None:
    """Write everything to standard output, in a thread: see `write_all`."""
    await deferToThreadPool(reactor, reactor.getThreadPool(), write_all, data)
