"""Small servers on plain sockets, honest ones and liars, for the client's tests.

    with udp_server(drop(0, 2)) as server:          # requests 0 and 2 get no reply
        ... server.address ...                      # "127.0.0.1:40123"
    assert server.received == [b"a", b"b", b"c"]

A UDP behaviour is called with each request; a TCP behaviour with each connection, in a thread of
its own. Everything is on loopback, on a free port, and ends with the `with` block.
"""

import heapq
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, product
from typing import Any

__all__ = [
    "Server",
    "TcpBehaviour",
    "UdpBehaviour",
    "UdpRequest",
    "both",
    "break_off_after",
    "close_unanswered",
    "deaf_listener",
    "drop",
    "duplicate",
    "forged",
    "free_port",
    "honest",
    "late",
    "never_read",
    "one_reply",
    "one_slow_reply",
    "only_forged",
    "release_ports",
    "reset",
    "silent",
    "silent_stream",
    "strip_newline",
    "tcp_server",
    "udp_server",
    "upper_stream",
    "wrong",
    "wrong_stream",
]

_POLL = 0.02


@dataclass
class Server:
    """A running server.

    Attributes:
        host: where it listens.
        port: where it listens.
        received: what came in: datagrams, or chunks of all connections.
        peers: the addresses that they came from (UDP) or that connected (TCP).
        ended: set when the block ends; set earlier, it closes a UDP server at once.
    """

    host: str
    port: int
    received: list[bytes] = field(default_factory=list)
    peers: list[Any] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        """What a command line takes."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def wait_for(self, count: int) -> None:
        """Wait until so many datagrams or chunks have come in."""
        deadline = time.monotonic() + 30
        while len(self.received) < count:
            assert time.monotonic() < deadline, f"got {len(self.received)} of {count}"
            time.sleep(_POLL / 4)


def free_port() -> int:
    """Return a port where nothing listens, nor will until the end of the test.

    It is held for both protocols and families: a bound stream that does not listen refuses, and so
    does a datagram socket that hears one peer only.
    """
    first = None
    while first is None:
        first = _hold(socket.AF_INET, socket.SOCK_STREAM, 0)
        assert first is not None
        rest = [
            _hold(family, kind, first)
            for family, kind in product(_LOOPBACK, (socket.SOCK_STREAM, socket.SOCK_DGRAM))
            if (family, kind) != (socket.AF_INET, socket.SOCK_STREAM)
        ]
        if None in rest:
            first = None
    return first


def _hold(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> int | None:
    """Take a port of loopback, any free one if it is 0; return its number, None if it is in use."""
    holder = socket.socket(family, kind)
    _held.append(holder)
    try:
        holder.bind((_LOOPBACK[family], port))
    except OSError:
        return None
    if kind == socket.SOCK_DGRAM:
        holder.connect(holder.getsockname())
    number: int = holder.getsockname()[1]
    return number


_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

_held: list[socket.socket] = []


def release_ports() -> None:
    """Let go of the ports that `free_port` gave."""
    while _held:
        _held.pop().close()


@contextmanager
def deaf_listener() -> Iterator[Server]:
    """Listen with a full queue: connections are ignored, as a firewall ignores them."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        server = Server("127.0.0.1", listener.getsockname()[1])
        for filler in first, second:
            filler.setblocking(False)
            filler.connect_ex((server.host, server.port))
        yield server


# UDP


@dataclass
class UdpRequest:
    """One datagram that arrived, and the means to answer it.

    Attributes:
        index: 0 for the server's first datagram, and so on.
        data: what it holds.
    """

    index: int
    data: bytes
    peer: Any
    _socket: socket.socket
    _later: list[tuple[float, int, bytes, Any]]
    _numbers: Iterator[int]

    def reply(self, data: bytes | None = None, after: float = 0.0) -> None:
        """Send a reply, the upper-cased request unless told otherwise, at once or later."""
        data = self.data.upper() if data is None else data
        if after:
            entry = (time.monotonic() + after, next(self._numbers), data, self.peer)
            heapq.heappush(self._later, entry)
        else:
            with suppress(OSError):
                self._socket.sendto(data, self.peer)

    def forge(self, data: bytes) -> None:
        """Send a reply from another port."""
        with socket.socket(self._socket.family, socket.SOCK_DGRAM) as other:
            other.sendto(data, self.peer)


UdpBehaviour = Callable[[UdpRequest], None]


@contextmanager
def udp_server(
    behave: UdpBehaviour | None = None, host: str = "127.0.0.1", port: int = 0
) -> Iterator[Server]:
    """Serve datagrams until the block ends."""
    behave = behave or honest
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        listener.bind((host, port))
        listener.settimeout(_POLL)
        server = Server(host, listener.getsockname()[1])
        later: list[tuple[float, int, bytes, Any]] = []
        numbers = count()

        def serve() -> None:
            while not server.ended.is_set():
                try:
                    data, peer = listener.recvfrom(65_536)
                except TimeoutError:
                    pass
                except OSError:
                    break
                else:
                    index = len(server.received)
                    server.received.append(data)
                    server.peers.append(peer)
                    behave(UdpRequest(index, data, peer, listener, later, numbers))
                while later and later[0][0] <= time.monotonic():
                    _, _, data, peer = heapq.heappop(later)
                    with suppress(OSError):
                        listener.sendto(data, peer)
            listener.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            thread.join(5)


