"""The option `--plot FILE.svg`, and writing the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from uppercase.client.help_layout import option
from uppercase.errors import UserError

__all__ = ["plot_option", "save_plot"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def plot_option(help_text: str) -> Callable[[_Function], _Function]:
    """Give the decorator that passes `plot`, a path or None, to a command."""
    return option(
        "--plot",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE.svg",
        callback=_check,
        section="Output",
        help=help_text,
    )


def _check(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse, before minutes of measuring, a file that could not be written after them."""
    if path is not None:
        if path.suffix.lower() != ".svg":
            raise UserError(
                f"got --plot={path}; the name of an SVG file, such as rtt.svg, is accepted"
            )
        try:
            path.open("ab").close()
        except OSError as error:
            raise _cannot_write(path, error) from error
    return path


def save_plot(path: Path, drawing: str) -> None:
    """Write a drawing.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.write_text(drawing, encoding="utf-8")
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write --plot={path}: {error.strerror}; name a file in a folder of yours"
    )
