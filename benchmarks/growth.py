"""What grows with what, and what is there from the start.

The cost of a request with idle connections and with its size, the memory of an idle connection, and
the time until a server is ready.

    python -m benchmarks.growth [--rounds 3] [--seconds 0.5] [--most 10000] [--out DIRECTORY]

Ours and plain Twisted, on which it stands; figures are medians over the rounds.
"""

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.machine import ROOT, build, free_port, memory, model, put_load, serving

SERVERS: Final = ("uppercase", "twisted")
IDLE: Final = (0, 10, 100, 1_000, 10_000)
SIZES: Final = (16, 256, 4_096, 65_536, 1 << 20)
SPARE: Final = 200
"""Descriptors that the load and the server need for themselves."""

Medians = dict[int, dict[str, float]]


@dataclass(slots=True)
class Growth:
    """All figures.

    Attributes:
        idle: CPU microseconds per request of one active connection, by idle ones and server.
        memory: bytes of RSS of an idle connection, by server.
        size: CPU microseconds per request, by its bytes and server.
        ready: seconds from a start to the first reply, by server.
        help: seconds of `twistd --help`, with and without our plugins.
    """

    idle: Medians = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    size: Medians = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    help: dict[str, float] = field(default_factory=dict)


def command(server: str, port: int) -> list[str]:
    if server == "twisted":
        return [sys.executable, "-m", "benchmarks.peers", "twisted", "tcp", str(port)]
    twistd = str(Path(sys.executable).parent / "twistd")
    start = [twistd, "-n", "--pidfile=", "uppercase-tcp", f"--port={port}"]
    return [*start, "--max-connections=20000"]


