"""Which server is meant, its addresses, datagram sockets to them, and what the network does wrong.

Streams are the endpoints' affair. What the network does becomes `NetworkError` with the likely fix
(`explain`); a mistake of the caller becomes `UserError`.
"""

import errno
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from uppercase.core.values import allow_fragments, host_address, parse_port, printable_address
from uppercase.errors import BadValue, ConnectionRefused, NetworkError, NoReply, UserError
from uppercase.limits import DEFAULT_HOST, DEFAULT_PORT, MAX_PORT, NFS_PORT

ENVIRONMENT: Final = {
    "UPPERCASE_HOST": f"The server's host where none is given, instead of {DEFAULT_HOST}.",
    "UPPERCASE_PORT": f"The server's port where none is given, instead of {DEFAULT_PORT}.",
}
"""The environment variables that name a server, and what each is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How a certificate is judged, if at all: by a PEM file of authorities, or by the system's."""

    ca: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """Return what makes such connections, or raise `UserError` if the file cannot be used."""
        # To read the system's takes 30 ms, in which a reactor does nothing else: once is enough.
        return _make_once(self) if self.ca is None else self._make()

    def _make(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            if error.filename is not None:  # What cannot be read has no name here.
                raise UserError(
                    f"cannot write SSLKEYLOGFILE={error.filename}: {error.strerror}; name another "
                    "file, or unset it"
                ) from error
            reason = "no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise UserError(
                f"got --ca={self.ca}, which cannot be used ({reason}); "
                "a PEM file of certificates is accepted"
            ) from error
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        # A server that wants new keys within TLS 1.2 could stop us while we send.
        context.options |= ssl.OP_NO_RENEGOTIATION
        return context


_make_once = cache(TLS._make)


