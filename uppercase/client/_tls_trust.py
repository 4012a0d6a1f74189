"""How a server's certificate is judged, and what is wrong with it; imports pyOpenSSL, an extra."""

import ssl
from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL
from OpenSSL.crypto import Error as NotPem
from service_identity import VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet import ssl as twisted_ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from uppercase.client.target import TLS, unusable_authorities

_END: Final = b"-----END CERTIFICATE-----"


@implementer(IOpenSSLClientConnectionCreator)
class Trust:
    """Makes one TLS connection that judges the server's certificate as told."""

    def __init__(self, host: str, tls: TLS) -> None:
        self._host = host
        self._is_address = isIPAddress(host) or isIPv6Address(host)
        self._verify = tls.verify
        self._verdict = ""
        root = None
        if tls.verify:
            root = twisted_ssl.platformTrust() if tls.ca is None else _authorities(tls.ca)
        self._options = twisted_ssl.CertificateOptions(trustRoot=root)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N802
        self._connection: SSL.Connection = SSL.Connection(self._options.getContext(), None)
        if not self._is_address:
            self._connection.set_tlsext_host_name(self._host.encode("idna"))
        if self._verify:
            self._connection.set_verify(SSL.VERIFY_PEER, self._judge)
        return self._connection

    def name_fits(self) -> bool:
        """Return whether the certificate is for the host; to be asked when hands are shaken."""
        try:
            if self._verify and self._is_address:
                verify_ip_address(self._connection, self._host)
            elif self._verify:
                verify_hostname(self._connection, self._host.encode("idna").decode())
        except VerificationError:
            kind = "IP address" if self._is_address else "Hostname"
            self._verdict = f"{kind} mismatch, certificate is not valid for {self._host!r}."
            return False
        return True

    def as_ssl_error(self, error: BaseException | None) -> OSError:
        """Return what a socket of the standard library would have raised."""
        if self._verdict:
            untrusted = ssl.SSLCertVerificationError()
            untrusted.verify_message = self._verdict
            return untrusted
        if not isinstance(error, SSL.Error):
            return ssl.SSLEOFError()
        failed = ssl.SSLError()
        # OpenSSL's queue of errors, as (library, function, reason); the last one says most.
        reasons = error.args[0] if error.args else []
        if reasons:
            failed.reason = reasons[-1][2].upper().replace(" ", "_")
        return failed

    def _judge(self, _: Any, __: Any, error: int, depth: int, accepted: int) -> bool:
        """Keep OpenSSL's word on a certificate that it does not accept: pyOpenSSL does not."""
        if not accepted:
            binding = Binding()
            word = binding.lib.X509_verify_cert_error_string(error)
            self._verdict = binding.ffi.string(word).decode()
        return bool(accepted)


def _authorities(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            blocks = file.read().split(_END)[:-1]
        authorities = [twisted_ssl.Certificate.loadPEM(block + _END) for block in blocks]
    except (OSError, NotPem, ValueError) as error:
        raise unusable_authorities(path, getattr(error, "strerror", None) or "not PEM") from error
    if not authorities:
        raise unusable_authorities(path, "no certificate in it")
    return twisted_ssl.trustRootFromCertificates(authorities)
