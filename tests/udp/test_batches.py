"""Reading and sending many datagrams in one call, and one by one: the same outcome."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor

from tests.udp.helpers import (
    SERVER,
    DatagramLimits,
    Notebook,
    Time,
    answer_batch,
    applied,
    client,
    columns,
    datagram,
    packet,
    replies,
)
from uppercase.core.datagram import Destination, Origin, Replies
from uppercase.core.events import DropReason
from uppercase.core.responder import Responder
from uppercase.udp import Port, ResponderProtocol, _batches
from uppercase.udp.sockets import ask_receive_buffer, open_socket

TOGETHER = pytest.mark.skipif(_batches._recvmmsg is None, reason="no recvmmsg")
WAYS = [pytest.param(True, marks=TOGETHER), False]


SO_NO_CHECK = 11
"""Linux's socket option: datagrams without checksums, which are never cut apart."""


@pytest.fixture(autouse=True)
def nothing_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is: no reactor would bring it back."""
    monkeypatch.setattr("uppercase.udp.TURN", inf)
    monkeypatch.setattr("uppercase.core.responder.TURN", inf)


def port_on(host: str, together: bool, responder: Responder, monkeypatch: Any) -> Port:
    kind = _batches.Batches if together else _batches.OneByOne
    monkeypatch.setattr("uppercase.udp.batches_of", kind)
    sock = open_socket(host, 0)
    ask_receive_buffer(sock, DatagramLimits().receive_buffer)
    port = Port(sock, ResponderProtocol(responder, reactor), reactor)
    port.startListening()
    return port


def received(sock: socket.socket, count: int) -> list[bytes]:
    return [sock.recv(1 << 17) for _ in range(count)]


@pytest.mark.parametrize("together", WAYS)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_one_wake_up_answers_all_in_order_from_the_address_that_was_asked(
    host: str, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, short and longest ones, of several clients, to several of our addresses."""
    responder = Responder(applied())
    port = port_on(host, together, responder, monkeypatch)
    asked = {"0.0.0.0": ["127.0.0.1", "127.0.0.5"], "::": ["::1"]}.get(host, [host])
    sent = [b"", b"hello", os.urandom(100), b"a" * 65_507, b"last"]
    socks = [client(name) for name in asked for _ in range(3)]
    for index, sock in enumerate(socks):
        sock.connect((asked[index // 3], port.getHost().port))
        for data in sent:
            sock.send(data)
    port.doRead()
    for sock in socks:
        assert received(sock, len(sent)) == [data.upper() for data in sent]
        sock.close()
    assert (responder.received, responder.answered) == (len(socks) * 5, len(socks) * 5)
    assert responder.drops == {}
    port.stopListening()


@pytest.mark.parametrize("together", WAYS)
def test_the_next_wake_up_has_nothing_of_the_last_one(
    together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers are used again: shorter datagrams, other addresses and other destinations follow."""
    port = port_on("0.0.0.0", together, Responder(applied()), monkeypatch)
    with client() as one, client() as other:
        for sock, host, size in [(one, "127.0.0.1", 9), (other, "127.0.0.7", 3), (one, "", 0)]:
            where = (host or "127.0.0.1", port.getHost().port)
            for number in range(5):
                sock.sendto(b"%d" % number + b"x" * size, where)
            port.doRead()
            for number in range(5):
                assert sock.recvfrom(100) == (b"%d" % number + b"X" * size, where)
    port.stopListening()


@pytest.mark.skipif(sys.platform != "linux", reason="others tell the destination of IPv6 alone")
@pytest.mark.parametrize("together", WAYS)
def test_a_socket_of_both_families_answers_both_at_once(
    together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd opens them; IPv4 is told by two records where IPv6 has one."""
    monkeypatch.setattr(
        "uppercase.udp.batches_of", _batches.Batches if together else _batches.OneByOne
    )
    both = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    both.bind(("::", 0))
    port = Port(both, ResponderProtocol(Responder(applied()), reactor), reactor)
    port.startListening()
    number = port.getHost().port
    with client("::1") as six, client("127.0.0.1") as four:
        for _ in range(3):
            six.sendto(b"six", ("::1", number))
            four.sendto(b"four", ("127.0.0.5", number))
            port.doRead()
            assert six.recvfrom(100) == (b"SIX", ("::1", number, 0, 0))
            assert four.recvfrom(100) == (b"FOUR", ("127.0.0.5", number))
    port.stopListening()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize("together", WAYS)
def test_where_the_system_names_no_destination_it_chooses_where_replies_come_from(
    host: str, together: bool
) -> None:
    loopback = "::1" if host == "::" else "127.0.0.1"
    with open_socket(host, 0) as sock, client(loopback) as peer:
        peer.bind((loopback, 0))
        batches = (_batches.Batches if together else _batches.OneByOne)(sock)
        origins = [Origin.of(peer.getsockname(), batches.bound)] * 2
        assert not batches.send_replies(Replies([b"one", b"two"], origins, ()))
        assert received(peer, 2) == [b"one", b"two"]


@pytest.mark.parametrize("together", WAYS)
def test_what_is_cut_or_not_taken_costs_no_neighbour(
    together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A truncated one, one to a broadcast address and a reply that the system refuses."""
    responder, notebook = Responder(applied()), Notebook()
    monkeypatch.setattr(_batches, "UDP_READ_SIZE", 10)
    port = port_on("0.0.0.0", together, responder, monkeypatch)
    where = ("127.0.0.1", port.getHost().port)
    with client() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for data, host in [(b"one", where[0]), (b"x" * 11, where[0]), (b"x", "127.255.255.255")]:
            sock.sendto(data, (host, where[1]))
        sock.sendto(b"two", where)
        port.doRead()
        assert received(sock, 2) == [b"ONE", b"TWO"]
    here = Destination("127.0.0.1", where[1])
    refused = packet(b"no", ("255.255.255.255", 50_000), here)
    taken = packet(b"yes", ("127.0.0.1", 50_001), here)
    protocol: Any = port.protocol
    protocol.receive_batch(*columns([taken, refused, taken]))
    assert responder.drops == {
        DropReason.TRUNCATED: 1,
        DropReason.NOT_UNICAST: 1,
        DropReason.SEND_ERROR: 1,
    }
    assert (responder.errors, responder.answered) == ({"send-error EACCES": 1}, 4)
    assert notebook.events == []
    port.stopListening()


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many messages each call of `sendmmsg` is given, and what it returns."""
    calls: list[tuple[int, int]] = []
    send = _batches._sendmmsg

    def sendmmsg(descriptor: int, where: int, count: int, flags: int) -> Any:
        calls.append((count, send(descriptor, where, count, flags)))
        return calls[-1][1]

    monkeypatch.setattr(_batches, "_sendmmsg", sendmmsg)
    return calls


@TOGETHER
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_under_load_replies_of_one_size_to_one_client_are_handed_over_as_one(
    host: str, noted: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They arrive one by one, from the address that was asked; few, odd or long ones go alone."""
    port = port_on(host, True, Responder(applied()), monkeypatch)
    where = {"0.0.0.0": "127.0.0.5", "::": "::1"}.get(host, host), port.getHost().port
    lengths = {
        "few": ([50] * 12, 24),
        "one size each": ([100] * 20, 2),
        "two sizes": ([1000] * 9 + [7] * 11, 4),
        "too long": ([1001] * 20, 40),
        "an empty one": ([8] * 19 + [0], 40),
        "all different": (list(range(50, 70)), 40),
        "one size again": ([3] * 32, 2),
    }
    with client(where[0]) as one, client(where[0]) as other:
        for sizes, messages in lengths.values():
            for sock in (one, other):
                sock.connect(where)
                for number, size in enumerate(sizes):
                    sock.send((b"%d" % number).ljust(size, b"x")[:size])
            port.doRead()
            assert noted == [(messages, messages)]
            noted.clear()
            for sock in (one, other):
                for number, size in enumerate(sizes):
                    assert sock.recv(2000) == (b"%d" % number).ljust(size, b"X")[:size]
    port.stopListening()


@TOGETHER
def test_what_cannot_be_handed_over_as_one_goes_one_by_one_and_is_counted_so(
    noted: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies to an address that takes none, and a socket without the checksums that it needs."""
    responder = Responder(applied())
    port = port_on("127.0.0.1", True, responder, monkeypatch)
    here = Destination("127.0.0.1", port.getHost().port)
    protocol: Any = port.protocol
    with client() as sock:
        sock.bind(("127.0.0.1", 0))
        taken = Origin.of(sock.getsockname(), here)
        refused = Origin.of(("255.255.255.255", 50_000), here)
        # One alone among others that are as one is handed over as one segment, too.
        runs = [(taken, 10), (refused, 10), (taken, 9), (refused, 1), (taken, 1), (refused, 9)]
        to = [origin for origin, count in runs for _ in range(count)]
        for without_checksums in (False, True):
            port._socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, without_checksums)
            protocol.receive_batch([b"a%02d" % number for number in range(40)], to)
            expected = [b"A%02d" % place for place, origin in enumerate(to) if origin is taken]
            assert received(sock, 20) == expected
    with_checksums, without = [1, -1] * 3, [-1] * 6
    assert noted == [*zip([6, 5, 4, 3, 2, 1] * 2, with_checksums + without, strict=True)]
    assert (responder.errors, responder.answered) == ({"send-error EACCES": 40}, 40)
    assert responder.drops == {DropReason.SEND_ERROR: 40}
    port.stopListening()


@pytest.mark.parametrize("together", WAYS)
def test_more_origins_than_are_remembered_are_served(
    together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batches, "ORIGINS", 2)
    port = port_on("127.0.0.1", together, Responder(applied()), monkeypatch)
    socks = [client() for _ in range(7)]
    for _ in range(2):
        for number, sock in enumerate(socks):
            sock.sendto(b"n%d" % number, ("127.0.0.1", port.getHost().port))
        port.doRead()
        assert [sock.recv(9) for sock in socks] == [b"N%d" % number for number in range(7)]
    for sock in socks:
        sock.close()
    port.stopListening()


def test_a_switch_turns_it_off() -> None:
    script = "from uppercase.udp import _batches, sockets; "
    script += "print(type(_batches.batches_of(sockets.open_socket('::1', 0))).__name__)"
    environment = os.environ | {"UPPERCASE_PORTABLE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.stdout.strip() == b"OneByOne"


def test_words_of_32_bits_turn_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the kernel takes no reply whose ancillary data ends before its room does."""
    monkeypatch.setattr(sys, "maxsize", (1 << 31) - 1)
    assert _batches._function("sendmmsg") is None


@TOGETHER
def test_a_kernel_that_cuts_nothing_apart_gets_them_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_socket("127.0.0.1", 0) as sock:
        assert type(_batches.batches_of(sock)) is _batches.Batches
        monkeypatch.setattr(_batches, "_UDP_SEGMENT", 9_999)
        assert type(_batches.batches_of(sock)) is _batches.OneByOne


@TOGETHER
@pytest.mark.parametrize("call", ["_recvmmsg", "_sendmmsg"])
def test_where_a_filter_refuses_the_calls_they_go_one_by_one(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batches, call, lambda *_: -1)
    with open_socket("127.0.0.1", 0) as sock:
        assert type(_batches.batches_of(sock)) is _batches.OneByOne


# What is looked at together, against each datagram by itself

_SOURCES = [("192.0.2.7", 50_000), ("192.0.2.8", 50_000), ("192.0.2.7", 53), ("192.0.2.9", 0)]
_PAYLOADS = [b"", b"a", b"B", b"bad", b"ten", b"x" * 30, b"y" * 41]


def _odd(data: bytes) -> bytes:
    if data == b"bad":
        raise ValueError(data)
    return b"t" * 1000 if data == b"ten" else data.upper()


def _together(found: Responder, batch: Sequence[tuple[bytes, Origin]]) -> list[bytes]:
    given = []
    for quick, steps in found.exchange(*columns(batch)):
        found.exchanged(quick, ())
        given += [*quick.payloads, *replies(steps)]
        for step in steps:
            found.sent(step)  # type: ignore[arg-type]
    return given


@settings(deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(_PAYLOADS), st.sampled_from(_SOURCES), st.booleans()),
            max_size=4,
            unique_by=lambda each: (each[0].upper(), each[1]),
        ),
        max_size=60,
    )
)
def test_together_or_one_by_one_gives_the_same_replies_events_and_counters(batches: Any) -> None:
    """What a loop brings back, it brings in a later wake-up than it was sent in."""
    limits = DatagramLimits(max_request=40, loop_guard=3)
    books = Notebook(), Notebook()
    one, other = (Responder(applied(_odd), limits, clock=Time(), observer=book) for book in books)
    other._singly = True
    for batch in batches:
        made = [(data, Origin.of(source, SERVER, truncated)) for data, source, truncated in batch]
        singly = [datagram(data, source, SERVER, cut) for data, source, cut in batch]
        steps = answer_batch(other, singly)
        for step in steps:
            other.sent(step)  # type: ignore[arg-type]
        assert _together(one, made) == replies(steps)
    assert (one.received, one.answered, one.drops) == (other.received, other.answered, other.drops)
    assert [repr(event) for event in books[0].events] == [repr(event) for event in books[1].events]


def test_lock_step_is_ended_together_as_one_by_one() -> None:
    found = Responder(applied(), clock=Time())
    unanswered = [n for n in range(20_000) if not _together(found, [packet(b"ping %d" % n)])]
    assert unanswered == [9_999, 19_999]
