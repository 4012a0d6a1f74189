"""Where connections come from: Twisted's endpoint strings, and accepting.

Accepting goes on when the system has no descriptor or no memory for one more connection. Twisted
accepts and closes clients then, or, for some errors, tries again at once and forever, with a log
line each time. Here the port rests for a moment; clients wait in the kernel's queue.
"""

import errno
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReadDescriptor,
)
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.values import (
    DeclaredPeers,
    lacks_argument,
    printable_address,
    split_escaped,
    unescape,
)
from uppercase.errors import BadValue, CannotListen
from uppercase.limits import MAX_PORT
from uppercase.tcp._quick import hub_of, prompt
from uppercase.tcp.factory import TransformFactory
from uppercase.tcp.kernel import admit, admit_nobody
from uppercase.tcp.opening import BACKLOG, OPENER, open_endpoint, port_of

if TYPE_CHECKING:
    from ssl import SSLContext

_ACCEPT_PAUSE: Final = 0.1
"""Seconds that a port rests when the system has no descriptor or memory for a new connection; they
double as long as that goes on."""

_ACCEPT_PAUSE_MOST: Final = 1.0
"""The longest rest of a port: clients that wait in its queue do not notice a second."""

_ACCEPT_BATCH: Final = 100
"""Connections that are accepted before others have their turn (Twisted's own number)."""

_TURN_OF_OTHERS: Final = 0.002
"""Seconds that other processes have to accept in our place."""

_LATE_BATCH: Final = 16
"""Connections that are accepted when they have not: otherwise one process that hangs would hold us
to as many a second as there are such turns in it."""

# The client that was to be accepted is gone, or a packet filter has refused it.
_ITS_OWN_FAULT: Final = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EPROTO})

_OURS: Final = ("tcp:", "tcp6:", "unix:", "systemd:")
"""Endpoints of Twisted's whose sockets `opening` opens; those of other kinds open their own."""

_TLS_FORM: Final = "tls:12443:privateKey=key.pem:certKey=cert.pem[:extraCertChain=chain.pem]"
_TLS_KEYS: Final = ("privateKey", "certKey", "extraCertChain", "dhParameters")


def with_stages(
    served: TransformFactory, proxies: DeclaredPeers | None, context: "SSLContext | None" = None
) -> IProtocolFactory:
    """Return a factory of these stages in this order: PROXY header, TLS, what is served."""
    factory: IProtocolFactory = served
    if context is not None:
        from uppercase.tcp._tls import TLSFactory

        factory = TLSFactory(context, served)
    if proxies is not None:
        from uppercase.tcp._proxy import ProxyHeaderFactory

        factory = ProxyHeaderFactory(proxies, factory, served)
    return factory


class Listener(NamedTuple):
    """A place to listen at, with the stages that its connections go through.

    Attributes:
        description: as the user wrote it.
        place: the part of the description that says what is bound.
        proxies: the peers that must send a PROXY header, if any.
        context: key and certificate, if they speak TLS.
        open_socket: opens the place, or raises `CannotListen`; None until the socket is there that
            another process has opened.
        endpoint: where connections come from if that is none of ours.
    """

    description: str
    place: str
    proxies: DeclaredPeers | None
    context: "SSLContext | None" = None
    open_socket: Callable[[], socket.socket] | None = None
    endpoint: Any = None

    def listen(
        self,
        served: Any,
        reactor: Any,
        on_scarce: Callable[[OSError], None],
        waits: Callable[[], bool] | None = None,
    ) -> Deferred[IListeningPort]:
        """Listen, and have an `Acceptor` accept; what is no port of Twisted's does so by itself."""

        def accept(port: IListeningPort) -> IListeningPort:
            if not isinstance(port, Port):
                return port
            try:
                acceptor = Acceptor(port, hub_of(reactor), on_scarce, waits)
            except BaseException:  # Such as for want of a descriptor.
                port.stopListening()
                raise
            acceptor.startListening()
            return acceptor

        factory = with_stages(served, self.proxies, self.context)
        listening: Deferred[IListeningPort]
        if self.open_socket is None:
            listening = maybeDeferred(self.endpoint.listen, factory)
        else:
            listening = maybeDeferred(self.open_socket).addCallback(port_of, factory, reactor)
        return listening.addCallback(accept)

    def name(self, port: IListeningPort) -> str:
        """Return what the ready line calls its port: `TCP 127.0.0.1:12000`, `UNIX /run/x`."""
        address: Any = port.getHost()
        if hasattr(address, "host"):
            protocol = "TCP" if self.context is None else "TLS"
            return f"{protocol} {printable_address(address.host, address.port)}"
        if not hasattr(address, "name"):
            return self.description  # It is of a third party's own kind.
        return f"UNIX {os.fsdecode(address.name)}"


