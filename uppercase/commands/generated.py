"""What is made from the options: manual pages in troff, and shell completion.

The services have both, too.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any, Final

import click
from click import shell_completion as shells

from uppercase import __version__
from uppercase.client.target import ENVIRONMENT
from uppercase.commands import MEANINGS, OK
from uppercase.commands.group import OTHER, Command, Group, SectionOption, completer, sections_of

PAGES: Final = ("uppercase", "twistd-uppercase-tcp", "twistd-uppercase-udp", "twistd-uppercase")
"""The manual pages; what follows `twistd-` is a service."""

COMPLETE_TWISTD: Final = "_UPPERCASE_COMPLETE_TWISTD"
"""The variable by which a script asks for completions of a `twistd` command line."""

# Some groffs print typographic signs for some of ASCII's, which no shell takes for those.
_SIGNS: Final = str.maketrans(
    {"\\": r"\e", "-": r"\-", '"': r"\(dq", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
)

_FILES: Final = {"config", "file", "logfile", "pidfile", "python", "record", "source"}
"""Options whose value is a file."""


class _Twistd(Group):
    """`twistd` as a group of commands, one for each service that a plugin offers.

    Its options and theirs are taken from the tables that `twistd` itself parses by.
    """

    def __init__(self) -> None:
        # Twisted is imported when twistd is asked about: a list of commands must not pay for it.
        from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

        options: Any = ServerOptions()
        services: dict[str, click.Command] = {
            name: _Service(name, text, make) for name, _, make, text in options.subCommands
        }
        super().__init__("twistd", services, params=[*_parameters(options)], add_help_option=False)


class _Service(Command):
    """A service, whose code is imported when its options are asked for."""

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
    """Return our services' options by their sections, those of others as `usage` knows them."""
    for part in getattr(options, "sections", ()):
        for row in part.options:
            metavar = row.spelling.partition("=")[2]
            attributes = {"section": part.title, "help": row.described()}
            if row.values is not None:
                attributes["shell_complete"] = completer(row.values)
            yield _parameter(row.name, row.short, metavar, **attributes)
    if not hasattr(options, "sections"):
        letters = {name: letter for letter, name in options.synonyms.items() if len(letter) == 1}
        for spelling in options.longOpt:
            name = spelling.removesuffix("=")
            metavar = name.upper() if name != spelling else ""
            text = " ".join((options.docs.get(name) or "").split())
            yield _parameter(name, letters.get(name), metavar, help=text)


def _parameter(name: str, letter: str | None, metavar: str, **attributes: Any) -> SectionOption:
    return SectionOption(
        [f"--{name}", f"option_{name.replace('-', '_')}", *([f"-{letter}"] if letter else [])],
        metavar=metavar or None,
        is_flag=not metavar,
        multiple=bool(metavar),
        type=click.Path() if name in _FILES else None,
        **attributes,
    )


