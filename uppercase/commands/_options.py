"""Options that several commands share: the server, what it must reply, and by when.

Also the types of their values: our units as click's parameter types. The parsers are those of
`uppercase.core.values`; this module only tells click about them.
"""

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

import click

from uppercase.client.target import TLS, parse_target
from uppercase.commands.group import Function, completer, section
from uppercase.core import values
from uppercase.errors import BadValue, TransformError, UserError
from uppercase.limits import DEFAULT_HOST, DEFAULT_PORT, REPLY_TIMEOUT, UDP_TIMEOUT

if TYPE_CHECKING:
    from uppercase.lab import LabOption


@dataclass(eq=False)
class Quantity(click.ParamType[float]):
    """A number that one of our parsers reads; a default that is a number is taken as it is."""

    name: str
    parse: Callable[[str], float]
    zero: bool = True

    @property
    def positive(self) -> "Quantity":
        """The same, but not 0."""
        return replace(self, zero=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            number = self.parse(value)
        except BadValue as error:
            self.fail(str(error), param, ctx)
        if not (number or self.zero):
            self.fail(f"got {value!r}; it must be more than 0", param, ctx)
        return number


DURATION: Final = Quantity("duration", values.parse_duration)
"""Seconds as a float: `500ms`, `2s`, `5m`; a bare number is seconds."""

SIZE: Final = Quantity("size", values.parse_size)
"""Bytes as an int: `64k`, `1M`; a bare number is bytes."""

PORT: Final = Quantity("n", values.parse_port)
"""A port; 0 is any free one."""

COUNT: Final = Quantity("n", values.parse_count)
"""A whole number, 0 or more."""

FILE: Final = click.Path(dir_okay=False, path_type=Path)

ANY_PATH: Final = click.Path(readable=False)
"""A text that shells complete as a path; whoever opens it says what is wrong with it."""

_server = section("Server")
_judgement = section("Judgement")

_SERVER: Final = (
    click.argument(
        "addresses",
        metavar="[HOST[:PORT]]",
        nargs=-1,
        help=f"Default: $UPPERCASE_HOST or {DEFAULT_HOST}, $UPPERCASE_PORT or {DEFAULT_PORT}.",
    ),
    _server("-u", "--udp", bool, "UDP; without it, TCP."),
    _server("--unix", ANY_PATH, "A UNIX socket."),
    _server("-4", "ipv4", bool, "IPv4 only."),
    _server("-6", "ipv6", bool, "IPv6 only."),
    _server("--tls", bool, "TLS; the certificate is verified."),
    _server("--ca", ANY_PATH, "Authorities to trust, in PEM.", metavar="FILE"),
    _server("--insecure", bool, "Trust any certificate."),
)


def server(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the address and its options; the command is passed `target`.

    Its `timeout` is what was given, else what suits the protocol.
    """

    @wraps(command)
    def with_target(
        *,
        addresses: tuple[str, ...],
        udp: bool,
        unix: str | None,
        ipv4: bool,
        ipv6: bool,
        tls: bool,
        ca: str | None,
        insecure: bool,
        timeout: float | None,
        **options: Any,
    ) -> int:
        if dashed := [each for each in addresses if each.startswith(values.DASHES)]:
            raise UserError(f"got {dashed[0]!r}, whose dash is no hyphen; type it as - or --")
        if len(addresses) > 1:
            host, port, *_ = addresses
            likely = "one address is accepted"
            if port.isdecimal() and len(port) < 6:
                place = values.printable_address(host.strip("[]"), int(port))
                likely = f"write the port after its host: {place}"
            raise UserError(f"got {port!r} beside the address; {likely}")
        address = addresses[0] if addresses else None
        for name, value, other_name, other_value in (
            ("-4", ipv4, "-6", ipv6),
            ("--unix", unix, "-u", udp),
            ("--unix", unix, "--tls", tls),
            ("--unix", unix, "a HOST", address),
            ("--tls", tls, "-u", udp),
            ("--ca", ca, "--insecure", insecure),
        ):
            if value and other_value:
                raise UserError(f"got {name} and {other_name}, which exclude each other; give one")
        if (ca or insecure) and not tls:
            raise UserError(f"{'--ca' if ca else '--insecure'} is about TLS; add --tls")
        target = parse_target(
            address,
            udp=udp,
            tls=TLS(ca=ca, verify=not insecure) if tls else None,
            unix=unix,
            family=socket.AF_INET if ipv4 else socket.AF_INET6 if ipv6 else socket.AF_UNSPEC,
        )
        patience = timeout or (UDP_TIMEOUT if udp else REPLY_TIMEOUT)
        return command(target=target, timeout=patience, **options)

    for decorate in reversed(_SERVER):
        with_target = decorate(with_target)
    return with_target


def judgement(command: Function) -> Function:
    """Pass `expect`, the transforms that the server applies, and `max_loss` to a command."""
    max_loss = _judgement(
        "--max-loss",
        Quantity("probability", values.parse_probability),
        "The share, from 0 to 1, that may be lost or late without an exit status of 1.",
        default=0,
    )
    expect = _judgement(
        "--expect",
        str,
        "The transform that the server applies; repeat it for a chain.",
        metavar="TRANSFORM",
        multiple=True,
        shell_complete=completer(transform_names),
        default=("uppercase",),
    )
    return expect(max_loss(command))


def require_matplotlib(complaint: str) -> None:
    """Refuse a picture that nothing can draw, before it is measured for minutes."""
    if find_spec("matplotlib") is None:
        raise UserError(complaint)
    # Before it is imported: it logs things about fonts and folders that nobody asked for.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def try_to_write(path: Path) -> None:
    """Raise `OSError` if a file could not be written; one that is not there yet is not made."""
    if path.is_file():
        path.open("ab").close()
    elif not path.exists():  # A pipe would be waited for.
        TemporaryFile(dir=path.parent).close()


def acceptable(counts: Any, max_loss: float) -> bool:
    """Return whether all was answered as expected, except for what may be lost or late."""
    answered = counts.received > 0 or max_loss == 1
    # By its share, as `--max-loss` is one: the product of that may be rounded down.
    missed = (counts.lost + counts.late) / (counts.transmitted - counts.pending or 1)
    return answered and not counts.wrong and missed <= max_loss


Expect = Callable[[bytes], bytes]
"""Returns the reply that a message must have."""


def expectation(specs: Sequence[str]) -> Expect:
    """Return a function that tells what a server with these transforms must reply."""
    from uppercase.awaiting import start
    from uppercase.core.pipeline import Pipeline
    from uppercase.registry import listing

    chain = Pipeline(listing().stages(specs))

    def expect(message: bytes) -> bytes:
        try:
            reply = chain.transform(message)
        except TransformError as error:
            raise UserError(f"got --expect={chain.name}, but {error}") from error
        if not isinstance(reply, bytes):
            # Started, because Python warns of a coroutine that is never awaited.
            start(reply).addErrback(lambda _: None).cancel()
            raise UserError(
                f"got --expect={chain.name}, which answers asynchronously; "
                "one that answers at once is accepted"
            )
        return reply

    return expect


def transform_names() -> Mapping[str, str]:
    """Return the installed transforms; imported here, because only shells ask."""
    from uppercase.registry import summaries

    return summaries()


_UNANSWERED: Final = "How long a reply may take: after this it is late, or lost if none comes."


def timeout(title: str, text: str = _UNANSWERED) -> Callable[[Function], Function]:
    """Return the decorator that passes `timeout` in this section of the help."""
    default = f"{UDP_TIMEOUT:g}s for UDP, else {REPLY_TIMEOUT:g}s"
    return section(title)("-W", "--timeout", DURATION.positive, text, show_default=default)


def lab(rows: "Mapping[str, LabOption]") -> Callable[[Function], Function]:
    """Return the decorator that passes each option of a lab, as text or None."""

    def decorate(command: Function) -> Function:
        for row in reversed([*rows.values()]):
            text = f"{row.text[0].upper()}{row.text[1:]}."
            command = section("Lab")(f"--{row.name}", str, text, metavar=row.metavar)(command)
        return command

    return decorate