class _ListeningSocket(socket.socket):
    """A socket that knows its family and type: `accept` would look both up in Enums each time."""

    __slots__ = ("family", "type")

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.family = super().family  # type: ignore[misc] # read-only there
        self.type = super().type  # type: ignore[misc]


@implementer(IListeningPort, IReadDescriptor)
class Acceptor:
    """Accepts the connections of one of Twisted's ports in its place.

    The port still owns the socket and the factory, and its class makes the transports; only the
    reactor no longer tells it that somebody is waiting. Any port of Twisted's will do.

    Args:
        port: is listening.
        reactor: watches the acceptor and the transports that it makes.
        on_scarce: told the system's error each time that accepting has to rest.
        waits: called when somebody is there, returns whether other processes should accept first;
            they have a moment for that. One client is accepted at a time then, to leave them some.
    """

    _log = Logger("uppercase")

    def __init__(
        self,
        port: Port,
        reactor: Any,
        on_scarce: Callable[[OSError], None],
        waits: Callable[[], bool] | None = None,
    ) -> None:
        self._port = port
        self._host: IAddress = port.getHost()
        self._reactor = reactor
        self._on_scarce = on_scarce
        self._waits = waits
        self._has_waited = False
        self._admits = True
        self._batch = 1
        self._alone = 0
        self._pause = _ACCEPT_PAUSE
        self._call: IDelayedCall | None = None
        # A descriptor of our own: reactors know readers by their descriptors.
        self._socket = _ListeningSocket(fileno=os.dup(port.fileno()))
        self._socket.setblocking(False)
        self._family = self._socket.family
        # Invariant: until nobody waits, a client that is accepted may have come before the option.
        self._came_before = self._family != socket.AF_UNIX
        if self._came_before:
            # On Linux, those that it accepts have it too, without a call for each.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._make = prompt(port.transport)

    def startListening(self) -> None:
        """Accept from now on."""
        self._port.stopReading()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[Any]:
        """Accept no more, and close the port."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._reactor.removeReader(self)
        self._socket.close()
        return maybeDeferred(self._port.stopListening)

    def getHost(self) -> IAddress:
        return self._host

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return str(self._port.logPrefix())

    def connectionLost(self, reason: Failure) -> None:
        if isinstance(reason.value, MemoryError):  # It was raised by `doRead`.
            self._rest(reason.value)
        else:
            self.stopListening()

    def doRead(self) -> None:
        """Accept the clients that wait, up to a batch."""
        if self._waits is None:
            # After a lone connection we skip the second `accept`, except every eighth time.
            self._alone += 1
            found_all = self._accept(self._batch)
            if self._batch > 1 or self._alone % 8 == 0:
                self._batch = min(2 * self._batch, _ACCEPT_BATCH) if found_all else 1
        elif self._has_waited:
            self._has_waited = False
            self._accept(_LATE_BATCH)
        elif self._waits():
            self._has_waited = True
            self._reactor.removeReader(self)
            self._call = self._reactor.callLater(_TURN_OF_OTHERS, self._go_on)
        else:
            self._accept(1)

    def admit_nobody(self) -> None:
        """Begin no more handshakes, in any process, so that closing the socket loses nobody."""
        self._admits = False
        admit_nobody(self._socket)

    def accept_waiting(self) -> None:
        """Accept the connections that wait in the queue, which closing it would reset."""
        if self._socket.fileno() >= 0:  # The reactor, or a transform, may have closed it.
            self._accept(1 << 16)  # More than any queue holds, whatever its `backlog=`.

    def _accept(self, most: int) -> bool:
        """Accept up to that many; tell whether they were there."""
        for _ in range(most):
            try:
                skt, address = self._socket.accept()
            except BlockingIOError:
                self._came_before = False
                return False
            except OSError as error:
                if error.errno in _ITS_OWN_FAULT:
                    continue
                self._rest(error)
                return False
            self._pause = _ACCEPT_PAUSE
            if self._came_before:
                with suppress(OSError):  # such as for a client that is gone
                    skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._serve(skt, address)
            except Exception as error:
                # Invariant: nothing is raised to the reactor, which would close the port for good.
                skt.close()
                if isinstance(error, MemoryError):
                    self._rest(error)
                    return False
                self._log.failure("a connection could not be served")
        return True

    def _serve(self, skt: socket.socket, address: Any) -> None:
        """Connect a protocol, as Twisted's port does, but to a transport that writes at once."""
        port = self._port
        if self._family == socket.AF_INET6:
            # With the scope of a link-local address.
            flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
            address = (socket.getnameinfo(address, flags)[0], *address[1:])
        assert port.factory is not None
        protocol = port.factory.buildProtocol(_address_of(self._family, address))
        # Ours never refuse by None.
        assert protocol is not None
        number = port.sessionno
        port.sessionno = number + 1
        transport = self._make(skt, protocol, address, port, number, self._reactor)
        if not self._admits:
            admit(transport)
        try:
            protocol.makeConnection(transport)
        except Exception:
            # Before the socket is closed: the next with its number would be taken for this one.
            transport.connectionLost(Failure())
            raise

    def _rest(self, error: OSError | MemoryError) -> None:
        if isinstance(error, MemoryError):
            error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        if self._call is None:
            self._reactor.removeReader(self)
            self._call = self._reactor.callLater(self._pause, self._go_on)
            self._pause = min(2 * self._pause, _ACCEPT_PAUSE_MOST)
            self._on_scarce(error)

    def _go_on(self) -> None:
        self._call = None
        try:
            self._reactor.addReader(self)
        except (OSError, MemoryError) as error:
            self._rest(error)


