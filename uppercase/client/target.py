"""Which server is meant, and a socket that is connected to it.

Every command takes the same address and the same options for it (`target_options`). The sockets
are plain ones. What the network does wrong becomes `NetworkTrouble` with a sentence that names the
likely fix; a mistake of the caller becomes `UserError`.
"""

import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from types import MappingProxyType
from typing import Any, Final, TypeVar

import click

from uppercase.client.help_layout import Argument, option
from uppercase.errors import BadValue, NetworkTrouble, NoReply, Refused, UserError
from uppercase.limits import CONNECT_TIMEOUT, DEFAULT_HOST, DEFAULT_PORT, MAX_PORT
from uppercase.units import parse_port

__all__ = [
    "ENVIRONMENT",
    "Address",
    "Target",
    "Tls",
    "connect_tcp",
    "connect_udp",
    "explain",
    "parse_target",
    "resolve",
    "target_options",
]

_T = TypeVar("_T")

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "UPPERCASE_HOST": f"The server's host where none is given, instead of {DEFAULT_HOST}.",
        "UPPERCASE_PORT": f"The server's port where none is given, instead of {DEFAULT_PORT}.",
    }
)
"""The environment variables that name a server, and what each is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a server's certificate is judged.

    Attributes:
        ca: a PEM file of the authorities to trust; without it the system's are trusted.
        verify: whether the certificate and its name are checked at all.
    """

    ca: str | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """The server to talk to.

    Attributes:
        host: a name or an address.
        port: 1 to 65535.
        udp: whether datagrams are sent; else it is a stream.
        tls: how to judge the certificate, or None for no TLS.
        unix: the path of a Unix stream socket; host and port then mean nothing.
        family: `AF_INET` or `AF_INET6` to use one family only.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    udp: bool = False
    tls: Tls | None = None
    unix: str | None = None
    family: socket.AddressFamily = socket.AF_UNSPEC

    def __str__(self) -> str:
        if self.unix is not None:
            return f"Unix socket {self.unix}"
        protocol = "UDP" if self.udp else "TLS" if self.tls else "TCP"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{protocol} {host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """One address that a target's name stands for.

    Attributes:
        family: its address family.
        sockaddr: what `socket.connect` takes.
    """

    family: socket.AddressFamily
    sockaddr: Any


def parse_target(
    text: str | None,
    *,
    udp: bool = False,
    tls: Tls | None = None,
    unix: str | None = None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """Give the target that an address on the command line and the environment name.

    Args:
        text: `HOST`, `HOST:PORT`, `:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address. What it
            leaves out comes from `UPPERCASE_HOST` and `UPPERCASE_PORT`, else from the defaults.
        udp: see `Target`, as for the other arguments.
        tls: as above.
        unix: as above.
        family: as above.
        environment: the environment variables.

    Raises:
        BadValue: the address or the environment cannot be used.
    """
    host, port = _split(text or "")
    if not host:
        host = environment.get("UPPERCASE_HOST") or DEFAULT_HOST
    if port:
        number = _parse_port(port, "the port")
    elif environment.get("UPPERCASE_PORT"):
        number = _parse_port(environment["UPPERCASE_PORT"], "UPPERCASE_PORT")
    else:
        number = DEFAULT_PORT
    return Target(host, number, udp, tls, unix, family)


def _split(text: str) -> tuple[str, str]:
    """Give host and port, each "" where it is left out."""
    head, bracket, rest = text.partition("]")
    if bracket and head.startswith("[") and (not rest or rest[0] == ":"):
        host, colon, port = head[1:], rest[:1], rest[1:]
    elif text.count(":") > 1 and not bracket:
        host, colon, port = text, "", ""
    else:
        host, colon, port = text.partition(":")
    if set("[] ") & set(host) or (colon and not port):
        raise BadValue(
            f"got the address {text!r}; accepted are HOST, HOST:PORT, :PORT and [IPV6]:PORT"
        )
    return host, port


def _parse_port(text: str, what: str) -> int:
    try:
        port = parse_port(text)
    except BadValue:
        port = 0
    if not port:
        raise BadValue(f"got {text!r} for {what}; a whole number from 1 to {MAX_PORT} is accepted")
    return port


_PARAMETERS: Final = (
    click.argument(
        "address",
        metavar="[HOST[:PORT]]",
        required=False,
        cls=Argument,
        section="Server",
        explanation=f"Default: $UPPERCASE_HOST or {DEFAULT_HOST}, "
        f"$UPPERCASE_PORT or {DEFAULT_PORT}.",
    ),
    option("-u", "--udp", is_flag=True, section="Server", help="UDP; without it, TCP."),
    option("--unix", metavar="PATH", section="Server", help="A Unix stream socket."),
    option("-4", "ipv4", is_flag=True, section="Server", help="IPv4 only."),
    option("-6", "ipv6", is_flag=True, section="Server", help="IPv6 only."),
    option("--tls", is_flag=True, section="Server", help="TLS; the certificate is verified."),
    option("--ca", metavar="FILE", section="Server", help="Authorities to trust, in PEM."),
    option("--insecure", is_flag=True, section="Server", help="Trust any certificate."),
)


def target_options(command: Callable[..., _T]) -> Callable[..., _T]:
    """Give a command the address and its options; the command is passed `target`."""

    @wraps(command)
    def with_target(
        *,
        address: str | None,
        udp: bool,
        unix: str | None,
        ipv4: bool,
        ipv6: bool,
        tls: bool,
        ca: str | None,
        insecure: bool,
        **options: Any,
    ) -> _T:
        _refuse_contradictions(
            ("-4", ipv4, "-6", ipv6),
            ("--unix", unix, "-u", udp),
            ("--unix", unix, "--tls", tls),
            ("--unix", unix, "a HOST", address),
            ("--tls", tls, "-u", udp),
            ("--ca", ca, "--insecure", insecure),
        )
        if (ca or insecure) and not tls:
            raise UserError(f"{'--ca' if ca else '--insecure'} is about TLS; add --tls")
        target = parse_target(
            address,
            udp=udp,
            tls=Tls(ca=ca, verify=not insecure) if tls else None,
            unix=unix,
            family=socket.AF_INET if ipv4 else socket.AF_INET6 if ipv6 else socket.AF_UNSPEC,
        )
        return command(target=target, **options)

    for decorate in reversed(_PARAMETERS):
        with_target = decorate(with_target)
    return with_target


def _refuse_contradictions(*pairs: tuple[str, object, str, object]) -> None:
    for name, value, other_name, other_value in pairs:
        if value and other_value:
            raise UserError(f"got {name} and {other_name}, which exclude each other; give one")


def resolve(target: Target) -> list[Address]:
    """Give the addresses of a target, the one to try first at the head.

    A datagram's socket cannot tell by connecting whether anybody listens, so IPv4 comes first for
    UDP: the servers that courses teach listen on IPv4 only, and `localhost` often means `::1` too.

    Raises:
        NetworkTrouble: the name stands for no address.
    """
    if target.unix is not None:
        return [Address(socket.AF_UNIX, target.unix)]
    kind = socket.SOCK_DGRAM if target.udp else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(target.host, target.port, target.family, kind)
    except (socket.gaierror, UnicodeError) as error:
        raise explain(error, target) from error
    addresses = [Address(family, sockaddr) for family, _, _, _, sockaddr in found]
    if target.udp:
        addresses.sort(key=lambda address: address.family != socket.AF_INET)
    return addresses


def connect_tcp(target: Target, timeout: float = CONNECT_TIMEOUT) -> socket.socket:
    """Give a connected, blocking stream socket; an `ssl.SSLSocket` if the target asks for TLS.

    Args:
        target: the server; each of its addresses is tried in turn.
        timeout: seconds for all of it, without the name's resolution.

    Raises:
        NetworkTrouble: no address accepts, or the TLS handshake fails.
        UserError: the file of authorities cannot be used, or the system gives no socket.
    """
    context = _tls_context(target.tls) if target.tls else None
    deadline = time.monotonic() + timeout
    last_error: OSError | None = None
    for address in resolve(target):
        connection = _open_socket(address.family, socket.SOCK_STREAM)
        try:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            connection.connect(address.sockaddr)
            if address.family != socket.AF_UNIX:
                # A line typed must not wait for the acknowledgement of the line before.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                # An end without TLS's own goodbye is an error: what came may have been cut short.
                connection = context.wrap_socket(
                    connection, server_hostname=target.host, suppress_ragged_eofs=False
                )
            connection.settimeout(None)
        except OSError as error:
            connection.close()
            last_error = error
        else:
            return connection
    raise explain(last_error or OSError("no address"), target, timeout) from last_error


def _tls_context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        raise UserError(
            f"got --ca={tls.ca}, which cannot be used ({error.strerror or error}); "
            "a PEM file of certificates is accepted"
        ) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def connect_udp(target: Target, address: Address | None = None) -> socket.socket:
    """Give a non-blocking datagram socket that is connected, each from a fresh source port.

    Being connected it hears of a refusal (`ConnectionRefusedError` from the next send or recv; see
    `explain`), and the kernel keeps datagrams from other addresses and ports away from it.

    Args:
        target: the server.
        address: one of `resolve(target)`; without it, the first that has a route.

    Raises:
        NetworkTrouble: the name does not resolve or there is no route.
        UserError: the system gives no socket.
    """
    last_error: OSError | None = None
    for candidate in [address] if address else resolve(target):
        datagrams = _open_socket(candidate.family, socket.SOCK_DGRAM)
        try:
            datagrams.setblocking(False)
            datagrams.connect(candidate.sockaddr)
        except OSError as error:
            datagrams.close()
            last_error = error
        else:
            return datagrams
    raise explain(last_error or OSError("no address"), target) from last_error


def _open_socket(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    try:
        return socket.socket(family, kind)
    except OSError as error:
        raise UserError(
            f"cannot open a socket: {error.strerror}; `ulimit -n` shows how many files may be open"
        ) from error


def explain(
    error: OSError | UnicodeError, target: Target, timeout: float | None = None
) -> NetworkTrouble:
    """Give the sentence for what a socket raised.

    Args:
        error: what it raised.
        target: the server that it was for.
        timeout: the seconds that were waited, if it was a wait that ended.
    """
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return Refused(
            f"nothing listens on {target}; start the server first: {_server_command(target)}"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        text = (
            f"{target} showed a certificate that is not trusted ({error.verify_message}); "
            "name its authority with --ca FILE, or trust anybody with --insecure"
        )
    elif isinstance(error, ssl.SSLEOFError):
        text = f"{target} ended without TLS's close_notify; what it sent may have been cut short"
    elif isinstance(error, ssl.SSLError):
        text = f"{target} does not speak TLS as we do ({error.reason or reason})"
    elif isinstance(error, TimeoutError):
        waited = "" if timeout is None else f" within {timeout:g} s"
        return NoReply(
            f"{target} did not answer{waited}; is the address right, and no firewall between?"
        )
    elif isinstance(error, socket.gaierror | UnicodeError):
        text = f"cannot resolve the name {target.host!r}: {reason}"
    elif isinstance(error, ConnectionError):
        text = f"{target} broke the connection off"
    else:
        text = f"cannot reach {target}: {reason}"
    return NetworkTrouble(text)


def _server_command(target: Target) -> str:
    """Give the command that starts our server where the target says."""
    if target.unix is not None:
        return f"twistd -n uppercase-tcp --listen=unix:{target.unix}"
    command = f"twistd -n uppercase-{'udp' if target.udp else 'tcp'}"
    return command if target.port == DEFAULT_PORT else f"{command} --port={target.port}"
