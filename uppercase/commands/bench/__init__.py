"""`uppercase bench`: its options, its exit status, and what it prints: text, NDJSON, a bar.

MB is 1,000,000 bytes of messages, without the headers that carry them.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
from uppercase.commands.bench._workload import Counts, Latencies, Workload
from uppercase.commands.cli import NETWORK, OK, signals
from uppercase.commands.ping._report import (
    difference,
    excerpt,
    in_a_row,
    in_words,
    place,
    to_json,
)
from uppercase.limits import PROBE_SIZE

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

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


_AMISS: Final = ("lost", "late", "duplicates", "wrong")
_PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)
_MB: Final = 1e6
_BUSY: Final = 0.9  # of a core: above this, what is measured may be ourselves


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured.

    Attributes:
        elapsed: seconds of load.
        answered: messages answered within them.
        processor: seconds of processor time that we used in them.
    """

    target: Target
    pace: Pace
    connections: int
    size: int
    counts: Counts
    elapsed: float
    answered: int
    processor: float

    @property
    def rate(self) -> float:
        """Messages answered a second."""
        return self.answered / self.elapsed if self.elapsed else 0.0

    @property
    def busy(self) -> float:
        """The part of one core that we used, 0 to 1."""
        return self.processor / self.elapsed if self.elapsed else 0.0

    @property
    def setting(self) -> str:
        """How the server was loaded, in a line."""
        pace = self.pace
        loop = (
            f"closed loop, pipeline {pace.pipeline}"
            if pace.rate is None
            else f"open loop, {pace.rate:g} messages/s"
        )
        connections = "1 connection" if self.connections == 1 else f"{self.connections} connections"
        return f"{loop}, {connections}, {self.size}-byte messages, {pace.duration:g} s"

    def as_object(self) -> dict[str, Any]:
        """Return the fields of the summary object."""
        counts, pace = self.counts, self.pace
        elapsed = self.elapsed or 1.0
        wrong = counts.first_wrong
        return {
            "type": "summary",
            "target": str(self.target),
            "loop": "closed" if pace.rate is None else "open",
            "connections": self.connections,
            "size": self.size,
            "pipeline": pace.pipeline if pace.rate is None else None,
            "rate": pace.rate,
            "elapsed_s": round(self.elapsed, 6),
            **{
                name: getattr(counts, name)
                for name in ("transmitted", "received", *_AMISS, "pending")
            },
            "messages_per_s": round(self.rate, 1),
            "sent_mb_per_s": round(counts.sent_bytes / elapsed / _MB, 3),
            "received_mb_per_s": round(counts.received_bytes / elapsed / _MB, 3),
            "latency_ms": counts.latencies.summary_ms(_PERCENTILES),
            "send_lag_ms": None if pace.rate is None else round(counts.lag * 1e3, 3),
            "client_cpu": round(self.busy, 3),
            "first_wrong": wrong and {"got": excerpt(wrong[0]), "expected": excerpt(wrong[1])},
            "error": str(counts.errors[0]) if counts.errors else None,
        }

    @property
    def losses(self) -> str:
        """What went wrong, in a line."""
        return in_words(self.counts, _AMISS)

    @property
    def percentiles(self) -> str:
        """The percentiles of the latencies, in a line; nothing without latencies."""
        latency = self.as_object()["latency_ms"] or {}
        names = [name for name in latency if name[0] == "p"]
        return in_a_row(latency, names) if names else ""

    def as_text(self) -> str:
        """Return the lines of the summary."""
        counts = self.counts
        fields = self.as_object()
        lines = [
            f"--- {place(self.target)} bench statistics ---",
            f"{counts.transmitted} messages transmitted, {counts.received} received, "
            f"time {self.elapsed:.3f} s",
            self.losses,
            f"throughput {self.rate:.0f} messages/s, {fields['sent_mb_per_s']:.3f} MB/s sent, "
            f"{fields['received_mb_per_s']:.3f} MB/s received",
        ]
        if counts.first_wrong is not None:
            lines.append("the first wrong reply" + difference(*counts.first_wrong))
        latency = fields["latency_ms"]
        if latency is not None:
            since = "" if self.pace.rate is None else " from the planned time"
            lines.append(f"latency{since} {in_a_row(latency, ('min', 'avg', 'max'))}")
            lines.append(f"latency{since} {self.percentiles}")
        return "\n".join([*lines, *self._cautions()])

    def _cautions(self) -> Iterator[str]:
        """Say what the numbers do not show."""
        if self.pace.rate is not None:
            yield f"messages were offered up to {self.counts.lag * 1e3:.3f} ms after their time"
        line = f"this client used {self.busy * 100:.0f}% of a core"
        # An open loop asks the selector without pause on purpose.
        if self.busy > _BUSY and self.pace.rate is None:
            line += "; it may be what limits the throughput"
        yield line
        errors = self.counts.errors
        if len(errors) > 1:
            yield f"{len(errors)} connections ended early"


@dataclass
class Monitor:
    """Follows a run: a progress bar, an object each second, and the rates for a plot.

    Attributes:
        rates: seconds since the start, and messages a second in the second before.
    """

    counts: Counts
    duration: float
    as_json: bool
    rates: list[tuple[float, float]] = field(default_factory=list)
    _shown: tuple[float, int] = (0.0, 0)
    _bar: "tuple[Progress, TaskID] | None" = None

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the progress bar on a terminal's standard error until the block ends."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,  # its thread would disturb what is measured
        )
        with progress:
            self._bar = (progress, progress.add_task("bench", total=self.duration, rate=""))
            yield
        self._bar = None

    def tick(self, elapsed: float) -> None:
        """Take note of the time; called about ten times a second, and at the end of the load."""
        self.counts.latencies.fold()
        before, answered_before = self._shown
        if int(elapsed) == int(before) and elapsed < self.duration:
            return
        answered = self.counts.answered
        rate = (answered - answered_before) / (elapsed - before)
        self._shown = (elapsed, answered)
        self.rates.append((elapsed, rate))
        if self.as_json:
            fields = {
                "type": "interval",
                "elapsed_s": round(elapsed, 3),
                "answered": answered,
                "messages_per_s": round(rate, 1),
            }
            print(to_json(fields), flush=True)
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, completed=elapsed, rate=f"{rate:.0f} messages/s")
            progress.refresh()
