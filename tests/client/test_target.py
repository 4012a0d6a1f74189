"""Addresses as people write them, and connecting to what they mean."""

import errno
import importlib
import os
import resource
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import certificates
from tests.client.in_reactor import in_reactor
from tests.client.servers import deaf_listener, free_port, tcp_server, udp_server
from tests.commands.certificates import make_certificate
from tests.drawing import CHARACTER
from uppercase.client import ask
from uppercase.client.target import (
    TLS,
    Target,
    _make_once,
    connect_udp,
    explain,
    parse_target,
    reachable,
    resolve,
)
from uppercase.commands.bench._plan import connect
from uppercase.errors import BadValue, NetworkError, NoReply, UserError


def connect_tcp(target: Target) -> socket.socket:
    """Connect as bench does; the library's connections are tested with it."""
    [connection] = next(connect(target, 1))
    connection.setblocking(True)
    return connection


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (None, "127.0.0.1", 12000),
        ("example.org", "example.org", 12000),
        ("example.org:7", "example.org", 7),
        (":7", "127.0.0.1", 7),
        ("10.0.0.1:7", "10.0.0.1", 7),
        ("[::1]", "::1", 12000),
        ("[::1]:7", "::1", 7),
        ("::1", "::1", 12000),
        ("fe80::1%eth0", "fe80::1%eth0", 12000),
    ],
)
def test_an_address_leaves_out_what_has_a_default(text: str | None, host: str, port: int) -> None:
    target = parse_target(text, environment={})
    assert (target.host, target.port) == (host, port)


@pytest.mark.parametrize("port", [0, -1, 65_536 + 12_000, 80.0, "80"])
def test_a_port_that_is_none_does_not_stand_for_another(port: Any) -> None:
    with pytest.raises(BadValue, match=f"got port {port!r}; a whole number from 1 to 65535"):
        Target(port=port)


def test_a_datagram_is_not_sent_in_the_clear_where_tls_was_asked_for() -> None:
    with pytest.raises(BadValue, match=r"got TLS for UDP 127\.0\.0\.1:12000.*; TLS needs TCP"):
        Target(udp=True, tls=TLS())


def test_the_environment_gives_the_defaults() -> None:
    environment = {"UPPERCASE_HOST": "example.org", "UPPERCASE_PORT": "7"}
    assert parse_target(None, environment=environment) == Target("example.org", 7)
    assert parse_target(":9", environment=environment) == Target("example.org", 9)
    assert parse_target("[::1]", environment=environment) == Target("::1", 7)


@pytest.mark.parametrize(
    "text",
    [
        *("host:", ":", "[::1", "[::1]7", "::1]", "a b", "[]x", "host:0", "host:65536", "h:x"),
        *("http://host:7/", "http://host/", "a:b:c"),
    ],
)
def test_what_is_no_address_is_said_so(text: str) -> None:
    with pytest.raises(BadValue, match="accepted"):
        parse_target(text, environment={})


def test_a_number_is_no_host_but_for_0_which_is_this_machine() -> None:
    with pytest.raises(BadValue, match="got the host '12000'; a port alone is written :12000"):
        parse_target("12000", environment={})
    assert parse_target("0:7", environment={}) == Target("0", 7)
    assert parse_target("2130706433", environment={}) == Target("2130706433")


def test_a_host_with_its_port_in_the_environment_is_said() -> None:
    with pytest.raises(BadValue, match=r"got the host 'localhost:7'; .* in UPPERCASE_PORT"):
        parse_target(None, environment={"UPPERCASE_HOST": "localhost:7"})


def test_a_useless_port_in_the_environment_is_named() -> None:
    with pytest.raises(BadValue, match="UPPERCASE_PORT"):
        parse_target(None, environment={"UPPERCASE_PORT": "many"})
    target = parse_target(None, unix="/run/x", environment={"UPPERCASE_PORT": "many"})
    assert str(target) == "UNIX socket /run/x"


