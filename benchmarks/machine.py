"""The machine that is measured on: built programs, started servers, their processor time.

A server has one core and the load the others, so that neither takes time from the other.
"""

import os
import platform
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from tests import certificates

ROOT: Final = Path(__file__).parents[1]
START_TIME: Final = 20.0
"""Seconds in which a server that starts at all answers."""

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """What was tried gives no figure; the text says why."""


class Load(NamedTuple):
    """What one run of the load brought, and what it cost the server."""

    requests: int
    megabytes: float
    seconds: float
    repeated: int
    median: float
    tail: float
    longest: float
    cpu: float


def build(name: str, into: Path) -> str:
    """Compile one of the C programs beside this module; return where it is."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not Path("/proc/self/stat").exists():
        raise SystemExit("the benchmark needs Linux and a C compiler; try: apt install gcc")
    made, source = into / name, Path(__file__).with_name(f"{name}.c")
    subprocess.run([compiler, "-O3", "-o", str(made), str(source)], check=True)
    return str(made)


def make_certificate(into: Path) -> dict[str, str]:
    """Make a key and a certificate; return where they are, by "key" and "cert"."""
    made = certificates.make_certificate(into)
    return {"key": str(made.key), "cert": str(made.cert)}


def model() -> str:
    """Say what is measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{(models or [platform.machine()])[0]}, {os.cpu_count()} cores, Linux "
        f"{platform.release()}, {platform.python_implementation()} {platform.python_version()}"
    )


def _cores() -> tuple[set[int], set[int]]:
    """Return the cores of servers and of the load: apart, if there are two."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


# Once: what is started for one of them has only its own.
SERVERS, LOADS = _cores()


def free_port() -> int:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        stream.bind(("127.0.0.1", 0))
        datagrams.bind(stream.getsockname())
        return int(stream.getsockname()[1])


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Let what is started in this block run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(command: Sequence[str], port: int, kind: str) -> Iterator[int]:
    """Run a server for the time of a block; give its process's number.

    Raises:
        Failed: it ends, or does not answer in time.
    """
    with tempfile.TemporaryFile() as output:
        # A group of its own, because some servers start a process for each client.
        with on(SERVERS):
            started = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
            )
        try:
            limit = time.monotonic() + START_TIME
            while not _answers(port, kind):
                if started.poll() is not None or time.monotonic() > limit:
                    output.seek(0)
                    lines = output.read().decode(errors="replace").split("\n")
                    raise Failed(f"{' '.join(command)}: {lines[-2:]}")
                time.sleep(0.005)
            yield started.pid
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, 9)
            started.wait()


def _answers(port: int, kind: str) -> bool:
    udp = kind == "udp"
    try:
        with socket.socket(type=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect(("127.0.0.1", port))
            if kind == "tls":
                probe = unchecked().wrap_socket(probe)
            probe.send(b"x\n")
            return probe.recv(16) == b"X\n"
    except OSError:
        return False


def unchecked() -> ssl.SSLContext:
    """Return the context of a client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def memory(process: int) -> int:
    """Return the bytes of a process that are in memory (RSS)."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def put_load(command: Sequence[str], server: int) -> Load:
    """Run the load on a server and measure both.

    Raises:
        Failed: a reply was wrong or none came.
    """
    with on(LOADS):
        load = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
    assert load.stdout is not None
    try:
        ready = load.stdout.readline()
        before = cpu(server)
        output, errors = load.communicate("\n", timeout=60)
        spent = cpu(server) - before
    except (subprocess.TimeoutExpired, BrokenPipeError):
        ready, errors = "", "no replies"
    finally:
        load.kill()
        load.wait()
    if not ready or load.returncode not in (0, -9) or not output.strip():
        raise Failed((errors or load.communicate()[1]).strip())
    requests, octets, seconds, repeated, *trips = map(float, output.split())
    median, tail, longest = trips
    return Load(int(requests), octets / 1e6, seconds, int(repeated), median, tail, longest, spent)


def cpu(process: int) -> float:
    """Return the processor seconds of a process and of all that it has started, living or not."""
    total, todo = 0, [process]
    while todo:
        number = todo.pop()
        try:
            with open(f"/proc/{number}/stat") as stat:
                total += sum(map(int, stat.read().rpartition(")")[2].split()[11:15]))
            with open(f"/proc/{number}/task/{number}/children") as children:
                todo += map(int, children.read().split())
        except OSError:
            continue  # it has just ended, and its parent has its time
    return total * _TICK
