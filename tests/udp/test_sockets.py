"""Sockets: the strings that describe them, those from elsewhere, and what cannot be had."""

import errno
import os
import socket
import subprocess
import sys
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.endpoints import quoteStringArgument

from tests.drawing import CHARACTER
from tests.udp.helpers import applied, ask, client, in_thread, served
from uppercase.core.responder import Responder
from uppercase.errors import BadValue, CannotListen
from uppercase.udp import serve
from uppercase.udp.sockets import adopt_socket, ask_receive_buffer, open_for_each, opener_of_string


def listen_on(description: str) -> Any:
    (sock,) = opener_of_string(description)(1)
    return serve(reactor, sock, Responder(applied()))


@pytest.mark.parametrize(
    ("description", "host"),
    [
        ("udp:0", "0.0.0.0"),
        ("udp:0:interface=127.0.0.1", "127.0.0.1"),
        ("udp:port=0:interface=127.0.0.2", "127.0.0.2"),
        ("udp:interface=127.0.0.1:port=0", "127.0.0.1"),
        ("udp:0:127.0.0.1", "127.0.0.1"),
        (r"udp:0:interface=\:\:1", "::1"),
        (r"udp:0:interface=\:\:", "::"),
    ],
)
async def test_a_string_names_a_port_and_an_interface(description: str, host: str) -> None:
    port = listen_on(description)
    assert port.getHost().host == host
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    assert await in_thread(ask, asked, port.getHost().port, b"hello") == b"HELLO"
    port.stopListening()


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("udp", "without a port; udp:PORT[:interface=ADDRESS] is accepted"),
        ("udp:", "a port is a whole number from 0"),
        ("udp:70000", "a port is a whole number from 0"),
        ("udp:dns", "got 'dns'; a port is a whole number"),
        ("udp:0:interface=localhost", "got 'localhost'; an interface is an IP address of"),
        ("udp:0:interface=::1", "udp:PORT[:interface=ADDRESS] is accepted"),
        ("udp:0:127.0.0.1:backlog=5", "udp:PORT[:interface=ADDRESS] is accepted"),
        ("udp:0:127.0.0.1:5", "udp:PORT[:interface=ADDRESS] is accepted"),
        ("udp:0:port=1", "udp:PORT[:interface=ADDRESS] is accepted"),
        ("udp:0\\", "nothing follows its last backslash"),
        ("upd:0", "no datagram endpoint has the type 'upd'; did you mean 'udp'?"),
        ("tcp:0", "no datagram endpoint has the type 'tcp'"),
        ("", "no datagram endpoint has the type ''"),
        ("systemd:domain=INET", "systemd:domain=INET:index=N, counted from 0, or"),
        ("systemd:index=0", "systemd:domain=INET:index=N, counted from 0, or"),
    ],
)
def test_a_string_that_describes_nothing_is_refused_in_one_sentence(
    description: str, said: str
) -> None:
    with pytest.raises(BadValue) as caught:
        opener_of_string(description)
    assert said in str(caught.value)
    assert repr(description) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("which", ["index=0", "name=upper"])
def test_a_socket_that_systemd_has_not_passed_is_missed_when_it_is_opened(which: str) -> None:
    opener = opener_of_string(f"systemd:domain=INET:{which}")
    with pytest.raises(CannotListen, match="with a socket that systemd passed on"):
        opener(1)


@given(st.text(CHARACTER, min_size=1))
def test_values_are_quoted_as_twisted_quotes_them(interface: str) -> None:
    """What is not accepted is shown as it was meant, every backslash understood."""
    try:
        ip_address(interface)
    except ValueError:
        with pytest.raises(BadValue) as caught:
            opener_of_string(f"udp:0:interface={quoteStringArgument(interface)}")
        assert f"got {interface!r}; an interface is" in str(caught.value)


def test_an_address_in_use_is_one_sentence_and_leaves_nothing_open() -> None:
    with served() as port:
        number = port.getHost().port
        before = os.listdir("/proc/self/fd")
        with pytest.raises(CannotListen) as caught:
            listen_on(f"udp:{number}:interface=127.0.0.1")
        assert len(os.listdir("/proc/self/fd")) == len(before)
    assert str(caught.value).startswith(f"cannot listen on UDP 127.0.0.1:{number}: another ")


