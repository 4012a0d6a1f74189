"""`uppercase bench`: its options, its exit status, and what it prints: text, NDJSON, a bar.

MB is 1,000,000 bytes of messages, without the headers that carry them.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from uppercase.client.target import Target
from uppercase.commands import NETWORK, OK, _options, _report, signals
from uppercase.commands._options import COUNT, DURATION, SIZE, Quantity, acceptable, expectation
from uppercase.commands._report import difference, excerpt, in_a_row, in_words, print_object
from uppercase.commands.bench._plan import Counts, Latencies, Plan, Workload, connect
from uppercase.commands.bench._run import Bench, DatagramLoad, StreamLoad
from uppercase.commands.group import Command, section
from uppercase.core.guards import LOCK_STEP
from uppercase.core.values import counted, parse_limit, up_to
from uppercase.limits import PROBE_SIZE

_CONNECTIONS: Final = 8
"""Enough that a server is never idle between one client's request and the next, few enough that it
pays for messages only."""

_PIPELINE: Final = 1
"""Messages that one connection may await at once: request and reply in turn, as most clients do."""

_DURATION: Final = 10.0
"""Seconds of load: long enough for a stable p99, as in iperf3."""

_RATE: Final = Quantity("n", up_to(parse_limit, 1_000_000, "one client sends no more a second"))
"""Each that is planned has a place in memory until it is sent."""

_load = section("Load")
_output = section("Output")


@click.command("bench", cls=Command)
@_options.server
@_load("--connections", COUNT.positive, "Connections; with -u, sockets.", default=_CONNECTIONS)
@_load(
    "--size",
    SIZE,
    "Bytes of a message; on a stream its newline is one of them.",
    default=PROBE_SIZE,
)
@_load(
    "--pipeline", COUNT.positive, "Messages that each connection awaits at once.", default=_PIPELINE
)
@_load("--rate", _RATE, "Messages a second over all connections, whatever comes back.")
@_load("--duration", DURATION.positive, "How long to load the server.", default=f"{_DURATION:g}s")
@_options.timeout("Load")
@_options.judgement
@_output("--json", "as_json", bool, "NDJSON: one object per line.")
@_report.plot("Draw the throughput and the latencies.")
def bench(
    target: Target,
    expect: tuple[str, ...],
    max_loss: float,
    as_json: bool,
    plot: Path | None,
    **load: Any,
) -> int:
    """Load a server and check every reply.

    Without --rate each connection sends the next message when a reply has come (closed loop); with
    it messages are sent when they are planned, and latency counts from then (open loop).

    Examples:
        uppercase bench                            as much as 8 connections get through, for 10 s
        uppercase bench --pipeline 64 --size 1k    many messages under way at once
        uppercase bench --rate 5000                the latency at 5000 messages a second
        uppercase bench -u --json | tail -1 | jq .latency_ms
    """
    plan = Plan(target, **load)
    workload = Workload.of(plan, expectation(expect))
    latencies = Latencies()  # A refused attempt has none, so the next may use it.
    for attempt, sockets in enumerate(connect(target, plan.connections)):
        counts = Counts(latencies)
        display = Display(plan, counts, as_json)
        if attempt == 0 and not as_json:
            print(f"BENCH {target.place} {plan}", flush=True)
        load_kind = DatagramLoad if target.udp else StreamLoad
        loads = [load_kind(each, plan, workload, counts) for each in sockets]
        run = Bench([*loads], plan, counts, display.tick)
        with signals(run.stop, lambda: None), display.bar:
            run.run()
        for each in loads:
            each.connection.close()
        if not counts.refused:
            break
    if as_json:
        print_object("summary", **display.as_object())
    elif counts.answered or not counts.errors:
        print("\n" + display.as_text(), flush=True)
    if plot is not None:
        panels = [
            _report.throughput(display.rates, in_words(counts, _AMISS)),
            *_report.histogram(latencies.distribution(), "latency in ms", display.percentiles),
        ]
        title = f"bench {target}: {display.rate:.0f} messages/s"
        _report.save_plot(plot, title, str(plan), panels)
    if counts.errors:
        raise counts.errors[0]
    return OK if acceptable(counts, max_loss) else NETWORK


_AMISS: Final = ("lost", "late", "duplicates", "wrong")
_PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)
_MB: Final = 1e6
_BUSY: Final = 0.9  # of a core: above this, what is measured may be ourselves


@dataclass
class Display:
    """What is measured: a progress bar and an object each second, at the end text or an object.

    The bar is shown within a `with` block; `rates` are for a plot.
    """

    plan: Plan
    counts: Counts
    as_json: bool
    rates: list[tuple[float, float]] = field(default_factory=list)
    _shown: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        # Objects on the same terminal would break it up.
        shown = sys.stderr.isatty() and not (self.as_json and sys.stdout.isatty())
        shown = shown and os.environ.get("TERM") != "dumb"  # It would print the bar's escapes.
        self.bar = click.progressbar(
            length=round(self.plan.duration * 1e3),  # whole milliseconds, since it counts
            width=0,  # What there is room for: a line that goes on below would stay there.
            show_percent=False,
            item_show_func=lambda rate: rate,
            file=sys.stderr,
            hidden=not shown,
        )

    def tick(self, elapsed: float) -> None:
        """Show how it stands; called about ten times a second, and at the end of the load."""
        self.counts.latencies.fold()
        before, answered_before = self._shown
        if int(elapsed) == int(before) and elapsed < self.plan.duration:
            return
        answered = self.counts.answered
        rate = (answered - answered_before) / (elapsed - before)
        self._shown = (elapsed, answered)
        self.rates.append((elapsed, rate))
        if self.as_json:
            counted = {"elapsed_s": round(elapsed, 3), "answered": answered}
            print_object("interval", **counted, messages_per_s=round(rate, 1))
        self.bar.update(round(elapsed * 1e3) - self.bar.pos, f"{rate:.0f} messages/s")
        if not self.bar.hidden:
            # A signal may end us: click shows the cursor again only at the bar's own end.
            click.echo("\033[?25h", file=sys.stderr, nl=False)

    @property
    def rate(self) -> float:
        return self.counts.in_time / (self.counts.elapsed or 1.0)

    @property
    def latency(self) -> dict[str, float] | None:
        """What `latency_ms` holds."""
        return self.counts.latencies.summary_ms(_PERCENTILES)

    @property
    def percentiles(self) -> str:
        """The percentiles of the latencies, in a line; nothing without latencies."""
        latency = self.latency or {}
        return in_a_row(latency, [name for name in latency if name[0] == "p"]) if latency else ""

    def as_object(self) -> dict[str, Any]:
        counts, plan = self.counts, self.plan
        elapsed = counts.elapsed or 1.0
        wrong = counts.first_wrong
        counted = ("transmitted", "received", *_AMISS, "pending")
        return {
            "target": str(plan.target),
            "loop": "closed" if plan.rate is None else "open",
            "connections": plan.connections,
            "size": plan.size,
            "pipeline": plan.pipeline if plan.rate is None else None,
            "rate": plan.rate,
            "elapsed_s": round(counts.elapsed, 6),
            **{name: getattr(counts, name) for name in counted},
            "messages_per_s": round(self.rate, 1),
            "sent_mb_per_s": round(counts.sent_bytes / elapsed / _MB, 3),
            "received_mb_per_s": round(counts.received_bytes / elapsed / _MB, 3),
            "latency_ms": self.latency,
            "send_lag_ms": None if plan.rate is None else round(counts.lag * 1e3, 3),
            "client_cpu": round(counts.processor / elapsed, 3),
            "first_wrong": wrong and {"got": excerpt(wrong[0]), "expected": excerpt(wrong[1])},
            "error": str(counts.errors[0]) if counts.errors else None,
        }

    def as_text(self) -> str:
        counts = self.counts
        fields = self.as_object()
        lines = [
            f"--- {self.plan.target.place} bench statistics ---",
            f"{counted(counts.transmitted, 'message')} transmitted, {counts.received} received, "
            f"time {counts.elapsed:.3f} s",
            in_words(counts, _AMISS),
            f"throughput {self.rate:.0f} messages/s, {fields['sent_mb_per_s']:.3f} MB/s sent, "
            f"{fields['received_mb_per_s']:.3f} MB/s received",
        ]
        if counts.first_wrong is not None:
            lines.append("the first wrong reply" + difference(*counts.first_wrong))
        latency = self.latency
        if latency is not None:
            since = "" if self.plan.rate is None else " from the planned time"
            lines.append(f"latency{since} {in_a_row(latency, ('min', 'avg', 'max'))}")
            lines.append(f"latency{since} {self.percentiles}")
        return "\n".join([*lines, *self._cautions()])

    def _cautions(self) -> Iterator[str]:
        """Say what the numbers do not show."""
        counts = self.counts
        closed = self.plan.rate is None
        if not closed:
            yield f"messages were offered up to {counts.lag * 1e3:.3f} ms after their time"
        busy = counts.processor / (counts.elapsed or 1.0)
        line = f"this client used {busy * 100:.0f}% of a core"
        # An open loop asks the selector without pause on purpose.
        yield line + ("; it may be what limits the throughput" if closed and busy > _BUSY else "")
        alone = closed and self.plan.target.udp and self.plan.pipeline == 1
        if alone and counts.lost and counts.transmitted > LOCK_STEP:
            yield (
                "one message under way at a time looks like a loop of servers, and uppercase-udp "
                f"drops one in {LOCK_STEP:,} of those; it drops none with --pipeline=2"
            )
        if len(counts.errors) > 1:
            yield f"{len(counts.errors)} connections ended early"
