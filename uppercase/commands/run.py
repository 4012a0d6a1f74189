"""`uppercase run`: a program against a service of its own, and the timeline of what happened."""

from pathlib import Path

import click

from uppercase.commands._group import Command, option
from uppercase.commands._options import Count, Duration, lab_options, transform_names
from uppercase.commands.timeline import ACCEPTED, check_picture, save_timeline
from uppercase.errors import UserError
from uppercase.lab import TCP_OPTIONS, TCP_PRESETS, UDP_OPTIONS, UDP_PRESETS

_EXAMPLES = """
    uppercase run -- python3 TCPClient.py {host} {port}
    uppercase run -u --loss 0.3 --seed 7 -- python3 UDPClient.py {host} {port}
    uppercase run -u --port 12000 -- python3 UDPClient.py    a program with a fixed port
"""

OVERTIME = 124
"""The exit status of a program that was killed, as timeout(1) has it."""


@click.command("run", cls=Command, examples=_EXAMPLES)
@option("-u", "--udp", is_flag=True, section="Service", help="UDP; without it, TCP.")
@option(
    "-t",
    "--transform",
    "transforms",
    metavar="NAME",
    multiple=True,
    values=transform_names,
    default=("uppercase",),
    show_default=True,
    section="Service",
    help="The transform to serve; repeat it for a chain.",
)
@option(
    "--port",
    type=Count(),
    default=0,
    show_default="any free one",
    section="Service",
    help="The service's port, for programs that have a fixed one.",
)
@option(
    "--seed",
    type=Count(),
    section="Lab",
    show_default="random",
    help="Decides what happens to which datagram.",
)
@option(
    "--lab",
    metavar="PRESET",
    values=lambda: {name: lab.summary for name, lab in {**TCP_PRESETS, **UDP_PRESETS}.items()},
    section="Lab",
    help="A preset, which the options change.",
)
@lab_options({**TCP_OPTIONS, **UDP_OPTIONS})
@option(
    "--timeout",
    type=Duration(positive=True),
    default=300.0,
    show_default="5m",
    section="Program",
    help="Kill the program, and all that it has started, after this.",
)
@option(
    "--timeline",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=check_picture,
    section="Output",
    help=f"Write the timeline to this file too, as {ACCEPTED}.",
)
@option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    section="Output",
    help="Write the record to this file, as the services do.",
)
@click.argument(
    "command", nargs=-1, required=True, metavar="-- COMMAND ARG...", help="The program."
)
def run(
    udp: bool,
    transforms: tuple[str, ...],
    port: int,
    seed: int | None,
    lab: str | None,
    timeout: float,
    timeline: Path | None,
    record: Path | None,
    command: tuple[str, ...],
    **options: str | None,
) -> int:
    """Run a program against a service of its own; print what the network did.

    {host} and {port} in its arguments are the service's, and so are UPPERCASE_HOST and
    UPPERCASE_PORT in its environment. The exit status is the program's, 124 after --timeout. The
    timeline goes to standard error.
    """
    from uppercase.classroom.captive import Overtime, run_in_terminal
    from uppercase.classroom.service import HOST, Exhibit
    from uppercase.classroom.timeline import draw_text
    from uppercase.commands import _reactor

    given = {name.replace("_", "-"): text for name, text in options.items() if text is not None}
    exhibit = Exhibit(
        _reactor.reactor,
        udp=udp,
        transforms=transforms,
        port=port,
        lab=lab,
        options=given,
        seed=seed,
    )
    with _reactor.running():
        _reactor.wait(exhibit.start)
        problem: UserError | None = None
        status = 0
        try:
            status = run_in_terminal(command, HOST, exhibit.port, timeout)
        except Overtime as error:
            click.echo(f"uppercase: {error}", err=True)
            status = OVERTIME
        except UserError as error:
            problem = error
        _reactor.wait(exhibit.stop)
    drawn = exhibit.timeline()
    for line in draw_text(drawn):
        click.echo(line, err=True)
    if problem is None and not drawn.clients:
        protocol = "UDP" if udp else "TCP"
        click.echo(
            f"uppercase: the program sent nothing to {protocol} {HOST}:{exhibit.port}; {{host}} "
            "and {port} among its arguments tell it where, and --port is for a program with a "
            "fixed port",
            err=True,
        )
    if timeline is not None:
        save_timeline(drawn, timeline)
    if record is not None:
        try:
            record.write_bytes(exhibit.record())
        except OSError as error:
            raise UserError(f"cannot write {record}: {error.strerror}") from error
    if problem is not None:
        raise problem
    return status
