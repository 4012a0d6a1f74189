"""Options that ping and bench share: what is expected and by when, what may be lost, plots."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from uppercase.client.target import Target
from uppercase.commands._help_layout import option
from uppercase.commands._option_types import Duration
from uppercase.core.units import parse_probability
from uppercase.errors import BadValue, UserError
from uppercase.limits import REPLY_TIMEOUT, UDP_TIMEOUT

if TYPE_CHECKING:
    from uppercase.commands._plots import Drawing

_PLOT_ENDINGS: Final = (".svg", ".png", ".pdf")

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Probability(click.ParamType[float]):
    """A number from 0 to 1."""

    name = "probability"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; a default that is one already passes."""
        try:
            return value if isinstance(value, float) else parse_probability(value)
        except BadValue as error:
            self.fail(str(error), param, ctx)


def judgement_options(command: _Function) -> _Function:
    """Pass `expect`, the transforms that the server applies, and `max_loss` to a command."""
    max_loss = option(
        "--max-loss",
        type=_Probability(),
        default=0.0,
        show_default="0",
        section="Judgement",
        help="The part, 0 to 1, that may be lost or late without an exit status of 1.",
    )
    expect = option(
        "--expect",
        metavar="TRANSFORM",
        multiple=True,
        default=("uppercase",),
        show_default="uppercase",
        section="Judgement",
        help="What a reply must be; repeat it for a chain.",
    )
    return expect(max_loss(command))


def timeout_option(section: str) -> Callable[[_Function], _Function]:
    """Return the decorator that passes `timeout`, seconds or None; see `reply_timeout`."""
    return option(
        "-W",
        "--timeout",
        type=Duration(positive=True),
        section=section,
        help=f"A reply after this is late, none is a loss.  [default: {UDP_TIMEOUT:g}s for UDP, "
        f"else {REPLY_TIMEOUT:g}s]",
    )


def reply_timeout(target: Target, given: float | None) -> float:
    """Return the seconds that a reply may take: what was given, else what suits the protocol."""
    if given is not None:
        return given
    return UDP_TIMEOUT if target.udp else REPLY_TIMEOUT


def plot_option(help_text: str) -> Callable[[_Function], _Function]:
    """Return the decorator that passes `plot`, a path or None, to a command."""
    return option(
        "--plot",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        callback=_check,
        section="Output",
        help=f"{help_text}  [{', '.join(_PLOT_ENDINGS)}]",
    )


def _check(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse, before minutes of measuring, a file that could not be written after them."""
    if path is not None:
        if path.suffix.lower() not in _PLOT_ENDINGS:
            raise UserError(
                f"got --plot={path}; the name of an SVG, PNG or PDF file, such as rtt.svg, "
                "is accepted"
            )
        if find_spec("matplotlib") is None:
            raise UserError(
                "--plot needs the matplotlib library; install it: pip install 'uppercase[plots]'"
            )
        try:
            path.open("ab").close()
        except OSError as error:
            raise _cannot_write(path, error) from error
    return path


def save_plot(path: Path, drawing: "Drawing") -> None:
    """Write a drawing.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        drawing.save(path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write --plot={path}: {error.strerror}; name a file in a folder of yours"
    )
