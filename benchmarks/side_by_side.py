"""Our services and their peers on the same work, in turn, on one machine.

    make bench
    python -m benchmarks.side_by_side [--rounds 5] [--seconds 1] [--only udp] [--out DIRECTORY]

Each round puts each work once on each server, one after the other and in another order each round,
so that noise hits all alike. Figures are medians over the rounds; a ratio is taken within a round,
to the server in C, and shown with its smallest and largest. What is compared is the processor time
of the server, of all its processes, by /proc: it tells what a request costs whatever the load can
put on. Every byte of every reply is checked. Only loopback is used.
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import Failed, Load, build, free_port, put_load, serving

OURS: Final = "uppercase"
REFERENCE: Final = "C"


@dataclass(frozen=True, slots=True)
class Work:
    """What one client program does, and who does the serving.

    Attributes:
        name: a short one, for `--only`.
        title: what tables show.
        kind: what the servers speak: tcp, lines or udp.
        load: the load's kind, clients, depth and size.
        peers: who is compared, besides us.
        unit: what the cost is counted by: a request, or a megabyte.
        ours: further options of our service.
    """

    name: str
    title: str
    kind: str
    load: tuple[str, int, int, int]
    peers: tuple[str, ...]
    unit: str = "request"
    ours: tuple[str, ...] = ()


LOOPS: Final = ("uvloop", "asyncio", "gevent", "twisted")
WORKS: Final = (
    Work(
        "ask",
        "TCP request/reply, 50 connections, 100 B",
        "tcp",
        ("ask", 50, 1, 100),
        (REFERENCE, *LOOPS),
    ),
    Work(
        "pipelined",
        "TCP, 16 requests pipelined, 50 connections, 100 B",
        "tcp",
        ("ask", 50, 16, 100),
        (REFERENCE, *LOOPS),
    ),
    Work(
        "stream",
        "TCP stream both ways, 4 connections",
        "tcp",
        ("stream", 4, 1, 65536),
        (REFERENCE, *LOOPS),
        unit="MB",
    ),
    Work(
        "lines",
        "TCP lines, 16 pipelined, 50 connections, 100 B",
        "lines",
        ("ask", 50, 16, 100),
        (REFERENCE, "uvloop", "asyncio", "twisted"),
        ours=("--framing=line",),
    ),
    Work(
        "chain",
        "the same with a chain of three transforms",
        "lines",
        ("ask", 50, 16, 100),
        (REFERENCE,),
        ours=("--framing=line", *("--transform=uppercase",) * 3),
    ),
    Work(
        "connect",
        "TCP connect, ask, close, one after another, 100 B",
        "tcp",
        ("connect", 1, 1, 100),
        (REFERENCE, *LOOPS, "lecture", "socat"),
    ),
    Work(
        "udp",
        "UDP, 8 sockets x 8 under way, 100 B",
        "udp",
        ("udp", 8, 8, 100),
        (REFERENCE, *LOOPS, "lecture"),
    ),
)


def command(server: str, work: Work, port: int, made: dict[str, str]) -> list[str]:
    """Return what starts a server for a work."""
    kind = work.kind
    if server == OURS:
        twistd = str(Path(sys.executable).parent / "twistd")
        service = "uppercase-udp" if kind == "udp" else "uppercase-tcp"
        return [twistd, "-n", "--pidfile=", service, f"--port={port}", *work.ours]
    if server == REFERENCE:
        return [made["reference"], "udp" if kind == "udp" else "tcp", str(port)]
    if server == "socat":
        listen = f"TCP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1,backlog=1024"
        return ["socat", listen, "EXEC:stdbuf -o0 tr a-z A-Z"]
    return [sys.executable, "-m", "benchmarks.peers", server, kind, str(port)]


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
            cost(work, each[server]) / cost(work, each[REFERENCE])
            for each in rounds
            if server in each and REFERENCE in each
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
        f"  {'server':<10} {'CPU us/' + work.unit:>14} {'x of C':>8}   {'from':>5} {'to':>6}"
        f" {work.unit + 's/s':>12} {'p50 us':>8} {'p99 us':>8}",
    ]
    for row in figures:
        ratio, least, most = row.ratio
        lines.append(
            f"  {row.server:<10} {row.cost:>14,.2f} {ratio:>8.2f}   {least:>5.2f} {most:>6.2f}"
            f" {row.rate:>12,.0f} {row.median:>8,.0f} {row.tail:>8,.0f}"
            + (f"   {row.repeated} datagrams repeated" if row.repeated else "")
        )
    return "\n".join(lines)


def measure(
    works: Sequence[Work], rounds: int, seconds: float
) -> list[tuple[Work, list[dict[str, Load]]]]:
    """Run all works in turn; say who gave no figure, and why."""
    results: list[tuple[Work, list[dict[str, Load]]]] = [
        (work, [{} for _ in range(rounds)]) for work in works
    ]
    with ExitStack() as stack:
        into = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = {name: build(name, into) for name in ("reference", "load")}
        for number in range(rounds):
            for work, found in results:
                servers = [OURS, *work.peers]
                random.shuffle(servers)
                for server in servers:
                    if server == "socat" and not shutil.which("socat"):
                        continue
                    try:
                        found[number][server] = once(server, work, seconds, made)
                    except Failed as error:
                        print(f"no figure of {server} on {work.name}: {error}", file=sys.stderr)
            print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return results


def once(server: str, work: Work, seconds: float, made: dict[str, str]) -> Load:
    """Start a server, put a work on it and end it."""
    port = free_port()
    kind, *numbers = work.load
    load = [made["load"], kind, str(port), *map(str, numbers), str(seconds)]
    with serving(command(server, work, port, made), port, work.kind) as process:
        return put_load(load, process)


def machine() -> str:
    """Say what was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{(models or [platform.machine()])[0]}, {os.cpu_count()} cores, Linux "
        f"{platform.release()}, {platform.python_implementation()} {platform.python_version()}"
    )


