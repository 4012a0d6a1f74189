"""What several commands ask for alike: the server, what is expected of it and by when, plots.

Also the kinds of values that options take: our units as click's parameter types. Their parsers are
those of `uppercase.core.values`; this module only tells click about them.
"""

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from uppercase.client.target import TLS, Target, parse_target
from uppercase.commands._group import option, section
from uppercase.core.values import parse_count, parse_duration, parse_probability, parse_size
from uppercase.errors import BadValue, UserError, install
from uppercase.limits import DEFAULT_HOST, DEFAULT_PORT, REPLY_TIMEOUT, UDP_TIMEOUT

Expect = Callable[[bytes], bytes]
"""Gives the reply that a message must have."""


def expectation(specs: Sequence[str]) -> Expect:
    """Return the function that says what a server with these transforms answers."""
    from uppercase import registry

    chain = [(spec, registry.find(spec)) for spec in specs]

    def expect(message: bytes) -> bytes:
        for spec, transform in chain:
            reply = transform.transform(message)
            if not isinstance(reply, bytes):
                raise UserError(
                    f"got --expect={spec}, which answers asynchronously; "
                    "one that answers at once is accepted"
                )
            message = reply
        return message

    return expect


if TYPE_CHECKING:
    from uppercase.lab import LabOption

_PLOT_ENDINGS: Final = (".svg", ".png", ".pdf")

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Quantity(click.ParamType[float]):
    """A number that one of our parsers reads."""

    def __init__(self, name: str, parse: Callable[[str], float], *, positive: bool = False) -> None:
        self.name = name
        self._parse = parse
        self._positive = positive

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; a default that is one already passes."""
        if not isinstance(value, str):
            return value
        try:
            number = self._parse(value)
        except BadValue as error:
            self.fail(str(error), param, ctx)
        if self._positive and not number:
            self.fail(f"got {value!r}; it must be more than 0", param, ctx)
        return number


Duration = partial(_Quantity, "duration", parse_duration)
"""Seconds as a float: `500ms`, `2s`, `5m`; a bare number is seconds."""

Size = partial(_Quantity, "size", parse_size)
"""Bytes as an int: `64k`, `1M`; a bare number is bytes."""

Count = partial(_Quantity, "n", parse_count)
"""A whole number, 0 or more."""

_server = section("Server")
_judgement = section("Judgement")

_TARGET_PARAMETERS: Final = (
    click.argument(
        "address",
        metavar="[HOST[:PORT]]",
        required=False,
        help=f"Default: $UPPERCASE_HOST or {DEFAULT_HOST}, $UPPERCASE_PORT or {DEFAULT_PORT}.",
    ),
    _server("-u", "--udp", is_flag=True, help="UDP; without it, TCP."),
    _server("--unix", metavar="PATH", help="A UNIX socket."),
    _server("-4", "ipv4", is_flag=True, help="IPv4 only."),
    _server("-6", "ipv6", is_flag=True, help="IPv6 only."),
    _server("--tls", is_flag=True, help="TLS; the certificate is verified."),
    _server("--ca", metavar="FILE", help="Authorities to trust, in PEM."),
    _server("--insecure", is_flag=True, help="Trust any certificate."),
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
        return command(target=target, **options)

    for decorate in reversed(_TARGET_PARAMETERS):
        with_target = decorate(with_target)
    return with_target


def judgement_options(command: _Function) -> _Function:
    """Pass `expect`, the transforms that the server applies, and `max_loss` to a command."""
    max_loss = _judgement(
        "--max-loss",
        type=_Quantity("probability", parse_probability),
        default=0,
        help="Which part, from 0 to 1, may be lost or late without an exit status of 1.",
    )
    expect = _judgement(
        "--expect",
        metavar="TRANSFORM",
        multiple=True,
        values=transform_names,
        default=("uppercase",),
        help="The transform that the server applies; repeat it for a chain.",
    )
    return expect(max_loss(command))


def transform_names() -> Mapping[str, str]:
    """Return the transforms that are installed; imported here, as only shells ask."""
    from uppercase.registry import summaries

    return summaries()


def timeout_option(title: str) -> Callable[[_Function], _Function]:
    """Return the decorator that passes `timeout`, seconds or None, in this section of the help."""
    return section(title)(
        "-W",
        "--timeout",
        type=Duration(positive=True),
        show_default=f"{UDP_TIMEOUT:g}s for UDP, else {REPLY_TIMEOUT:g}s",
        help="How long a reply may take: after this it is late; where none comes, it is lost.",
    )


def reply_timeout(target: Target, given: float | None) -> float:
    """Return the seconds that a reply may take: what was given, else what suits the protocol."""
    if given is not None:
        return given
    return UDP_TIMEOUT if target.udp else REPLY_TIMEOUT


def lab_options(rows: "Mapping[str, LabOption]") -> Callable[[_Function], _Function]:
    """Return the decorator that passes each option of a lab, as text or None."""

    def decorate(command: _Function) -> _Function:
        for row in reversed(list(rows.values())):
            text = f"{row.text[0].upper()}{row.text[1:]}."
            decorated = option(f"--{row.name}", metavar=row.metavar, section="Lab", help=text)
            command = decorated(command)
        return command

    return decorate


def plot_option(help_text: str) -> Callable[[_Function], _Function]:
    """Return the decorator that passes `plot`, a path or None, to a command."""
    return option(
        "--plot",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        callback=_check_plot,
        section="Output",
        help=f"{help_text}  [{', '.join(_PLOT_ENDINGS)}]",
    )


def _check_plot(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse, before minutes of measuring, a file that could not be written after them."""
    if path is not None:
        if path.suffix.lower() not in _PLOT_ENDINGS:
            raise UserError(
                f"got --plot={path}; the name of an SVG, PNG or PDF file, such as rtt.svg, "
                "is accepted"
            )
        if find_spec("matplotlib") is None:
            raise UserError(f"--plot needs the matplotlib library; install it: {install('plots')}")
        # Before it is imported: it tells of its own fonts and folders, which nobody asked about.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        try:
            path.open("ab").close()
        except OSError as error:
            raise cannot_write(path, error) from error
    return path


def cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write --plot={path}: {error.strerror}; name a file in a folder of yours"
    )
