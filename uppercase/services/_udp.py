"""The UDP service: ports, and the responder that answers their datagrams."""

import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import defer
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall

from uppercase import udp
from uppercase.core.datagram import Responder
from uppercase.core.events import ISampler, KernelDropped
from uppercase.core.values import printable_address
from uppercase.limits import DatagramLimits
from uppercase.services.base import (
    SHORTHAND,
    OpenPlace,
    Settings,
    TransformService,
    open_on_one_port,
    share,
)
from uppercase.udp.sockets import kernel_drops

if TYPE_CHECKING:
    from uppercase.lab import Experiment

KERNEL_LOOK: Final = 2.0
"""Seconds between looks at how many datagrams the system had no room for: a line while the class
still wonders, for one system call."""

_KERNEL_WRAPS: Final = 1 << 32  # The kernel's counter of drops starts again at 0 here.


@dataclass(frozen=True, slots=True, kw_only=True)
class UDPSettings(Settings):
    """The settings of a UDP service.

    Attributes:
        limits: the bounds of each datagram and of what is kept about clients.
        lab: what is done to datagrams on purpose, or None.
    """

    limits: DatagramLimits = field(default_factory=DatagramLimits)
    lab: "Experiment | None" = None


class UDPService(TransformService):
    """Answers datagrams with one chain of transforms on any number of addresses."""

    protocol = "UDP"

    def __init__(self, settings: UDPSettings, reactor: Any = None) -> None:
        super().__init__(settings, reactor)
        clock = self.clock.seconds
        lab = None
        if settings.lab is not None or settings.observers:
            from uppercase.lab import Experiment, Lab

            # Whoever watches each datagram wants its number: without a lab, of one that does none.
            lab = Lab(settings.lab or Experiment(seed=0), clock, self)
        tell_each = _tell_each(settings)
        self.responder = Responder(
            self.chain, settings.limits, clock=clock, observer=self, tell_each=tell_each, lab=lab
        )
        self.ports: list[Any] = []
        self._endpoints = [
            udp.datagram_endpoint_from_string(self.reactor, text)
            for text in (() if settings.inherits else settings.listen)
        ]
        self.listen_places = settings.listen
        self._errors: Counter[str] = Counter()
        # A socket's name, what asks the kernel, and what it has told; None of one that is closed.
        self._kernel: list[tuple[str, Callable[[], int | None], int]] = []
        self._watch = LoopingCall(self._look_at_kernel)
        self._watch.clock = self.reactor

    def listen(self) -> None:
        """Open the shorthands' addresses, then the endpoints; or adopt what was inherited."""
        if self.inherited is not None:
            for _, skt in self.inherited:
                self.ports.append(self._open(udp.AdoptedUDPEndpoint(self.reactor, skt.detach())))
            return
        self.ports += open_on_one_port(
            self.settings,
            lambda host, port: self._open(udp.UDPEndpoint(self.reactor, port, host)),
            lambda port: int(port.getHost().port),
            lambda port: port.stopListening(),
        )
        for endpoint in self._endpoints:
            self.ports.append(self._open(endpoint))
        # A reactor without file descriptors has ports of its own, which do not tell.
        telling = (port for port in self.ports if isinstance(port, udp.Port))
        self._watch_kernel((_name(port), port.kernel_drops) for port in telling)

    def open_sockets(self, workers: int) -> list[OpenPlace]:
        opened = super().open_sockets(workers)
        # Here, as a socket's count is one for all processes that serve it, and outlives them.
        self._watch_kernel(
            (printable_address(*skt.getsockname()[:2]), partial(kernel_drops, skt))
            for place in opened
            for skt in place.sockets
        )
        return opened

    def open_address(self, host: str, port: int, workers: int) -> OpenPlace:
        return _place(SHORTHAND, udp.UDPEndpoint(self.reactor, port, host).open(workers))

    def open_listed(self, workers: int) -> Iterator[OpenPlace]:
        for text, endpoint in zip(self.settings.listen, self._endpoints, strict=True):
            yield _place(text, endpoint.open(workers))

    def share_limits(self, workers: int) -> None:
        limits = self.responder.limits
        outstanding = share(limits.max_outstanding, workers)
        self.responder.limits = replace(limits, max_outstanding=outstanding)

    def served(self) -> list[str]:
        return [f"UDP {_name(port)}" for port in self.ports]

    def levels(self) -> dict[str, int]:
        return {
            "datagrams_received": self.responder.received,
            "datagrams_answered": self.responder.answered,
            "datagrams_awaited": self.responder.outstanding,
        }

    def close(self) -> None:
        self._stop_watching()
        while self.ports:
            self.ports.pop().stopListening()

    @defer.inlineCallbacks
    def end(self) -> Generator[defer.Deferred[Any], Any, None]:
        """Answer what has arrived and what is awaited, and stop."""
        ports, self.ports = self.ports, []
        yield defer.gatherResults([self._drain(port) for port in ports])
        self._stop_watching()
        yield defer.gatherResults([defer.maybeDeferred(port.stopListening) for port in ports])
        for port in ports:
            self._errors += _errors_of(port)

    def _drain(self, port: Any) -> defer.Deferred[Any]:
        drained: defer.Deferred[Any] = udp.drain(port).addTimeout(self.settings.drain, self.reactor)
        # What has no reply by then is counted when the port stops.
        return drained.addErrback(lambda failure: failure.trap(defer.TimeoutError))

    def counts(self) -> dict[str, int]:
        errors = sum(map(_errors_of, self.ports), self._errors)
        return {
            "received": self.responder.received,
            "answered": self.responder.answered,
            **self.counters.by_name(),
            **{name: errors[name] for name in sorted(errors)},
        }

    def _watch_kernel(self, counts: Iterable[tuple[str, Callable[[], int | None]]]) -> None:
        """Report what the kernel has no room for, lest the lab or the transform be blamed."""
        # A socket from systemd may have dropped some before, which are not this program's.
        self._kernel = [(name, count, count() or 0) for name, count in counts]
        self._watch.start(KERNEL_LOOK, now=False)

    def _look_at_kernel(self) -> None:
        before = self._kernel
        self._kernel = [(name, count, count() or 0) for name, count, _ in before]
        for (name, _, now), (*_, then) in zip(self._kernel, before, strict=True):
            if now != then:
                self.notify(KernelDropped(name, (now - then) % _KERNEL_WRAPS))

    def _stop_watching(self) -> None:
        if self._watch.running:
            self._look_at_kernel()
            self._watch.stop()

    def _open(self, endpoint: udp.IDatagramEndpoint) -> Any:
        return udp.listen(self.reactor, endpoint, self.responder)


