"""A run of `uppercase ping`: when each probe is sent, and how it travels.

A probe is a datagram or a line of a stream; it is sent without waiting for the peer. What is in it
is the tracker's affair.

A stream server may close as soon as it has answered, as the lecture's does. Once it has closed with
nothing owed, each further probe gets a connection of its own, made when the probe is planned and
not before: such a server often serves one client at a time, and an idle connection would keep it
from all others.
"""

import errno
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.internet.defer import TimeoutError as Silence
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer

from uppercase.client.network import (
    DatagramSocket,
    IReactor,
    Reader,
    explain_loss,
    open_connection,
)
from uppercase.client.target import Address, Target, connect_udp, explain, explain_send
from uppercase.commands.group import say
from uppercase.commands.ping._tracker import LONGEST_LINE, Tracker
from uppercase.core.values import counted
from uppercase.errors import NetworkError, NoReply, UppercaseError, UserError
from uppercase.limits import MIB

if TYPE_CHECKING:
    from uppercase.commands.ping import Display

BACKLOG: Final = 16 * MIB
"""Bytes that wait because nobody takes them, server or network, before ping says so and ends."""

CONNECTIONS: Final = 256
"""Connections of one probe each that ping keeps open at once, for replies that are still to come;
beyond it the oldest is given up. A quarter of the 1,024 descriptors that a process usually has."""


@dataclass(eq=False)
class ProbeRun(ABC):
    """Sends every probe when it is planned and reports what comes, until nothing is awaited.

    What happens meanwhile is called in order, in between; what it raises ends the run. How a probe
    travels is for the subclasses.
    """

    reactor: IReactor
    target: Target
    tracker: Tracker
    times: Iterator[float]
    duration: float | None
    display: "Display"
    happened: DeferredQueue[Callable[[], None]] = field(default_factory=DeferredQueue, init=False)
    _ended = False

    @abstractmethod
    async def open(self) -> None:
        """Open what the probes travel by."""

    @abstractmethod
    def send(self, probe: bytes) -> None:
        """Send a probe, or begin to."""

    def stuck(self) -> bytes:
        """Take out what has come of a reply that does not go on; a datagram comes whole."""
        return b""

    @abstractmethod
    async def close(self) -> None:
        """Let go of what was opened."""

    async def measure(self) -> None:
        """Send the probes, once it is open, and close it at the end."""
        self.display.started = monotonic()
        over = self.display.started + (self.duration or inf)
        planned = self._next_planned()
        try:
            while not self._ended and (now := monotonic()) < over:
                if planned <= now:
                    self.send(self.tracker.send(monotonic()))
                    planned = self._next_planned()
                self._expire(now)
                wake = min(planned, self.tracker.next_expiry)
                if wake == inf:
                    break
                wait = max(0.0, min(wake, over) - monotonic())
                try:
                    happened = await self.happened.get().addTimeout(wait, self.reactor)
                except Silence:
                    continue
                happened()
        finally:
            await self.close()

    def end(self, error: Exception | None = None) -> None:
        """End it, well or with an error."""

        def happened() -> None:
            self._ended = True
            if error is not None:
                raise error

        self.happened.put(happened)

    def look(self) -> None:
        self.happened.put(self.display.show_interim)

    def received(self, reply: bytes) -> None:
        now = monotonic()
        self.happened.put(lambda: self.display.show(self.tracker.receive(reply, now)))

    def _next_planned(self) -> float:
        return self.display.started + next(self.times, inf)

    def _expire(self, now: float) -> None:
        """Report the probes lost by now; what begins no reply is a wrong one, not a lost one."""
        if self.tracker.next_expiry <= now:
            half = self.stuck()
            if half:
                self.display.show(self.tracker.receive(half, now))
            for finding in self.tracker.expire(now):
                self.display.show(finding)


