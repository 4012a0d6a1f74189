"""`uppercase completion`: the script that makes a shell complete commands and options."""

import click
from click.shell_completion import get_completion_class

from uppercase.commands._help_layout import Argument, Command

__all__ = ["completion"]


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
    cls=Argument,
    explanation="The shell to make it for.",
)
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in a shell."""
    make = get_completion_class(shell)
    assert make is not None
    # The variable is where click, run by the script, looks for the words to complete.
    click.echo(make(context.find_root().command, {}, "uppercase", "_UPPERCASE_COMPLETE").source())
