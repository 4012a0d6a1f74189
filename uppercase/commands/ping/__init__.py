"""`uppercase ping`: its options, its exit status, and what it prints.

It prints lines in the shape of ping(8), or objects, one a line (NDJSON). Numbers in the text have a
unit; in the objects they are numbers and the key names the unit. The objects are documented in
docs/reference/ping-and-bench.md; `SCHEMA` counts their breaking changes. What a reply means is the
tracker's affair, when probes are sent and how they travel the run's; what bench words in the same
way is here, too.
"""

import json
import os
import sys
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from uppercase.client.target import Target
from uppercase.commands import NETWORK, OK, _options, signals
from uppercase.commands._group import Command, say, section
from uppercase.commands._options import COUNT, DURATION, SIZE, expectation
from uppercase.commands.ping._tracker import (
    PING_SAMPLES,
    Finding,
    Kind,
    Probes,
    RoundTrips,
    Schedule,
    Totals,
    Tracker,
    new_mark,
)
from uppercase.errors import ConnectionRefused, NetworkError
from uppercase.limits import PROBE_SIZE

PING_INTERVAL: Final = 1.0
"""Seconds between probes, as in ping(8)."""

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
@_output("--json", "as_json", bool, "NDJSON: an object a line.")
@_options.plot("Draw the round trips and losses.")
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
    from uppercase.commands import running
    from uppercase.commands.ping._run import Run, open_carriers

    with running() as (reactor, wait):
        soon = reactor.callFromThread
        # Of objects, the summary's `connections` tells.
        tell = (lambda sentence: None) if as_json else say
        carriers = wait(open_carriers(reactor, target, tell))
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
                    wait(run.measure())
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


SCHEMA: Final = 1
"""The version of the objects: it grows when a key changes its meaning or goes away."""

AMISS: Final = ("lost", "late", "duplicates", "reordered", "wrong")
"""What may become of a probe besides a good reply, as `Totals` and the objects call it."""

_EXTENT: Final = ("min", "avg", "max", "mdev")
_PERCENTILES: Final = ("p50", "p95", "p99")

_EXCERPT: Final = 60
_BEFORE, _AFTER = 8, 24  # bytes shown around the first difference
_HISTOGRAM_FROM: Final = 10  # round trips; fewer are read faster as numbers
_DECADE: Final = 10
_BAR: Final = 40  # columns

_COLOURS: Final = {
    "LOST": "red",
    "LATE": "yellow",
    "DUP": "blue",
    "WRONG": "bright_red",
    "REORDERED": "magenta",
}


def print_object(kind: str, **fields: Any) -> None:
    """Print one line of NDJSON."""
    line = {"schema": SCHEMA, "type": kind, **fields}
    print(json.dumps(line, ensure_ascii=False), flush=True)


def excerpt(data: bytes) -> str:
    r"""Return the beginning of some bytes as text; what is not UTF-8 stands as `\xNN`."""
    text = data[:_EXCERPT].decode("utf-8", "backslashreplace")
    return text + "..." if len(data) > _EXCERPT else text


def difference(got: bytes, expected: bytes) -> str:
    """Return the rest of a sentence about a wrong reply: where it differs, and how."""
    if not expected:
        return f" was {excerpt(got)!r}; no probe was awaiting one"
    pairs = enumerate(zip(got, expected, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(got), len(expected)))
    shown = slice(max(0, at - _BEFORE), at + _AFTER)
    return f" differs at byte {at}: {excerpt(got[shown])!r} instead of {excerpt(expected[shown])!r}"


def in_words(counts: Any, names: Iterable[str]) -> str:
    """Return `3 lost, 1 late` of counts that have these names, and what is still awaited."""
    words = [f"{getattr(counts, name)} {name}" for name in names]
    return ", ".join([*words, f"{counts.pending} still awaited"] if counts.pending else words)


def in_a_row(values: Mapping[str, float], names: Sequence[str]) -> str:
    """Return `min/avg/max = 0.1/0.2/0.3 ms` of those of the values that have these names."""
    numbers = "/".join(f"{values[name]:.3f}" for name in names)
    return f"{'/'.join(names).replace('_', '.')} = {numbers} ms"


def milliseconds(seconds: float) -> float:
    """Return milliseconds, in whole microseconds."""
    return round(seconds * 1e3, 3)


def finding_text(finding: Finding, where: str, timeout: float) -> str:
    """Return the line for a finding; its last word is the tag, if there is one."""
    if finding.kind is Kind.LOST:
        return f"no reply from {where}: seq={finding.seq} within {timeout:g} s LOST"
    seq = "?" if finding.seq is None else finding.seq
    line = f"{finding.size} bytes from {where}: seq={seq}"
    if finding.rtt is not None:
        line += f" time={finding.rtt * 1e3:.3f} ms"
    if finding.kind is Kind.REPLY:
        return line + " REORDERED" if finding.reordered else line
    return f"{line} {'DUP' if finding.kind is Kind.DUPLICATE else finding.kind.name}"


def coloured(line: str) -> str:
    """Return a line with its tag in the tag's own colour, on a terminal that may have some."""
    head, _, tag = line.rpartition(" ")
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return line if plain or tag not in _COLOURS else f"{head} {click.style(tag, fg=_COLOURS[tag])}"


