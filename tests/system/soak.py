"""A long bad day for the servers, in several kinds.

    day         many connections, resets, and mutated input; then the same over TLS
    failing     messages that fail, each in a way of its own, in every connection
    clock       the wall clock is set forth and back by hours under traffic
    fairness    a hundred peers flood with empty lines while one asks now and then
    pipelining  twenty peers send minutes of work ahead
    slots       peers that complete no message hold all places
    loops       datagrams are sent back and forth between two servers

`python -m tests.system.soak [KIND...]` (or `make soak`) runs them in full; the test suite runs them
in small. Nothing may be left behind: file descriptors and memory stay flat, and the server goes on
serving.
"""

import argparse
import asyncio
import random
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import make_certificate
from tests.system.crowds import soak_fairness, soak_pipelining, soak_slots
from tests.system.processes import Server, connect, half_close, receive_exactly
from tests.system.resources import open_descriptors, resident_memory
from tests.system.wall import Wall
from uppercase.core.guards import LOOP_WINDOW

__all__ = ["Load", "Secure", "soak", "soak_tls"]

FRAMINGS = ("stream", "line", "netstring", "int16", "int32")
SEEDS = {
    "stream": "straße ﬃ".encode(),
    "line": b"one\r\ntwo\n\nthree",
    "netstring": b"5:hello,0:,3:abc,",
    "int16": b"\0\5hello\0\0\0\3abc",
    "int32": b"\0\0\0\5hello\0\0\0\0",
}
GROWTH = 8 << 20
"""Bytes of memory that the second half of a soak may add: the allocator's, not the server's."""

FAILING_GROWTH = 20 << 20
"""Bytes that failing may add: what a hundred connections hold at once, and the allocator's."""

LONGEST_LOOP = 20_000

Secure = Callable[[socket.socket], socket.socket]
"""Puts TLS around a connected socket."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much.

    Attributes:
        connects: connections that ask, are answered and leave.
        aborted: the share of connections that ends by a reset, with a reply under way.
        mutated: inputs that were valid until a few bytes of them were changed.
        seed: the same seed gives the same day.
    """

    connects: int = 20_000
    aborted: float = 0.05
    mutated: int = 20_000
    seed: int = 1


TLS_LOAD = Load(connects=500, mutated=500)
"""As much over TLS: a handshake takes a hundred times as long as a plain connection."""