def medians(rounds: int, measure: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Measure each in turn; return the median of each."""
    found: dict[str, list[float]] = {name: [] for name in measure}
    for number in range(rounds):
        for name in list(measure)[:: -1 if number % 2 else 1]:
            found[name].append(measure[name]())
    return {name: statistics.median(figures) for name, figures in found.items()}


@contextmanager
def both() -> Iterator[dict[str, tuple[int, int]]]:
    """Run both servers; give their processes and ports."""
    with ExitStack() as stack:
        running = {}
        for server in SERVERS:
            port = free_port()
            running[server] = stack.enter_context(serving(command(server, port), port, "tcp")), port
        yield running


def cost(load: str, process: int, port: int, size: int, seconds: float) -> float:
    """Return the CPU microseconds of one request on one connection."""
    found = put_load([load, "ask", str(port), "1", "1", str(size), str(seconds)], process)
    return found.cpu * 1e6 / max(found.requests, 1)


def connect(port: int, count: int, held: list[socket.socket]) -> None:
    """Open connections until so many are held."""
    while len(held) < count:
        # Each thousand come from an address of their own, so that ports do not run out.
        where = (f"127.0.1.{1 + len(held) // 1_000}", 0)
        held.append(socket.create_connection(("127.0.0.1", port), 10, where))
    time.sleep(0.3)


def grow_idle(found: Growth, load: str, rounds: int, seconds: float, most: int) -> None:
    """Ask beside idle connections; one server after the other, because descriptors are few."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE
    steps = [count for count in IDLE if count <= min(room, most)]
    for server in SERVERS:
        port, held = free_port(), list[socket.socket]()
        with serving(command(server, port), port, "tcp") as process:
            before = 0
            for count in steps:
                connect(port, count, held)
                figures = [cost(load, process, port, 100, seconds) for _ in range(rounds)]
                found.idle.setdefault(count, {})[server] = statistics.median(figures)
                before = before or memory(process)
            found.memory[server] = (memory(process) - before) / max(steps[-1], 1)
        for sock in held:
            sock.close()


def grow_size(found: Growth, load: str, rounds: int, seconds: float) -> None:
    with both() as running:
        for size in SIZES:
            found.size[size] = medians(
                rounds,
                {
                    server: lambda process=process, port=port, size=size: cost(  # type: ignore[misc]
                        load, process, port, size, seconds
                    )
                    for server, (process, port) in running.items()
                },
            )


@contextmanager
def without_pyopenssl() -> Iterator[None]:
    """Hide it from programs: plain Twisted's TLS needs it here, and every start would load it."""
    with TemporaryDirectory() as folder:
        Path(folder, "OpenSSL.py").write_text("raise ImportError\n")
        before, os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", ""), folder
        yield
        os.environ["PYTHONPATH"] = before


def time_starts(found: Growth, rounds: int) -> None:
    def ready(server: str) -> float:
        port, started = free_port(), time.monotonic()
        with serving(command(server, port), port, "tcp"):
            return time.monotonic() - started

    def helps(path: str) -> float:
        script = f"import sys; {path}; sys.argv = ['twistd', '--help']; "
        script += "from twisted.scripts.twistd import run; run()"
        started = time.monotonic()
        subprocess.run([sys.executable, "-P", "-c", script], stdout=subprocess.DEVNULL, cwd="/")
        return time.monotonic() - started

    found.ready = medians(rounds, {name: lambda name=name: ready(name) for name in SERVERS})  # type: ignore[misc]
    without = f"sys.path = [each for each in sys.path if each != {str(ROOT)!r}]"
    found.help = medians(
        rounds, {"with us": lambda: helps("pass"), "without us": lambda: helps(without)}
    )


def table(found: Growth) -> str:
    lines = []
    for title, figures in (
        ("CPU us per request of one active connection, by idle ones beside it", found.idle),
        ("CPU us per request on one connection, by its bytes", found.size),
    ):
        lines += [title, "  " + " " * 10 + "".join(f"{key:>12,}" for key in figures)]
        for server in SERVERS:
            values = "".join(f"{each[server]:>12,.1f}" for each in figures.values())
            lines.append(f"  {server:<10}{values}")
        lines.append("")
    lines.append("bytes of memory of an idle connection, with its share of tables")
    lines += [f"  {server:<10}{figure:>12,.0f}" for server, figure in found.memory.items()]
    lines += ["", "milliseconds"]
    lines += [f"  {name} ready: {each * 1e3:,.0f}" for name, each in found.ready.items()]
    lines += [f"  twistd --help {name}: {each * 1e3:,.0f}" for name, each in found.help.items()]
    return "\n".join(lines)


def draw(found: Growth, file: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    rc: Any = {"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 8}
    with matplotlib.rc_context(rc):
        figure = Figure(figsize=(8, 3), layout="constrained")
        for plot, figures, label, is_linear in zip(
            figure.subplots(1, 2),
            (found.idle, found.size),
            ("idle connections beside the active one", "bytes of a request"),
            (True, False),
            strict=True,
        ):
            # Equally dark, so that their shapes tell them apart on paper.
            looks = (("o-", "#0969da"), ("s--", "#59636e"))
            for server, (shape, colour) in zip(SERVERS, looks, strict=True):
                shown = [(max(key, 1), each[server]) for key, each in figures.items()]
                plot.plot(
                    *zip(*shown, strict=True), shape, color=colour, label=server, markersize=4
                )
            plot.set_xscale("log")
            if not is_linear:
                plot.set_yscale("log")
            plot.set_ylim(bottom=0 if is_linear else None)
            plot.set_xlabel(label)
            plot.set_ylabel("CPU us per request")
            plot.spines[["top", "right"]].set_visible(False)
            plot.legend(frameon=False)
        figure.savefig(file, facecolor="white", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often all is done [default: 3]")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each load [default: 0.5]")
    parser.add_argument("--most", type=int, default=10_000, help="idle connections at the most")
    parser.add_argument("--out", type=Path, help="a directory for the figures as JSON and SVG")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = Growth()
    with TemporaryDirectory() as folder:
        load = build("load", Path(folder))
        grow_idle(found, load, options.rounds, options.seconds, options.most)
        grow_size(found, load, options.rounds, options.seconds)
    with without_pyopenssl():
        time_starts(found, options.rounds + 2)
    print(f"{model()}\n\n{table(found)}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        figures = {"machine": model(), **asdict(found)}
        (options.out / "growth.json").write_text(json.dumps(figures, indent=1) + "\n")
        draw(found, options.out / "growth.svg")


if __name__ == "__main__":
    main()
