"""The servers that people write first, each by what its own documentation shows.

    python -m benchmarks.peers PEER tcp|lines|udp PORT
    python -m benchmarks.peers PEER tls PORT KEY CERTIFICATE

Each upper-cases ASCII on 127.0.0.1 until it is killed. None has a limit, a guard or a counter.
`lines` takes a line at a time, as `readline` and `LineReceiver` are for.
"""

import asyncio
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

HOST: Final = "127.0.0.1"
CERTIFICATE: Final = sys.argv[4:]
LECTURE: Final = Path(__file__).parents[1] / "tests" / "system" / "lecture"


class Stream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.transport.sendto(data.upper(), addr)


async def answer_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def serve_loop(kind: str, port: int) -> None:
    """Serve by asyncio's interface, which uvloop has too."""
    loop = asyncio.get_running_loop()
    if kind == "udp":
        await loop.create_datagram_endpoint(Datagrams, local_addr=(HOST, port))
        await loop.create_future()
    elif kind == "lines":
        await (await asyncio.start_server(answer_lines, HOST, port)).serve_forever()
    context = None
    if kind == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE[1], CERTIFICATE[0])
    await (await loop.create_server(Stream, HOST, port, ssl=context)).serve_forever()


def serve_asyncio(kind: str, port: int) -> None:
    asyncio.run(serve_loop(kind, port))


def serve_uvloop(kind: str, port: int) -> None:
    import uvloop

    run: Callable[[Coroutine[Any, Any, None]], None] = uvloop.run
    run(serve_loop(kind, port))


def serve_gevent(kind: str, port: int) -> None:
    from gevent.server import DatagramServer, StreamServer

    def answer(sock: Any, address: object) -> None:
        while data := sock.recv(65536):
            sock.sendall(data.upper())

    class Answers(DatagramServer):  # type: ignore[misc]
        def handle(self, data: bytes, address: object) -> None:
            self.socket.sendto(data.upper(), address)

    if kind == "udp":
        Answers(f"{HOST}:{port}").serve_forever()
    StreamServer((HOST, port), answer).serve_forever()


def serve_twisted(kind: str, port: int) -> None:
    from twisted.internet import reactor as installed
    from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
    from twisted.protocols.basic import LineReceiver

    class Plain(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(data.upper())

    lines: Any = LineReceiver

    class Lines(lines):  # type: ignore[misc]
        delimiter = b"\n"

        def lineReceived(self, line: bytes) -> None:
            self.sendLine(line.upper())

    class Packets(DatagramProtocol):
        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            assert self.transport is not None
            self.transport.write(datagram.upper(), addr)

    reactor: Any = installed
    factory = Factory.forProtocol(Lines if kind == "lines" else Plain)
    if kind == "udp":
        reactor.listenUDP(port, Packets(), interface=HOST)
    elif kind == "tls":
        from OpenSSL.SSL import TLS_METHOD
        from twisted.internet.ssl import DefaultOpenSSLContextFactory

        key, certificate = CERTIFICATE
        context = DefaultOpenSSLContextFactory(key, certificate, sslmethod=TLS_METHOD)
        reactor.listenSSL(port, factory, context, interface=HOST)
    else:
        reactor.listenTCP(port, factory, interface=HOST)
    reactor.run()


def serve_lecture(kind: str, port: int) -> None:
    """Run the lecture's own program, on another port than its 12000."""
    source = (LECTURE / f"{kind}_server.py").read_text()
    exec(source.replace("12000", str(port)), {})


def main() -> None:
    peer, kind, port = sys.argv[1:4]
    serve = globals()[f"serve_{peer}"]
    serve(kind, int(port))


if __name__ == "__main__":
    main()
