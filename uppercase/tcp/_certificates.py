"""Keys and certificates from PEM files, checked before anything listens: each fault one sentence.

pyOpenSSL and cryptography are imported when a context is made: plain TCP does without them.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.logger import Logger
from twisted.python.filepath import FilePath

from uppercase.errors import BadValue, install

if TYPE_CHECKING:
    from OpenSSL.SSL import Context

T = TypeVar("T")

_SUITES: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption (RFC 9325 section 4.2); all suites of
TLS 1.3 have both."""

_SUITES_WITH_DH: Final = _SUITES + b":DHE+AESGCM:DHE+CHACHA20"

_log: Final = Logger("uppercase")


def server_context(
    private_key: str,
    cert_key: str,
    extra_chain: str | None = None,
    dh_parameters: str | None = None,
) -> "Context":
    """Return what TLS servers of one certificate have in common: TLS 1.2 and newer.

    Args:
        private_key: a PEM file with the key, not encrypted.
        cert_key: a PEM file with the certificate; any after it belong to its chain.
        extra_chain: a PEM file with more of the chain.
        dh_parameters: a PEM file with Diffie-Hellman parameters, for peers without elliptic curves.

    Raises:
        BadValue: a file is missing or does not hold what it should, the key is not the
            certificate's, or pyOpenSSL is not installed.
    """
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from cryptography.x509 import load_pem_x509_certificates
        from OpenSSL import SSL
        from twisted.internet.ssl import CertificateOptions, DiffieHellmanParameters
    except ImportError as error:
        raise BadValue(
            f"TLS needs pyOpenSSL ({error}); install it with: {install('tls')}"
        ) from error
    key: Any = _load(private_key, "private key", lambda data: load_pem_private_key(data, None))
    chain: list[Any] = [*_load(cert_key, "certificate", load_pem_x509_certificates)]
    if extra_chain is not None:
        chain += _load(extra_chain, "certificate", load_pem_x509_certificates)
    if chain[0].public_key() != key.public_key():
        raise BadValue(
            f"the private key in {private_key!r} does not belong to the (first) certificate in "
            f"{cert_key!r}; give the two that were made together as privateKey= and certKey="
        )
    parameters: Any = None
    if dh_parameters is not None:
        _load(dh_parameters, "Diffie-Hellman parameters", bytes)
        parameters = DiffieHellmanParameters.fromFile(FilePath(dh_parameters))
    leaf, *others = chain
    _warn_of_dates(leaf, cert_key)
    try:
        # Twisted hands these on to pyOpenSSL, which has wanted cryptography's own since 24.3.
        options = CertificateOptions(
            privateKey=key, certificate=leaf, extraCertChain=others, dhParameters=parameters
        )
        context: Context = options.getContext()
        context.set_cipher_list(_SUITES if dh_parameters is None else _SUITES_WITH_DH)
    except (ValueError, TypeError, SSL.Error) as error:
        raise BadValue(
            f"OpenSSL refuses the key in {private_key!r} or the certificate in {cert_key!r} "
            f"({error})"
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


def _load(path: str, what: str, load: Callable[[bytes], T]) -> T:
    """Read a PEM file."""
    try:
        with open(path, "rb") as file:
            return load(file.read())
    except OSError as error:
        raise BadValue(
            f"cannot read the {what} file {path!r}: {error.strerror or error}"
        ) from error
    except TypeError as error:
        raise BadValue(
            f"the {what} in {path!r} is encrypted, which a service cannot use; decrypt it with: "
            f"openssl pkey -in {path} -out NEWFILE"
        ) from error
    # What cryptography raises for other content: ValueError, UnsupportedAlgorithm.
    except Exception as error:
        raise BadValue(
            f"the file {path!r} holds no {what} in PEM form (-----BEGIN ...); {error}"
        ) from error
