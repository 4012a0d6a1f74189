"""What is written by code: the page of options, the table of contents, and a picture.

`python -m docs.pages` draws the picture anew. It must not need Sphinx: the tests compare the pages
with the same code.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import click
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

from uppercase.__main__ import main
from uppercase.commands.group import group

DOCS: Final = Path(__file__).parent
PROGRAM: Final = DOCS.parent / "examples" / "tutorial" / "stop_and_wait.py"
RECORD: Final = DOCS / "tutorial" / "lossy-run.jsonl"
PICTURE: Final = RECORD.with_suffix(".svg")
_COLUMNS: Final = "88"
"""What a page of the site has room for."""


def commands(
    command: click.Command, parent: click.Context | None = None
) -> Iterator[click.Context]:
    """Return each command that `uppercase` has, itself and groups first."""
    name = command.name if parent else "uppercase"
    context = command.context_class(
        command, info_name=name, parent=parent, **command.context_settings
    )
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


def contents() -> dict[str, Any]:
    """Return the table of contents, which is the index: its parts in its order, by its names."""
    parts = re.findall(
        r"^\*\*([\w ]+)\*\*.*\n\n((?:.+\n)+)", (DOCS / "README.md").read_text(), re.MULTILINE
    )
    return {
        "format": "jb-book",
        "root": "index",
        "parts": [
            {
                "caption": caption,
                "chapters": [
                    {"file": file, "title": title.replace("`", "")}
                    for title, file in re.findall(r"\[(.+?)\]\((\S+)\.md\)", entries)
                ]
                + [{"file": "options", "title": "Options"}] * (caption == "Reference"),
            }
            for caption, entries in parts
        ],
    }


def options_page() -> str:
    """Return the page of all options."""
    page = ["# Options", "What each command says under `--help`."]
    with patch.dict(os.environ, COLUMNS=_COLUMNS, NO_COLOR="1"):
        said = {f"twistd {each.parent.subCommand}": str(each) for each in services()}
        said |= {each.command_path: each.command.get_help(each) for each in commands(group)}
    page += [f"## `{name}`\n\n```text\n{text.strip()}\n```" for name, text in said.items()]
    return "\n\n".join(page) + "\n"


def record_run() -> None:
    """Write down what the tutorial's program meets on the tutorial's network."""
    network = ("-u", "--port=12000", "--loss=0.5", "--seed=4", f"--record={RECORD}")
    subprocess.run(
        [sys.executable, "-m", "uppercase", "run", *network, "--", "python3", PROGRAM],
        input=b"one\ntwo\nthree\n",
        check=True,
    )


def draw_run(picture: Path) -> None:
    """Draw what was written down."""
    if main(["timeline", str(RECORD), "-o", str(picture)]):
        raise SystemExit(f"{RECORD} cannot be drawn")


if __name__ == "__main__":
    record_run()
    draw_run(PICTURE)
