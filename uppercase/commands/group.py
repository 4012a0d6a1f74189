"""The sub-commands: their help, how one is found, and how its outcome becomes an exit status.

A command is declared like this::

    @click.command("ping", cls=Command)
    @section("Schedule")("-c", "--count", COUNT, "Stop after N probes.")
    def ping(count: int) -> int:
        "Measure loss."

Its docstring is its help, with examples below a line `Examples:`. A help page shows these first,
then the options in sections; a section is printed where its first option stands. A sub-command's
function returns its exit status (None is 0) and raises `UserError` or `NetworkError` with one
sentence. A sub-command's module is imported when the command is asked for; nothing here imports
Twisted.
"""

import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from inspect import cleandoc
from pkgutil import resolve_name
from shutil import get_terminal_size
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from uppercase import __version__
from uppercase.commands import INTERRUPTED, MEANINGS, NETWORK, OK, USAGE, die_of, write_some
from uppercase.core.values import printable, shortened
from uppercase.errors import NetworkError, UppercaseError, UserError, suggest

COMMANDS: Final = {
    "send": "uppercase.commands.send:send",
    "ping": "uppercase.commands.ping:ping",
    "bench": "uppercase.commands.bench:bench",
    "fates": "uppercase.commands.classroom:fates",
    "run": "uppercase.commands.classroom:run",
    "grade": "uppercase.commands.classroom:grade",
    "timeline": "uppercase.commands.classroom:timeline",
    "transforms": "uppercase.commands.transforms:transforms",
    "completion": "uppercase.commands.generated:completion",
    "man": "uppercase.commands.generated:man",
}
"""Where each sub-command is, as `module:function`."""

OTHER: Final = "Other"
"""The section of options that name none."""

_EXAMPLES: Final = "Examples:\n"
"""What is between a command's help and its examples."""

_COLUMNS: Final = 64
"""Where an option and its text have less room than this together, the text stands below."""

Function = TypeVar("Function", bound=Callable[..., Any])
"""What a decorator takes and returns: a command."""


def completer(values: Callable[[], Mapping[str, str]]) -> Any:
    """Return the `shell_complete` that offers these values, each with its meaning."""
    return lambda context, parameter, start: [
        CompletionItem(value, help=text)
        for value, text in values().items()
        if value.startswith(start)
    ]


class SectionOption(click.Option):
    """An option that belongs to a section of the help."""

    def __init__(self, *args: Any, section: str = OTHER, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Return click's remarks without its signs: `(1s)`, `1<=x<=512`."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        if "range" in extra:
            extra["range"] = extra["range"].replace("<=x<=", " to ")
        return extra


def section(title: str) -> Callable[..., Callable[[Function], Function]]:
    """Return the decorator for options of one section.

    It takes an option's names, its type (`bool` for a flag), its help, and what click's takes.
    """

    def option(*given: Any, **attributes: Any) -> Callable[[Function], Function]:
        *names, kind, text = given
        known = {"is_flag": True} if kind is bool else {"type": kind}
        return click.option(
            *names, cls=SectionOption, section=title, help=text, **known, **attributes
        )

    return option


class _Formatter(click.HelpFormatter):
    """A page that is readable on a narrow terminal, too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # click's has at least 50 columns.
        self.width = max(min(self.width, get_terminal_size().columns - 2), 20)

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        if self.width < _COLUMNS:
            col_max, col_spacing = 2, 4
        super().write_dl(rows, col_max, col_spacing)

    def write_examples(self, lines: Sequence[str]) -> None:
        """Write what can be typed verbatim, and what it does beside or below it."""
        with self.section("Examples"):
            if max(map(len, lines)) <= self.width:
                self.write("".join(f"{'':{self.current_indent}}{line}\n" for line in lines))
            else:
                rows = (re.split(r"(?<=\S) {2,}", line, maxsplit=1) for line in lines)
                super().write_dl([(row[0], "".join(row[1:])) for row in rows], 2, 2)


class Context(click.Context):
    """Knows the layout of our help."""

    formatter_class = _Formatter


class Command(click.Command):
    """A command whose help opens with examples."""

    context_class = Context

    def example_lines(self) -> list[str]:
        return cleandoc((self.help or "").partition(_EXAMPLES)[2]).splitlines()

    def paragraphs(self) -> list[str]:
        """Return the help's paragraphs; a list of commands shows the first."""
        text = cleandoc((self.help or "").partition(_EXAMPLES)[0]).strip()
        return [" ".join(each.split()) for each in text.split("\n\n")]

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the whole first paragraph, for the formatter to wrap."""
        return self.paragraphs()[0]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        summary, *rest = self.paragraphs()
        formatter.write_text(summary)
        examples = self.example_lines()
        if examples and isinstance(formatter, _Formatter):
            formatter.write_examples(examples)
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)
        for paragraph in rest:
            formatter.write_paragraph()
            formatter.write_text(paragraph)
        self.format_options(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, records in sections_of(self, ctx).items():
            with formatter.section(section):
                formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class Group(Command, click.Group):
    """Commands by name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for, or say what was probably meant."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            inner = (
                f"; did you mean '{each} {name}'?"
                for each in known
                if isinstance(group := self.get_command(ctx, each), click.Group)
                and name in group.list_commands(ctx)
            )
            ctx.fail(f"no command named {name!r}{next(inner, '') or suggest(name, known)}")
        return super().resolve_command(ctx, args)


