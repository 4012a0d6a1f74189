"""`uppercase ping`: its options, its exit status, and what it prints.

It prints lines in the shape of ping(8), or objects, one per line (NDJSON). Numbers in the text have
a unit; in the objects they are numbers and the key names the unit. The objects are documented in
docs/reference/ping-and-bench.md. What a reply means is the tracker's affair, when probes are sent
and how they travel the run's.
"""

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from uppercase.client.target import Target, reachable
from uppercase.commands import NETWORK, OK, _options, _report, look_up, running, signals
from uppercase.commands._options import COUNT, DURATION, SIZE, acceptable, expectation
from uppercase.commands.group import Command, section
from uppercase.commands.ping._tracker import (
    PING_SAMPLES,
    Finding,
    Probes,
    RoundTrips,
    Totals,
    Tracker,
    Verdict,
    new_mark,
    schedule,
)
from uppercase.errors import ConnectionRefused, NetworkError, UserError
from uppercase.limits import PROBE_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PING_INTERVAL: Final = 1.0
"""Seconds between probes, as in ping(8)."""

PING_MIN_INTERVAL: Final = 0.001
"""A process's timers are good for about a millisecond; more load than this is bench's affair."""

_probes = section("Probes")
_output = section("Output")


@click.command("ping", cls=Command)
@_options.server
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
@_options.timeout("Probes")
@_probes("-w", "--deadline", DURATION.positive, "Stop after this time, whatever is still awaited.")
@_options.judgement
@_output("-q", "--quiet", bool, "Only the summary.")
@_output("-D", "timestamps", bool, "Begin each line with the time.")
@_output("--json", "as_json", bool, "NDJSON: one object per line.")
@_report.plot("Draw the round trips and losses.")
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
    if interval < PING_MIN_INTERVAL:
        raise UserError(
            f"got an interval of {interval:g} s; {PING_MIN_INTERVAL:g} s or more is "
            "accepted; for more load, use uppercase bench"
        )
    probes = Probes(expectation(expect), size, new_mark(), b"" if target.udp else b"\n")
    # Twisted is imported when something is measured: `--help` must not pay for it.
    from uppercase.commands.ping._run import DatagramRun, ProbeRun, StreamRun

    with running() as (reactor, wait):
        soon = reactor.callFromThread
        addresses = look_up(reachable, target) if target.udp else [None]
        for address in addresses:
            tracker = Tracker(probes, timeout)
            display = Display(target, timeout, tracker.totals, as_json=as_json, **shown)
            times = schedule(interval, count, deadline)
            given = reactor, target, tracker, times, deadline, display
            run: ProbeRun = DatagramRun(*given, address) if address else StreamRun(*given)
            wait(run.open())
            if address is addresses[0] and not as_json:
                what = f"{size} bytes, expecting {' then '.join(expect)}"
                print(f"PING {target.place} ({str(target).split()[0]}): {what}", flush=True)
            failure = None
            try:
                with signals(partial(soon, run.end), partial(soon, run.look)):
                    wait(run.measure())
            except NetworkError as error:
                failure = error
            if not (isinstance(failure, ConnectionRefused) and tracker.totals.untouched):
                break
    display.show_summary(failure)
    if plot is not None:
        save_plot(plot, target, display.found, tracker.totals)
    if failure is not None:
        raise failure
    complete = deadline is None or count is None or tracker.totals.settled >= count
    return OK if complete and acceptable(tracker.totals, max_loss) else NETWORK


_AMISS: Final = ("lost", "late", "duplicates", "reordered", "wrong")
"""What may become of a probe besides a good reply, as `Totals` and the objects call it."""

_COUNTED: Final = ("transmitted", "received", *_AMISS)
_EXTENT: Final = ("min", "avg", "max", "mdev")
_PERCENTILES: Final = ("p50", "p95", "p99")

_HISTOGRAM_FROM: Final = 10  # round trips; fewer are read faster as numbers
_BAR: Final = 40  # columns
_BESIDE_BAR: Final = 22

_EDGE: Final = 0.96  # Of a diagram's height: the place of marks without a round trip.
_VECTORS: Final = 5000
"""More points than this are drawn as an image, so that a file stays small however long the
measurement was."""