def _finding_object(finding: Finding) -> dict[str, Any]:
    fields: dict[str, Any] = {"time": round(time.time(), 6), "seq": finding.seq}
    if finding.kind is not Kind.LOST:
        fields["bytes"] = finding.size
        fields["rtt_ms"] = None if finding.rtt is None else milliseconds(finding.rtt)
    if finding.kind is Kind.REPLY:
        fields["reordered"] = finding.reordered
    if finding.kind is Kind.WRONG:
        fields["got"] = excerpt(finding.got)
        fields["expected"] = excerpt(finding.expected) if finding.expected else None
    return fields


def _round_trips(rtt: RoundTrips) -> dict[str, float] | None:
    """Return what `rtt_ms` holds; None if there was no round trip."""
    if not rtt.count:
        return None
    percentiles = rtt.percentiles(*(float(name[1:]) for name in _PERCENTILES))
    values = (rtt.minimum, rtt.mean, rtt.maximum, rtt.mdev, *percentiles)
    return dict(zip(_EXTENT + _PERCENTILES, map(milliseconds, values), strict=True))


class Bin(NamedTuple):
    """One bar: samples from `low` up to, but not including, `high`; the last bin includes it."""

    low: float
    high: float
    height: int


def bins(samples: Iterable[float] | Mapping[float, int], number: int = 16) -> list[Bin]:
    """Sort samples into bins.

    They are of equal width, or of equal ratio where the samples spread over more than a decade: a
    few slow replies would otherwise press all others into one bar.
    """
    counted = samples if isinstance(samples, Mapping) else Counter(samples)
    if not counted:
        return []
    low, high = min(counted), max(counted)
    if low == high:
        number = 1
    if low > 0 and high / low > _DECADE:
        ratio = (high / low) ** (1 / number)
        edges = [low * ratio**index for index in range(number)]
    else:
        edges = [low + (high - low) * index / number for index in range(number)]
    counts = [0] * number
    for value, times in counted.items():
        counts[bisect_right(edges, value) - 1] += times
    ends = [*edges[1:], high]
    return [Bin(*each) for each in zip(edges, ends, counts, strict=True)]


def _histogram(seconds: Iterable[float]) -> list[str]:
    """Return bars for a terminal, a line a bin, in milliseconds; no bar is too short to be seen."""
    rows = bins(seconds)
    most = max(row.height for row in rows)
    return [
        f"{row.low * 1e3:10.3f} ms {'#' * ceil(_BAR * row.height / most):{_BAR}} {row.height:7}"
        for row in rows
    ]


@dataclass
class Display:
    """Prints what is found, and keeps what a plot needs; each finding at once, unless `quiet`."""

    target: Target
    timeout: float
    totals: Totals
    quiet: bool
    as_json: bool
    timestamps: bool
    started: float = field(default_factory=time.monotonic, init=False)
    first_wrong: Finding | None = field(default=None, init=False)
    found: deque[Finding] = field(default_factory=partial(deque, maxlen=PING_SAMPLES), init=False)

    def show(self, finding: Finding) -> None:
        self.found.append(finding)
        if finding.kind is Kind.WRONG and self.first_wrong is None:
            self.first_wrong = finding
        if self.quiet:
            return
        if self.as_json:
            print_object(finding.kind.value, **_finding_object(finding))
            return
        line = finding_text(finding, self.target.place, self.timeout)
        if self.timestamps:
            line = f"[{time.time():.6f}] {line}"
        print(coloured(line), flush=True)

    def show_interim(self, connections: int | None) -> None:
        """Print how it stands: among the objects, or in a line beside the lines."""
        if self.as_json:
            self._show_object("interim", connections)
            return
        totals = self.totals
        line = f"{totals.received}/{totals.transmitted} packets, {totals.loss * 100:.4g}% loss"
        values = _round_trips(totals.rtt)
        row = "" if values is None else f", {in_a_row(values, _EXTENT[:3])}"
        print(line + row, file=sys.stderr, flush=True)

    def show_summary(self, connections: int | None, failure: NetworkError | None) -> None:
        totals = self.totals
        if self.as_json:
            self._show_object("summary", connections, error=failure and str(failure))
            return
        if failure is not None and totals.untouched:
            return  # nothing has been measured; the sentence about the error says it all
        lines = [
            f"\n--- {self.target.place} ping statistics ---",
            f"{totals.transmitted} packets transmitted, {totals.received} received, "
            f"{totals.loss * 100:.4g}% packet loss, time {self._elapsed * 1e3:.0f} ms",
            in_words(totals, AMISS),
        ]
        wrong = self.first_wrong
        if wrong is not None:
            lines.append("the first wrong reply" + difference(wrong.got, wrong.expected))
        values = _round_trips(totals.rtt)
        if values is not None:
            lines += [f"rtt {in_a_row(values, names)}" for names in (_EXTENT, _PERCENTILES)]
        if sys.stdout.isatty() and totals.rtt.count >= _HISTOGRAM_FROM:
            lines += ["round trips", *_histogram(totals.rtt.recent)]
        print("\n".join(lines), flush=True)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _show_object(self, kind: str, connections: int | None, **more: Any) -> None:
        """Print the fields that the summary and an interim report share, and some more."""
        counted = ("transmitted", "received", *AMISS, "pending")
        print_object(
            kind,
            target=str(self.target),
            connections=connections,
            **{name: getattr(self.totals, name) for name in counted},
            loss=round(self.totals.loss, 6),
            elapsed_ms=milliseconds(self._elapsed),
            rtt_ms=_round_trips(self.totals.rtt),
            **more,
        )
