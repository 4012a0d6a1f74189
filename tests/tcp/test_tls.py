"""TLS connections without sockets: how they end, and what they may cost before they begin."""

import os
import re
import socket
import ssl
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certificate, make_certificate
from tests.system.processes import memory
from tests.tcp.wire import Wire, World
from tests.tls_peer import APPLICATION_DATA, HANDSHAKE, Records, TLSPeer
from uppercase.core.events import Outcome
from uppercase.limits import CLOSE_TIMEOUT, Limits
from uppercase.tcp._tls import TLSFactory, server_context

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.check_idle()


def connect(world: World, certificate: Certificate) -> Wire:
    context = server_context(str(certificate.key), str(certificate.cert))
    return Wire(TLSFactory(context, world.factory))


def agree(wire: Wire, ca: Path, newest: ssl.TLSVersion | None = None) -> TLSPeer:
    peer = TLSPeer(ca, newest)
    while (flight := peer.flight()) or not peer.agreed:
        peer.arrived(wire.send(flight))
    return peer


@pytest.mark.parametrize("version", VERSIONS)
def test_a_clients_last_words_of_the_handshake_are_answered(
    world: World, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    """Else a client that sends nothing small before all has been acknowledged asks 40 ms later."""
    wire, peer = connect(world, certificate), TLSPeer(certificate.cert, version)
    answers = []
    while (flight := peer.flight()) or not peer.agreed:
        answers.append(wire.send(flight))
        peer.arrived(answers[-1])
    assert all(answers)
    assert peer.read() == b""
    peer.close()
    assert finish(wire, peer, wire.send(peer.flight())) == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_of_the_greatest_length_is_answered_at_once(
    world: World, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert, version)
    peer.write(b"a" * (16 << 10))
    peer.arrived(wire.send(peer.flight()))
    assert peer.read() == b"A" * (16 << 10)
    wire.end()


def test_who_sends_what_is_dear_to_decrypt_is_read_little_by_little(
    world: World, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of KeyUpdates holds nobody up for long; who sends much data is read as before."""
    wire: Any = connect(world, certificate)
    peer = agree(wire, certificate.cert)
    monkeypatch.setattr("uppercase.tcp._tls.monotonic", lambda: 0.0)
    peer.write(b"a" * 300_000)
    flood = peer.flight()
    sizes = []
    while flood:
        sizes.append(wire.bufferSize)
        wire.send(flood[: sizes[-1]])
        flood = flood[sizes[-1] :]
    assert sizes[:3] == [size := sizes[0], 2 * size, 4 * size]
    assert max(sizes) == 64 << 10
    monkeypatch.setattr("uppercase.tcp._tls.monotonic", count(0.0, 0.01).__next__)
    peer.write(b"a" * 10_000)
    wire.send(peer.flight())
    assert wire.bufferSize == 1 << 10
    wire.end()


def finish(wire: Wire, peer: TLSPeer, answer: bytes) -> bytes:
    """Decrypt the server's last words, let the client end too, see the connection closed."""
    peer.arrived(answer)
    reply = peer.read()
    assert peer.closed, "the server's close_notify is missing"
    assert wire.gone
    return reply


@pytest.mark.parametrize("version", VERSIONS)
def test_a_close_notify_in_the_same_flight_loses_no_reply(
    world: World, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert, version)
    peer.write(b"hello")
    peer.close()
    assert finish(wire, peer, wire.send(peer.flight())) == b"HELLO"
    assert world.notes.outcome is Outcome.FINISHED


@pytest.mark.parametrize("version", VERSIONS)
def test_a_fin_without_close_notify_loses_no_reply(
    world: World, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert, version)
    peer.write(b"hello")
    answer = wire.send(peer.flight())
    assert finish(wire, peer, answer + wire.end()) == b"HELLO"
    assert world.notes.outcome is Outcome.FINISHED


def test_a_close_notify_ends_the_input_and_a_held_back_end_is_answered(
    certificate: Certificate,
) -> None:
    """The last line has no ending: it is a message once the client has said that it is done."""
    world = World("reverse", "line")
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert)
    peer.write(b"abc\nde")
    peer.arrived(wire.send(peer.flight()))
    assert peer.read() == b"cba\n"
    peer.close()
    assert finish(wire, peer, wire.send(peer.flight())) == b"ed"
    world.check_idle()


def test_nothing_is_read_or_kept_after_a_close_notify(
    world: World, certificate: Certificate
) -> None:
    """While a slow client takes its replies it can go on sending 4 MiB, to no effect."""
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert)
    wire.protocol.wrappedProtocol.pauseProducing()
    peer.write(b"hello")
    peer.close()
    assert wire.send(peer.flight()) == b""
    before = memory(os.getpid())
    for _ in range(4):
        wire.send(bytes(1 << 20))
    assert memory(os.getpid()) - before < 2 << 20
    wire.protocol.wrappedProtocol.resumeProducing()
    assert finish(wire, peer, wire.settle()) == b"HELLO"
    assert world.notes.outcome is Outcome.FINISHED


