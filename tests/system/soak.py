"""A long bad day for a TCP server: many connections, resets, and mutated input.

`python -m tests.system.soak` (or `make soak`) runs it in full; the test suite runs it in small.
Nothing may be left behind: file descriptors and memory stay flat, and the server goes on serving.
"""

import argparse
import random
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import make_certificate
from tests.system.processes import Server, connect, receive_exactly
from tests.system.resources import open_descriptors, resident_memory

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
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass
        except ConnectionError:
            pass


def main() -> None:
    """Run it in full, or as much as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connects", type=int, default=Load.connects)
    parser.add_argument("--mutated", type=int, default=Load.mutated)
    parser.add_argument("--secured", type=int, default=TLS_LOAD.connects)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    print(f"seed {given.seed}")
    soak(Load(connects=given.connects, mutated=given.mutated, seed=given.seed))
    soak_tls(Load(connects=given.secured, mutated=given.secured, seed=given.seed))


if __name__ == "__main__":
    main()
