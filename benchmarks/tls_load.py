"""The load of `load.c` over TLS: the same words, the same line of figures.

    python -m benchmarks.tls_load ask|stream PORT CLIENTS DEPTH SIZE SECONDS

Not as quick as the one in C; the cost that is compared, the server's processor time per request,
does not depend on that. Every byte of every reply is checked.
"""

import selectors
import socket
import ssl
import statistics
import sys
import time
from typing import Final

from benchmarks.machine import unchecked

CHUNK: Final = 65_536


class Client:
    """One connection with rounds of requests; `stream` is one round after the other."""

    def __init__(self, port: int, context: ssl.SSLContext, request: bytes) -> None:
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = context.wrap_socket(plain)
        self.sock.setblocking(False)
        self._request, self._expected = request, request.upper()
        self.begin()

    def begin(self) -> None:
        self.rest = memoryview(self._request)
        self.got = 0
        self.since = time.perf_counter()

    def push(self, is_stream: bool) -> None:
        """Send what is taken."""
        try:
            while self.rest:
                self.rest = self.rest[self.sock.send(self.rest[:CHUNK]) :]
                if is_stream and not self.rest:
                    self.rest = memoryview(self._request)
                    break
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass

    def take(self) -> int:
        """Check what came; return its bytes."""
        came = 0
        try:
            while True:
                data = self.sock.recv(min(CHUNK, len(self._request) - self.got))
                if not data:
                    raise SystemExit("the server closed a connection")
                if data != self._expected[self.got : self.got + len(data)]:
                    raise SystemExit("a reply is wrong")
                came += len(data)
                self.got += len(data)
                if self.got == len(self._request):
                    self.got = 0
                    break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        return came


def turn(clients: selectors.BaseSelector, is_stream: bool) -> tuple[int, list[float]]:
    """Serve what is ready; return the bytes that came and the round trips that ended."""
    total, trips = 0, []
    for key, ready in clients.select(0.1):
        client: Client = key.data
        if ready & selectors.EVENT_WRITE or client.rest:
            client.push(is_stream)
        # TLS holds back what it has decrypted, of which the socket does not tell.
        while came := client.take():
            total += came
            if client.got == 0 and not is_stream:
                trips.append(time.perf_counter() - client.since)
                client.begin()
                client.push(False)
            if not client.sock.pending():
                break
    return total, trips


def main() -> None:
    kind, port, count, depth, size, seconds = sys.argv[1], *map(float, sys.argv[2:])
    letters = bytes(97 + index % 26 for index in range(int(size) - 1)) + b"\n"
    is_stream, request, context = kind == "stream", letters * int(depth), unchecked()
    with selectors.DefaultSelector() as clients:
        for _ in range(int(count)):
            client = Client(int(port), context, request)
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if is_stream else 0)
            clients.register(client.sock, wanted, client)
            client.push(is_stream)
        warm = time.perf_counter() + 0.2
        while time.perf_counter() < warm:
            turn(clients, is_stream)
        print("ready", flush=True)
        sys.stdin.readline()
        started, total, trips = time.perf_counter(), 0, []
        while (spent := time.perf_counter() - started) < seconds:
            more, ended = turn(clients, is_stream)
            total += more
            trips += ended
        requests = total // len(letters)
        ranked = sorted(trips) or [0.0]
        shown = [statistics.median(ranked), ranked[int(len(ranked) * 0.99)], ranked[-1]]
        print(requests, total, spent, 0, *(trip * 1e6 for trip in shown))


if __name__ == "__main__":
    main()
