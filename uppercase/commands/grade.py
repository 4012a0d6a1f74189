"""`uppercase grade`: what a student's program does right, and what not."""

from pathlib import Path
from typing import Final

import click

from uppercase.commands._group import Command, completer, option
from uppercase.commands._options import Count
from uppercase.commands.cli import NETWORK, OK
from uppercase.errors import UserError

_JOBS: Final = 8
"""Most of a check is waiting: so many cost one core little, and a machine hardly any memory."""

_EXAMPLES = """
    uppercase grade --list
    uppercase grade udp-client -- python3 UDPClient.py {host} {port}
    uppercase grade tcp-server --port 12000 -- python3 TCPServer.py
    uppercase grade lab3.toml --report marks -- java Client {host} {port}
"""


def _exercises() -> dict[str, str]:
    from uppercase.classroom.exercises import find_exercises

    return {name: each.summary for name, each in find_exercises()[0].items()}


@click.command("grade", cls=Command, examples=_EXAMPLES)
@option("--list", "listed", is_flag=True, section="Exercise", help="List the exercises.")
@option(
    "--port",
    type=Count(),
    default=0,
    show_default="any free one",
    section="Exercise",
    help="The port, for programs that have a fixed one.",
)
@option(
    "--jobs",
    type=Count(positive=True),
    default=_JOBS,
    show_default=True,
    section="Exercise",
    help="Checks at once; one with --port.",
)
@option("--timelines", is_flag=True, section="Output", help="Show each failed check's timeline.")
@option(
    "--json",
    "as_json",
    is_flag=True,
    section="Output",
    help="Print one JSON object instead of lines.",
)
@option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    section="Output",
    help="Write JUnit's XML too, for CI systems.",
)
@option(
    "--gradescope",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    section="Output",
    help="Write Gradescope's results.json too.",
)
@option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    section="Output",
    help="Write a page with the timelines into this folder too.",
)
@click.argument(
    "exercise",
    required=False,
    metavar="EXERCISE",
    help="One of --list, or a TOML file.",
    shell_complete=completer(_exercises),
)
@click.argument("command", nargs=-1, metavar="-- COMMAND ARG...", help="The program.")
def grade(
    listed: bool,
    port: int,
    jobs: int,
    timelines: bool,
    as_json: bool,
    junit: Path | None,
    gradescope: Path | None,
    report: Path | None,
    exercise: str | None,
    command: tuple[str, ...],
) -> int:
    """Grade a program: each check, its points, and what was expected and got.

    {host} and {port} in its arguments, UPPERCASE_HOST and UPPERCASE_PORT in its environment, say
    where to serve or whom to ask. The exit status is 0 if all checks pass, else 1.
    """
    from uppercase.classroom import marks as outputs
    from uppercase.classroom.exercises import find_exercise
    from uppercase.classroom.grade import Mark, Trial
    from uppercase.classroom.grade import grade as examine
    from uppercase.commands import _reactor

    if listed:
        return _list()
    if exercise is None or not command:
        raise UserError("got no program; uppercase grade EXERCISE -- COMMAND ARG... is accepted")
    wanted = find_exercise(exercise)
    marks: list[Mark] = []
    with _reactor.running():
        trial = Trial(command, port, _reactor.reactor, _reactor.wait)
        for mark in examine(wanted, trial, jobs):
            marks.append(mark)
            if not as_json:
                for line in outputs.as_lines(mark, timeline=timelines):
                    click.echo(line)
    had, most = outputs.total(marks)
    click.echo(outputs.as_json(wanted, marks) if as_json else f"{had} of {most} points")
    path: Path | None = None
    try:
        if (path := junit) is not None:
            path.write_bytes(outputs.as_junit(wanted, marks))
        if (path := gradescope) is not None:
            path.write_text(outputs.as_gradescope(marks), encoding="utf-8")
        if (path := report) is not None:
            outputs.write_report(wanted, marks, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return OK if had == most else NETWORK


def _list() -> int:
    """Print the exercises; what is broken of them is said, too."""
    from uppercase.classroom.exercises import find_exercises

    found, broken = find_exercises()
    for name, each in found.items():
        click.echo(f"{name:<14} {each.points:>3}  {each.summary}")
    for sentence in broken.values():
        click.echo(f"uppercase: {sentence}", err=True)
    return OK
