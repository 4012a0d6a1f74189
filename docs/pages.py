"""The pages that the code writes: what each command says under `--help`.

It must not need Sphinx: the tests compare the pages with the same commands.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import click
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

from uppercase.commands._group import group

DOCS: Final = Path(__file__).parent
_COLUMNS: Final = "88"
"""What a page of the site has room for."""


def commands(
    command: click.Command, parent: click.Context | None = None
) -> Iterator[click.Context]:
    """Return each command that `uppercase` has, itself and groups first."""
    name = command.name if parent else "uppercase"
    context = command.context_class(command, info_name=name, parent=parent)
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, context)


def services() -> Iterator[Any]:
    """Return the options of our services, each as `twistd` has them."""
    twistd: Any = ServerOptions()
    for name, _, make, _ in twistd.subCommands:
        if name.startswith("uppercase"):
            options = make()
            options.parent = twistd
            twistd.subCommand = name
            yield options


def options_page() -> str:
    """Return the page of all options."""
    page = ["# Options", "What each command says under `--help`."]
    with patch.dict(os.environ, COLUMNS=_COLUMNS, NO_COLOR="1"):
        said = {f"twistd {each.parent.subCommand}": str(each) for each in services()}
        said |= {each.command_path: each.command.get_help(each) for each in commands(group)}
    page += [f"## `{name}`\n\n```text\n{text.strip()}\n```" for name, text in said.items()]
    return "\n\n".join(page) + "\n"
