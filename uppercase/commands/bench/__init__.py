"""`uppercase bench`: its options, its connections and its exit status."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from uppercase.client.target import Target
from uppercase.commands._expectation import Expect, expectation
from uppercase.commands._help_layout import Command, option
from uppercase.commands._interrupts import Interrupts
from uppercase.commands._measure_options import (
    judgement_options,
    plot_option,
    reply_timeout,
    save_plot,
    timeout_option,
)
from uppercase.commands._option_types import Count, Duration, Size
from uppercase.commands._target_options import target_options
from uppercase.commands.bench._latencies import Latencies
from uppercase.commands.bench._ledger import Ledger, Pace
from uppercase.commands.bench._loop import Bench
from uppercase.commands.bench._report import Monitor, Result
from uppercase.commands.bench._sockets import connect
from uppercase.commands.bench._workload import Workload
from uppercase.commands.exit_status import NETWORK, OK
from uppercase.commands.ping._report import place, to_json
from uppercase.limits import (
    BENCH_CONNECTIONS,
    BENCH_DURATION,
    BENCH_PIPELINE,
    PROBE_SIZE,
)

if TYPE_CHECKING:
    from uppercase.commands.bench._datagrams import DatagramLoad
    from uppercase.commands.bench._stream import StreamLoad

__all__ = ["bench"]

_EXAMPLES: Final = """
    uppercase bench                            as much as 8 connections get through, for 10 s
    uppercase bench --pipeline 64 --size 1k    many messages under way at once
    uppercase bench --rate 5000                the latency at 5000 messages a second
    uppercase bench -u --json | tail -1 | jq .latency_ms
"""


@click.command("bench", cls=Command, examples=_EXAMPLES)
@target_options
@option(
    "--connections",
    type=Count(positive=True),
    default=BENCH_CONNECTIONS,
    show_default=True,
    section="Load",
    help="Connections; with -u, sockets.",
)
@option(
    "--size",
    type=Size(),
    default=PROBE_SIZE,
    show_default=True,
    section="Load",
    help="Bytes of a message; on a stream its newline is one of them.",
)
@option(
    "--pipeline",
    type=Count(positive=True),
    default=BENCH_PIPELINE,
    show_default=True,
    section="Load",
    help="Messages that each connection awaits at once.",
)
@option(
    "--rate",
    type=Count(positive=True),
    section="Load",
    help="Messages a second over all connections, whatever comes back.",
)
@option(
    "--duration",
    type=Duration(positive=True),
    default=BENCH_DURATION,
    show_default=f"{BENCH_DURATION:g}s",
    section="Load",
    help="How long.",
)
@timeout_option("Load")
@judgement_options
@option("--json", "as_json", is_flag=True, section="Output", help="NDJSON: an object a line.")
@plot_option("Draw the throughput and the latencies.")
def bench(
    target: Target,
    connections: int,
    size: int,
    pipeline: int,
    rate: int | None,
    duration: float,
    timeout: float | None,
    expect: tuple[str, ...],
    max_loss: float,
    as_json: bool,
    plot: Path | None,
) -> int:
    """Load a server and check every reply.

    Without --rate each connection sends the next message when a reply has come (closed loop); with
    it messages are sent when they are planned, and latency counts from then (open loop).
    """
    timeout = reply_timeout(target, timeout)
    pace = Pace(duration, rate, pipeline)
    workload = _workload(target, connections, size, pace, expectation(expect), timeout)
    load_kind = _load_kind(target)
    latencies = Latencies()  # Who is refused has none, so the next attempt may use it.
    for attempt, sockets in enumerate(connect(target, connections)):
        ledger = Ledger(latencies)
        monitor = Monitor(ledger, duration, as_json)
        if attempt == 0 and not as_json:
            planned = Result(target, pace, connections, size, ledger, 0.0, 0, 0.0)
            print(f"BENCH {place(target)} {planned.setting}", flush=True)
        loads = [load_kind(each, target, workload, ledger, timeout) for each in sockets]
        with Interrupts() as interrupts, monitor.showing():
            run = Bench(loads, pace, timeout, ledger, interrupts, monitor.tick)
            run.run()
        for load in loads:
            load.close()
        if not ledger.refused:
            break
    result = Result(
        target, pace, connections, size, ledger, run.elapsed, run.answered, run.processor
    )
    if as_json:
        print(to_json(result.as_object()), flush=True)
    elif ledger.answered or not ledger.errors:
        print("\n" + result.as_text(), flush=True)
    if plot is not None:
        from uppercase.commands._plots import bench_plot

        drawing = bench_plot(
            f"bench {target}: {result.rate:.0f} messages/s",
            result.setting,
            monitor.rates,
            ledger.latencies.distribution(),
        )
        save_plot(plot, drawing)
    if ledger.errors:
        raise ledger.errors[0]
    return OK if ledger.acceptable(max_loss) else NETWORK


def _workload(
    target: Target, connections: int, size: int, pace: Pace, expect: Expect, timeout: float
) -> Workload:
    """Return what each connection sends."""
    if not target.udp:
        return Workload.for_stream(expect, size, pace.pipeline)
    under_way = pace.pipeline
    if pace.rate is not None:
        under_way = int(pace.rate * timeout / connections) + 1
    return Workload.for_datagrams(expect, size, under_way)


def _load_kind(target: Target) -> "type[StreamLoad] | type[DatagramLoad]":
    """Return what loads one connection."""
    if target.udp:
        from uppercase.commands.bench._datagrams import DatagramLoad

        return DatagramLoad
    from uppercase.commands.bench._stream import StreamLoad

    return StreamLoad