def _address_of(family: int, address: Any) -> IAddress:
    if family == socket.AF_UNIX:
        return UNIXAddress(address or None)
    return (IPv6Address if family == socket.AF_INET6 else IPv4Address)("TCP", *address)


def listener_of_string(
    reactor: Any, description: str, proxies: DeclaredPeers | None = None
) -> Listener:
    """Return the listener that a Twisted endpoint string describes, by default with our backlog.

    `tls:` and `ssl:` take the same arguments as Twisted's `ssl:`, and become our TLS over `tcp:`.
    With None for a reactor there is no endpoint: another process has to open the socket.

    Raises:
        BadValue: the string is not one, or something in it cannot be used; in one sentence.
    """
    kind, colon, rest = description.partition(":")
    kind = kind.lower()  # Twisted takes `TCP6:` and `Systemd:`, too.
    plain = kind + colon + rest
    if kind == "haproxy":
        raise BadValue(
            f"got {description!r}, but any client could send a PROXY header there; name the "
            f"proxies instead: --listen={rest or f'tcp:{MAX_PORT}'} --proxy-from=ADDRESS,..."
        )
    if kind == "stdio":
        raise BadValue(
            f"got {description!r}, where nobody can connect; to answer standard input no server is "
            "needed: uppercase transforms try NAME"
        )
    context = None
    if kind in ("tls", "ssl"):
        from uppercase.tcp._tls import server_context

        plain, keys = _split_tls(description)
        key = keys.get("privateKey", "server.pem")
        context = server_context(
            key, keys.get("certKey", key), keys.get("extraCertChain"), keys.get("dhParameters")
        )
    if lacks_argument(plain, "backlog"):
        plain = f"{plain}:backlog={BACKLOG}"
    listener = Listener(description, plain, proxies, context)
    if reactor is None:
        return listener
    # Imported here: it brings in all of TLS, and a service of one port does without.
    from twisted.internet.endpoints import serverFromString

    ours = plain.startswith(_OURS)
    try:
        endpoint: Any = serverFromString(OPENER if ours else reactor, plain)
    except Exception as error:  # The parsers of endpoint strings may raise anything for bad ones.
        if kind == "systemd" and isinstance(error, LookupError):
            # Not before it is to be opened: a check of the options has none of systemd's sockets.
            return listener._replace(open_socket=partial(_not_passed, description))
        raise _bad_description(description, kind, error) from error
    if ours:
        return listener._replace(open_socket=partial(open_endpoint, description, endpoint))
    return listener._replace(endpoint=endpoint)


def _split_tls(description: str) -> tuple[str, dict[str, str]]:
    """Split a TLS description into the `tcp:` one below it and what TLS is to use."""
    below, keys = ["tcp"], {}
    for field in filter(None, split_escaped(description)[1:]):
        name, equals, value = field.partition("=")
        if equals and name in _TLS_KEYS:
            keys[name] = unescape(value)
        elif equals and name == "sslmethod":
            raise BadValue(
                f"got {description!r} with sslmethod, which is not accepted; TLS 1.2 and every "
                "newer version are offered"
            )
        else:
            below.append(field)
    if len(below) < 2 or not re.fullmatch(r"(port=)?[0-9]+", below[1]):
        raise BadValue(
            f"got {description!r} without a port; accepted are strings such as {_TLS_FORM}"
        )
    return ":".join(below), keys


def _not_passed(description: str) -> socket.socket:
    raise CannotListen(
        f"got {description!r}, but systemd has passed no such socket (LISTEN_FDS, "
        "LISTEN_FDNAMES); start the service through its .socket unit, and count index= from 0"
    )


def _bad_description(description: str, kind: str, error: Exception) -> BadValue:
    """Say what is wrong with an endpoint string."""
    others = "tcp:12000:interface=127.0.0.1 or unix:/run/uppercase"
    form = _TLS_FORM if kind in ("tls", "ssl") else others
    return BadValue(
        f"got {description!r}, which is not an endpoint string ({error}); accepted are strings "
        rf"such as {form}, with \: for each colon in a value"
    )
