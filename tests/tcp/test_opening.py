"""Sockets that are opened here: what becomes of their names, and of those of others."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from twisted.internet import endpoints
from twisted.internet import reactor as installed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.python import lockfile
from twisted.python.systemd import ListenFDs

from uppercase.errors import BadValue, CannotListen
from uppercase.tcp.listening import listener_of_string
from uppercase.tcp.opening import BACKLOG


class Echo(Protocol):
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.loseConnection()


def ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"hello")
        return client.makefile("rb").read()


async def listen(text: str) -> Any:
    served = Factory.forProtocol(Echo)
    return await listener_of_string(installed, text).listen(served, installed, Mock())


@pytest.mark.parametrize("number", ["999999999", "ours"])
async def test_a_unix_socket_has_its_mode_and_its_name_until_the_end(
    number: str, tmp_path: Path
) -> None:
    """Whatever a program that was killed has left there, in a container with our own number."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    (tmp_path / "socket.lock").symlink_to(number.replace("ours", str(os.getpid())))
    port = await listen(f"unix:{path}:mode=600")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await deferToThread(ask, path) == b"hello"
    assert port._port.factory.numPorts == 1, "it has timers while it has ports"
    ended = port.stopListening()
    assert not list(tmp_path.iterdir()), "at once: the reactor may not run, as at a failing start"
    await ended
    assert port._port.factory.numPorts == 0


