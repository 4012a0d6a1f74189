"""Options as a table: parsed by Twisted's `usage`, shown in groups with defaults and examples.

`usage` lists options in one alphabetical column, names no option when a value is bad and knows no
near misses. Here a table row is the one place that says an option's name, default and meaning.
"""

import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from twisted.python import usage

from uppercase.errors import PluginError, UserError, suggest

__all__ = ["Group", "Option", "TableOptions"]

_COLUMN: Final = 30
_UNKNOWN: Final = re.compile(r"option (--?)(\S+) not recognized")


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        name: its long name.
        text: what it does, for the help.
        short: its letter, or "".
        metavar: what its value is called; "" for an option without a value.
        parse: makes the value of the text, raising `UserError`; None for options that the
            options class has an `opt_` method for, such as repeatable ones.
        default: its value if it is not given.
        shown: the default as the help shows it, or "".
    """

    name: str
    text: str
    short: str = ""
    metavar: str = ""
    parse: Callable[[str], Any] | None = None
    default: Any = None
    shown: str = ""

    @property
    def spelling(self) -> str:
        """The left column of the help."""
        value = f"={self.metavar}" if self.metavar else ""
        return f"{f'-{self.short}, ' if self.short else '    '}--{self.name}{value}"

    def coerce(self, text: str) -> Any:
        """Make the value; a mistake names the option."""
        assert self.parse is not None
        try:
            return self.parse(text)
        except (UserError, PluginError) as error:
            raise usage.UsageError(f"--{self.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Group:
    """Options that belong together."""

    title: str
    options: tuple[Option, ...]


class TableOptions(usage.Options):
    """Options that are declared by groups of rows.

    Attributes:
        groups: the table.
        purpose: one sentence for the top of the help.
        examples: pairs of a command and what it does, shown first.
    """

    groups: ClassVar[tuple[Group, ...]] = ()
    purpose: ClassVar[str] = ""
    examples: ClassVar[tuple[tuple[str, str], ...]] = ()
    optParameters: ClassVar[list[list[Any]]] = []
    optFlags: ClassVar[list[list[Any]]] = []

    def __init_subclass__(cls) -> None:
        """Hand the rows to `usage` in its own form."""
        rows = [row for group in cls.__dict__.get("groups", ()) for row in group.options]
        cls.optParameters = [
            [row.name, row.short or None, row.default, row.text, row.coerce]
            for row in rows
            if row.parse and row.metavar
        ]
        cls.optFlags = [
            [row.name, row.short or None, row.text]
            for row in rows
            if not row.metavar and not hasattr(cls, f"opt_{row.name.replace('-', '_')}")
        ]

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse; an option that does not exist gets a suggestion."""
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as error:
            match = _UNKNOWN.fullmatch(str(error))
            if match is None or match[1] == "-":
                raise
            known = [f"--{row.name}" for group in self.groups for row in group.options]
            raise usage.UsageError(
                f"no option named --{match[2]}{suggest(f'--{match[2]}', known)}"
            ) from error

    def getUsage(self, width: int | None = None) -> str:
        """Return the help: purpose, examples, then the groups."""
        width = width or 100
        # The synopsis is printed before this, by whoever asks for the help.
        lines = ["", self.purpose, "", "Examples:"]
        for command, meaning in self.examples:
            lines += [f"  {command}", f"      {meaning}"]
        for group in self.groups:
            lines += ["", f"{group.title}:"]
            for row in group.options:
                lines += _help_lines(row, width)
        return "\n".join(lines) + "\n"


def _help_lines(row: Option, width: int) -> Iterator[str]:
    shown = f" [default: {row.shown}]" if row.shown else ""
    text = textwrap.wrap(row.text + shown, width - _COLUMN, break_on_hyphens=False)
    first = f"  {row.spelling}"
    if len(first) < _COLUMN:
        yield f"{first:<{_COLUMN}}{text.pop(0)}"
    else:
        yield first
    for line in text:
        yield " " * _COLUMN + line
