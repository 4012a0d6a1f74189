"""What is made from the commands: a manual page, and completion in a shell.

`uppercase man` prints one page of all commands, in troff; `uppercase completion` a script.
"""

from collections.abc import Iterator
from inspect import cleandoc

import click
from click.shell_completion import get_completion_class

from uppercase import __version__
from uppercase.client.target import ENVIRONMENT
from uppercase.commands._help_layout import OTHER, Command, Records, SectionArgument, sections_of
from uppercase.commands.cli import MEANINGS


@click.command(
    "completion",
    cls=Command,
    examples="""
        eval "$(uppercase completion bash)"        in ~/.bashrc
        eval "$(uppercase completion zsh)"         in ~/.zshrc
        uppercase completion fish | source         in ~/.config/fish/config.fish
    """,
)
@click.argument(
    "shell",
    type=click.Choice(["bash", "zsh", "fish"]),
    cls=SectionArgument,
    explanation="The shell to make it for.",
)
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in a shell."""
    make = get_completion_class(shell)
    assert make is not None
    # The variable is where click, run by the script, looks for the words to complete.
    click.echo(make(context.find_root().command, {}, "uppercase", "_UPPERCASE_COMPLETE").source())


@click.command(
    "man",
    cls=Command,
    examples="""
        uppercase man | man -l -                          read it
        uppercase man > ~/.local/share/man/man1/uppercase.1    keep it
    """,
)
@click.pass_context
def man(context: click.Context) -> None:
    """Print the manual page (troff)."""
    root = context.find_root()
    for line in _page(root):
        click.echo(line)


def _page(root: click.Context) -> Iterator[str]:
    group = root.command
    yield f'.TH UPPERCASE 1 "" "uppercase {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"uppercase \\- {_escape((group.help or '').rstrip('.').lower())}"
    yield ".SH SYNOPSIS"
    yield f".B {_escape('uppercase')}"
    yield _escape(" ".join(group.collect_usage_pieces(root)))
    yield ".SH EXAMPLES"
    yield from _unfilled(group)
    yield ".SH COMMANDS"
    assert isinstance(group, click.Group)
    yield from _commands(group, root)
    yield ".SH ENVIRONMENT"
    yield from _list(ENVIRONMENT.items())
    yield '.SH "EXIT STATUS"'
    yield from _list((str(status), meaning) for status, meaning in MEANINGS.items())


def _commands(group: click.Group, parent: click.Context) -> Iterator[str]:
    """Return every command of a group, with the commands of a command that is a group after it."""
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, info_name=name, parent=parent)
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield f'.SS "{_escape(usage)}"'
        for paragraph in cleandoc(command.help or "").split("\n\n"):
            yield ".PP"
            yield _escape(" ".join(paragraph.split()))
        yield from _examples(command)
        for section, records in sections_of(command, context).items():
            if section != OTHER:
                yield ".PP"
                yield f".I {_escape(section)}"
            yield from _list(records)
        if isinstance(command, click.Group):
            yield from _commands(command, context)


def _examples(command: click.Command) -> Iterator[str]:
    examples = list(_unfilled(command))
    if examples:
        yield from [".PP", "Examples:", ".PP", *examples]


def _unfilled(command: click.Command) -> Iterator[str]:
    """Return the command's examples, if it has any, line by line."""
    examples = getattr(command, "examples", "")
    if examples:
        yield from [".nf", *map(_escape, cleandoc(examples).splitlines()), ".fi"]


def _list(records: Records) -> Iterator[str]:
    for term, explanation in records:
        yield ".TP"
        yield f".B {_escape(term)}"
        yield _escape(explanation)


def _escape(text: str) -> str:
    """Keep troff from reading anything into the text."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith((".", "'")) else text
