"""The address and the options that name a server, the same for every command that talks to one."""

import socket
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

import click

from uppercase.client.target import TLS, parse_target
from uppercase.commands._help_layout import Argument, option
from uppercase.errors import UserError
from uppercase.limits import DEFAULT_HOST, DEFAULT_PORT

_T = TypeVar("_T")

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
    """Return a command the address and its options; the command is passed `target`."""

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
            tls=TLS(ca=ca, verify=not insecure) if tls else None,
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
