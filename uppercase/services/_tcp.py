"""The TCP service: its endpoints, and the factory that serves their connections."""

import errno
import mmap
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from math import inf
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from uppercase.core.events import AcceptFailed
from uppercase.core.framing import AUTO, choose_framing
from uppercase.core.values import DeclaredPeers, counted, parse_peers
from uppercase.errors import CannotListen
from uppercase.lab import NO_LAB, TCPLab
from uppercase.limits import DRAIN_QUIET, TURN, Limits
from uppercase.services.base import SHORTHAND, OpenPlace, Settings, TransformService, share
from uppercase.services.logs import say
from uppercase.tcp import listening
from uppercase.tcp.connection import TransformProtocol
from uppercase.tcp.factory import TransformFactory, WatchedFactory
from uppercase.tcp.kernel import admit, admit_nobody, connections_possible
from uppercase.tcp.opening import bind, listen_error

_HANDSHAKE: Final = 0.2  # Seconds for handshakes under way when a stop begins: a long round trip.
_LOCAL_HANDSHAKE: Final = 0.01  # The same within this machine: what a process waits for its turn.

_DRAIN_REPORT: Final = 1.0  # Seconds between the lines that report a stop's progress.
_DRAIN_LOOK: Final = 0.1  # Seconds between looks at which connections are quiet by now.

LAST_WORD: Final = 1.0
"""Seconds that a connection has beyond the drain time if it was busy until then, so that it ends
after a reply and not within one."""

_COUNT: Final = 8  # Bytes of one number on a `Board`.
_NOBODY: Final = (1 << 63) - 1
_SLACK: Final = 4  # Connections that a worker may have more than another before it waits.


@dataclass(frozen=True, slots=True, kw_only=True)
class TCPSettings(Settings):
    """The settings of a TCP service.

    Attributes:
        framing: `auto` or a name of `uppercase.core.framing.FRAMINGS`.
        proxy_from: the peers that must send a PROXY header, as `--proxy-from` names them, and
            nobody else is served; None: nobody must, and a header is input like any other.
        drain_quiet: seconds that a connection has to be quiet before a stop ends it.
        limits: the bounds of each connection, and of all of them.
        lab: what happens to each connection on purpose.
    """

    framing: str = AUTO
    drain_quiet: float = DRAIN_QUIET
    proxy_from: DeclaredPeers | str | None = None
    limits: Limits = field(default_factory=Limits)
    lab: TCPLab = NO_LAB


def _ends_with_us(place: str) -> bool:
    """Whether a socket is closed for good when we stop; systemd's is not."""
    return place.partition(":")[0] in (SHORTHAND, "tcp", "tcp6", "unix")


_Open = tuple[listening.Listener, IListeningPort]
"""A place, and what listens there: nearly always an `Acceptor`."""


