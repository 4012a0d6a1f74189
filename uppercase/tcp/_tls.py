"""TLS: its keys and certificates, and the stage that speaks it over any stream transport.

The stage is Python's own TLS, with a half-close and with deadlines. Twisted's own endpoints lose
what is owed to a peer that ends its side (they answer its close_notify with ours, and a TCP end by
tearing down), and wait forever for peers that fall silent in the handshake or never answer our
close_notify. Here both kinds of end are the end of input and no more, as in plain TCP, and each
wait has a deadline.

Python's TLS does not say which PEM file is wrong, and how. cryptography does, and is imported when
a context is made: each fault is one sentence, before anything listens.
"""

import os
import re
import ssl
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, ITransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.events import Outcome
from uppercase.core.tls import TLSLayer
from uppercase.errors import BadValue, install
from uppercase.limits import KIB
from uppercase.tcp._closing import LINGER, IOrderlyTLSTransport
from uppercase.tcp.factory import ConnectionStage, StageFactory, TransformFactory

_SUITES: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption (RFC 9325 section 4.2); all suites of
TLS 1.3 have both. OpenSSL agrees on those with DHE only if it is given parameters."""

_READS: Final = KIB, 4 * KIB, 64 * KIB
"""How much is read at once: the least, at first, and the most. 64 KiB of data cost a third of a
millisecond, and 64 KiB of KeyUpdates (RFC 8446 section 4.6.3) 200, in which nobody else is served:
peers whose input is expensive are read in small pieces."""

_EXPENSIVE: Final = 0.002
"""Seconds that one read takes to decrypt."""

_OUR_CERTIFICATE: Final = re.compile(
    "alert (unknown ca|(bad|unsupported) certificate|certificate (unknown|expired|revoked))$"
)
"""OpenSSL's words for the alerts of a peer that has looked at our certificate (RFC 8446 section
6.2): no others are about certificates, as we ask peers for none."""

_DISTRUST: Final = (
    "it does not accept our certificate; have it trust who signed that, "
    "and look at its chain, dates and names"
)

_log: Final = Logger("uppercase")


def server_context(
    private_key: str,
    cert_key: str,
    extra_chain: str | None = None,
    dh_parameters: str | None = None,
) -> ssl.SSLContext:
    """Return the context of TLS servers with one certificate: TLS 1.2 and newer.

    Args:
        private_key: a PEM file with the key, not encrypted.
        cert_key: a PEM file with the certificate; any that follow it belong to its chain.
        extra_chain: a PEM file with more of the chain.
        dh_parameters: a PEM file with Diffie-Hellman parameters, for peers without elliptic curves.

    Raises:
        BadValue: a file is missing or does not hold what it should, the key is not the
            certificate's, or cryptography is not installed.
    """
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from cryptography.x509 import load_pem_x509_certificates
    except ImportError as error:
        raise BadValue(
            f"TLS needs cryptography ({error}); install it with: {install('tls')}"
        ) from error
    key = _load(private_key, "private key", lambda data: load_pem_private_key(data, None))
    chain = [cert_key, *([] if extra_chain is None else [extra_chain])]
    (leaf, *_), *_ = [_load(path, "certificate", load_pem_x509_certificates) for path in chain]
    if _load(cert_key, "usable certificate", lambda _: leaf.public_key()) != key.public_key():
        raise BadValue(
            f"the private key in {private_key!r} does not belong to the (first) certificate in "
            f"{cert_key!r}; give the two that were made together as privateKey= and certKey="
        )
    _warn_of_dates(leaf, cert_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could keep us busy by asking for new keys within TLS 1.2.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Without a ticket nothing would acknowledge a client's last words of the handshake for 40 ms,
    # and most hold their request back that long.
    context.num_tickets = 1
    try:
        context.set_ciphers(_SUITES)
        if dh_parameters is not None:
            load_dh = context.load_dh_params
            _load(dh_parameters, "Diffie-Hellman parameters", lambda _: load_dh(dh_parameters))
        if extra_chain is None:
            context.load_cert_chain(cert_key, private_key)
        else:
            # It takes one file only, and in a container that may be the only place for one.
            memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
            with TemporaryDirectory(dir=memory) as folder:
                whole = Path(folder, "chain.pem")
                whole.write_bytes(b"\n".join(_load(path, "certificate", bytes) for path in chain))
                context.load_cert_chain(whole, private_key)
    except (OSError, ValueError) as error:
        raise BadValue(
            f"OpenSSL refuses the key in {private_key!r} or a certificate in "
            f"{' or '.join(map(repr, chain))} ({error})"
        ) from error
    return context


def _warn_of_dates(certificate: Any, path: str) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= datetime.now(UTC) <= end:
        _log.warn(
            "the certificate in {path!r} is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d} only: "
            "clients that verify it will refuse; renew it, or set this machine's clock",
            path=path,
            start=start,
            end=end,
        )


def _load(path: str, what: str, load: Callable[[bytes], Any]) -> Any:
    """Read a PEM file."""
    try:
        with open(path, "rb") as file:
            os.lseek(file.fileno(), 0, os.SEEK_SET)  # OpenSSL reads it again, and waits at a pipe.
            data = file.read()
    except (OSError, ValueError) as error:  # the latter for a name with a zero in it
        raise BadValue(
            f"cannot read the {what} file {path!r}: {getattr(error, 'strerror', error)}; files are "
            "named by privateKey= and certKey="
        ) from error
    try:
        return load(data)
    except TypeError as error:
        raise BadValue(
            f"the {what} in {path!r} is encrypted, which a service cannot use; decrypt it with: "
            f"openssl pkey -in {path} -out NEWFILE"
        ) from error
    # As cryptography raises for other content: ValueError, UnsupportedAlgorithm.
    except Exception as error:
        raise BadValue(
            f"the file {path!r} holds no {what} in PEM form (-----BEGIN ...); {error}"
        ) from error


@implementer(IOrderlyTLSTransport, IHalfCloseableProtocol)
class TLSProtocol(ConnectionStage):
    """One TLS connection: the protocol of what is below, the transport of what is above.

    It writes at once: a reply is on its way before we act on a close_notify that came after the
    request.

    Attributes:
        input_ended: nothing more will be read, whatever arrives.
        wire_received: bytes that came from below and whose content was delivered.
    """

    def __init__(self, factory: Any, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        # Of the instance: the base's `__getattr__` makes attributes of the class slow to read.
        self.input_ended = False
        self.wire_received = 0
        self._layer = TLSLayer(factory.context)
        self._broken = False
        # Nothing more can be encrypted: we have said goodbye, or an alert was the last word.
        self._output_ended = False
        self._thrown_away = 0

    def makeConnection(self, transport: ITransport) -> None:
        """Wait for a handshake; what is above is connected at once and waits for input."""
        # The transport that reads: with PROXY headers, the one below their stage.
        self._reader: Any = getattr(transport, "transport", transport)
        self._reader.bufferSize = _READS[1]
        super().makeConnection(transport)
        if (lab := self.factory.served.lab) is not None:
            self._began += lab.accept_delay  # Until then nothing is read.

    def dataReceived(self, data: bytes) -> None:
        """Take what came from below, and deliver its content as one."""
        if self.input_ended:
            # What comes after the end of TLS is thrown away; a flood of it is cut off.
            self._thrown_away += len(data)
            if self._thrown_away > LINGER:
                self.abortConnection()
            return
        layer, text = self._layer, list[bytes]()
        agreed, began = layer.agreed, monotonic()
        try:
            ended = layer.receive(data, text)
        except ssl.SSLError as error:
            # Nothing can be encrypted any more, so what came with it is not answered either.
            self._flush()
            self._break_off((error.reason or str(error)).lower().replace("_", " "))
        else:
            if layer.agreed is not agreed:
                self.done()
            self._pace(len(data), monotonic() - began)
            if text:
                self.wrappedProtocol.dataReceived(b"".join(text))
            if ended:
                self._end_input()
            self._flush()
        self.wire_received += len(data)
        if not self.input_ended:
            self.wrappedProtocol.input_taken()

    def _pace(self, size: int, seconds: float) -> None:
        """Read less at once after what was expensive, and more after a read that was full."""
        least, _, most = _READS
        if seconds > _EXPENSIVE:
            self._reader.bufferSize = max(least, size // 16)
        elif self._reader.bufferSize == size < most:
            self._reader.bufferSize = 2 * size

    def write(self, data: bytes) -> None:
        if self._output_ended or not self._layer.agreed:
            return
        try:
            records = self._layer.encrypt(data)
        except ssl.SSLError:
            # No client splits a message of the handshake.
            why = "broken TLS: a reply was due within a message of the handshake"
            self.end_with(Outcome.MALFORMED, why)
            self.abortConnection()
            return
        self.transport.write(records)

    def _flush(self) -> None:
        """Send what OpenSSL has to say, if anything."""
        outgoing = self._layer.outgoing
        if outgoing.pending:
            self.transport.write(outgoing.read())

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def readConnectionLost(self) -> None:
        """TCP's end of input: with or without a close_notify before it, the peer is done."""
        if self._broken:
            self.wrappedProtocol.readConnectionLost()
        else:
            self._end_input()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended_early()
        self.input_ended = True
        super().connectionLost(reason)

    def identified(self) -> None:
        self.wrappedProtocol.identified()

    def end_with(self, outcome: Outcome, detail: str) -> None:
        self.wrappedProtocol.end_with(outcome, detail)

    def loseConnection(self) -> None:
        """Send what is owed and a close_notify, then close without waiting for the peer's.

        Within a handshake nothing is owed: the connection is aborted.
        """
        self._say_goodbye()
        super().loseConnection()

    def loseWriteConnection(self) -> None:
        """Send what is owed, a close_notify and TCP's end of output; input goes on."""
        self._say_goodbye()
        self.transport.loseWriteConnection()

    def abortConnection(self) -> None:
        """Close at once, by a reset."""
        self._output_ended = self.disconnecting = True
        self.transport.abortConnection()

    def _say_goodbye(self) -> None:
        """Write a close_notify, unless an alert was the last word."""
        if not (self._layer.agreed or self._output_ended):
            self.abortConnection()
        elif not self._output_ended:
            self._output_ended = True
            self.transport.write(self._layer.end_output())

    def _end_input(self) -> None:
        """Tell what is above that the peer sends no more; within the handshake that is its end."""
        if self.input_ended:
            return
        self.input_ended = True
        if self._layer.agreed:
            self.wrappedProtocol.readConnectionLost()
        else:
            self._ended_early()
            self.transport.loseConnection()

    def _break_off(self, why: str) -> None:
        """Close, because TLS cannot go on; the alert that says so has been written."""
        self.input_ended = self._output_ended = self._broken = True
        self.done()
        outcome, words = Outcome.MALFORMED, f"broken TLS: {why}"
        if _OUR_CERTIFICATE.search(why):
            outcome, words = Outcome.HANDSHAKE, f"no TLS: {_DISTRUST} ({why})"
        elif not self._layer.agreed:
            did = "it gave up" if " alert " in why else "what it sent is not TLS as we do it"
            outcome, words = Outcome.HANDSHAKE, f"no TLS: {did} ({why})"
        self.wrappedProtocol.break_off(outcome, words)

    def _ended_early(self) -> None:
        """Note an end within the handshake that we did not bring about.

        Without a byte it was a check for an open port: no failure.
        """
        if not self._layer.agreed and not self.disconnecting and self.wire_received:
            self.end_with(Outcome.HANDSHAKE, "no TLS: the handshake was broken off")

    def too_late(self) -> None:
        seconds = self.factory.seconds
        why = f"no TLS: the handshake took over {seconds:g} s (--handshake-timeout)"
        self.end_with(Outcome.HANDSHAKE, why)
        self.abortConnection()


class TLSFactory(StageFactory):
    """Puts TLS, of a context with key and certificate, in front of another factory's protocols."""

    protocol = TLSProtocol

    def __init__(self, context: ssl.SSLContext, served: TransformFactory) -> None:
        super().__init__(served, served, served.limits.handshake_timeout)
        self.context = context