@dataclass(frozen=True, slots=True)
class Target:
    """The server to talk to: datagrams (`udp`), or a stream.

    `tls` is how to judge the certificate, or None for no TLS. `unix` is the path of a Unix stream
    socket; host and port then mean nothing. `AF_INET` or `AF_INET6` uses one family only.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    udp: bool = False
    tls: TLS | None = None
    unix: str | None = None
    family: socket.AddressFamily = socket.AF_UNSPEC

    def __post_init__(self) -> None:
        # The system would take it modulo 65,536, and reach another server.
        if not (isinstance(self.port, int) and 0 < self.port <= MAX_PORT):
            raise BadValue(
                f"got port {self.port!r}; a whole number from 1 to {MAX_PORT} is accepted"
            )
        if self.udp and self.tls is not None:
            raise BadValue(f"got TLS for {self}, which would be sent in the clear; TLS needs TCP")

    @property
    def place(self) -> str:
        """Return host and port, or the path of a UNIX socket."""
        return printable_address(self.host, self.port) if self.unix is None else self.unix

    def __str__(self) -> str:
        protocol = "UDP" if self.udp else "TLS" if self.tls else "TCP"
        return f"{protocol if self.unix is None else 'UNIX socket'} {self.place}"


def parse_target(
    text: str | None,
    *,
    udp: bool = False,
    tls: TLS | None = None,
    unix: str | None = None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """Return the target that an address on the command line and the environment name.

    It is `HOST`, `HOST:PORT`, `:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address. What it
    leaves out comes from `UPPERCASE_HOST` and `UPPERCASE_PORT`, else from the defaults.

    Raises:
        BadValue: the address or the environment cannot be used.
    """
    environment = {} if unix is not None else environment  # which is about hosts and ports
    host, port = _split(text or "")
    host = host or environment.get("UPPERCASE_HOST") or DEFAULT_HOST
    if ":" in host and host_address(host) is None:
        raise BadValue(
            f"got the host {host!r}; a name or an IP address is accepted, and its port as "
            "HOST:PORT or in UPPERCASE_PORT"
        )
    # The system would take 12000 for 0.0.46.224; 0 is this machine.
    if host.isdecimal() and host != "0" and len(host) < 6:
        raise BadValue(f"got the host {host!r}; a port alone is written :{host}")
    what = "the port" if port else "UPPERCASE_PORT"
    text = port or environment.get("UPPERCASE_PORT") or str(DEFAULT_PORT)
    try:
        number = parse_port(text)
    except BadValue:
        number = 0
    if not number:
        raise BadValue(f"got {text!r} for {what}; a whole number from 1 to {MAX_PORT} is accepted")
    return Target(host, number, udp, tls, unix, family)


def _split(text: str) -> tuple[str, str]:
    """Return host and port, each "" where it is left out."""
    head, bracket, rest = text.partition("]")
    if bracket and head.startswith("[") and (not rest or rest[0] == ":"):
        host, colon, port = head[1:], rest[:1], rest[1:]
    elif text.count(":") > 1 and not bracket:
        host, colon, port = text, "", ""
    else:
        host, colon, port = text.partition(":")
    if set("[]/ ") & set(host) or port.startswith("/") or (colon and not port):
        raise BadValue(
            f"got the address {text!r}; accepted are HOST, HOST:PORT, :PORT, [IPV6]:PORT and, "
            "for a UNIX socket, --unix PATH"
        )
    return host, port


@dataclass(frozen=True, slots=True)
class Address:
    """One address that a target's name stands for."""

    family: socket.AddressFamily
    sockaddr: Any


def resolve(target: Target) -> list[Address]:
    """Return the addresses of a target, the one to try first at the head.

    A datagram's socket cannot tell by connecting whether anybody listens, so IPv4 comes first for
    UDP: the servers that courses teach listen on IPv4 only, and `localhost` often means `::1` too.
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


def connect_udp(target: Target, address: Address) -> socket.socket:
    """Return a non-blocking datagram socket that is connected, each from a fresh source port.

    Being connected it hears of a refusal (`ConnectionRefusedError` from the next send or recv; see
    `explain`), and the kernel keeps datagrams from other addresses and ports away from it.
    """
    try:
        with ExitStack() as opened:
            datagrams = opened.enter_context(socket.socket(address.family, socket.SOCK_DGRAM))
            datagrams.setblocking(False)
            allow_fragments(datagrams)
            datagrams.connect(address.sockaddr)
            if datagrams.getsockname()[1] in (target.port, NFS_PORT):
                # Some systems give them to clients; ours takes who sends from them for a server.
                return connect_udp(target, address)  # This one is open until there is another.
            opened.pop_all()
    except OSError as error:
        raise explain(error, target) from error
    return datagrams


def reachable(target: Target) -> list[Address]:
    """Return the addresses of a UDP target that a route leads to, the one to try first at the head.

    A client that is refused by one before any reply goes on to the next: see `resolve`.
    """
    found: list[Address] = []
    failure = NetworkError(f"cannot reach {target}: no address")
    for address in resolve(target):
        try:
            connect_udp(target, address).close()
        except NetworkError as error:
            failure = error
        else:
            found.append(address)
    if not found:
        raise failure
    return found


_LIKELY: Final = {
    **dict.fromkeys((2, 18, 19, 20, 21), "name its authority with --ca FILE"),
    9: "set this machine's clock",
    10: "have it renewed, or set this machine's clock",
    **dict.fromkeys((62, 64), "reach it by a name of its certificate"),
}
"""What helps against OpenSSL's errors (x509_vfy.h); the others are faults of certificates."""


_DOUBT: Final = "; is the address right, and no firewall between?"


def explain(
    error: OSError | UnicodeError, target: Target, timeout: float | None = None
) -> NetworkError | UserError:
    """Return the sentence for what a socket raised."""
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return UserError(
            f"cannot open a socket: {reason}; `ulimit -n` shows how many files may be open"
        )
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return ConnectionRefused(
            f"nothing listens on {target}; start the server first: {_server_command(target)}"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        likely = _LIKELY.get(error.verify_code, "have it, or its authority's, made anew")
        text = (
            f"{target} showed a certificate that is not trusted ({error.verify_message}); "
            f"{likely}, or trust anybody with --insecure"
        )
    elif isinstance(error, ssl.SSLEOFError):
        text = f"{target} ended without TLS's close_notify; what it sent may have been cut short"
    elif isinstance(error, ssl.SSLError):
        text = f"{target} does not speak TLS as we do ({error.reason or reason})"
    elif isinstance(error, TimeoutError):
        waited = "" if timeout is None else f" within {timeout:g} s"
        # In the words of Python's `ssl`.
        doubt = "; does it speak TLS?" if "handshake" in str(error) else _DOUBT
        return NoReply(f"{target} did not answer{waited}{doubt}")
    elif isinstance(error, socket.gaierror | UnicodeError):
        text = f"cannot resolve the name {target.host!r}: {reason}"
    elif isinstance(error, ConnectionError):
        text = f"{target} broke the connection off"
    else:
        text = f"cannot reach {target}: {reason.removesuffix('.')}{_likely_cause(error, target)}"
    return NetworkError(text)


def _likely_cause(error: OSError, target: Target) -> str:
    """Return what may be the cause where an address cannot be reached, which systems do not say."""
    if target.host.lower().startswith("fe80:") and "%" not in target.host:
        return f"; a link-local address needs its interface, as in {target.host}%eth0"
    if target.unix is not None and error.errno == errno.EAGAIN:
        return "; too many clients wait there already"
    # A firewall's ICMP becomes one of the first two, and this machine's own firewall says EPERM.
    firewalled = (errno.EHOSTUNREACH, errno.EACCES, errno.EPERM)
    return _DOUBT if target.unix is None and error.errno in firewalled else ""


def explain_send(error: OSError, target: Target, size: int) -> NetworkError | UserError:
    """Return the error for a datagram of this size that could not be sent."""
    if error.errno == errno.EMSGSIZE:
        return UserError(
            f"got a size of {size} bytes, which does not fit into one datagram to {target}; "
            "65507 (IPv4) or 65527 (IPv6) are the most"
        )
    return explain(error, target)


def _server_command(target: Target) -> str:
    if target.unix is not None:
        return f"twistd -n uppercase-tcp --listen=unix:{target.unix}"
    if target.tls is not None:
        endpoint = f"tls:{target.port}:privateKey=key.pem:certKey=cert.pem"
        return f"twistd -n uppercase-tcp --listen={endpoint}"
    command = f"twistd -n uppercase-{'udp' if target.udp else 'tcp'}"
    return command if target.port == DEFAULT_PORT else f"{command} --port={target.port}"
