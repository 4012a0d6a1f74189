"""A TLS client whose every byte on the wire is under the test's control."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

T = TypeVar("T")

HANDSHAKE = 22
APPLICATION_DATA = 23


class Records:
    """Encrypts what no TLS library would send: one side's records of TLS 1.3 (RFC 8446, 5.2).

    Args:
        secret: that side's, of AES with 256 bits, which Python's own TLS agrees with itself on.
        sent: how many it has sent before.
    """

    def __init__(self, secret: bytes, sent: int = 0) -> None:
        self._cipher = AESGCM(self._expand(secret, b"tls13 key", 32))
        self._nonce = int.from_bytes(self._expand(secret, b"tls13 iv", 12), "big")
        self._count = sent

    def make(self, kind: int, content: bytes) -> bytes:
        """Return the next record."""
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
        nonce = (self._nonce ^ self._count).to_bytes(12, "big")
        self._count += 1
        return header + self._cipher.encrypt(nonce, content + bytes([kind]), header)

    def _expand(self, secret: bytes, label: bytes, size: int) -> bytes:
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(hashes.SHA384(), size, info).derive(secret)


class TLSPeer:
    """The client's half of TLS, without a transport.

    Args:
        ca: the certificate to trust.
        newest: the newest version to speak, if not any.
    """

    def __init__(self, ca: Path, newest: ssl.TLSVersion | None = None) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        if newest is not None:
            context.maximum_version = newest
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.agreed = False
        self.distrusts = False
        self.closed = False

    def flight(self) -> bytes:
        """Return what is to go on the wire now."""
        if not self.agreed and not self.distrusts:
            try:
                self._tls.do_handshake()
                self.agreed = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError:
                self.distrusts = True
        return self._outgoing.read()

    def arrived(self, data: bytes) -> None:
        """Take what came from the wire."""
        self._incoming.write(data)

    def write(self, data: bytes) -> None:
        """Encrypt."""
        self._tls.write(data)

    def close(self) -> None:
        """Write a close_notify."""
        self._wanting(self._tls.unwrap)

    def read(self) -> bytes:
        """Decrypt what has come; take note of a close_notify."""
        data = b""
        while True:
            try:
                chunk = self._tls.read(1 << 16)
            except ssl.SSLWantReadError:
                return data
            except ssl.SSLZeroReturnError:
                chunk = b""
            if not chunk:
                self.closed = True
                return data
            data += chunk

    def _wanting(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except ssl.SSLWantReadError:
            return None


class TLSClient(TLSPeer):
    """The same over a real socket.

    Args:
        skt: connected; what went before TLS has been sent on it.
        ca: the certificate to trust.
        newest: the newest version to speak, if not any.
    """

    def __init__(self, skt: socket.socket, ca: Path, newest: ssl.TLSVersion | None = None) -> None:
        super().__init__(ca, newest)
        self.socket = skt
        while not self.agreed:
            self.send()
            if not self.agreed:
                data = skt.recv(1 << 16)
                assert data, "the server ended the handshake"
                self.arrived(data)

    def __enter__(self) -> "TLSClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self) -> None:
        """Put on the wire, in one piece, what was written since the last time."""
        self.socket.sendall(self.flight())

    def ask(self, data: bytes) -> None:
        """Write and send."""
        self.write(data)
        self.send()

    def receive(self, count: int) -> bytes:
        """Read so many bytes."""
        data = self.read()
        while len(data) < count and not self.closed:
            received = self.socket.recv(1 << 16)
            assert received, f"the server ended after {data!r}"
            self.arrived(received)
            data += self.read()
        return data

    def receive_all(self) -> bytes:
        """Read up to the server's close_notify; an end without one fails."""
        data = self.receive(1 << 62)
        assert self.closed
        return data
