"""Our services and their peers on the same work, in turn, on one machine.

    make bench
    python -m benchmarks.side_by_side [--rounds 5] [--seconds 0.8] [--only udp] [--out DIRECTORY]

All servers of a work run at once, on the same core. Each round puts the work once on each, one
after the other and in another order each round, so that noise hits all alike. Figures are medians
over the rounds; a ratio is taken within a round, to the server in C (with TLS to plain Twisted),
and shown with its smallest and largest. What is compared is the processor time of the server, of
all its processes, by /proc: it tells what a request costs whatever the load can put on. Every byte
of every reply is checked. Only loopback is used.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.machine import (
    Failed,
    Load,
    build,
    free_port,
    make_certificate,
    model,
    put_load,
    serving,
)
from benchmarks.works import OURS, WORKS, Work, command, load_command

MOST_DRAWN: Final = 50
"""A longer bar (socat's) would leave no room to tell the others apart; the table has it."""
NOTHING: Final = Load(*[0] * len(Load._fields))


def cost(work: Work, load: Load) -> float:
    """Return microseconds of the server's processor time per request, or per megabyte."""
    return load.cpu * 1e6 / (load.megabytes if work.unit == "MB" else max(load.requests, 1))


@dataclass(frozen=True, slots=True)
class Row:
    """One server's figures on one work.

    Attributes:
        server: who.
        cost: microseconds of processor time per unit: the median.
        ratio: to the reference in the same round: median, smallest and largest.
        rate: units a second: the median.
        median, tail: microseconds of round trip: half and 99 % are within.
        repeated: datagrams that the load had to send again, in all rounds.
    """

    server: str
    cost: float
    ratio: tuple[float, float, float]
    rate: float
    median: float
    tail: float
    repeated: int


def rows(work: Work, rounds: Sequence[dict[str, Load]]) -> Iterator[Row]:
    """Sum up the rounds of one work, the cheapest server first."""
    found = []
    for server in {name for loads in rounds for name in loads}:
        loads = [each[server] for each in rounds if server in each]
        ratios = [
            cost(work, each[server]) / cost(work, each[work.reference])
            for each in rounds
            if server in each and cost(work, each.get(work.reference, NOTHING))
        ]
        spread = (statistics.median(ratios), min(ratios), max(ratios)) if ratios else (0.0,) * 3
        units = [
            (load.megabytes if work.unit == "MB" else load.requests) / load.seconds
            for load in loads
        ]
        found.append(
            Row(
                server,
                statistics.median(cost(work, load) for load in loads),
                (spread[0], spread[1], spread[2]),
                statistics.median(units),
                statistics.median(load.median for load in loads),
                statistics.median(load.tail for load in loads),
                sum(load.repeated for load in loads),
            )
        )
    yield from sorted(found, key=lambda row: row.cost)


def table(work: Work, figures: Sequence[Row]) -> str:
    lines = [
        f"{work.title}",
        f"  {'server':<18} {'CPU us/' + work.unit:>14} {'x of ' + work.reference:>12}"
        f"   {'from':>5} {'to':>6}"
        f" {work.unit + 's/s':>12} {'p50 us':>8} {'p99 us':>8}",
    ]
    for row in figures:
        ratio, least, most = row.ratio
        lines.append(
            f"  {row.server:<18} {row.cost:>14,.2f} {ratio:>12.2f}   {least:>5.2f} {most:>6.2f}"
            f" {row.rate:>12,.0f} {row.median:>8,.0f} {row.tail:>8,.0f}"
            + (f"   {row.repeated} datagrams repeated" if row.repeated else "")
        )
    return "\n".join(lines)


def measure(
    works: Sequence[Work], rounds: int, seconds: float
) -> list[tuple[Work, list[dict[str, Load]]]]:
    """Run all works, one after the other; say who gave no figure, and why."""
    results = []
    with TemporaryDirectory() as folder:
        made = {name: build(name, Path(folder)) for name in ("reference", "load")}
        made |= make_certificate(Path(folder))
        for work in works:
            started = time.monotonic()
            results.append((work, _measure(work, rounds, seconds, made)))
            print(f"{work.name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return results


def _measure(
    work: Work, rounds: int, seconds: float, made: dict[str, str]
) -> list[dict[str, Load]]:
    found: list[dict[str, Load]] = [{} for _ in range(rounds)]
    with ExitStack() as stack:
        running: dict[str, tuple[int, int]] = {}
        for server in work.servers():
            if server == "socat" and not shutil.which("socat"):
                continue
            port = free_port()
            with _explained(server, work):
                block = serving(command(server, work, port, made), port, work.kind)
                running[server] = stack.enter_context(block), port
        for loads in found:
            for server in random.sample(list(running), len(running)):
                process, port = running[server]
                with _explained(server, work):
                    loads[server] = put_load(load_command(work, port, seconds, made), process)
    return found


@contextmanager
def _explained(server: str, work: Work) -> Iterator[None]:
    """Say why a server gives no figure; the others still do."""
    try:
        yield
    except Failed as error:
        print(f"no figure of {server} on {work.name}: {error}", file=sys.stderr)


def write_json(file: Path, results: Sequence[tuple[Work, list[dict[str, Load]]]]) -> None:
    """Write every figure of every round."""
    found = {
        work.name: {
            "title": work.title,
            "rounds": [{name: load._asdict() for name, load in each.items()} for each in rounds],
        }
        for work, rounds in results
    }
    file.write_text(json.dumps({"machine": model(), "works": found}, indent=1) + "\n")


def draw(summed: Sequence[tuple[Work, Sequence[Row]]], file: Path) -> None:
    """Draw each work's ratios as bars, with the smallest and the largest of the rounds."""
    import matplotlib
    from matplotlib.figure import Figure

    rc: Any = {"svg.fonttype": "none", "svg.hashsalt": OURS, "font.size": 8}
    with matplotlib.rc_context(rc):
        heights = [len(figures) + 2 for _, figures in summed]
        figure = Figure(figsize=(8, 0.24 * sum(heights)), layout="constrained")
        plots = figure.subplots(len(summed), squeeze=False, height_ratios=heights)[:, 0]
        for plot, (work, figures) in zip(plots, summed, strict=True):
            shown = [row for row in figures if 0 < row.ratio[0] <= MOST_DRAWN][::-1]
            middle = [row.ratio[0] for row in shown]
            spread = [
                [row.ratio[0] - row.ratio[1] for row in shown],
                [row.ratio[2] - row.ratio[0] for row in shown],
            ]
            colours = ["#0969da" if OURS in row.server else "#afb8c1" for row in shown]
            names = [row.server for row in shown]
            bars = plot.barh(names, middle, xerr=spread, color=colours, ecolor="#59636e")
            plot.bar_label(bars, [f"{each:.2f}" for each in middle], padding=4)
            plot.set_title(f"{work.title}  (x of {work.reference})", loc="left", fontweight="bold")
            plot.spines[["top", "right"]].set_visible(False)
            plot.margins(x=0.12)
        plots[-1].set_xlabel("processor time of the server, as a multiple of another's")
        figure.savefig(file, facecolor="white", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often all is done [default: 5]")
    parser.add_argument("--seconds", type=float, default=0.8, help="of each load [default: 0.8]")
    parser.add_argument("--only", action="append", choices=[work.name for work in WORKS])
    parser.add_argument("--out", type=Path, help="a directory for the figures as JSON and SVG")
    options = parser.parse_args()
    works = [work for work in WORKS if work.name in (options.only or work.name)]
    results = measure(works, options.rounds, options.seconds)
    summed = [(work, list(rows(work, found))) for work, found in results]
    print("\n\n".join([model(), *(table(work, figures) for work, figures in summed)]))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "side-by-side.json", results)
        draw(summed, options.out / "side-by-side.svg")


if __name__ == "__main__":
    main()
