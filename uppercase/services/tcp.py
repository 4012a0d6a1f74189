"""The TCP service: endpoints, and the factory that serves their connections."""

import errno
import socket
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.python.failure import Failure

from uppercase.addresses import address_is_missing, in_use
from uppercase.errors import CannotListen
from uppercase.events import AcceptFailed
from uppercase.framing import choose_framing, make_framer
from uppercase.limits import FREE_PORT_TRIES, Limits
from uppercase.operations.descriptors import connections_possible
from uppercase.operations.drain import Drain, accept_waiting
from uppercase.pipeline import MessagePipeline, StreamPipeline
from uppercase.services.base import Observers, TransformService, make_chain
from uppercase.services.settings import TCPSettings
from uppercase.session import AwaitReply, Conversation, MessageConversation, StreamConversation
from uppercase.tcp.accepting import AcceptGuard
from uppercase.tcp.lab import NO_LAB
from uppercase.tcp.listening import (
    bind,
    endpoint_of_socket,
    endpoint_of_string,
    listen_error,
    port_name,
)
from uppercase.tcp.protocol import OpenConversation, TransformFactory

__all__ = ["TCPService", "tcp_service"]


def tcp_service(settings: TCPSettings, reactor: Any = None) -> "TCPService":
    """Make a TCP service; it listens when it is started.

    Args:
        settings: what to serve, where and within which bounds.
        reactor: Twisted's unless a test has its own.

    Raises:
        uppercase.errors.UserError: something in the settings is wrong.
        uppercase.errors.PluginError: a transform cannot be loaded.
    """
    if reactor is None:
        from twisted.internet import reactor
    observers = Observers("TCP", reactor, settings.log_peers)
    chain = make_chain(settings.transforms, settings.max_output, observers.slow_call)
    framing = choose_framing(settings.framing, chain.streams)
    factory = TransformFactory(
        conversation_opener(framing, chain, settings.limits),
        settings.limits,
        reactor,
        observers,
        settings.lab,
    )
    settings.hosts()
    endpoints = [(text, endpoint_of_string(reactor, text)) for text in settings.listen]
    return TCPService(reactor, settings, observers, factory, endpoints, chain.name)


def conversation_opener(framing: str, chain: MessagePipeline, limits: Limits) -> OpenConversation:
    """Give what makes a connection's conversation."""
    if framing == "stream":
        return lambda await_reply, on_ready: StreamConversation(cast(StreamPipeline, chain))

    def open_conversation(await_reply: AwaitReply, on_ready: Callable[[], None]) -> Conversation:
        return MessageConversation(
            make_framer(framing, max_length=limits.max_length),
            chain,
            await_reply=await_reply,
            on_ready=on_ready,
            window=limits.async_window,
        )

    return open_conversation


class TCPService(TransformService):
    """Serves one chain of transforms on any number of addresses.

    Attributes:
        factory: serves the connections, knows them.
        ports: what is listening.
    """

    def __init__(
        self,
        reactor: Any,
        settings: TCPSettings,
        observers: Observers,
        factory: TransformFactory,
        endpoints: list[tuple[str, IStreamServerEndpoint]],
        chain: str,
    ) -> None:
        super().__init__(reactor, settings, observers)
        self.factory = factory
        self.ports: list[IListeningPort] = []
        self._guards: list[AcceptGuard] = []
        self._endpoints = endpoints
        self._chain = chain

    def listen(self) -> None:
        """Open the shorthands' addresses, then the endpoints."""
        self._fit_to_descriptors()
        if self.factory.lab != NO_LAB:
            self.log.info("lab: {options}", options=str(self.factory.lab))
        endpoints = [
            (f"port {self.settings.port_number()}", endpoint_of_socket(self.reactor, skt))
            for skt in self._bind_all()
        ]
        for description, endpoint in [*endpoints, *self._endpoints]:
            failures: list[Failure] = []
            listening = endpoint.listen(self.factory)
            listening.addCallbacks(self._opened, failures.append)
            if failures:
                raise listen_error(description, failures[0])
            if not listening.called:
                # An endpoint that has to wait for something, as some third-party ones do.
                listening.addBoth(partial(self._check_late, description, failures))

    def close(self) -> None:
        """Stop listening; connections go on."""
        self._stop_guards()
        while self.ports:
            self.ports.pop().stopListening()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop listening, answer what was asked, and end within the drain time."""
        yield maybeDeferred(Service.stopService, self)
        ports, self.ports = self.ports, []
        for port in ports:
            accept_waiting(port)
        self._stop_guards()
        yield gatherResults([maybeDeferred(port.stopListening) for port in ports])
        drain = Drain(self.reactor, self.settings.drain, self.factory.connections)
        self.factory.on_closed = drain.closed
        yield drain.done
        self.factory.on_closed = None
        self.stopped()

    def _fit_to_descriptors(self) -> None:
        wanted = self.factory.limits.max_connections
        possible = connections_possible(wanted)
        self.factory.admission.max_connections = possible
        if possible < wanted:
            self.log.warn(
                "{possible} connections at the most instead of {wanted} (--max-connections), "
                "because the process may have few files open; a higher limit (ulimit -n) allows "
                "more",
                possible=possible,
                wanted=wanted,
            )

    def _stop_guards(self) -> None:
        while self._guards:
            self._guards.pop().stop()

    def _accept_failed(self, error: OSError) -> None:
        name = errno.errorcode.get(error.errno or 0, "?")
        self.observers.notify(AcceptFailed(name, error.strerror or ""))

    def _opened(self, port: IListeningPort) -> None:
        self.ports.append(port)
        if hasattr(port, "socket"):
            self._guards.append(AcceptGuard(port, self.reactor, self._accept_failed))
        self.ready(port_name(port), self._chain)

    def _check_late(self, description: str, failures: list[Failure], _: object) -> None:
        """End the program if an endpoint has failed after the start."""
        if failures:
            self.log.critical("{error}", error=listen_error(description, failures[0]))
            self.reactor.stop()

    def _bind_all(self) -> list[socket.socket]:
        """Give a listening socket for each host of the shorthands, all on one port."""
        hosts, port = self.settings.hosts(), self.settings.port_number()
        for tries_left in reversed(range(FREE_PORT_TRIES)):
            sockets: list[socket.socket] = []
            try:
                for host in hosts:
                    self._bind_into(sockets, host, port)
                return sockets
            except CannotListen as error:
                for skt in sockets:
                    skt.close()
                # Port 0 took a free port of one family that is taken in the other.
                if port or not sockets or not tries_left or not in_use(error):
                    raise
        return []

    def _bind_into(self, sockets: list[socket.socket], host: str, port: int) -> None:
        """Open one more socket, on the port of those before it if there are any."""
        if port == 0 and sockets:
            port = sockets[0].getsockname()[1]
        try:
            sockets.append(bind(host, port))
        except CannotListen as error:
            if not (address_is_missing(error) and self.settings.may_do_without(host)):
                raise
            self.log.info("this machine has no IPv6; serving IPv4 only")