@shells.add_completion_class
class _Bash(shells.BashComplete):
    """To bash, `--framing=li` is three words, and so is `--pidfile= li`: only the line tells."""

    source_template = shells.BashComplete.source_template.replace(
        "${COMP_WORDS[*]}", "${COMP_LINE:0:COMP_POINT}"
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = shells.split_arg_string(line)[1:]
        return (words, "") if line.endswith(" ") else (words[:-1], words[-1])


class _Joined(shells.ShellComplete):
    """To other shells it is one word, and so is its completion."""

    def get_completions(self, args: list[str], incomplete: str) -> list[shells.CompletionItem[str]]:
        option, equals, _ = incomplete.partition("=")
        found = super().get_completions(args, incomplete)
        if equals and option.startswith("--"):
            for item in found:
                item.value = f"{option}={item.value}"
        return found


@shells.add_completion_class
class _Zsh(_Joined, shells.ZshComplete):
    """Completion for zsh."""


@shells.add_completion_class
class _Fish(_Joined, shells.FishComplete):
    """Completion for fish."""

    # A meaning may have commas.
    source_template = shells.FishComplete.source_template.replace("split", "split --max 1")


def answer_shell() -> None:
    """Print what completes a command line of `twistd`, and exit; click answers for our own."""
    if COMPLETE_TWISTD in os.environ:
        # Another package's service that cannot be imported, for whatever reason, has no options.
        with suppress(Exception):
            _Twistd().main([], prog_name="twistd", complete_var=COMPLETE_TWISTD)
        raise SystemExit(OK)


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), help="The shell.")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script for a shell: it completes command lines of uppercase and twistd.

    Examples:
        eval "$(uppercase completion bash)"        in ~/.bashrc
        eval "$(uppercase completion zsh)"         in ~/.zshrc, after compinit
        uppercase completion fish | source         in ~/.config/fish/config.fish
    """
    make = shells.get_completion_class(shell)
    assert make is not None
    command = context.find_root().command
    # The variable is where click, run by the script, looks for the words to complete.
    click.echo(make(command, {}, "uppercase", "_UPPERCASE_COMPLETE").source())
    script = make(command, {}, "twistd", COMPLETE_TWISTD).source()
    # These scripts ask the program whose line it is, but we answer for twistd.
    click.echo(re.sub(r"(_complete |\(commandline -t\) )(\$1|twistd\b)", r"\1uppercase", script))


@click.command("man", cls=Command)
@click.argument(
    "page",
    type=click.Choice(PAGES),
    default="uppercase",
    metavar="[PAGE]",
    help=f"uppercase, or of a service: {', '.join(PAGES[1:])}.",
)
@click.pass_context
def man(context: click.Context, page: str) -> None:
    """Print a manual page (troff): that of this command, or of a service.

    Examples:
        uppercase man | man -l -                      read it
        uppercase man twistd-uppercase-tcp | man -l -  that of a service
        uppercase man > ~/.local/share/man/man1/uppercase.1
    """
    root = context.find_root()
    if page != root.info_name:
        program, _, name = page.partition("-")
        twistd = _Twistd()
        parent = click.Context(twistd, info_name=program)
        root = click.Context(twistd.commands[name], info_name=name, parent=parent)
    for line in _page(page, root):
        click.echo(line)


def _page(name: str, context: click.Context) -> Iterator[str]:
    command = context.command
    assert isinstance(command, Command)
    summary = command.get_short_help_str()
    yield f'.TH {name.upper()} 1 "" "uppercase {__version__}" "User Commands"'
    # No word that one types is cut at the end of a line.
    yield ".nh"
    yield ".SH NAME"
    yield f"{_escape(name)} \\- {_escape(summary[:1].lower() + summary[1:].rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_escape(context.command_path)}"
    yield _escape(" ".join(command.collect_usage_pieces(context)))
    yield ".SH EXAMPLES"
    yield from _examples(command)
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        yield from _commands(command, context)
        yield ".SH ENVIRONMENT"
        yield from _list(ENVIRONMENT.items())
        yield '.SH "EXIT STATUS"'
        yield from _list((str(status), meaning) for status, meaning in MEANINGS.items())
    else:
        yield ".SH OPTIONS"
        yield from _options(command, context)
    yield '.SH "SEE ALSO"'
    yield _escape(", ".join(f"{other}(1)" for other in PAGES if other != name))


def _commands(group: click.Group, parent: click.Context) -> Iterator[str]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert isinstance(command, Command)
        context = click.Context(command, info_name=name, parent=parent)
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield f'.SS "{_escape(usage)}"'
        for paragraph in command.paragraphs():
            yield from [".PP", _escape(paragraph)]
        yield from [".PP", "Examples:", ".PP", *_examples(command)]
        yield from _options(command, context)
        if isinstance(command, click.Group):
            yield from _commands(command, context)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for section, records in sections_of(command, context).items():
        if section != OTHER:
            yield from [".PP", f".I {_escape(section)}"]
        yield from _list(records)


def _examples(command: Command) -> Iterator[str]:
    yield from [".nf", *map(_escape, command.example_lines()), ".fi"]


def _list(records: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in records:
        yield from [".TP", f".B {_escape(term)}", _escape(meaning)]


def _escape(text: str) -> str:
    """Keep troff from reading anything into the text."""
    text = text.translate(_SIGNS)
    return f"\\&{text}" if text.startswith(".") else text