class _Look(NamedTuple):
    """How a kind of finding is shown: the tag of its line, ink and ground, its mark in a plot."""

    tag: str
    colours: tuple[str, str]
    shape: str
    ink: str
    size: int = 6


_LOOKS: Final = {
    "reply": _Look("", ("", ""), ".", _report.BLUE),
    "reordered": _Look("REORDERED", ("black", "green"), "o", _report.VIOLET, 7),
    "duplicate": _Look("DUP", ("black", "cyan"), "D", _report.BLUE),
    "late": _Look("LATE", ("black", "yellow"), "^", _report.BROWN),
    "wrong": _Look("WRONG", ("white", "blue"), "s", "black"),
    "lost": _Look("LOST", ("white", "red"), "x", _report.RED),
}
_TAGS: Final = {look.tag: look.colours for look in _LOOKS.values() if look.tag}


def milliseconds(seconds: float) -> float:
    """Return milliseconds, in whole microseconds."""
    return round(seconds * 1e3, 3)


def finding_text(finding: Finding, where: str, timeout: float) -> str:
    """Return the line for a finding; its last word is the tag, if there is one."""
    tag = _LOOKS["reordered" if finding.reordered else finding.verdict].tag
    if finding.verdict is Verdict.LOST:
        return f"no reply from {where}: seq={finding.seq} within {timeout:g} s {tag}"
    seq = "?" if finding.seq is None else finding.seq
    line = f"{finding.size} bytes from {where}: seq={seq}"
    if finding.rtt is not None:
        line += f" time={finding.rtt * 1e3:.3f} ms"
    return f"{line} {tag}".rstrip()


def coloured(line: str) -> str:
    """Return a line with its tag in the tag's own colours, on a terminal that has some."""
    head, _, tag = line.rpartition(" ")
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    # With a ground: letters of a colour fade where the terminal's is dark, or where it is not.
    return line if plain or tag not in _TAGS else f"{head} {click.style(tag, *_TAGS[tag])}"


def _finding_object(finding: Finding) -> dict[str, Any]:
    fields: dict[str, Any] = {"time": round(time.time(), 6), "seq": finding.seq}
    if finding.verdict is not Verdict.LOST:
        fields["bytes"] = finding.size
        fields["rtt_ms"] = None if finding.rtt is None else milliseconds(finding.rtt)
    if finding.verdict is Verdict.REPLY:
        fields["reordered"] = finding.reordered
    if finding.verdict is Verdict.WRONG:
        fields["got"] = _report.excerpt(finding.got)
        fields["expected"] = _report.excerpt(finding.expected) if finding.expected else None
    return fields


def _round_trips(rtt: RoundTrips) -> dict[str, float] | None:
    """Return what `rtt_ms` holds; None if there was no round trip."""
    if not rtt.count:
        return None
    percentiles = rtt.percentiles(*(float(name[1:]) for name in _PERCENTILES))
    values = (rtt.minimum, rtt.mean, rtt.maximum, rtt.mdev, *percentiles)
    return dict(zip(_EXTENT + _PERCENTILES, map(milliseconds, values), strict=True))


def _histogram(seconds: Iterable[float]) -> list[str]:
    """Return bars for a terminal, one per bin, in milliseconds; none is too short to be seen."""
    edges, heights = _report.bins(Counter(seconds))
    most = max(heights)
    bar = max(1, min(_BAR, get_terminal_size().columns - _BESIDE_BAR))
    return [
        f"{low * 1e3:10.3f} ms {'#' * ceil(bar * height / most):{bar}} {height:7}"
        for low, height in zip(edges, heights, strict=False)
    ]


def save_plot(path: Path, target: Target, found: Iterable[Finding], totals: Totals) -> "Figure":
    """Draw the round trips over the probes' numbers, what went wrong, and a histogram."""
    description = ", ".join(f"{getattr(totals, name)} {name}" for name in _COUNTED)
    panels: list[_report.Panel] = [
        partial(_draw, found),
        *_report.histogram(Counter(totals.rtt.recent), "RTT in ms"),
    ]
    return _report.save_plot(path, f"ping {target}", description, panels)


