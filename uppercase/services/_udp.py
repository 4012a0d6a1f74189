"""The UDP service: ports, and the responder that answers their datagrams."""

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import defer
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater

from uppercase.core.events import ISampler, KernelDropped
from uppercase.core.responder import Responder
from uppercase.core.values import printable_address
from uppercase.limits import DatagramLimits
from uppercase.services import base
from uppercase.udp import ResponderProtocol, serve
from uppercase.udp.sockets import kernel_drops, open_for_each, opener_of_string, receive_buffer

if TYPE_CHECKING:
    from uppercase.lab import Experiment

KERNEL_LOOK: Final = 2.0
"""Seconds between looks at how many datagrams the system has dropped: the line comes while the
class still wonders, and costs one system call."""

_KERNEL_WRAPS: Final = 1 << 32  # The kernel's counter of drops starts again at 0 here.


@dataclass(frozen=True, slots=True, kw_only=True)
class UDPSettings(base.Settings):
    """The settings of a UDP service.

    Attributes:
        limits: the bounds of each datagram and of what is kept about clients.
        lab: what is done to datagrams on purpose, or None.
        by_host: number what comes from a host, not from each of its sockets.
    """

    limits: DatagramLimits = field(default_factory=DatagramLimits)
    lab: "Experiment | None" = None
    by_host: bool = False


class UDPService(base.TransformService):
    """Answers datagrams with one chain of transforms on any number of addresses."""

    protocol = "UDP"

    def __init__(self, settings: UDPSettings, reactor: Any = None) -> None:
        super().__init__(settings, reactor)
        clock = self.clock.seconds
        lab = None
        if settings.lab is not None:
            from uppercase.lab import Lab

            lab = Lab(settings.lab, clock, self)
        self.responder = Responder(
            self.chain,
            settings.limits,
            clock=clock,
            observer=self,
            tell_each=_tell_each(settings),
            numbered=bool(settings.observers),
            by_host=settings.by_host,
            lab=lab,
        )
        self.ports: list[Any] = []
        listed = () if settings.inherits else settings.listen
        self._openers = {text: opener_of_string(text) for text in listed}
        # How many datagrams the system has dropped, by the socket that they were for.
        self._kernel: dict[socket.socket, int] = {}
        self._watch = base.Repeated(self._look_at_kernel, self.reactor)

    def listen(self) -> None:
        if not self.settings.inherits:
            self.open_sockets(1)
        for skt in self._opened_sockets():
            self.ports.append(serve(self.reactor, skt, self.responder))

    def open_sockets(self, workers: int) -> None:
        super().open_sockets(workers)
        # Here, as a socket has one count for all processes that serve it, and it outlives them. One
        # from systemd may have dropped some before, which are not this program's.
        self._kernel = {skt: kernel_drops(skt) or 0 for skt in self._opened_sockets()}
        self._watch.start(KERNEL_LOOK, now=False)

    def _opened_sockets(self) -> list[socket.socket]:
        return [skt for each in self.opened for skt in each.sockets]

    def open_address(self, host: str, port: int, workers: int) -> list[socket.socket]:
        return open_for_each(host, port, workers)

    def open_listed(self, workers: int) -> Iterator[base.OpenPlace]:
        for text in self.settings.listen:
            yield base.OpenPlace(text, self._openers[text](workers))

    def announce(self, addresses: Sequence[str]) -> None:
        super().announce(addresses)
        wanted = self.responder.limits.receive_buffer
        held = [receive_buffer(skt) for skt in self._opened_sockets()]
        if (granted := min(held, default=wanted)) < wanted:
            self.say(
                f"the system grants {granted} of the {wanted} bytes of receive buffer asked for "
                "(--rcvbuf; Linux: net.core.rmem_max)"
            )

    def share_limits(self, workers: int) -> None:
        limits = self.responder.limits
        outstanding = base.share(limits.max_outstanding, workers)
        self.responder.limits = replace(limits, max_outstanding=outstanding)

    def served(self) -> list[str]:
        places = [port.getHost() for port in self.ports]
        return [f"UDP {printable_address(each.host, each.port)}" for each in places]

    def levels(self) -> dict[str, int]:
        return {
            "datagrams_received": self.responder.received,
            "datagrams_answered": self.responder.answered,
            "datagrams_awaited": self.responder.outstanding,
        }

    def close(self) -> None:
        self._stop_watching()
        super().close()

    async def end(self) -> None:
        """Answer what has arrived and what is awaited, and stop."""
        # Not from within a batch: a transform that has this stop is to be answered as well.
        await deferLater(self.reactor, 0)
        ports, self.ports = self.ports, []
        await defer.gatherResults([self._drain(port) for port in ports])
        self._stop_watching()
        await defer.gatherResults([defer.maybeDeferred(port.stopListening) for port in ports])

    def _drain(self, port: Any) -> defer.Deferred[Any]:
        drained: defer.Deferred[Any] = port.protocol.drain()
        drained.addTimeout(self.settings.drain, self.reactor)
        # What has no reply by then is counted when the port stops.
        return drained.addErrback(lambda failure: failure.trap(defer.TimeoutError))

    def counts(self) -> dict[str, int]:
        return {
            "received": self.responder.received,
            "answered": self.responder.answered,
            **self.counters.by_name(),
            **self.responder.errors,
        }

    def _look_at_kernel(self) -> None:
        """Report what the kernel has dropped, lest the lab or the transform be blamed."""
        for skt, before in self._kernel.items():
            now = kernel_drops(skt)
            # None where the system does not tell, or the socket is closed.
            if now is not None and now != before:
                self._kernel[skt] = now
                address = printable_address(*skt.getsockname()[:2])
                self.notify(KernelDropped(address, (now - before) % _KERNEL_WRAPS))

    def _stop_watching(self) -> None:
        self._look_at_kernel()
        self._watch.end()


def _tell_each(settings: UDPSettings) -> bool | Callable[[int], bool]:
    """Return whether somebody watches each datagram; a function where samples will do."""
    samplers: list[Any] = [each for each in settings.observers if ISampler.providedBy(each)]
    if settings.log_peers or len(samplers) < len(settings.observers):
        return True
    return (lambda count: any(each.wants(count) for each in samplers)) if samplers else False


udp_service = UDPService
"""What programs call to make a service."""


def udp_protocol(settings: UDPSettings, reactor: Any = None) -> DatagramProtocol:
    """Return what answers the datagrams of a port of your own: `reactor.listenUDP(port, protocol)`.

    It guards, counts and logs as a service does; one protocol is for one port. A port of Twisted's
    does not tell which address a datagram was sent to, so bind it to an address of its own. The
    settings that say where to listen and how to stop are not used.
    """
    service = UDPService(settings, reactor)
    protocol = ResponderProtocol(service.responder, service.reactor)
    protocol.on_stopped = service.close
    return protocol
