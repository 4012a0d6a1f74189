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

_COLUMN: Final = 30
_UNKNOWN: Final = re.compile(r"option (--?)(\S+) not recognized")


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        spelling: how it is written: `--name`, or `-n, --name=VALUE` with a letter and a value.
        text: what it does, for the help.
        parse: makes the value of the text, raising `UserError`; None for options that the
            options class has an `opt_` method for, such as repeatable ones.
        default: its value if it is not given.
        shown: the default as the help shows it, where that is not the bare number.
    """

    spelling: str
    text: str
    parse: Callable[[str], Any] | None = None
    default: Any = None
    shown: str = ""

    @property
    def name(self) -> str:
        """Its long name, without the dashes."""
        return self.spelling.partition("--")[2].partition("=")[0]

    @property
    def short(self) -> str | None:
        """Its letter, if it has one."""
        return None if self.spelling.startswith("--") else self.spelling[1]

    @property
    def takes_value(self) -> bool:
        """Whether a value follows it."""
        return "=" in self.spelling

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
            [row.name, row.short, row.default, row.text, row.coerce] for row in rows if row.parse
        ]
        cls.optFlags = [
            [row.name, row.short, row.text]
            for row in rows
            if not row.takes_value and not hasattr(cls, f"opt_{row.name.replace('-', '_')}")
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
    shown = row.shown if row.shown or row.default is None else f"{row.default:.15g}"
    described = f"{row.text} [default: {shown}]" if shown else row.text
    text = textwrap.wrap(described, width - _COLUMN, break_on_hyphens=False)
    first = f"  {row.spelling if row.short else f'    {row.spelling}'}"
    if len(first) < _COLUMN:
        yield f"{first:<{_COLUMN}}{text.pop(0)}"
    else:
        yield first
    for line in text:
        yield " " * _COLUMN + line