@pytest.mark.parametrize(
    ("given", "backlog"),
    [
        ("tcp:0:127.0.0.1", BACKLOG),
        ("tcp:port=0:interface=127.0.0.1", BACKLOG),
        ("tcp:0:interface=127.0.0.1:backlog=7", 7),
        ("tcp:0:127.0.0.1:7", 7),
        (r"tcp6:0:7:\:\:1", 7),
        (r"tcp6:0:interface=\:\:1", BACKLOG),
        (r"TCP6:0:interface=\:\:1", BACKLOG),
        (r"unix:na\:me:660:lockfile=0", BACKLOG),
        (r"unix:na\=me:660:7", 7),
        ("unix:name:660:7", 7),
        ("unix:name:660:lockfile=0:backlog=7", 7),
    ],
)
def test_as_many_clients_may_wait_as_the_string_says_by_name_or_by_place(
    given: str, backlog: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[int] = []
    monkeypatch.setattr(socket.socket, "listen", lambda _, number: asked.append(number))
    listener: Any = listener_of_string(installed, given)
    listener.open_socket().close()
    assert asked == [backlog]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_whether_all_of_ipv6_is_for_ipv4_too_is_up_to_the_system() -> None:
    listener: Any = listener_of_string(installed, "tcp6:0")
    option = socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    with listener.open_socket() as ours, socket.socket(socket.AF_INET6) as theirs:
        assert ours.getsockopt(*option) == theirs.getsockopt(*option)


@pytest.mark.parametrize(
    "given", ["tcp:0:interface=::1", "tcp:0:interface=[::1]", "unix:name:660:7:\\"]
)
def test_an_address_that_is_typed_as_everywhere_else_is_told_how_to_write_it(given: str) -> None:
    with pytest.raises(BadValue, match=r"with \\: for each colon in a value$"):
        listener_of_string(installed, given)


def test_only_a_socket_that_systemd_has_not_passed_may_be_missing_until_it_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(BadValue, match="'systemd:domain=INET'"):
        listener_of_string(installed, "systemd:domain=INET")
    monkeypatch.setattr(endpoints, "serverFromString", Mock(side_effect=KeyError))
    assert listener_of_string(installed, "systemd:domain=INET:index=7").open_socket
    with pytest.raises(BadValue, match="'card:1'"):
        listener_of_string(installed, "card:1")


FAILS_FOR_ANOTHER = (
    "import os, sys\n"
    "from uppercase.services import TCPSettings, tcp_service\n"
    "tcp_service(TCPSettings(listen=[f'unix:{sys.argv[1]}:lockfile=1'])).startService()\n"
    "if not os.fork():\n"
    "    sys.exit()\n"
    "os.wait()\n"
    "sys.exit(str(os.path.exists(sys.argv[1])))\n"
)


def test_a_program_that_ends_without_a_stop_leaves_no_name(tmp_path: Path) -> None:
    """As one does of which another service cannot start; a process that it has forked does not."""
    command = [sys.executable, "-c", FAILS_FOR_ANOTHER, str(tmp_path / "socket")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == "True\n"
    assert not list(tmp_path.iterdir())


def test_what_is_opened_and_closed_leaves_nothing_for_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may start and stop its services many times."""
    ends: list[Any] = []
    monkeypatch.setattr("atexit.register", ends.append)
    monkeypatch.setattr("atexit.unregister", ends.remove)
    listener: Any = listener_of_string(installed, f"unix:{tmp_path / 'socket'}")
    opened = listener.open_socket()
    assert len(ends) == 1
    opened.close()
    assert not ends


async def test_a_name_that_somebody_else_has_by_then_stays(tmp_path: Path) -> None:
    path, lock = tmp_path / "socket", tmp_path / "socket.lock"
    port = await listen(f"unix:{path}")
    path.unlink()
    lock.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        lock.symlink_to("1")
        await port.stopListening()
        assert path.exists()
        assert lock.is_symlink()


async def test_a_unix_socket_of_systemds_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mode (SocketMode=) decides who may connect, and systemd goes on listening by its name."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))
        path.chmod(0o600)
        opened.listen()
        passed = ListenFDs([os.dup(opened.fileno())], ["web"])
        monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", passed)
        port = await listen("systemd:domain=UNIX:name=web")
        assert await deferToThread(ask, path) == b"hello"
        await port.stopListening()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_socket_of_systemds_that_does_not_listen_is_one_sentence(
    kind: socket.SocketKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A datagram socket, or one connection, as Accept=yes passes it."""
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one, other:
        passed = ListenFDs([os.dup(one.fileno())], ["web"])
        monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", passed)
        with pytest.raises(CannotListen, match="ListenStream= and Accept=no are needed"):
            await listen("systemd:domain=UNIX:name=web")


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such UNIX sockets")
async def test_a_socket_of_systemds_whose_connections_have_messages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `ListenSequentialPacket=`: what is longer than one read would be cut."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bound:
        bound.bind(str(tmp_path / "name"))
        bound.listen()
        passed = ListenFDs([os.dup(bound.fileno())], ["web"])
        monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", passed)
        with pytest.raises(CannotListen, match="which is no stream socket that listens: ListenStr"):
            await listen("systemd:domain=UNIX:name=web")


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ("unix:", "its path is missing, as in unix:/run/name"),
        (f"unix:{'x' * 108}", "its path is too long for the system; choose a shorter one"),
        ("tcp:0:backlog=99999999999", "and a backlog one of 31 bits"),
    ],
)
async def test_what_no_system_takes_is_said(
    description: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotListen, match=why):
        await listen(description)


def test_a_lock_that_somebody_has_leaves_no_socket_open(tmp_path: Path) -> None:
    def free_number() -> int:
        with open(os.devnull) as file:
            return file.fileno()

    (tmp_path / "socket.lock").symlink_to(str(os.getpid()))
    listener: Any = listener_of_string(installed, f"unix:{tmp_path}/socket")
    before = free_number()
    with pytest.raises(CannotListen, match="another program does already") as caught:
        listener.open_socket()
    assert free_number() == before
    assert caught.value


@pytest.mark.parametrize("error", [PermissionError, None])
def test_the_lock_of_another_user_s_program_is_somebody_s(
    error: type[OSError] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is not to blame, as it may be /tmp."""
    (tmp_path / "socket.lock").symlink_to("1")
    monkeypatch.setattr(lockfile, "kill", Mock(side_effect=error))
    listener: Any = listener_of_string(installed, f"unix:{tmp_path}/socket")
    with pytest.raises(CannotListen, match="another program does already, as"):
        listener.open_socket()
