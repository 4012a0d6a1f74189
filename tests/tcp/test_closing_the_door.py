"""A listening socket that is about to be closed: who waits is served, and nobody else comes in."""

import socket
import sys
from pathlib import Path

import pytest

from uppercase.tcp.kernel import admit_nobody

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="as Linux does it")


def test_who_waits_is_served_and_who_comes_is_not_let_in() -> None:
    """So nobody is connected when the socket is closed, and nobody is reset."""
    data = bytes(100_000)
    with socket.create_server(("127.0.0.1", 0)) as door:
        place = door.getsockname()
        with socket.create_connection(place, timeout=30) as early:
            admit_nobody(door)
            with socket.socket() as late:
                late.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    late.connect(place)
            accepted, _ = door.accept()
            with accepted:
                accepted.settimeout(30)
                early.sendall(data)
                received = 0
                while received < len(data):
                    received += len(accepted.recv(1 << 16))
                accepted.sendall(b"served")
                assert early.recv(100) == b"served"


def test_at_a_unix_socket_who_comes_is_refused(tmp_path: Path) -> None:
    place = str(tmp_path / "door")
    with (
        socket.socket(socket.AF_UNIX) as door,
        socket.socket(socket.AF_UNIX) as early,
        socket.socket(socket.AF_UNIX) as late,
    ):
        door.bind(place)
        door.listen()
        early.connect(place)
        admit_nobody(door)
        with pytest.raises(ConnectionRefusedError):
            late.connect(place)
        accepted, _ = door.accept()
        with accepted:
            early.sendall(b"hello")
            assert accepted.recv(100) == b"hello"
