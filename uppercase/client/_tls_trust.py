"""How the library judges a server's certificate; imports pyOpenSSL, which is an extra."""

from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import Error as NotPem
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from zope.interface import implementer

from uppercase.errors import UserError

__all__ = ["TrustAnybody", "client_options"]

_END = b"-----END CERTIFICATE-----"


def client_options(host: str, ca: str | None) -> IOpenSSLClientConnectionCreator:
    """Verify the certificate and that it is for `host`.

    Args:
        host: a name or an address.
        ca: a PEM file of the authorities to trust; without it the system's are trusted.

    Raises:
        UserError: the file cannot be used.
    """
    if ca is None:
        return optionsForClientTLS(host)
    try:
        with open(ca, "rb") as file:
            blocks = file.read().split(_END)[:-1]
        authorities = [Certificate.loadPEM(block + _END) for block in blocks]
    except (OSError, NotPem, ValueError) as error:
        raise UserError(f"got ca={ca!r}, which cannot be used: {error}") from error
    if not authorities:
        raise UserError(f"got ca={ca!r}, which holds no certificate; PEM is accepted")
    return optionsForClientTLS(host, trustRoot=trustRootFromCertificates(authorities))


@implementer(IOpenSSLClientConnectionCreator)
class TrustAnybody:
    """Encrypt, and verify nothing."""

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N802
        """Return a connection for Twisted to drive."""
        return SSL.Connection(CertificateOptions(verify=False).getContext(), None)
