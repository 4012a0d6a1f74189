"""TLS without a transport: Python's own, between buffers in memory."""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from uppercase.limits import KIB

_PIECE: Final = 16 * KIB
"""How much OpenSSL is given, and gives, at once: its buffers grow to the largest piece and never
shrink. The most that one TLS record carries (RFC 8446 section 5.1)."""


class TLSLayer:
    """One side of a TLS connection: decrypts what has come, encrypts what is to go.

    Args:
        context: with a key and a certificate on the server's side.
        server: the name or address that the client asks for; None on the server's side.

    Attributes:
        agreed: the handshake is over.
        outgoing: what TLS itself has to send: its handshake, alerts, new keys.

    Raises:
        ValueError: the server cannot have such a name.
    """

    def __init__(self, context: ssl.SSLContext, server: str | None = None) -> None:
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self.outgoing, server_side=server is None, server_hostname=server
        )
        self.agreed = False

    def receive(self, data: bytes, text: list[bytes]) -> bool:
        """Take what has come, b"" to begin, and add what it holds to the text.

        Returns:
            Whether there was a close_notify in it: what comes after that is not read.

        Raises:
            ssl.SSLError: TLS cannot go on; `outgoing` has the alert that says so.
        """
        if len(data) > _PIECE:
            return any(self.receive(piece, text) for piece in _pieces(data))
        incoming, tls = self._incoming, self._tls
        incoming.write(data)
        try:
            if not self.agreed:
                tls.do_handshake()
                self.agreed = True
            # Invariant: a piece has room for any record, so that what OpenSSL still holds of one is
            # not whole.
            while incoming.pending:
                chunk = tls.read(_PIECE)
                if not chunk:
                    return True
                text.append(chunk)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            return True
        return False

    def encrypt(self, data: bytes) -> bytes:
        """Return the records of what is to go.

        Raises:
            ssl.SSLError: the peer has begun a message of the handshake, such as a KeyUpdate:
                nothing can be encrypted before the rest of it has come.
        """
        if len(data) > _PIECE:
            return b"".join(map(self.encrypt, _pieces(data)))
        self._tls.write(data)
        return self.outgoing.read()

    def end_output(self) -> bytes:
        """Return a close_notify; nothing can be encrypted after that."""
        # It has been written once OpenSSL looks for the peer's, which need not be there.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        return self.outgoing.read()


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