class TCPService(TransformService):
    """Serves one chain of transforms on any number of addresses."""

    protocol = "TCP"
    settings: TCPSettings

    def __init__(self, settings: TCPSettings, reactor: Any = None) -> None:
        super().__init__(settings, reactor)
        framing = choose_framing(settings.framing, self.chain.streams)
        if framing != "stream":
            self.label += f"; framing {framing}"
        make_factory = WatchedFactory if settings.observers else TransformFactory
        self.factory = make_factory(
            framing, self.chain, settings.limits, self.clock, self, settings.lab
        )
        self.waits: Callable[[], bool] | None = None
        self._open: list[_Open] = []
        self._opening: list[Deferred[Any]] = []
        peers = settings.proxy_from
        self.proxies = parse_peers(peers) if isinstance(peers, str) else peers
        # Loads them now: `twistd --chroot` listens where no module is.
        listening.with_stages(self.factory, self.proxies)
        # Only the process that systemd has started could look for its sockets.
        opens = None if settings.inherits else self.reactor
        self._listeners = [
            listening.listener_of_string(opens, text, self.proxies) for text in settings.listen
        ]
        self.listen_places = [each.place for each in self._listeners]

    @property
    def ports(self) -> list[IListeningPort]:
        return [port for _, port in self._open]

    def listen(self) -> None:
        self._fit_to_descriptors()
        if self.factory.lab is not None:
            self.say(f"lab: {self.factory.lab}")
        opened, listeners = self.opened, list[listening.Listener]()
        if not self.settings.inherits:
            opened, listeners = self.open_shorthands(1), self._listeners
        adopted = [self._adopt(each.place, skt) for each in opened for skt in each.sockets]
        for listener in (*adopted, *listeners):
            opening = listener.listen(self.factory, self.reactor, self._accept_failed, self.waits)
            self._opening.append(opening.addCallback(partial(self._opened, listener)))
            see_through(opening, listener.description, self.reactor)

    def _adopt(self, place: str, skt: socket.socket) -> listening.Listener:
        for listener in self._listeners:
            if listener.place == place:
                return listener._replace(open_socket=lambda: skt)
        return listening.Listener(place, place, self.proxies, open_socket=lambda: skt)

    def open_address(self, host: str, port: int, workers: int) -> list[socket.socket]:
        return [bind(host, port)]

    def open_listed(self, workers: int) -> Iterator[OpenPlace]:
        for listener in self._listeners:
            if listener.open_socket is None:
                raise CannotListen(
                    f"cannot share {listener.description} among workers: only tcp:, tcp6:, tls:, "
                    "unix: and systemd: endpoints have a socket to share; leave out --workers"
                )
            yield OpenPlace(listener.place, [listener.open_socket()])

    def release(self, opened: OpenPlace) -> None:
        # What another process has opened, others serve.
        if _ends_with_us(opened.place) and not self.settings.inherits:
            admit_nobody(opened.sockets[0])
        super().release(opened)

    def share_limits(self, workers: int) -> None:
        admission = self.factory.admission
        admission.max_connections = share(admission.max_connections, workers)
        if admission.max_per_address is not None:
            admission.max_per_address = share(admission.max_per_address, workers)

    def served(self) -> list[str]:
        return [listener.name(port) for listener, port in self._open]

    def levels(self) -> dict[str, int]:
        return {"connections_open": len(self.factory.connections)}

    def close(self) -> None:
        self._open_no_more()
        while self._open:
            maybeDeferred(self._open.pop()[1].stopListening)
        super().close()

    async def end(self) -> None:
        self._open_no_more()
        opened, self._open = self._open, []
        # If only this worker ends, others accept the clients that wait.
        if not self.hands_over:
            await self._end_handshakes(opened)
            for _, port in opened:
                if isinstance(port, listening.Acceptor):
                    port.accept_waiting()
        await gatherResults([maybeDeferred(port.stopListening) for _, port in opened])
        await self._drain()

    def _open_no_more(self) -> None:
        while self._opening:
            self._opening.pop().cancel()  # which does nothing to one that is over

    def _end_handshakes(self, opened: list[_Open]) -> Deferred[None]:
        """Begin no more handshakes; fire when those under way have had their time."""
        for listener, port in opened:
            if isinstance(port, listening.Acceptor) and _ends_with_us(listener.place):
                port.admit_nobody()
        for connection in self.factory.connections:
            # Another process, whose socket it is too, may have begun to stop before this one.
            admit(connection.transport)
        hosts = [getattr(port.getHost(), "host", "127.0.0.1") for _, port in opened]
        local = all(ip_address(host).is_loopback for host in hosts)
        return deferLater(self.reactor, _LOCAL_HANDSHAKE if local else _HANDSHAKE)

    async def _drain(self) -> None:
        """Bring all connections to their end, each when nothing is under way on it."""
        clock, quiet = self.clock, self.settings.drain_quiet
        connections = self.factory.connections
        drained, late = set[TransformProtocol](), set[TransformProtocol]()
        pause: Deferred[None]
        # Again, without effect, where another comes and goes within one look.
        self.factory.on_closed = lambda: None if connections else pause.cancel()
        now = clock.seconds()
        deadline = next_abort = now + self.settings.drain
        next_report = now + _DRAIN_REPORT
        while connections:
            pause = Deferred()
            now = clock.seconds()
            until = now + TURN
            is_over = now >= next_abort
            if is_over:
                next_abort = now + LAST_WORD
                # Those that could have ended; what was busy until now has a moment more.
                late = drained & connections
                if late:
                    aborted = counted(len(late), "connection")
                    self.say(f"the drain time is over: {aborted} aborted (--drain)", LogLevel.warn)
            elif now >= next_report:
                next_report += _DRAIN_REPORT
                time = max(0.0, deadline - now)
                self.say(f"{counted(len(connections), 'connection')} left, {time:.0f} s")
            for connection in list(connections):
                since = -inf if is_over or quiet == 0 else connection.idle_since()
                if connection in late and connection in connections:
                    connection.abort()
                elif connection in connections and since is not None and now - since >= quiet:
                    drained.add(connection)
                    connection.drain()
                if clock.seconds() > until:  # Others have their turn.
                    await deferLater(self.reactor, 0)
                    until = clock.seconds() + TURN
            with suppress(CancelledError):
                await pause.addTimeout(_DRAIN_LOOK, clock, lambda *_: None)
        self.factory.on_closed = lambda: None

    def _fit_to_descriptors(self) -> None:
        wanted = self.factory.admission.max_connections
        possible = connections_possible(wanted)
        self.factory.admission.max_connections = possible
        if possible < wanted:
            text = (
                f"at most {possible} connections instead of {wanted} (--max-connections), because "
                "the process may have few files open; a higher limit (ulimit -n) allows more"
            )
            self.say(text, LogLevel.warn)

    def _opened(self, listener: listening.Listener, port: IListeningPort) -> None:
        self._open.append((listener, port))
        if self._listening:  # It had to wait for something first.
            self.say_ready(listener.name(port))

    def _accept_failed(self, error: OSError) -> None:
        name = errno.errorcode.get(error.errno or 0, "?")
        self.notify(AcceptFailed(name, error.strerror or ""))


