"""Probes as lines on a stream: on one connection, or where the server ends that, on one each.

A server may close as soon as it has answered, as the lecture's does. Once it has closed with
nothing owed, each further probe gets a connection of its own, made when the probe is planned and
not before: such a server often serves one client at a time, and an idle connection would keep it
from all others. Nothing here waits for the peer, neither for a connection nor for TLS's handshake.
"""

import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from time import monotonic

from uppercase.client.connecting import Address, begin_connect, explain, tls_context, wrap_tls
from uppercase.client.target import Target
from uppercase.commands.ping._line_wire import LineWire
from uppercase.errors import NetworkError
from uppercase.limits import PING_CONNECTIONS

__all__ = ["StreamWire"]


class StreamWire:
    """A probe a line; the connections behind it come and go.

    Args:
        connection: a connected, non-blocking socket.
        target: the server.
        tell: called once with a sentence if each probe needs a connection of its own.

    Attributes:
        connections: how many there have been.
    """

    ending = b"\n"

    def __init__(
        self, connection: socket.socket, target: Target, tell: Callable[[str], None]
    ) -> None:
        self.connections = 1
        self._target = target
        self._tell = tell
        self._selector = DefaultSelector()
        self._shared: LineWire | None = LineWire(connection, target)
        self._selector.register(connection.fileno(), EVENT_READ)
        self._errands: OrderedDict[int, _Errand] = OrderedDict()
        self._begun: list[tuple[bytes, float]] = []
        self._context: ssl.SSLContext | None = None
        self._notice = ""
        self._address: Address | None = None
        with suppress(OSError):  # What is broken off already will tell so when it is read.
            self._address = Address(connection.family, connection.getpeername())

    def fileno(self) -> int:
        """Return a descriptor that is readable when `receive` has something to do."""
        return self._selector.fileno()

    def send(self, probe: bytes) -> None:
        """Send a line on the connection that all share, or begin to connect for it."""
        if self._shared is not None:
            self._shared.send(probe)
            self._watch_shared(self._shared)
            return
        if self._notice:
            self._tell(self._notice)
            self._notice = ""
            self._context = tls_context(self._target.tls) if self._target.tls else None
        if len(self._errands) >= PING_CONNECTIONS:
            self._end_errand(next(iter(self._errands)))
        assert self._address is not None
        try:
            connection = begin_connect(self._address)
        except BlockingIOError:
            return  # The queue of a Unix socket is full, and there is no waiting for it: lost.
        except OSError as error:
            raise explain(error, self._target) from error
        self.connections += 1
        self._errands[connection.fileno()] = _Errand(connection, self._target, self._context, probe)
        self._selector.register(connection.fileno(), EVENT_WRITE)

    def begun(self) -> list[tuple[bytes, float]]:
        """Take out the probes whose connections have come about, and when each was sent."""
        begun, self._begun = self._begun, []
        return begun

    def receive(self) -> list[bytes]:
        """Go on with whatever can go on; return the lines that have come, with their endings."""
        replies: list[bytes] = []
        if self._shared is not None:
            for _, mask in self._selector.select(0):
                replies += self._receive_shared(self._shared, mask)
            return replies
        ready = [(key.fd, self._errands[key.fd]) for key, _ in self._selector.select(0)]
        # To connect may fail, and that is the end: what has come is given first.
        for descriptor, errand in sorted(ready, key=lambda each: each[1].connecting):
            if errand.connecting and replies:
                break
            replies += self._go_on(descriptor, errand)
        return replies

    def incomplete(self) -> bytes:
        """Take out what has come of a line: the one that was asked for first."""
        if self._shared is not None:
            return self._shared.incomplete()
        pieces = (errand.incomplete() for errand in self._errands.values())
        return next(filter(None, pieces), b"")

    def close(self) -> None:
        """Close all connections."""
        if self._shared is not None:
            self._shared.close()
        for errand in self._errands.values():
            errand.close()
        self._selector.close()

    def _receive_shared(self, shared: LineWire, mask: int) -> list[bytes]:
        if mask & EVENT_WRITE:
            shared.flush()
            self._watch_shared(shared)
        replies: list[bytes] = []
        try:
            if mask & EVENT_READ:
                replies = shared.receive()
        except NetworkError:
            if not shared.served or self._address is None:
                raise
        if shared.ended and shared.served and self._address is not None:
            self._part(shared)
        return replies

    def _watch_shared(self, shared: LineWire) -> None:
        events = EVENT_READ | (EVENT_WRITE if shared.unsent else 0)
        if self._selector.get_key(shared.fileno()).events != events:
            self._selector.modify(shared.fileno(), events)

    def _part(self, shared: LineWire) -> None:
        """Go on without the shared connection: the server has answered everything and closed it."""
        self._notice = (
            f"{self._target} closed the connection after {shared.ending_after}, "
            "so each further probe has a connection of its own"
        )
        self._selector.unregister(shared.fileno())
        shared.close()
        self._shared = None

    def _go_on(self, descriptor: int, errand: "_Errand") -> list[bytes]:
        """Do the next step for one probe.

        Raises:
            NetworkError: nothing listens any more, or it cannot be reached.
        """
        try:
            wanted = errand.go_on(self._begun)
        except (ConnectionResetError, TimeoutError):
            wanted = 0  # A busy server's word, about this connection only: the probe will be lost.
        except OSError as error:
            raise explain(error, self._target) from error
        if wanted:
            self._selector.modify(descriptor, wanted)
        else:
            self._end_errand(descriptor)
        return errand.take()

    def _end_errand(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        self._errands.pop(descriptor).close()


class _Errand:
    """One probe and its connection, from connecting to the server's closing.

    A connection that ends without a reply is no error of ping's: its probe will be lost.
    """

    def __init__(
        self,
        connection: socket.socket,
        target: Target,
        context: ssl.SSLContext | None,
        probe: bytes,
    ) -> None:
        self._connection = connection
        self._target = target
        self._context = context
        self._probe = probe
        self._line: LineWire | None = None
        self._replies: list[bytes] = []
        self._opening = self._open()
        next(self._opening)

    @property
    def connecting(self) -> bool:
        """Whether the probe is still to be sent."""
        return self._line is None

    def go_on(self, begun: list[tuple[bytes, float]]) -> int:
        """Do what can be done now; return the events to wait for, 0 at the end.

        Args:
            begun: gets the probe and the time, when it is sent.

        Raises:
            OSError: there is no connection to be had.
        """
        if self._line is None:
            wanted = next(self._opening, 0)
            if wanted:
                return wanted
            self._line = LineWire(self._connection, self._target)
            begun.append((self._probe, monotonic()))
            self._line.send(self._probe)
        else:
            self._line.flush()
        try:
            self._replies += self._line.receive()
        except NetworkError:
            return 0
        if self._line.ended:
            return 0
        return EVENT_READ | (EVENT_WRITE if self._line.unsent else 0)

    def take(self) -> list[bytes]:
        """Take out the replies."""
        replies, self._replies = self._replies, []
        return replies

    def incomplete(self) -> bytes:
        """Take out what has come of a line."""
        return b"" if self._line is None else self._line.incomplete()

    def close(self) -> None:
        """Close the connection, at whatever stage it is."""
        self._connection.close()

    def _open(self) -> Iterator[int]:
        """Connect, and shake hands for TLS; return the events to wait for each time."""
        yield EVENT_WRITE
        status = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, os.strerror(status))
        if self._context is None:
            return
        secure = wrap_tls(self._context, self._connection, self._target, handshake=False)
        self._connection = secure
        while True:
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                yield EVENT_READ
            except ssl.SSLWantWriteError:
                yield EVENT_WRITE
            else:
                return
