"""Help pages as people read them: examples first, then the options in sections.

For example::

    @click.command("ping", cls=Command, examples='''
      uppercase ping -c 10              ten requests to the server on this machine
    ''')
    @option("-c", "--count", type=Count(), section="Schedule", help="...")

A section is printed where its first option stands.
"""

from collections.abc import Callable, Iterable, Mapping
from inspect import cleandoc
from typing import Any, Final, TypeVar

import click

from uppercase.errors import suggest

Records = Iterable[tuple[str, str]]
"""What can be given, each with what it means."""

OTHER: Final = "Other"
"""The section of what names none."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


class SectionOption(click.Option):
    """An option that belongs to a section of the help."""

    def __init__(self, *args: Any, section: str = OTHER, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionArgument(click.Argument):
    """An argument that the help explains, in a section.

    Args:
        explanation: what it is, in a few words.
    """

    def __init__(self, *args: Any, explanation: str, section: str = OTHER, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.explanation = explanation

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return name and explanation."""
        return self.make_metavar(ctx).removeprefix("[").removesuffix("]"), self.explanation


def option(
    *declarations: str, section: str = OTHER, **attributes: Any
) -> Callable[[_Function], _Function]:
    """Do what `click.option` does, for a section of the help."""
    return click.option(*declarations, cls=SectionOption, section=section, **attributes)


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
        """Write the summary, examples, usage, the rest of the text, and the options."""
        summary, *rest = cleandoc(self.help or "").split("\n\n")
        formatter.write_text(summary)
        write_examples(formatter, self.examples)
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)
        for paragraph in rest:
            formatter.write_paragraph()
            formatter.write_text(paragraph)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a heading for each section."""
        for section, records in sections_of(self, ctx).items():
            with formatter.section(section):
                formatter.write_dl(list(records))


class Group(click.Group):
    """Commands by name; its help opens with examples.

    Args:
        examples: lines that can be typed, each with what it does.
    """

    def __init__(self, *args: Any, examples: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for, or say what was probably meant."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            ctx.fail(f"no command named {name!r}{suggest(name, known)}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summary, examples, usage and the commands."""
        formatter.write(f"{cleandoc(self.help or '')}\n")
        write_examples(formatter, self.examples)
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)
        self.format_options(ctx, formatter)


def sections_of(command: click.Command, context: click.Context) -> Mapping[str, Records]:
    """Return a command's options and what each does, by section; what has none comes last."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            sections.setdefault(getattr(parameter, "section", OTHER), []).append(record)
    other = sections.pop(OTHER, [])
    return {**sections, OTHER: other} if other else sections