def see_through(opening: Deferred[Any], description: str, reactor: Any) -> None:
    """Raise `CannotListen` if an endpoint fails; some fail late, which ends the program.

    One that is cancelled has not failed.
    """
    failures: list[Failure] = []
    opening.addErrback(failures.append)
    if failures:
        raise listen_error(description, failures[0])

    def end_if_failed(_: object) -> None:
        if failures and not failures[0].check(CancelledError):
            say(str(listen_error(description, failures[0])), LogLevel.critical)
            reactor.stop()

    opening.addCallback(end_if_failed)


class Board:
    """How many connections each worker has, in memory that all of them see.

    Of several processes that wait for one socket, the system wakes all, and the first to run takes
    the connection: usually the same one. So a worker that has more than another waits.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self._counts = memoryview(mmap.mmap(descriptor, workers * _COUNT)).cast("q")

    @classmethod
    def make(cls, workers: int) -> "Board":
        """Return a new one, on which no worker has a number yet."""
        try:
            descriptor = os.memfd_create("uppercase-workers")
        except (AttributeError, OSError):  # A system, or its administrator, may have none.
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(descriptor, workers * _COUNT)
            board = cls(descriptor, workers)
        except OSError:
            os.close(descriptor)
            raise
        for number in range(workers):
            board.clear(number)
        return board

    def clear(self, number: int) -> None:
        """Note that there is no such worker: nobody waits for it."""
        self._counts[number] = _NOBODY

    def has_more(self, number: int, count: int) -> bool:
        """Write a worker's number, and tell whether it has notably more than another."""
        self._counts[number] = count
        return count > min(self._counts) + _SLACK

    def close(self) -> None:
        """Let go of the memory; workers keep theirs."""
        self._counts.release()
        os.close(self.descriptor)


tcp_service = TCPService
"""What programs call to make a service."""


def tcp_factory(settings: TCPSettings, reactor: Any = None) -> IProtocolFactory:
    """Return what serves the connections of endpoints of your own: `endpoint.listen(factory)`.

    It has all bounds of a service, and counts and logs like one. It knows nothing of the ports: it
    does not say when they are ready, and a stop that drains is up to the caller. The settings that
    say where to listen and how to stop are not used.
    """
    service = TCPService(settings, reactor)

    def end() -> None:
        service.factory.on_closed = end
        if not (service.factory.numPorts or service.factory.connections):
            service.close()

    service.factory.on_stopped = end
    return listening.with_stages(service.factory, service.proxies)
