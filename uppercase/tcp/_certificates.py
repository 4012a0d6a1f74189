"""Keys and certificates from PEM files, checked before anything listens: each fault one sentence.

Python's own TLS does not say which file is wrong, and how; cryptography does, and is imported when
a context is made: plain TCP does without either.
"""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

from twisted.logger import Logger

from uppercase.errors import BadValue, install

T = TypeVar("T")

_SUITES: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption (RFC 9325 section 4.2); all suites of
TLS 1.3 have both."""

_SUITES_WITH_DH: Final = _SUITES + ":DHE+AESGCM:DHE+CHACHA20"

_log: Final = Logger("uppercase")


def server_context(
    private_key: str,
    cert_key: str,
    extra_chain: str | None = None,
    dh_parameters: str | None = None,
) -> ssl.SSLContext:
    """Return what TLS servers of one certificate have in common: TLS 1.2 and newer.

    Args:
        private_key: a PEM file with the key, not encrypted.
        cert_key: a PEM file with the certificate; any after it belong to its chain.
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
    key: Any = _load(private_key, "private key", lambda data: load_pem_private_key(data, None))
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
    # Whoever wants new keys within TLS 1.2 could have us compute.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Without a ticket nothing would acknowledge a client's last words of the handshake for 40 ms,
    # and so long most hold their request back.
    context.num_tickets = 1
    try:
        context.set_ciphers(_SUITES if dh_parameters is None else _SUITES_WITH_DH)
        if dh_parameters is not None:
            load_dh = context.load_dh_params
            _load(dh_parameters, "Diffie-Hellman parameters", lambda _: load_dh(dh_parameters))
        if extra_chain is None:
            context.load_cert_chain(cert_key, private_key)
        else:
            with TemporaryDirectory() as folder:  # One file is what it takes.
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
