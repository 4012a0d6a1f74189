"""What is measured: the works, who serves them, and what starts each server and each load."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
        variants: more of our services, by what is added to our name, with their options.
        reference: to whom all are compared.
    """

    name: str
    title: str
    kind: str
    load: tuple[str, int, int, int]
    peers: tuple[str, ...]
    unit: str = "request"
    ours: tuple[str, ...] = ()
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reference: str = REFERENCE

    def servers(self) -> list[str]:
        """Return the names of all that serve it."""
        return [OURS, *(f"{OURS} {name}" for name in self.variants), *self.peers]


LOOPS: Final = ("uvloop", "asyncio", "gevent", "twisted")
WORKS: Final = (
    Work(
        "ask",
        "TCP request/reply, 50 connections, 100 B",
        "tcp",
        ("ask", 50, 1, 100),
        (REFERENCE, *LOOPS),
        variants={"+metrics": ("--metrics=tcp:0:interface=127.0.0.1",)},
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
        variants={"x3": ("--transform=uppercase",) * 3},
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
        variants={"+metrics": ("--metrics=tcp:0:interface=127.0.0.1",)},
    ),
    Work(
        "tls",
        "TLS request/reply, 20 connections, 100 B",
        "tls",
        ("ask", 20, 1, 100),
        ("twisted", "asyncio", "uvloop"),
        reference="twisted",
    ),
    Work(
        "tls-stream",
        "TLS stream both ways, 4 connections",
        "tls",
        ("stream", 4, 1, 65536),
        ("twisted", "asyncio", "uvloop"),
        unit="MB",
        reference="twisted",
    ),
)


def command(server: str, work: Work, port: int, made: dict[str, str]) -> list[str]:
    """Return what starts a server for a work."""
    if server.startswith(OURS):
        return _our_command(work, port, made, work.variants.get(server[len(OURS) + 1 :], ()))
    if server == REFERENCE:
        return [made["reference"], "udp" if work.kind == "udp" else "tcp", str(port)]
    if server == "socat":
        listen = f"TCP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1,backlog=1024"
        return ["socat", listen, "EXEC:stdbuf -o0 tr a-z A-Z"]
    peer = [sys.executable, "-m", "benchmarks.peers", server, work.kind, str(port)]
    return [*peer, made["key"], made["cert"]] if work.kind == "tls" else peer


def _our_command(work: Work, port: int, made: dict[str, str], more: tuple[str, ...]) -> list[str]:
    twistd = str(Path(sys.executable).parent / "twistd")
    service = "uppercase-udp" if work.kind == "udp" else "uppercase-tcp"
    where = f"--port={port}"
    if work.kind == "tls":
        where = f"--listen=tls:{port}:privateKey={made['key']}:certKey={made['cert']}"
        where += ":interface=127.0.0.1"
    return [twistd, "-n", "--pidfile=", service, where, *work.ours, *more]


def load_command(work: Work, port: int, seconds: float, made: dict[str, str]) -> list[str]:
    """Return what puts a work on a server."""
    kind, *numbers = work.load
    program = [sys.executable, "-m", "benchmarks.tls_load"]
    start = program if work.kind == "tls" else [made["load"]]
    return [*start, kind, str(port), *map(str, numbers), str(seconds)]
