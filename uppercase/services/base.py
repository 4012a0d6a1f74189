"""What the TCP and the UDP service share: settings, the chain, the observers, starting and failing.

Settings have no defaults of their own: those are limits.
"""

import errno
import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from fcntl import ioctl
from ipaddress import ip_address
from types import UnionType
from typing import Any, ClassVar, Final, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from uppercase import awaiting
from uppercase.core import values
from uppercase.core.events import Event, IObserver, SlowCall
from uppercase.core.pipeline import Pipeline
from uppercase.errors import BadValue, CannotListen
from uppercase.limits import DEFAULT_PORT, DRAIN, MAX_OUTPUT
from uppercase.registry import Listing, listing
from uppercase.services._stopping import STOP_SIGNALS, CannotStart
from uppercase.services.logs import Counters, LogObserver, say

_log: Final = Logger("uppercase")

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What TCP and UDP services have in common.

    Attributes:
        transforms: applied in the order given; each is a name with arguments or a reference, as on
            a command line, or a function or class, decorated or plain, or an `ITransform`.
        listen: endpoint strings.
        port: 0 for any free one; None for the default.
        interfaces: IP addresses, `localhost` or `*`; none for loopback in both families.
        max_output: bytes that each transform of the chain may give for one message or chunk.
        drain: seconds that a stop waits for what is owed.
        log_peers: a log line for each connection or datagram.
        inherits: another process opens the addresses; see `TransformService.opened`.
        observers: told of each datagram and each chunk, beside the service's own.
        lab_notes: lines for the log that say what the lab does.
        found: what a scan of the doors has found already (whoever made it tells what is wrong);
            else there is one for the service.

    `port` and `interfaces` stand for addresses of their own, beside those of `listen`; where only
    `listen` is given, there are no others.
    """

    transforms: Sequence[object] = ("uppercase",)
    listen: Sequence[str] = ()
    port: int | None = None
    interfaces: Sequence[str] = ()
    max_output: int = MAX_OUTPUT
    drain: float = DRAIN
    log_peers: bool = False
    inherits: bool = False
    observers: Sequence[IObserver] = ()
    lab_notes: Sequence[str] = ()
    found: Listing | None = field(default=None, repr=False, compare=False)

    def hosts(self) -> tuple[str, ...]:
        """Return the IP addresses to listen on, apart from those of `listen`.

        Raises:
            uppercase.errors.BadValue: an interface is not one.
        """
        if self.listen and self.port is None and not self.interfaces:
            return ()
        return values.hosts_of(self.interfaces) or values.LOOPBACK

    def port_number(self) -> int:
        return DEFAULT_PORT if self.port is None else values.parse_port(str(self.port))


SHORTHAND: Final = "--port"
"""What stands for the place of a socket that --port and --interface ask for."""

_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

FREE_PORT_TRIES: Final = 16
"""How often port 0 is tried again when the port that one address family gave is taken in
another."""


class OpenPlace(NamedTuple):
    """What is served by this process or others: a socket for each, or one for all."""

    place: str
    sockets: list[socket.socket]


_MAY_BE_ZERO: Final = ("port", "drain", "drain_quiet", "loop_guard", "receive_buffer")
"""Numbers for which 0 means something; of others, 0 is what nobody wants, unless it is given."""


def _check_values(settings: Settings) -> None:
    """Refuse what no option would take, and a text where type checkers take it for a list."""
    for record in (settings, getattr(settings, "limits", settings)):
        for each in fields(record):
            value, accepted = getattr(record, each.name), ""
            is_number = isinstance(value, int | float)
            is_list = isinstance(value, Collection) and not isinstance(value, str)
            if is_number or type(each.default) in (int, float):
                may_be_zero = each.default == 0 or each.name in _MAY_BE_ZERO
                if not (is_number and 0 <= value < math.inf and (value or may_be_zero)):
                    which = "0 or more" if may_be_zero else "more than 0"
                    accepted = f"a number that is {which} is accepted"
            elif each.default == () and not (is_list or value in ("", "*")):
                accepted = f"a list is accepted, such as [{value!r}]"
            elif isinstance(each.type, type | UnionType) and each.name != "port":
                is_one = each.type is bool or isinstance(value, each.type)
                kind = getattr(each.type, "__name__", each.type)
                accepted = "" if is_one else f"{kind} is accepted"
            if accepted:
                raise BadValue(f"got {value!r} for {each.name}; {accepted}")


def share(whole: int, workers: int) -> int:
    """Return each worker's share of a limit, rounded up."""
    return -(-whole // workers)


class Repeated(LoopingCall):
    """A call that is repeated, even after a failure; the first failure of a row is logged."""

    def __init__(self, call: Callable[[], object], clock: Any) -> None:
        super().__init__(self._try, call)
        self.clock = clock
        self._fails = False

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
            self._fails = False
        except Exception:
            if not self._fails:
                _log.failure("{call} has failed, and is called again", call=call)
            self._fails = True

    def end(self) -> None:
        """Stop, if it has begun."""
        if self.running:
            self.stop()


def addresses_for_others() -> list[str]:
    """Return the addresses that this machine sends from: those that others can type.

    Where no route leads out, as on a network of a hall's own, those of its interfaces (Linux).
    """
    found = []
    # Documentation addresses (RFC 5737, RFC 3849). Connecting a UDP socket sends nothing.
    for outside in ("192.0.2.1", "2001:db8::1"):
        # Where there is no such route, an OSError says so.
        with suppress(OSError), socket.socket(values.family_of(outside), socket.SOCK_DGRAM) as skt:
            skt.connect((outside, 9))
            found.append(str(skt.getsockname()[0]))
    return found or [*_interface_addresses()]


def _interface_addresses() -> Iterator[str]:
    """Return the IPv4 address of each interface of this machine but loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as skt:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # It has no such address, or this is not Linux.
                ifreq = ioctl(skt, _SIOCGIFADDR, name.encode().ljust(40, b"\0"))
                address = socket.inet_ntoa(ifreq[20:24])
                if not address.startswith("127."):
                    yield address


@implementer(IObserver)
class TransformService(Service, ABC):
    """A service that listens when it starts and says so, or ends the program.

    It is also the observer of what it serves: counts, and writes into the log.

    Ports below 1024 are bound before twistd gives up its privileges; under `twist`, which does not
    know of that step, when the service starts.

    Args:
        settings: what to serve, where and within which bounds.
        reactor: Twisted's unless a test has its own. Where none is installed, a coroutine function
            among the transforms has asyncio's installed.

    Attributes:
        clock: by what it decides.
        label: what the ready line calls the chain.
        say: writes a line about this service into the log.
        listen_places: what `--listen` binds, a string each, without what is served there.
        opened: what `open_sockets` has opened; with `Settings.inherits`, what another process has,
            which announces it too.
        hands_over: other processes go on serving these sockets when this one stops.

    Raises:
        uppercase.errors.UserError: something in the settings is wrong.
        uppercase.errors.PluginError: a transform cannot be loaded.
    """

    protocol: ClassVar[str]

    def __init__(self, settings: Settings, reactor: Any = None) -> None:
        # One scan of the doors, which takes milliseconds, for all stages and for what the log says.
        found = settings.found or listing()
        stages = found.stages(settings.transforms)
        if reactor is None:
            awaiting.choose_reactor(any(awaiting.is_async(stage.transform) for stage in stages))
            reactor = awaiting.the_reactor()
        self.reactor = reactor
        self.clock: Any = awaiting.clock_of(reactor)
        self.settings = settings
        self.counters = Counters()
        self.listen_places: Sequence[str] = settings.listen
        self.opened: list[OpenPlace] = []
        self.hands_over = False
        self._log_observer = LogObserver(self.protocol, reactor, log_peers=settings.log_peers)
        self.say = self._log_observer.say
        self.chain = Pipeline(
            stages, settings.max_output, lambda *call: self.notify(SlowCall(*call))
        )
        self.label = self.chain.name
        self._notes = [*settings.lab_notes]
        self._notes += [
            f"transform {stage.name!r} is a coroutine function: under this reactor it can await "
            "Deferreds only; what awaits asyncio is served with twistd --reactor=asyncio ..."
            for stage in stages
            if awaiting.is_async(stage.transform) and not awaiting.runs_asyncio(reactor)
        ]
        self._problems = found.problems if settings.found is None else ()
        _check_values(settings)
        # Each raises what is wrong with it.
        settings.port_number()
        settings.hosts()
        self._listening = False
        self._stopping: Deferred[None] | None = None

    def setServiceParent(self, parent: object) -> None:
        """Belong to an application or a service of services; overridden only to have types."""
        super().setServiceParent(parent)

    def setName(self, name: str) -> None:
        """Take a name, as Twisted's services have one; the log's lines bear it."""
        super().setName(name)
        self._log_observer.service = name

    def notify(self, event: Event) -> None:
        self.counters.notify(event)
        self._log_observer.notify(event)
        for observer in self.settings.observers:
            try:
                observer.notify(event)
            except Exception as error:
                # Invariant: what it observes does not suffer.
                self._log_observer.observer_failed(observer, error)

    def privilegedStartService(self) -> None:
        self._start()

    def startService(self) -> None:
        Service.startService(self)
        self._start()

    def _start(self) -> None:
        if self._listening:
            return
        try:
            self.listen()
        except CannotListen as error:
            self.close()
            raise CannotStart(str(error)) from error
        self._listening = True
        STOP_SIGNALS.take(self, self.reactor, self.settings.drain)
        # Not before the reactor runs: until then a signal would kill the process at once.
        self.reactor.callWhenRunning(self._announce)

    def _announce(self) -> None:
        if self.phase == "serving" and not self.settings.inherits:
            self.announce(self.served())

    def announce(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            self.say_ready(address)
        hosts = [ip_address(host) for host in self.settings.hosts()]
        everywhere = {host.version for host in hosts if host.is_unspecified}
        if not self.settings.listen and all(host.is_loopback for host in hosts):
            self.say("only this machine can reach it; --interface='*' opens it to others")
        for address in addresses_for_others() if everywhere else ():
            if ip_address(address).version in everywhere:
                self.say(f"others reach this machine at {address}")
        for note in self._notes:
            self.say(note)
        for problem in self._problems:
            say(f"a plugin cannot be used: {problem}", LogLevel.warn)

    @abstractmethod
    def listen(self) -> None:
        """Serve what was inherited, or else every address of the settings; raise `CannotListen`."""

    def open_sockets(self, workers: int) -> None:
        """Open all addresses, for that many workers, or raise `CannotListen`; then `close` them."""
        self.opened = self.open_shorthands(workers)
        self.opened += self.open_listed(workers)

    def open_shorthands(self, workers: int) -> list[OpenPlace]:
        """Open the shorthands' addresses on one port (0: a free one), or raise `CannotListen`."""
        settings = self.settings
        asked_for = [values.hosts_of([each]) for each in settings.interfaces]
        for tries_left in reversed(range(FREE_PORT_TRIES)):
            port, opened = settings.port_number(), list[OpenPlace]()
            try:
                for host in settings.hosts():
                    try:
                        sockets = self.open_address(host, port, workers)
                        port = sockets[0].getsockname()[1]
                        opened.append(OpenPlace(SHORTHAND, sockets))
                    except CannotListen as error:
                        may_lack = ":" in host and (host,) not in asked_for
                        if not (may_lack and error.errno in _NO_SUCH_ADDRESS):
                            raise
                        self.say("this machine has no IPv6; IPv4 only is served")
            except CannotListen as error:
                for each in opened:
                    self.release(each)
                # A port that was free in one family may be taken in the other.
                in_use = error.errno == errno.EADDRINUSE
                if settings.port_number() or not (opened and tries_left and in_use):
                    raise
            else:
                return opened
        raise AssertionError("the last try returns or raises")

    @abstractmethod
    def open_address(self, host: str, port: int, workers: int) -> list[socket.socket]:
        """Open one address of the shorthands, or raise `CannotListen`."""

    @abstractmethod
    def open_listed(self, workers: int) -> Iterator[OpenPlace]:
        """Open what `--listen` says, one after the other, or raise `CannotListen`."""

    @abstractmethod
    def share_limits(self, workers: int) -> None:
        """Take this process's share of what is limited for all of the service."""

    def places(self) -> list[str]:
        """Return what the settings want opened: another service's sockets will not do."""
        settings = self.settings
        where = [f"{SHORTHAND}={settings.port_number()} on {host}" for host in settings.hosts()]
        return [f"{self.protocol} {each}" for each in (*where, *self.listen_places)]

    def close(self) -> None:
        """Close what is open; what others serve is no longer watched."""
        while self.opened:
            self.release(self.opened.pop())
        self._log_observer.stop()

    def release(self, opened: OpenPlace) -> None:
        """Let go of a place, which other processes may still serve."""
        for skt in opened.sockets:
            skt.close()

    def stopService(self) -> Deferred[None]:
        """Stop listening, answer what was asked within the drain time, and sum up.

        A stop while another is under way waits for the same end; one without a start is over.
        """
        Service.stopService(self)
        if not self._listening:
            return succeed(None)
        is_first = self._stopping is None
        self._stopping = self._stopping or Deferred()
        # One for each caller, who may cancel it.
        stopped: Deferred[None] = Deferred()
        self._stopping.chainDeferred(stopped)
        if is_first:
            Deferred.fromCoroutine(self.end()).addBoth(self._ended)
        return stopped

    @inlineCallbacks
    def _ended(self, result: Any) -> Any:
        """Sum up; the service can be started again."""
        # Coroutines that were cancelled have ended as long as the loop that runs them goes on.
        yield awaiting.cancelled_have_ended()
        self._listening = False
        STOP_SIGNALS.release(self, self.reactor)
        self._log_observer.stop()
        counts = self.counts()
        total = ", ".join(f"{name} {count}" for name, count in counts.items()) or "no connections"
        self.say(f"in total: {total}", event="summary", counts=counts)
        stopping, self._stopping = self._stopping, None
        assert stopping is not None
        stopping.callback(result)
        if self.running:  # It was started again meanwhile.
            try:
                self._start()
            except CannotStart as error:  # Nobody is there to hear it.
                say(str(error), LogLevel.critical)

    @abstractmethod
    async def end(self) -> None: ...

    def counts(self) -> dict[str, int]:
        return self.counters.by_name()

    @property
    def phase(self) -> str:
        """What the service is doing: `not started`, `serving` or `draining`."""
        if self._stopping is not None:
            return "draining"
        return "serving" if self._listening else "not started"

    @abstractmethod
    def levels(self) -> dict[str, int]:
        """Return what metrics show beside the counts, by family of `services.metrics`."""

    @abstractmethod
    def served(self) -> list[str]:
        """Return what is being served, each as the ready line names it."""

    def say_ready(self, address: str) -> None:
        """Say that an address is being served: the only line that a script needs."""
        self.say(
            f"The server is ready to receive: {address} ({self.label})",
            named=False,
            event="ready",
            address=address,
            transform=self.chain.name,
        )
