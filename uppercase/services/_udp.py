"""The UDP service: ports, and the responder that answers their datagrams."""

import socket
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import (
    Deferred,
    TimeoutError,
    gatherResults,
    inlineCallbacks,
    maybeDeferred,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall

from uppercase.core.datagram import Responder
from uppercase.core.events import KernelDropped
from uppercase.core.values import printable_address
from uppercase.errors import CannotListen
from uppercase.lab import Experiment, Lab
from uppercase.services._base import (
    SHORTHAND,
    Inherited,
    OpenPlace,
    TransformService,
    open_on_one_port,
    share,
)
from uppercase.services._settings import UDPSettings
from uppercase.udp import (
    AdoptedUDPEndpoint,
    IDatagramEndpoint,
    Port,
    ResponderProtocol,
    UDPEndpoint,
    datagram_endpoint_from_string,
    drain,
    listen,
)

KERNEL_LOOK: Final = 2.0
"""Seconds between looks at how many datagrams the system had no room for: a line while the class
still wonders, for one system call."""

_KERNEL_COUNTS: Final = 1 << 32
"""The kernel's counter of drops starts again at 0 here."""


class UDPService(TransformService):
    """Answers datagrams with one chain of transforms on any number of addresses.

    Attributes:
        responder: decides what is answered, and counts.
        ports: what is listening.
    """

    protocol = "UDP"

    def __init__(self, settings: UDPSettings, reactor: Any = None) -> None:
        super().__init__(settings, reactor)
        clock = self.clock.seconds
        # Whoever watches each datagram wants its number: without a lab, of one that does nothing.
        experiment = settings.lab or (Experiment(seed=0) if settings.observers else None)
        self.responder = Responder(
            self.chain,
            settings.limits,
            clock=clock,
            observer=self,
            tell_each=settings.log_peers or bool(settings.observers),
            lab=None if experiment is None else Lab(experiment, clock, self),
        )
        self.ports: list[Any] = []
        self._endpoints = [
            datagram_endpoint_from_string(self.reactor, text)
            for text in (() if settings.inherits else settings.listen)
        ]
        self._kernel_drops: dict[Any, int] = {}
        self._unwatched: set[Any] = set()
        self._errors: Counter[str] = Counter()
        self._kernel_watch = LoopingCall(self._look_at_kernel)
        self._kernel_watch.clock = self.reactor

    def listen(self) -> None:
        """Open the shorthands' addresses, then the endpoints; or adopt what was inherited."""
        if self.inherited is not None:
            for each in self.inherited:
                self._adopt(each)
        else:
            self.ports += open_on_one_port(
                self.settings,
                lambda host, port: self._open(UDPEndpoint(self.reactor, port, host)),
                lambda port: int(port.getHost().port),
                lambda port: port.stopListening(),
                self.log,
            )
            for endpoint in self._endpoints:
                self.ports.append(self._open(endpoint))
        self._kernel_watch.start(KERNEL_LOOK, now=False)

    def _adopt(self, inherited: Inherited) -> None:
        port = self._open(AdoptedUDPEndpoint(self.reactor, inherited.socket.detach()))
        self.ports.append(port)
        # What was dropped before has been told of, by another process.
        self._kernel_drops[port] = port.kernel_drops() or 0
        if not inherited.alone:
            self._unwatched.add(port)

    def listen_places(self) -> list[str]:
        return list(self.settings.listen)

    def open_sockets(self, workers: int) -> list[OpenPlace]:
        opened = [
            _place(SHORTHAND, sockets)
            for sockets in open_on_one_port(
                self.settings,
                lambda host, port: UDPEndpoint(self.reactor, port, host).open(workers),
                lambda sockets: int(sockets[0].getsockname()[1]),
                _close_all,
                self.log,
            )
        ]
        try:
            for text, endpoint in zip(self.settings.listen, self._endpoints, strict=True):
                opened.append(_place(text, endpoint.open(workers)))
        except CannotListen:
            for each in opened:
                each.release()
            raise
        return opened

    def share_limits(self, workers: int) -> None:
        limits = self.responder.limits
        self.responder.limits = replace(
            limits, max_outstanding=share(limits.max_outstanding, workers)
        )

    def served(self) -> list[str]:
        """Return the addresses of the open ports."""
        return [f"UDP {_name(port)}" for port in self.ports]

    def levels(self) -> dict[str, int]:
        """Return what the responder counts of all datagrams."""
        return {
            "datagrams_received": self.responder.received,
            "datagrams_answered": self.responder.answered,
            "datagrams_awaited": self.responder.outstanding,
        }

    def close(self) -> None:
        """Stop listening."""
        while self.ports:
            self.ports.pop().stopListening()

    @inlineCallbacks
    def end(self) -> Generator[Deferred[Any], Any, None]:
        """Answer what has arrived and what is awaited, within the drain time, and stop."""
        ports, self.ports = self.ports, []
        yield gatherResults([self._drain(port) for port in ports])
        self._look_at_kernel(ports)
        self._kernel_watch.stop()
        yield gatherResults([maybeDeferred(port.stopListening) for port in ports])
        self._kernel_drops.clear()
        self._unwatched.clear()
        for port in ports:
            self._errors += _errors_of(port)

    def _drain(self, port: Any) -> Deferred[Any]:
        drained: Deferred[Any] = drain(port).addTimeout(self.settings.drain, self.reactor)
        # What has no reply by then is counted when the port stops.
        return drained.addErrback(lambda failure: failure.trap(TimeoutError))

    def counts(self) -> dict[str, int]:
        """Return the counts so far, with those of all datagrams first."""
        errors = sum(map(_errors_of, self.ports), self._errors)
        return {
            "received": self.responder.received,
            "answered": self.responder.answered,
            **self.counters.by_name(),
            **{name: errors[name] for name in sorted(errors)},
        }

    def _look_at_kernel(self, ports: Sequence[Any] | None = None) -> None:
        """Report what the kernel had no room for, lest the lab or the transform be blamed."""
        for port in self.ports if ports is None else ports:
            # A reactor without file descriptors has ports of its own, which do not tell.
            tells = isinstance(port, Port) and port not in self._unwatched
            dropped = (port.kernel_drops() if tells else None) or 0
            new = (dropped - self._kernel_drops.get(port, 0)) % _KERNEL_COUNTS
            if new:
                self.notify(KernelDropped(_name(port), new))
                self._kernel_drops[port] = dropped

    def _open(self, endpoint: IDatagramEndpoint) -> Any:
        return listen(self.reactor, endpoint, self.responder)


def _errors_of(port: Any) -> Counter[str]:
    """Return what the system refused, as `send-error EPERM` and `receive-error ENOMEM`."""
    found: Counter[str] = Counter()
    if isinstance(port, Port):
        for kind, errors in (("send", port.send_errors), ("receive", port.receive_errors)):
            found.update({f"{kind}-error {name}": count for name, count in errors.items()})
    return found


def _place(place: str, sockets: list[socket.socket]) -> OpenPlace:
    return OpenPlace(place, sockets, lambda: _close_all(sockets))


def _close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _name(port: Any) -> str:
    address = port.getHost()
    return printable_address(address.host, address.port)


def udp_protocol(settings: UDPSettings, reactor: Any = None) -> DatagramProtocol:
    """Return what answers the datagrams of a port of your own: `reactor.listenUDP(port, protocol)`.

    It guards, counts and logs as a service does; one protocol is for one port. A port of Twisted's
    does not tell to which address a datagram was sent, so bind it to an address of its own.

    Args:
        settings: as for `udp_service`; where to listen and how to stop is not looked at.
        reactor: as for `udp_service`.

    Raises:
        uppercase.errors.UppercaseError: as `udp_service` does.
    """
    service = UDPService(settings, reactor)
    return ResponderProtocol(service.responder, service.reactor)