def write_json(file: Path, results: Sequence[tuple[Work, list[dict[str, Load]]]]) -> None:
    """Write every figure of every round."""
    found = {
        work.name: {
            "title": work.title,
            "rounds": [{name: load._asdict() for name, load in each.items()} for each in rounds],
        }
        for work, rounds in results
    }
    file.write_text(json.dumps({"machine": machine(), "works": found}, indent=1) + "\n")


def draw(summed: Sequence[tuple[Work, Sequence[Row]]], file: Path) -> None:
    """Draw each work's ratios as bars, with the smallest and the largest of the rounds."""
    import matplotlib
    from matplotlib.figure import Figure

    rc: Any = {"svg.fonttype": "none", "svg.hashsalt": OURS, "font.size": 8}
    with matplotlib.rc_context(rc):
        figure = Figure(figsize=(8, 1.9 * len(summed)), layout="constrained")
        plots = figure.subplots(len(summed), squeeze=False)[:, 0]
        for plot, (work, figures) in zip(plots, summed, strict=True):
            shown = [row for row in figures if row.ratio[0]][::-1]
            middle = [row.ratio[0] for row in shown]
            spread = [
                [row.ratio[0] - row.ratio[1] for row in shown],
                [row.ratio[2] - row.ratio[0] for row in shown],
            ]
            colours = ["#0969da" if row.server == OURS else "#afb8c1" for row in shown]
            names = [row.server for row in shown]
            bars = plot.barh(names, middle, xerr=spread, color=colours, ecolor="#59636e")
            plot.bar_label(bars, [f"{each:.2f}" for each in middle], padding=4)
            plot.set_title(work.title, loc="left", fontweight="bold")
            plot.spines[["top", "right"]].set_visible(False)
            plot.margins(x=0.12)
        plots[-1].set_xlabel("processor time of the server, as a multiple of the server in C")
        figure.savefig(file, facecolor="white", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often all is done [default: 5]")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load [default: 1]")
    parser.add_argument("--only", action="append", choices=[work.name for work in WORKS])
    parser.add_argument("--out", type=Path, help="a directory for the figures as JSON and SVG")
    options = parser.parse_args()
    works = [work for work in WORKS if work.name in (options.only or work.name)]
    results = measure(works, options.rounds, options.seconds)
    summed = [(work, list(rows(work, found))) for work, found in results]
    print("\n\n".join([machine(), *(table(work, figures) for work, figures in summed)]))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "side-by-side.json", results)
        draw(summed, options.out / "side-by-side.svg")


if __name__ == "__main__":
    main()