def soak(
    load: Load,
    *,
    listen: str = "--port=0",
    addresses: int = 2,
    framings: Sequence[str] = FRAMINGS,
    secure: Secure | None = None,
    report: Callable[[str], object] = print,
) -> None:
    """Go through a day with a server for each framing; fails where something is left behind.

    Args:
        load: how much, over all framings.
        listen: the server's option that says where.
        addresses: how many those are.
        framings: which ones.
        secure: used for every connection.
        report: told how far it is.
    """
    dice = random.Random(load.seed)
    share = load.connects // len(framings)
    for framing in framings:
        arguments = ("uppercase-tcp", listen, f"--framing={framing}")
        with Server(*arguments, addresses=addresses) as server:
            pid, started = server.process.pid, time.monotonic()
            descriptors = open_descriptors(pid)
            memory = 0
            for half in range(2):
                for _ in range(share // 2):
                    visit(server.port, framing, dice.random() < load.aborted, secure)
                for _ in range(load.mutated // len(framings) // 2):
                    attack(server.port, mutated(SEEDS[framing], dice), dice, secure)
                if not half:
                    memory = resident_memory(pid)
            wait_for_quiet(pid, descriptors)
            growth = resident_memory(pid) - memory
            assert growth < GROWTH, f"{framing}: {growth} bytes more memory"
            visit(server.port, framing, False, secure)
            report(
                f"{framing}: {share} connections, {load.mutated // len(framings)} mutated inputs, "
                f"{time.monotonic() - started:.1f} s, memory {growth / 1024:+.0f} KiB, "
                f"{open_descriptors(pid)} descriptors"
            )


def soak_tls(load: Load = TLS_LOAD) -> None:
    """Do the same over TLS, which frames nothing: one framing will do."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        context = ssl.create_default_context(cafile=str(certificate.cert))
        soak(
            load,
            listen=f"--listen={certificate.endpoint()}",
            addresses=1,
            framings=["line"],
            secure=lambda client: context.wrap_socket(client, server_hostname="localhost"),
            report=lambda text: print(f"TLS, {text}"),
        )


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A way to fail.

    Attributes:
        options: of the server.
        data: what each connection sends.
        raises: the server's log shows tracebacks, as it should.
        over: `TCP`, `UDP`, `TLS`, or `raw` for bytes that a TLS server gets as they are.
        stays: the client waits for the end; else it goes away at once, by a reset.
    """

    options: Sequence[str]
    data: bytes
    raises: bool = False
    over: str = "TCP"
    stays: bool = True


def broken(data: bytes) -> bytes:
    """Raise, as a transform with a mistake does."""
    raise ValueError(data)


async def broken_later(data: bytes) -> bytes:
    """Raise once others have had their turn."""
    await asyncio.sleep(0)
    raise ValueError(data)


async def never(data: bytes) -> bytes:
    """Await what does not come, and keep what was sent meanwhile."""
    await asyncio.Event().wait()
    return data


LINE = ("--framing=line",)
RAISES = (*LINE, "--transform=tests.system.soak:broken")
RAISES_LATER = (*LINE, "--transform=tests.system.soak:broken_later")
MESSAGE = b"x" * 65_000 + b"\n"
PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"

FAILURES: Mapping[str, Failure] = {
    "too long": Failure(options=LINE, data=b"x" * 100_000),
    "malformed": Failure(options=["--framing=netstring"], data=b"65536:" + b"x" * 65536 + b"!"),
    "rejected": Failure(options=[*LINE, "-tbase64-decode"], data=b"x!" * 30_000 + b"\n"),
    "output too long": Failure(options=[*LINE, *["-thex-encode"] * 5], data=MESSAGE),
    "raises": Failure(options=RAISES, data=MESSAGE, raises=True),
    "raises over TLS": Failure(options=RAISES, data=MESSAGE, raises=True, over="TLS"),
    "no TLS": Failure(options=LINE, data=b"x" * 60_000, over="raw"),
    "raises behind a proxy": Failure(
        options=[*RAISES, "--proxy-from=127.0.0.1"], data=PROXY + MESSAGE, raises=True
    ),
    "bad PROXY header": Failure(
        options=["--proxy-from=127.0.0.1"], data=b"PROXY TCP4 \x1b" + MESSAGE
    ),
    "raises in the lab": Failure(
        options=[*RAISES, "--lab=byte-stream", "--delay=1ms"], data=b"ok\n" + MESSAGE, raises=True
    ),
    "raises later": Failure(options=RAISES_LATER, data=MESSAGE, raises=True),
    "cancelled": Failure(
        options=[*LINE, "--transform=tests.system.soak:never"], data=MESSAGE, stays=False
    ),
    "raises over UDP": Failure(options=RAISES[1:], data=MESSAGE, raises=True, over="UDP"),
    "raises later over UDP": Failure(
        options=RAISES_LATER[1:], data=MESSAGE, raises=True, over="UDP"
    ),
}
"""What fails, by kind."""


def soak_failing(
    connections: int = 10_000,
    kinds: Sequence[str] = tuple(FAILURES),
    report: Callable[[str], object] = print,
) -> None:
    """Let every message fail, a hundred connections at a time; a tenth as many over TLS."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        for kind in kinds:
            failure = FAILURES[kind]
            secured = failure.over in ("TLS", "raw")
            service = "uppercase-udp" if failure.over == "UDP" else "uppercase-tcp"
            listen = f"--listen={certificate.endpoint()}" if secured else "--port=0"
            rounds = connections // (1000 if secured else 100)
            with Server(service, listen, *failure.options, addresses=2 - secured) as server:
                server.tracebacks = failure.raises
                pid = server.process.pid
                descriptors = open_descriptors(pid)
                for number in range(rounds + 1):
                    fail_together(server.port, failure, certificate.cert)
                    # By then what a hundred clients hold at once has been held in every way.
                    if number == min(rounds // 10, 10):
                        before = resident_memory(pid)
                wait_for_quiet(pid, descriptors)
                growth = resident_memory(pid) - before
                assert growth < FAILING_GROWTH, f"{kind}: {growth} bytes more memory"
                report(f"failing, {kind}: {rounds * 100} connections, {growth / 1024:+.0f} KiB")


def fail_together(port: int, failure: Failure, certificate: Path) -> None:
    """Have a hundred clients send the same and take what comes."""
    with ExitStack() as stack:
        clients = [stack.enter_context(opened(port, failure, certificate)) for _ in range(100)]
        for client in clients:
            with suppress(ConnectionError):
                client.sendall(failure.data)
        if failure.over == "UDP":
            # There are no replies, and the kernel holds what was not read yet.
            time.sleep(0.1)
        elif not failure.stays:
            for client in clients:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            for client in clients:
                exhaust(client)


def opened(port: int, failure: Failure, certificate: Path) -> socket.socket:
    """Return a client's connected socket."""
    if failure.over == "UDP":
        client = socket.socket(type=socket.SOCK_DGRAM)
        client.connect(("127.0.0.1", port))
        return client
    client = connect(port)
    if failure.over == "TLS":
        context = ssl.create_default_context(cafile=str(certificate))
        return context.wrap_socket(client, server_hostname="localhost")
    return client


def exhaust(client: socket.socket) -> None:
    """Half-close, except over TLS, where Python would close; read up to the end."""
    with suppress(OSError):
        if not isinstance(client, ssl.SSLSocket):
            client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 16):
            pass


def soak_clock(seconds: float = 60, report: Callable[[str], object] = print) -> None:
    """Set the clock by up to a day every quarter of a second; nobody notices."""
    dice = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        wall = Wall(Path(folder))
        options = ("--port=0", "--idle-timeout=20s", "--framing=line")
        with Server("uppercase-tcp", *options, env=wall.env) as server, ExitStack() as stack:
            clients = [stack.enter_context(connect(server.port)) for _ in range(50)]
            asked, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                wall.set_by(dice.uniform(-86_400, 86_400))
                for client in clients:
                    client.sendall(b"still there?\n")
                    assert receive_exactly(client, 13) == b"STILL THERE?\n"
                    asked += 1
                time.sleep(0.25)
            report(f"clock: {asked} requests of 50 connections, none of them closed")


LOOPS = (
    ("uppercase", "uppercase"),
    ("reverse", "reverse"),
    ("swapcase", "digest"),
    ("caesar:shift=3", "caesar:shift=5"),
    ("hex-encode", "hex-decode"),
)


def soak_loops(
    seconds: float = 30,
    loops_of: Sequence[tuple[str, str]] = LOOPS,
    report: Callable[[str], object] = print,
) -> None:
    """Carry datagrams between two servers until they are dropped, again and again."""
    for names in loops_of:
        with ExitStack() as stack:
            servers = [
                stack.enter_context(Server("uppercase-udp", "--port=0", "-t", name))
                for name in names
            ]
            memory = [resident_memory(server.process.pid) for server in servers]
            loops, longest, end = 0, 0, time.monotonic() + seconds / len(loops_of)
            while not loops or time.monotonic() < end:
                longest = max(longest, carry([server.port for server in servers]))
                loops += 1
            for server, before in zip(servers, memory, strict=True):
                assert resident_memory(server.process.pid) - before < GROWTH
            report(
                f"loops, {' and '.join(names)}: {loops} of them, the longest {longest} datagrams"
            )


def carry(ports: Sequence[int]) -> int:
    """Send one datagram and pass each reply to the other server; return how often it went on.

    Since the last pause: a loop that a busy machine holds up for longer than the guards' window is
    a new one to them, and as slow as that does no harm.
    """
    carried = passed = 0
    last = time.monotonic()
    with ExitStack() as stack:
        wires = []
        for port in ports:
            wire = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            wire.connect(("127.0.0.1", port))
            wire.settimeout(0.5)
            wires.append(wire)
        data = b"Round and round"
        with suppress(TimeoutError):
            while True:
                wire = wires[passed % 2]
                wire.send(data)
                data = wire.recv(1 << 16)
                before, last = last, time.monotonic()
                passed += 1
                carried = carried + 1 if last - before < LOOP_WINDOW / 2 else 0
                assert carried <= LONGEST_LOOP, "a loop does not end"
    return carried


def wait_for_quiet(pid: int, descriptors: int) -> None:
    """Wait until the server has closed what its clients have left."""
    deadline = time.monotonic() + 30
    while (now := open_descriptors(pid)) > descriptors:
        assert time.monotonic() < deadline, f"{now} descriptors, {descriptors} at the start"
        time.sleep(0.05)


def visit(port: int, framing: str, aborted: bool, secure: Secure | None) -> None:
    """Connect, ask, and leave: with the reply, or by a reset."""
    client = connect(port)
    if secure is not None:
        client = secure(client)
    with client:
        request = SEEDS[framing]
        client.sendall(request)
        if aborted:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            received = receive_exactly(client, 5)
            assert received in (b"STRAS", b"ONE\r\n", b"5:HEL", b"\0\5HEL", b"\0\0\0\5H"), received


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Change a few bytes."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(changed) + 1)
        match dice.randrange(4):
            case 0:
                changed[place:place] = dice.randbytes(dice.randint(1, 8))
            case 1:
                del changed[place : place + dice.randint(1, 4)]
            case 2:
                changed[place : place + 1] = dice.randbytes(1)
            case 3:
                changed *= 2
    return bytes(changed)


def attack(port: int, data: bytes, dice: random.Random, secure: Secure | None) -> None:
    """Send something, cut anywhere, and take whatever comes; the end has to come."""
    client = connect(port)
    if secure is not None:
        client = secure(client)
    with client:
        try:
            cut = dice.randrange(len(data) + 1)
            for part in (data[:cut], data[cut:]):
                client.sendall(part)
            if secure is None:
                half_close(client)
                while client.recv(1 << 16):
                    pass
        except ConnectionError:
            pass


def soak_day(seed: int) -> None:
    """Go through a day, plain and over TLS."""
    soak(Load(seed=seed))
    soak_tls(Load(connects=TLS_LOAD.connects, mutated=TLS_LOAD.mutated, seed=seed))


KINDS: Mapping[str, Callable[[], object]] = {
    "failing": soak_failing,
    "clock": soak_clock,
    "fairness": soak_fairness,
    "pipelining": soak_pipelining,
    "slots": soak_slots,
    "loops": soak_loops,
}


def main() -> None:
    """Run all of it, or what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=["day", *KINDS, []], metavar="KIND")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    for kind in given.kinds or ["day", *KINDS]:
        if kind == "day":
            print(f"seed {given.seed}")
            soak_day(given.seed)
        else:
            KINDS[kind]()


if __name__ == "__main__":
    main()
