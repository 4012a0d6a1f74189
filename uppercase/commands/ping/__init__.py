"""`uppercase ping`: its options and its exit status.

What a reply means is the tracker's affair, when probes are sent and how they travel the run's, and
how it is printed the report's.
"""

from functools import partial
from pathlib import Path
from typing import Final

import click

from uppercase.client.target import Target
from uppercase.commands._group import Command, say, section
from uppercase.commands._options import (
    Count,
    Duration,
    Size,
    expectation,
    judgement_options,
    plot_option,
    reply_timeout,
    target_options,
    timeout_option,
)
from uppercase.commands.cli import NETWORK, OK, signals
from uppercase.commands.ping._report import Display
from uppercase.commands.ping._tracker import Probes, Schedule, Tracker, new_mark
from uppercase.errors import ConnectionRefused, NetworkError
from uppercase.limits import PROBE_SIZE

PING_INTERVAL: Final = 1.0
"""Seconds between probes, as in ping(8)."""

_probes = section("Probes")
_output = section("Output")


@click.command("ping", cls=Command)
@target_options
@_probes("-c", "--count", type=Count(positive=True), help="Stop after N probes.")
@_probes(
    "-i",
    "--interval",
    type=Duration(),
    default=f"{PING_INTERVAL:g}s",
    help="Time from each probe to the next, whatever comes back.",
)
@_probes(
    "-s",
    "--size",
    type=Size(),
    default=PROBE_SIZE,
    help="Bytes of a probe; on a stream its newline is one of them.",
)
@timeout_option("Probes")
@_probes(
    "-w",
    "--deadline",
    type=Duration(positive=True),
    help="Stop after this time, whatever is still awaited.",
)
@judgement_options
@_output("-q", "--quiet", is_flag=True, help="Only the summary.")
@_output("-D", "timestamps", is_flag=True, help="Begin each line with the time.")
@_output("--json", "as_json", is_flag=True, help="NDJSON: an object a line.")
@plot_option("Draw the round trips and losses.")
def ping(
    target: Target,
    count: int | None,
    interval: float,
    size: int,
    timeout: float | None,
    deadline: float | None,
    expect: tuple[str, ...],
    max_loss: float,
    as_json: bool,
    plot: Path | None,
    **shown: bool,
) -> int:
    r"""Measure loss, delay and correctness, a probe at a time.

    Ctrl-C ends it with a summary; Ctrl-\ shows how it stands.

    Examples:
        uppercase ping -u -c 10                  ten datagrams to the server on this machine
        uppercase ping -i 10ms -w 5s -q          five seconds of probes, only the summary
        uppercase ping -u -c 100 --plot rtt.svg  a picture of the round trips and losses
        uppercase ping -u --json | jq .rtt_ms    for a program
        uppercase ping --expect=rot13            a server with another transform
    """
    schedule = Schedule(interval, count, deadline)
    timeout = reply_timeout(target, timeout)
    probes = Probes(expectation(expect), size, new_mark(), b"" if target.udp else b"\n")
    # Twisted is imported when something is measured: `--help` must not pay for it.
    from uppercase.commands._reactor import reactor, running, wait
    from uppercase.commands.ping._run import Run, open_carriers

    soon = reactor.callFromThread
    with running():
        # Of objects, the summary's `connections` tells.
        tell = (lambda sentence: None) if as_json else say
        carriers = wait(lambda: open_carriers(reactor, target, tell))
        if not as_json:
            what = f"{size} bytes, expecting {' then '.join(expect)}"
            print(f"PING {target.place} ({str(target).split()[0]}): {what}", flush=True)
        for carrier in carriers:
            tracker = Tracker(probes, timeout)
            display = Display(target, timeout, tracker.totals, as_json=as_json, **shown)
            run = Run(reactor, tracker, schedule, display)
            failure = None
            try:
                with signals(partial(soon, run.end), partial(soon, run.look)):
                    wait(partial(run.measure, carrier))
            except NetworkError as error:
                failure = error
            if not (isinstance(failure, ConnectionRefused) and tracker.totals.untouched):
                break
    display.show_summary(carrier.connections, failure)
    if plot is not None:
        from uppercase.commands._plots import ping_plot

        ping_plot(target, display.found, tracker.totals).save(plot)
    if failure is not None:
        raise failure
    fine = tracker.totals.acceptable(max_loss, None if deadline is None else count)
    return OK if fine else NETWORK
