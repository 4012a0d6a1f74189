"""What is quicker than Twisted's way: connections watched by a hub, transports that write at once.

A reactor wraps each event in a context for its log and looks it up in its own tables: for a small
message that is half of the work. A hub is an epoll set, which can be polled itself. The reactor, of
whatever kind, watches only that one descriptor; the hub asks the set whose turn it is, and calls
them by the rules that Twisted's reactors have for results, errors and ends. Transports and
acceptors get a hub as their reactor: they need nothing of it but readers, writers and the time.

Twisted's transports queue what is written until the reactor's next turn has found the socket
writable: two system calls and a turn for each reply. Ours send first, and only what the kernel does
not take goes Twisted's way, with its back-pressure and its errors.

`UPPERCASE_PORTABLE` does without either.
"""

import select
import sys
from collections.abc import Callable, Iterator
from functools import cache
from time import monotonic
from typing import Any, Final, cast
from weakref import WeakValueDictionary

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IReactorFDSet,
    IReadDescriptor,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.limits import PORTABLE, TURN

_BATCH: Final = 256
"""The most events that one look brings."""

_WRITES: Final = 1024  # In a queue, however short: each takes 40 bytes of memory besides its own.

# As in <sys/epoll.h>; the module `select` has them only where it has epoll.
_IN: Final = 0x001
_OUT: Final = 0x004
_GONE: Final = 0x008 | 0x010
"""EPOLLERR or EPOLLHUP."""


class _End(Failure):
    def check(self, *kinds: Any) -> Any:
        # Twisted asks for this at each end, by the names of all bases; no end is one of these.
        asked: Any = super().check
        return None if kinds == (ConnectionAborted,) else asked(*kinds)


ENDS: Final[dict[type, Failure]] = {
    kind: _End(kind())  # type: ignore[no-untyped-call]
    for kind in (ConnectionDone, ConnectionLost)
}
"""The ends of nearly all connections: made once, because a Failure is expensive."""