@given(st.text(CHARACTER))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    with suppress(BadValue):
        assert 1 <= parse_target(text, environment={}).port <= 65535


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Target(), "TCP 127.0.0.1:12000"),
        (Target("::1", 7, udp=True), "UDP [::1]:7"),
        (Target(unix="/run/u.sock"), "UNIX socket /run/u.sock"),
    ],
)
def test_a_target_is_named_as_the_ready_line_names_it(target: Target, name: str) -> None:
    assert str(target) == name


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_name_is_tried_in_both_families(host: str, both_families: str) -> None:
    """A name reaches a server that listens on one of its addresses only."""
    with tcp_server(host=host) as server:
        with connect_tcp(Target(both_families, server.port)) as connection:
            connection.sendall(b"hello")
            assert connection.recv(9) == b"HELLO"
        other = socket.AF_INET6 if host == "127.0.0.1" else socket.AF_INET
        with pytest.raises(NetworkError, match="nothing listens"):
            connect_tcp(Target(both_families, server.port, family=other))


def test_a_system_without_a_family_uses_the_other(
    both_families: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where IPv6 is switched off, names in /etc/hosts may stand for it all the same."""
    make = socket.socket

    def make_ipv4_only(family: int = -1, *rest: Any, **named: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *rest, **named)

    with tcp_server() as server:
        monkeypatch.setattr(socket, "socket", make_ipv4_only)
        with connect_tcp(Target(both_families, server.port)) as connection:
            assert connection.family == socket.AF_INET
        [address] = reachable(Target(both_families, server.port, udp=True))
        assert address.family == socket.AF_INET


def test_datagrams_go_to_ipv4_first(both_families: str) -> None:
    """What courses teach listens on IPv4 only, and a datagram's socket cannot tell."""
    families = [address.family for address in resolve(Target(both_families, 7, udp=True))]
    assert families == [socket.AF_INET, socket.AF_INET6]


def test_each_datagram_socket_has_a_port_of_its_own() -> None:
    with udp_server() as server:
        target = Target(server.host, server.port, udp=True)
        [address] = reachable(target)
        with connect_udp(target, address) as one, connect_udp(target, address) as other:
            assert one.getsockname()[1] != other.getsockname()[1]
            assert one.getpeername()[:2] == (server.host, server.port)


@pytest.mark.parametrize("nfs", [0, 2049])
def test_no_datagram_comes_from_the_port_that_it_goes_to(
    nfs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server like ours takes its sender for another server, wherever a system gives that port."""
    made: list[socket.socket] = []

    class Socket(socket.socket):
        def getsockname(self) -> Any:
            made.append(self)
            return ("::", nfs or server.port) if len(made) == 1 else super().getsockname()

    with udp_server() as server:
        target = Target(server.host, server.port, udp=True)
        [address] = resolve(target)
        monkeypatch.setattr(socket, "socket", Socket)
        with connect_udp(target, address) as datagrams:
            assert datagrams.getpeername() == (server.host, server.port)
            assert (len(made), made[0].fileno(), made[1]) == (2, -1, datagrams)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is so")
@pytest.mark.parametrize(("host", "option"), [("127.0.0.1", (0, 10)), ("::1", (41, 23))])
def test_a_datagram_may_be_cut_on_its_way(host: str, option: tuple[int, int]) -> None:
    """A path with less room than the first link, such as a VPN, is no error."""
    target = Target(host, 7, udp=True)
    with connect_udp(target, resolve(target)[0]) as datagrams:
        assert datagrams.getsockopt(*option) == 0  # no discovery of the path's MTU


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (
            Target(),
            "nothing listens on TCP 127.0.0.1:12000; start the server first: "
            "twistd -n uppercase-tcp",
        ),
        (
            Target(udp=True),
            "nothing listens on UDP 127.0.0.1:12000; start the server first: "
            "twistd -n uppercase-udp",
        ),
        (
            Target(port=7),
            "nothing listens on TCP 127.0.0.1:7; start the server first: "
            "twistd -n uppercase-tcp --port=7",
        ),
        (
            Target(port=7, tls=TLS()),
            "nothing listens on TLS 127.0.0.1:7; start the server first: "
            "twistd -n uppercase-tcp --listen=tls:7:privateKey=key.pem:certKey=cert.pem",
        ),
    ],
)
def test_a_refusal_names_the_command_that_helps(target: Target, sentence: str) -> None:
    assert str(explain(ConnectionRefusedError(), target)) == sentence


@pytest.mark.parametrize(
    ("days_ago", "host", "likely"),
    [
        (9, "localhost", "(certificate has expired); have it renewed, or set this machine's clock"),
        # What OpenSSL says of it differs by version.
        (-9, "localhost", "); set this machine's clock"),
        (0, "other", "not valid for 'other'.); reach it by a name of its certificate"),
        (0, "127.0.0.9", "not valid for '127.0.0.9'.); reach it by a name of its certificate"),
    ],
)
def test_what_no_authority_helps_against_is_said_with_what_does(
    days_ago: int, host: str, likely: str, tmp_path: Path
) -> None:
    made = certificates.make_certificate(tmp_path, days_ago=days_ago)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(there, here, server_side=True)
    client = TLS(ca=str(made.cert)).context().wrap_bio(here, there, server_hostname=host)
    for each in (client, server):
        with suppress(ssl.SSLWantReadError):
            each.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError) as raised:
        client.do_handshake()
    assert f"{likely}, or trust anybody with --insecure" in str(explain(raised.value, Target()))


@pytest.mark.parametrize(
    ("code", "message", "likely"),
    [
        (20, "unable to get local issuer certificate", "name its authority with --ca FILE"),
        (26, "unsuitable certificate purpose", "have it, or its authority's, made anew"),
        # Of Python 3.13, of an authority as openssl makes one by default, even with --ca.
        (92, "CA cert does not include key usage extension", "have it, or its authority's, made"),
    ],
)
def test_an_authority_is_asked_for_only_where_one_is_missing(
    code: int, message: str, likely: str
) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    assert f"({message}); {likely}" in str(explain(error, Target()))


def test_an_address_that_answers_nothing_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uppercase.commands.bench._plan.CONNECT_TIMEOUT", 0.3)
    with (
        deaf_listener() as server,
        pytest.raises(NetworkError, match=r"did not answer within 0\.3 s"),
    ):
        connect_tcp(Target(port=server.port))


def test_a_server_that_is_silent_in_the_handshake_may_not_speak_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has let us in: the address is right, and no firewall is between."""
    monkeypatch.setattr("uppercase.commands.bench._plan.CONNECT_TIMEOUT", 0.3)
    over = threading.Event()

    def say_nothing(_: object, __: object) -> None:
        over.wait(30)

    with tcp_server(say_nothing) as server:
        with pytest.raises(NoReply, match=r"did not answer within 0\.3 s; does it speak TLS\?"):
            connect_tcp(Target(server.host, server.port, tls=TLS(verify=False)))
        over.set()


def test_an_address_that_answers_nothing_leaves_time_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as IPv6's where a network has it in name only. It is not waited for again."""
    monkeypatch.setattr("uppercase.commands.bench._plan.CONNECT_TIMEOUT", 4.0)
    tls = TLS(ca=str((certificate := make_certificate(tmp_path)).path))
    with deaf_listener() as deaf, tcp_server(wrap=certificate.wrap) as server:
        addresses = [resolve(Target(port=each.port))[0] for each in (deaf, server)]
        monkeypatch.setattr("uppercase.commands.bench._plan.resolve", lambda _: addresses)
        started = time.monotonic()
        for connection in next(connect(Target(tls=tls), 4)):
            assert connection.getpeername() == (server.host, server.port)
            connection.close()
        assert 2 <= time.monotonic() - started < 4


@pytest.mark.parametrize("kind", [None, ssl.SSLZeroReturnError])
def test_a_server_that_closes_in_the_handshake_has_sent_nothing_that_was_cut(
    kind: type[OSError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the CPython 3.11.2 of Debian 12 takes for an orderly end."""

    def close(connection: socket.socket, _: object) -> None:
        connection.recv(1 << 16)

    if kind is not None:
        monkeypatch.setattr(ssl.SSLContext, "wrap_socket", mock.Mock(side_effect=kind))
    with (
        tcp_server(close) as server,
        pytest.raises(NetworkError, match="broke the connection off"),
    ):
        connect_tcp(Target(server.host, server.port, tls=TLS(verify=False)))


def test_an_address_that_takes_no_datagrams_is_said_so() -> None:
    """Broadcast, of which a client has to say that it means it."""
    with pytest.raises(NetworkError, match=r"cannot reach UDP 255\.255\.255\.255:12000"):
        reachable(Target("255.255.255.255", udp=True))


def test_a_unix_socket_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="nothing listens on UNIX socket"):
        connect_tcp(Target(unix=str(tmp_path / "socket")))


@pytest.mark.skipif(sys.platform != "linux", reason="others wait for the queue, or refuse")
@in_reactor
async def test_a_unix_socket_whose_queue_is_full_is_said_so(tmp_path: Path) -> None:
    """As bench connects, and as all others do."""
    path = str(tmp_path / "socket")
    target = Target(unix=path)
    said = "Resource temporarily unavailable; too many clients wait there already"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        with pytest.raises(NetworkError, match=said):
            connect_tcp(target)
        with pytest.raises(NetworkError, match=said):
            await ask(target, b"hello")


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".org", "ex..org"])
def test_a_name_that_does_not_resolve_is_named(host: str) -> None:
    with pytest.raises(NetworkError, match="cannot resolve"):
        resolve(Target(host))


@pytest.mark.parametrize("host", ["fe80::1", "FE80::1"])
def test_a_link_local_address_without_an_interface_is_told_to_need_one(host: str) -> None:
    for udp in (False, True):
        target = Target(host, 7, udp=udp)
        error = explain(OSError(errno.EINVAL, "Invalid argument."), target)
        assert str(error).endswith(
            f": Invalid argument; a link-local address needs its interface, as in {host}%eth0"
        )
    assert "interface" not in str(explain(OSError(errno.EINVAL, "x"), Target("fe80::1%lo", 7)))


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.EACCES, errno.EPERM])
def test_what_a_firewall_s_icmp_becomes_makes_one_think_of_it(number: int) -> None:
    """IPv4's is `No route to host`, and IPv6's `Permission denied`; our own has no ICMP."""
    said = os.strerror(number)
    target = Target("192.0.2.1", 7, udp=True)
    hint = "is the address right, and no firewall between?"
    found = str(explain(OSError(number, said), target))
    assert found == f"cannot reach {target}: {said}; {hint}"
    assert str(explain(TimeoutError(), target)) == f"{target} did not answer; {hint}"
    found = str(explain(OSError(number, said), Target(unix="/socket")))
    assert found == f"cannot reach UNIX socket /socket: {said}"
    assert "too many clients" not in str(explain(OSError(errno.EAGAIN, ""), Target()))


def test_nothing_listens_is_said_for_the_port_that_was_asked() -> None:
    port = free_port()
    with pytest.raises(NetworkError, match=f"nothing listens on TCP 127.0.0.1:{port}; "):
        connect_tcp(Target(port=port))


def test_a_process_that_may_open_no_more_files_is_told_so() -> None:
    # Python opens these files when the first name is looked up.
    "".encode("idna")
    importlib.import_module("concurrent.futures.thread")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        for target in Target(port=7), Target(port=7, udp=True):
            with pytest.raises(UserError, match="ulimit -n"):
                reachable(target) if target.udp else connect_tcp(target)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("verify", [True, False])
def test_a_file_for_keys_that_cannot_be_written_is_named(
    verify: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python writes them for Wireshark, which a class reads TLS with."""
    _make_once.cache_clear()
    monkeypatch.setenv("SSLKEYLOGFILE", f"{tmp_path}/missing/keys")
    with pytest.raises(UserError, match=r"^cannot write SSLKEYLOGFILE=\S+/missing/keys: No such"):
        TLS(verify=verify).context()


def test_the_systems_authorities_are_read_once_and_a_file_of_them_each_time(tmp_path: Path) -> None:
    """The former takes 30 ms for each connection; the latter may be another by now."""
    assert TLS().context() is TLS().context()
    assert TLS().context() is not (trusting := TLS(verify=False).context())
    assert trusting is TLS(verify=False).context()
    ca = str(make_certificate(tmp_path).path)
    assert TLS(ca=ca).context() is not TLS(ca=ca).context()