def sections_of(
    command: click.Command, context: click.Context
) -> Mapping[str, list[tuple[str, str]]]:
    """Return a command's parameters and what each does, by section; what has none comes last."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            known = "Arguments" if isinstance(parameter, click.Argument) else OTHER
            sections.setdefault(getattr(parameter, "section", known), []).append(record)
    other = sections.pop(OTHER, [])
    return {**sections, OTHER if sections else "Options": other} if other else sections


class _Commands(Group):
    """The sub-commands of `COMMANDS`, loaded by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return resolve_name(COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Python ignores the signal until here: a server that goes away must not kill us.
            die_of(signal.SIGPIPE)
        except RuntimeError as error:
            if "new thread" not in str(error):  # As CPython says it.
                raise
            raise UserError(
                "cannot start a thread; `ulimit -u` shows how many threads and processes may be"
            ) from error
        return status

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help(ctx, formatter)
        with formatter.section("Exit status"):
            formatter.write_dl((str(status), meaning) for status, meaning in MEANINGS.items())


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(__version__, prog_name="uppercase", message="%(prog)s %(version)s")
def group() -> None:
    """Talk to a server that answers each message, and measure it.

    Examples:
        uppercase send                       talk to the server on this machine
        uppercase send < in.txt > out.txt    a file through TCP, byte for byte
        uppercase ping -u -c 10              loss and delay of ten datagrams
        uppercase COMMAND --help             a command's examples and options
    """


class _Waiting(io.FileIO):
    """Waits for room, where Python's own would raise an error, or lose what finds none."""

    def write(self, data: Any) -> int:
        return write_some(self.fileno(), data)


def _waiting(stream: Any) -> Any:
    """Return a standard stream that waits for room."""
    with suppress(OSError):  # that it has no descriptor
        raw = io.BufferedWriter(_Waiting(stream.fileno(), "w", closefd=False))
        lines = stream.line_buffering  # Such as those that an author's code writes.
        return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=lines)
    return stream


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; whatever ends it is said in one sentence."""
    if sys.stderr is None:
        # Invariant: its descriptor stays taken, or a socket's bytes would follow our sentences.
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)  # noqa: SIM115
    try:
        if sys.stdout is None:
            raise UserError("standard output is closed; to throw it away, use >/dev/null")
        sys.stdout, sys.stderr = map(_waiting, (sys.stdout, sys.stderr))
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            # What the encoding lacks is escaped, as it is on standard error.
            sys.stdout.reconfigure(errors="backslashreplace")
        status = group.main(arguments, prog_name="uppercase", standalone_mode=False)
    except click.Abort:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        sentence, status = _sentence(error), USAGE
    except UppercaseError as error:
        sentence, status = str(error), NETWORK if isinstance(error, NetworkError) else USAGE
    except OSError as error:
        # Commands explain what the network does; what is left is a file or a standard stream.
        place = f"use {error.filename}" if error.filename else "read or write a standard stream"
        # A library's own has no such reason, but says all itself.
        sentence = f"cannot {place}: {error.strerror}" if error.strerror else str(error)
        status = USAGE
        # Else the interpreter tries, as it ends, to write again what could not be written.
        with suppress(OSError):
            sys.stdout.close()
    else:
        return status if isinstance(status, int) else OK
    say(shortened(sentence))
    return status


def _sentence(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    # As iperf3 and many other clients have it.
    if isinstance(error, click.NoSuchOption) and error.option_name in ("-p", "--port"):
        takes = [each.name for each in error.ctx.command.params] if error.ctx else []
        text += " Write the port after its host: HOST:PORT." * ("addresses" in takes)
    return text


def say(sentence: str) -> None:
    """Tell the person who typed the command something, on standard error, if that takes it.

    Whatever it quotes, a plugin's words or a file's, is text and nothing that a terminal obeys.
    """
    try:
        click.echo(printable(f"uppercase: {sentence}", keep="\n"), err=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (or the interpreter tries again)
