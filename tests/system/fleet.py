"""A fleet for real: HAProxy before three services, under a load that is not ours.

`python -m tests.system.fleet --rounds 100` prints what was lost when services stop, are killed,
reload, and are started anew in turn; a test does all but the last.
"""

import argparse
import csv
import io
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.processes import PATIENCE, ROOT, Server, wait_until
from tests.system.test_lecture import free_port

CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
NAMES = ("one", "two", "three")


@contextmanager
def running(*command: str | Path, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a balancer, and end it by its id."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def balancer_config(port: int, services: Sequence[tuple[str, int, int]]) -> str:
    """Return the example for HAProxy, with places of this machine.

    Args:
        port: where it listens.
        services: name, port and port of the metrics of each service.
    """
    text = CONFIG.read_text().replace("bind :12000", f"bind 127.0.0.1:{port}")
    text = text.replace(" port 9100", "")
    text = re.sub(r"\n    server .*", "", text)
    lines = [f"    server {name} 127.0.0.1:{at} port {page}" for name, at, page in services]
    return "\n".join([text.rstrip(), *lines, ""])


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")


def compile_load(folder: Path) -> Path:
    """Return the load generator, which is in C."""
    program = folder / "asking"
    source = Path(__file__).with_name("asking.c")
    subprocess.run(["cc", "-O2", "-pthread", "-o", program, source], check=True)
    return program


@contextmanager
def load(program: Path, port: int, clients: int, pause_ms: int) -> Iterator[Counter[str]]:
    """Ask while the block runs; the counts are there after it."""
    command = [str(word) for word in (program, port, clients, pause_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        counts: Counter[str] = Counter()
        try:
            yield counts
        except BaseException:
            run.kill()
            raise
        said, _ = run.communicate()
    counts.update({name: int(count) for name, count in map(str.split, said.splitlines())})


@dataclass(slots=True)
class Fleet:
    """Three services behind HAProxy.

    Attributes:
        folder: where its files are.
        workers: processes of each service.
        port: of HAProxy.
        balancer: its process.
    """

    folder: Path
    workers: int = 2
    port: int = field(default_factory=free_port)
    balancer: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)
    _servers: dict[str, Server] = field(default_factory=dict)

    def __enter__(self) -> "Fleet":
        with self._stack:
            for name in NAMES:
                self._places[name] = (free_port(), free_port())
                self._start(name)
            services = [(name, *self._places[name]) for name in NAMES]
            text = balancer_config(self.port, services)
            text = text.replace("\nglobal\n", "\nglobal\n    stats socket unix@stats\n")
            (self.folder / "haproxy.cfg").write_text(text)
            haproxy = running("haproxy", "-f", "haproxy.cfg", cwd=self.folder)
            self.balancer = self._stack.enter_context(haproxy).pid
            wait_until(self._tells)
            for name in NAMES:
                self.wait_until_up(name)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, name: str) -> None:
        port, page = self._places[name]
        where = (f"--port={port}", "--interface=127.0.0.1", "--proxy-from=127.0.0.1")
        options = (f"--metrics={page}", f"--workers={self.workers}")
        server = Server("uppercase-tcp", *where, *options, addresses=1)
        self._servers[name] = self._stack.enter_context(server)

    def _tells(self) -> bool:
        """Whether HAProxy listens, which it does a moment after its socket is there."""
        with socket.socket(socket.AF_UNIX) as asked:
            return asked.connect_ex(os.path.relpath(self.folder / "stats")) == 0

    def status(self, name: str) -> str:
        """Return HAProxy's word for a service, such as UP."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(PATIENCE)
            asked.connect(os.path.relpath(self.folder / "stats"))
            asked.sendall(b"show stat\n")
            said = b"".join(iter(lambda: asked.recv(1 << 16), b""))
        rows = csv.DictReader(io.StringIO(said.decode().removeprefix("# ")))
        (status,) = (row["status"] for row in rows if row["svname"] == name)
        return status

    def wait_until_up(self, name: str) -> None:
        """Wait until HAProxy sends clients to a service, and no check is about to fail."""
        wait_until(lambda: self.status(name) == "UP")

    def restart(self, name: str, by: int = signal.SIGTERM) -> None:
        """End a service, and start it again."""
        self._servers[name].stop(by)
        self._start(name)
        self.wait_until_up(name)

    def restart_all(self, rounds: int) -> None:
        """Restart one after the other, so many times."""
        for _ in range(rounds):
            for name in NAMES:
                self.restart(name)

    def reload(self, name: str) -> None:
        """Have a service replace its workers."""
        server = self._servers[name]
        before = server.log().count("reloaded:")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded:", times=before + 1)


def exercise(folder: Path, *, rounds: int, clients: int, pause_ms: int) -> dict[str, Counter[str]]:
    """Return what became of the requests while each thing was done to the fleet."""
    program = compile_load(folder)
    figures: dict[str, Counter[str]] = {}
    with Fleet(folder) as fleet:
        deeds: dict[str, Callable[[], None]] = {
            "one is stopped by SIGTERM and started again": lambda: fleet.restart("one"),
            "another is killed": lambda: fleet.restart("two", signal.SIGKILL),
            "the third reloads": lambda: fleet.reload("three"),
        }
        if rounds:
            deeds[f"all are restarted in turn, {rounds} times"] = lambda: fleet.restart_all(rounds)
        for what, do in deeds.items():
            started, cpu = time.monotonic(), processor_seconds(fleet.balancer)
            with load(program, fleet.port, clients, pause_ms) as counts:
                time.sleep(0.5)
                do()
                time.sleep(0.5)
            figures[what] = counts
            cost = (processor_seconds(fleet.balancer) - cpu) / max(counts["answered"], 1)
            print(
                f"{what}: {time.monotonic() - started:.0f} s, {dict(counts)}, "
                f"{cost * 1e6:.0f} us of HAProxy a request",
                flush=True,
            )
    return figures


def lost(counts: Counter[str]) -> int:
    """Return how many requests were not answered."""
    return counts.total() - counts["answered"]


def main() -> None:
    """Print the figures of a long run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="restarts of each service")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause", type=int, default=2, help="milliseconds between two requests")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = exercise(
            Path(folder), rounds=wanted.rounds, clients=wanted.clients, pause_ms=wanted.pause
        )
    unexpected = sum(lost(counts) for what, counts in figures.items() if "killed" not in what)
    raise SystemExit(f"{unexpected} requests were lost" if unexpected else 0)


if __name__ == "__main__":
    main()
