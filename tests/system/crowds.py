"""Crowds that leave no room to others, or try to: they flood, hold places, or pipeline.

`tests.system.soak` runs them in full and the test suite in small.
"""

import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from tests.system.processes import Server, connect, receive_exactly
from tests.system.resources import busy_seconds, resident_memory

__all__ = ["soak_fairness", "soak_pipelining", "soak_slots"]

GROWTH = 8 << 20
"""Bytes of memory that a crowd may add while it goes on."""

ENOUGH = 200
"""Requests: of fewer, the 99th percentile would be the longest of all."""

PLACE_IS_KEPT = 30
"""Seconds for which a connection keeps its place whatever it is sent."""

DRAIN = 2


def slow(data: bytes) -> bytes:
    """Take a millisecond of the processor."""
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
    return data


def soak_fairness(
    seconds: float = 30, flooders: int = 100, report: Callable[[str], object] = print
) -> None:
    """Flood with empty lines; whoever asks beside it has its turn within 0.1 s."""
    with Server("uppercase-tcp", "--port=0", "--framing=line") as server, ExitStack() as stack:
        pid = server.process.pid
        peers = [stack.enter_context(connect(server.port)) for _ in range(flooders)]
        client = stack.enter_context(connect(server.port))
        stop = threading.Event()
        flood = threading.Thread(target=flood_with_lines, args=(peers, stop))
        flood.start()
        try:
            time.sleep(1)
            memory = resident_memory(pid)
            times = ask_for(client, pid, seconds)
            growth = resident_memory(pid) - memory
        finally:
            stop.set()
            flood.join()
        report(f"fairness, {flooders} flooders, {times}, {growth / 1024:+.0f} KiB")
        assert percentile(times.own, 0.99) < 0.1
        assert growth < GROWTH


def flood_with_lines(peers: Sequence[socket.socket], stop: threading.Event) -> None:
    """Send empty lines on all of them, and take the replies, until told to stop."""
    for peer in peers:
        peer.setblocking(False)
    while not stop.is_set():
        select.select(peers, peers, [], 1)
        for peer in peers:
            with suppress(BlockingIOError):
                peer.send(b"\n" * 65536)
            with suppress(BlockingIOError):
                peer.recv(1 << 18)


def soak_pipelining(
    seconds: float = 10,
    peers: int = 20,
    drain: float = DRAIN,
    report: Callable[[str], object] = print,
) -> None:
    """Pipeline minutes of work; others have their turn, and a stop is a matter of seconds."""
    options = ("--port=0", "--framing=line", "-ttests.system.crowds:slow", f"--drain={drain}s")
    with Server("uppercase-tcp", *options) as server, ExitStack() as stack:
        client = stack.enter_context(connect(server.port))
        for _ in range(peers):
            stack.enter_context(connect(server.port)).sendall(b"x\n" * 10_000)
        times = ask_for(client, server.process.pid, seconds)
        began = time.monotonic()
        server.stop(signal.SIGTERM)
        took = time.monotonic() - began
        report(f"pipelining, {peers} peers, {times}; the stop took {took:.1f} s")
        assert percentile(times.own, 0.99) < 0.1
        assert took < drain + 5


def soak_slots(places: int = 100, report: Callable[[str], object] = print) -> None:
    """Hold all places by a byte now and then; a newcomer gets one once their time is over.

    The crowd has an address for each ten of them, so that none of them has most of the places.
    """
    options = ("--port=0", "--framing=line", f"--max-connections={places}")
    with Server("uppercase-tcp", *options) as server, ExitStack() as stack:
        crowd = []
        for number in range(places):
            source = (f"127.0.1.{1 + number // 10}", 0)
            peer = socket.create_connection(("127.0.0.1", server.port), 20, source)
            crowd.append(stack.enter_context(peer))
        began, refused, got_in = time.monotonic(), 0, False
        while not got_in:
            assert time.monotonic() - began < 2 * PLACE_IS_KEPT, "no place for a newcomer"
            for peer in crowd:
                with suppress(ConnectionError):
                    peer.send(b"x")
            time.sleep(1)
            with suppress(ConnectionError), connect(server.port) as newcomer:
                newcomer.sendall(b"me too\n")
                got_in = receive_exactly(newcomer, 7) == b"ME TOO\n"
            refused += not got_in
        took = time.monotonic() - began
        report(f"slots: after {took:.0f} s and {refused} refusals a newcomer had one of {places}")
        assert took > PLACE_IS_KEPT - 1


@dataclass
class Times:
    """How long requests took, in order: by the clock, and of the server's own time.

    Its own time is what it ran until the reply was there: all that there is on a quiet machine, and
    the same on a busy one.
    """

    clock: list[float]
    own: list[float]

    def __str__(self) -> str:
        """Return the figures that are worth telling."""
        return f"{len(self.clock)} requests: {_told(self.clock)}; of its time {_told(self.own)}"


def ask_for(client: socket.socket, pid: int, seconds: float) -> Times:
    """Ask a server one thing after the other for some seconds, and often enough to tell."""
    clock: list[float] = []
    own: list[float] = []
    end = time.monotonic() + seconds
    while len(clock) < ENOUGH or time.monotonic() < end:
        began, ran = time.perf_counter(), busy_seconds(pid)
        client.sendall(b"me too\n")
        assert receive_exactly(client, 7).lower() == b"me too\n"
        clock.append(time.perf_counter() - began)
        own.append(busy_seconds(pid) - ran)
    return Times(sorted(clock), sorted(own))


def percentile(times: Sequence[float], share: float) -> float:
    """Return the time that a share of the times in order does not reach."""
    return times[int(len(times) * share)]


def _told(times: Sequence[float]) -> str:
    p50, p99 = percentile(times, 0.5) * 1000, percentile(times, 0.99) * 1000
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {times[-1] * 1000:.0f} ms"