@implementer(IReactorFDSet, IReadDescriptor)
class Hub:
    """Watches descriptors for a reactor, whose reader it is as long as it has any.

    Timers and the clock are the reactor's, which may be any that watches descriptors.

    Attributes:
        now: when the event at hand had its turn, by `time.monotonic`.
    """

    def __init__(self, reactor: Any) -> None:
        self.now = 0.0
        self._reactor = reactor
        self._set = select.epoll()
        self._descriptors: dict[int, Any] = {}
        # Methods, mostly `doRead`. Invariant: those of exactly the ones watched for input.
        self._reads: dict[int, Any] = {}
        self._events: dict[int, int] = {}
        # Those found ready that have not had their turn.
        self._ready: Iterator[tuple[int, int]] | None = None
        # Invariant: an event is for the descriptor that had its number when it was found. Numbers
        # are reused at once, so those that have been watched in another way since are left to the
        # next look, which finds them again if they are ready.
        self._changed: set[int] = set()
        # Those watched for input since the last look, which did not see them.
        self._newcomers: list[int] = []
        self._one_has_gone = False  # since the last look
        # No `__getattr__`: it would make all attributes of the hub three times as slow.
        self.callLater, self.seconds = reactor.callLater, reactor.seconds

    def fileno(self) -> int:
        return self._set.fileno()

    def logPrefix(self) -> str:
        return "uppercase"

    def addReader(self, reader: Any) -> None:
        self._watch(reader, _IN)

    def read_by(self, read: Any) -> None:
        """Call this method of a reader instead of its `doRead`, until it is added anew."""
        number = read.__self__.fileno()
        if number in self._reads:
            self._reads[number] = read

    def addWriter(self, writer: Any) -> None:
        self._watch(writer, _OUT)

    def removeReader(self, reader: Any) -> None:
        if reader.fileno() in self._reads:
            self._ignore(reader, _IN)

    def removeWriter(self, writer: Any) -> None:
        self._ignore(writer, _OUT)

    def removeAll(self) -> list[Any]:
        found = list(self._descriptors.values())
        for descriptor in found:
            self._ignore(descriptor, _IN | _OUT)
        return found

    def getReaders(self) -> list[Any]:
        return self._watched(_IN)

    def getWriters(self) -> list[Any]:
        return self._watched(_OUT)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended, and so has everything here; or there was no memory for a look."""
        if isinstance(reason.value, MemoryError):
            self._ready = None
            self._reactor.addReader(self)
            return
        for descriptor in self.removeAll():
            log.callWithLogger(descriptor, descriptor.connectionLost, reason)

    def doRead(self) -> None:
        """Serve the descriptors that are ready, until it is the reactor's turn."""
        changed, reads = self._changed, self._reads
        self.now = now = monotonic()
        until = now + TURN
        if self._ready is None:
            self._ready = self._look()
        while self._ready is not None:
            for number, event in self._ready:
                if number not in changed:
                    if event == _IN:
                        # As nearly all are; `_serve` would do the same.
                        read = reads[number]
                        try:
                            why = read()
                        except BaseException as error:
                            why = self._failed(read.__self__, error)
                        if why:
                            self._end(read.__self__, why, reading=True)
                    else:
                        self._serve(number, event)
                self.now = now = monotonic()
                if now > until:
                    return
            self._ready = self._more()

    def _look(self) -> Iterator[tuple[int, int]]:
        """Ask the set who is ready."""
        self._changed.clear()
        self._newcomers.clear()
        self._one_has_gone = False
        return iter(self._set.poll(0, _BATCH))

    def _more(self) -> Iterator[tuple[int, int]] | None:
        """Return who else is ready in this turn; None if nobody is expected.

        A look takes as long as a read, and another turn of the reactor ten times as long. Most of
        those just accepted have already said what they want, and are read without a look.
        """
        if not self._newcomers:
            # Who has gone may be back already.
            return self._look() if self._one_has_gone else None
        self._changed.clear()
        found, self._newcomers = self._newcomers, []
        return iter([(number, _IN) for number in found if number in self._reads])

    def _serve(self, number: int, event: int) -> None:
        """Serve one descriptor, by the rules of Twisted's reactors."""
        descriptor, reading = self._descriptors[number], False
        why: BaseException | None = None
        if event & _GONE and not event & _IN:
            # All input has been read. For one that reads, it is an orderly end.
            reading = bool(self._events[number] & _IN)
            why = CONNECTION_DONE if reading else CONNECTION_LOST
        else:
            try:
                if event & _IN:
                    why, reading = descriptor.doRead(), True
                if event & _OUT and not why and number not in self._changed:
                    why, reading = descriptor.doWrite(), False
            except BaseException as error:
                why = self._failed(descriptor, error)
        if why:
            self._end(descriptor, why, reading)

    def _failed(self, descriptor: Any, error: BaseException) -> BaseException:
        """Log what a descriptor has raised: a fault, which costs it its connection.

        For want of memory, which may cost hundreds theirs, its end says a word.
        """
        if not isinstance(error, MemoryError):
            log.callWithLogger(descriptor, log.err, Failure(error))
        return error

    def _end(self, descriptor: Any, why: BaseException, reading: bool) -> None:
        """Tell a descriptor that it has ended, or its input has."""
        self._one_has_gone = True
        self._ignore(descriptor, _IN)
        input_only = reading and type(why) is ConnectionDone
        if input_only and IHalfCloseableDescriptor.providedBy(descriptor):
            tell = descriptor.readConnectionLost
        else:
            self._ignore(descriptor, _OUT)
            tell = descriptor.connectionLost
        try:
            tell(ENDS.get(type(why)) or Failure(why))
        except BaseException:
            log.callWithLogger(descriptor, log.err)

    def _watch(self, descriptor: Any, event: int) -> None:
        number = descriptor.fileno()
        events = self._events.get(number, 0)
        if events and self._descriptors[number] is not descriptor:
            # The other was closed unseen, and the kernel has forgotten it.
            self._reads.pop(number, None)
            events = 0
        if events & event:
            return
        try:
            self._events[number] = events | event
            self._descriptors[number] = descriptor
            if event == _IN:
                self._reads[number] = descriptor.doRead
            self._changed.add(number)
            if events:
                self._set.modify(number, events | event)
                return
            self._set.register(number, event)
            if event == _IN:
                self._newcomers.append(number)
            if len(self._descriptors) == 1:
                self._reactor.addReader(self)
        except BaseException:  # Such as for want of memory: what is not watched is not known.
            self._ignore(descriptor, event)
            raise

    def _ignore(self, descriptor: Any, event: int) -> None:
        # -1 if it has been closed, which is never watched.
        number = descriptor.fileno()
        events = self._events.get(number, 0)
        if not events & event:
            return
        if event & _IN:
            self._reads.pop(number, None)
        left = events & ~event
        if left:
            self._events[number] = left
        else:
            del self._events[number]
            self._descriptors.pop(number, None)
        # Invariant: to watch something no longer never fails, whoever asks for it.
        try:
            if left:
                self._set.modify(number, left)
            else:
                self._set.unregister(number)
        except OSError:
            pass  # The kernel has forgotten what a plugin has closed by mistake.
        if not self._descriptors:
            self._reactor.removeReader(self)
        self._changed.add(number)

    def _watched(self, event: int) -> list[Any]:
        return [
            self._descriptors[number] for number, events in self._events.items() if events & event
        ]


