"""What a service can be told, as frozen records. No defaults of their own: those are limits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uppercase.core.events import IObserver
from uppercase.core.framing import AUTO
from uppercase.core.values import LOOPBACK, DeclaredPeers, hosts_of
from uppercase.lab import NO_LAB, TCPLab
from uppercase.limits import DEFAULT_PORT, DRAIN, DRAIN_QUIET, MAX_OUTPUT, DatagramLimits, Limits

if TYPE_CHECKING:
    from uppercase.lab import Experiment
    from uppercase.registry import Listing


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
        inherits: another process opens the addresses; see `TransformService.inherited`.
        observers: told of each datagram and each chunk, beside the service's own.
        lab_notes: lines for the log that say what the lab does.
        found: what a scan of the doors has found already; else there is one for the service.

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
    found: "Listing | None" = field(default=None, repr=False, compare=False)

    def hosts(self) -> tuple[str, ...]:
        """Return the IP addresses to listen on, apart from those of `listen`.

        Raises:
            uppercase.errors.BadValue: an interface is none.
        """
        if self.listen and self.port is None and not self.interfaces:
            return ()
        return hosts_of(self.interfaces) or LOOPBACK

    def port_number(self) -> int:
        return DEFAULT_PORT if self.port is None else self.port


@dataclass(frozen=True, slots=True, kw_only=True)
class TCPSettings(Settings):
    """The settings of a TCP service.

    Attributes:
        framing: `auto` or a name of `uppercase.core.framing.FRAMINGS`.
        proxy_from: who must send a PROXY header, and nobody else is served; None: nobody must, and
            a header is input like any other.
        drain_quiet: seconds that a connection has to be quiet before a stop ends it.
        limits: the bounds of each connection, and of all of them.
        lab: what happens to each connection on purpose.
    """

    framing: str = AUTO
    drain_quiet: float = DRAIN_QUIET
    proxy_from: DeclaredPeers | None = None
    limits: Limits = field(default_factory=Limits)
    lab: TCPLab = NO_LAB


@dataclass(frozen=True, slots=True, kw_only=True)
class UDPSettings(Settings):
    """The settings of a UDP service.

    Attributes:
        limits: the bounds of each datagram and of what is kept about clients.
        lab: what is done to datagrams on purpose, or None.
    """

    limits: DatagramLimits = field(default_factory=DatagramLimits)
    lab: "Experiment | None" = None
