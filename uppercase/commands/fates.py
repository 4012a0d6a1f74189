"""`uppercase fates`: the answer key of a lab, a line a datagram, without a server.

The options are handed to `uppercase.lab` as they were typed, as the UDP server does it, so that
equal options give equal fates.
"""

from typing import Final

import click

from uppercase.commands._group import Command, section
from uppercase.commands._options import Count, lab_options
from uppercase.errors import UserError
from uppercase.lab import UDP_OPTIONS, UDP_PRESETS, answer_key, make_experiment, merge_settings

_COUNT: Final = 20
"""Lines of an answer key: what fits on a screen or a sheet of paper."""

_EXAMPLES: Final = """
    uppercase fates --seed 7 --loss 0.3 -n 20        which of 20 requests are lost
    uppercase fates --seed 7 --lab udp-pinger        a lab by name
    uppercase fates --seed 7 --loss request:0.1,reply:0.2
"""

_lab = section("Lab")
_key = section("Key")


@click.command("fates", cls=Command, examples=_EXAMPLES)
@_lab("--seed", type=Count(), help="The server's --seed; required.")
@_lab(
    "--lab",
    metavar="PRESET",
    values=lambda: {name: lab.summary for name, lab in UDP_PRESETS.items()},
    help=f"A preset: {', '.join(UDP_PRESETS)}.",
)
@lab_options(UDP_OPTIONS)
@_key("-n", "number", type=Count(positive=True), default=_COUNT, help="How many datagrams.")
@_key(
    "--client",
    metavar="ADDRESS",
    help="The client's address, for a server that was started with --per-client.",
)
def fates(
    seed: int | None, lab: str | None, number: int, client: str | None, **options: str | None
) -> None:
    """Print what the server's lab does to a client's datagrams, one a line.

    A value is for requests; reply: or both: before it names the other side, a comma joins two.
    """
    if seed is None:
        raise UserError("got no --seed; the server prints its own when it starts: --seed=N")
    given = {name: options[name.replace("-", "_")] for name in UDP_OPTIONS}
    settings = merge_settings(lab, {name: text for name, text in given.items() if text is not None})
    experiment = make_experiment(settings, seed=seed, per_client=client is not None)
    for row in answer_key(experiment, number, host=client or ""):
        click.echo(str(row))
