"""`uppercase ping`: its options and its exit status.

What a reply means is the tracker's affair, when probes are sent and how they travel the run's, and
how it is printed the report's.
"""

from functools import partial
from pathlib import Path
from typing import Final

import click

from uppercase.client.target import Target
from uppercase.commands import _options as options
from uppercase.commands._group import Command, say, section
from uppercase.commands._options import COUNT, DURATION, SIZE, expectation
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
@options.server
@_probes("-c", "--count", COUNT.positive, "Stop after N probes.")
@_probes(
    "-i",
    "--interval",
    DURATION,
    "Time from each probe to the next, whatever comes back.",
    default=f"{PING_INTERVAL:g}s",
)
@_probes(
    "-s",
    "--size",
    SIZE,
    "Bytes of a probe; on a stream its newline is one of them.",
    default=PROBE_SIZE,
)
@options.timeout("Probes")
@_probes("-w", "--deadline", DURATION.positive, "Stop after this time, whatever is still awaited.")
@options.judgement
@_output("-q", "--quiet", bool, "Only the summary.")
@_output("-D", "timestamps", bool, "Begin each line with the time.")
@_output("--json", "as_json", bool, "NDJSON: an object a line.")
@options.plot("Draw the round trips and losses.")
def ping(
    target: Target,
    count: int | None,
    interval: float,
    size: int,
    timeout: float,
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
            run = Run(reactor, tracker, schedule, display, carrier)
            failure = None
            try:
                with signals(partial(soon, run.end), partial(soon, run.look)):
                    wait(run.measure)
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