def test_a_system_that_refuses_a_large_receive_buffer_is_asked_for_less() -> None:
    asked: list[int] = []

    def set_option(level: int, option: int, size: int) -> None:
        asked.append(size)
        if size > 1500:
            raise OSError(errno.ENOBUFS, "too much")

    sock: Any = SimpleNamespace(setsockopt=set_option)
    ask_receive_buffer(sock, 4096)
    assert asked == [4096, 2048, 1024]
    ask_receive_buffer(sock, 0)
    assert len(asked) == 3


def test_a_link_local_address_without_its_interface_is_told_what_it_lacks() -> None:
    with pytest.raises(CannotListen, match=r"a link-local address needs its interface, as in fe80"):
        listen_on(r"udp:0:interface=fe80\:\:7")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux deals datagrams out")
def test_only_several_processes_share_an_address() -> None:
    """Else another program could have it too, and half of the datagrams."""
    for workers in (1, 3):
        sockets = open_for_each("127.0.0.1", 0, workers)
        assert len(sockets) == workers
        assert len({sock.getsockname() for sock in sockets}) == 1
        for sock in sockets:
            shared = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            assert bool(shared) is (workers > 1)
            sock.close()


def test_an_address_of_another_machine_is_one_sentence() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on UDP 192\.0\.2\.1:0: this machine"):
        listen_on("udp:0:interface=192.0.2.1")
    with pytest.raises(CannotListen, match=r"cannot listen on UDP \[2001:db8::1\]:0: this machine"):
        listen_on(r"udp:0:interface=2001\:db8\:\:1")
    with pytest.raises(
        CannotListen, match=r"cannot listen on UDP \[fe80::1%nope\]:0: this machine"
    ):
        listen_on(r"udp:0:interface=fe80\:\:1%nope")


def test_a_descriptor_that_is_no_udp_socket_is_refused_and_left_alone() -> None:
    with socket.socket() as stream:
        with pytest.raises(CannotListen, match="a datagram socket of INET or INET6 is needed"):
            adopt_socket(stream.fileno())
        assert stream.getsockname()
    with pytest.raises(CannotListen, match="an open UDP socket is needed"):
        adopt_socket(1 << 20)


def test_a_broadcast_address_is_not_adopted() -> None:
    """Nothing would tell its datagrams from those that are for this machine alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.255.255.255", 0))
        with pytest.raises(CannotListen, match=r"a broadcast address, which is not answered; name"):
            adopt_socket(bound.fileno())
        assert bound.getsockname()


async def test_a_blocking_socket_is_adopted_and_does_not_block() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    number = sock.getsockname()[1]
    port = serve(reactor, adopt_socket(sock.detach()), Responder(applied()))
    assert not os.get_blocking(port.fileno())
    for _ in range(3):
        assert await in_thread(ask, "127.0.0.1", number, b"hello") == b"HELLO"
    port.stopListening()


_ACTIVATED = r"""
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="upper")
from twisted.internet import reactor
from tests.udp.helpers import applied
from uppercase.core.responder import Responder
from uppercase.udp import serve
from uppercase.udp.sockets import opener_of_string
(sock,) = opener_of_string(sys.argv[2])(1)
serve(reactor, sock, Responder(applied()))
reactor.run()
"""


@pytest.mark.parametrize(
    ("host", "description"),
    [
        ("127.0.0.1", "systemd:domain=INET:index=0"),
        ("::1", "systemd:domain=INET6:name=upper"),
    ],
)
def test_a_socket_from_systemd_is_served(host: str, description: str) -> None:
    """As systemd passes it on: bound, blocking, descriptor 3, with what waits in it."""
    with client(host) as bound, client(host) as early:
        bound.settimeout(None)
        bound.bind((host, 0))
        early.connect(bound.getsockname())
        early.send(b"early")
        process = subprocess.Popen(
            [sys.executable, "-c", _ACTIVATED, str(bound.fileno()), description],
            pass_fds=[bound.fileno()],
        )
        try:
            early.settimeout(20)
            assert early.recv(100) == b"EARLY"
            assert ask(host, bound.getsockname()[1], b"late") == b"LATE"
        finally:
            process.terminate()
            assert process.wait(10) == 0