@dataclass(eq=False)
class DatagramRun(ProbeRun):
    """A datagram for each probe, from one connected socket; `_waiting` has found no room so far."""

    address: Address
    _waiting: deque[bytes] = field(default_factory=deque, init=False)

    async def open(self) -> None:
        datagrams = connect_udp(self.target, self.address)
        self._port = DatagramSocket(self.reactor, self.target, datagrams, self.received, self.end)

    def send(self, probe: bytes) -> None:
        """Send one datagram; a full queue of this host is waited for: it is not a loss."""
        self._waiting.append(probe)
        if len(self._waiting) == 1:
            self._flush()
        elif len(self._waiting) * len(probe) > BACKLOG:
            raise NetworkError(
                f"{len(self._waiting)} probes to {self.target} wait for room in this host's "
                "queue; the network takes fewer, so try a longer -i"
            )

    def _flush(self) -> None:
        while self._waiting:
            probe = self._waiting[0]
            self.tracker.restart(probe, monotonic())
            try:
                self._port.datagrams.send(probe)
            except BlockingIOError:
                self._port.when_writable(partial(self.happened.put, self._flush))
                return
            except OSError as error:
                raise explain_send(error, self.target, len(probe)) from error
            self._waiting.popleft()

    async def close(self) -> None:
        self._port.close()


@dataclass(eq=False)
class StreamRun(ProbeRun):
    """A line for each probe; the connections behind it come and go."""

    _notice: str = field(default="", init=False)
    _peer: Target | None = field(default=None, init=False)
    _alone: dict["Lines", Deferred[None]] = field(default_factory=dict, init=False)

    async def open(self) -> None:
        """Open the connection that all probes share for as long as the server keeps it."""
        self.display.connections += 1
        shared = Lines(self.target, self.received, 1)
        self._shared: Lines | None = shared
        opening = Deferred.fromCoroutine(open_connection(self.target, shared, self.reactor))
        if self.duration is not None:
            opening.addTimeout(self.duration, self.reactor)
        try:
            await opening
        except Silence as error:
            raise explain(TimeoutError(), self.target, self.duration) from error
        if self.target.unix is None:
            self._peer = replace(self.target, host=shared.transport.getPeer().host)
        shared.over.addCallback(self._shared_ended)

    def send(self, probe: bytes) -> None:
        """Send a line on the connection that all share, or begin to connect for it."""
        if self._shared is not None:
            self._shared.send(probe)
            return
        if self._notice and not self.display.as_json:  # There `connections` says it.
            say(self._notice)
        self._notice = ""
        if len(self._alone) >= CONNECTIONS:
            self._give_up(next(iter(self._alone)))
        self.display.connections += 1
        lines = Lines(self.target, self.received, self.tracker.totals.transmitted)
        self._alone[lines] = Deferred.fromCoroutine(self._ask_alone(lines, probe))
        self._alone[lines].addBoth(lambda _: self._forget(lines))

    def stuck(self) -> bytes:
        """Take out what has come of a line that does not go on: the one asked for first."""
        connections = self._alone if self._shared is None else [self._shared]
        return next(filter(None, (lines.stuck(self.tracker) for lines in connections)), b"")

    async def close(self) -> None:
        if self._shared is not None:
            self._shared.close()
        for lines in list(self._alone):
            self._give_up(lines)
        await deferLater(self.reactor, 0)  # the reactor takes that long

    def _shared_ended(self, error: UppercaseError | None) -> None:
        shared = self._shared
        assert shared is not None
        if error is None and 0 < shared.replies >= shared.sent:
            # The server has answered everything and closed: go on without the shared connection.
            self._notice = (
                f"{self.target} closed the connection after {shared.so_far}, "
                "so each further probe has a connection of its own"
            )
            shared.close()
            self._shared = None
        else:
            self.end(error or shared.ending("closed"))

    async def _ask_alone(self, lines: "Lines", probe: bytes) -> None:
        """Ask on a connection of its own; one that ends without a reply means a lost probe."""
        try:
            await open_connection(self.target, lines, self.reactor, self._peer)
            self.tracker.restart(probe, monotonic())
            lines.send(probe)
            await lines.over
            lines.close()
        except CancelledError:
            pass
        except (NetworkError, UserError) as error:
            number = getattr(error.__cause__, "errno", None)
            if isinstance(error, NoReply) or number in (errno.ECONNRESET, errno.EAGAIN):
                return  # A busy server's word, about this connection only: the probe is lost.
            # That is the end (the system gives no more sockets, say); what has come is shown first.
            await deferLater(self.reactor, 0)
            self.end(error)

    def _forget(self, lines: "Lines") -> None:
        # Invariant: returns nothing, since a Deferred's callback must not return that Deferred.
        self._alone.pop(lines, None)

    def _give_up(self, lines: "Lines") -> None:
        self._alone.pop(lines).cancel()
        if lines.transport is not None:
            lines.close()