def _tell_each(settings: UDPSettings) -> bool | Callable[[int], bool]:
    """Return whether somebody watches each datagram; a function where samples will do."""
    samplers: list[Any] = [each for each in settings.observers if ISampler.providedBy(each)]
    if settings.log_peers or settings.lab is not None or len(samplers) < len(settings.observers):
        return settings.log_peers or bool(settings.observers)
    return (lambda count: any(each.wants(count) for each in samplers)) if samplers else False


def _errors_of(port: Any) -> Counter[str]:
    """Return what the system refused, as `send-error EPERM` and `receive-error ENOMEM`."""
    found: Counter[str] = Counter()
    if isinstance(port, udp.Port):
        for kind, errors in (("send", port.send_errors), ("receive", port.receive_errors)):
            found.update({f"{kind}-error {name}": count for name, count in errors.items()})
    return found


def _place(place: str, sockets: list[socket.socket]) -> OpenPlace:
    def release() -> None:
        for each in sockets:
            each.close()

    return OpenPlace(place, sockets, release)


def _name(port: Any) -> str:
    address = port.getHost()
    return printable_address(address.host, address.port)


udp_service = UDPService
"""What programs call; that it is a class is nobody's matter."""


def udp_protocol(settings: UDPSettings, reactor: Any = None) -> DatagramProtocol:
    """Return what answers the datagrams of a port of your own: `reactor.listenUDP(port, protocol)`.

    It guards, counts and logs as a service does; one protocol is for one port. A port of Twisted's
    does not tell to which address a datagram was sent, so bind it to an address of its own. Of the
    settings, where to listen and how to stop is not looked at.
    """
    service = UDPService(settings, reactor)
    return udp.ResponderProtocol(service.responder, service.reactor)
