"""The client's TLS in memory: when what is above is connected, and how its connection ends."""

import re
import ssl
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.certificates import make_certificate
from tests.tls_peer import HANDSHAKE, Records
from uppercase.client.network import TLSClient, explain_loss
from uppercase.client.target import TLS, Target
from uppercase.core.tls import TLSLayer


class Above(Protocol):
    """What the client's TLS connects."""

    transport: Any = None

    def __init__(self) -> None:
        self.came = b""
        self.ended: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.came += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = reason.value


class Wire(StringTransport):
    def unregisterProducer(self) -> None:
        """Do nothing where there is none, as the reactor's transports do."""
        self.producer = None


class Conversation:
    """A client, and a server of `TLSLayer`, each with what the other has sent it."""

    def __init__(self, path: Path, tls: TLS, host: str = "127.0.0.1") -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.keylog_filename = str(path.with_name("secrets"))
        self.server = TLSLayer(context)
        self.above = Above()
        self.client = TLSClient(self.above, tls.context(), host)
        self.wire: Any = Wire()  # type: ignore[no-untyped-call]
        self.client.makeConnection(self.wire)  # type: ignore[no-untyped-call]
        self.came: list[bytes] = []
        self.client_is_done = False

    def pass_on(self, said: bytes = b"") -> None:
        """Give each side what the other says, until both are silent."""
        while sent := self.wire.value():
            self.wire.clear()
            self.client_is_done |= self.server.receive(sent, self.came)
            said += self.server.outgoing.read()
            self.client.dataReceived(said)
            said = b""
        if said:
            self.client.dataReceived(said)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_certificate(folder := tmp_path_factory.mktemp("tls"), "loopback")
    (folder / "both.pem").write_bytes(made.key.read_bytes() + made.cert.read_bytes())
    return folder / "both.pem"


@pytest.fixture
def conversation(certificate: Path) -> Conversation:
    """Return one whose handshake is over."""
    conversation = Conversation(certificate, TLS(ca=str(certificate)))
    before = conversation.above.transport
    conversation.pass_on()
    assert (before, conversation.above.transport) == (None, conversation.client)
    assert conversation.client.shaken.called
    return conversation


def test_bytes_go_both_ways_in_any_pieces(conversation: Conversation) -> None:
    conversation.above.transport.write(b"hello" * 10_000)
    conversation.pass_on()
    assert b"".join(conversation.came) == b"hello" * 10_000
    for byte in conversation.server.encrypt(b"HELLO"):
        conversation.client.dataReceived(bytes([byte]))
    assert conversation.above.came == b"HELLO"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_who_is_somebody_else_is_not_spoken_to(host: str, certificate: Path) -> None:
    conversation = Conversation(certificate, TLS(ca=str(certificate)), host)
    with pytest.raises(ssl.SSLError, match="bad certificate"):
        conversation.pass_on()
    conversation.client.connectionLost(Failure(CONNECTION_DONE))
    failures: list[Failure] = []
    conversation.client.shaken.addErrback(failures.append)
    assert failures[0].check(ssl.SSLCertVerificationError)
    assert conversation.above.transport is None
    assert conversation.above.ended is None
    assert conversation.wire.disconnecting


def test_a_scope_is_no_part_of_whom_it_is_for(certificate: Path) -> None:
    conversation = Conversation(certificate, TLS(ca=str(certificate)), "::1%lo")
    conversation.pass_on()
    assert conversation.client.shaken.called


def test_an_end_counts_only_if_the_server_says_so(conversation: Conversation) -> None:
    """Anybody in between can end a TCP connection."""
    conversation.client.connectionLost(Failure(CONNECTION_DONE))
    assert isinstance(conversation.above.ended, ConnectionLost)


def test_the_servers_goodbye_ends_it_in_order(conversation: Conversation) -> None:
    """A producer that is registered meanwhile does not hold the end up."""
    conversation.above.transport.registerProducer(conversation.above, True)
    conversation.client.dataReceived(
        conversation.server.encrypt(b"HELLO") + conversation.server.end_output()
    )
    assert conversation.above.came == b"HELLO"
    assert (conversation.wire.disconnecting, conversation.wire.producer) == (True, None)
    assert conversation.server.receive(conversation.wire.value(), [])
    conversation.client.connectionLost(Failure(CONNECTION_DONE))
    assert isinstance(conversation.above.ended, ConnectionDone)


def test_what_crosses_our_goodbye_still_comes(conversation: Conversation) -> None:
    crosses = conversation.server.encrypt(b"HELLO")
    conversation.above.transport.loseConnection()
    conversation.above.transport.write(b"too late")
    conversation.pass_on(crosses)
    assert (conversation.above.came, conversation.came) == (b"HELLO", [])
    assert conversation.client_is_done
    assert not conversation.wire.disconnecting
    conversation.client.dataReceived(conversation.server.end_output())
    assert conversation.wire.disconnecting


def test_what_is_no_tls_ends_it_with_its_error(conversation: Conversation) -> None:
    conversation.client.dataReceived(b"hello, this is no record of TLS\r\n")
    assert conversation.wire.disconnecting
    conversation.client.connectionLost(Failure(CONNECTION_DONE))
    assert isinstance(conversation.above.ended, ssl.SSLError)


def test_a_message_amid_one_of_the_handshake_ends_it_with_its_error(
    conversation: Conversation, certificate: Path
) -> None:
    """OpenSSL sends nothing before it has the rest of a KeyUpdate; no server splits one."""
    secrets = certificate.with_name("secrets").read_text()
    secret = re.findall("SERVER_TRAFFIC_SECRET_0 .* (.*)", secrets)[-1]
    records = Records(bytes.fromhex(secret), sent=2)  # its tickets
    conversation.client.dataReceived(records.make(HANDSHAKE, b"\x18\0\0\1"))
    conversation.above.transport.write(b"hello")
    assert conversation.wire.disconnected
    conversation.client.connectionLost(Failure(CONNECTION_DONE))
    said = str(explain_loss(Target(tls=TLS()), conversation.above.ended))
    assert "does not speak TLS as we do" in said
