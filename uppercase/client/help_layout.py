"""Help pages as people read them: examples first, then the options in sections.

    @click.command("ping", cls=Command, examples='''
      uppercase ping -c 10              ten requests to the server on this machine
    ''')
    @option("-c", "--count", type=Count(), section="Schedule", help="...")

A section is printed where its first option stands.
"""

from collections.abc import Callable
from inspect import cleandoc
from typing import Any, TypeVar

import click

__all__ = ["Command", "Option", "option"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Option(click.Option):
    """An option that belongs to a section of the help."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def option(
    *declarations: str, section: str = "Options", **attributes: Any
) -> Callable[[_Function], _Function]:
    """Do what `click.option` does, for a section of the help."""
    return click.option(*declarations, cls=Option, section=section, **attributes)


def write_examples(formatter: click.HelpFormatter, examples: str) -> None:
    """Write the examples as they are, indented."""
    with formatter.section("Examples"):
        for line in cleandoc(examples).splitlines():
            formatter.write(f"{'':{formatter.current_indent}}{line}".rstrip() + "\n")


class Command(click.Command):
    """A command whose help opens with examples.

    Args:
        examples: lines that can be typed, each with what it does.
    """

    def __init__(self, *args: Any, examples: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help: what it does, examples, usage, options."""
        formatter.write(cleandoc(self.help or "").split("\n\n")[0] + "\n")
        write_examples(formatter, self.examples)
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a heading for each section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                section = getattr(parameter, "section", "Other")
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)
