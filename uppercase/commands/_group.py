"""The sub-commands: finds the one that is asked for, and makes its outcome an exit status.

A sub-command's function returns its exit status (None is 0) and raises `UserError` or
`NetworkError` with one sentence. A sub-command's module is imported when the command is asked
for; nothing here imports Twisted.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import click

from uppercase import __version__
from uppercase.commands._help_layout import Group
from uppercase.commands.cli import INTERRUPTED, MEANINGS, NETWORK, OK, USAGE, die_of
from uppercase.errors import NetworkError, UppercaseError

COMMANDS: Final = {
    "send": "uppercase.commands.send:send",
    "ping": "uppercase.commands.ping:ping",
    "bench": "uppercase.commands.bench:bench",
    "fates": "uppercase.commands.fates:fates",
    "run": "uppercase.commands.run:run",
    "grade": "uppercase.commands.grade:grade",
    "timeline": "uppercase.commands.timeline:timeline",
    "transforms": "uppercase.commands.transforms:transforms",
    "completion": "uppercase.commands._generated:completion",
    "man": "uppercase.commands._generated:man",
}
"""Where each sub-command lives, as `module:function`; one whose module is absent is not offered."""


_EXAMPLES: Final = """
    uppercase send                       talk to the server on this machine
    uppercase send < in.txt > out.txt    a file through TCP, byte for byte
    uppercase ping -u -c 10              loss and delay of ten datagrams
    uppercase COMMAND --help             a command's examples and options
"""


class _Group(Group):
    """The sub-commands of `COMMANDS`, loaded by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, place in COMMANDS.items() if find_spec(place.partition(":")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Ignored until here, as Python has it: a server that goes away must not kill us.
            die_of(signal.SIGPIPE)
        return status

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help(ctx, formatter)
        with formatter.section("Exit status"):
            formatter.write_dl([(str(status), meaning) for status, meaning in MEANINGS.items()])


@click.group(
    cls=_Group,
    help="Talk to a server that answers each message, and measure it.",
    examples=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="uppercase", message="%(prog)s %(version)s")
def group() -> None:
    """Hold the sub-commands."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: what follows the program's name; without it, the process's own.

    Returns:
        The exit status.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (its descriptor stays taken)
    if sys.stdout is None:
        return _complain("standard output is closed; for none there is >/dev/null", USAGE)
    try:
        status = group.main(arguments, prog_name="uppercase", standalone_mode=False)
    except click.Abort:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        return _complain(error.format_message(), USAGE)
    except NetworkError as error:
        return _complain(str(error), NETWORK)
    except UppercaseError as error:
        return _complain(str(error), USAGE)
    except OSError as error:
        # Commands explain what the network does; what is left is a file or a standard stream.
        place = f"use {error.filename}" if error.filename else "read or write a standard stream"
        return _complain(f"cannot {place}: {error.strerror or error}", USAGE)
    return status if isinstance(status, int) else OK


def _complain(sentence: str, status: int) -> int:
    click.echo(f"uppercase: {sentence}", err=True)
    return status