def honest(request: UdpRequest) -> None:
    """Answer each request once, at once."""
    request.reply()


def silent(request: UdpRequest) -> None:
    """Answer nothing."""


def drop(*indexes: int) -> UdpBehaviour:
    """Answer all but these requests."""
    return lambda request: None if request.index in indexes else request.reply()


def wrong(*indexes: int, content: bytes = b"?") -> UdpBehaviour:
    """Answer these requests with something else, the others honestly."""
    return lambda request: request.reply(content if request.index in indexes else None)


def duplicate(*indexes: int) -> UdpBehaviour:
    """Answer these requests twice."""

    def behave(request: UdpRequest) -> None:
        for _ in range(2 if request.index in indexes else 1):
            request.reply()

    return behave


def late(delay: float, *indexes: int) -> UdpBehaviour:
    """Answer these requests after `delay` seconds, the others at once."""
    return lambda request: request.reply(after=delay if request.index in indexes else 0.0)


def forged(request: UdpRequest) -> None:
    """Send a forged reply from another port first, then the true one."""
    request.forge(b"FORGED")
    request.reply(after=0.05)


def only_forged(request: UdpRequest) -> None:
    """Send nothing but forged replies."""
    request.forge(b"FORGED")


def both(*behaviours: UdpBehaviour) -> UdpBehaviour:
    """Do all of them for each request."""

    def behave(request: UdpRequest) -> None:
        for each in behaviours:
            each(request)

    return behave


# TCP

TcpBehaviour = Callable[[socket.socket, Server], None]


@contextmanager
def tcp_server(
    behave: TcpBehaviour | None = None,
    host: str = "127.0.0.1",
    *,
    unix: str | None = None,
    wrap: Callable[[socket.socket], socket.socket] | None = None,
) -> Iterator[Server]:
    """Serve connections until the block ends, each in a thread.

    Args:
        behave: what to do with a connection; it is closed afterwards.
        host: an IPv4 or IPv6 address.
        unix: the path of a Unix socket to listen on instead.
        wrap: makes a connection a TLS connection, say.
    """
    behave = behave or upper_stream
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(unix or (host, 0))
        listener.listen(64)
        listener.settimeout(_POLL)
        server = Server(host, 0 if unix else listener.getsockname()[1])
        open_connections: list[socket.socket] = []
        threads: list[threading.Thread] = []

        def converse(connection: socket.socket) -> None:
            with suppress(OSError):
                wrapped = wrap(connection) if wrap else connection
                open_connections.append(wrapped)
                with wrapped:
                    behave(wrapped, server)

        def serve() -> None:
            while not server.ended.is_set():
                try:
                    connection, peer = listener.accept()
                except TimeoutError:
                    continue
                except OSError:
                    break
                connection.settimeout(None)
                server.peers.append(peer)
                threads.append(threading.Thread(target=converse, args=[connection], daemon=True))
                threads[-1].start()

        acceptor = threading.Thread(target=serve, daemon=True)
        acceptor.start()
        try:
            yield server
        finally:
            server.ended.set()
            acceptor.join(5)
            for connection in open_connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(5)


def _chunks(connection: socket.socket, server: Server) -> Iterator[bytes]:
    while data := connection.recv(65_536):
        server.received.append(data)
        yield data


def upper_stream(connection: socket.socket, server: Server) -> None:
    """Answer each chunk as it comes, until the client ends its input."""
    for data in _chunks(connection, server):
        connection.sendall(data.upper())


def one_reply(connection: socket.socket, server: Server) -> None:
    """Do as the lecture's server does: one recv, one reply, close."""
    data = connection.recv(1024)
    server.received.append(data)
    connection.sendall(data.upper())


def one_slow_reply(connection: socket.socket, server: Server) -> None:
    """Answer the first chunk only, and after a while; then close."""
    data = connection.recv(1024)
    server.received.append(data)
    time.sleep(0.2)
    connection.sendall(data.upper())


def close_unanswered(connection: socket.socket, server: Server) -> None:
    """Read one chunk, then close in order without a reply."""
    server.received.append(connection.recv(65_536))


def strip_newline(connection: socket.socket, server: Server) -> None:
    """Answer each line without its newline, as a student's server may."""
    for data in _chunks(connection, server):
        # Also where several came at once, on a busy machine.
        connection.sendall(data.replace(b"\n", b"").upper())


def wrong_stream(connection: socket.socket, server: Server) -> None:
    """Answer each chunk with as many question marks."""
    for data in _chunks(connection, server):
        connection.sendall(b"?" * len(data))


def silent_stream(connection: socket.socket, server: Server) -> None:
    """Read everything, answer nothing and never close."""
    for _ in _chunks(connection, server):
        pass
    server.ended.wait(30)


def never_read(connection: socket.socket, server: Server) -> None:
    """Neither read nor answer nor close."""
    server.ended.wait(30)


def break_off_after(size: int) -> TcpBehaviour:
    """Answer honestly, but close as soon as `size` bytes have been answered."""

    def behave(connection: socket.socket, server: Server) -> None:
        left = size
        while left and (data := connection.recv(left)):
            server.received.append(data)
            connection.sendall(data.upper())
            left -= len(data)

    return behave


def reset(connection: socket.socket, server: Server) -> None:
    """Read one chunk, then break the connection off with a reset."""
    server.received.append(connection.recv(65_536))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
