"""Our services and their peers on the same work, in turn, on one machine.

    python benchmarks/side_by_side.py [--rounds 5]

Every peer is what people use instead: the plain asyncio and Twisted servers that one writes first,
and socat. Each round runs each work once with each server, one after the other, so that noise hits
all alike; what is printed is the median over the rounds, and its ratio to ours. Every reply is
checked. Only loopback is used.
"""

import argparse
import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BULK = 64 << 20
ASKS = 3000
CONNECTIONS = 500
MESSAGE = b"the quick brown fox jumps over the lazy dog, again and again...\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, udp: bool) -> Iterator[int]:
    """Run a server until the work is done; return its port."""
    started = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    try:
        for _ in range(500):
            if answers(port, udp):
                break
            time.sleep(0.02)
        yield port
    finally:
        started.kill()
        started.wait()


def answers(port: int, udp: bool) -> bool:
    try:
        with connect(port, udp) as probe:
            probe.settimeout(0.2)
            probe.send(b"x")
            return probe.recv(16) == b"X"
    except OSError:
        return False


def connect(port: int, udp: bool = False) -> socket.socket:
    client = socket.socket(type=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    client.settimeout(30)
    client.connect(("127.0.0.1", port))
    return client


def bulk(port: int) -> float:
    """Push 64 MiB through one connection; return MiB a second."""
    block = MESSAGE * (65536 // len(MESSAGE))
    blocks = BULK // len(block)
    expected = block.upper()
    with connect(port) as client:
        started = time.perf_counter()

        def send() -> None:
            for _ in range(blocks):
                client.sendall(block)

        sender = threading.Thread(target=send)
        sender.start()
        buffer = bytearray(len(block))
        for _ in range(blocks):
            view = memoryview(buffer)
            while view:
                view = view[client.recv_into(view) :]
            assert buffer == expected
        sender.join()
    return BULK / (1 << 20) / (time.perf_counter() - started)


def ask(port: int, udp: bool = False) -> float:
    """Ask one thing at a time; return questions a second."""
    with connect(port, udp) as client:
        started = time.perf_counter()
        for _ in range(ASKS):
            client.send(MESSAGE)
            assert client.recv(1024) == MESSAGE.upper()
    return ASKS / (time.perf_counter() - started)


def ask_udp(port: int) -> float:
    """As `ask`, over UDP."""
    return ask(port, udp=True)


def open_and_ask(port: int) -> float:
    """Open a connection for each question; return connections a second."""
    started = time.perf_counter()
    for _ in range(CONNECTIONS):
        with connect(port) as client:
            client.send(MESSAGE)
            assert client.recv(1024) == MESSAGE.upper()
    return CONNECTIONS / (time.perf_counter() - started)


async def serve_asyncio(port: int) -> None:
    """The plain asyncio servers that one writes first."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.close()

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def datagram_received(self, data: bytes, addr: object) -> None:
            self.transport.sendto(data.upper(), addr)

    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", port))
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


def serve_twisted(port: int) -> None:
    """The plain Twisted servers that one writes first."""
    from twisted.internet import reactor as installed
    from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

    reactor: Any = installed

    class Stream(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(data.upper())

    class Datagrams(DatagramProtocol):
        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            assert self.transport is not None
            self.transport.write(datagram.upper(), addr)

    reactor.listenTCP(port, Factory.forProtocol(Stream), interface="127.0.0.1")
    reactor.listenUDP(port, Datagrams(), interface="127.0.0.1")
    reactor.run()


def servers(udp: bool) -> Iterator[tuple[str, list[str], int]]:
    """Return the servers' names, commands and ports; ours first."""
    twistd = str(Path(sys.executable).parent / "twistd")
    kind = "udp" if udp else "tcp"
    port = free_port()
    yield "uppercase", [twistd, "-n", "--pidfile=", f"uppercase-{kind}", f"--port={port}"], port
    for peer in ("asyncio", "twisted"):
        port = free_port()
        yield peer, [sys.executable, __file__, "--serve", peer, str(port)], port
    if shutil.which("socat"):
        port = free_port()
        if udp:
            listen = f"UDP-RECVFROM:{port},fork,bind=127.0.0.1"
        else:
            listen = f"TCP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1"
        yield "socat", ["socat", listen, "EXEC:stdbuf -o0 tr a-z A-Z"], port


def compare(works: list[tuple[str, Callable[[int], float]]], udp: bool, rounds: int) -> None:
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(process(command, port, udp))
            for name, command, port in servers(udp)
        }
        for title, work in works:
            results: dict[str, list[float]] = {name: [] for name in ports}
            for _ in range(rounds):
                for name, port in ports.items():
                    try:
                        results[name].append(work(port))
                    except (OSError, AssertionError):
                        results[name].append(0.0)
            ours = statistics.median(results["uppercase"])
            print(f"{title}")
            for name, figures in results.items():
                median = statistics.median(figures)
                ratio = f"{ours / median:8.2f} x" if median else "  failed"
                print(f"  {name:<10} {median:>12,.0f}   uppercase is {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        peer, port = options.serve[0], int(options.serve[1])
        if peer == "asyncio":
            asyncio.run(serve_asyncio(port))
        else:
            serve_twisted(port)
        return
    tcp: list[tuple[str, Callable[[int], float]]] = [
        ("TCP, 64 MiB through one connection (MiB/s)", bulk),
        ("TCP, one question at a time (questions/s)", ask),
        ("TCP, a connection for each question (connections/s)", open_and_ask),
    ]
    compare(tcp, udp=False, rounds=options.rounds)
    compare([("UDP, one question at a time (questions/s)", ask_udp)], True, options.rounds)


if __name__ == "__main__":
    main()
