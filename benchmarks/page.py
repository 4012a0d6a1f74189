"""What the live page costs a UDP service: `python -m benchmarks.page`.

20,000 datagrams a second from 50 clients, and 200 who watch, 20 of whom read nothing. For each of:
no page, a page that nobody watches, a page with its watchers, it prints the service's processor
time, its memory, and the round trip of one more client that sends 100 datagrams a second.
"""

import argparse
import os
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

CLIENTS, STALLED = 50, 20
TICK = 0.01


def start(*options: str) -> tuple["subprocess.Popen[str]", int, int]:
    """Start a service; return it, its port and its page's, 0 for none."""
    twistd = str(Path(sys.executable).parent / "twistd")
    command = [twistd, "-n", "--pidfile=", "uppercase-udp", "--port=0", "--interface=127.0.0.1"]
    service = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    page = 0
    for line in service.stdout:
        if match := re.search(r"the page is at http://127.0.0.1:(\d+)/", line):
            page = int(match[1])
        if match := re.search(r"ready to receive: UDP 127.0.0.1:(\d+)", line):
            threading.Thread(target=service.stdout.read, daemon=True).start()
            return service, int(match[1]), page
    raise SystemExit("the service did not start")


def used(pid: int) -> tuple[float, float]:
    """Return a process's seconds of processor time, and its memory in MiB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    status = Path(f"/proc/{pid}/status").read_text()
    memory = re.search(r"VmRSS:\s+(\d+)", status)
    assert memory
    return ticks / os.sysconf("SC_CLK_TCK"), int(memory[1]) / 1024


def send_for(seconds: float, port: int, rate: int) -> int:
    """Send at a rate, in a process of its own; print how many replies came of how many."""
    sockets = []
    for _ in range(CLIENTS):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        sockets.append(client)
    begin = time.monotonic()
    sent = received = 0
    while (now := time.monotonic()) < begin + seconds:
        while sent < (now - begin) * rate:
            sockets[sent % CLIENTS].send(b"hello %d" % sent)
            sent += 1
        for client in sockets:
            try:
                while client.recv(100):
                    received += 1
            except BlockingIOError:
                pass
        time.sleep(TICK)
    print(sent, received)
    return 0


def watch_for(seconds: float, port: int, watchers: int) -> int:
    """Watch the page, some of us without reading; print the bytes that the others read."""
    chooser = selectors.DefaultSelector()
    held = []
    for number in range(watchers):
        watcher = socket.create_connection(("127.0.0.1", port))
        watcher.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        held.append(watcher)
        if number >= STALLED:
            watcher.setblocking(False)
            chooser.register(watcher, selectors.EVENT_READ)
    end = time.monotonic() + seconds
    read = 0
    while time.monotonic() < end:
        for key, _ in chooser.select(0.2):
            read += len(key.fileobj.recv(1 << 20))  # type: ignore[union-attr]
        # Between two frames, so that watching takes less of the machine than the service.
        time.sleep(0.02)
    print(read)
    return 0


def round_trips(seconds: float, port: int) -> list[float]:
    """Return the round trips of a client at 100 datagrams a second; a lost one counts a second."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(1.0)
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            text = b"probe %d" % number
            begin = time.perf_counter()
            client.send(text)
            try:
                while client.recv(100) != text.upper():
                    pass
            except TimeoutError:
                pass
            found.append(time.perf_counter() - begin)
            time.sleep(TICK)
    return found


def measure(name: str, options: list[str], watchers: int, seconds: float, rate: int) -> None:
    """Measure one service, and print a line."""
    service, port, page = start(*options)
    me = [sys.executable, "-m", "benchmarks.page", "--seconds", str(seconds + 4)]
    helpers = [[*me, "--send", str(port), "--rate", str(rate)]] if rate else []
    if watchers:
        helpers.append([*me, "--watch", str(page), "--watchers", str(watchers)])
    running = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in helpers]
    time.sleep(2)
    before, _ = used(service.pid)
    begin = time.monotonic()
    found = sorted(round_trips(seconds, port))
    after, memory = used(service.pid)
    share = 100 * (after - before) / (time.monotonic() - begin)
    told = [(each.communicate()[0] or "").strip() for each in running]
    service.send_signal(signal.SIGTERM)
    service.wait(30)
    middle, late = statistics.median(found), found[int(len(found) * 0.99)]
    print(
        f"{name:<28} processor {share:5.1f} %  memory {memory:6.1f} MiB  round trip "
        f"{1000 * middle:6.2f} ms, p99 {1000 * late:6.2f} ms  {' | '.join(told)}",
        flush=True,
    )


def main() -> int:
    """Measure, or be one of the helpers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--send", type=int)
    parser.add_argument("--watch", type=int)
    given = parser.parse_args()
    if given.send:
        return send_for(given.seconds, given.send, given.rate)
    if given.watch:
        return watch_for(given.seconds, given.watch, given.watchers)
    for name, options, watchers in (
        ("no page", [], 0),
        ("a page, nobody watches", ["--page=0"], 0),
        (f"a page, {given.watchers} watch", ["--page=0"], given.watchers),
    ):
        measure(name, options, watchers, given.seconds, given.rate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
