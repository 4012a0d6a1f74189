"""Options as tables: parsed by Twisted's `usage`, shown in groups. Knows of no option.

`usage` lists options in one alphabetical column, names no option when a value is bad and knows no
near misses. Here a table row is the one place that says an option's name, default and meaning.
"""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from twisted.application import app
from twisted.python import usage

from uppercase.core.values import printable, shortened
from uppercase.errors import PluginError, UserError, suggest

_COLUMN: Final = 30
_WIDTH: Final = 100
_UNKNOWN: Final = r"option (--?)(\S+) not recognized"


class Option(NamedTuple):
    """One option.

    Attributes:
        spelling: how it is written: `--name`, or `-n, --name=VALUE` with a letter and a value.
        parse: makes the value of the text, raising `UserError`.
        many: it may be repeated; its values are a list of texts.
        default: its value if it is not given.
        shown: the default as the help shows it, where that is not the bare number.
        values: gives what a shell offers for its value, each with what it means.
        exits: it only prints something; a file of settings cannot have it.
    """

    spelling: str
    text: str
    parse: Callable[[str], Any] = str
    default: Any = None
    shown: str = ""
    values: Callable[[], Mapping[str, str]] | None = None
    exits: bool = False
    many: bool = False

    @property
    def name(self) -> str:
        return self.spelling.partition("--")[2].partition("=")[0]

    @property
    def short(self) -> str | None:
        return None if self.spelling.startswith("--") else self.spelling[1]

    @property
    def takes_value(self) -> bool:
        return "=" in self.spelling

    def described(self) -> str:
        shown = self.shown if self.shown or self.default is None else f"{self.default:.15g}"
        return f"{self.text} [default: {shown}]" if shown else self.text

    def coerce(self, text: str) -> Any:
        """Make the value; a mistake names the option."""
        try:
            return self.parse(text)
        except (UserError, PluginError) as error:
            raise usage.UsageError(f"--{self.name}: {error}") from error


class Group:
    def __init__(self, title: str, *options: Option) -> None:
        self.title = title
        self.options = options


class TableOptions(usage.Options):
    """Options that are declared by groups of rows; the help begins with a purpose and examples.

    Attributes:
        rows: all of them by name.
    """

    groups: ClassVar[tuple[Group, ...]] = ()
    rows: ClassVar[Mapping[str, Option]] = {}
    purpose: ClassVar[str] = ""
    examples: ClassVar[tuple[tuple[str, str], ...]] = ()
    optParameters: ClassVar[list[list[Any]]] = []
    optFlags: ClassVar[list[list[Any]]] = []

    def __init_subclass__(cls) -> None:
        """Hand the rows to `usage` in its own form."""
        cls.rows = {row.name: row for group in cls.groups for row in group.options}
        cls.optParameters, cls.optFlags = [], []
        for row in cls.rows.values():
            if row.many:
                for name in filter(None, (row.name, row.short)):
                    setattr(cls, f"opt_{name}", _adder(row.name))
            elif hasattr(cls, f"opt_{row.name.replace('-', '_')}"):
                pass  # `usage` calls that
            elif row.takes_value:
                said = [row.name, row.short, row.default, row.text, row.coerce]
                cls.optParameters.append(said)
            else:
                cls.optFlags.append([row.name, row.short, row.text])

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self.update({row.name: [] for row in self.rows.values() if row.many})

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse; under `twistd` and `twist` a mistake ends the program with one sentence.

        Theirs is the whole help, with the sentence before or after it.
        """
        parent = getattr(self, "parent", None)
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as error:
            unknown = re.fullmatch(_UNKNOWN, str(error))
            text = self._explain_unknown(unknown[1] + unknown[2]) if unknown else str(error)
            if parent is None:
                raise usage.UsageError(text) from error
            twistd = isinstance(parent, app.ServerOptions)
            command = f"{'twistd' if twistd else 'twist'} {parent.subCommand}"
            print(
                f"{command}: {printable(shortened(text))}\ntry '{command} --help'",
                # Where the program itself writes its usage errors.
                file=sys.stdout if twistd else sys.stderr,
            )
            raise SystemExit(1 if twistd else os.EX_USAGE) from error

    def _explain_unknown(self, option: str) -> str:
        """Return the sentence for an option that this service does not have."""
        parent = getattr(self, "parent", None)
        if parent is not None:
            name = option.lstrip("-")
            if name in parent.synonyms:
                program = "twistd" if isinstance(parent, app.ServerOptions) else "twist"
                return (
                    f"{option} is an option of {program} itself; give it before the service, as in "
                    f"{program} {option} ... {parent.subCommand}"
                )
            owners = [
                service
                for service, _, make, _ in parent.subCommands
                if service.startswith("uppercase") and option in make()._spellings()
            ]
            if owners:
                file = "; a file has it: --config=FILE" if "--config" in self._spellings() else ""
                return (
                    f"{option} belongs to {' and '.join(owners)}, not to {parent.subCommand}{file}"
                )
        from difflib import get_close_matches

        known = self._spellings()
        close = get_close_matches(option, known, n=1)
        # All that is known would be thirty names.
        return f"no option named {option}" + (suggest(option, close) if close else "")

    def _spellings(self) -> list[str]:
        letters = (row.short for row in self.rows.values())
        return [f"--{name}" for name in self.rows] + [f"-{letter}" for letter in letters if letter]

    def getUsage(self, width: int | None = None) -> str:
        width = width or min(shutil.get_terminal_size((_WIDTH, 0)).columns, _WIDTH)
        # The synopsis is printed before this, by whoever asks for the help.
        lines = ["", *_wrapped(self.purpose, width), "", "Examples:"]
        for command, meaning in self.examples:
            lines += [f"  {command}", *_wrapped(meaning, width, 6)]
        for group in self.groups:
            lines += ["", *_wrapped(f"{group.title}:", width)]
            for row in group.options:
                lines += _help_lines(row, width)
        return "\n".join(lines) + "\n"


def _adder(name: str) -> Callable[[TableOptions, str], None]:

    def add(self: TableOptions, value: str) -> None:
        self[name].append(value)

    return add


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    margin = " " * indent
    return textwrap.wrap(
        text, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
    )


def _help_lines(row: Option, width: int) -> Iterator[str]:
    first = f"  {row.spelling if row.short else f'    {row.spelling}'}"
    # In a narrow terminal a column of its own would leave none for the text.
    column = _COLUMN if width >= 2 * _COLUMN else 8
    text = _wrapped(row.described(), width, column)
    if len(first) < column:
        yield f"{first:<{column}}{text.pop(0).lstrip()}"
    else:
        yield first
    yield from text
