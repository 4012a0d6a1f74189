"""`uppercase timeline`: a record as the textbook's time-sequence diagram."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from uppercase.commands._group import Command, option
from uppercase.errors import UserError

if TYPE_CHECKING:
    from uppercase.classroom.timeline import Timeline

_EXAMPLES = """
    uppercase timeline record.jsonl                    as text
    uppercase timeline record.jsonl -o lesson.svg      as a picture
    uppercase timeline record.jsonl -o lesson.pcapng   for Wireshark
    uppercase timeline record.jsonl --client 192.0.2.20
"""

_ENDINGS = (".svg", ".pdf", ".png", ".txt", ".pcapng")
ACCEPTED = ".svg, .pdf, .png, .txt or .pcapng"


def check_picture(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a file whose name does not say what it is to be."""
    if path is not None and path.suffix.lower() not in _ENDINGS:
        raise UserError(f"got {path}; a name that ends in {ACCEPTED} is accepted")
    return path


def save_timeline(timeline: "Timeline", path: Path) -> None:
    """Write a timeline in the format that the file's name says.

    Raises:
        UserError: it cannot be written, or not in this format.
    """
    from uppercase.classroom.packets import draw_packets
    from uppercase.classroom.picture import save_picture
    from uppercase.classroom.timeline import draw_text

    try:
        match path.suffix.lower():
            case ".txt":
                lines = (f"{line}\n" for line in draw_text(timeline))
                path.write_text("".join(lines), encoding="utf-8")
            case ".pcapng":
                path.write_bytes(draw_packets(timeline))
            case _:
                save_picture(timeline, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


@click.command("timeline", cls=Command, examples=_EXAMPLES)
@click.argument(
    "record",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What a service's --record=FILE wrote.",
)
@option("--client", metavar="ADDRESS", default="", section="Picture", help="Only this client.")
@option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=check_picture,
    section="Picture",
    help=f"Write the timeline to this file, as {ACCEPTED}; without it, print it as text.",
)
def timeline(record: Path, client: str, output: Path | None) -> None:
    """Draw what a service did: an arrow a datagram, time downward."""
    from uppercase.classroom.record import read_record
    from uppercase.classroom.timeline import Timeline, draw_text

    with record.open("rb") as file:
        about, rows, problem = read_record(file, str(record))
    picture = Timeline.of(about, rows, client)
    if output is not None:
        save_timeline(picture, output)
    else:
        for line in draw_text(picture):
            click.echo(line)
    if problem:
        click.echo(f"uppercase: {problem}", err=True)