_HUBS: Final[WeakValueDictionary[Any, Hub]] = WeakValueDictionary()
"""Those in use, by their reactor."""


def hub_of(reactor: Any) -> Any:
    """Return what watches a reactor's connections: its hub, or itself where it can have none."""
    if PORTABLE or not hasattr(select, "epoll"):
        return reactor
    hub = _HUBS.get(reactor)
    # What the reactor has dropped by `removeAll`, as after an unclean test of trial's, is deaf.
    if hub is None or (hub._descriptors and hub not in reactor.getReaders()):
        hub = _HUBS[reactor] = Hub(reactor)
    return hub


class PromptConnection(Connection):
    """Is put before the class of a transport; see `prompt`."""

    # Invariant: as long as this is true the transport may have bytes in its queue, and everything
    # goes through that, in order.
    queueing = False
    sends_small_at_once = sys.platform == "linux"
    """Whether TCP_NODELAY is set: what a port accepts has it from the port."""
    _aborted = False
    _input_ends = False

    def doRead(  # type: ignore[override] # one of two bases says that it returns nothing
        self,
    ) -> ConnectionDone | ConnectionLost | None:
        """Hand on what has come, or return why no more will come."""
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        """Tell that the peer sends no more, and end at once if that ends the connection."""
        self._input_ends = True
        try:
            # As Twisted's does, but without an adapter, which takes longer: all of ours half-close.
            cast(IHalfCloseableProtocol, self.protocol).readConnectionLost()
        except BaseException:
            log.err()
            self.connectionLost(Failure())
        self._input_ends = False
        if self.disconnecting and self.connected and not (self.queueing or self._aborted):
            self.connectionLost(ENDS[ConnectionDone])

    @property
    def ends_at_once(self) -> bool:
        """Whether the connection, once asked to end, does so before the reactor's next turn."""
        return self._input_ends and not self.queueing

    def loseConnection(self) -> None:
        if self._input_ends and self.connected:
            # `readConnectionLost` ends it after this, or `doWrite` once nothing is queued: there is
            # no need to wait until the socket can be written.
            self.disconnecting = True
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def startWriting(self) -> None:
        self.queueing = True
        super().startWriting()  # type: ignore[no-untyped-call]

    def stopWriting(self) -> None:
        if self.queueing:
            self.queueing = False
            super().stopWriting()  # type: ignore[no-untyped-call]

    def _isSendBufferFull(self) -> bool:
        # Twisted counts bytes alone.
        full: bool = super()._isSendBufferFull()  # type: ignore[no-untyped-call]
        return full or len(self._tempDataBuffer) > _WRITES

    def abortConnection(self) -> None:
        # An aborted transport waits for its end with nothing queued, and TLS still says goodbye.
        self._aborted = True
        super().abortConnection()  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        """Send what the kernel takes, queue the rest."""
        if self._aborted:
            return
        if not (self.queueing or self.TLS) and self.connected:
            try:
                sent = self.socket.send(data)
            except OSError:
                # No room, or an error, which Twisted's next try finds again, and deals with outside
                # of the call that is writing.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)  # type: ignore[no-untyped-call]


@cache
def prompt(transport: type[Connection]) -> Callable[..., Connection]:
    """Return the class of transports that are like those of `transport` but write at once."""
    if PORTABLE:
        return cast(Callable[..., Connection], transport)
    name = f"Prompt{transport.__name__}"
    return cast(Callable[..., Connection], type(name, (PromptConnection, transport), {}))