def test_a_client_that_never_answers_our_close_notify_is_cut_off(certificate: Certificate) -> None:
    """`segment` answers once and closes; the client stays mute."""
    world = World("uppercase", "segment")
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert)
    peer.write(b"hello")
    peer.arrived(wire.send(peer.flight()))
    assert peer.read() == b"HELLO"
    assert peer.closed
    assert wire.output_ended
    world.clock.pump([CLOSE_TIMEOUT / 10] * 9)
    assert not wire.was_aborted()
    world.clock.pump([CLOSE_TIMEOUT / 10] * 5)
    wire.settle()
    assert wire.was_aborted()
    assert world.notes.outcome is Outcome.ANSWERED
    world.check_idle()


def test_a_client_that_answers_our_close_notify_is_let_go(certificate: Certificate) -> None:
    world = World("uppercase", "segment")
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert)
    peer.write(b"hello")
    peer.arrived(wire.send(peer.flight()))
    peer.read()
    peer.close()
    wire.send(peer.flight())
    assert wire.gone
    assert not wire.was_aborted()
    assert world.notes.outcome is Outcome.ANSWERED
    world.check_idle()


def test_a_peer_that_takes_nothing_is_cut_off(world: World, certificate: Certificate) -> None:
    """The transport below TLS is what finds out."""
    wire = connect(world, certificate)
    agree(wire, certificate.cert)
    assert wire.producer is not None
    wire.producer.pauseProducing()
    world.wait(Limits().send_timeout - 1)
    assert not wire.was_aborted()
    world.wait(Limits().send_timeout / 2)
    wire.settle()
    assert wire.was_aborted()
    assert world.notes.outcome is Outcome.STALLED


def test_an_idle_connection_is_told_so_and_cut_off_if_it_stays_mute(
    world: World, certificate: Certificate
) -> None:
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert)
    world.clock.advance(Limits().idle_timeout)
    peer.arrived(wire.settle())
    peer.read()
    assert peer.closed
    assert wire.output_ended
    assert not wire.was_aborted()
    world.wait(2 * CLOSE_TIMEOUT)
    wire.settle()
    assert wire.was_aborted()
    assert world.notes.outcome is Outcome.IDLE


def test_a_record_that_comes_slowly_is_no_silence(world: World, certificate: Certificate) -> None:
    """Neither of an idle connection, nor of one that may end with its service: as in plain TCP."""
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert)
    peer.write(b"a" * 1000)
    *pieces, last = (flight := peer.flight())[:500], flight[500:900], flight[900:]
    (connection,) = world.factory.connections
    for piece in pieces:
        world.clock.advance(0.9 * Limits().idle_timeout)
        assert wire.send(piece) == b""
        assert connection.idle_since() == world.clock.seconds()
    peer.arrived(wire.send(last))
    assert peer.read() == b"A" * 1000
    wire.end()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_peer_that_falls_silent_in_the_handshake_is_cut_off(
    world: World, certificate: Certificate, share: float
) -> None:
    """Mute from the start, or after half a ClientHello."""
    wire = connect(world, certificate)
    hello = TLSPeer(certificate.cert).flight()
    if share:
        wire.send(hello[: int(len(hello) * share)])
    world.clock.advance(Limits().handshake_timeout - 0.1)
    assert not wire.was_aborted()
    world.clock.advance(0.2)
    wire.settle()
    assert wire.was_aborted()
    assert world.notes.outcome is Outcome.HANDSHAKE
    assert world.notes.closed.detail == (
        "no TLS: the handshake took over 15 s (--handshake-timeout)"
    )


def test_a_handshake_in_time_leaves_no_deadline_behind(
    world: World, certificate: Certificate
) -> None:
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert)
    world.clock.advance(2 * Limits().handshake_timeout)
    peer.write(b"still there")
    peer.arrived(wire.send(peer.flight()))
    assert peer.read() == b"STILL THERE"
    peer.close()
    wire.send(peer.flight())
    assert wire.gone


@pytest.mark.parametrize("text", [b"hello\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\xff" * 9])
def test_what_is_not_tls_is_one_counted_outcome(
    world: World, certificate: Certificate, text: bytes
) -> None:
    wire = connect(world, certificate)
    wire.send(text)
    wire.end()
    assert wire.gone
    assert world.notes.outcome is Outcome.HANDSHAKE
    assert world.notes.closed.detail.startswith("no TLS: ")


def test_a_version_before_1_2_is_refused(world: World, certificate: Certificate) -> None:
    """A ClientHello of TLS 1.1, as an old client sends it; the alert says why."""
    wire = connect(world, certificate)
    body = b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x02\xc0\x13" + b"\x01\x00"
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    answer = wire.send(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello)
    assert answer[0] == 21, "a TLS alert"
    assert answer[-1] == 70, "protocol_version"
    assert wire.output_ended
    assert not wire.was_aborted(), "a reset could destroy the alert"
    wire.end()
    assert world.notes.outcome is Outcome.HANDSHAKE
    assert "unsupported protocol" in world.notes.closed.detail


