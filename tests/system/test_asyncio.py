"""Transforms that await asyncio, in real servers; and those that do not, beside them."""

import time
from pathlib import Path

import pytest

from tests.system.processes import Server, connect, receive_all, receive_exactly

MODULE = """
import asyncio
from twisted.internet.task import deferLater
from uppercase import transform

@transform
async def naps(text: str) -> str:
    try:
        await asyncio.sleep(float(text))
    except asyncio.CancelledError:
        print("cancelled", text, flush=True)
        raise
    return f"slept {text}"

@transform
async def fails(text: str) -> str:
    await asyncio.sleep(0.01)
    raise ValueError("on purpose")

@transform
async def defers(text: str) -> str:
    from twisted.internet import reactor
    await deferLater(reactor, 0.05)
    return text.upper()

@transform
def plain(text: str) -> str:
    return text.upper()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with the module `waits`."""
    (tmp_path / "waits.py").write_text(MODULE)
    return tmp_path


def options(name: str, *more: str) -> list[str]:
    """Return the words of a server of lines."""
    where = ["--port=0", "--interface=127.0.0.1", "--framing=line"]
    return ["uppercase-tcp", *where, f"--transform=waits:{name}", *more]


def test_replies_are_awaited_together_and_come_in_order(folder: Path) -> None:
    """Without an option of twistd: the reactor is chosen."""
    with Server(*options("naps"), addresses=1, cwd=folder) as server, connect(server.port) as skt:
        began = time.monotonic()
        skt.sendall(b"1.0\n0.9\n0.1\n")
        expected = b"slept 1.0\nslept 0.9\nslept 0.1\n"
        assert receive_exactly(skt, len(expected)) == expected
        assert time.monotonic() - began >= 0.99
        assert "reactor=asyncio" not in server.log()


@pytest.mark.parametrize("reactor", [[], ["--reactor=asyncio"], ["--reactor=epoll"]])
@pytest.mark.parametrize("name", ["defers", "plain"])
def test_what_awaits_no_asyncio_is_served_under_any_reactor(
    folder: Path, reactor: list[str], name: str
) -> None:
    with (
        Server(*reactor, *options(name), addresses=1, cwd=folder) as server,
        connect(server.port) as skt,
    ):
        skt.sendall(b"one\ntwo\n")
        assert receive_exactly(skt, 8) == b"ONE\nTWO\n"


def test_where_no_loop_runs_start_and_failure_say_which_option_helps(folder: Path) -> None:
    words = ["--reactor=epoll", *options("naps")]
    with Server(*words, addresses=1, cwd=folder) as server:
        server.tracebacks = True
        server.wait_for_log("is served with twistd --reactor=asyncio")
        with connect(server.port) as skt:
            skt.sendall(b"0.1\n")
            assert receive_all(skt) == b""
        server.wait_for_log("the reactor here is not asyncio's")


def test_an_exception_ends_its_connection_only(folder: Path) -> None:
    with Server(*options("fails"), addresses=1, cwd=folder) as server:
        server.tracebacks = True
        for number in 1, 2:
            with connect(server.port) as skt:
                skt.sendall(b"x\n")
                assert receive_all(skt) == b""
            server.wait_for_log("ValueError: on purpose", times=number)
        assert "never retrieved" not in server.log()


def test_a_stop_cancels_what_still_waits(folder: Path) -> None:
    words = options("naps", "--drain=0.2s")
    with Server(*words, addresses=1, cwd=folder) as server, connect(server.port) as skt:
        skt.sendall(b"0.01\n1000\n")
        assert receive_exactly(skt, 11) == b"slept 0.01\n"
        server.stop()
        log = server.log()
    assert "cancelled 1000" in log
    assert "was destroyed" not in log
    assert "never awaited" not in log
