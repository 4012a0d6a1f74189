"""`uppercase bench`: its options, its connections and its exit status."""

from pathlib import Path
from typing import Final

import click

from uppercase.client.target import Target
from uppercase.commands._group import Command, section
from uppercase.commands._options import (
    Count,
    Duration,
    Expect,
    Size,
    expectation,
    judgement_options,
    plot_option,
    reply_timeout,
    target_options,
    timeout_option,
)
from uppercase.commands.bench._loads import DatagramLoad, StreamLoad
from uppercase.commands.bench._loop import Bench, Pace, connect
from uppercase.commands.bench._report import Monitor, Result
from uppercase.commands.bench._workload import Counts, Latencies, Workload
from uppercase.commands.cli import NETWORK, OK, signals
from uppercase.commands.ping._report import place, to_json
from uppercase.limits import PROBE_SIZE

_CONNECTIONS: Final = 8
"""Enough that a server is never idle between one client's request and the next, few enough that
what it costs is the messages."""

_PIPELINE: Final = 1
"""Messages that one connection may await at once: request and reply in turn, as most clients do."""

_DURATION: Final = 10.0
"""Seconds of load: long enough for a stable p99, as in iperf3."""

_EXAMPLES: Final = """
    uppercase bench                            as much as 8 connections get through, for 10 s
    uppercase bench --pipeline 64 --size 1k    many messages under way at once
    uppercase bench --rate 5000                the latency at 5000 messages a second
    uppercase bench -u --json | tail -1 | jq .latency_ms
"""

_load = section("Load")
_output = section("Output")


@click.command("bench", cls=Command, examples=_EXAMPLES)
@target_options
@_load(
    "--connections",
    type=Count(positive=True),
    default=_CONNECTIONS,
    help="Connections; with -u, sockets.",
)
@_load(
    "--size",
    type=Size(),
    default=PROBE_SIZE,
    help="Bytes of a message; on a stream its newline is one of them.",
)
@_load(
    "--pipeline",
    type=Count(positive=True),
    default=_PIPELINE,
    help="Messages that each connection awaits at once.",
)
@_load(
    "--rate",
    type=Count(positive=True),
    help="Messages a second over all connections, whatever comes back.",
)
@_load(
    "--duration",
    type=Duration(positive=True),
    default=_DURATION,
    show_default=f"{_DURATION:g}s",
    help="How long to load the server.",
)
@timeout_option("Load")
@judgement_options
@_output("--json", "as_json", is_flag=True, help="NDJSON: an object a line.")
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
    load_kind = DatagramLoad if target.udp else StreamLoad
    latencies = Latencies()  # Who is refused has none, so the next attempt may use it.
    for attempt, sockets in enumerate(connect(target, connections)):
        counts = Counts(latencies)
        monitor = Monitor(counts, duration, as_json)
        if attempt == 0 and not as_json:
            planned = Result(target, pace, connections, size, counts, 0.0, 0, 0.0)
            print(f"BENCH {place(target)} {planned.setting}", flush=True)
        loads = [load_kind(each, target, workload, counts, timeout) for each in sockets]
        run = Bench(loads, pace, timeout, counts, monitor.tick)
        with signals(run.stop, lambda: None), monitor.showing():
            run.run()
        for load in loads:
            load.close()
        if not counts.refused:
            break
    result = Result(
        target, pace, connections, size, counts, run.elapsed, run.answered, run.processor
    )
    if as_json:
        print(to_json(result.as_object()), flush=True)
    elif counts.answered or not counts.errors:
        print("\n" + result.as_text(), flush=True)
    if plot is not None:
        from uppercase.commands._plots import bench_plot

        bench_plot(
            f"bench {target}: {result.rate:.0f} messages/s",
            result.setting,
            monitor.rates,
            counts.latencies.distribution(),
            result.losses,
            result.percentiles,
        ).save(plot)
    if counts.errors:
        raise counts.errors[0]
    return OK if counts.acceptable(max_loss) else NETWORK


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