def test_a_port_check_without_a_byte_is_no_failure(world: World, certificate: Certificate) -> None:
    wire = connect(world, certificate)
    wire.end()
    assert wire.gone
    assert world.notes.outcome is Outcome.DISCONNECTED


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ending", ["close_notify", "FIN"])
def test_an_end_within_the_handshake_is_one(
    world: World, certificate: Certificate, ending: str, version: ssl.TLSVersion
) -> None:
    wire = connect(world, certificate)
    wire.send(TLSPeer(certificate.cert, version).flight())
    if ending == "FIN":
        wire.end()
    else:
        wire.send(b"\x15\x03\x03\0\2\1\0")
    assert wire.gone
    assert not wire.was_aborted()
    assert world.notes.outcome is Outcome.HANDSHAKE
    assert "broken off" in world.notes.closed.detail


@pytest.mark.parametrize("version", VERSIONS)
def test_who_breaks_tls_after_the_handshake_gets_an_alert_before_the_end(
    world: World, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert, version)
    # A record of application data that nobody has encrypted, and more that is never looked at.
    peer.arrived(wire.send(b"\x17\x03\x03\x00\x20" + bytes(32)) + wire.send(b"more"))
    with pytest.raises(ssl.SSLError, match="alert bad record mac"):
        peer.read()
    assert wire.output_ended
    assert not wire.was_aborted(), "a reset could destroy the alert"
    wire.end()
    assert wire.gone
    assert world.notes.outcome is Outcome.MALFORMED
    assert world.notes.closed.detail.startswith("broken TLS: ")


def test_a_reply_amid_a_message_of_the_handshake_ends_the_connection(
    world: World, certificate: Certificate, tmp_path: Path
) -> None:
    """OpenSSL sends nothing before it has the rest of a KeyUpdate; no client splits one."""
    context = server_context(str(certificate.key), str(certificate.cert))
    context.keylog_filename = str(tmp_path / "secrets")
    wire = Wire(TLSFactory(context, world.factory))
    agree(wire, certificate.cert)
    secret = re.search("CLIENT_TRAFFIC_SECRET_0 .* (.*)", (tmp_path / "secrets").read_text())
    assert secret
    records = Records(bytes.fromhex(secret[1]))
    wire.send(records.make(APPLICATION_DATA, b"hello") + records.make(HANDSHAKE, b"\x18\0\0\1"))
    assert wire.was_aborted()
    assert world.notes.outcome is Outcome.MALFORMED
    assert "within a message of the handshake" in world.notes.closed.detail


@pytest.mark.parametrize("agreed", [True, False])
def test_who_floods_after_breaking_tls_is_cut_off(
    world: World, certificate: Certificate, agreed: bool
) -> None:
    wire = connect(world, certificate)
    if agreed:
        agree(wire, certificate.cert)
    for _ in range(4):
        wire.send(b"x" * (1 << 20))
    assert not wire.gone
    wire.send(b"x" * (2 << 20))
    assert wire.was_aborted()


@pytest.mark.parametrize("agreed", [True, False])
def test_who_breaks_tls_and_stays_is_cut_off(
    world: World, certificate: Certificate, agreed: bool
) -> None:
    wire = connect(world, certificate)
    if agreed:
        agree(wire, certificate.cert)
    wire.send(b"this is not TLS")
    world.wait(2 * CLOSE_TIMEOUT)
    assert wire.was_aborted()
    wire.settle()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_does_not_trust_our_certificate_is_told_of_as_such(
    world: World, certificate: Certificate, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    wire = connect(world, certificate)
    peer = TLSPeer(make_certificate(tmp_path).cert, version)
    while not peer.distrusts:
        peer.arrived(wire.send(peer.flight()))
    wire.end()
    assert world.notes.outcome is Outcome.HANDSHAKE
    assert "it does not accept our certificate; " in world.notes.closed.detail
    # What is missing most often is the intermediate one, which the client cannot make good.
    assert "look at its chain" in world.notes.closed.detail
    assert world.notes.closed.detail.endswith("(tlsv1 alert unknown ca)")


def test_a_connection_in_its_handshake_does_not_hold_up_a_stop(
    world: World, certificate: Certificate
) -> None:
    wire = connect(world, certificate)
    wire.send(TLSPeer(certificate.cert).flight()[:20])
    (connection,) = world.factory.connections
    connection.drain()
    wire.settle()
    assert wire.gone
    assert world.notes.outcome is Outcome.STOPPED


def test_a_stop_answers_a_request_that_was_not_read_yet(
    world: World, certificate: Certificate
) -> None:
    """The kernel holds it, encrypted: more bytes than it will be decrypted."""
    wire = connect(world, certificate)
    peer = agree(wire, certificate.cert)
    peer.write(b"hello")
    flight = peer.flight()
    (connection,) = world.factory.connections
    wire.handle, other = socket.socketpair()
    with wire.handle, other:
        other.sendall(flight)
        connection.drain()
        assert not wire.settle()
        answer = wire.send(flight)
        wire.end()
        assert finish(wire, peer, answer) == b"HELLO"
    assert world.notes.outcome is Outcome.STOPPED