@implementer(IPushProducer)
class Lines(Reader):
    """Whole lines in and out on one connection: `deliver` is called with each that comes.

    The replies are those to the probes from number `first` on.
    `over` fires when no more will come: with None if the server just closed, else with the error.
    """

    def __init__(self, target: Target, deliver: Callable[[bytes], None], first: int) -> None:
        super().__init__()
        self.deliver = deliver
        self.sent = 0
        self.replies = 0
        self._target = target
        self._first = first
        self._incoming = bytearray()
        self._waiting = 0
        self.over = Deferred.fromCoroutine(self._listen())

    @property
    def so_far(self) -> str:
        return counted(self.replies, "reply", "replies")

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def send(self, line: bytes) -> None:
        self.sent += 1
        self.transport.write(line)
        self._waiting = 0 if self.room is None else self._waiting + len(line)
        if self._waiting > BACKLOG:
            raise NetworkError(
                f"{self._target} has stopped reading: {self._waiting} bytes wait to be sent"
            )

    def stuck(self, tracker: Tracker) -> bytes:
        """Take out what has come of a line, unless its rest is on its way."""
        goes_on = tracker.begins(self._first + self.replies, bytes(self._incoming))
        return b"" if goes_on else self.incomplete()

    def incomplete(self) -> bytes:
        data = bytes(self._incoming)
        self._incoming.clear()
        return data

    def close(self) -> None:
        """End the connection in order, without waiting for the server; what waits is dropped."""
        self.transport.unregisterProducer()  # TLS would wait for it
        if self.room is not None:
            self.transport.abortConnection()
            return
        self.transport.loseConnection()
        if self._target.tls is not None:
            # TLS waits for the other side's close_notify, which may never come.
            self.transport.transport.loseConnection()

    def ending(self, did: str) -> NetworkError:
        """Return the sentence for an end that came too early."""
        hint = ""
        if self.replies == 1:
            hint = (
                "; one that closes after each reply, like the lecture's, must have closed "
                "before the next probe: try a longer -i"
            )
        return NetworkError(f"{self._target} {did} the connection after {self.so_far}{hint}")

    def readConnectionLost(self) -> None:
        """Note that no more will come; the run closes our side."""
        self.came.put(b"")

    async def _listen(self) -> UppercaseError | None:
        """Deliver the lines; the rest counts as one if it is too long, or the last."""
        while data := await self.came.get():
            *lines, rest = data.split(b"\n")
            for line in lines:
                self._tell(self.incomplete() + line + b"\n")
            # Invariant: what has come is of the reply after those that were told.
            self._incoming += rest
            if len(self._incoming) > LONGEST_LINE:
                self._tell(self.incomplete())
        if self._incoming:
            self._tell(self.incomplete())
        if self.reason is None or self.reason.check(ConnectionDone):
            return None
        if self._target.tls is None:
            return self.ending("reset")
        return explain_loss(self._target, self.reason.value)

    def _tell(self, line: bytes) -> None:
        self.replies += 1
        self.deliver(line)