def _draw(found: Iterable[Finding], axes: "Axes") -> None:
    points: dict[str, dict[int, float]] = {name: {} for name in _LOOKS}
    for each in found:
        if each.seq is not None:
            in_time = each.verdict is Verdict.REPLY
            points[each.verdict][each.seq] = (each.rtt or 0) * 1e3 if in_time else _EDGE
            if each.reordered:
                points["reordered"][each.seq] = points["reply"][each.seq]
    # A probe that was answered after all is not lost, though it was reported as such in its time.
    for seq in (*points["late"], *points["wrong"]):
        points["lost"].pop(seq, None)
    axes.set(title="Round trips", xlabel="probe (seq)", ylabel="RTT in ms")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    for name, marks in points.items():
        if marks:
            look, has_time = _LOOKS[name], name in ("reply", "reordered")
            axes.plot(
                [*marks],
                [*marks.values()],
                look.shape,
                color=look.ink,
                markerfacecolor=look.ink if name == "reply" else "none",
                markersize=look.size,
                label=name,
                rasterized=len(marks) > _VECTORS,
                transform=axes.transData if has_time else axes.get_xaxis_transform(),
            )
    # Above the highest point, so that no point is under a mark.
    axes.set_ylim(0, max(points["reply"].values(), default=1.0) * 1.15)
    if len(axes.lines) > 1:  # the axes say what a single one is
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=6, handletextpad=0)


@dataclass
class Display:
    """Prints what is found, and keeps what a plot needs; each finding at once, unless `quiet`."""

    target: Target
    timeout: float
    totals: Totals
    quiet: bool
    as_json: bool
    timestamps: bool
    started: float = field(default=0.0, init=False)
    connections: int = field(default=0, init=False)
    first_wrong: Finding | None = field(default=None, init=False)
    found: deque[Finding] = field(default_factory=partial(deque, maxlen=PING_SAMPLES), init=False)

    def show(self, finding: Finding) -> None:
        # Without the payloads: those of wrong replies may be long, and are not drawn.
        self.found.append(replace(finding, got=b"", expected=b""))
        if finding.verdict is Verdict.WRONG and self.first_wrong is None:
            self.first_wrong = finding
        if self.quiet:
            return
        if self.as_json:
            _report.print_object(finding.verdict.value, **_finding_object(finding))
            return
        line = finding_text(finding, self.target.place, self.timeout)
        if self.timestamps:
            line = f"[{time.time():.6f}] {line}"
        print(coloured(line), flush=True)

    def show_interim(self) -> None:
        """Print how it stands: as an object, or as a line on standard error."""
        if self.as_json:
            self._show_object("interim")
            return
        totals = self.totals
        line = f"{totals.received}/{totals.transmitted} packets, {totals.loss * 100:.4g}% loss"
        values = _round_trips(totals.rtt)
        row = "" if values is None else f", {_report.in_a_row(values, _EXTENT[:3])}"
        print(line + row, file=sys.stderr, flush=True)

    def show_summary(self, failure: NetworkError | None) -> None:
        totals = self.totals
        if self.as_json:
            self._show_object("summary", error=failure and str(failure))
            return
        if failure is not None and totals.untouched:
            return  # nothing has been measured; the sentence about the error says it all
        lines = [
            f"\n--- {self.target.place} ping statistics ---",
            f"{totals.transmitted} packets transmitted, {totals.received} received, "
            f"{totals.loss * 100:.4g}% packet loss, time {self._elapsed * 1e3:.0f} ms",
            _report.in_words(totals, _AMISS),
        ]
        wrong = self.first_wrong
        if wrong is not None:
            lines.append("the first wrong reply" + _report.difference(wrong.got, wrong.expected))
        values = _round_trips(totals.rtt)
        if values is not None:
            lines += [f"rtt {_report.in_a_row(values, names)}" for names in (_EXTENT, _PERCENTILES)]
        if sys.stdout.isatty() and totals.rtt.count >= _HISTOGRAM_FROM:
            lines += ["round trips", *_histogram(totals.rtt.recent)]
        print("\n".join(lines), flush=True)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _show_object(self, kind: str, **more: Any) -> None:
        """Print the fields that the summary and an interim report share, and some more."""
        _report.print_object(
            kind,
            target=str(self.target),
            connections=None if self.target.udp else self.connections,
            **{name: getattr(self.totals, name) for name in (*_COUNTED, "pending")},
            loss=round(self.totals.loss, 6),
            elapsed_ms=milliseconds(self._elapsed),
            rtt_ms=_round_trips(self.totals.rtt),
            **more,
        )
