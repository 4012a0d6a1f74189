r"""Datagram endpoints and their strings, in the grammar of `twisted.internet.endpoints`.

    udp:12000                               every IPv4 address
    udp:12000:interface=127.0.0.1           one address
    udp:0:interface=\:\:1                 any free port; a colon in a value is written \:
    systemd:domain=INET:index=0             a datagram socket that systemd opened, by position
    systemd:domain=INET6:name=upper         or by its FileDescriptorName

Twisted has endpoints and strings for streams only; these are shaped so that they could become
its. A `\:\:` serves IPv6 only: two endpoints serve both families.
"""

import socket
import sys
from typing import Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReactorTime, IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from zope.interface import Interface, implementer

from uppercase.core.values import (
    cannot_listen,
    parse_port,
    printable_address,
    split_escaped,
    unescape,
)
from uppercase.errors import BadValue, CannotListen, suggest
from uppercase.limits import UDP_READ_SIZE
from uppercase.udp.ports import Port
from uppercase.udp.sockets import adopt_socket, check_interface, open_socket

_BACKSLASH: Final = "\\"


class IDatagramEndpoint(Interface):
    """An address on which datagrams can be received, as `IStreamServerEndpoint` is for streams.

    Binding a datagram socket never waits, so `listen` gives the port rather than a Deferred of
    it: a service that is about to drop its privileges knows at once whether it has its address.
    """

    def listen(protocol: DatagramProtocol) -> IListeningPort:
        """Serve a protocol on this address.

        Raises:
            uppercase.errors.CannotListen: the address could not be had; nothing is left open.
        """

    def open(workers: int) -> list[socket.socket]:
        """Open the address for other processes to serve: a socket for each of them, or one.

        Raises:
            uppercase.errors.CannotListen: the address could not be had; nothing is left open.
        """


@implementer(IDatagramEndpoint)
class UDPEndpoint:
    """A UDP address.

    Args:
        reactor: provides `IReactorFDSet` too, or at least `IReactorUDP`.
        port: 0 is any free one.
        interface: an IPv4 or IPv6 address, which may have a `%scope`; "" is every IPv4 address.
    """

    def __init__(self, reactor: IReactorTime, port: int, interface: str = "") -> None:
        check_interface(interface)
        self._reactor = reactor
        self._port = port
        self._interface = interface

    def listen(self, protocol: DatagramProtocol) -> IListeningPort:
        if not IReactorFDSet.providedBy(self._reactor):
            return self._listen_plainly(protocol)
        port = Port(open_socket(self._interface, self._port), protocol, self._reactor)
        port.startListening()
        return port

    def open(self, workers: int) -> list[socket.socket]:
        """Open the address for so many processes: a socket for each, or one for all.

        With one for each, all datagrams of a client's port meet one process, and its guards. Only
        Linux deals them out so.
        """
        # Alone first: another program that has the address, and would share it, is found out.
        first = open_socket(self._interface, self._port)
        if sys.platform != "linux":
            return [first]
        number = int(first.getsockname()[1])
        first.close()
        opened: list[socket.socket] = []
        try:
            for _ in range(workers):
                opened.append(open_socket(self._interface, number, one_of_several=True))
        except CannotListen:
            for each in opened:
                each.close()
            raise
        return opened

    def _listen_plainly(self, protocol: DatagramProtocol) -> IListeningPort:
        """Let a reactor without file descriptors open its own kind of port."""
        try:
            return IReactorUDP(self._reactor).listenUDP(
                self._port, protocol, self._interface, UDP_READ_SIZE
            )
        except CannotListenError as error:
            address = printable_address(self._interface or "0.0.0.0", self._port)
            raise cannot_listen("UDP", address, error.socketError) from error.socketError


@implementer(IDatagramEndpoint)
class AdoptedUDPEndpoint:
    """A bound UDP socket that somebody else opened; it can be listened on once.

    Args:
        reactor: provides `IReactorFDSet` too.
        descriptor: the socket's file descriptor; `listen` takes it over.
    """

    def __init__(self, reactor: IReactorTime, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, protocol: DatagramProtocol) -> Port:
        port = Port(adopt_socket(self._descriptor), protocol, self._reactor)
        port.startListening()
        return port

    def open(self, workers: int) -> list[socket.socket]:
        return [adopt_socket(self._descriptor)]


def datagram_endpoint_from_string(reactor: IReactorTime, description: str) -> IDatagramEndpoint:
    """Return the datagram endpoint that a string describes.

    Raises:
        BadValue: it describes none; the text says what is accepted.
    """
    kind, *fields = _fields(description)
    if kind == ("", "udp"):
        return _parse_udp(reactor, description, fields)
    if kind == ("", "systemd"):
        return _parse_systemd(reactor, description)
    known = suggest(kind[1], ["udp", "systemd"])
    raise BadValue(f"got {description!r}; no datagram endpoint has the type {kind[1]!r}{known}")


def _fields(description: str) -> list[tuple[str, str]]:
    """Split at colons into (name, value); what has no name has the name ""."""
    backslashes = len(description) - len(description.rstrip(_BACKSLASH))
    if backslashes % 2:
        raise BadValue(f"got {description!r}; nothing follows its last backslash")
    fields = []
    for field in split_escaped(description):
        before, *after = split_escaped(field, "=")
        name, value = (before, "=".join(after)) if after else ("", before)
        fields.append((unescape(name), unescape(value)))
    return fields


def _parse_udp(
    reactor: IReactorTime, description: str, fields: list[tuple[str, str]]
) -> UDPEndpoint:
    """Take `udp:PORT[:interface=ADDRESS]`; both may be named or go by position."""
    accepted = r"udp:PORT[:interface=ADDRESS] is accepted, with \: for each colon in the address"
    given: dict[str, str] = {}
    positions = iter(("port", "interface"))
    for name, value in fields:
        key = name or next(positions, "more")
        if key not in ("port", "interface") or key in given:
            raise BadValue(f"got {description!r}; {accepted}")
        given[key] = value
    if "port" not in given:
        raise BadValue(f"got {description!r} without a port; {accepted}")
    try:
        return UDPEndpoint(reactor, parse_port(given["port"]), given.get("interface", ""))
    except BadValue as error:
        raise BadValue(f"in {description!r}: {error}") from None


def _parse_systemd(reactor: IReactorTime, description: str) -> AdoptedUDPEndpoint:
    """Take `systemd:domain=FAMILY:index=N` or `:name=NAME`.

    Twisted's own endpoint finds the descriptor: it read the environment when it was imported and
    cleared it, and only it knows.
    """
    # Imported here: it brings in all of TLS, and a service of one port does without.
    from twisted.internet.endpoints import serverFromString

    # `fileno` is in no interface, but a second look at the environment finds nothing.
    try:
        endpoint: Any = serverFromString(reactor, description)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise BadValue(
            f"got {description!r}; systemd:domain=INET:index=N, counted from 0, or "
            "systemd:domain=INET:name=NAME is accepted, with a socket that systemd passed on: "
            "start the service through a .socket unit that has ListenDatagram="
        ) from error
    return AdoptedUDPEndpoint(reactor, endpoint.fileno)
