"""`uppercase grade`: what a student's program does right, and what not."""

import json
from pathlib import Path

import click

from uppercase.commands._group import Command, completer, option
from uppercase.commands._options import Count
from uppercase.commands.cli import NETWORK, OK
from uppercase.errors import UserError

_EXAMPLES = """
    uppercase grade --list
    uppercase grade udp-client -- python3 UDPClient.py {host} {port}
    uppercase grade tcp-server --port 12000 -- python3 TCPServer.py
"""


def _exercises() -> dict[str, str]:
    from uppercase.classroom.grade import exercises

    return {name: each.summary for name, each in exercises().items()}


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
@option("--timelines", is_flag=True, section="Output", help="Show each failed check's timeline.")
@option(
    "--json",
    "as_json",
    is_flag=True,
    section="Output",
    help="Print one JSON object instead of lines.",
)
@option(
    "--gradescope",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    section="Output",
    help="Write Gradescope's results.json too.",
)
@click.argument(
    "exercise",
    required=False,
    metavar="EXERCISE",
    help="One of --list.",
    shell_complete=completer(_exercises),
)
@click.argument("command", nargs=-1, metavar="-- COMMAND ARG...", help="The program.")
def grade(
    listed: bool,
    port: int,
    timelines: bool,
    as_json: bool,
    gradescope: Path | None,
    exercise: str | None,
    command: tuple[str, ...],
) -> int:
    """Grade a program: each check, its points, and what was expected and got.

    {host} and {port} in its arguments, UPPERCASE_HOST and UPPERCASE_PORT in its environment, say
    where to serve or whom to ask. The exit status is 0 if all checks pass, else 1.
    """
    from uppercase.classroom.grade import Mark, Trial, exercises, find_exercise
    from uppercase.classroom.grade import grade as examine
    from uppercase.commands import _reactor

    if listed:
        for name, each in exercises().items():
            click.echo(
                f"{name:<12} {sum(check.points for check in each.checks):>3}  {each.summary}"
            )
        return OK
    if exercise is None or not command:
        raise UserError("got no program; uppercase grade EXERCISE -- COMMAND ARG... is accepted")
    wanted = find_exercise(exercise)
    marks: list[Mark] = []
    with _reactor.running():
        for mark in examine(wanted, Trial(command, port, _reactor.reactor, _reactor.wait)):
            marks.append(mark)
            if not as_json:
                _show(mark, timelines)
    had = sum(mark.check.points for mark in marks if mark.passed)
    most = sum(mark.check.points for mark in marks)
    if as_json:
        checks = [
            {
                "check": mark.check.name,
                "points": mark.check.points,
                "passed": mark.passed,
                "sentence": mark.sentence,
                "timeline": mark.timeline,
            }
            for mark in marks
        ]
        click.echo(json.dumps({"exercise": exercise, "points": had, "of": most, "checks": checks}))
    else:
        click.echo(f"{had} of {most} points")
    if gradescope is not None:
        tests = [
            {
                "name": mark.check.name,
                "score": mark.check.points if mark.passed else 0,
                "max_score": mark.check.points,
                "output": mark.sentence,
            }
            for mark in marks
        ]
        gradescope.write_text(json.dumps({"tests": tests}) + "\n", encoding="utf-8")
    return OK if had == most else NETWORK


def _show(mark: object, timelines: bool) -> None:
    from uppercase.classroom.grade import Mark

    assert isinstance(mark, Mark)
    points = mark.check.points if mark.passed else 0
    word = "pass" if mark.passed else "FAIL"
    click.echo(f"{word}  {points}/{mark.check.points}  {mark.check.name}")
    if mark.sentence:
        click.echo(f"           {mark.sentence}")
        if timelines and mark.timeline:
            click.echo(mark.timeline)
