"""`twistd` as a group of commands, for shells and manual pages: a command for each service.

Its options and theirs are taken from the tables that `twistd` itself parses by.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Final

import click
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

from uppercase.commands._group import Command, Group, Option

_FILES: Final = {"config", "file", "logfile", "pidfile", "python", "record", "source"}
"""Options whose value is a file."""


class Twistd(Group):
    """`twistd`: what it serves is known by the plugins that are installed."""

    def __init__(self) -> None:
        options: Any = ServerOptions()
        self._services = {
            name: _Service(name, text, make) for name, _, make, text in options.subCommands
        }
        super().__init__("twistd", params=[*_parameters(options)], add_help_option=False)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._services)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._services.get(cmd_name)


class _Service(Command):
    """A service, whose code is imported when its options are asked for.

    Args:
        name: what is typed.
        text: one sentence about it.
        make: makes its options.
    """

    def __init__(self, name: str, text: str, make: Callable[[], Any]) -> None:
        super().__init__(name, help=text, add_help_option=False)
        self._make = make

    @cached_property
    def _options(self) -> Any:
        return self._make()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*_parameters(self._options)]

    def example_lines(self) -> list[str]:
        return [
            line for typed, meaning in self._options.examples for line in (typed, f"    {meaning}")
        ]


def _parameters(options: Any) -> Iterator[click.Parameter]:
    """Return the options of ours by their groups, those of others as `usage` knows them."""
    for group in getattr(options, "groups", ()):
        for row in group.options:
            metavar = row.spelling.partition("=")[2]
            attributes = {"section": group.title, "help": row.described(), "values": row.values}
            yield _parameter(row.name, row.short, metavar, **attributes)
    if not hasattr(options, "groups"):
        letters = {name: letter for letter, name in options.synonyms.items() if len(letter) == 1}
        for spelling in options.longOpt:
            name = spelling.removesuffix("=")
            metavar = name.upper() if name != spelling else ""
            text = " ".join((options.docs.get(name) or "").split())
            yield _parameter(name, letters.get(name), metavar, help=text)


def _parameter(name: str, letter: str | None, metavar: str, **attributes: Any) -> Option:
    return Option(
        [f"--{name}", f"option_{name.replace('-', '_')}", *([f"-{letter}"] if letter else [])],
        metavar=metavar or None,
        is_flag=not metavar,
        multiple=bool(metavar),
        type=click.Path() if name in _FILES else None,
        **attributes,
    )
